/* Handles used in one thread while another destroys what they stand for: streams, events, whole
 * contexts, modules.  Natively that is undefined, so this program runs through TFR alone: there it
 * must end in an error of the call, never in a crash, a hang or the loss of the session. */
#include <pthread.h>
#include <stdatomic.h>

/* clang-format off */
#define CALLS(X)                                                                                   \
    X(cuInit) X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxRelease_v2) X(cuCtxCreate_v2)        \
    X(cuCtxDestroy_v2) X(cuCtxSetCurrent) X(cuCtxSynchronize) X(cuMemAlloc_v2) X(cuMemFree_v2)     \
    X(cuMemcpyDtoH_v2) X(cuMemsetD32_v2) X(cuMemsetD32Async) X(cuStreamCreate)                     \
    X(cuStreamDestroy_v2) X(cuStreamSynchronize) X(cuStreamQuery) X(cuStreamWaitEvent)             \
    X(cuEventCreate) X(cuEventDestroy_v2) X(cuEventRecord) X(cuEventQuery) X(cuEventSynchronize)   \
    X(cuModuleLoadData) X(cuModuleUnload) X(cuGetErrorName)
/* clang-format on */
#include "driver.h"

enum { USERS = 3, TURNS = 4000, CONTEXTS = 150, MODULES = 300 };

static CUcontext primary;
static CUdeviceptr mem;
static _Atomic(void *) stream, event;
static _Atomic int over;

static void expect(CUresult got, const char *what)
{
    switch (got) {
    case CUDA_SUCCESS:
    case CUDA_ERROR_NOT_READY:
    case CUDA_ERROR_INVALID_HANDLE:
    case CUDA_ERROR_INVALID_CONTEXT:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_INVALID_VALUE:
        return;
    default:
        check_cu(got, what, __LINE__);
    }
}
#define TRY(call) expect(cu.call, #call)

static void use_once(unsigned turn)
{
    CUstream s = (CUstream)atomic_load(&stream);
    CUevent e = (CUevent)atomic_load(&event);
    if (!s || !e)
        return;
    TRY(cuMemsetD32Async(mem, turn, 1, s));
    TRY(cuEventRecord(e, s));
    TRY(cuStreamWaitEvent(CU_STREAM_PER_THREAD, e, 0));
    TRY(cuEventQuery(e));
    TRY(cuStreamQuery(s));
    if (turn % 4 == 0)
        TRY(cuStreamSynchronize(s));
    if (turn % 4 == 1)
        TRY(cuEventSynchronize(e));
    if (turn % 16 == 2)
        TRY(cuCtxSynchronize());
}

static void *user(void *arg)
{
    TRY(cuCtxSetCurrent(arg)); /* it may be gone already */
    for (unsigned turn = 0; !atomic_load(&over); turn++)
        use_once(turn);
    return NULL;
}

static void start(pthread_t *thread, CUcontext ctx)
{
    atomic_store(&over, 0);
    for (int i = 0; i < USERS; i++)
        CHECK(pthread_create(&thread[i], NULL, user, ctx) == 0);
}

static void stop(const pthread_t *thread)
{
    atomic_store(&over, 1);
    for (int i = 0; i < USERS; i++)
        pthread_join(thread[i], NULL);
}

static void make(CUstream *s, CUevent *e)
{
    CU(cuStreamCreate(s, CU_STREAM_NON_BLOCKING));
    CU(cuEventCreate(e, CU_EVENT_DISABLE_TIMING));
    atomic_store(&stream, (void *)*s);
    atomic_store(&event, (void *)*e);
}

static void objects(void)
{
    pthread_t thread[USERS];
    CUstream s;
    CUevent e;
    start(thread, primary);
    for (int i = 0; i < TURNS; i++) {
        make(&s, &e);
        CU(cuStreamDestroy_v2(s));
        CU(cuEventDestroy_v2(e));
    }
    stop(thread);
}

static void contexts(void)
{
    pthread_t thread[USERS];
    CUcontext ctx;
    CUstream s;
    CUevent e;
    for (int i = 0; i < CONTEXTS; i++) {
        CU(cuCtxCreate_v2(&ctx, 0, 0));
        make(&s, &e);
        start(thread, ctx);
        CU(cuMemsetD32_v2(mem, 1, 1));
        CU(cuCtxDestroy_v2(ctx));
        stop(thread);
    }
}

/* Each thread ends its own contexts with the streams in them: nothing here is undefined, and no
 * call may fail. */
static void *owner(void *arg)
{
    CUcontext ctx;
    CUstream s[4];
    CUevent e;
    (void)arg;
    for (int i = 0; i < CONTEXTS; i++) {
        CU(cuCtxCreate_v2(&ctx, 0, 0));
        for (int k = 0; k < 4; k++)
            CU(cuStreamCreate(&s[k], CU_STREAM_NON_BLOCKING));
        CU(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
        CU(cuEventRecord(e, s[0]));
        CU(cuStreamWaitEvent(s[1], e, 0));
        CU(cuStreamDestroy_v2(s[2]));
        CU(cuCtxDestroy_v2(ctx));
    }
    return NULL;
}

static void owners(void)
{
    pthread_t thread[USERS];
    for (int i = 0; i < USERS; i++)
        CHECK(pthread_create(&thread[i], NULL, owner, NULL) == 0);
    for (int i = 0; i < USERS; i++)
        pthread_join(thread[i], NULL);
}

/* ---- one module, unloaded by all at once ---- */

static const char image[] = ".version 7.0\n.target sm_75\n.address_size 64\n"
                            ".visible .entry nothing()\n{\n ret;\n}\n";
static pthread_barrier_t begin, end;
static CUmodule module;
static _Atomic int unloaded;

static void unload(void)
{
    pthread_barrier_wait(&begin);
    CUresult got = cu.cuModuleUnload(module);
    expect(got, "cuModuleUnload");
    if (got == CUDA_SUCCESS)
        atomic_fetch_add(&unloaded, 1);
    pthread_barrier_wait(&end);
}

static void *unloader(void *arg)
{
    CU(cuCtxSetCurrent(arg));
    for (int i = 0; i < MODULES; i++)
        unload();
    return NULL;
}

static void modules(void)
{
    pthread_t thread[USERS];
    pthread_barrier_init(&begin, NULL, USERS + 1);
    pthread_barrier_init(&end, NULL, USERS + 1);
    for (int i = 0; i < USERS; i++)
        CHECK(pthread_create(&thread[i], NULL, unloader, primary) == 0);
    for (int i = 0; i < MODULES; i++) {
        CU(cuModuleLoadData(&module, image));
        unload();
    }
    for (int i = 0; i < USERS; i++)
        pthread_join(thread[i], NULL);
    CHECK(unloaded == MODULES);
}

int main(void)
{
    unsigned got = 0;
    driver_load();
    CU(cuInit(0));
    CU(cuDevicePrimaryCtxRetain(&primary, 0));
    CU(cuCtxSetCurrent(primary));
    CU(cuMemAlloc_v2(&mem, 4));
    objects();
    puts("streams and events");
    contexts();
    puts("contexts");
    owners();
    puts("contexts of their own");
    CU(cuCtxSetCurrent(primary));
    modules();
    puts("modules");
    CU(cuCtxSetCurrent(primary));
    CU(cuMemsetD32_v2(mem, 77, 1));
    CU(cuMemcpyDtoH_v2(&got, mem, 4));
    printf("and the session goes on: %u\n", got);
    CU(cuMemFree_v2(mem));
    CU(cuDevicePrimaryCtxRelease_v2(0));
    return 0;
}
