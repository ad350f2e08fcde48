/* What the two sides of a copy are is said by their addresses: every pair of pageable, registered,
 * pinned and device memory, interior addresses, and ranges that leave their allocation.  Pinned
 * memory is device memory as well. */
#include <cuda.h>

#include "check.h"

enum { KINDS = 4, LEN = 70000 };
static const char *const kinds[KINDS] = {"pageable", "registered", "pinned", "device"};
static uint8_t *area[KINDS][2];

static void fill(uint8_t *at, int kind, uint8_t value)
{
    if (kind == 3)
        CUDA(cudaMemset(at, value, LEN));
    else
        memset(at, value, LEN);
}

static int holds(const uint8_t *at, int kind, size_t from, size_t len, uint8_t inside, uint8_t out)
{
    static uint8_t copy[LEN];
    CUDA(cudaDeviceSynchronize());
    if (kind == 3)
        CUDA(cudaMemcpy(copy, at, LEN, cudaMemcpyDeviceToHost));
    else
        memcpy(copy, at, LEN);
    for (size_t i = 0; i < LEN; i++)
        if (copy[i] != (i >= from && i < from + len ? inside : out))
            return 0;
    return 1;
}

static void pairs(cudaStream_t s)
{
    static const size_t lens[] = {1, 900, 5000, LEN - 50};
    for (int to = 0; to < KINDS; to++)
        for (int from = 0; from < KINDS; from++) {
            for (int way = 0; way < 8; way++) {
                size_t at = way & 2 ? 33 : 0, len = lens[way / 2];
                fill(area[to][0], to, 0x11);
                fill(area[from][1], from, 0x22);
                if (way & 1)
                    CUDA(cudaMemcpyAsync(area[to][0] + at, area[from][1] + at, len,
                                         cudaMemcpyDefault, s));
                else
                    CUDA(cudaMemcpy(area[to][0] + at, area[from][1] + at, len, cudaMemcpyDefault));
                if (!holds(area[to][0], to, at, len, 0x22, 0x11)) {
                    printf("%s from %s, way %d: wrong\n", kinds[to], kinds[from], way);
                    exit(1);
                }
            }
            printf("%s from %s: right\n", kinds[to], kinds[from]);
        }
}

static void past_the_end(void)
{
    static char big[LEN + 64];
    show("past the end, as target", cudaMemcpy(area[3][0] + 64, big, LEN, cudaMemcpyDefault));
    show("past the end, as source", cudaMemcpy(big, area[3][0] + 64, LEN, cudaMemcpyDefault));
    cudaGetLastError();
}

/* Pinned memory, where the driver asks for a device address. */
static void pinned_as_device(void)
{
    uint8_t *pinned = area[2][0], back[64];
    CUdeviceptr device;
    CHECK(cuMemHostGetDevicePointer(&device, pinned, 0) == CUDA_SUCCESS);
    CHECK(cuMemsetD8(device, 0x5a, LEN) == CUDA_SUCCESS);
    CHECK(pinned[0] == 0x5a && pinned[LEN - 1] == 0x5a);
    CHECK(cuMemsetD16((CUdeviceptr)pinned, 0x1234, 100) == CUDA_SUCCESS);
    CHECK(pinned[0] == 0x34 && pinned[199] == 0x12 && pinned[200] == 0x5a);
    CHECK(cuMemsetD2D8(device + 256, 100, 7, 10, 3) == CUDA_SUCCESS);
    CHECK(pinned[256] == 7 && pinned[265] == 7 && pinned[266] == 0x5a && pinned[456] == 7);
    printf("fills: right\n");
    CHECK(cuMemcpyDtoD((CUdeviceptr)area[3][0], device, LEN) == CUDA_SUCCESS);
    CHECK(cuMemsetD8(device, 0, LEN) == CUDA_SUCCESS);
    CHECK(cuMemcpyDtoD(device + 8, (CUdeviceptr)area[3][0] + 8, LEN - 8) == CUDA_SUCCESS);
    CHECK(pinned[0] == 0 && pinned[8] == 0x34 && pinned[456] == 7 && pinned[LEN - 1] == 0x5a);
    CHECK(cuMemcpyDtoH(back, device + 250, sizeof back) == CUDA_SUCCESS);
    CHECK(back[0] == 0x5a && back[6] == 7);
    CHECK(cuMemcpyHtoD(device, "0123456789", 10) == CUDA_SUCCESS);
    CHECK(!memcmp(pinned, "0123456789", 10));
    CHECK(cuMemcpyDtoD(device + 100, device, 10) == CUDA_SUCCESS);
    CHECK(!memcmp(pinned + 100, "0123456789", 10));
    printf("copies: right\n");
    printf("fill past the end: %d\n", (int)cuMemsetD8(device + 1, 0, LEN));
    printf("fill of pageable memory: %d\n", (int)cuMemsetD8((CUdeviceptr)back, 0, 1));
    printf("device copy of pageable memory: %d\n",
           (int)cuMemcpyDtoD((CUdeviceptr)back, device, 10));
}

int main(void)
{
    cudaStream_t s;
    CUDA(cudaStreamCreate(&s));
    for (int i = 0; i < 2; i++) {
        area[0][i] = (uint8_t *)malloc(LEN);
        area[1][i] = (uint8_t *)malloc(LEN);
        CUDA(cudaHostRegister(area[1][i], LEN, cudaHostRegisterDefault));
        CUDA(cudaHostAlloc((void **)&area[2][i], LEN, cudaHostAllocDefault));
        area[3][i] = (uint8_t *)device_alloc(LEN);
    }
    pairs(s);
    past_the_end();
    pinned_as_device();
    for (int i = 0; i < 2; i++) {
        CUDA(cudaHostUnregister(area[1][i]));
        free(area[0][i]);
        free(area[1][i]);
        CUDA(cudaFreeHost(area[2][i]));
        CUDA(cudaFree(area[3][i]));
    }
    CUDA(cudaStreamDestroy(s));
    return 0;
}
