/* Several contexts on one device: the stack of each thread, what belongs to which context, what is
 * refused in another one, and the end of a context with everything still in it, also while it is
 * current to another thread. */
#include <pthread.h>
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

/* clang-format off */
#define CALLS(X)                                                                                   \
    X(cuInit) X(cuDevicePrimaryCtxRetain) X(cuDevicePrimaryCtxRelease_v2) X(cuCtxCreate_v2)        \
    X(cuCtxDestroy_v2) X(cuCtxPushCurrent_v2) X(cuCtxPopCurrent_v2) X(cuCtxSetCurrent)             \
    X(cuCtxGetCurrent) X(cuCtxGetDevice) X(cuCtxGetFlags) X(cuCtxGetId) X(cuCtxGetApiVersion)      \
    X(cuCtxSynchronize) X(cuModuleLoadData) X(cuModuleGetFunction) X(cuModuleGetGlobal_v2)         \
    X(cuLibraryLoadData) X(cuLibraryGetKernel) X(cuLibraryGetGlobal) X(cuLaunchKernel)             \
    X(cuMemAlloc_v2) X(cuMemFree_v2) X(cuMemcpyHtoD_v2) X(cuMemcpyDtoH_v2)                         \
    X(cuMemcpyDtoHAsync_v2) X(cuMemsetD32Async) X(cuMemsetD32_v2) X(cuMemHostAlloc)                \
    X(cuStreamCreate) X(cuStreamDestroy_v2) X(cuStreamSynchronize) X(cuStreamQuery)                \
    X(cuStreamWaitEvent) X(cuStreamGetCtx) X(cuEventCreate) X(cuEventDestroy_v2) X(cuEventRecord)  \
    X(cuEventSynchronize) X(cuEventElapsedTime_v2) X(cuPointerGetAttribute) X(cuGetErrorName)         \
    X(cuCtxAttach) X(cuCtxDetach)
/* clang-format on */
#include "driver.h"

static const char ptx[] = ".version 7.0\n.target sm_75\n.address_size 64\n"
                          ".visible .global .align 4 .u32 value = 5;\n"
                          ".visible .entry add(.param .u64 out)\n"
                          "{\n"
                          "  .reg .b32 %r<3>; .reg .b64 %d<2>;\n"
                          "  ld.param.u64 %d1, [out];\n"
                          "  cvta.to.global.u64 %d1, %d1;\n"
                          "  ld.global.u32 %r1, [value];\n"
                          "  ld.global.u32 %r2, [%d1];\n"
                          "  add.u32 %r1, %r1, %r2;\n"
                          "  st.global.u32 [%d1], %r1;\n"
                          "  ret;\n"
                          "}\n";

static CUcontext primary;

static char name_of(CUcontext ctx, const CUcontext *two)
{
    return !ctx ? '-' : ctx == primary ? 'p' : ctx == two[0] ? 'a' : ctx == two[1] ? 'b' : '?';
}

/* The stack from the top, which is left as it was found. */
static void show_stack(const char *what, const CUcontext *two)
{
    CUcontext stack[8];
    int n = 0;
    printf("%s: ", what);
    while (n < 8 && cu.cuCtxPopCurrent_v2(&stack[n]) == CUDA_SUCCESS)
        putchar(name_of(stack[n++], two));
    puts(n ? "" : "empty");
    while (n > 0)
        CU(cuCtxPushCurrent_v2(stack[--n]));
}

static void stacks(const CUcontext *two)
{
    CUcontext got;
    show_stack("after two creations", two);
    CU(cuCtxPushCurrent_v2(primary));
    show_stack("primary pushed", two);
    CU(cuCtxSetCurrent(two[0]));
    show_stack("a in its place", two);
    CU(cuCtxSetCurrent(NULL));
    show_stack("NULL in its place", two);
    for (int i = 0; i < 40; i++)
        CU(cuCtxPushCurrent_v2(two[i % 2]));
    for (int i = 40; i-- > 0;) {
        CU(cuCtxPopCurrent_v2(&got));
        CHECK(got == two[i % 2]);
    }
    show_stack("after forty", two);
}

static void queries(const CUcontext *two)
{
    unsigned long long id[3];
    unsigned int version = 0, flags = 0;
    CUdevice dev = -1;
    CU(cuCtxGetId(primary, &id[0]));
    CU(cuCtxGetId(two[0], &id[1]));
    CU(cuCtxGetId(two[1], &id[2]));
    CHECK(id[0] != id[1] && id[1] != id[2] && id[0] != id[2]);
    CU(cuCtxGetApiVersion(two[0], &version));
    CU(cuCtxGetDevice(&dev));
    CU(cuCtxSetCurrent(two[0]));
    CU(cuCtxGetFlags(&flags));
    printf("version %u, device %d, flags of scheduling %u\n", version, dev,
           flags & CU_CTX_SCHED_MASK);
}

