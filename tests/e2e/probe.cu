/* The program that behaviour_test.py makes into what it needs: each way of ending, waiting, reading
 * and running that a program may have.  usage: probe WHAT [NUMBER...] */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

__global__ void bump(unsigned *x)
{
    x[threadIdx.x] = x[threadIdx.x] * 3 + 1;
}

__global__ void endless(volatile unsigned *x)
{
    while (x[0] != 12345)
        x[1] = x[1] + 1;
}

static void touch_device(void)
{
    unsigned *x = (unsigned *)device_alloc(32 * sizeof(unsigned));
    bump<<<1, 32>>>(x);
    LAUNCHED();
    CUDA(cudaDeviceSynchronize());
}

static void say(const char *word)
{
    printf("%s\n", word);
    fflush(stdout);
}

/* What a program sees that asks for a device: never ends itself. */
static int count(void)
{
    int n = -1;
    cudaError_t got = cudaGetDeviceCount(&n);
    printf("%s %d\n", cudaGetErrorName(got), got == cudaSuccess ? n : -1);
    return got == cudaSuccess ? 0 : 4;
}

/* stdin to stdout by way of the device. */
static int cat(void)
{
    static unsigned char in[10000], out[10000];
    unsigned char *dev = (unsigned char *)device_alloc(sizeof(in));
    ssize_t n;
    while ((n = read(0, in, sizeof(in))) > 0) {
        CUDA(cudaMemcpy(dev, in, n, cudaMemcpyHostToDevice));
        CUDA(cudaMemcpy(out, dev, n, cudaMemcpyDeviceToHost));
        CHECK(write(1, out, n) == n);
    }
    return 0;
}

/* How many children this process has: ours must not be among them. */
static int children(void)
{
    int n = 0;
    touch_device();
    while (waitpid(-1, NULL, WNOHANG) >= 0)
        n++;
    CHECK(errno == ECHILD);
    printf("children %d\n", n);
    return 0;
}

/* Short kernels and waits until something fails. */
static int spin(void)
{
    unsigned *x = (unsigned *)device_alloc(32 * sizeof(unsigned));
    cudaError_t got = cudaSuccess;
    say("ready");
    while (got == cudaSuccess) {
        bump<<<1, 32>>>(x);
        got = cudaGetLastError();
        if (got == cudaSuccess)
            got = cudaDeviceSynchronize();
    }
    printf("%s\n", cudaGetErrorName(got));
    return 5;
}

/* One wait for a kernel that never ends. */
static int hang(void)
{
    unsigned *x = (unsigned *)device_alloc(32 * sizeof(unsigned));
    CUDA(cudaMemset(x, 0, 32 * sizeof(unsigned)));
    CUDA(cudaDeviceSynchronize());
    endless<<<1, 1>>>(x);
    LAUNCHED();
    say("ready");
    cudaError_t got = cudaDeviceSynchronize();
    printf("%s\n", cudaGetErrorName(got));
    return 5;
}

/* Asks again and again, and never waits, for a kernel that never ends. */
static int poll(void)
{
    unsigned *x = (unsigned *)device_alloc(32 * sizeof(unsigned));
    cudaError_t got;
    CUDA(cudaMemset(x, 0, 32 * sizeof(unsigned)));
    endless<<<1, 1>>>(x);
    LAUNCHED();
    say("ready");
    while ((got = cudaStreamQuery(0)) == cudaErrorNotReady)
        usleep(10000);
    printf("%s\n", cudaGetErrorName(got));
    return 5;
}

/* Asks for a stream that has nothing to do. */
static int query(void)
{
    cudaError_t got;
    CUDA(cudaFree(0));
    say("ready");
    while ((got = cudaStreamQuery(0)) == cudaSuccess)
        usleep(10000);
    printf("%s\n", cudaGetErrorName(got));
    return 5;
}

/* Resets the device again and again with memory of all kinds in use: what of it stays mapped. */
static int reset(void)
{
    char line[4096];
    int pinned_n = 0, window_n = 0;
    for (int k = 0; k < 12; k++) {
        void *pinned;
        CUDA(cudaMallocHost(&pinned, 1 << 20));
        memset(pinned, k, 1 << 20);
        touch_device();
        CUDA(cudaDeviceReset());
    }
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    while (fgets(line, sizeof(line), maps)) {
        pinned_n += strstr(line, "tfr-pinned") != NULL;
        window_n += !strncmp(line, "200000000000-", 13);
    }
    fclose(maps);
    printf("pinned %d window %d\n", pinned_n, window_n);
    return 0;
}

static void *allocate(void *arg)
{
    void *x;
    while (cudaMalloc(&x, 256) == cudaSuccess && cudaFree(x) == cudaSuccess)
        ;
    return arg;
}

/* More threads wait for answers than answers fit in at a time. */
static int crowd(void)
{
    pthread_t thread[80];
    touch_device();
    for (int i = 0; i < 80; i++)
        CHECK(pthread_create(&thread[i], NULL, allocate, NULL) == 0);
    say("ready");
    for (int i = 0; i < 80; i++)
        pthread_join(thread[i], NULL);
    printf("%s\n", cudaGetErrorName(cudaDeviceSynchronize()));
    return 5;
}

