/* Value operations of streams: a wait holds its own stream back and no other. */
#include "tests/unit/softgpu/api_kit.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

Test(soft_value, waits_for_what_the_host_writes)
{
    volatile uint32_t *word = (kit_open(), kit_words());
    CUstream a, b;
    ok(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
    ok(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
    ok(cuStreamWaitValue32(a, (CUdeviceptr)word, 5, CU_STREAM_WAIT_VALUE_GEQ));
    ok(cuStreamWriteValue32(a, (CUdeviceptr)(word + 1), 1, 0));
    ok(cuStreamWriteValue32(b, (CUdeviceptr)(word + 2), 1, 0));
    ok(cuStreamSynchronize(b));
    cr_expect_eq(word[2], 1);
    answers(cuStreamQuery(a), CUDA_ERROR_NOT_READY);
    word[0] = 4;
    usleep(5000);
    cr_expect_eq(word[1], 0);
    word[0] = 6;
    ok(cuStreamSynchronize(a));
    cr_expect_eq(word[1], 1);
}

Test(soft_value, lets_one_stream_release_another)
{
    kit_open();
    CUdeviceptr at = kit_zeros(64);
    CUstream s[20];
    for (int i = 0; i < 20; i++) { /* a chain, released from its end */
        ok(cuStreamCreate(&s[i], CU_STREAM_NON_BLOCKING));
        ok(cuStreamWaitValue64(s[i], at, (uint64_t)20 - (uint64_t)i, CU_STREAM_WAIT_VALUE_EQ));
        ok(cuStreamWriteValue64(s[i], at, (uint64_t)21 - (uint64_t)i, 0));
    }
    ok(cuStreamWriteValue64(NULL, at, 1, 0));
    ok(cuCtxSynchronize());
    cr_expect_eq(kit_read(at), 21);
}

Test(soft_value, knows_the_four_conditions)
{
    volatile uint32_t *word = (kit_open(), kit_words());
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    word[0] = 3;
    ok(cuStreamWaitValue32(s, (CUdeviceptr)word, 0xfffffff0,
                           CU_STREAM_WAIT_VALUE_GEQ)); /* cyclic */
    ok(cuStreamWaitValue32(s, (CUdeviceptr)word, 3, CU_STREAM_WAIT_VALUE_EQ));
    ok(cuStreamWaitValue32(s, (CUdeviceptr)word, 2, CU_STREAM_WAIT_VALUE_AND));
    ok(cuStreamWaitValue32(s, (CUdeviceptr)word, 4, CU_STREAM_WAIT_VALUE_NOR));
    answers(cuStreamQuery(s), CUDA_SUCCESS);
    ok(cuStreamWaitValue32(s, (CUdeviceptr)word, 0xfffffffc, CU_STREAM_WAIT_VALUE_NOR));
    answers(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
    word[0] = 2;
    ok(cuStreamSynchronize(s));
}

Test(soft_value, refuses_what_it_cannot_reach)
{
    volatile uint32_t *word = (kit_open(), kit_words());
    uint32_t stack = 0;
    answers(cuStreamWriteValue32(NULL, (CUdeviceptr)&stack, 1, 0), CUDA_ERROR_INVALID_VALUE);
    answers(cuStreamWriteValue32(NULL, (CUdeviceptr)word + 1, 1, 0), CUDA_ERROR_INVALID_VALUE);
    answers(cuStreamWriteValue64(NULL, (CUdeviceptr)(word + 1), 1, 0), CUDA_ERROR_INVALID_VALUE);
    answers(cuStreamWaitValue32(NULL, 0, 1, 0), CUDA_ERROR_INVALID_VALUE);
    cr_expect_eq(stack, 0);
}

Test(soft_value, takes_a_batch_as_a_whole)
{
    volatile uint32_t *word = (kit_open(), kit_words());
    CUstreamBatchMemOpParams op[2] = {0};
    op[0].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op[0].writeValue.address = (CUdeviceptr)word;
    op[0].writeValue.value = 5;
    op[1].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_64;
    op[1].writeValue.address = (CUdeviceptr)(word + 3);
    answers(cuStreamBatchMemOp(NULL, 2, op, 0), CUDA_ERROR_INVALID_VALUE);
    cr_expect_eq(word[0], 0);
    op[1].writeValue.address = (CUdeviceptr)(word + 4);
    op[1].writeValue.value64 = 6;
    ok(cuStreamBatchMemOp(NULL, 2, op, 0));
    ok(cuCtxSynchronize());
    cr_expect_eq(word[0], 5);
    cr_expect_eq(word[4], 6);
}

Test(soft_value, does_not_outlive_its_context)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(cuStreamWaitValue32(s, (CUdeviceptr)word, 5, CU_STREAM_WAIT_VALUE_EQ));
    ok(cuCtxDestroy(k.ctx));
    answers(cuStreamQuery(s), CUDA_ERROR_INVALID_CONTEXT);
}

/* A gate in shared memory: [0] is asked for by the parent, [1] is granted by the child. */
static void grant(_Atomic uint64_t *words, uint64_t n)
{
    for (uint64_t i = 1; i <= n; i++) {
        while (atomic_load(&words[0]) < i)
            usleep(200);
        atomic_store(&words[1], i);
    }
}

Test(soft_value, sees_what_another_process_writes)
{
    enum { N = 50 };
    int file = memfd_create("gate", MFD_CLOEXEC);
    cr_assert_eq(ftruncate(file, 4096), 0);
    _Atomic uint64_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    pid_t child = fork();
    if (child == 0) {
        grant(words, N);
        _exit(0);
    }
    struct kit k = kit_open();
    CUdeviceptr at = kit_zeros(4);
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(cuMemHostRegister((void *)words, 4096, 0));
    for (uint64_t i = 1; i <= N; i++) {
        ok(cuStreamWaitValue64(s, (CUdeviceptr)&words[1], i, CU_STREAM_WAIT_VALUE_GEQ));
        ok(kit_launch(k.inc, s, at, 1, 1));
        if (i % 2)
            ok(cuStreamWriteValue64(s, (CUdeviceptr)&words[2], i, 0));
        atomic_store(&words[0], i);
        if (i % 10 == 0)
            ok(cuStreamSynchronize(s));
    }
    ok(cuStreamSynchronize(s));
    cr_expect_eq(kit_read(at), N);
    cr_expect_eq(atomic_load(&words[2]), N - 1);
    ok(cuMemHostUnregister((void *)words));
    cr_assert_eq(waitpid(child, NULL, 0), child);
}
