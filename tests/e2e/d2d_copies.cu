/* Copies inside device memory, plain and asynchronous, between allocations and inside one, in order
 * with kernels of the same stream and of others. */
#include "check.h"

enum { N = 50000 };

__global__ void bump(int *x, int n, int by)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        x[i] += by;
}

int main(void)
{
    static int host[N], got[N];
    for (int i = 0; i < N; i++)
        host[i] = 7 * i;
    int *a = (int *)device_alloc(sizeof(host)), *b = (int *)device_alloc(sizeof(host));
    int *ring = (int *)device_alloc(4 * sizeof(host));
    CUDA(cudaMemcpy(a, host, sizeof(host), cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(b, a, sizeof(host), cudaMemcpyDeviceToDevice));
    CUDA(cudaMemset(a, 0, sizeof(host)));
    CUDA(cudaMemcpy(got, b, sizeof(host), cudaMemcpyDeviceToHost));
    CHECK(memcmp(got, host, sizeof(host)) == 0);
    printf("between allocations\n");

    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaMemcpyAsync(ring, b, sizeof(host), cudaMemcpyDefault, stream));
    for (int r = 0; r < 15; r++) {
        int from = r % 4, to = (r + 1) % 4;
        bump<<<(N + 255) / 256, 256, 0, stream>>>(ring + from * N, N, r);
        LAUNCHED();
        CUDA(cudaMemcpyAsync(ring + to * N, ring + from * N, sizeof(host), cudaMemcpyDeviceToDevice,
                             stream));
    }
    CUDA(cudaMemcpyAsync(got, ring + 3 * N, sizeof(host), cudaMemcpyDeviceToHost, stream));
    CUDA(cudaStreamSynchronize(stream));
    for (int i = 0; i < N; i++)
        CHECK(got[i] == 7 * i + 15 * 14 / 2);
    printf("in order with kernels: %d\n", got[1]);

    for (int i = 0; i < 64; i++) /* odd sizes and offsets inside one allocation */
        CUDA(cudaMemcpyAsync((char *)a + 11 + 1000 * i, (char *)b + 3 * i, 997,
                             cudaMemcpyDeviceToDevice, 0));
    CUDA(cudaMemcpy(got, a, sizeof(host), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 64; i++)
        CHECK(memcmp((char *)got + 11 + 1000 * i, (char *)host + 3 * i, 997) == 0);
    CHECK(((char *)got)[10] == 0 && ((char *)got)[11 + 997] == 0);
    printf("odd sizes and offsets\n");
    CUDA(cudaFree(a));
    CUDA(cudaFree(b));
    CUDA(cudaFree(ring));
    return 0;
}