struct owned {
    CUstream stream;
    CUevent event;
    CUmodule module;
    CUfunction fn;
    CUdeviceptr global, mem;
};

static void own(CUcontext ctx, struct owned *o)
{
    size_t len;
    CU(cuCtxSetCurrent(ctx));
    CU(cuStreamCreate(&o->stream, CU_STREAM_NON_BLOCKING));
    CU(cuEventCreate(&o->event, CU_EVENT_DEFAULT));
    CU(cuModuleLoadData(&o->module, ptx));
    CU(cuModuleGetFunction(&o->fn, o->module, "add"));
    CU(cuModuleGetGlobal_v2(&o->global, &len, o->module, "value"));
    CU(cuMemAlloc_v2(&o->mem, 4));
}

static unsigned read_word(CUdeviceptr at)
{
    unsigned got = 0;
    CU(cuMemcpyDtoH_v2(&got, at, 4));
    return got;
}

static unsigned run(CUfunction fn, CUstream stream, CUdeviceptr mem)
{
    void *params[] = {&mem};
    CU(cuMemsetD32Async(mem, 1000, 1, stream));
    CU(cuLaunchKernel(fn, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL));
    CU(cuStreamSynchronize(stream));
    return read_word(mem);
}

static void belonging(const CUcontext *two, struct owned *a, struct owned *b)
{
    unsigned seven = 7;
    float ms;
    void *params[] = {&a->mem};
    CUcontext got;
    own(two[1], b);
    own(two[0], a);
    CU(cuMemcpyHtoD_v2(a->global, &seven, 4));
    printf("variable of a's module: %u", run(a->fn, a->stream, a->mem));
    CU(cuCtxSetCurrent(two[1]));
    printf(", of b's: %u, a's memory from b: %u\n", run(b->fn, b->stream, b->mem),
           read_word(a->mem));
    CU(cuPointerGetAttribute(&got, CU_POINTER_ATTRIBUTE_CONTEXT, a->mem));
    printf("memory belongs to %c, ", name_of(got, two));
    CU(cuStreamGetCtx(a->stream, &got));
    printf("stream to %c, ", name_of(got, two));
    CU(cuStreamGetCtx(CU_STREAM_LEGACY, &got));
    printf("legacy stream to %c, ", name_of(got, two));
    CU(cuStreamGetCtx(CU_STREAM_PER_THREAD, &got));
    printf("per-thread stream to %c\n", name_of(got, two));
    show_cu("launch in a's stream",
            cu.cuLaunchKernel(b->fn, 1, 1, 1, 1, 1, 1, 0, a->stream, params, NULL));
    show_cu("launch of a's function",
            cu.cuLaunchKernel(a->fn, 1, 1, 1, 1, 1, 1, 0, b->stream, params, NULL));
    show_cu("b's event in a's stream", cu.cuEventRecord(b->event, a->stream));
    CU(cuEventRecord(b->event, b->stream));
    show_cu("a's stream waits for b's event", cu.cuStreamWaitEvent(a->stream, b->event, 0));
    show_cu("a's stream is waited for", cu.cuStreamSynchronize(a->stream));
    show_cu("and asked", cu.cuStreamQuery(a->stream));
    CU(cuCtxSetCurrent(two[0]));
    CU(cuEventRecord(a->event, a->stream));
    CU(cuEventSynchronize(a->event));
    CU(cuCtxSetCurrent(two[1]));
    show_cu("time between them", cu.cuEventElapsedTime_v2(&ms, b->event, a->event));
}

/* A library belongs to no context: its kernels run in each, with variables of each. */
static void library(const CUcontext *two, CUdeviceptr mem)
{
    CUlibrary lib;
    CUkernel kernel;
    CUdeviceptr value[2];
    unsigned nine = 9;
    CU(cuLibraryLoadData(&lib, ptx, NULL, NULL, 0, NULL, NULL, 0));
    CU(cuLibraryGetKernel(&kernel, lib, "add"));
    for (int i = 0; i < 2; i++) {
        CU(cuCtxSetCurrent(two[i]));
        CU(cuLibraryGetGlobal(&value[i], NULL, lib, "value"));
    }
    CHECK(value[0] != value[1]);
    CU(cuMemcpyHtoD_v2(value[1], &nine, 4));
    for (int i = 0; i < 2; i++) {
        CU(cuCtxSetCurrent(two[i]));
        printf("library in %c: %u\n", name_of(two[i], two),
               run((CUfunction)kernel, CU_STREAM_PER_THREAD, mem));
    }
}

