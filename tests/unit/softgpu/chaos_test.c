/* TFR_SOFT_CHAOS: softgpu does what hardware may do, and only that. */
#include "tests/unit/softgpu/api_kit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

enum { UNIT = 2 << 20, DEPTH = 8, LONG_MS = 20000 };

static struct kit chaos_open(const char *seed)
{
    setenv("TFR_SOFT_CHAOS", seed, 1);
    return kit_open();
}

static CUstream stream_new(void)
{
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    return s;
}

/* ---- queues ---- */

struct caller {
    struct kit *k;
    CUstream stream;
    CUdeviceptr at;
    int n; /* launches to make */
    _Atomic int made;
};

static void *call(void *arg)
{
    struct caller *c = arg;
    ok(cuCtxSetCurrent(c->k->ctx));
    for (int i = 0; i < c->n; i++) {
        ok(kit_launch(c->k->inc, c->stream, c->at, 1, 1));
        atomic_fetch_add(&c->made, 1);
    }
    return NULL;
}

static void wait_until(_Atomic int *counter, int n)
{
    for (int ms = 0; atomic_load(counter) < n && ms < LONG_MS; ms++)
        usleep(1000);
    cr_assert_geq(atomic_load(counter), n);
}

Test(soft_chaos, blocks_the_ninth_submission_and_with_it_the_context)
{
    struct kit k = chaos_open("1"), other = kit_open();
    ok(cuCtxSetCurrent(k.ctx));
    volatile uint32_t *word = kit_words();
    struct caller full = {.k = &k, .stream = stream_new(), .at = kit_zeros(4), .n = 3 * DEPTH};
    struct caller stranger = {.k = &k, .stream = stream_new(), .at = kit_zeros(4), .n = 1};
    struct caller free_one = {.k = &other, .n = DEPTH};
    pthread_t thread[2];
    ok(cuStreamWaitValue32(full.stream, (CUdeviceptr)word, 1, CU_STREAM_WAIT_VALUE_GEQ));
    pthread_create(&thread[0], NULL, call, &full);
    wait_until(&full.made, DEPTH - 1);
    usleep(300000); /* it is about to block, or it would run on */
    pthread_create(&thread[1], NULL, call, &stranger);

    ok(cuCtxSetCurrent(other.ctx));
    free_one.at = kit_zeros(4);
    free_one.stream = stream_new();
    call(&free_one);
    ok(cuCtxSynchronize());
    cr_expect_eq(kit_read(free_one.at), DEPTH);

    ok(cuCtxSetCurrent(k.ctx));
    answers(cuStreamQuery(full.stream), CUDA_ERROR_NOT_READY);
    cr_expect_eq(atomic_load(&full.made), DEPTH - 1);
    cr_expect_eq(atomic_load(&stranger.made), 0);
    word[0] = 1;
    pthread_join(thread[0], NULL);
    pthread_join(thread[1], NULL);
    ok(cuCtxSynchronize());
    cr_expect_eq(kit_read(full.at), 3 * DEPTH);
    cr_expect_eq(kit_read(stranger.at), 1);
}

Test(soft_chaos, takes_a_batch_longer_than_its_queue)
{
    volatile uint32_t *word = (chaos_open("2"), kit_words());
    CUstreamBatchMemOpParams op[3 * DEPTH] = {0};
    CUstream s = stream_new();
    for (int i = 0; i < 3 * DEPTH; i++) {
        op[i].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
        op[i].writeValue.address = (CUdeviceptr)&word[i + 1];
        op[i].writeValue.value = 1;
    }
    op[0].waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    op[0].waitValue.address = (CUdeviceptr)word;
    ok(cuStreamBatchMemOp(s, 3 * DEPTH, op, 0)); /* one submission: does not block */
    word[0] = 1;
    ok(cuStreamSynchronize(s));
    cr_expect_eq(word[3 * DEPTH], 1);
}

static int ready(const CUstream *s, int n)
{
    int count = 0;
    for (int i = 0; i < n; i++)
        count += cuStreamQuery(s[i]) == CUDA_SUCCESS;
    return count;
}

