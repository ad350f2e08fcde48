/* Order: inside a stream, between streams, and with the legacy stream. */
#include "tests/unit/softgpu/api_kit.h"

#include <pthread.h>
#include <stdatomic.h>

enum { N = 1000 };

Test(soft_stream, runs_a_stream_in_order)
{
    struct kit k = kit_open();
    CUdeviceptr at = kit_zeros(N * 4);
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    for (uint32_t i = 1; i <= 200; i++) {
        ok(kit_launch(k.fill, s, at, N, i));
        ok(kit_launch(k.inc, s, at, N, 1));
    }
    ok(cuStreamSynchronize(s));
    cr_expect_eq(kit_read(at), 201);
    cr_expect_eq(kit_read(at + (N - 1) * 4), 201);
}

Test(soft_stream, answers_not_ready_while_a_kernel_runs)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    answers(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
    word[0] = 1;
    ok(cuStreamSynchronize(s));
    answers(cuStreamQuery(s), CUDA_SUCCESS);
}

Test(soft_stream, makes_a_blocking_stream_wait_for_the_legacy_one)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_DEFAULT));
    ok(kit_spin(&k, NULL, (CUdeviceptr)word, 1));
    ok(cuStreamWriteValue32(s, (CUdeviceptr)(word + 1), 7, 0));
    usleep(20000);
    cr_expect_eq(word[1], 0);
    word[0] = 1;
    ok(cuStreamSynchronize(s));
    cr_expect_eq(word[1], 7);
}

Test(soft_stream, makes_the_legacy_stream_wait_for_blocking_ones)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_DEFAULT));
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    ok(cuStreamWriteValue32(NULL, (CUdeviceptr)(word + 1), 7, 0));
    answers(cuStreamQuery(NULL), CUDA_ERROR_NOT_READY);
    usleep(20000);
    cr_expect_eq(word[1], 0);
    word[0] = 1;
    ok(cuStreamSynchronize(NULL));
    cr_expect_eq(word[1], 7);
}

Test(soft_stream, leaves_non_blocking_streams_out_of_the_legacy_order)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    ok(cuStreamSynchronize(NULL));
    ok(cuStreamWriteValue32(NULL, (CUdeviceptr)word, 1, 0));
    ok(cuStreamSynchronize(s));
}

Test(soft_stream, runs_kernels_of_different_streams_side_by_side)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUstream s[12];
    for (int i = 0; i < 12; i++) {
        ok(cuStreamCreate(&s[i], CU_STREAM_NON_BLOCKING));
        ok(kit_spin(&k, s[i], (CUdeviceptr)word, 1)); /* none may need another's end */
    }
    ok(kit_launch(k.fill, CU_STREAM_PER_THREAD, (CUdeviceptr)word, 1, 1));
    ok(cuCtxSynchronize());
}

static void *own_stream(void *arg)
{
    CUstream *out = arg;
    unsigned long long id;
    cuCtxSetCurrent((CUcontext)out[1]);
    if (cuStreamGetId(CU_STREAM_PER_THREAD, &id) == CUDA_SUCCESS)
        out[0] = (CUstream)(uintptr_t)id;
    return NULL;
}

Test(soft_stream, gives_every_thread_a_stream_of_its_own)
{
    struct kit k = kit_open();
    unsigned long long mine, again;
    CUstream other[2] = {NULL, (CUstream)k.ctx};
    pthread_t thread;
    ok(cuStreamGetId(CU_STREAM_PER_THREAD, &mine));
    ok(cuStreamGetId(CU_STREAM_PER_THREAD, &again));
    pthread_create(&thread, NULL, own_stream, other);
    pthread_join(thread, NULL);
    cr_expect_eq(mine, again);
    cr_expect_neq((uintptr_t)other[0], 0);
    cr_expect_neq((uintptr_t)other[0], mine);
}

