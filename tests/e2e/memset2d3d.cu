/* Fills of rectangles and boxes: every element size, what lies between the rows stays. */
#include <cuda.h>

#include "check.h"

enum { PITCH = 160, ROWS = 24 };
static uint8_t back[PITCH * ROWS];

static int count(const uint8_t *device, uint8_t value)
{
    int n = 0;
    CUDA(cudaDeviceSynchronize());
    CUDA(cudaMemcpy(back, device, sizeof back, cudaMemcpyDeviceToHost));
    for (size_t i = 0; i < sizeof back; i++)
        n += back[i] == value;
    return n;
}

int main(void)
{
    cudaStream_t s;
    CUDA(cudaStreamCreate(&s));
    uint8_t *device = (uint8_t *)device_alloc(sizeof back);
    CUdeviceptr at = (CUdeviceptr)device;

    CUDA(cudaMemset(device, 0, sizeof back));
    CUDA(cudaMemset2D(device + 3, PITCH, 0x11, 70, 10));
    printf("cudaMemset2D: %d\n", count(device, 0x11));
    CUDA(cudaMemset2DAsync(device + 5, PITCH, 0x22, 30, 20, s));
    printf("cudaMemset2DAsync: %d, left of the first: %d\n", count(device, 0x22),
           count(device, 0x11));
    CHECK(cuMemsetD2D8(at, PITCH, 0x33, 7, ROWS) == CUDA_SUCCESS);
    printf("cuMemsetD2D8: %d\n", count(device, 0x33));
    CHECK(cuMemsetD2D16(at + 2, PITCH, 0x4444, 9, 3) == CUDA_SUCCESS);
    printf("cuMemsetD2D16: %d\n", count(device, 0x44));
    CHECK(cuMemsetD2D32(at + 4, PITCH, 0x55555555, 11, 5) == CUDA_SUCCESS);
    printf("cuMemsetD2D32: %d\n", count(device, 0x55));
    CHECK(cuMemsetD2D8Async(at, PITCH, 0x66, 2, 4, s) == CUDA_SUCCESS);
    CHECK(cuMemsetD2D16Async(at + PITCH * 8, PITCH, 0x6666, 2, 4, s) == CUDA_SUCCESS);
    CHECK(cuMemsetD2D32Async(at + PITCH * 16, PITCH, 0x66666666, 2, 4, s) == CUDA_SUCCESS);
    printf("in a stream: %d\n", count(device, 0x66));
    CHECK(cuMemsetD8Async(at, 0x77, 3, s) == CUDA_SUCCESS);
    CHECK(cuMemsetD16Async(at + 10, 0x7777, 3, s) == CUDA_SUCCESS);
    CHECK(cuMemsetD32Async(at + 20, 0x77777777, 3, s) == CUDA_SUCCESS);
    printf("rows in a stream: %d\n", count(device, 0x77));

    printf("misaligned for 16 bits: %d\n", (int)cuMemsetD16(at + 1, 0, 1));
    printf("misaligned for 32 bits: %d\n", (int)cuMemsetD32(at + 2, 0, 1));
    printf("pitch below the width: %d\n", (int)cuMemsetD2D8(at, 10, 0, 11, 2));
    printf("past the end: %d\n", (int)cuMemsetD2D8(at, PITCH, 0, PITCH, ROWS + 1));
    printf("no rows: %d\n", (int)cuMemsetD2D8(at, PITCH, 0, PITCH, 0));
    printf("not the device's: %d\n", (int)cuMemsetD8((CUdeviceptr)back, 0, 1));

    cudaPitchedPtr box;
    enum { W = 37, H = 11, D = 6 };
    static uint8_t got[D][H][W];
    CUDA(cudaMalloc3D(&box, make_cudaExtent(W, H, D)));
    CUDA(cudaMemset3D(box, 1, make_cudaExtent(W, H, D)));
    cudaPitchedPtr inner = box;
    inner.ptr = (char *)box.ptr + 2 * box.pitch * H + 3 * box.pitch + 4;
    CUDA(cudaMemset3DAsync(inner, 9, make_cudaExtent(5, 4, 3), s));
    CUDA(cudaStreamSynchronize(s));
    cudaMemcpy3DParms p = {};
    p.srcPtr = box;
    p.dstPtr = make_cudaPitchedPtr(got, W, W, H);
    p.extent = make_cudaExtent(W, H, D);
    p.kind = cudaMemcpyDeviceToHost;
    CUDA(cudaMemcpy3D(&p));
    for (int z = 0; z < D; z++)
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                bool in = z >= 2 && z < 5 && y >= 3 && y < 7 && x >= 4 && x < 9;
                CHECK(got[z][y][x] == (in ? 9 : 1));
            }
    printf("cudaMemset3D: right\n");
    CUDA(cudaFree(box.ptr));
    CUDA(cudaFree(device));
    CUDA(cudaStreamDestroy(s));
    return 0;
}
