/* A stream that is created after a synchronous copy comes after that copy, although nobody waited
 * for the device: cudaMemcpy has returned. */
#include "check.h"

enum { LEN = 16 << 20, ROUNDS = 12 };

__global__ void last(unsigned *to, const unsigned *from)
{
    to[threadIdx.x] = from[threadIdx.x];
}

int main(void)
{
    unsigned *host = (unsigned *)malloc(LEN * sizeof(unsigned));
    unsigned *dev = (unsigned *)device_alloc(LEN * sizeof(unsigned));
    unsigned *out = (unsigned *)device_alloc(32 * sizeof(unsigned)), got[32];
    for (unsigned round = 1; round <= ROUNDS; round++) {
        cudaStream_t stream;
        for (int i = LEN - 32; i < LEN; i++)
            host[i] = round;
        CUDA(cudaMemcpy(dev, host, LEN * sizeof(unsigned), cudaMemcpyHostToDevice));
        CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
        last<<<1, 32, 0, stream>>>(out, dev + LEN - 32);
        LAUNCHED();
        CUDA(cudaMemcpyAsync(got, out, sizeof(got), cudaMemcpyDeviceToHost, stream));
        CUDA(cudaStreamSynchronize(stream));
        for (int i = 0; i < 32; i++)
            CHECK(got[i] == round);
        CUDA(cudaStreamDestroy(stream));
    }
    printf("%d rounds\n", ROUNDS);
    return 0;
}