static void note(void *arg)
{
    _Atomic int *order = arg;
    atomic_fetch_add(order, 1);
}

static void CUDA_CB note_callback(CUstream stream, CUresult status, void *arg)
{
    (void)stream;
    atomic_fetch_add((_Atomic int *)arg, status == CUDA_SUCCESS ? 10 : 1000);
}

Test(soft_stream, calls_host_functions_in_order)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    _Atomic int calls = 0;
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    ok(cuLaunchHostFunc(s, note, (void *)&calls));
    ok(cuStreamAddCallback(s, note_callback, (void *)&calls, 0));
    usleep(10000);
    cr_expect_eq(atomic_load(&calls), 0);
    word[0] = 1;
    ok(cuStreamSynchronize(s));
    cr_expect_eq(atomic_load(&calls), 11);
}

/* A list of what was called, in the order of the calls. */
struct calls {
    _Atomic int n;
    int what[8];
};

static void log_host(void *arg)
{
    struct calls *calls = arg;
    calls->what[atomic_fetch_add(&calls->n, 1)] = -1;
}

static void log_callback(CUstream stream, CUresult status, void *arg)
{
    struct calls *calls = arg;
    (void)stream;
    calls->what[atomic_fetch_add(&calls->n, 1)] = (int)status;
}

Test(soft_stream, tells_callbacks_of_a_fault_and_skips_host_functions)
{
    struct kit k = kit_open();
    struct calls calls = {0};
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    volatile uint32_t *word = kit_words();
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    ok(cuLaunchHostFunc(s, log_host, &calls));
    ok(cuStreamAddCallback(s, log_callback, &calls, 0));
    ok(kit_launch(k.fill, s, 64, 1, 1));
    ok(cuLaunchHostFunc(s, log_host, &calls));
    ok(cuStreamAddCallback(s, log_callback, &calls, 0));
    word[0] = 1;
    answers(cuStreamSynchronize(s), CUDA_ERROR_ILLEGAL_ADDRESS);
    cr_assert_eq(atomic_load(&calls.n), 3);
    cr_expect_eq(calls.what[0], -1);
    cr_expect_eq(calls.what[1], CUDA_SUCCESS);
    cr_expect_eq(calls.what[2], CUDA_ERROR_ILLEGAL_ADDRESS);
    answers(cuLaunchHostFunc(s, log_host, &calls), CUDA_ERROR_ILLEGAL_ADDRESS);
}

Test(soft_stream, finishes_the_work_of_a_destroyed_stream)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    ok(cuStreamWriteValue32(s, (CUdeviceptr)(word + 1), 3, 0));
    ok(cuStreamDestroy(s));
    answers(cuStreamQuery(s), CUDA_ERROR_INVALID_HANDLE);
    answers(cuStreamDestroy(s), CUDA_ERROR_INVALID_HANDLE);
    word[0] = 1;
    ok(cuCtxSynchronize()); /* waits for it all the same */
    cr_expect_eq(word[1], 3);
}

Test(soft_stream, joins_a_destroyed_blocking_stream_with_the_legacy_one)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_DEFAULT));
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    ok(cuStreamDestroy(s));
    ok(cuStreamWriteValue32(NULL, (CUdeviceptr)(word + 1), 3, 0));
    usleep(5000);
    cr_expect_eq(word[1], 0);
    word[0] = 1;
    ok(cuStreamSynchronize(NULL));
    cr_expect_eq(word[1], 3);
}

Test(soft_stream, reads_a_pageable_source_before_the_call_returns)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUdeviceptr at = kit_zeros(4096);
    uint32_t *source = malloc(4096);
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    memset(source, 1, 4096);
    ok(cuMemcpyHtoDAsync(at, source, 4096, s));
    memset(source, 2, 4096);
    word[0] = 1;
    ok(cuStreamSynchronize(s));
    cr_expect_eq(kit_read(at + 4092), 0x01010101);
    free(source);
}
