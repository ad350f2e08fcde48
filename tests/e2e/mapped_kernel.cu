/* Kernels read and write host memory, by the device's pointer to it and by the host's own, and a
 * free of other memory means that they are done. */
#include "check.h"

enum { N = 300007 };

static int *host_alloc(void)
{
    void *at = NULL;
    CUDA(cudaHostAlloc(&at, N * sizeof(int), cudaHostAllocMapped));
    return (int *)at;
}

__global__ void twice(const int *in, int *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = 2 * in[i];
}

/* Busy for a while, then writes. */
__global__ void late(int *x, int value, int turns)
{
    unsigned v = threadIdx.x, i = blockIdx.x * blockDim.x + threadIdx.x;
    for (int k = 0; k < turns; k++)
        v = v * 1664525u + 1013904223u;
    if (i < N)
        x[i] = value + (turns < 0 ? (int)v : 0);
}

static void run(const char *what, const int *in, int *out, int *host, int first)
{
    memset(host, 0, N * sizeof(int));
    twice<<<(N + 255) / 256, 256>>>(in, out, N);
    LAUNCHED();
    CUDA(cudaDeviceSynchronize());
    for (int i = 0; i < N; i++)
        CHECK(host[i] == 2 * (i - first));
    printf("a kernel reads and writes host memory by %s\n", what);
}

static void behind_a_kernel(int *host)
{
    cudaStream_t stream;
    void *dev = device_alloc(4096);
    int bad = 0;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    memset(host, 0, N * sizeof(int));
    late<<<(N + 255) / 256, 256, 0, stream>>>(host, 7, 60);
    LAUNCHED();
    CUDA(cudaFree(dev));
    for (int i = 0; i < N; i++)
        bad += host[i] != 7;
    printf("%d words missing after a free\n", bad);
    CUDA(cudaStreamDestroy(stream));
}

int main(void)
{
    int *in = host_alloc(), *out = host_alloc(), *din = NULL, *dout = NULL;
    for (int i = 0; i < N; i++)
        in[i] = i - 5;
    CUDA(cudaHostGetDevicePointer((void **)&din, in, 0));
    CUDA(cudaHostGetDevicePointer((void **)&dout, out, 0));
    run("the device's pointer", din, dout, out, 5);
    run("the host's pointer", in, out, out, 5);
    behind_a_kernel(out);
    CUDA(cudaFreeHost(in));
    CUDA(cudaFreeHost(out));
    return 0;
}
