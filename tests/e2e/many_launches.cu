/* 20,000 tiny launches mixed with small asynchronous copies, memsets and events over two streams.
 * The arithmetic depends on the order, so one record lost, doubled or overtaken changes the result.
 */
#include "check.h"

enum { LAUNCHES = 20000, LANES = 32 };

__global__ void mix(unsigned *x, unsigned a, unsigned b)
{
    x[threadIdx.x] = x[threadIdx.x] * a + b + threadIdx.x;
}

__global__ void take(unsigned *x, const unsigned *from)
{
    x[threadIdx.x] ^= from[threadIdx.x];
}

static void on_cpu(unsigned *x)
{
    for (unsigned i = 0; i < LAUNCHES; i++) {
        for (unsigned l = 0; l < LANES; l++)
            x[l] = x[l] * (2 * i + 1) + i + l;
        if (i % 50 == 0)
            for (unsigned l = 0; l < LANES; l++)
                x[l] ^= i * 77 + l;
        if (i % 1000 == 999)
            for (unsigned l = 0; l < LANES; l++)
                x[l] ^= 0x03030303;
    }
}

int main(void)
{
    unsigned want[LANES] = {0}, got[LANES], pageable[LANES], *pinned = NULL;
    cudaStream_t one, two;
    cudaEvent_t there, back;
    CUDA(cudaStreamCreateWithFlags(&one, cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithFlags(&two, cudaStreamNonBlocking));
    CUDA(cudaEventCreateWithFlags(&there, cudaEventDisableTiming));
    CUDA(cudaEventCreate(&back));
    unsigned *x = (unsigned *)device_alloc(sizeof(got)), *y = (unsigned *)device_alloc(sizeof(got));
    unsigned *z = (unsigned *)device_alloc(sizeof(got));
    CUDA(cudaMallocHost((void **)&pinned, LAUNCHES / 50 * sizeof(got)));
    CUDA(cudaMemset(x, 0, sizeof(got)));
    CUDA(cudaDeviceSynchronize());
    for (unsigned i = 0; i < LAUNCHES; i++) {
        mix<<<1, LANES, 0, one>>>(x, 2 * i + 1, i);
        if (i % 50 == 0) { /* pinned and pageable sources in turn */
            unsigned *from = i % 100 ? pageable : pinned + i / 50 * LANES;
            for (unsigned l = 0; l < LANES; l++)
                from[l] = i * 77 + l;
            CUDA(cudaMemcpyAsync(y, from, sizeof(got), cudaMemcpyHostToDevice, one));
            take<<<1, LANES, 0, one>>>(x, y);
        }
        if (i % 1000 == 999) { /* through the other stream and back */
            CUDA(cudaEventRecord(there, one));
            CUDA(cudaStreamWaitEvent(two, there, 0));
            CUDA(cudaMemsetAsync(z, 3, sizeof(got), two));
            take<<<1, LANES, 0, two>>>(x, z);
            CUDA(cudaEventRecord(back, two));
            CUDA(cudaStreamWaitEvent(one, back, 0));
        }
    }
    LAUNCHED();
    CUDA(cudaMemcpyAsync(got, x, sizeof(got), cudaMemcpyDeviceToHost, one));
    CUDA(cudaStreamSynchronize(one));
    on_cpu(want);
    CHECK(memcmp(got, want, sizeof(got)) == 0);
    printf("%d launches: %08x .. %08x\n", LAUNCHES, got[0], got[LANES - 1]);
    CUDA(cudaFreeHost(pinned));
    return 0;
}
