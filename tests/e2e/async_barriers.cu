/* Barriers that are objects: cuda::barrier with copies that complete it, pipelines, producers and
 * consumers that arrive without waiting, counted barriers, reductions at a barrier. */
#pragma nv_diag_suppress static_var_with_dynamic_init

#include <cooperative_groups.h>
#include <cuda/barrier>
#include <cuda/pipeline>

#include "check.h"

namespace cg = cooperative_groups;
using barrier = cuda::barrier<cuda::thread_scope_block>;
enum { N = 128 };

__global__ void copy_and_wait(const int *in, int *out)
{
    __shared__ barrier b;
    __shared__ __align__(16) int s[N];
    auto block = cg::this_thread_block();
    if (block.thread_rank() == 0)
        init(&b, block.size());
    block.sync();
    cuda::memcpy_async(block, s, in, cuda::aligned_size_t<16>(sizeof(s)), b);
    b.arrive_and_wait();
    out[threadIdx.x] = s[N - 1 - threadIdx.x];
    for (int i = 0; i < 3; i++)
        b.wait(b.arrive());
    s[threadIdx.x] = threadIdx.x;
    b.arrive_and_wait();
    out[threadIdx.x] += s[(threadIdx.x + 1) % N];
}

__global__ void two_stages(const int *in, int *out, int n)
{
    __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, 2> state;
    __shared__ int s[2][N];
    auto block = cg::this_thread_block();
    auto pipe = cuda::make_pipeline(block, &state);
    int sum = 0;
    for (int fetched = 0, i = 0; i < n; i++) {
        for (; fetched < n && fetched < i + 2; fetched++) {
            pipe.producer_acquire();
            cuda::memcpy_async(block, s[fetched % 2], in + fetched * N, sizeof(s[0]), pipe);
            pipe.producer_commit();
        }
        pipe.consumer_wait();
        sum += s[i % 2][threadIdx.x];
        block.sync();
        pipe.consumer_release();
    }
    out[threadIdx.x] = sum;
}

/* The first warp fills, the others read. */
__global__ void fill_and_read(int *out)
{
    __shared__ barrier ready, filled;
    __shared__ int buffer;
    if (threadIdx.x == 0) {
        init(&ready, blockDim.x);
        init(&filled, blockDim.x);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        for (int i = 0; i < 4; i++) {
            ready.arrive_and_wait();
            if (threadIdx.x == 0)
                buffer = i * 10;
            (void)filled.arrive();
        }
        return;
    }
    int sum = 0;
    (void)ready.arrive();
    for (int i = 0; i < 4; i++) {
        filled.arrive_and_wait();
        sum += buffer;
        if (i < 3)
            (void)ready.arrive();
    }
    out[threadIdx.x] = sum;
}

__global__ void counted(int *out)
{
    __shared__ int word;
    int n = threadIdx.x < 5, total;
    if (threadIdx.x < 32)
        asm volatile("bar.sync 3, 64;" ::: "memory");
    else if (threadIdx.x < 64) {
        if (threadIdx.x == 40)
            word = 11;
        __syncwarp();
        __threadfence_block();
        asm volatile("bar.arrive 3, 64;" ::: "memory");
    }
    if (threadIdx.x == 0)
        out[0] = word;
    asm volatile("{.reg .pred q; setp.ne.s32 q, %1, 0;\n\t"
                 "barrier.cta.red.popc.aligned.u32 %0, 2, q;}"
                 : "=r"(total)
                 : "r"(n));
    int any = __syncthreads_or(threadIdx.x == 77), all = __syncthreads_and(threadIdx.x < 1000);
    if (threadIdx.x == N - 1)
        out[1] = total * 100 + (any != 0) * 10 + (all != 0);
}

int main(void)
{
    int host[6 * N], *in = (int *)device_alloc(sizeof(host)), *out = (int *)device_alloc(N * 4);
    for (int i = 0; i < 6 * N; i++)
        host[i] = i;
    CUDA(cudaMemcpy(in, host, sizeof(host), cudaMemcpyHostToDevice));
    copy_and_wait<<<1, N>>>(in, out);
    LAUNCHED();
    CUDA(cudaMemcpy(host, out, N * 4, cudaMemcpyDeviceToHost));
    printf("copied: %d %d %d\n", host[0], host[1], host[N - 1]);
    two_stages<<<1, N>>>(in, out, 6);
    LAUNCHED();
    CUDA(cudaMemcpy(host, out, N * 4, cudaMemcpyDeviceToHost));
    printf("stages: %d %d\n", host[0], host[N - 1]);
    fill_and_read<<<1, N>>>(out);
    LAUNCHED();
    CUDA(cudaMemcpy(host, out, N * 4, cudaMemcpyDeviceToHost));
    printf("read: %d %d\n", host[32], host[N - 1]);
    counted<<<1, N>>>(out);
    LAUNCHED();
    CUDA(cudaMemcpy(host, out, 8, cudaMemcpyDeviceToHost));
    printf("counted: %d %d\n", host[0], host[1]);
    return 0;
}
