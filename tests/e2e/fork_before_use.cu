/* Forks: before any call, parent and children use the device each for themselves, children of
 * children too; after the first call, which need not have used a device, a child is refused, ends
 * as ever, and the parent goes on. */
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

__global__ void set(int *x, int value)
{
    *x = value;
}

static int use(int value)
{
    int got = -1, *x = (int *)device_alloc(sizeof(*x));
    set<<<1, 1>>>(x, value);
    LAUNCHED();
    CUDA(cudaMemcpy(&got, x, sizeof(got), cudaMemcpyDeviceToHost));
    CUDA(cudaFree(x));
    return got;
}

static int status_of(pid_t pid)
{
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* A child's exit status tells what it got; `depth` more generations do the same. */
static pid_t child(int value, int depth)
{
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0)
        return pid;
    pid_t next = depth > 0 ? child(value + 10, depth - 1) : 0;
    int got = use(value);
    if (next && status_of(next) != value + 10)
        exit(99);
    exit(got);
}

static void refused(void)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        void *mem = NULL;
        show("child: memory", cudaMalloc(&mem, 4));
        show("child: wait", cudaDeviceSynchronize());
        exit(8);
    }
    printf("its status %d\n", status_of(pid));
}

int main(void)
{
    int n = 0;
    pid_t pid[4];
    for (int i = 0; i < 4; i++)
        pid[i] = child(i + 1, i % 2);
    for (int i = 0; i < 4; i++)
        printf("child %d: %d\n", i, status_of(pid[i]));
    CUDA(cudaGetDeviceCount(&n));
    refused();
    printf("parent: %d\n", use(42));
    refused();
    printf("parent: %d\n", use(43));
    return 0;
}
