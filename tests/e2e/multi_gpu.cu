/* A vector split over the devices there are: a stream, pinned memory and events on each, and a sum
 * brought together on the host. */
#include "check.h"

enum { N = 1 << 16, MOST = 8 };

__global__ void squares(const unsigned *x, unsigned *y, int n)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        y[i] = x[i] * x[i];
}

__global__ void total(const unsigned *x, int n, unsigned *sum)
{
    unsigned mine = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        mine += x[i];
    for (int step = 16; step; step /= 2)
        mine += __shfl_down_sync(0xffffffffu, mine, step);
    if (threadIdx.x % 32 == 0)
        atomicAdd(sum, mine);
}

int main(void)
{
    struct part {
        cudaStream_t stream;
        cudaEvent_t start, end;
        unsigned *in, *x, *y, *sum, *got;
        int n;
    } part[MOST];
    int devices, use;
    CUDA(cudaGetDeviceCount(&devices));
    use = devices < MOST ? devices : MOST;
    for (int d = 0; d < use; d++) {
        struct part *p = &part[d];
        p->n = N / use;
        CUDA(cudaSetDevice(d));
        CUDA(cudaStreamCreate(&p->stream));
        CUDA(cudaEventCreate(&p->start));
        CUDA(cudaEventCreate(&p->end));
        CUDA(cudaHostAlloc(&p->in, p->n * 4, cudaHostAllocPortable));
        CUDA(cudaHostAlloc(&p->got, 4, cudaHostAllocPortable));
        p->x = (unsigned *)device_alloc(p->n * 4);
        p->y = (unsigned *)device_alloc(p->n * 4);
        p->sum = (unsigned *)device_alloc(4);
        for (int i = 0; i < p->n; i++)
            p->in[i] = (unsigned)(d * p->n + i);
    }
    for (int d = 0; d < use; d++) {
        struct part *p = &part[d];
        CUDA(cudaSetDevice(d));
        CUDA(cudaEventRecord(p->start, p->stream));
        CUDA(cudaMemcpyAsync(p->x, p->in, p->n * 4, cudaMemcpyHostToDevice, p->stream));
        CUDA(cudaMemsetAsync(p->sum, 0, 4, p->stream));
        squares<<<8, 128, 0, p->stream>>>(p->x, p->y, p->n);
        total<<<4, 128, 0, p->stream>>>(p->y, p->n, p->sum);
        LAUNCHED();
        CUDA(cudaMemcpyAsync(p->got, p->sum, 4, cudaMemcpyDeviceToHost, p->stream));
        CUDA(cudaEventRecord(p->end, p->stream));
    }
    unsigned sum = 0, want = 0;
    for (int d = 0; d < use; d++) {
        struct part *p = &part[d];
        float ms;
        CUDA(cudaSetDevice(d));
        CUDA(cudaEventSynchronize(p->end));
        CUDA(cudaEventElapsedTime(&ms, p->start, p->end));
        CHECK(ms >= 0);
        sum += *p->got;
    }
    for (unsigned i = 0; i < (unsigned)(N / use * use); i++)
        want += i * i;
    CHECK(sum == want);
    /* A kernel of the first device reads what the last one has, if it may. */
    int can = 0, last = use - 1;
    if (last)
        CUDA(cudaDeviceCanAccessPeer(&can, 0, last));
    CUDA(cudaSetDevice(0));
    if (can && cudaDeviceEnablePeerAccess(last, 0) == cudaSuccess) {
        CUDA(cudaMemset(part[0].sum, 0, 4));
        total<<<4, 128>>>(part[last].y, part[last].n, part[0].sum);
        CUDA(cudaMemcpy(&sum, part[0].sum, 4, cudaMemcpyDeviceToHost));
        CHECK(sum == *part[last].got);
    }
    cudaGetLastError();
    printf("sum of squares: %u\n", want);
    for (int d = 0; d < use; d++) {
        struct part *p = &part[d];
        CUDA(cudaSetDevice(d));
        CUDA(cudaStreamDestroy(p->stream));
        CUDA(cudaEventDestroy(p->start));
        CUDA(cudaEventDestroy(p->end));
        CUDA(cudaFreeHost(p->in));
        CUDA(cudaFreeHost(p->got));
        CUDA(cudaFree(p->x));
        CUDA(cudaFree(p->y));
        CUDA(cudaFree(p->sum));
    }
    return 0;
}
