/* Prefix sums of 60,000 numbers: shuffles inside a warp, shared memory inside a block, three
 * launches for the whole; and the same again by Hillis and Steele in shared memory with a barrier
 * per step. */
#include "check.h"

enum { N = 60000, BLOCK = 256, BLOCKS = (N + BLOCK - 1) / BLOCK };

__device__ int warp_scan(int v)
{
    for (int step = 1; step < 32; step <<= 1) {
        int other = __shfl_up_sync(0xffffffffu, v, step);
        if ((threadIdx.x & 31) >= step)
            v += other;
    }
    return v;
}

__global__ void scan_blocks(const int *in, int *out, int *sums, int n)
{
    __shared__ int warps[BLOCK / 32];
    int i = blockIdx.x * BLOCK + threadIdx.x, v = warp_scan(i < n ? in[i] : 0);
    if ((threadIdx.x & 31) == 31)
        warps[threadIdx.x / 32] = v;
    __syncthreads();
    for (int w = 0; w < threadIdx.x / 32; w++)
        v += warps[w];
    if (i < n)
        out[i] = v;
    if (threadIdx.x == BLOCK - 1)
        sums[blockIdx.x] = v;
}

__global__ void scan_steps(int *x, int n)
{
    __shared__ int a[2][BLOCK];
    int t = threadIdx.x, from = 0;
    a[0][t] = t < n ? x[t] : 0;
    __syncthreads();
    for (int step = 1; step < BLOCK; step <<= 1) {
        a[1 - from][t] = t >= step ? a[from][t] + a[from][t - step] : a[from][t];
        from = 1 - from;
        __syncthreads();
    }
    if (t < n)
        x[t] = a[from][t];
}

__global__ void add_sums(int *out, const int *sums, int n)
{
    int i = blockIdx.x * BLOCK + threadIdx.x;
    if (i < n && blockIdx.x > 0)
        out[i] += sums[blockIdx.x - 1];
}

int main(void)
{
    static int in[N], out[N];
    uint32_t seed = 11;
    for (int i = 0; i < N; i++)
        in[i] = (int)(check_random(&seed) % 1000) - 300;
    int *din = (int *)device_alloc(sizeof(in)), *dout = (int *)device_alloc(sizeof(in));
    int *sums = (int *)device_alloc(BLOCKS * sizeof(int));
    CUDA(cudaMemcpy(din, in, sizeof(in), cudaMemcpyHostToDevice));
    scan_blocks<<<BLOCKS, BLOCK>>>(din, dout, sums, N);
    scan_steps<<<1, BLOCK>>>(sums, BLOCKS);
    add_sums<<<BLOCKS, BLOCK>>>(dout, sums, N);
    LAUNCHED();
    CUDA(cudaMemcpy(out, dout, sizeof(out), cudaMemcpyDeviceToHost));
    for (int i = 0, sum = 0; i < N; i++) {
        sum += in[i];
        CHECK(out[i] == sum);
    }
    printf("scan of %d: %d\n", N, out[N - 1]);
    return 0;
}
