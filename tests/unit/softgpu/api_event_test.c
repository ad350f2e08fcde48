/* Events: what a record, a wait and a time mean. */
#include "tests/unit/softgpu/api_kit.h"

Test(soft_event, is_complete_before_its_first_record)
{
    CUevent e;
    kit_open();
    ok(cuEventCreate(&e, 0));
    answers(cuEventQuery(e), CUDA_SUCCESS);
    answers(cuEventSynchronize(e), CUDA_SUCCESS);
    answers(cuStreamWaitEvent(NULL, e, 0), CUDA_SUCCESS);
}

Test(soft_event, tells_when_the_stream_has_passed)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUevent e;
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(cuEventCreate(&e, CU_EVENT_DISABLE_TIMING));
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    ok(cuEventRecord(e, s));
    answers(cuEventQuery(e), CUDA_ERROR_NOT_READY);
    word[0] = 1;
    ok(cuEventSynchronize(e));
    answers(cuEventQuery(e), CUDA_SUCCESS);
}

Test(soft_event, holds_another_stream_back)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUevent e;
    CUstream a, b;
    ok(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
    ok(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
    ok(cuEventCreate(&e, 0));
    ok(kit_spin(&k, a, (CUdeviceptr)word, 1));
    ok(cuEventRecord(e, a));
    ok(cuStreamWaitEvent(b, e, 0));
    ok(cuStreamWriteValue32(b, (CUdeviceptr)(word + 1), 7, 0));
    usleep(10000);
    cr_expect_eq(word[1], 0);
    word[0] = 1;
    ok(cuStreamSynchronize(b));
    cr_expect_eq(word[1], 7);
}

Test(soft_event, keeps_a_wait_at_the_record_it_saw)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUevent e;
    CUstream a, b, c;
    ok(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
    ok(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
    ok(cuStreamCreate(&c, CU_STREAM_NON_BLOCKING));
    ok(cuEventCreate(&e, 0));
    ok(cuEventRecord(e, a)); /* passed */
    ok(cuStreamWaitEvent(b, e, 0));
    ok(kit_spin(&k, c, (CUdeviceptr)word, 1));
    ok(cuEventRecord(e, c)); /* not passed; b does not care */
    ok(cuStreamSynchronize(b));
    answers(cuEventQuery(e), CUDA_ERROR_NOT_READY);
    word[0] = 1;
    ok(cuEventSynchronize(e));
}

Test(soft_event, measures_the_time_between_two_records)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUevent a, b;
    CUstream s;
    float ms = -1;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(cuEventCreate(&a, 0));
    ok(cuEventCreate(&b, 0));
    answers(cuEventElapsedTime(&ms, a, b), CUDA_ERROR_INVALID_HANDLE);
    ok(cuEventRecord(a, s));
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    ok(cuEventRecord(b, s));
    answers(cuEventElapsedTime(&ms, a, b), CUDA_ERROR_NOT_READY);
    usleep(20000);
    word[0] = 1;
    ok(cuEventSynchronize(b));
    ok(cuEventElapsedTime(&ms, a, b));
    cr_expect(ms >= 20 && ms < 5000, "%f ms", (double)ms);
    ok(cuEventElapsedTime(&ms, b, a));
    cr_expect(ms <= -20);
}

Test(soft_event, has_no_time_when_told_so)
{
    CUevent a, b;
    float ms;
    kit_open();
    ok(cuEventCreate(&a, CU_EVENT_DISABLE_TIMING));
    ok(cuEventCreate(&b, 0));
    ok(cuEventRecord(a, NULL));
    ok(cuEventRecord(b, NULL));
    ok(cuCtxSynchronize());
    answers(cuEventElapsedTime(&ms, a, b), CUDA_ERROR_INVALID_HANDLE);
}

Test(soft_event, forgets_a_destroyed_one)
{
    CUevent e;
    kit_open();
    ok(cuEventCreate(&e, 0));
    ok(cuEventDestroy(e));
    answers(cuEventQuery(e), CUDA_ERROR_INVALID_HANDLE);
    answers(cuEventRecord(e, NULL), CUDA_ERROR_INVALID_HANDLE);
    answers(cuEventDestroy(e), CUDA_ERROR_INVALID_HANDLE);
}
