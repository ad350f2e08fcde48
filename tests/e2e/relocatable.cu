/* nvcc -rdc=true: the PTX stands behind the wrapper, in the list of what was linked. */
#include "check.h"

__device__ int scale = 3;

extern __device__ int twice(int x);

__global__ void apply(int *x)
{
    x[threadIdx.x] = twice(x[threadIdx.x]) * scale;
}

__device__ int twice(int x)
{
    return 2 * x;
}

int main(void)
{
    int host[4] = {1, 2, 3, 4}, five = 5;
    int *dev = (int *)device_alloc(sizeof(host));
    for (int round = 0; round < 2; round++) {
        CUDA(cudaMemcpy(dev, host, sizeof(host), cudaMemcpyHostToDevice));
        apply<<<1, 4>>>(dev);
        LAUNCHED();
        CUDA(cudaMemcpy(host, dev, sizeof(host), cudaMemcpyDeviceToHost));
        printf("%d %d %d %d\n", host[0], host[1], host[2], host[3]);
        CUDA(cudaMemcpyToSymbol(scale, &five, sizeof(five)));
    }
    return 0;
}
