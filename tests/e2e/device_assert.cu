// A failed assertion ends the context: what was printed before it is there, the synchronisation
// and every call after it answer cudaErrorAssert.  The message itself goes to stderr.
#include <assert.h>

#include "check.h"

static __global__ void speak(void)
{
    printf("printed before the assertion\n");
}

static __global__ void verify(const int *at)
{
    assert(at[threadIdx.x] == 7);
}

int main()
{
    int *at = (int *)device_alloc(64 * sizeof(int)), seven[64];
    for (int i = 0; i < 64; i++)
        seven[i] = 7;
    CUDA(cudaMemcpy(at, seven, sizeof seven, cudaMemcpyHostToDevice));
    verify<<<1, 64>>>(at);
    show("an assertion that holds", cudaDeviceSynchronize());
    seven[33] = 8;
    CUDA(cudaMemcpy(at, seven, sizeof seven, cudaMemcpyHostToDevice));
    speak<<<1, 1>>>();
    verify<<<1, 64>>>(at);
    show("one that fails", cudaDeviceSynchronize());
    show("the next call", cudaMemcpy(seven, at, sizeof seven, cudaMemcpyDeviceToHost));
    show("and the one after", cudaStreamSynchronize(0));
    return 0;
}
