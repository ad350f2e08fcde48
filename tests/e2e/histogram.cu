/* A histogram with atomics in shared memory, then in global memory, and the other atomic
 * operations: exchange, compare-and-swap loops, and, or, xor, wrap-around counters, 64-bit. */
#include "check.h"

enum { N = 100000, BINS = 64 };

__global__ void histogram(const unsigned *x, unsigned *bins, int n)
{
    __shared__ unsigned local[BINS];
    for (int b = threadIdx.x; b < BINS; b += blockDim.x)
        local[b] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        atomicAdd(&local[x[i] % BINS], 1u);
    __syncthreads();
    for (int b = threadIdx.x; b < BINS; b += blockDim.x)
        atomicAdd(&bins[b], local[b]);
}

struct cells {
    unsigned and_, or_, xor_, inc, dec, last, max_by_cas;
    unsigned long long sum, max;
    float fsum;
    int winner, losers;
};

__global__ void operations(struct cells *c, const unsigned *x)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x, v = x[i];
    atomicAnd(&c->and_, v | 0xff);
    atomicOr(&c->or_, v & 0xf0f0f0);
    atomicXor(&c->xor_, v);
    atomicInc(&c->inc, 99);
    atomicDec(&c->dec, 99);
    atomicAdd(&c->sum, (unsigned long long)v << 20);
    atomicMax(&c->max, (unsigned long long)v << 20);
    atomicAdd(&c->fsum, 0.5f);
    unsigned seen = c->max_by_cas;
    while (v > seen) {
        unsigned old = atomicCAS(&c->max_by_cas, seen, v);
        if (old == seen)
            break;
        seen = old;
    }
    if (atomicExch(&c->last, i) == 0xffffffffu)
        atomicAdd(&c->winner, 1);
    else
        atomicAdd(&c->losers, 1);
}

int main(void)
{
    static unsigned x[N];
    unsigned want[BINS] = {0}, got[BINS], all_and = ~0u, all_or = 0, all_xor = 0, most = 0;
    unsigned long long sum = 0;
    uint32_t seed = 21;
    const int threads = 2048;
    for (int i = 0; i < N; i++) {
        x[i] = check_random(&seed);
        want[x[i] % BINS]++;
        if (i >= threads)
            continue;
        all_and &= x[i] | 0xff;
        all_or |= x[i] & 0xf0f0f0;
        all_xor ^= x[i];
        sum += (unsigned long long)x[i] << 20;
        most = x[i] > most ? x[i] : most;
    }
    unsigned *dx = (unsigned *)device_alloc(sizeof(x)),
             *bins = (unsigned *)device_alloc(sizeof(got));
    CUDA(cudaMemcpy(dx, x, sizeof(x), cudaMemcpyHostToDevice));
    CUDA(cudaMemset(bins, 0, sizeof(got)));
    histogram<<<8, 256>>>(dx, bins, N);
    LAUNCHED();
    CUDA(cudaMemcpy(got, bins, sizeof(got), cudaMemcpyDeviceToHost));
    CHECK(memcmp(got, want, sizeof(got)) == 0);
    printf("histogram: %u in bin 0, %u in the last\n", got[0], got[BINS - 1]);

    struct cells c = {0}, *dc = (struct cells *)device_alloc(sizeof(c));
    c.and_ = ~0u;
    c.last = 0xffffffffu;
    CUDA(cudaMemcpy(dc, &c, sizeof(c), cudaMemcpyHostToDevice));
    operations<<<threads / 128, 128>>>(dc, dx);
    LAUNCHED();
    CUDA(cudaMemcpy(&c, dc, sizeof(c), cudaMemcpyDeviceToHost));
    CHECK(c.and_ == all_and && c.or_ == all_or && c.xor_ == all_xor);
    CHECK(c.inc == threads % 100 && c.dec == (100 - threads % 100) % 100);
    CHECK(c.sum == sum && c.max == (unsigned long long)most << 20 && c.max_by_cas == most);
    CHECK(c.fsum == threads * 0.5f && c.winner == 1 && c.losers == threads - 1);
    CHECK(c.last < (unsigned)threads);
    printf("atomics: and %08x or %08x xor %08x\n", c.and_, c.or_, c.xor_);
    return 0;
}
