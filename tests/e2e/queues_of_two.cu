/* One GPU full of work that waits for another GPU's kernel, which is launched behind all of it: the
 * launches of the first must not keep that of the second back. */
#include "check.h"

enum { LAUNCHES = 2000 };

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

__global__ void tell(volatile int *flag)
{
    *flag = 1;
}

int main(void)
{
    int n = 0;
    volatile int *flag;
    int *flag_device;
    unsigned got[2], want = 0, *x;
    cudaStream_t first, second;
    CUDA(cudaGetDeviceCount(&n));
    if (n < 2) { /* nothing to see */
        printf("the second GPU let the first one go on\n");
        return 0;
    }
    CUDA(cudaSetDevice(1));
    CUDA(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    CUDA(cudaSetDevice(0));
    CUDA(cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking));
    CUDA(cudaHostAlloc((void **)&flag, sizeof *flag, cudaHostAllocMapped | cudaHostAllocPortable));
    CUDA(cudaHostGetDevicePointer((void **)&flag_device, (void *)flag, 0));
    x = (unsigned *)device_alloc(sizeof got);
    CUDA(cudaMemset(x, 0, sizeof got));
    CUDA(cudaDeviceSynchronize());
    *flag = 0;
    until<<<1, 1, 0, first>>>(flag_device, x);
    for (int k = 0; k < LAUNCHES; k++) {
        add<<<1, 1, 0, first>>>(x + 1);
        want = want * 3 + 1;
    }
    LAUNCHED();
    CUDA(cudaSetDevice(1));
    tell<<<1, 1, 0, second>>>(flag_device);
    LAUNCHED();
    CUDA(cudaStreamSynchronize(second));
    CUDA(cudaSetDevice(0));
    CUDA(cudaStreamSynchronize(first));
    CUDA(cudaMemcpy(got, x, sizeof got, cudaMemcpyDeviceToHost));
    CHECK(got[0] == 1 && got[1] == want);
    printf("the second GPU let the first one go on\n");
    return 0;
}
