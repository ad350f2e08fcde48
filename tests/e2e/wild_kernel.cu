/* A kernel that writes where nothing is: reported as cudaErrorIllegalAddress by the next wait, by
 * everything after it, and never a crash of this process, which ends in its own way with status 3.
 */
#include "check.h"

__global__ void wild(int *at)
{
    at[threadIdx.x] = 1;
}

__global__ void nothing(void)
{
}

int main(void)
{
    int *dev = (int *)device_alloc(256), host[64] = {0};
    wild<<<1, 32>>>(dev);
    LAUNCHED();
    CUDA(cudaDeviceSynchronize());
    cudaStream_t stream;
    CUDA(cudaStreamCreate(&stream));
    wild<<<1, 32, 0, stream>>>((int *)(uintptr_t)0x1000);
    show("the launch", cudaGetLastError());
    show("stream wait", cudaStreamSynchronize(stream));
    show("device wait", cudaDeviceSynchronize());
    show("copy", cudaMemcpy(host, dev, sizeof(host), cudaMemcpyDeviceToHost));
    nothing<<<1, 1>>>();
    show("another launch", cudaGetLastError());
    void *more = NULL;
    show("cudaMalloc", cudaMalloc(&more, 64));
    show("stream query", cudaStreamQuery(stream));
    printf("%s\n", cudaGetErrorString(cudaErrorIllegalAddress));
    return 3;
}
