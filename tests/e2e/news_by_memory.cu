/* A program learns that a copy has arrived by no call: a word of pinned memory changes, which the
 * stream writes after the copy.  The bytes must be there when the word is. */
#include <cuda.h>
#include <unistd.h>

#include "check.h"

enum { LEN = 300000, ROUNDS = 20 };

static uint8_t *device, *host;
static volatile unsigned *word;
static cudaStream_t stream;

static void say(int how, unsigned round)
{
    CUdeviceptr at = (CUdeviceptr)(uintptr_t)word;
    switch (how) {
    case 0:
        CHECK(cuStreamWriteValue32(stream, at, round, 0) == CUDA_SUCCESS);
        break;
    case 1:
        CHECK(cuMemsetD32Async(at, round, 1, stream) == CUDA_SUCCESS);
        break;
    case 2:
        CUDA(cudaMemcpyAsync((void *)word, device + LEN, sizeof *word, cudaMemcpyDeviceToHost,
                             stream));
        break;
    case 3:
        CUDA(cudaMemcpy2DAsync((void *)word, 4, device + LEN, 8, 2, 2, cudaMemcpyDeviceToHost,
                               stream));
        break;
    }
}

static void run(const char *what, int how)
{
    unsigned late = 0;
    for (unsigned round = 1; round <= ROUNDS; round++) {
        unsigned news[2] = {how == 3 ? round & 0xffff : round, round >> 16};
        *word = 0;
        CUDA(cudaMemcpy(device + LEN, news, sizeof news, cudaMemcpyHostToDevice));
        CUDA(cudaMemset(device, (int)round, LEN));
        CUDA(cudaDeviceSynchronize());
        CUDA(cudaMemcpyAsync(host, device, LEN, cudaMemcpyDeviceToHost, stream));
        say(how, round);
        while (*word != round)
            ;
        late += host[0] != (uint8_t)round || host[LEN - 1] != (uint8_t)round;
        CUDA(cudaStreamSynchronize(stream));
    }
    printf("%s: %u of %d copies came after the news\n", what, late, ROUNDS);
}

int main(void)
{
    alarm(180); /* rather than hang */
    host = (uint8_t *)malloc(LEN);
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaHostAlloc((void **)&word, 64, cudaHostAllocMapped));
    device = (uint8_t *)device_alloc(LEN + 64);
    CUDA(cudaHostRegister(host, LEN, 0));
    run("a value", 0);
    run("a fill", 1);
    run("a copy", 2);
    run("a rectangle", 3);
    CUDA(cudaHostUnregister(host));
    CUDA(cudaFreeHost((void *)word));
    CUDA(cudaFree(device));
    free(host);
    return 0;
}
