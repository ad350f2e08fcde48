/* Several host threads share one device: streams of their own, one stream together, allocations and
 * frees all the time, and an event of one thread that another waits for. */
#include <pthread.h>

#include <stdlib.h>
/* A thread that fails ends the process while others are inside cudart: no handlers then. */
#define exit(status) _Exit(status)
#include "check.h"

enum { THREADS = 6, ROUNDS = 30, N = 1000 };

static int *shared_sum;
static cudaStream_t shared_stream;
static int finished[THREADS];

__global__ void scale(const int *in, int *out, int n, int by)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        out[i] = in[i] * by;
}

__global__ void add_one(int *sum)
{
    if (threadIdx.x == 0)
        *sum += 1; /* no atomics: launches into one stream do not overlap */
}

static void *worker(void *arg)
{
    int me = *(int *)arg;
    cudaStream_t stream;
    CUDA(cudaSetDevice(0));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    int *in = (int *)malloc(N * sizeof(int)), *out = (int *)malloc(N * sizeof(int));
    for (int r = 0; r < ROUNDS; r++) {
        int n = 1 + (r * 37 + me * 101) % N;
        int *din = (int *)device_alloc(n * sizeof(int)), *dout = (int *)device_alloc(n * 4);
        for (int i = 0; i < n; i++)
            in[i] = i + me * 1000 + r;
        CUDA(cudaMemcpyAsync(din, in, n * sizeof(int), cudaMemcpyHostToDevice, stream));
        scale<<<(n + 127) / 128, 128, 0, stream>>>(din, dout, n, me + 2);
        LAUNCHED();
        add_one<<<1, 32, 0, shared_stream>>>(shared_sum);
        LAUNCHED();
        CUDA(cudaMemcpyAsync(out, dout, n * sizeof(int), cudaMemcpyDeviceToHost, stream));
        CUDA(cudaStreamSynchronize(stream));
        for (int i = 0; i < n; i++)
            CHECK(out[i] == in[i] * (me + 2));
        CUDA(cudaFree(din));
        CUDA(cudaFree(dout));
    }
    CUDA(cudaStreamDestroy(stream));
    free(in);
    free(out);
    finished[me] = 1;
    return NULL;
}

/* A mistake in one thread is not another thread's last error. */
static void *mistake(void *arg)
{
    (void)cudaMalloc(NULL, 1);
    *(cudaError_t *)arg = cudaPeekAtLastError();
    return NULL;
}

int main(void)
{
    pthread_t thread[THREADS];
    int id[THREADS], sum = 0, done = 0;
    shared_sum = (int *)device_alloc(sizeof(int));
    CUDA(cudaMemset(shared_sum, 0, sizeof(int)));
    CUDA(cudaStreamCreate(&shared_stream));
    for (int i = 0; i < THREADS; i++) {
        id[i] = i;
        CHECK(pthread_create(&thread[i], NULL, worker, &id[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    for (int i = 0; i < THREADS; i++)
        done += finished[i];
    CUDA(cudaMemcpy(&sum, shared_sum, sizeof(sum), cudaMemcpyDeviceToHost));
    printf("%d threads, shared stream counted %d\n", done, sum);

    cudaError_t theirs = cudaSuccess;
    CHECK(pthread_create(&thread[0], NULL, mistake, &theirs) == 0);
    pthread_join(thread[0], NULL);
    show("their last error", theirs);
    show("mine", cudaGetLastError());
    return 0;
}
