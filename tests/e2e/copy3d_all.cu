/* Boxes: cudaMalloc3D, cudaMemcpy3D in every direction, offsets, slices with rows between them, and
 * batches of boxes' rows through the driver. */
#include <cuda.h>

#include "check.h"

static uint32_t seed = 1;

static void random_bytes(uint8_t *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)check_random(&seed);
}

static uint32_t sum(const uint8_t *bytes, size_t len)
{
    uint32_t s = 2166136261u;
    for (size_t i = 0; i < len; i++)
        s = (s ^ bytes[i]) * 16777619u;
    return s;
}

/* To the device, within it, and back, through pageable (0), registered (1) or pinned (2) memory. */
static void round_trip(size_t width, size_t height, size_t depth, int kind, cudaStream_t s)
{
    cudaExtent extent = make_cudaExtent(width, height, depth);
    size_t len = width * height * depth;
    uint8_t *from, *back;
    if (kind == 2) {
        CUDA(cudaMallocHost((void **)&from, len));
        CUDA(cudaMallocHost((void **)&back, len));
    } else {
        from = (uint8_t *)malloc(len);
        back = (uint8_t *)malloc(len);
        if (kind == 1) {
            CUDA(cudaHostRegister(from, len, 0));
            CUDA(cudaHostRegister(back, len, 0));
        }
    }
    random_bytes(from, len);
    memset(back, 0, len);
    cudaPitchedPtr a, b;
    CUDA(cudaMalloc3D(&a, extent));
    CUDA(cudaMalloc3D(&b, extent));
    cudaMemcpy3DParms p = {};
    p.srcPtr = make_cudaPitchedPtr(from, width, width, height);
    p.dstPtr = a;
    p.extent = extent;
    p.kind = cudaMemcpyHostToDevice;
    CUDA(s ? cudaMemcpy3DAsync(&p, s) : cudaMemcpy3D(&p));
    p.srcPtr = a;
    p.dstPtr = b;
    p.kind = cudaMemcpyDeviceToDevice;
    CUDA(s ? cudaMemcpy3DAsync(&p, s) : cudaMemcpy3D(&p));
    p.srcPtr = b;
    p.dstPtr = make_cudaPitchedPtr(back, width, width, height);
    p.kind = s ? cudaMemcpyDefault : cudaMemcpyDeviceToHost;
    CUDA(s ? cudaMemcpy3DAsync(&p, s) : cudaMemcpy3D(&p));
    CUDA(cudaStreamSynchronize(s));
    CHECK(!memcmp(from, back, len));
    printf("%zu x %zu x %zu, kind %d: %08x\n", width, height, depth, kind, sum(back, len));
    CUDA(cudaFree(a.ptr));
    CUDA(cudaFree(b.ptr));
    if (kind == 2) {
        CUDA(cudaFreeHost(from));
        CUDA(cudaFreeHost(back));
        return;
    }
    if (kind == 1) {
        CUDA(cudaHostUnregister(from));
        CUDA(cudaHostUnregister(back));
    }
    free(from);
    free(back);
}

/* A box out of the middle of one volume into the middle of another. */
static void inner_box(int kind)
{
    enum { W = 50, H = 30, D = 12, BW = 17, BH = 9, BD = 5 };
    static uint8_t from[D][H][W], back[D][H][W];
    cudaPitchedPtr device;
    random_bytes(&from[0][0][0], sizeof from);
    memset(back, 0, sizeof back);
    CUDA(cudaMalloc3D(&device, make_cudaExtent(W, H, D)));
    CUDA(cudaMemset3D(device, 0xc3, make_cudaExtent(W, H, D)));
    if (kind) {
        CUDA(cudaHostRegister(from, sizeof from, 0));
        CUDA(cudaHostRegister(back, sizeof back, 0));
    }
    cudaMemcpy3DParms p = {};
    p.srcPtr = make_cudaPitchedPtr(from, W, W, H);
    p.srcPos = make_cudaPos(11, 7, 3);
    p.dstPtr = device;
    p.dstPos = make_cudaPos(2, 19, 6);
    p.extent = make_cudaExtent(BW, BH, BD);
    p.kind = cudaMemcpyHostToDevice;
    CUDA(cudaMemcpy3D(&p));
    cudaMemcpy3DParms q = {};
    q.srcPtr = device;
    q.dstPtr = make_cudaPitchedPtr(back, W, W, H);
    q.extent = make_cudaExtent(W, H, D);
    q.kind = cudaMemcpyDeviceToHost;
    CUDA(cudaMemcpy3DAsync(&q, 0));
    CUDA(cudaDeviceSynchronize());
    for (int z = 0; z < D; z++)
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                bool in = x >= 2 && x < 2 + BW && y >= 19 && y < 19 + BH && z >= 6 && z < 6 + BD;
                CHECK(back[z][y][x] == (in ? from[z - 6 + 3][y - 19 + 7][x - 2 + 11] : 0xc3));
            }
    if (kind) {
        CUDA(cudaHostUnregister(from));
        CUDA(cudaHostUnregister(back));
    }
    CUDA(cudaFree(device.ptr));
    printf("inner box, kind %d: right\n", kind);
}

