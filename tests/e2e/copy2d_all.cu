/* Rectangles: every direction, every kind of host memory, pitches and offsets, few wide rows and
 * many narrow ones, synchronous and in a stream. */
#include <cuda.h>

#include "check.h"

enum { KINDS = 4 };
static const char *const kinds[KINDS] = {"pageable", "registered", "pinned", "device"};

struct area {
    int kind;
    uint8_t *at;
    size_t len;
};

static struct area area_new(int kind, size_t len)
{
    struct area a = {kind, NULL, len};
    if (kind == 3) {
        a.at = (uint8_t *)device_alloc(len);
    } else if (kind == 2) {
        CUDA(cudaHostAlloc((void **)&a.at, len, cudaHostAllocDefault));
    } else {
        a.at = (uint8_t *)malloc(len);
        if (kind == 1)
            CUDA(cudaHostRegister(a.at, len, cudaHostRegisterDefault));
    }
    return a;
}

static void area_free(struct area *a)
{
    if (a->kind == 3)
        CUDA(cudaFree(a->at));
    else if (a->kind == 2)
        CUDA(cudaFreeHost(a->at));
    else {
        if (a->kind == 1)
            CUDA(cudaHostUnregister(a->at));
        free(a->at);
    }
}

static void area_write(struct area *a, const uint8_t *bytes)
{
    if (a->kind == 3)
        CUDA(cudaMemcpy(a->at, bytes, a->len, cudaMemcpyHostToDevice));
    else
        memcpy(a->at, bytes, a->len);
}

static void area_read(const struct area *a, uint8_t *bytes)
{
    if (a->kind == 3)
        CUDA(cudaMemcpy(bytes, a->at, a->len, cudaMemcpyDeviceToHost));
    else
        memcpy(bytes, a->at, a->len);
}

static uint32_t sum(const uint8_t *bytes, size_t len)
{
    uint32_t s = 2166136261u;
    for (size_t i = 0; i < len; i++)
        s = (s ^ bytes[i]) * 16777619u;
    return s;
}

/* One shape between all pairs; what the rows around it hold must stay. */
static void shape(size_t width, size_t height, size_t dst_pitch, size_t src_pitch, cudaStream_t s)
{
    size_t dst_len = dst_pitch * (height + 2) + 64, src_len = src_pitch * (height + 2) + 64;
    uint8_t *from = (uint8_t *)malloc(src_len), *want = (uint8_t *)malloc(dst_len);
    uint8_t *got = (uint8_t *)malloc(dst_len);
    uint32_t seed = (uint32_t)(width * 31 + height), ways = 0;
    for (size_t i = 0; i < src_len; i++)
        from[i] = (uint8_t)check_random(&seed);
    for (int to_kind = 0; to_kind < KINDS; to_kind++) {
        for (int from_kind = 0; from_kind < KINDS; from_kind++) {
            struct area dst = area_new(to_kind, dst_len), src = area_new(from_kind, src_len);
            area_write(&src, from);
            for (int way = 0; way < 4; way++) {
                memset(want, 0xee, dst_len);
                area_write(&dst, want);
                for (size_t y = 0; y < height; y++)
                    memcpy(want + 7 + y * dst_pitch, from + 13 + y * src_pitch, width);
                cudaMemcpyKind said = to_kind == 3     ? from_kind == 3 ? cudaMemcpyDeviceToDevice
                                                                        : cudaMemcpyHostToDevice
                                      : from_kind == 3 ? cudaMemcpyDeviceToHost
                                                       : cudaMemcpyHostToHost;
                if (way & 1)
                    said = cudaMemcpyDefault;
                if (way & 2) {
                    CUDA(cudaMemcpy2DAsync(dst.at + 7, dst_pitch, src.at + 13, src_pitch, width,
                                           height, said, s));
                    CUDA(cudaStreamSynchronize(s));
                } else {
                    CUDA(cudaMemcpy2D(dst.at + 7, dst_pitch, src.at + 13, src_pitch, width, height,
                                      said));
                    if (to_kind == 3 && from_kind == 3)
                        CUDA(cudaDeviceSynchronize());
                }
                area_read(&dst, got);
                if (memcmp(got, want, dst_len)) {
                    printf("%zu x %zu, %s from %s, way %d: wrong\n", width, height, kinds[to_kind],
                           kinds[from_kind], way);
                    exit(1);
                }
                ways++;
            }
            area_free(&dst);
            area_free(&src);
        }
    }
    printf("%zu x %zu, pitches %zu and %zu: %u ways, %08x\n", width, height, dst_pitch, src_pitch,
           ways, sum(want, dst_len));
    free(from);
    free(want);
    free(got);
}

