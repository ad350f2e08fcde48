/* Threads hammer the streams of one context of the software GPU: kernels, copies, events across
 * streams, value waits, host functions, stream-ordered memory; others make and destroy whatever can
 * be made beside them.  Each thread's counter passes from stream to stream by events and must be
 * exact at the end; ThreadSanitizer looks for the rest. */
#include <cuda.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 4, STREAMS = 6 };

static const char ptx[] =
    ".version 8.0\n.target sm_75\n.address_size 64\n"
    ".visible .entry inc(.param .u64 p_at, .param .u32 p_n, .param .u32 p_v)\n{\n"
    ".reg .b32 %r<4>;\n.reg .b64 %rd<2>;\n"
    "ld.param.u64 %rd1, [p_at];\nld.param.u32 %r1, [p_v];\ncvta.to.global.u64 %rd1, %rd1;\n"
    "ld.global.u32 %r2, [%rd1];\nadd.s32 %r2, %r2, %r1;\nst.global.u32 [%rd1], %r2;\nret;\n}\n";

static CUcontext ctx;
static CUfunction inc;
static CUstream streams[STREAMS]; /* shared; half of them blocking */
static _Atomic int failures;
static int rounds = 400;

#define CHECK(call)                                                                                \
    do {                                                                                           \
        CUresult result_ = (call);                                                                 \
        if (result_ != CUDA_SUCCESS) {                                                             \
            fprintf(stderr, "%s: %d\n", #call, (int)result_);                                      \
            atomic_fetch_add(&failures, 1);                                                        \
        }                                                                                          \
    } while (0)

struct job {
    unsigned int seed;
    uint32_t wanted;
    _Atomic int called;
    int to_call;
    CUdeviceptr at;
    _Atomic uint32_t *words;
};

static void called(void *arg)
{
    atomic_fetch_add(&((struct job *)arg)->called, 1);
}

static void bump(struct job *job, CUstream stream)
{
    uint32_t one = 1, v = 1 + (uint32_t)rand_r(&job->seed) % 5;
    void *params[] = {&job->at, &one, &v};
    CHECK(cuLaunchKernel(inc, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL));
    job->wanted += v;
}

static void one_of_many(struct job *job, CUstream stream, uint32_t round)
{
    CUdeviceptr extra;
    uint32_t seen;
    switch (rand_r(&job->seed) % 6) {
    case 0:
        CHECK(cuLaunchHostFunc(stream, called, job));
        job->to_call++;
        break;
    case 1:
        CHECK(cuMemAllocAsync(&extra, 1000, stream));
        CHECK(cuMemsetD32Async(extra, 7, 250, stream));
        CHECK(cuMemFreeAsync(extra, stream));
        break;
    case 2: /* released by the host, a little later */
        CHECK(cuStreamWaitValue32(stream, (CUdeviceptr)&job->words[0], round,
                                  CU_STREAM_WAIT_VALUE_GEQ));
        break;
    case 3:
        CHECK(cuMemcpyDtoHAsync((void *)&job->words[2], job->at, 4, stream));
        break;
    case 4:
        CHECK(cuStreamSynchronize(stream));
        CHECK(cuMemcpyDtoH(&seen, job->at, 4));
        break;
    default:
        CHECK(cuStreamWriteValue32(stream, (CUdeviceptr)&job->words[4], round, 0));
    }
    atomic_store(&job->words[0], round);
}

static void *run(void *arg)
{
    struct job *job = arg;
    CUevent event;
    void *words;
    CHECK(cuCtxSetCurrent(ctx));
    CHECK(cuEventCreate(&event, job->seed % 2 ? CU_EVENT_DISABLE_TIMING : 0));
    CHECK(cuMemAlloc(&job->at, 4));
    CHECK(cuMemsetD32(job->at, 0, 1));
    CHECK(cuMemHostAlloc(&words, 64, 0));
    job->words = words;
    CHECK(cuStreamSynchronize(NULL));
    for (int i = 1; i <= rounds; i++) {
        CUstream stream = streams[rand_r(&job->seed) % STREAMS];
        if (i % 16 == 0)
            stream = i % 32 ? CU_STREAM_PER_THREAD : NULL;
        CHECK(cuStreamWaitEvent(stream, event, 0));
        bump(job, stream);
        one_of_many(job, stream, (uint32_t)i);
        CHECK(cuEventRecord(event, stream));
    }
    CHECK(cuEventSynchronize(event));
    uint32_t found = 0;
    CHECK(cuMemcpyDtoH(&found, job->at, 4));
    if (found != job->wanted || atomic_load(&job->called) != job->to_call) {
        fprintf(stderr, "counter %u of %u, %d of %d calls\n", found, job->wanted,
                atomic_load(&job->called), job->to_call);
        atomic_fetch_add(&failures, 1);
    }
    CHECK(cuEventDestroy(event));
    return NULL;
}

/* Streams, modules and contexts that go while their work is on its way. */
static void *churn_objects(void *arg)
{
    CUcontext mine;
    CUmodule module;
    CUfunction f;
    CUstream stream;
    CUdeviceptr at;
    uint32_t one = 1;
    (void)arg;
    for (int i = 0; i < rounds / 8; i++) {
        if (i % 4 == 0)
            CHECK(cuCtxCreate(&mine, NULL, 0, 0));
        CHECK(cuCtxSetCurrent(i % 4 == 0 ? mine : ctx));
        CHECK(cuModuleLoadData(&module, ptx));
        CHECK(cuModuleGetFunction(&f, module, "inc"));
        CHECK(cuStreamCreate(&stream, i % 2 ? CU_STREAM_NON_BLOCKING : CU_STREAM_DEFAULT));
        CHECK(cuMemAllocAsync(&at, 64, stream));
        void *params[] = {&at, &one, &one};
        CHECK(cuLaunchKernel(f, 64, 1, 1, 1, 1, 1, 0, stream, params, NULL));
        CHECK(cuMemFreeAsync(at, stream));
        CHECK(cuStreamDestroy(stream));
        CHECK(cuModuleUnload(module));
        if (i % 4 == 0)
            CHECK(cuCtxDestroy(mine));
    }
    return NULL;
}

/* Memory of all kinds, while kernels ask about theirs. */
static void *churn_memory(void *arg)
{
    static const CUmemAllocationProp prop = {
        .type = CU_MEM_ALLOCATION_TYPE_PINNED,
        .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    static const CUmemAccessDesc both = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0},
                                         .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    static char host[1 << 16];
    CUmemGenericAllocationHandle handle;
    CUdeviceptr at, other;
    uint32_t found;
    (void)arg;
    CHECK(cuCtxSetCurrent(ctx));
    for (int i = 0; i < rounds / 8; i++) {
        CHECK(cuMemHostRegister(host + i % 8 * 4096, 4096, 0));
        CHECK(cuMemCreate(&handle, 2 << 20, &prop, 0));
        CHECK(cuMemAddressReserve(&at, 4 << 20, 0, 0, 0));
        CHECK(cuMemMap(at, 2 << 20, 0, handle, 0));
        CHECK(cuMemRelease(handle));
        CHECK(cuMemSetAccess(at, 2 << 20, &both, 1));
        CHECK(cuMemAlloc(&other, (size_t)1 << (i % 23)));
        CHECK(cuMemsetD32Async(at, (unsigned int)i, 64, CU_STREAM_PER_THREAD));
        CHECK(cuStreamSynchronize(CU_STREAM_PER_THREAD));
        CHECK(cuMemcpyDtoHAsync(&found, at + 128, 4, CU_STREAM_PER_THREAD));
        if (found != (uint32_t)i)
            atomic_fetch_add(&failures, 1);
        CHECK(cuMemUnmap(at, 2 << 20));
        CHECK(cuMemAddressFree(at, 4 << 20));
        CHECK(cuMemFreeAsync(other, CU_STREAM_PER_THREAD));
        CHECK(cuMemHostUnregister(host + i % 8 * 4096));
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread[THREADS + 2];
    static struct job jobs[THREADS];
    CUmodule module;
    if (argc > 1)
        rounds = atoi(argv[1]);
    CHECK(cuInit(0));
    CHECK(cuCtxCreate(&ctx, NULL, 0, 0));
    CHECK(cuModuleLoadData(&module, ptx));
    CHECK(cuModuleGetFunction(&inc, module, "inc"));
    for (int i = 0; i < STREAMS; i++)
        CHECK(cuStreamCreate(&streams[i], i % 2 ? CU_STREAM_NON_BLOCKING : CU_STREAM_DEFAULT));
    for (int i = 0; i < THREADS; i++) {
        jobs[i].seed = (unsigned int)i + 1;
        pthread_create(&thread[i], NULL, run, &jobs[i]);
    }
    pthread_create(&thread[THREADS], NULL, churn_objects, NULL);
    pthread_create(&thread[THREADS + 1], NULL, churn_memory, NULL);
    for (int i = 0; i < THREADS + 2; i++)
        pthread_join(thread[i], NULL);
    CHECK(cuCtxSynchronize());
    CHECK(cuCtxDestroy(ctx));
    return atomic_load(&failures) ? 1 : 0;
}
