/* Allocates, launches, records and frees in a steady loop, with cudaMalloc and with a pool: every
 * block holds what its own kernel wrote.  behaviour_test.py counts what the loop costs.
 * usage: alloc_loop [ROUNDS] */
#include "check.h"

enum { WORDS = 1024 };

__global__ void fill(unsigned *x, unsigned seed, unsigned *sum)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    x[i] = seed + i;
    __threadfence();
    if (x[i] == seed + i)
        atomicAdd(sum, 1);
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 300;
    unsigned *sum = (unsigned *)device_alloc(sizeof(*sum)), got = 0;
    cudaStream_t stream;
    cudaEvent_t event;
    cudaMemPool_t pool;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    CUDA(cudaDeviceGetDefaultMemPool(&pool, 0));
    CUDA(cudaMemset(sum, 0, sizeof(*sum)));
    CUDA(cudaDeviceSynchronize());
    for (int k = 0; k < rounds; k++) {
        unsigned *a, *b;
        CUDA(cudaMalloc(&a, WORDS * sizeof(*a)));
        CUDA(cudaMallocAsync(&b, WORDS * sizeof(*b), stream));
        fill<<<WORDS / 256, 256, 0, stream>>>(a, k, sum);
        fill<<<WORDS / 256, 256, 0, stream>>>(b, ~k, sum);
        LAUNCHED();
        CUDA(cudaEventRecord(event, stream));
        CUDA(cudaFreeAsync(b, stream));
        CUDA(cudaFree(a));
    }
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaMemcpy(&got, sum, sizeof(got), cudaMemcpyDeviceToHost));
    CHECK(got == (unsigned)rounds * 2 * WORDS);
    printf("every block was its kernel's own\n");
    return 0;
}
