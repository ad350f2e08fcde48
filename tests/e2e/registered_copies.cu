/* Copies into memory that the program registered, more than fits on the way at once and with nobody
 * waiting in between; and many threads that read back at the same time. */
#include <pthread.h>

#include <stdlib.h>
/* A thread that fails ends the process while others are inside cudart: no handlers then. */
#define exit(status) _Exit(status)
#include "check.h"

enum { PIECE = 4 << 20, PIECES = 24, THREADS = 24, PULL = 6 << 20 };

static unsigned char *dev;

static void *pull(void *arg)
{
    unsigned char *to = (unsigned char *)malloc(PULL);
    cudaStream_t stream;
    (void)arg;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaMemcpyAsync(to, dev, PULL, cudaMemcpyDeviceToHost, stream));
    CUDA(cudaStreamSynchronize(stream));
    CHECK(to[0] == 7 && to[PULL / 2] == 7 && to[PULL - 1] == 7);
    CUDA(cudaStreamDestroy(stream));
    free(to);
    return NULL;
}

int main(void)
{
    size_t len = (size_t)PIECE * PIECES;
    unsigned char *host = (unsigned char *)malloc(len);
    pthread_t thread[THREADS];
    dev = (unsigned char *)device_alloc(PULL);
    CUDA(cudaMemset(dev, 7, PULL));
    CUDA(cudaHostRegister(host, len, cudaHostRegisterDefault));
    for (int i = 0; i < PIECES; i++)
        CUDA(cudaMemcpyAsync(host + (size_t)i * PIECE, dev, PIECE, cudaMemcpyDeviceToHost, 0));
    CUDA(cudaDeviceSynchronize());
    for (size_t i = 0; i < len; i++)
        CHECK(host[i] == 7);
    CUDA(cudaHostUnregister(host));
    printf("%d pieces arrived\n", PIECES);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&thread[i], NULL, pull, NULL) == 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    printf("%d threads read back\n", THREADS);
    return 0;
}
