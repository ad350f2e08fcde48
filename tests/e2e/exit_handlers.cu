/* The end of a program that does not clean up: destructors and exit handlers that call CUDA, exit
 * from one thread while another waits, libraries that let go of the driver.  Each way is a run of
 * its own; what counts is that it ends, with its own status, and that late calls answer success or
 * that the runtime is unloading. */
#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

__global__ void spin(unsigned *x, unsigned rounds)
{
    unsigned v = *x;
    for (unsigned i = 0; i < rounds; i++)
        v = v * 1664525u + 1013904223u;
    *x = v;
}

static const char *late(cudaError_t got)
{
    return got == cudaSuccess || got == cudaErrorCudartUnloading ||
                   got == cudaErrorContextIsDestroyed
               ? "fine"
               : cudaGetErrorName(got);
}

static void say(const char *what, cudaError_t got)
{
    printf("  %s: %s\n", what, late(got));
    fflush(stdout);
}

struct holder {
    unsigned *mem;
    cudaStream_t stream;
    ~holder()
    {
        if (!mem)
            return;
        say("destructor frees", cudaFree(mem));
        say("destroys its stream", cudaStreamDestroy(stream));
    }
};
static holder held;

static unsigned *used;

static void handler(void)
{
    unsigned got;
    say("handler copies", cudaMemcpy(&got, used, sizeof(got), cudaMemcpyDeviceToHost));
    say("waits", cudaDeviceSynchronize());
    say("frees", cudaFree(used));
}

static void *waiter(void *arg)
{
    spin<<<1, 1>>>((unsigned *)arg, 3000000);
    cudaDeviceSynchronize();
    return NULL;
}

static void *leaver(void *arg)
{
    (void)arg;
    usleep(50000);
    exit(3);
}

static int static_destructor(void)
{
    held.mem = (unsigned *)device_alloc(1 << 20);
    CUDA(cudaStreamCreate(&held.stream));
    CUDA(cudaMemsetAsync(held.mem, 0, 1 << 20, held.stream));
    return 0;
}

static int handler_before(void)
{
    atexit(handler);
    used = (unsigned *)device_alloc(4);
    return 0;
}

static int handler_after(void)
{
    used = (unsigned *)device_alloc(4);
    atexit(handler);
    return 5;
}

static int wait_elsewhere(void)
{
    pthread_t thread;
    unsigned *x = (unsigned *)device_alloc(4);
    CUDA(cudaMemset(x, 0, 4));
    CHECK(pthread_create(&thread, NULL, waiter, x) == 0);
    usleep(50000);
    return 4;
}

static int exit_elsewhere(void)
{
    pthread_t thread;
    unsigned *x = (unsigned *)device_alloc(4);
    CUDA(cudaMemset(x, 0, 4));
    CHECK(pthread_create(&thread, NULL, leaver, NULL) == 0);
    waiter(x);
    for (;;)
        pause();
}

static int work_under_way(void)
{
    unsigned *x = (unsigned *)device_alloc(4);
    for (int i = 0; i < 20; i++)
        spin<<<1, 1>>>(x, 100000);
    LAUNCHED();
    return 0;
}

static int driver_closed(void)
{
    void *lib = dlopen("libcuda.so.1", RTLD_NOW);
    unsigned got = 1, *x = (unsigned *)device_alloc(4);
    CHECK(lib);
    CHECK(dlclose(lib) == 0);
    CUDA(cudaMemset(x, 0, 4));
    CUDA(cudaMemcpy(&got, x, 4, cudaMemcpyDeviceToHost));
    printf("  after dlclose: %u\n", got);
    return 0;
}

static int at_once(void)
{
    device_alloc(4);
    fflush(stdout);
    _exit(6);
}

static const struct {
    const char *name;
    int (*run)(void);
} ways[] = {{"static destructor", static_destructor},
            {"handler registered before CUDA", handler_before},
            {"handler registered after CUDA", handler_after},
            {"another thread waits", wait_elsewhere},
            {"another thread exits", exit_elsewhere},
            {"work is under way", work_under_way},
            {"the driver was closed", driver_closed},
            {"at once", at_once}};

int main(int argc, char **argv)
{
    if (argc > 1)
        return ways[atoi(argv[1])].run();
    for (int i = 0; i < (int)(sizeof(ways) / sizeof(ways[0])); i++) {
        char number[8];
        int status = 0;
        printf("%s\n", ways[i].name);
        fflush(stdout);
        snprintf(number, sizeof(number), "%d", i);
        pid_t pid = fork();
        if (pid == 0) {
            execl(argv[0], argv[0], number, (char *)NULL);
            _exit(126);
        }
        CHECK(waitpid(pid, &status, 0) == pid);
        printf("  status %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status));
    }
    return 0;
}
