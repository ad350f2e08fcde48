/* Streams of every priority side by side: what they say of themselves, and that all of them finish
 * whatever the others do. */
#include "check.h"

enum { STREAMS = 6, N = 4096 };

__global__ void work(unsigned *x, int rounds)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    for (int r = 0; r < rounds; r++)
        x[i] = x[i] * 1664525u + 1013904223u;
}

int main(void)
{
    int least, greatest;
    cudaStream_t stream[STREAMS];
    unsigned *device[STREAMS], got[N];
    CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    printf("a range: %d\n", least >= greatest);
    for (int i = 0; i < STREAMS; i++) {
        int priority = i % 3 == 0 ? least : i % 3 == 1 ? greatest : greatest - 100, is;
        unsigned flags, want = i & 1 ? cudaStreamNonBlocking : cudaStreamDefault;
        CUDA(cudaStreamCreateWithPriority(&stream[i], want, priority));
        CUDA(cudaStreamGetPriority(stream[i], &is));
        CUDA(cudaStreamGetFlags(stream[i], &flags));
        /* beyond the range means its end */
        CHECK(is == (priority < greatest ? greatest : priority) && flags == want);
        device[i] = (unsigned *)device_alloc(sizeof got);
        CUDA(cudaMemsetAsync(device[i], i, sizeof got, stream[i]));
    }
    for (int round = 0; round < 10; round++)
        for (int i = 0; i < STREAMS; i++)
            work<<<N / 128, 128, 0, stream[i]>>>(device[i], 3);
    LAUNCHED();
    for (int i = 0; i < STREAMS; i++) {
        CUDA(cudaMemcpyAsync(got, device[i], sizeof got, cudaMemcpyDeviceToHost, stream[i]));
        CUDA(cudaStreamSynchronize(stream[i]));
        unsigned want = 0x01010101u * i;
        for (int r = 0; r < 30; r++)
            want = want * 1664525u + 1013904223u;
        CHECK(got[0] == want && got[N - 1] == want);
        printf("stream %d: %08x\n", i, want);
        CUDA(cudaStreamDestroy(stream[i]));
        CUDA(cudaFree(device[i]));
    }
    int zero = 99;
    CUDA(cudaStreamGetPriority(0, &zero));
    printf("priority of the default stream: %d\n", zero);
    return 0;
}