/* Offsets inside of the structs of the driver API. */
static void offsets(void)
{
    enum { PITCH = 192, ROWS = 40 };
    uint8_t from[PITCH * ROWS], back[PITCH * ROWS];
    uint32_t seed = 5;
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = (uint8_t)check_random(&seed);
    CUdeviceptr device = (CUdeviceptr)device_alloc(sizeof from);
    CUDA(cudaMemset((void *)device, 0, sizeof from));
    memset(back, 0, sizeof back);
    CUDA_MEMCPY2D c = {0};
    c.srcMemoryType = CU_MEMORYTYPE_HOST;
    c.srcHost = from;
    c.srcPitch = PITCH;
    c.srcXInBytes = 33;
    c.srcY = 3;
    c.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    c.dstDevice = device;
    c.dstPitch = PITCH;
    c.dstXInBytes = 5;
    c.dstY = 11;
    c.WidthInBytes = 100;
    c.Height = 20;
    CHECK(cuMemcpy2D(&c) == CUDA_SUCCESS);
    c.srcMemoryType = CU_MEMORYTYPE_UNIFIED;
    c.srcDevice = device;
    c.srcXInBytes = 5;
    c.srcY = 11;
    c.dstMemoryType = CU_MEMORYTYPE_HOST;
    c.dstHost = back;
    c.dstXInBytes = 33;
    c.dstY = 3;
    CHECK(cuMemcpy2DUnaligned(&c) == CUDA_SUCCESS);
    for (int y = 0; y < ROWS; y++)
        for (int x = 0; x < PITCH; x++) {
            bool inside = x >= 33 && x < 133 && y >= 3 && y < 23;
            CHECK(back[y * PITCH + x] == (inside ? from[y * PITCH + x] : 0));
        }
    printf("offsets: right\n");
    c.dstPitch = 100;
    printf("pitch too small for its offset: %d\n", (int)cuMemcpy2D(&c));
    c.dstPitch = PITCH;
    c.srcY = ROWS - 19;
    printf("past the end: %d\n", (int)cuMemcpy2D(&c));
    c.srcY = 0;
    c.WidthInBytes = 0;
    printf("nothing: %d\n", (int)cuMemcpy2D(&c));
    printf("no struct: %d\n", (int)cuMemcpy2D(NULL));
    CUDA(cudaFree((void *)device));
}

static void refusals(void)
{
    char host[256];
    void *device = device_alloc(4096);
    show("width beyond the pitch",
         cudaMemcpy2D(device, 64, host, 64, 65, 2, cudaMemcpyHostToDevice));
    show("no such direction", cudaMemcpy2D(device, 64, host, 64, 64, 2, (cudaMemcpyKind)9));
    show("NULL target", cudaMemcpy2D(NULL, 64, host, 64, 64, 2, cudaMemcpyHostToDevice));
    show("past the end of the device's",
         cudaMemcpy2D(device, 64, host, 64, 64, 65, cudaMemcpyHostToDevice));
    show("no rows", cudaMemcpy2D(device, 64, host, 64, 64, 0, cudaMemcpyHostToDevice));
    cudaGetLastError();
    CUDA(cudaFree(device));
}

int main(void)
{
    cudaStream_t s;
    CUDA(cudaStreamCreate(&s));
    shape(1, 1, 1, 1, s);
    shape(100, 3, 100, 100, s);
    shape(100, 37, 128, 101, s);
    shape(4, 9000, 16, 5, s);
    shape(1000, 700, 1024, 1000, s);
    shape(300000, 3, 300001, 300032, s);
    shape(65537, 20, 65537, 70000, s);
    CUDA(cudaStreamDestroy(s));
    offsets();
    refusals();
    return 0;
}
