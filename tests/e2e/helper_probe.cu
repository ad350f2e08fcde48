/* The program that helper_test.py watches: what a session with helper threads costs and how it
 * ends.  usage: helper_probe WHAT */
#include <atomic>
#include <unistd.h>

#include "check.h"

static std::atomic<int> ran;

static void count(void *)
{
    ran++;
}

static void linger(void *)
{
    ran++;
    usleep(100000);
}

static void stay(void *)
{
    sleep(30);
}

static __global__ void verify(int n)
{
    if (n != 7)
        printf("the number is %d\n", n);
    __trap();
}

static void ready(void)
{
    printf("ready\n");
    fflush(stdout);
}

static void at_exit(void)
{
    printf("at exit\n");
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    cudaStream_t stream;
    CUDA(cudaStreamCreate(&stream));
    for (int i = 0; i < 10; i++)
        CUDA(cudaLaunchHostFunc(stream, count, NULL));
    CUDA(cudaStreamSynchronize(stream));
    CHECK(ran == 10);
    if (!strcmp(what, "idle")) { /* until it is killed */
        sleep(1);
        ready();
        pause();
    } else if (!strcmp(what, "crowd")) { /* more functions at a time than there are threads */
        for (int i = 0; i < 20; i++) {
            CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
            CUDA(cudaLaunchHostFunc(stream, stay, NULL));
        }
        sleep(1);
        ready();
        pause();
    } else if (!strcmp(what, "leave")) { /* while a function runs and others wait */
        atexit(at_exit);
        for (int i = 0; i < 3; i++)
            CUDA(cudaLaunchHostFunc(stream, linger, NULL));
        while (ran == 10)
            usleep(1000);
        ready();
    } else if (!strcmp(what, "fork")) { /* the child has no helpers and needs none */
        pid_t child = fork();
        if (child == 0)
            _exit(cudaDeviceSynchronize() == cudaSuccess);
        ready();
        CUDA(cudaLaunchHostFunc(stream, count, NULL));
        CUDA(cudaStreamSynchronize(stream));
        CHECK(ran == 11);
    } else if (!strcmp(what, "reset")) { /* and again in the next session */
        for (int round = 0; round < 20; round++) {
            CUDA(cudaLaunchHostFunc(stream, count, NULL));
            CUDA(cudaDeviceReset());
            CHECK(ran == 11 + round);
            CUDA(cudaStreamCreate(&stream));
        }
        ready();
    } else if (!strcmp(what, "trap")) {
        verify<<<1, 1>>>(8);
        printf("%s\n", cudaGetErrorName(cudaDeviceSynchronize()));
    }
    return 0;
}
