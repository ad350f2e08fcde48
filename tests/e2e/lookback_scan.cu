/* A prefix sum in one pass: blocks take tickets and look back at what the blocks before them have
 * announced.  It ends only if a block that has begun goes on while others wait for it. */
#include "check.h"

/* What a block announces: above, 1 for its own sum and 2 for the sum up to its end; below, the sum.
 */
enum { THREADS = 128, N = 100000 };

__device__ unsigned warp_scan(unsigned x)
{
    for (int step = 1; step < 32; step *= 2) {
        unsigned y = __shfl_up_sync(0xffffffffu, x, step);
        if ((threadIdx.x & 31) >= step)
            x += y;
    }
    return x;
}

__global__ void scan(const unsigned *in, unsigned *out, volatile unsigned long long *news,
                     unsigned *ticket, int n)
{
    __shared__ unsigned mine, before, of_warp[THREADS / 32];
    if (threadIdx.x == 0)
        mine = atomicAdd(ticket, 1);
    __syncthreads();
    int i = (int)(mine * THREADS + threadIdx.x), warp = threadIdx.x / 32;
    unsigned x = warp_scan(i < n ? in[i] : 0);
    if ((threadIdx.x & 31) == 31)
        of_warp[warp] = x;
    __syncthreads();
    unsigned all = 0;
    for (int w = 0; w < THREADS / 32; w++) {
        if (w < warp)
            x += of_warp[w];
        all += of_warp[w];
    }
    if (threadIdx.x == 0) {
        unsigned sum = 0;
        if (mine == 0) {
            news[0] = 2ull << 32 | all;
        } else {
            news[mine] = 1ull << 32 | all;
            for (int at = (int)mine - 1;;) {
                unsigned long long seen = news[at];
                if (seen >> 32 == 0)
                    continue;
                sum += (unsigned)seen;
                if (seen >> 32 == 2)
                    break;
                at--;
            }
            __threadfence();
            news[mine] = 2ull << 32 | (sum + all);
        }
        before = sum;
    }
    __syncthreads();
    if (i < n)
        out[i] = x + before;
}

int main(void)
{
    static unsigned in[N], out[N];
    uint32_t seed = 8;
    int blocks = (N + THREADS - 1) / THREADS;
    for (int i = 0; i < N; i++)
        in[i] = check_random(&seed) % 100;
    unsigned *d_in = (unsigned *)device_alloc(sizeof in),
             *d_out = (unsigned *)device_alloc(sizeof in);
    unsigned long long *news = (unsigned long long *)device_alloc(blocks * 8 + 8);
    for (int round = 0; round < 3; round++) {
        CUDA(cudaMemcpy(d_in, in, sizeof in, cudaMemcpyHostToDevice));
        CUDA(cudaMemset(news, 0, blocks * 8 + 8));
        scan<<<blocks, THREADS>>>(d_in, d_out, news, (unsigned *)(news + blocks), N);
        LAUNCHED();
        CUDA(cudaMemcpy(out, d_out, sizeof out, cudaMemcpyDeviceToHost));
        unsigned sum = 0;
        for (int i = 0; i < N; i++) {
            sum += in[i];
            CHECK(out[i] == sum);
        }
        printf("round %d: %u\n", round, sum);
        memcpy(in, out, sizeof in);
    }
    CUDA(cudaFree(d_in));
    CUDA(cudaFree(d_out));
    CUDA(cudaFree(news));
    return 0;
}
