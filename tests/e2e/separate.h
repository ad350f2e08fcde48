/* What separate.cu and separate_other.cu share. */
#ifndef TFR_TESTS_SEPARATE_H
#define TFR_TESTS_SEPARATE_H

extern __device__ int twice(int x);
extern __device__ int table[4];
extern __device__ int counter;
extern __device__ int (*operation)(int);
extern __constant__ int offset;
void other_kernel(int *dev);

template <typename T> __device__ __noinline__ T shared_inline(T x)
{
    return x * 1000;
}

#endif
