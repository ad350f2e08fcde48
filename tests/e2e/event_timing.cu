/* Elapsed time between events: never negative, additive, longer around more work, and refused where
 * CUDA refuses it.  Times themselves are not printed. */
#include "check.h"

__global__ void work(unsigned *x, int turns)
{
    unsigned v = threadIdx.x;
    for (int k = 0; k < turns; k++)
        v = v * 1664525u + 1013904223u;
    x[blockIdx.x * blockDim.x + threadIdx.x] = v;
}

int main(void)
{
    unsigned *dx = (unsigned *)device_alloc(1024 * sizeof(unsigned));
    cudaEvent_t e[4], plain;
    for (int i = 0; i < 4; i++)
        CUDA(cudaEventCreate(&e[i]));
    CUDA(cudaEventCreateWithFlags(&plain, cudaEventDisableTiming));
    work<<<1, 32>>>(dx, 1);
    LAUNCHED();
    CUDA(cudaDeviceSynchronize());

    CUDA(cudaEventRecord(e[0], 0));
    work<<<4, 256>>>(dx, 10);
    LAUNCHED();
    CUDA(cudaEventRecord(e[1], 0));
    work<<<4, 256>>>(dx, 4000);
    LAUNCHED();
    CUDA(cudaEventRecord(e[2], 0));
    CUDA(cudaEventRecord(plain, 0));
    CUDA(cudaEventSynchronize(e[2]));

    float first = -1, second = -1, both = -1, same = 1;
    CUDA(cudaEventElapsedTime(&first, e[0], e[1]));
    CUDA(cudaEventElapsedTime(&second, e[1], e[2]));
    CUDA(cudaEventElapsedTime(&both, e[0], e[2]));
    CUDA(cudaEventElapsedTime(&same, e[1], e[1]));
    printf("not negative: %s\n", first >= 0 && second >= 0 ? "ok" : "no");
    printf("long work takes time, below 60 s: %s\n", second > 0 && both < 60000 ? "ok" : "no");
    float error = first + second - both;
    printf("additive: %s\n", error < 0.01f && error > -0.01f ? "ok" : "no");
    printf("to itself: %s\n", same == 0 ? "ok" : "no");

    float never = 0;
    show("without timing", cudaEventElapsedTime(&never, plain, e[2]));
    show("never recorded", cudaEventElapsedTime(&never, e[0], e[3]));
    (void)cudaGetLastError();
    work<<<8, 128>>>(dx, 200000);
    LAUNCHED();
    CUDA(cudaEventRecord(e[3], 0));
    cudaError_t soon = cudaEventElapsedTime(&never, e[0], e[3]);
    CHECK(soon == cudaSuccess || soon == cudaErrorNotReady);
    (void)cudaGetLastError();
    CUDA(cudaEventSynchronize(e[3]));
    CUDA(cudaEventElapsedTime(&never, e[0], e[3]));
    printf("after the wait: %s\n", never >= both ? "ok" : "no");
    return 0;
}
