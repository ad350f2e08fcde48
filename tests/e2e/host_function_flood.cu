// Many host functions; many launches behind one that waits for the program; functions of several
// streams at once.
#include <atomic>
#include <thread>
#include <unistd.h>

#include "check.h"

static std::atomic<int> ran, wrong;
static std::atomic<bool> release;

static void count_up(void *arg)
{
    if (ran++ != (int)(intptr_t)arg)
        wrong++;
}

static void hold(void *)
{
    while (!release)
        usleep(100);
}

static __global__ void increment(int *at)
{
    atomicAdd(at, 1);
}

static void many(void)
{
    cudaStream_t stream;
    CUDA(cudaStreamCreate(&stream));
    for (int i = 0; i < 10000; i++)
        CUDA(cudaLaunchHostFunc(stream, count_up, (void *)(intptr_t)i));
    CUDA(cudaStreamSynchronize(stream));
    printf("%d functions, %d out of order\n", (int)ran, (int)wrong);
    CUDA(cudaStreamDestroy(stream));
}

// A GPU's queue of launches is about half as long as this.
static void launches_behind(cudaStream_t stream, const char *name)
{
    int *at = (int *)device_alloc(sizeof(int)), got = 0;
    CUDA(cudaMemset(at, 0, sizeof(int)));
    release = false;
    std::thread later([] {
        usleep(100000);
        release = true;
    });
    CUDA(cudaLaunchHostFunc(stream, hold, NULL));
    for (int i = 0; i < 2000; i++)
        increment<<<1, 1, 0, stream>>>(at);
    LAUNCHED();
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaMemcpy(&got, at, sizeof got, cudaMemcpyDeviceToHost));
    printf("%s: %d launches behind a host function\n", name, got);
    later.join();
    CUDA(cudaFree(at));
}

static void meet(void *arg)
{
    std::atomic<int> *here = (std::atomic<int> *)arg;
    here[0]++;
    usleep(1000);
}

static void several(void)
{
    enum { n = 6 };
    cudaStream_t s[n];
    std::atomic<int> here(0);
    for (int i = 0; i < n; i++)
        CUDA(cudaStreamCreateWithFlags(&s[i], cudaStreamNonBlocking));
    for (int round = 0; round < 20; round++)
        for (int i = 0; i < n; i++)
            CUDA(cudaLaunchHostFunc(s[i], meet, &here));
    for (int i = 0; i < n; i++)
        CUDA(cudaStreamSynchronize(s[i]));
    printf("%d functions of %d streams\n", (int)here, n);
    for (int i = 0; i < n; i++)
        CUDA(cudaStreamDestroy(s[i]));
}

int main()
{
    cudaStream_t stream;
    CUDA(cudaStreamCreate(&stream));
    many();
    launches_behind(stream, "a stream");
    launches_behind(0, "the legacy stream");
    several();
    CUDA(cudaStreamDestroy(stream));
    return 0;
}
