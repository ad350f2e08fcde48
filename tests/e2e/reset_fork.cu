/* Ends of a session while the program goes on: a reset finishes what is under way and prints what
 * kernels said, also with copies into registered memory and while another thread waits; a child
 * that was forked ends like any process and is refused. */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { LEN = 1 << 20 };

__global__ void hello(void)
{
    printf("hello %d\n", threadIdx.x);
}

__global__ void bump(unsigned *x)
{
    x[threadIdx.x]++;
}

__global__ void slow(unsigned *x, int n)
{
    unsigned v = x[0];
    for (int i = 0; i < n; i++)
        v = v * 3 + 1;
    x[1] = v;
}

static void *wait_for_all(void *arg)
{
    (void)arg;
    cudaDeviceSynchronize(); /* success, or an error of the context that has gone: it comes back */
    return NULL;
}

static void reset_with_copies(void)
{
    unsigned char *host = (unsigned char *)malloc(LEN), *dev = (unsigned char *)device_alloc(LEN);
    pthread_t waiter;
    for (int i = 0; i < 100; i++)
        CUDA(cudaMemset(dev, i, LEN));
    CUDA(cudaHostRegister(host, LEN, cudaHostRegisterDefault));
    slow<<<1, 1>>>((unsigned *)dev, 4000000);
    LAUNCHED();
    CUDA(cudaMemcpyAsync(host, dev + 8, LEN - 8, cudaMemcpyDeviceToHost, 0));
    CHECK(pthread_create(&waiter, NULL, wait_for_all, NULL) == 0);
    usleep(20000);
    CUDA(cudaDeviceReset());
    pthread_join(waiter, NULL);
    for (int i = 0; i < LEN - 8; i++)
        CHECK(host[i] == 99);
    CUDA(cudaHostRegister(host, LEN, cudaHostRegisterDefault));
    CUDA(cudaHostUnregister(host));
    printf("copies arrived\n");
    fflush(stdout);
}

static int child_status(void *(*in_child)(void *))
{
    int status = 0;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        in_child(NULL);
        exit(0); /* as cudart's own end of the process finds it */
    }
    CHECK(waitpid(child, &status, 0) == child);
    return status;
}

static void *child_resets(void *arg)
{
    cudaDeviceReset();
    return arg;
}

static void *child_allocates(void *arg)
{
    void *at;
    if (cudaMalloc(&at, 16) == cudaSuccess)
        _exit(2);
    return arg;
}

static void *child_thread_ends(void *arg)
{
    pthread_exit(arg);
}

static void *thread_forks(void *arg)
{
    unsigned *x = (unsigned *)device_alloc(128);
    bump<<<1, 32, 0, cudaStreamPerThread>>>(x);
    LAUNCHED();
    CUDA(cudaStreamSynchronize(cudaStreamPerThread));
    *(int *)arg = child_status(child_thread_ends);
    return NULL;
}

int main(void)
{
    unsigned got[32], *x;
    pthread_t thread;
    int status = -1;
    hello<<<1, 2>>>();
    LAUNCHED();
    CUDA(cudaDeviceReset());
    reset_with_copies();
    x = (unsigned *)device_alloc(sizeof(got));
    CUDA(cudaMemset(x, 0, sizeof(got)));
    bump<<<1, 32>>>(x);
    LAUNCHED();
    CHECK(child_status(child_resets) == 0);
    CHECK(child_status(child_allocates) == 0);
    CHECK(pthread_create(&thread, NULL, thread_forks, &status) == 0);
    pthread_join(thread, NULL);
    CHECK(status == 0);
    CUDA(cudaMemcpy(got, x, sizeof(got), cudaMemcpyDeviceToHost));
    printf("the parent goes on: %u\n", got[31]);
    return 0;
}