static void batches(void)
{
    enum { N = 16, LEN = 3000 };
    static uint8_t from[N][LEN], back[N][LEN];
    CUstream s;
    CUdeviceptr dst[N], src[N];
    size_t len[N];
    random_bytes(&from[0][0], sizeof from);
    CHECK(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS);
    uint8_t *device = (uint8_t *)device_alloc(sizeof from);
    for (int i = 0; i < N; i++) {
        dst[i] = (CUdeviceptr)(device + (N - 1 - i) * LEN);
        src[i] = (CUdeviceptr)from[i];
        len[i] = LEN - i;
    }
    CUmemcpyAttributes attributes[2] = {};
    size_t first[2] = {0, 5};
    attributes[0].srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
    attributes[1].srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;
    CHECK(cuMemcpyBatchAsync(dst, src, len, N, attributes, first, 2, s) == CUDA_SUCCESS);
    for (int i = 0; i < N; i++)
        CHECK(cuMemcpyDtoHAsync(back[i], dst[i], len[i], s) == CUDA_SUCCESS);
    CHECK(cuStreamSynchronize(s) == CUDA_SUCCESS);
    for (int i = 0; i < N; i++)
        CHECK(!memcmp(back[i], from[i], len[i]));
    printf("batch: right\n");
    printf("batch without copies: %d\n",
           (int)cuMemcpyBatchAsync(dst, src, len, 0, attributes, first, 2, s));
    /* Two boxes: half of the rows each, the second with rows and layers of its own. */
    CUDA_MEMCPY3D_BATCH_OP op[2] = {};
    memset(back, 0, sizeof back);
    for (int i = 0; i < 2; i++) {
        op[i].srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM;
        op[i].extent = {100, 4, 3};
        op[i].src.type = op[i].dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
        op[i].src.op.ptr.ptr = (CUdeviceptr)from[i];
        op[i].dst.op.ptr.ptr = (CUdeviceptr)device + i * LEN;
        op[i].src.op.ptr.rowLength = op[i].dst.op.ptr.rowLength = i * 120;
        op[i].src.op.ptr.layerHeight = op[i].dst.op.ptr.layerHeight = i * 5;
    }
    CUDA(cudaMemset(device, 0, 2 * LEN));
    CUDA(cudaDeviceSynchronize()); /* the stream does not wait for the default one */
    CHECK(cuMemcpy3DBatchAsync(2, op, 0, s) == CUDA_SUCCESS);
    CHECK(cuStreamSynchronize(s) == CUDA_SUCCESS);
    CUDA(cudaMemcpy(back, device, 2 * LEN, cudaMemcpyDeviceToHost));
    for (int i = 0; i < 2; i++)
        for (int at = 0; at < LEN; at++) {
            int x = at % 120, y = at / 120 % 5, z = at / 600;
            bool in = i ? x < 100 && y < 4 && z < 3 : at < 1200;
            CHECK(back[i][at] == (in ? from[i][at] : 0));
        }
    printf("batch of boxes: right\n");
    op[0].extent.depth = 0;
    printf("batch with an empty box: %d\n", (int)cuMemcpy3DBatchAsync(2, op, 0, s));
    CHECK(cuStreamDestroy(s) == CUDA_SUCCESS);
    CUDA(cudaFree(device));
}

static void refusals(void)
{
    cudaPitchedPtr device;
    static char host[4096];
    CUDA(cudaMalloc3D(&device, make_cudaExtent(16, 16, 16)));
    cudaMemcpy3DParms p = {};
    p.srcPtr = make_cudaPitchedPtr(host, 16, 16, 16);
    p.dstPtr = device;
    p.extent = make_cudaExtent(16, 16, 17);
    p.kind = cudaMemcpyHostToDevice;
    show("one slice too many", cudaMemcpy3D(&p));
    p.extent = make_cudaExtent(16, 16, 0);
    show("no slices", cudaMemcpy3D(&p));
    p.extent = make_cudaExtent(17, 16, 1);
    show("wider than a row", cudaMemcpy3D(&p));
    show("nothing said", cudaMemcpy3D(NULL));
    cudaGetLastError();
    CUDA(cudaFree(device.ptr));
}

int main(void)
{
    cudaStream_t s;
    CUDA(cudaStreamCreate(&s));
    for (int kind = 0; kind < 3; kind++) {
        round_trip(1, 1, 1, kind, 0);
        round_trip(64, 64, 64, kind, 0);
        round_trip(33, 7, 900, kind, s);
        round_trip(512, 3, 5, kind, s);
        round_trip(700, 500, 3, kind, 0);
        round_trip(300001, 2, 2, kind, s);
    }
    inner_box(0);
    inner_box(1);
    batches();
    refusals();
    CUDA(cudaStreamDestroy(s));
    return 0;
}