static void *elsewhere(void *arg)
{
    const CUcontext *two = arg;
    CU(cuCtxSetCurrent(two[0]));
    CU(cuCtxDestroy_v2(two[1]));
    return NULL;
}

static void ends(const CUcontext *two, const struct owned *a)
{
    CUdeviceptr mem;
    CUcontext got;
    pthread_t thread;
    void *pinned;
    CU(cuCtxSetCurrent(two[0]));
    CU(cuMemHostAlloc(&pinned, 4096, 0));
    CU(cuMemsetD32Async(a->mem, 3, 1, a->stream));
    CU(cuMemcpyDtoHAsync_v2(pinned, a->mem, 4, a->stream));
    CU(cuCtxPushCurrent_v2(two[1]));
    CU(cuMemsetD32_v2(a->mem, 4, 1));
    CHECK(pthread_create(&thread, NULL, elsewhere, (void *)(uintptr_t)two) == 0);
    pthread_join(thread, NULL);
    CU(cuCtxGetCurrent(&got));
    printf("b was destroyed and is current here: %d\n", got == two[1]);
    show_cu("memory in it", cu.cuMemAlloc_v2(&mem, 4));
    show_cu("wait for it", cu.cuCtxSynchronize());
    show_cu("destroyed again", cu.cuCtxDestroy_v2(two[1]));
    show_cu("made current", cu.cuCtxSetCurrent(two[1]));
    CU(cuCtxPopCurrent_v2(&got));
    CHECK(got == two[1]);
    CU(cuCtxDestroy_v2(two[0]));
    CU(cuCtxPopCurrent_v2(&got));
    printf("a was destroyed while current, below it was %c\n", name_of(got, two));
    show_cu("and nothing else", cu.cuCtxPopCurrent_v2(&got));
}

/* Usage counts of old: the last detach destroys. */
static void counts(void)
{
    CUcontext ctx, got = NULL, now;
    CU(cuCtxCreate_v2(&ctx, 0, 0));
    CU(cuCtxAttach(&got, 0));
    CHECK(got == ctx);
    show_cu("attached with flags", cu.cuCtxAttach(&got, 1));
    show_cu("detached from another", cu.cuCtxDetach(primary));
    CU(cuCtxDetach(ctx));
    show_cu("detached once", cu.cuCtxSynchronize());
    CU(cuCtxDetach(ctx));
    CU(cuCtxGetCurrent(&now));
    printf("detached twice: is current %d\n", now == ctx);
    show_cu("and is no more", cu.cuCtxSetCurrent(ctx));
}

/* Slots, words and memory come back. */
static void many(void)
{
    CUcontext ctx[6];
    CUstream stream;
    CUdeviceptr mem;
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < 6; i++) {
            CU(cuCtxCreate_v2(&ctx[i], 0, 0));
            CU(cuStreamCreate(&stream, 0));
            CU(cuMemAlloc_v2(&mem, 1 << 20));
            CU(cuMemsetD32Async(mem, 1, 1 << 18, stream));
        }
        for (int i = 0; i < 6; i++)
            CU(cuCtxDestroy_v2(ctx[(i + round) % 6]));
    }
}

int main(void)
{
    CUcontext two[2], got;
    struct owned a, b;
    CUdeviceptr mem;
    driver_load();
    CU(cuInit(0));
    show_cu("flags that are none", cu.cuCtxCreate_v2(&got, 0x80000, 0));
    show_cu("device 99", cu.cuCtxCreate_v2(&got, 0, 99));
    show_cu("nothing to pop", cu.cuCtxPopCurrent_v2(&got));
    CU(cuDevicePrimaryCtxRetain(&primary, 0));
    CU(cuCtxCreate_v2(&two[0], CU_CTX_SCHED_BLOCKING_SYNC, 0));
    CU(cuCtxCreate_v2(&two[1], 0, 0));
    stacks(two);
    queries(two);
    belonging(two, &a, &b);
    library(two, a.mem);
    ends(two, &a);
    counts();
    many();
    CU(cuCtxSetCurrent(primary));
    CU(cuMemAlloc_v2(&mem, 4));
    CU(cuMemsetD32_v2(mem, 77, 1));
    printf("the primary one goes on: %u\n", read_word(mem));
    CU(cuDevicePrimaryCtxRelease_v2(0));
    return 0;
}