Test(soft_chaos, holds_strangers_back_behind_a_wait)
{
    enum { N = 16 };
    struct kit k = chaos_open("1");
    volatile uint32_t *word = kit_words();
    CUstream s[N], gated = stream_new();
    CUdeviceptr at = kit_zeros(4 * N);
    ok(cuStreamWaitValue32(gated, (CUdeviceptr)word, 1, CU_STREAM_WAIT_VALUE_GEQ));
    for (int i = 0; i < N; i++) {
        s[i] = stream_new();
        ok(kit_launch(k.fill, s[i], at + 4 * (unsigned int)i, 1, 7));
    }
    for (int ms = 0; ready(s, N) == 0 && ms < LONG_MS; ms++)
        usleep(1000);
    cr_expect_gt(ready(s, N), 0); /* the other channel goes on */
    usleep(100000);
    cr_expect_lt(ready(s, N), N);
    word[0] = 1;
    ok(cuCtxSynchronize());
    cr_expect_eq(ready(s, N), N);
}

/* A counter that every step of a walk over streams increments; only events order the steps. */
static void walk(const char *seed, unsigned int random)
{
    enum { N = 7, STEPS = 400 };
    struct kit k = chaos_open(seed);
    CUdeviceptr at = kit_zeros(4);
    CUstream s[N];
    CUevent e[N];
    int last = 0;
    for (int i = 0; i < N; i++) {
        ok(cuStreamCreate(&s[i], i % 3 ? CU_STREAM_NON_BLOCKING : CU_STREAM_DEFAULT));
        ok(cuEventCreate(&e[i], i % 2 ? CU_EVENT_DISABLE_TIMING : CU_EVENT_DEFAULT));
    }
    for (int i = 0; i < STEPS; i++) {
        random = random * 1664525u + 1013904223u;
        int now = (int)(random >> 16) % N;
        ok(cuStreamWaitEvent(s[now], e[last], 0));
        ok(kit_launch(k.inc, s[now], at, 1, 1));
        ok(cuEventRecord(e[now], s[now]));
        last = now;
    }
    ok(cuCtxSynchronize());
    cr_expect_eq(kit_read(at), STEPS);
}

Test(soft_chaos, makes_no_deadlock_of_events)
{
    walk("4", 1);
}

Test(soft_chaos, keeps_the_order_that_events_make)
{
    walk("5", 77);
}

/* ---- memory ---- */

static CUdeviceptr first_address(const char *seed)
{
    CUdeviceptr at = 0;
    int pipes[2];
    cr_assert_eq(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        CUcontext ctx;
        setenv("TFR_SOFT_CHAOS", seed, 1);
        bool fine = !cuInit(0) && !cuCtxCreate(&ctx, NULL, 0, 0) && !cuMemAlloc(&at, 4096);
        _exit(!fine || write(pipes[1], &at, sizeof(at)) != sizeof(at));
    }
    cr_assert_eq(read(pipes[0], &at, sizeof(at)), (ssize_t)sizeof(at));
    waitpid(child, NULL, 0);
    return at;
}

Test(soft_chaos, places_memory_by_its_seed)
{
    CUdeviceptr a = first_address("1"), b = first_address("2");
    cr_expect_neq(a, b);
    cr_expect_eq(a, first_address("1"));
}

Test(soft_chaos, refuses_hints_half_of_the_time)
{
    const CUdeviceptr window = 0x200000000000;
    int honoured = 0;
    chaos_open("1");
    for (int i = 0; i < 100; i++) {
        CUdeviceptr at;
        ok(cuMemAddressReserve(&at, UNIT, 0, window, 0));
        honoured += at == window;
        ok(cuMemAddressFree(at, UNIT));
    }
    cr_expect_gt(honoured, 0);
    cr_expect_lt(honoured, 100);
}

static CUdeviceptr mapped(int dev, CUmemAccess_flags flags)
{
    const CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = dev},
                                    .flags = flags};
    CUmemGenericAllocationHandle handle;
    CUdeviceptr at;
    ok(cuMemAddressReserve(&at, UNIT, 0, 0, 0));
    ok(cuMemCreate(&handle, UNIT, &prop, 0));
    ok(cuMemMap(at, UNIT, 0, handle, 0));
    ok(cuMemRelease(handle));
    if (flags)
        ok(cuMemSetAccess(at, UNIT, &access, 1));
    return at;
}

