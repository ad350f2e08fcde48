/* Bitonic and odd-even merge sort of keys with values: in shared memory first, then in global. */
#include "check.h"

enum { LEN = 1024, N = 1 << 14 };

__device__ void order(unsigned &ka, unsigned &va, unsigned &kb, unsigned &vb, bool up)
{
    if ((ka > kb) == up) {
        unsigned k = ka, v = va;
        ka = kb;
        va = vb;
        kb = k;
        vb = v;
    }
}

__global__ void in_shared(unsigned *keys, unsigned *values)
{
    __shared__ unsigned k[LEN], v[LEN];
    unsigned base = blockIdx.x * LEN;
    for (int i = threadIdx.x; i < LEN; i += blockDim.x) {
        k[i] = keys[base + i];
        v[i] = values[base + i];
    }
    for (unsigned size = 2; size <= LEN; size *= 2)
        for (unsigned step = size / 2; step; step /= 2) {
            __syncthreads();
            unsigned t = threadIdx.x, at = 2 * t - (t & (step - 1));
            bool up = size < LEN ? !(t & (size / 2)) : !(blockIdx.x & 1);
            order(k[at], v[at], k[at + step], v[at + step], up);
        }
    __syncthreads();
    for (int i = threadIdx.x; i < LEN; i += blockDim.x) {
        keys[base + i] = k[i];
        values[base + i] = v[i];
    }
}

__global__ void merge(unsigned *keys, unsigned *values, unsigned size, unsigned step)
{
    unsigned t = blockIdx.x * blockDim.x + threadIdx.x, at = 2 * t - (t & (step - 1));
    order(keys[at], values[at], keys[at + step], values[at + step], !(t & (size / 2)));
}

__global__ void odd_even(unsigned *keys, unsigned *values, unsigned size, unsigned step, unsigned n)
{
    unsigned t = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned at = 2 * t - (t & (step - 1)), within = t & (size / 2 - 1);
    if (step == size / 2) {
        order(keys[at], values[at], keys[at + step], values[at + step], true);
    } else if (within >= step && at + step < n) {
        order(keys[at - step], values[at - step], keys[at], values[at], true);
    }
}

int main(void)
{
    static unsigned keys[N], values[N], from[N];
    uint32_t seed = 12;
    for (int i = 0; i < N; i++) {
        from[i] = check_random(&seed) << 8 | (i & 255);
        values[i] = i;
    }
    unsigned *dk = (unsigned *)device_alloc(sizeof keys),
             *dv = (unsigned *)device_alloc(sizeof keys);
    for (int way = 0; way < 2; way++) {
        for (int i = 0; i < N; i++)
            values[i] = i;
        CUDA(cudaMemcpy(dk, from, sizeof keys, cudaMemcpyHostToDevice));
        CUDA(cudaMemcpy(dv, values, sizeof keys, cudaMemcpyHostToDevice));
        if (way == 0) {
            in_shared<<<N / LEN, LEN / 2>>>(dk, dv);
            for (unsigned size = 2 * LEN; size <= N; size *= 2)
                for (unsigned step = size / 2; step; step /= 2)
                    merge<<<N / 512, 256>>>(dk, dv, size, step);
        } else {
            for (unsigned size = 2; size <= N; size *= 2)
                for (unsigned step = size / 2; step; step /= 2)
                    odd_even<<<N / 512, 256>>>(dk, dv, size, step, N);
        }
        LAUNCHED();
        CUDA(cudaMemcpy(keys, dk, sizeof keys, cudaMemcpyDeviceToHost));
        CUDA(cudaMemcpy(values, dv, sizeof keys, cudaMemcpyDeviceToHost));
        for (int i = 0; i < N; i++)
            CHECK(keys[i] == from[values[i]] && (!i || keys[i - 1] <= keys[i]));
        printf("%s: %08x %08x %08x\n", way ? "odd-even" : "bitonic", keys[0], keys[N / 2],
               keys[N - 1]);
    }
    CUDA(cudaFree(dk));
    CUDA(cudaFree(dv));
    return 0;
}
