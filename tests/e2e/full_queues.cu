/* More launches than a driver takes: 2,000 on each of 64 streams behind one long kernel, while yet
 * another stream goes on; then 2,000 behind a kernel that ends only when the program says so, which
 * it can only say when none of the launches has kept it waiting. */
#include "check.h"

enum { STREAMS = 64, LAUNCHES = 2000, SMALL = 200 };

__global__ void spin(unsigned *x, int turns)
{
    unsigned y = *x;
    for (int i = 0; i < turns; i++)
        y = y * 1664525u + 1013904223u;
    *x = y ? 0 : 1;
}

__global__ void until(const volatile int *flag, unsigned *seen)
{
    while (!*flag)
        ;
    *seen = 1;
}

__global__ void add(unsigned *x)
{
    x[0] = x[0] * 3 + 1;
}

static unsigned folded(int times)
{
    unsigned x = 0;
    for (int i = 0; i < times; i++)
        x = x * 3 + 1;
    return x;
}

static void behind_one_kernel(unsigned *x, int launches)
{
    cudaStream_t stream[STREAMS], other;
    cudaEvent_t event;
    unsigned got[STREAMS], one;
    CUDA(cudaMemset(x, 0, (STREAMS + 2) * sizeof *x));
    CUDA(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    CUDA(cudaEventCreate(&event));
    for (int i = 0; i < STREAMS; i++)
        CUDA(cudaStreamCreateWithFlags(&stream[i], cudaStreamNonBlocking));
    spin<<<1, 1, 0, stream[0]>>>(x + STREAMS, 3000000);
    CUDA(cudaEventRecord(event, stream[0]));
    for (int i = 1; i < STREAMS; i++)
        CUDA(cudaStreamWaitEvent(stream[i], event, 0));
    for (int k = 0; k < launches; k++)
        for (int i = 0; i < STREAMS; i++)
            add<<<1, 1, 0, stream[i]>>>(x + i);
    add<<<1, 1, 0, other>>>(x + STREAMS + 1);
    LAUNCHED();
    CUDA(cudaMemcpyAsync(&one, x + STREAMS + 1, sizeof one, cudaMemcpyDeviceToHost, other));
    CUDA(cudaStreamSynchronize(other));
    CHECK(one == 1);
    CUDA(cudaDeviceSynchronize());
    CUDA(cudaMemcpy(got, x, sizeof got, cudaMemcpyDeviceToHost));
    for (int i = 0; i < STREAMS; i++) {
        CHECK(got[i] == folded(launches));
        CUDA(cudaStreamDestroy(stream[i]));
    }
    CUDA(cudaStreamDestroy(other));
    CUDA(cudaEventDestroy(event));
    printf("%d streams had all their launches\n", STREAMS);
}

static void until_told(unsigned *x)
{
    cudaStream_t stream;
    volatile int *flag;
    const int *flag_device;
    unsigned got[2];
    CUDA(cudaMemset(x, 0, sizeof got));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaHostAlloc((void **)&flag, sizeof *flag, cudaHostAllocMapped));
    CUDA(cudaHostGetDevicePointer((void **)&flag_device, (void *)flag, 0));
    *flag = 0;
    until<<<1, 1, 0, stream>>>(flag_device, x);
    for (int k = 0; k < LAUNCHES; k++)
        add<<<1, 1, 0, stream>>>(x + 1);
    LAUNCHED();
    CHECK(cudaStreamQuery(stream) == cudaErrorNotReady);
    *flag = 1;
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaMemcpy(got, x, sizeof got, cudaMemcpyDeviceToHost));
    CHECK(got[0] == 1 && got[1] == folded(LAUNCHES));
    CUDA(cudaStreamDestroy(stream));
    CUDA(cudaFreeHost((void *)flag));
    printf("the kernel ended when it was told to\n");
}

int main(void)
{
    unsigned *x = (unsigned *)device_alloc((STREAMS + 2) * sizeof *x);
    until_told(x);
    /* Chaos delays every launch. */
    behind_one_kernel(x, getenv("TFR_SOFT_CHAOS") ? SMALL : LAUNCHES);
    return 0;
}
