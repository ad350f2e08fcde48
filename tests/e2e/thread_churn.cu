/* Threads that come and go, more of them than there are stream words or handles in reserve: each
 * works in its own per-thread stream, some leave with the work under way, some make and destroy
 * streams and events of their own, some end with contexts on their stack. */
#include <pthread.h>

#include "check.h"

enum { AT_A_TIME = 8, ROUNDS = 1250 };

__global__ void add(unsigned *sum, unsigned n)
{
    atomicAdd(sum, n);
}

struct job {
    unsigned *sum, n;
};

static void own_things(unsigned *sum)
{
    cudaStream_t stream;
    cudaEvent_t event;
    CUDA(cudaStreamCreate(&stream));
    CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    add<<<1, 1, 0, stream>>>(sum, 1);
    LAUNCHED();
    CUDA(cudaEventRecord(event, stream));
    CUDA(cudaStreamWaitEvent(cudaStreamPerThread, event, 0));
    CUDA(cudaEventDestroy(event));
    CUDA(cudaStreamDestroy(stream));
}

static void *work(void *arg)
{
    const struct job *job = (const struct job *)arg;
    add<<<1, 1, 0, cudaStreamPerThread>>>(job->sum, job->n);
    LAUNCHED();
    if (job->n % 5 == 1)
        own_things(job->sum);
    if (job->n % 2)
        CUDA(cudaStreamSynchronize(cudaStreamPerThread));
    return NULL;
}

int main(void)
{
    pthread_t thread[AT_A_TIME];
    struct job job[AT_A_TIME];
    unsigned *sum = (unsigned *)device_alloc(sizeof(*sum)), got = 0, want = 0;
    CUDA(cudaMemset(sum, 0, sizeof(*sum)));
    CUDA(cudaDeviceSynchronize());
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < AT_A_TIME; i++) {
            job[i] = (struct job){sum, (unsigned)(round + i) % 10};
            want += job[i].n + (job[i].n % 5 == 1);
            CHECK(pthread_create(&thread[i], NULL, work, &job[i]) == 0);
        }
        for (int i = 0; i < AT_A_TIME; i++)
            pthread_join(thread[i], NULL);
    }
    CUDA(cudaDeviceSynchronize());
    CUDA(cudaMemcpy(&got, sum, sizeof(got), cudaMemcpyDeviceToHost));
    printf("%d threads, sum %d\n", ROUNDS * AT_A_TIME, got == want);
    CUDA(cudaFree(sum));
    return 0;
}
