/* Pi by throwing darts: a generator per thread (xorshift, and a counter hashed), counts by ballots.
 */
#include "check.h"

enum { THREADS = 128, BLOCKS = 32, DARTS = 256 };

__device__ unsigned xorshift(unsigned *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 17;
    *s ^= *s << 5;
    return *s;
}

__device__ unsigned hash(unsigned x)
{
    x = (x ^ 61) ^ (x >> 16);
    x *= 9;
    x ^= x >> 4;
    x *= 0x27d4eb2du;
    return x ^ (x >> 15);
}

__global__ void darts(unsigned long long *hits, int by_hash)
{
    unsigned id = blockIdx.x * blockDim.x + threadIdx.x, state = hash(id) | 1, mine = 0;
    for (int i = 0; i < DARTS; i++) {
        unsigned x = by_hash ? hash(2 * (id * DARTS + i)) : xorshift(&state);
        unsigned y = by_hash ? hash(2 * (id * DARTS + i) + 1) : xorshift(&state);
        unsigned long long dx = x >> 8, dy = y >> 8;
        int in = dx * dx + dy * dy < 1ull << 48;
        mine += __popc(__ballot_sync(0xffffffffu, in));
    }
    if (threadIdx.x % 32 == 0)
        atomicAdd(hits, (unsigned long long)mine);
}

int main(void)
{
    unsigned long long hits, *d = (unsigned long long *)device_alloc(sizeof hits);
    for (int way = 0; way < 2; way++) {
        CUDA(cudaMemset(d, 0, sizeof hits));
        darts<<<BLOCKS, THREADS>>>(d, way);
        LAUNCHED();
        CUDA(cudaMemcpy(&hits, d, sizeof hits, cudaMemcpyDeviceToHost));
        double pi = 4.0 * (double)hits / ((double)BLOCKS * THREADS * DARTS);
        printf("%s: %llu hits, pi about %.2f\n", way ? "hashed" : "xorshift", hits, pi);
        CHECK(pi > 3.12 && pi < 3.16);
    }
    CUDA(cudaFree(d));
    return 0;
}
