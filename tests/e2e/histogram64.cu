/* Atomics of 64 bits and of 32 on shared and global memory: counts, sums, minima, exchange loops.
 */
#include "check.h"

enum { BINS = 64, N = 60000 };

__global__ void count(const unsigned *x, int n, unsigned long long *bins, unsigned long long *sums,
                      long long *least, unsigned long long *bits)
{
    __shared__ unsigned mine[BINS];
    for (int i = threadIdx.x; i < BINS; i += blockDim.x)
        mine[i] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        unsigned bin = x[i] % BINS;
        atomicAdd(&mine[bin], 1u);
        atomicAdd(&sums[bin], (unsigned long long)x[i] << 12);
        atomicMin(&least[bin], -(long long)x[i] * 1000000007LL);
        atomicOr(&bits[bin], 1ull << (x[i] / BINS % 64));
    }
    __syncthreads();
    for (int i = threadIdx.x; i < BINS; i += blockDim.x)
        atomicAdd(&bins[i], (unsigned long long)mine[i]);
}

/* A sum by compare and swap, as before there was an addition of doubles. */
__global__ void by_swap(double *sum, int n)
{
    unsigned long long *at = (unsigned long long *)sum, seen = *at, was;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    do {
        was = seen;
        seen = atomicCAS(
            at, was,
            (unsigned long long)__double_as_longlong(__longlong_as_double((long long)was) + i));
    } while (seen != was);
}

static unsigned long long mix(const void *data, size_t n)
{
    unsigned long long h = 0;
    for (size_t i = 0; i < n; i++)
        h = h * 1099511628211ull + ((const unsigned long long *)data)[i];
    return h;
}

int main(void)
{
    static unsigned x[N];
    unsigned long long bins[BINS], sums[BINS], bits[BINS], want[BINS] = {0};
    long long least[BINS];
    uint32_t seed = 3;
    for (int i = 0; i < N; i++) {
        x[i] = check_random(&seed);
        want[x[i] % BINS]++;
    }
    unsigned *dx = (unsigned *)device_alloc(sizeof x);
    unsigned long long *d = (unsigned long long *)device_alloc(4 * sizeof bins);
    CUDA(cudaMemcpy(dx, x, sizeof x, cudaMemcpyHostToDevice));
    CUDA(cudaMemset(d, 0, 4 * sizeof bins));
    count<<<12, 128>>>(dx, N, d, d + BINS, (long long *)d + 2 * BINS, d + 3 * BINS);
    LAUNCHED();
    CUDA(cudaMemcpy(bins, d, sizeof bins, cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(sums, d + BINS, sizeof sums, cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(least, d + 2 * BINS, sizeof least, cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(bits, d + 3 * BINS, sizeof bits, cudaMemcpyDeviceToHost));
    CHECK(!memcmp(bins, want, sizeof bins));
    printf("counts %016llx\nsums   %016llx\nleast  %016llx\nbits   %016llx\n", mix(bins, BINS),
           mix(sums, BINS), mix(least, BINS), mix(bits, BINS));
    double sum = 0;
    CUDA(cudaMemset(d, 0, 8));
    by_swap<<<8, 100>>>((double *)d, 750);
    LAUNCHED();
    CUDA(cudaMemcpy(&sum, d, 8, cudaMemcpyDeviceToHost));
    printf("by swap: %.1f\n", sum);
    CUDA(cudaFree(dx));
    CUDA(cudaFree(d));
    return 0;
}