/* Ends when it is told to, by an address that the program sees too. */
__global__ void until(const volatile int *flag)
{
    while (!*flag)
        ;
}

static volatile int *told;

static void *tell_later(void *seconds)
{
    sleep((unsigned)(uintptr_t)seconds);
    *told = 1;
    return NULL;
}

static void run_until_told(void)
{
    int *flag;
    CUDA(cudaHostAlloc((void **)&told, sizeof *told, cudaHostAllocMapped));
    *told = 0;
    CUDA(cudaHostGetDevicePointer((void **)&flag, (void *)told, 0));
    until<<<1, 1>>>(flag);
    LAUNCHED();
}

/* One wait for a kernel that takes so many seconds. */
static int longer(int seconds)
{
    pthread_t thread;
    run_until_told();
    CHECK(pthread_create(&thread, NULL, tell_later, (void *)(uintptr_t)seconds) == 0);
    say("ready");
    CUDA(cudaDeviceSynchronize());
    pthread_join(thread, NULL);
    say("done");
    return 0;
}

/* Ends without a word while copies are on their way; with status 0 behind a kernel that never ends,
 * and then without handlers, which would wait for it. */
static int leave(int status)
{
    unsigned *x = (unsigned *)device_alloc(1 << 20), *pinned;
    CUDA(cudaMallocHost((void **)&pinned, 1 << 20));
    if (!status)
        run_until_told();
    for (int i = 0; i < 500; i++) {
        bump<<<1, 32>>>(x);
        CUDA(cudaMemcpyAsync(pinned, x, 1 << 20, cudaMemcpyDeviceToHost));
    }
    say("ready");
    if (!status)
        _exit(0);
    exit(status);
}

/* A child that lives on, with every descriptor that it inherited. */
static int leave_child(void)
{
    touch_device();
    pid_t child = fork();
    if (child == 0) {
        sleep(600);
        _exit(0);
    }
    printf("child %d\n", (int)child);
    fflush(stdout);
    sleep(600);
    return 0;
}

/* Asks for nothing while it sleeps: is alive, holds a session. */
static int idle(void)
{
    touch_device();
    say("ready");
    sleep(600);
    return 0;
}

/* Nothing comes out of the streams before the program has gone to sleep. */
static void CUDART_CB hold(void *seconds)
{
    sleep((unsigned)(uintptr_t)seconds);
}

/* Records so many events behind work that waits, makes no call while it gets done, and then only
 * asks: each must be seen. */
static int pending(int n)
{
    enum { STREAMS = 8 };
    cudaStream_t stream[STREAMS];
    cudaEvent_t held, *event = (cudaEvent_t *)calloc((size_t)n, sizeof *event);
    unsigned *x = (unsigned *)device_alloc(STREAMS * sizeof(unsigned)), got[STREAMS];
    int seen = 0, looks = 0;
    CHECK(event != NULL);
    CUDA(cudaMemset(x, 0, STREAMS * sizeof(unsigned)));
    CUDA(cudaEventCreate(&held));
    for (int k = 0; k < STREAMS; k++)
        CUDA(cudaStreamCreateWithFlags(&stream[k], cudaStreamNonBlocking));
    CUDA(cudaDeviceSynchronize());
    CUDA(cudaLaunchHostFunc(stream[0], hold, (void *)2));
    CUDA(cudaEventRecord(held, stream[0]));
    for (int k = 1; k < STREAMS; k++)
        CUDA(cudaStreamWaitEvent(stream[k], held, 0));
    for (int i = 0; i < n; i++) {
        CUDA(cudaEventCreateWithFlags(&event[i], cudaEventDisableTiming));
        bump<<<1, 1, 0, stream[i % STREAMS]>>>(x + i % STREAMS);
        CUDA(cudaEventRecord(event[i], stream[i % STREAMS]));
    }
    LAUNCHED();
    say("ready");
    sleep(4);
    for (seen = 0; seen < n && looks < 6000; looks++) {
        cudaError_t is = cudaEventQuery(event[seen]);
        CHECK(is == cudaSuccess || is == cudaErrorNotReady);
        if (is == cudaSuccess)
            seen++, looks = 0;
        else
            usleep(10000);
    }
    CUDA(cudaMemcpy(got, x, sizeof(got), cudaMemcpyDeviceToHost));
    for (int k = 0; k < STREAMS; k++) {
        unsigned want = 0;
        for (int i = k; i < n; i += STREAMS)
            want = want * 3 + 1;
        CHECK(got[k] == want);
    }
    printf("seen %d\n", seen);
    return 0;
}

/* The steady loop that must not make a round trip.  Everything is made, loaded and touched before
 * it; at its end it looks until all is done, so that the last wait finds nothing to wait for. */
