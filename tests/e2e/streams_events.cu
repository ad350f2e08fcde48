/* Blocking and non-blocking streams joined by events across streams, host-side queries and waits.
 * Each step depends on the one before it, so a missing edge shows as a wrong number. */
#include "check.h"

enum { STREAMS = 5, N = 4096, ROUNDS = 12 };

/* Slow enough that a missing dependency loses the race. */
__global__ void step(unsigned *x, unsigned mul, unsigned add, int turns)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned v = x[i], waste = v;
    for (int k = 0; k < turns; k++)
        waste = waste * 1664525u + 1013904223u;
    x[i] = v * mul + add + (waste == 12345u && turns < 0);
}

static void chain(cudaStream_t *stream)
{
    static unsigned x[N], got[N];
    unsigned *dx = (unsigned *)device_alloc(sizeof(x));
    for (int i = 0; i < N; i++)
        x[i] = i;
    CUDA(cudaMemcpyAsync(dx, x, sizeof(x), cudaMemcpyHostToDevice, stream[0]));
    cudaEvent_t event;
    CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    for (int r = 0; r < ROUNDS; r++) {
        cudaStream_t from = stream[r % STREAMS], to = stream[(r + 1) % STREAMS];
        step<<<N / 128, 128, 0, from>>>(dx, 3, r, r % 3 == 0 ? 200 : 0);
        LAUNCHED();
        CUDA(cudaEventRecord(event, from)); /* recorded anew each time: waits keep what they saw */
        CUDA(cudaStreamWaitEvent(to, event, 0));
    }
    CUDA(cudaMemcpyAsync(got, dx, sizeof(got), cudaMemcpyDeviceToHost, stream[ROUNDS % STREAMS]));
    CUDA(cudaStreamSynchronize(stream[ROUNDS % STREAMS]));
    for (int i = 0; i < N; i++) {
        unsigned v = i;
        for (int r = 0; r < ROUNDS; r++)
            v = v * 3 + r;
        CHECK(got[i] == v);
    }
    printf("chain over %d streams: %u\n", STREAMS, got[N - 1]);
    CUDA(cudaEventDestroy(event));
    CUDA(cudaFree(dx));
}

/* One stream forks into all others and joins them again. */
static void fork_join(cudaStream_t *stream)
{
    static unsigned got[N];
    unsigned *dx = (unsigned *)device_alloc(sizeof(got));
    cudaEvent_t forked, joined[STREAMS];
    CUDA(cudaEventCreate(&forked));
    CUDA(cudaMemsetAsync(dx, 0, sizeof(got), stream[0]));
    CUDA(cudaEventRecord(forked, stream[0]));
    const int part = N / (STREAMS - 1);
    for (int s = 1; s < STREAMS; s++) {
        CUDA(cudaStreamWaitEvent(stream[s], forked, 0));
        step<<<part / 64, 64, 0, stream[s]>>>(dx + (s - 1) * part, 1, s, 100 * s);
        LAUNCHED();
        CUDA(cudaEventCreateWithFlags(&joined[s], cudaEventDisableTiming));
        CUDA(cudaEventRecord(joined[s], stream[s]));
        CUDA(cudaStreamWaitEvent(stream[0], joined[s], 0));
    }
    step<<<N / 64, 64, 0, stream[0]>>>(dx, 10, 7, 0);
    LAUNCHED();
    CUDA(cudaMemcpyAsync(got, dx, sizeof(got), cudaMemcpyDeviceToHost, stream[0]));
    CUDA(cudaStreamSynchronize(stream[0]));
    for (int i = 0; i < N; i++)
        CHECK(got[i] == (unsigned)(i / part + 1) * 10 + 7);
    printf("fork and join: %u .. %u\n", got[0], got[N - 1]);
    for (int s = 1; s < STREAMS; s++)
        CUDA(cudaEventDestroy(joined[s]));
    CUDA(cudaEventDestroy(forked));
    CUDA(cudaFree(dx));
}

static void queries(cudaStream_t *stream)
{
    unsigned *dx = (unsigned *)device_alloc(N * sizeof(unsigned));
    cudaEvent_t event;
    CUDA(cudaEventCreate(&event));
    CUDA(cudaEventQuery(event)); /* never recorded: complete */
    CUDA(cudaEventSynchronize(event));
    CUDA(cudaStreamQuery(stream[1]));
    step<<<N / 128, 128, 0, stream[1]>>>(dx, 1, 1, 500);
    LAUNCHED();
    CUDA(cudaEventRecord(event, stream[1]));
    cudaError_t got;
    while ((got = cudaEventQuery(event)) != cudaSuccess)
        CHECK(got == cudaErrorNotReady);
    CUDA(cudaStreamQuery(stream[1])); /* nothing was behind the event */
    step<<<N / 128, 128, 0, stream[2]>>>(dx, 1, 1, 500);
    LAUNCHED();
    while ((got = cudaStreamQuery(stream[2])) != cudaSuccess)
        CHECK(got == cudaErrorNotReady);
    (void)cudaGetLastError();
    CUDA(cudaEventDestroy(event));
    CUDA(cudaFree(dx));
    printf("queries end in success\n");
}

/* A stream and an event may be destroyed with work behind them: the work is still done. */
static void destroyed_early(void)
{
    unsigned *dx = (unsigned *)device_alloc(N * sizeof(unsigned)), got = 0;
    cudaStream_t stream;
    cudaEvent_t event;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaEventCreate(&event));
    CUDA(cudaMemsetAsync(dx, 0, N * sizeof(unsigned), stream));
    step<<<N / 128, 128, 0, stream>>>(dx, 1, 5, 1000);
    LAUNCHED();
    CUDA(cudaEventRecord(event, stream));
    CUDA(cudaStreamDestroy(stream));
    CUDA(cudaEventDestroy(event));
    CUDA(cudaDeviceSynchronize());
    CUDA(cudaMemcpy(&got, dx + N - 1, sizeof(got), cudaMemcpyDeviceToHost));
    CHECK(got == 5);
    CUDA(cudaFree(dx));
    printf("destroyed early: %u\n", got);
}

int main(void)
{
    cudaStream_t stream[STREAMS];
    int low = 0, high = 0;
    CUDA(cudaDeviceGetStreamPriorityRange(&low, &high));
    CUDA(cudaStreamCreate(&stream[0]));
    CUDA(cudaStreamCreateWithFlags(&stream[1], cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithPriority(&stream[2], cudaStreamNonBlocking, high));
    CUDA(cudaStreamCreateWithFlags(&stream[3], cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithFlags(&stream[4], cudaStreamDefault));
    unsigned flags = 9;
    CUDA(cudaStreamGetFlags(stream[1], &flags));
    CHECK(flags == cudaStreamNonBlocking);
    int priority = 99;
    CUDA(cudaStreamGetPriority(stream[2], &priority));
    CHECK(priority == high);
    chain(stream);
    fork_join(stream);
    queries(stream);
    destroyed_early();
    for (int s = 0; s < STREAMS; s++)
        CUDA(cudaStreamDestroy(stream[s]));
    return 0;
}
