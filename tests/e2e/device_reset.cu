/* cudaDeviceReset: lets kernels finish and print, forgets memory and errors, and the program's own
 * kernels go on working after it. */
#include <cstdio>
#include "check.h"

__global__ void hello(int from)
{
    printf("hello %d\n", from + (int)threadIdx.x);
}

__global__ void fill(int *p, int value)
{
    p[threadIdx.x] = value + (int)threadIdx.x;
}

__device__ int counter;

__global__ void count(void)
{
    atomicAdd(&counter, 1);
}

static void works(int value)
{
    int *p, got[4] = {0};
    CUDA(cudaMalloc(&p, sizeof(got)));
    fill<<<1, 4>>>(p, value);
    LAUNCHED();
    CUDA(cudaMemcpy(got, p, sizeof(got), cudaMemcpyDeviceToHost));
    printf("%d %d %d %d\n", got[0], got[1], got[2], got[3]);
}

int main(void)
{
    int got = -1;
    works(10);
    count<<<1, 5>>>();
    hello<<<1, 3>>>(1);
    CUDA(cudaDeviceReset());
    printf("reset\n");
    works(20);
    count<<<1, 2>>>();
    CUDA(cudaMemcpyFromSymbol(&got, counter, sizeof(got)));
    printf("the counter began anew: %d\n", got);
    fill<<<1, 4>>>((int *)64, 1);
    printf("%s\n", cudaGetErrorName(cudaDeviceSynchronize()));
    CUDA(cudaDeviceReset());
    (void)cudaGetLastError();
    works(30);
    return 0;
}