Test(soft_chaos, faults_a_fill_before_access_was_set)
{
    chaos_open("1");
    CUdeviceptr at = mapped(0, CU_MEM_ACCESS_FLAGS_PROT_NONE);
    ok(cuMemsetD32(at, 1, 1));
    answers(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
}

Test(soft_chaos, faults_a_copy_without_access)
{
    char bytes[64];
    chaos_open("1");
    CUdeviceptr at = mapped(0, CU_MEM_ACCESS_FLAGS_PROT_NONE);
    answers(cuMemcpyDtoH(bytes, at, sizeof(bytes)), CUDA_ERROR_ILLEGAL_ADDRESS);
}

Test(soft_chaos, faults_a_device_that_has_no_access)
{
    CUcontext ctx;
    setenv("TFR_SOFT_DEVICES", "2", 1);
    struct kit k = chaos_open("1");
    CUdeviceptr at = mapped(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE), near;
    ok(cuMemsetD32(at, 5, 1));
    ok(cuCtxSynchronize());
    ok(cuCtxCreate(&ctx, NULL, 0, 1));
    near = kit_zeros(4);
    ok(cuMemcpyPeer(near, ctx, at, k.ctx, 4)); /* each side by its own device */
    ok(cuCtxSynchronize());
    cr_expect_eq(kit_read(near), 5);
    ok(cuMemcpyDtoDAsync(near, at, 4, NULL));
    answers(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
    ok(cuCtxSetCurrent(k.ctx));
    ok(cuCtxSynchronize());
}

/* Work behind a closed gate, then the range goes: what the context says when the gate is open. */
static CUresult unmapped_behind(CUresult (*submit)(struct kit *, CUstream, CUdeviceptr), bool used)
{
    struct kit k = chaos_open("1");
    volatile uint32_t *word = kit_words();
    CUdeviceptr at = mapped(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    CUdeviceptr other = mapped(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    CUstream s = stream_new();
    ok(cuStreamWaitValue32(s, (CUdeviceptr)word, 1, CU_STREAM_WAIT_VALUE_GEQ));
    ok(submit(&k, s, used ? at : other));
    ok(cuMemUnmap(at, UNIT));
    word[0] = 1;
    return cuCtxSynchronize();
}

static CUresult by_kernel(struct kit *k, CUstream s, CUdeviceptr at)
{
    return kit_launch(k->fill, s, at, 1, 1);
}

static CUresult by_fill(struct kit *k, CUstream s, CUdeviceptr at)
{
    (void)k;
    return cuMemsetD8Async(at + 100, 1, 5, s);
}

Test(soft_chaos, loses_a_context_that_unmaps_what_a_kernel_uses)
{
    answers(unmapped_behind(by_kernel, true), CUDA_ERROR_ILLEGAL_ADDRESS);
}

Test(soft_chaos, loses_a_context_that_unmaps_what_a_fill_uses)
{
    answers(unmapped_behind(by_fill, true), CUDA_ERROR_ILLEGAL_ADDRESS);
}

Test(soft_chaos, lets_a_context_unmap_what_nobody_uses)
{
    answers(unmapped_behind(by_kernel, false), CUDA_SUCCESS);
}

/* ---- faults ---- */

Test(soft_chaos, writes_no_value_after_a_fault)
{
    struct kit k = chaos_open("1");
    volatile uint32_t *word = kit_words();
    CUstream a = stream_new(), b = stream_new();
    ok(cuStreamWaitValue32(b, (CUdeviceptr)word, 1, CU_STREAM_WAIT_VALUE_GEQ));
    ok(cuStreamWriteValue32(b, (CUdeviceptr)(word + 1), 1, 0));
    ok(kit_launch(k.fill, a, 64, 1, 1)); /* may stand behind b's wait */
    ok(cuStreamWriteValue32(a, (CUdeviceptr)(word + 2), 1, 0));
    while (cuStreamQuery(a) == CUDA_ERROR_NOT_READY && word[3]++ < 100)
        usleep(1000);
    bool before = cuStreamQuery(b) == CUDA_ERROR_ILLEGAL_ADDRESS;
    word[0] = 1;
    answers(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
    cr_expect(!before || word[1] == 0);
    cr_expect_eq(word[2], 0);
}
