// Host functions run in stream order, see what copies before them brought, and what they write is
// what copies after them send.  CUDA calls are not permitted in them.
#include <atomic>

#include "check.h"

static const int count = 1 << 16;

struct step {
    int *host;
    int sum_seen;
    cudaError_t call_answer;
};

static __global__ void add(int *values, int n, int amount)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        values[i] += amount;
}

static void double_all(void *arg)
{
    struct step *s = (struct step *)arg;
    for (int i = 0; i < count; i++) {
        s->sum_seen += s->host[i];
        s->host[i] *= 2;
    }
    void *at = NULL;
    s->call_answer = cudaMalloc(&at, 16);
}

// Down, doubled by the host, up again, and one more kernel, without a wait in between.
static void round_trip(const char *name, int *host, cudaStream_t stream)
{
    int *gpu = (int *)device_alloc(count * sizeof(int));
    struct step s = {host, 0, cudaSuccess};
    CUDA(cudaMemsetAsync(gpu, 0, count * sizeof(int), stream));
    add<<<count / 256, 256, 0, stream>>>(gpu, count, 3);
    LAUNCHED();
    CUDA(cudaMemcpyAsync(host, gpu, count * sizeof(int), cudaMemcpyDeviceToHost, stream));
    CUDA(cudaLaunchHostFunc(stream, double_all, &s));
    CUDA(cudaMemcpyAsync(gpu, host, count * sizeof(int), cudaMemcpyHostToDevice, stream));
    add<<<count / 256, 256, 0, stream>>>(gpu, count, 1);
    LAUNCHED();
    CUDA(cudaStreamSynchronize(stream));
    static int back[count];
    CUDA(cudaMemcpy(back, gpu, sizeof back, cudaMemcpyDeviceToHost));
    long sum = 0;
    for (int i = 0; i < count; i++)
        sum += back[i];
    printf("%s: the function saw %d, the device has %ld, a call in it: %s\n", name, s.sum_seen, sum,
           cudaGetErrorName(s.call_answer));
    CUDA(cudaFree(gpu));
}

static std::atomic<int> ticket;

static void take_ticket(void *arg)
{
    *(int *)arg = ticket++;
}

// Streams whose functions are ordered by events.
static void two_streams(void)
{
    enum { n = 40 };
    cudaStream_t s[2];
    cudaEvent_t passed[n];
    static int got[n];
    for (int i = 0; i < 2; i++)
        CUDA(cudaStreamCreateWithFlags(&s[i], cudaStreamNonBlocking));
    ticket = 0;
    for (int i = 0; i < n; i++) {
        CUDA(cudaEventCreateWithFlags(&passed[i], cudaEventDisableTiming));
        if (i > 0)
            CUDA(cudaStreamWaitEvent(s[i % 2], passed[i - 1], 0));
        CUDA(cudaLaunchHostFunc(s[i % 2], take_ticket, &got[i]));
        CUDA(cudaEventRecord(passed[i], s[i % 2]));
    }
    CUDA(cudaDeviceSynchronize());
    int in_order = 0;
    for (int i = 0; i < n; i++)
        in_order += got[i] == i;
    printf("two streams, ordered by events: %d of %d in order\n", in_order, n);
    for (int i = 0; i < n; i++)
        CUDA(cudaEventDestroy(passed[i]));
    for (int i = 0; i < 2; i++)
        CUDA(cudaStreamDestroy(s[i]));
}

static std::atomic<bool> release;

static void wait_for_release(void *)
{
    while (!release)
        ;
}

static void set_flag(void *arg)
{
    *(std::atomic<bool> *)arg = true;
}

// What is behind a function has to wait for it; queries and other threads' work do not.
static void blocked(void)
{
    cudaStream_t stream;
    cudaEvent_t event;
    std::atomic<bool> after(false);
    CUDA(cudaStreamCreate(&stream));
    CUDA(cudaEventCreate(&event));
    release = false;
    CUDA(cudaLaunchHostFunc(stream, wait_for_release, NULL));
    CUDA(cudaEventRecord(event, stream));
    CUDA(cudaLaunchHostFunc(stream, set_flag, &after));
    show("query of the stream while its function runs", cudaStreamQuery(stream));
    show("query of an event behind it", cudaEventQuery(event));
    printf("the function behind it has run: %d\n", (int)after);
    release = true;
    CUDA(cudaEventSynchronize(event));
    show("query of the event after it", cudaEventQuery(event));
    CUDA(cudaStreamSynchronize(stream));
    printf("the function behind it has run: %d\n", (int)after);
    show("query of the stream after it", cudaStreamQuery(stream));
    // A stream that is destroyed still does what it was given.
    after = false;
    CUDA(cudaLaunchHostFunc(stream, set_flag, &after));
    CUDA(cudaStreamDestroy(stream));
    CUDA(cudaDeviceSynchronize());
    printf("the function of a destroyed stream has run: %d\n", (int)after);
    CUDA(cudaEventDestroy(event));
}

// Bytes arrive in registered memory though the program never asks.
static void unasked(int *host)
{
    int *gpu = (int *)device_alloc(count * sizeof(int));
    volatile int *last = &host[count - 1];
    *last = 0;
    CUDA(cudaMemset(gpu, 1, count * sizeof(int)));
    CUDA(cudaMemcpyAsync(host, gpu, count * sizeof(int), cudaMemcpyDeviceToHost, 0));
    while (*last != 0x01010101)
        ;
    printf("arrived without a wait\n");
    CUDA(cudaFree(gpu));
}

int main()
{
    static int registered[count];
    int *pinned;
    cudaStream_t stream;
    CUDA(cudaStreamCreate(&stream));
    CUDA(cudaMallocHost(&pinned, count * sizeof(int)));
    round_trip("pinned, in a stream", pinned, stream);
    round_trip("pinned, in the legacy stream", pinned, 0);
    round_trip("pinned, in the thread's stream", pinned, cudaStreamPerThread);
    CUDA(cudaHostRegister(registered, sizeof registered, cudaHostRegisterDefault));
    round_trip("registered, in a stream", registered, stream);
    unasked(registered);
    CUDA(cudaHostUnregister(registered));
    two_streams();
    blocked();
    show("no function", cudaLaunchHostFunc(stream, NULL, NULL));
    CUDA(cudaFreeHost(pinned));
    CUDA(cudaStreamDestroy(stream));
    return 0;
}
