/* Several threads use one session at once: streams come and go, copies of every path, kernels,
 * events across streams, registered memory whose last step is the client's.  Every byte is checked.
 * The client is linked in, so that ThreadSanitizer sees all of it; the executor is a process beside
 * it. */
#include <cuda.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 4, N = 20000, ROUNDS = 60 };

static const char ptx[] =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .entry add(.param .u64 p, .param .u32 k, .param .u32 n)\n{\n"
    ".reg .pred q;\n.reg .b32 r<7>;\n.reg .b64 a<4>;\n"
    "ld.param.u64 a1, [p];\nld.param.u32 r1, [k];\nld.param.u32 r2, [n];\n"
    "mov.u32 r3, %tid.x;\nmov.u32 r4, %ctaid.x;\nmov.u32 r5, %ntid.x;\n"
    "mad.lo.u32 r3, r4, r5, r3;\nsetp.ge.u32 q, r3, r2;\n@q bra done;\n"
    "cvta.to.global.u64 a1, a1;\nmul.wide.u32 a2, r3, 4;\nadd.u64 a3, a1, a2;\n"
    "ld.global.u32 r6, [a3];\nadd.u32 r6, r6, r1;\nst.global.u32 [a3], r6;\n"
    "done:\nret;\n}\n";

static CUcontext ctx;
static CUfunction add;
static _Atomic int failures;

static int failed(CUresult result, const char *what, int line)
{
    if (result == CUDA_SUCCESS)
        return 0;
    fprintf(stderr, "line %d: %s: error %d\n", line, what, (int)result);
    atomic_fetch_add(&failures, 1);
    return 1;
}
#define CU(call) failed(call, #call, __LINE__)

struct worker {
    int id;
    CUdeviceptr dev;
    unsigned *pageable, *registered, *pinned, *out;
    CUstream first, second;
    CUevent event;
};

static int streams_make(struct worker *w, unsigned int round)
{
    unsigned int flags =
        (round + (unsigned int)w->id) % 2 ? CU_STREAM_NON_BLOCKING : CU_STREAM_DEFAULT;
    return CU(cuStreamCreate(&w->first, flags)) || CU(cuStreamCreate(&w->second, flags)) ||
           CU(cuEventCreate(&w->event, CU_EVENT_DISABLE_TIMING));
}

static void streams_end(struct worker *w)
{
    CU(cuEventDestroy_v2(w->event));
    CU(cuStreamDestroy_v2(w->first));
    CU(cuStreamDestroy_v2(w->second));
}

/* Source of this round: pageable, registered or pinned; filled anew each time. */
static unsigned *source(struct worker *w, unsigned int round)
{
    unsigned *src = round % 3 == 0 ? w->pageable : round % 3 == 1 ? w->registered : w->pinned;
    for (unsigned int i = 0; i < N; i++)
        src[i] = round * 1000003u + i + (unsigned int)w->id;
    return src;
}

static void check(const struct worker *w, const unsigned *got, unsigned int round, unsigned int k)
{
    for (unsigned int i = 0; i < N; i++) {
        unsigned int want = round * 1000003u + i + (unsigned int)w->id + k;
        if (got[i] != want) {
            fprintf(stderr, "thread %d round %u: element %u is %u, not %u\n", w->id, round, i,
                    got[i], want);
            atomic_fetch_add(&failures, 1);
            return;
        }
    }
}

/* first: copy in, kernel, event; second: waits for it, copies out into registered memory. */
static void round_run(struct worker *w, unsigned int round)
{
    unsigned int k = round * 7 + 1, n = N;
    void *params[] = {&w->dev, &k, &n};
    unsigned *src = source(w, round);
    if (CU(cuMemcpyHtoDAsync_v2(w->dev, src, N * sizeof *src, w->first)))
        return;
    if (src == w->pageable)
        memset(src, 0xee, N * sizeof *src); /* a pageable source may be reused at once */
    if (CU(cuLaunchKernel(add, (N + 127) / 128, 1, 1, 128, 1, 1, 0, w->first, params, NULL)) ||
        CU(cuEventRecord(w->event, w->first)) || CU(cuStreamWaitEvent(w->second, w->event, 0)) ||
        CU(cuMemcpyDtoHAsync_v2(w->out, w->dev, N * sizeof *src, w->second)))
        return;
    if (round % 4 == 0) {
        while (cuStreamQuery(w->second) == CUDA_ERROR_NOT_READY)
            ;
    } else if (round % 4 == 1) {
        CU(cuEventRecord(w->event, w->second));
        CU(cuEventSynchronize(w->event));
    } else if (round % 4 == 2) {
        CU(cuStreamSynchronize(w->second));
    } else {
        CU(cuCtxSynchronize());
    }
    check(w, w->out, round, k);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    size_t len = N * sizeof(unsigned);
    w->pageable = malloc(len);
    w->registered = aligned_alloc(4096, (len + 4095) & ~(size_t)4095);
    w->out = aligned_alloc(4096, (len + 4095) & ~(size_t)4095);
    if (!w->pageable || !w->registered || !w->out || CU(cuCtxSetCurrent(ctx)) ||
        CU(cuMemAlloc_v2(&w->dev, len)) || CU(cuMemHostRegister_v2(w->registered, len, 0)) ||
        CU(cuMemHostRegister_v2(w->out, len, 0)) || CU(cuMemHostAlloc((void **)&w->pinned, len, 0)))
        return NULL;
    for (unsigned int round = 0; round < ROUNDS && !atomic_load(&failures); round++) {
        if (round % 5 == 0 && streams_make(w, round))
            break;
        round_run(w, round);
        if (round % 5 == 4)
            streams_end(w);
    }
    CU(cuMemHostUnregister(w->registered));
    CU(cuMemHostUnregister(w->out));
    CU(cuMemFreeHost(w->pinned));
    CU(cuMemFree_v2(w->dev));
    free(w->pageable);
    free(w->registered);
    free(w->out);
    return NULL;
}

static pid_t executor_start(char *addr, size_t room)
{
    int ready[2];
    char fd[16], line[64];
    snprintf(addr, room, "unix:@tfr-stress-%d", getpid());
    if (pipe(ready) != 0)
        return -1;
    snprintf(fd, sizeof fd, "%d", ready[1]);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl(TFR_EXECUTOR, TFR_EXECUTOR, "--listen", addr, "--gpu", "soft", "--private",
              "--ready-fd", fd, (char *)NULL);
        _exit(127);
    }
    close(ready[1]);
    struct pollfd p = {.fd = ready[0], .events = POLLIN};
    bool up = poll(&p, 1, 30000) == 1 && read(ready[0], line, sizeof line) > 0;
    close(ready[0]);
    return up ? pid : -1;
}