static int steady(int rounds)
{
    unsigned *x = (unsigned *)device_alloc(32 * sizeof(unsigned)), *pinned = NULL, want = 0;
    cudaStream_t stream, other;
    cudaEvent_t event;
    CUDA(cudaMallocHost((void **)&pinned, 4096));
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaStreamCreate(&other));
    CUDA(cudaEventCreate(&event));
    CUDA(cudaMemset(x, 0, 32 * sizeof(unsigned)));
    bump<<<1, 32>>>(x);
    LAUNCHED();
    CUDA(cudaMemset(x, 0, 32 * sizeof(unsigned)));
    CUDA(cudaDeviceSynchronize());
    for (int r = 0; r < rounds; r++) {
        unsigned word = 7;
        bump<<<1, 32, 0, stream>>>(x);
        CUDA(cudaMemcpyAsync(x + 1, &word, sizeof(word), cudaMemcpyHostToDevice, stream));
        CUDA(cudaMemcpyAsync(pinned, x, 64, cudaMemcpyDeviceToHost, stream));
        CUDA(cudaMemcpyAsync(x + 16, pinned + 32, 32, cudaMemcpyHostToDevice, stream));
        CUDA(cudaMemsetAsync(x + 8, 1, 16, stream));
        CUDA(cudaEventRecord(event, stream));
        CUDA(cudaStreamWaitEvent(other, event, 0));
        want = want * 3 + 1;
    }
    cudaError_t got;
    while ((got = cudaEventQuery(event)) == cudaErrorNotReady)
        usleep(1000);
    CHECK(got == cudaSuccess);
    while ((got = cudaStreamQuery(other)) == cudaErrorNotReady)
        usleep(1000);
    CHECK(got == cudaSuccess && pinned[0] == want && pinned[1] == 7);
    printf("steady\n");
    return 0;
}

/* Copies from a buffer whose second half is no memory, then one from a good one. */
static int wild(void)
{
    const size_t half = (size_t)2 << 20, len = 2 * half;
    char *bad = (char *)mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *good = (char *)malloc(len), *back = (char *)calloc(1, len),
         *gpu = (char *)device_alloc(len);
    CHECK(bad != MAP_FAILED && mprotect(bad, half, PROT_READ | PROT_WRITE) == 0);
    memset(good, 5, len);
    say(cudaGetErrorName(cudaMemcpy(gpu, bad, len, cudaMemcpyHostToDevice)));
    say(cudaGetErrorName(cudaMemcpyAsync(gpu, bad, len, cudaMemcpyHostToDevice)));
    cudaGetLastError();
    CUDA(cudaMemcpy(gpu, good, len, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(back, gpu, len, cudaMemcpyDeviceToHost));
    say(memcmp(good, back, len) == 0 ? "the session goes on" : "bytes differ");
    return 0;
}

struct words {
    unsigned long long word[16];
};

__global__ void take(struct words all)
{
    *(unsigned long long *)all.word[0] = all.word[15];
}

/* So many launches with 128 bytes of parameters, microseconds apart, and behind them seconds
 * without a call: what each costs, and that none stays behind. */
static int launch(int n, int gap, int idle)
{
    unsigned long long got = 0;
    struct words all = {{(unsigned long long)device_alloc(sizeof(got))}};
    for (int i = -1; i < n; i++) {
        all.word[15] = i + 2;
        take<<<1, 1>>>(all);
        LAUNCHED();
        if (i < 0)
            CUDA(cudaDeviceSynchronize());
        else if (gap)
            usleep(gap);
    }
    say("ready");
    sleep(idle);
    CUDA(cudaMemcpy(&got, (void *)all.word[0], sizeof(got), cudaMemcpyDeviceToHost));
    printf("last %llu\n", got);
    return got == (unsigned long long)n + 1 ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    int number = argc > 2 ? atoi(argv[2]) : 0;
    int second = argc > 3 ? atoi(argv[3]) : 0, third = argc > 4 ? atoi(argv[4]) : 0;
    if (!strcmp(what, "count"))
        return count();
    if (!strcmp(what, "cat"))
        return cat();
    if (!strcmp(what, "children"))
        return children();
    if (!strcmp(what, "spin"))
        return spin();
    if (!strcmp(what, "hang"))
        return hang();
    if (!strcmp(what, "poll"))
        return poll();
    if (!strcmp(what, "query"))
        return query();
    if (!strcmp(what, "crowd"))
        return crowd();
    if (!strcmp(what, "wild"))
        return wild();
    if (!strcmp(what, "idle"))
        return idle();
    if (!strcmp(what, "longer"))
        return longer(number);
    if (!strcmp(what, "leave"))
        return leave(number);
    if (!strcmp(what, "leave_child"))
        return leave_child();
    if (!strcmp(what, "reset"))
        return reset();
    if (!strcmp(what, "pending"))
        return pending(number);
    if (!strcmp(what, "steady"))
        return steady(number);
    if (!strcmp(what, "launch"))
        return launch(number, second, third);
    touch_device();
    if (!strcmp(what, "exit"))
        return number;
    if (!strcmp(what, "signal"))
        raise(number);
    fprintf(stderr, "probe: unknown word %s\n", what);
    return 2;
}
