/* Built with --default-stream per-thread: every host thread has a default stream of its own, which
 * is a blocking stream, so that the legacy stream still orders them.  cudaStreamPerThread is its
 * name. */
#include <pthread.h>

#include "check.h"

enum { THREADS = 4, ROUNDS = 40, N = 512 };

static int results[THREADS];
static cudaStream_t legacy = cudaStreamLegacy;

__global__ void step(unsigned *x, unsigned add)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    x[i] = x[i] * 3 + add;
}

static void *own_stream(void *arg)
{
    int me = *(int *)arg;
    unsigned *x = (unsigned *)device_alloc(N * sizeof(unsigned)), got[N], want = me;
    for (int i = 0; i < N; i++)
        got[i] = me;
    CUDA(cudaMemcpyAsync(x, got, sizeof(got), cudaMemcpyHostToDevice, 0));
    for (int r = 0; r < ROUNDS; r++) {
        if (r % 2)
            step<<<N / 64, 64>>>(x, r);
        else
            step<<<N / 64, 64, 0, cudaStreamPerThread>>>(x, r);
        LAUNCHED();
        want = want * 3 + r;
    }
    CUDA(cudaMemcpyAsync(got, x, sizeof(got), cudaMemcpyDeviceToHost, cudaStreamPerThread));
    CUDA(cudaStreamSynchronize(0));
    for (int i = 0; i < N; i++)
        CHECK(got[i] == want);
    CUDA(cudaFree(x));
    results[me] = 1;
    return NULL;
}

int main(void)
{
    pthread_t thread[THREADS];
    int id[THREADS];
    for (int i = 0; i < THREADS; i++) {
        id[i] = i;
        CHECK(pthread_create(&thread[i], NULL, own_stream, &id[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    int done = 0;
    for (int i = 0; i < THREADS; i++)
        done += results[i];
    printf("threads with streams of their own: %d\n", done);

    unsigned *x = (unsigned *)device_alloc(N * sizeof(unsigned)), got[N];
    CUDA(cudaMemset(x, 0, N * sizeof(unsigned)));
    for (int r = 0; r < 10; r++) { /* per-thread and legacy stream wait for each other */
        step<<<N / 64, 64>>>(x, 1);
        step<<<N / 64, 64, 0, legacy>>>(x, 2);
    }
    LAUNCHED();
    CUDA(cudaMemcpyAsync(got, x, sizeof(got), cudaMemcpyDeviceToHost, legacy));
    CUDA(cudaStreamSynchronize(legacy));
    unsigned want = 0;
    for (int r = 0; r < 10; r++)
        want = (want * 3 + 1) * 3 + 2;
    for (int i = 0; i < N; i++)
        CHECK(got[i] == want);
    printf("in order with the legacy stream: %u\n", want);
    CUDA(cudaFree(x));
    return 0;
}