int main(void)
{
    char addr[64];
    struct worker w[THREADS] = {0};
    pthread_t thread[THREADS];
    CUmodule module;
    pid_t executor = executor_start(addr, sizeof addr);
    if (executor < 0) {
        fprintf(stderr, "no executor\n");
        return 1;
    }
    setenv("TFR_EXECUTORS", addr, 1);
    setenv("TFR_HOST_WINDOW", "0", 1); /* ThreadSanitizer keeps those addresses for itself */
    setenv("TFR_PERF", "no_lease", 1); /* and those of windows of device memory too */
    alarm(200);
    if (CU(cuInit(0)) || CU(cuDevicePrimaryCtxRetain(&ctx, 0)) || CU(cuCtxSetCurrent(ctx)) ||
        CU(cuModuleLoadData(&module, ptx)) || CU(cuModuleGetFunction(&add, module, "add")))
        return 1;
    for (int i = 0; i < THREADS; i++) {
        w[i].id = i;
        if (pthread_create(&thread[i], NULL, worker_main, &w[i]) != 0)
            return 1;
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(thread[i], NULL);
    CU(cuDevicePrimaryCtxRelease_v2(0));
    kill(executor, SIGTERM);
    waitpid(executor, NULL, 0);
    printf("%d threads, %d rounds: %s\n", THREADS, ROUNDS, failures ? "WRONG" : "right");
    return failures != 0;
}
