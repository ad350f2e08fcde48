/* Sums, minima and maxima by shuffles inside a warp, shared memory between warps and atomics
 * between blocks; votes and ballots beside them.  Integers, so that every order gives the same
 * answer. */
#include "check.h"

struct totals {
    unsigned long long sum;
    int min, max;
    unsigned odd, mixed_warps;
};

__device__ int warp_sum(int v)
{
    for (int step = 16; step; step >>= 1)
        v += __shfl_down_sync(0xffffffffu, v, step);
    return v;
}

__global__ void reduce(const int *x, int n, struct totals *t)
{
    __shared__ int part[32];
    int v = 0, lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        v += x[i];
        atomicMin(&t->min, x[i]);
        atomicMax(&t->max, x[i]);
    }
    unsigned odd = __ballot_sync(0xffffffffu, v & 1);
    if (lane == 0) {
        atomicAdd(&t->odd, __popc(odd));
        if (odd != 0 && odd != 0xffffffffu)
            atomicAdd(&t->mixed_warps, 1u);
    }
    v = warp_sum(v);
    if (lane == 0)
        part[warp] = v;
    __syncthreads();
    if (warp == 0) {
        v = warp_sum(lane < blockDim.x / 32 ? part[lane] : 0);
        if (lane == 0)
            atomicAdd(&t->sum, (unsigned long long)v);
    }
}

/* Every way to shuffle, and votes, with half of the lanes gone. */
__global__ void shuffles(int *out)
{
    int lane = threadIdx.x;
    if (lane >= 16)
        return;
    unsigned mask = 0x0000ffffu;
    out[lane] = __shfl_sync(mask, lane * 3, 5);
    out[16 + lane] = __shfl_up_sync(mask, lane, 1);
    out[32 + lane] = __shfl_xor_sync(mask, lane, 3);
    out[48 + lane] = __shfl_sync(mask, lane, lane + 1, 4);
    out[64 + lane] = __any_sync(mask, lane == 7) + 2 * __all_sync(mask, lane < 16);
    out[80 + lane] = (int)__activemask();
}

int main(void)
{
    const int n = 40000, blocks = 12, threads = 256;
    int *x = (int *)malloc(n * sizeof(int));
    uint32_t seed = 7;
    struct totals want = {0, 1 << 30, -(1 << 30), 0, 0}, got = {0, 1 << 30, -(1 << 30), 0, 0};
    int *lanes = (int *)calloc(blocks * threads, sizeof(int));
    for (int i = 0; i < n; i++) {
        x[i] = (int)(check_random(&seed) % 2000001) - 900000;
        want.sum += (unsigned long long)x[i];
        want.min = x[i] < want.min ? x[i] : want.min;
        want.max = x[i] > want.max ? x[i] : want.max;
        lanes[i % (blocks * threads)] += x[i];
    }
    for (int w = 0; w < blocks * threads; w += 32) {
        unsigned odd = 0;
        for (int l = 0; l < 32; l++)
            odd += lanes[w + l] & 1;
        want.odd += odd;
        want.mixed_warps += odd && odd != 32;
    }
    int *dx = (int *)device_alloc(n * sizeof(int));
    struct totals *dt = (struct totals *)device_alloc(sizeof(got));
    CUDA(cudaMemcpy(dx, x, n * sizeof(int), cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(dt, &got, sizeof(got), cudaMemcpyHostToDevice));
    reduce<<<blocks, threads>>>(dx, n, dt);
    LAUNCHED();
    CUDA(cudaMemcpy(&got, dt, sizeof(got), cudaMemcpyDeviceToHost));
    CHECK(got.sum == want.sum && got.min == want.min && got.max == want.max);
    CHECK(got.odd == want.odd && got.mixed_warps == want.mixed_warps);
    printf("sum %lld min %d max %d odd %u\n", (long long)got.sum, got.min, got.max, got.odd);

    int out[96];
    int *dout = (int *)device_alloc(sizeof(out));
    shuffles<<<1, 32>>>(dout);
    LAUNCHED();
    CUDA(cudaMemcpy(out, dout, sizeof(out), cudaMemcpyDeviceToHost));
    for (int l = 0; l < 16; l++) {
        CHECK(out[l] == 15 && out[16 + l] == (l ? l - 1 : 0) && out[32 + l] == (l ^ 3));
        CHECK(out[48 + l] == (l & ~3) + ((l + 1) & 3) && out[64 + l] == 3);
        CHECK(out[80 + l] == 0xffff);
    }
    printf("shuffles and votes are right\n");
    return 0;
}
