/* Pinned host memory by every way to get it, copies in all directions, synchronous and not. */
#include "check.h"

enum { N = 300007 };

static int *host_alloc(unsigned flags)
{
    void *at = NULL;
    CUDA(cudaHostAlloc(&at, N * sizeof(int), flags));
    return (int *)at;
}

__global__ void twice(const int *in, int *out, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = 2 * in[i];
}

/* There and back in three pieces, the middle one at an odd offset. */
static void there_and_back(const char *what, int *a, int *b, int *dev, cudaStream_t stream)
{
    const int cut1 = 1001, cut2 = 200003;
    for (int i = 0; i < N; i++)
        a[i] = 3 * i + 1;
    memset(b, 0, N * sizeof(int));
    CUDA(cudaMemcpyAsync(dev, a, cut1 * 4, cudaMemcpyHostToDevice, stream));
    CUDA(cudaMemcpyAsync(dev + cut1, a + cut1, (cut2 - cut1) * 4, cudaMemcpyDefault, stream));
    CUDA(cudaMemcpyAsync(dev + cut2, a + cut2, (N - cut2) * 4, cudaMemcpyHostToDevice, stream));
    CUDA(cudaMemcpyAsync(b, dev, cut2 * 4, cudaMemcpyDeviceToHost, stream));
    CUDA(cudaMemcpyAsync(b + cut2, dev + cut2, (N - cut2) * 4, cudaMemcpyDefault, stream));
    CUDA(cudaStreamSynchronize(stream));
    CHECK(memcmp(a, b, N * sizeof(int)) == 0);
    memset(b, 0, N * sizeof(int));
    CUDA(cudaMemcpy(dev, a, N * sizeof(int), cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(b, dev, N * sizeof(int), cudaMemcpyDeviceToHost));
    CHECK(memcmp(a, b, N * sizeof(int)) == 0);
    printf("%s: there and back\n", what);
}

/* The stream writes host memory, later copies in it read that memory. */
static void read_after_write(int *a, int *dev, cudaStream_t stream)
{
    int *other = (int *)device_alloc(N * sizeof(int));
    memset(a, 0, N * sizeof(int));
    CUDA(cudaMemsetAsync(dev, 0x11, N * sizeof(int), stream));
    CUDA(cudaMemcpyAsync(a, dev, N * sizeof(int), cudaMemcpyDeviceToHost, stream));
    CUDA(cudaMemcpyAsync(other, a, N * sizeof(int), cudaMemcpyHostToDevice, stream));
    CUDA(cudaMemcpyAsync(dev, other, N * sizeof(int), cudaMemcpyDeviceToDevice, stream));
    twice<<<(N + 255) / 256, 256, 0, stream>>>(dev, other, N);
    LAUNCHED();
    CUDA(cudaMemcpyAsync(a, other, N * sizeof(int), cudaMemcpyDeviceToHost, stream));
    CUDA(cudaStreamSynchronize(stream));
    for (int i = 0; i < N; i++)
        CHECK(a[i] == 0x22222222);
    CUDA(cudaFree(other));
    printf("a copy reads what the stream wrote before it\n");
}

/* Of two copies to one place the later one stays. */
static void write_after_write(int *a, int *dev, cudaStream_t stream)
{
    int *other = (int *)device_alloc(N * sizeof(int));
    CUDA(cudaMemset(dev, 0x11, N * sizeof(int)));
    CUDA(cudaMemset(other, 0x22, N * sizeof(int)));
    for (int round = 0; round < 20; round++) {
        memset(a, 0, N * sizeof(int));
        CUDA(cudaMemcpyAsync(a, dev, N * sizeof(int), cudaMemcpyDeviceToHost, stream));
        CUDA(cudaMemcpyAsync(a, other, N * sizeof(int), cudaMemcpyDeviceToHost, stream));
        CUDA(cudaStreamSynchronize(stream));
        for (int i = 0; i < N; i++)
            CHECK(a[i] == 0x22222222);
    }
    CUDA(cudaFree(other));
    printf("of two copies to one place the later one stays\n");
}

static void host_to_host(cudaStream_t stream)
{
    int *a = host_alloc(0), *b = (int *)malloc(N * sizeof(int));
    for (int i = 0; i < N; i++)
        a[i] = ~i;
    memset(b, 0, N * sizeof(int));
    CUDA(cudaMemcpyAsync(b, a, N * sizeof(int), cudaMemcpyHostToHost, stream));
    CUDA(cudaStreamSynchronize(stream));
    CHECK(memcmp(a, b, N * sizeof(int)) == 0);
    CUDA(cudaMemcpy(a, b + 1, 400, cudaMemcpyDefault));
    CHECK(memcmp(a, b + 1, 400) == 0);
    CUDA(cudaFreeHost(a));
    free(b);
    printf("host to host\n");
}

int main(void)
{
    cudaStream_t stream;
    CUDA(cudaStreamCreate(&stream));
    int *dev = (int *)device_alloc(N * sizeof(int)), *a = NULL, *b = NULL;
    CUDA(cudaMallocHost((void **)&a, N * sizeof(int)));
    CUDA(cudaMallocHost((void **)&b, N * sizeof(int)));
    there_and_back("cudaMallocHost", a, b, dev, stream);
    read_after_write(a, dev, stream);
    write_after_write(a, dev, stream);
    int *p = (int *)malloc(N * sizeof(int)), *q = (int *)malloc(N * sizeof(int));
    there_and_back("malloc", p, q, dev, stream);
    there_and_back("pinned to pageable", a, q, dev, stream);
    CUDA(cudaHostRegister(p, N * sizeof(int), cudaHostRegisterDefault));
    CUDA(cudaHostRegister(q, N * sizeof(int), cudaHostRegisterPortable));
    there_and_back("cudaHostRegister", p, q, dev, stream);
    CUDA(cudaHostUnregister(p));
    CUDA(cudaHostUnregister(q));
    there_and_back("unregistered again", p, q, dev, stream);
    int *w = host_alloc(cudaHostAllocWriteCombined | cudaHostAllocPortable);
    there_and_back("write combined", w, b, dev, stream);
    CUDA(cudaFreeHost(w));
    host_to_host(stream);
    CUDA(cudaFreeHost(a));
    CUDA(cudaFreeHost(b));
    CUDA(cudaFree(dev));
    free(p);
    free(q);
    return 0;
}
