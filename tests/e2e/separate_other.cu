/* The other half of separate.cu. */
#include "separate.h"

#include "check.h"

static __device__ int secret = 3;
__device__ int table[4] = {10, 20, 30, 40};
__constant__ int offset = 5;

static __device__ __noinline__ int own(int x)
{
    return x * secret;
}

__device__ __noinline__ int twice(int x)
{
    return 2 * x;
}

static __device__ int negate(int x)
{
    return -x;
}

__device__ int (*operation)(int) = negate;

__global__ void finish(int *x)
{
    x[threadIdx.x] = own(x[threadIdx.x]) + shared_inline(1);
    if (threadIdx.x == 0)
        counter += 10;
}

void other_kernel(int *dev)
{
    finish<<<1, 4>>>(dev);
    LAUNCHED();
}
