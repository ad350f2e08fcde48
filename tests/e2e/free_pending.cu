/* Frees while work is under way: memory that is freed is not touched by anybody else until the work
 * that uses it is done, and a free behind a copy to the host means that the copy is there. */
#include "check.h"

enum { WORDS = 1 << 18, BYTES = WORDS * sizeof(unsigned) };

/* Busy for a while, then writes. */
__global__ void late(unsigned *x, unsigned value, int turns)
{
    unsigned v = threadIdx.x;
    for (int k = 0; k < turns; k++)
        v = v * 1664525u + 1013904223u;
    x[blockIdx.x * blockDim.x + threadIdx.x] = value + (turns < 0 ? v : 0);
}

static void behind_a_copy(unsigned *host, const char *what)
{
    cudaStream_t stream;
    unsigned *dev = (unsigned *)device_alloc(BYTES), bad = 0;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    memset(host, 0, BYTES);
    late<<<WORDS / 256, 256, 0, stream>>>(dev, 42, 60);
    LAUNCHED();
    CUDA(cudaMemcpyAsync(host, dev, BYTES, cudaMemcpyDeviceToHost, stream));
    CUDA(cudaFree(dev)); /* waits, and programs rely on it */
    for (int i = 0; i < WORDS; i++)
        bad += host[i] != 42;
    printf("%s: %u missing after the free\n", what, bad);
    CUDA(cudaStreamDestroy(stream));
}

static void CUDART_CB note(void *arg)
{
    *(volatile int *)arg += 1;
}

static void behind_a_host_function(void)
{
    cudaStream_t stream;
    volatile int called = 0;
    unsigned *dev = (unsigned *)device_alloc(BYTES), *other = (unsigned *)device_alloc(512);
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    late<<<WORDS / 256, 256, 0, stream>>>(dev, 42, 40);
    LAUNCHED();
    CUDA(cudaLaunchHostFunc(stream, note, (void *)&called));
    CUDA(cudaFree(other));
    printf("a host function: called %d times before the free returned\n", called);
    CUDA(cudaFree(dev));
    CUDA(cudaStreamDestroy(stream));
}

/* The block goes from hand to hand while kernels write it late. */
static void not_before_its_time(void)
{
    cudaStream_t slow, fast;
    unsigned bad = 0, *out = (unsigned *)malloc(BYTES);
    CUDA(cudaStreamCreateWithFlags(&slow, cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithFlags(&fast, cudaStreamNonBlocking));
    for (int k = 0; k < 8; k++) {
        unsigned *a = (unsigned *)device_alloc(BYTES), *b;
        late<<<WORDS / 256, 256, 0, slow>>>(a, 1, 40);
        LAUNCHED();
        CUDA(cudaFree(a));
        b = (unsigned *)device_alloc(BYTES);
        CUDA(cudaMemsetAsync(b, 0, BYTES, fast));
        late<<<WORDS / 256, 256, 0, fast>>>(b, 2, 0);
        LAUNCHED();
        CUDA(cudaStreamSynchronize(fast));
        CUDA(cudaStreamSynchronize(slow));
        CUDA(cudaMemcpy(out, b, BYTES, cudaMemcpyDeviceToHost));
        for (int i = 0; i < WORDS; i++)
            bad += out[i] != 2;
        CUDA(cudaFree(b));
    }
    printf("%u words of other blocks\n", bad);
    free(out);
}

int main(void)
{
    unsigned *pinned, *registered = (unsigned *)malloc(BYTES);
    not_before_its_time();
    CHECK(registered != NULL);
    CUDA(cudaHostRegister(registered, BYTES, 0));
    behind_a_copy(registered, "a copy to registered memory");
    CUDA(cudaHostUnregister(registered));
    behind_a_host_function();
    CUDA(cudaMallocHost(&pinned, BYTES));
    behind_a_copy(pinned, "a copy to pinned memory");
    CUDA(cudaFreeHost(pinned));
    free(registered);
    return 0;
}
