/* The limits of a context hold for its kernels: how deep calls may go, how much malloc gives; and
 * an assertion that fails says where, to every later call too. */
#include <cassert>

#include "check.h"

__device__ __noinline__ int deep(int n)
{
    volatile char room[200];
    room[n % 200] = (char)n;
    return n ? deep(n - 1) + (room[n % 200] == (char)n) : 0;
}

__global__ void recurse(int *out, int n)
{
    *out = deep(n);
}

__global__ void take(int *out, size_t size, int keep)
{
    char *p = (char *)malloc(size);
    out[threadIdx.x] = p != NULL;
    if (p)
        p[size - 1] = 1;
    __syncthreads();
    if (!keep)
        free(p);
}

__global__ void insist(int bound)
{
    assert((int)threadIdx.x < bound);
}

static void taken(const char *what, size_t size, int keep)
{
    int *out = (int *)device_alloc(4 * sizeof(int)), host[4], n = 0;
    take<<<1, 4>>>(out, size, keep);
    LAUNCHED();
    CUDA(cudaMemcpy(host, out, sizeof(host), cudaMemcpyDeviceToHost));
    CUDA(cudaFree(out));
    for (int i = 0; i < 4; i++)
        n += host[i];
    printf("%s: %d of 4\n", what, n);
}

int main(void)
{
    int *out = (int *)device_alloc(sizeof(int)), host = 0;
    size_t value;
    CUDA(cudaDeviceSetLimit(cudaLimitStackSize, 128 << 10));
    CUDA(cudaDeviceGetLimit(&value, cudaLimitStackSize));
    CHECK(value >= 128 << 10);
    CUDA(cudaDeviceSetLimit(cudaLimitMallocHeapSize, 16 << 20));
    recurse<<<1, 1>>>(out, 300);
    LAUNCHED();
    CUDA(cudaMemcpy(&host, out, sizeof(host), cudaMemcpyDeviceToHost));
    printf("300 calls deep: %d\n", host);
    taken("small pieces", 1000, 0);
    taken("pieces larger than the heap", 64 << 20, 0);
    taken("pieces that stay", 1 << 20, 1);
    taken("pieces beside them", 1 << 20, 0);
    insist<<<1, 4>>>(4);
    CUDA(cudaDeviceSynchronize());
    insist<<<1, 4>>>(3);
    show("synchronize", cudaDeviceSynchronize());
    show("malloc", cudaMalloc(&out, 4));
    return 0;
}
