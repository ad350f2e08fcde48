/* Two files compiled apart (nvcc -rdc=true) and linked: functions, variables, constants and a
 * kernel of the other file; statics of the same name in both; an inline function that both define.
 */
#include "separate.h"

#include "check.h"

static __device__ int secret = 100;
__device__ int counter;

static __device__ __noinline__ int own(int x)
{
    return x + secret;
}

__global__ void apply(int *x)
{
    int i = threadIdx.x;
    x[i] = twice(x[i]) + table[i] + offset + own(0) + shared_inline(i);
    atomicAdd(&counter, 1);
}

__global__ void through_pointer(int *x)
{
    x[threadIdx.x] = (*operation)(x[threadIdx.x]);
}

int main(void)
{
    int host[4] = {1, 2, 3, 4}, seven = 7, n = -1;
    int *dev = (int *)device_alloc(sizeof(host));
    for (int round = 0; round < 2; round++) {
        CUDA(cudaMemcpy(dev, host, sizeof(host), cudaMemcpyHostToDevice));
        apply<<<1, 4>>>(dev);
        LAUNCHED();
        through_pointer<<<1, 4>>>(dev);
        LAUNCHED();
        other_kernel(dev);
        CUDA(cudaMemcpy(host, dev, sizeof(host), cudaMemcpyDeviceToHost));
        printf("%d %d %d %d\n", host[0], host[1], host[2], host[3]);
        CUDA(cudaMemcpyToSymbol(offset, &seven, sizeof(seven)));
    }
    CUDA(cudaMemcpyFromSymbol(&n, counter, sizeof(n)));
    printf("counter %d\n", n);
    return 0;
}
