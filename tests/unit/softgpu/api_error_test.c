/* What a driver refuses at the call, and what a fault leaves behind. */
#include "tests/unit/softgpu/api_kit.h"

#include <sys/wait.h>

Test(soft_error, wants_to_be_initialised)
{
    int n;
    CUdevice dev;
    answers(cuDeviceGetCount(&n), CUDA_ERROR_NOT_INITIALIZED);
    answers(cuInit(1), CUDA_ERROR_INVALID_VALUE);
    ok(cuInit(0));
    ok(cuDeviceGetCount(&n));
    cr_expect_eq(n, 1);
    answers(cuDeviceGet(&dev, n), CUDA_ERROR_INVALID_DEVICE);
    answers(cuDeviceGet(&dev, -1), CUDA_ERROR_INVALID_DEVICE);
}

Test(soft_error, wants_a_context)
{
    CUdeviceptr at;
    CUstream s;
    CUcontext ctx;
    ok(cuInit(0));
    answers(cuMemAlloc(&at, 1), CUDA_ERROR_INVALID_CONTEXT);
    answers(cuStreamCreate(&s, 0), CUDA_ERROR_INVALID_CONTEXT);
    answers(cuCtxSynchronize(), CUDA_ERROR_INVALID_CONTEXT);
    ok(cuCtxGetCurrent(&ctx));
    cr_expect_null(ctx);
}

Test(soft_error, answers_not_initialised_in_a_forked_child)
{
    int n, status = 0;
    kit_open();
    pid_t child = fork();
    if (child == 0)
        _exit(cuDeviceGetCount(&n) == CUDA_ERROR_NOT_INITIALIZED &&
                      cuInit(0) == CUDA_ERROR_NOT_INITIALIZED
                  ? 0
                  : 1);
    waitpid(child, &status, 0);
    cr_expect_eq(status, 0);
}

Test(soft_error, knows_wrong_handles)
{
    struct kit k = kit_open();
    CUfunction f;
    answers(cuModuleGetFunction(&f, k.module, "nothing"), CUDA_ERROR_NOT_FOUND);
    answers(cuStreamSynchronize((CUstream)0x1234), CUDA_ERROR_INVALID_HANDLE);
    answers(cuLaunchKernel((CUfunction)0x1234, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL),
            CUDA_ERROR_INVALID_HANDLE);
    answers(cuModuleUnload((CUmodule)k.fill), CUDA_ERROR_INVALID_HANDLE);
    answers(cuCtxSetCurrent((CUcontext)k.fill), CUDA_ERROR_INVALID_CONTEXT);
}

Test(soft_error, refuses_impossible_launches)
{
    struct kit k = kit_open();
    CUfunction e = k.empty;
    answers(cuLaunchKernel(e, 0, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    answers(cuLaunchKernel(e, 1, 1, 1, 0, 1, 1, 0, NULL, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    answers(cuLaunchKernel(e, 1, 65536, 1, 1, 1, 1, 0, NULL, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    answers(cuLaunchKernel(e, 1, 1, 1, 1025, 1, 1, 0, NULL, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    answers(cuLaunchKernel(e, 1, 1, 1, 64, 32, 1, 0, NULL, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    answers(cuLaunchKernel(e, 1, 1, 1, 1, 1, 65, 0, NULL, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    answers(cuLaunchKernel(e, 1, 1, 1, 1, 1, 1, 49153, NULL, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    answers(cuLaunchKernel(k.fill, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL),
            CUDA_ERROR_INVALID_VALUE);
    ok(cuLaunchKernel(e, 1, 1, 1, 1024, 1, 1, 49152, NULL, NULL, NULL));
    answers(cuLaunchCooperativeKernel(e, 1 << 20, 1, 1, 1024, 1, 1, 0, NULL, NULL),
            CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    ok(cuCtxSynchronize());
}

Test(soft_error, gives_more_shared_memory_on_request)
{
    struct kit k = kit_open();
    int most;
    ok(cuDeviceGetAttribute(&most, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0));
    answers(cuFuncSetAttribute(k.empty, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most + 1),
            CUDA_ERROR_INVALID_VALUE);
    ok(cuFuncSetAttribute(k.empty, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most));
    ok(cuLaunchKernel(k.empty, 1, 1, 1, 1, 1, 1, (unsigned int)most, NULL, NULL, NULL));
    ok(cuCtxSynchronize());
}

Test(soft_error, makes_a_fault_stick_to_its_context)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUstream s;
    CUdeviceptr at;
    ok(cuMemAlloc(&at, 64));
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(cuStreamWaitValue32(s, (CUdeviceptr)word, 1, CU_STREAM_WAIT_VALUE_EQ));
    ok(kit_launch(k.fill, s, 0x1000, 1, 1)); /* nobody's address */
    ok(cuStreamWriteValue32(s, (CUdeviceptr)(word + 1), 1, 0));
    word[0] = 1;
    answers(cuStreamSynchronize(s), CUDA_ERROR_ILLEGAL_ADDRESS);
    cr_expect_eq(word[1], 0);
    answers(cuStreamQuery(s), CUDA_ERROR_ILLEGAL_ADDRESS);
    answers(cuStreamQuery(NULL), CUDA_ERROR_ILLEGAL_ADDRESS);
    answers(cuMemAlloc(&at, 1), CUDA_ERROR_ILLEGAL_ADDRESS);
    answers(cuMemcpyHtoD(at, "x", 1), CUDA_ERROR_ILLEGAL_ADDRESS);
    answers(cuStreamWriteValue32(s, (CUdeviceptr)(word + 1), 1, 0), CUDA_ERROR_ILLEGAL_ADDRESS);
    answers(kit_launch(k.empty, s, 0, 1, 0), CUDA_ERROR_ILLEGAL_ADDRESS);
    answers(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
    struct kit other = kit_open(); /* another context lives */
    ok(kit_launch(other.fill, NULL, kit_zeros(4), 1, 1));
    ok(cuCtxSynchronize());
}

Test(soft_error, starts_afresh_after_a_reset_of_the_primary_context)
{
    CUcontext ctx, again;
    CUdeviceptr at;
    struct kit k = kit_open();
    unsigned int flags;
    int active;
    ok(cuCtxDestroy(k.ctx));
    ok(cuDevicePrimaryCtxRetain(&ctx, 0));
    ok(cuCtxSetCurrent(ctx));
    ok(cuModuleLoadData(&k.module, kit_ptx));
    ok(cuModuleGetFunction(&k.fill, k.module, "fill"));
    ok(kit_launch(k.fill, NULL, 0x1000, 1, 1));
    answers(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
    ok(cuDevicePrimaryCtxReset(0));
    ok(cuDevicePrimaryCtxGetState(0, &flags, &active));
    cr_expect_eq(active, 0);
    answers(cuMemAlloc(&at, 1), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    answers(cuModuleUnload(k.module), CUDA_ERROR_INVALID_HANDLE);
    ok(cuDevicePrimaryCtxRetain(&again, 0));
    cr_expect_eq(ctx, again);
    ok(cuMemAlloc(&at, 1));
}

Test(soft_error, says_why_it_refuses_an_image)
{
    char log[256] = "";
    CUmodule m;
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)sizeof(log)};
    kit_open();
    cr_expect_neq(cuModuleLoadDataEx(&m, "garbage, not an image", 2, options, values),
                  CUDA_SUCCESS);
    cr_expect_gt(strlen(log), 5);
    answers(cuModuleLoad(&m, "/nonexistent/x.ptx"), CUDA_ERROR_FILE_NOT_FOUND);
}

Test(soft_error, names_results)
{
    const char *text;
    ok(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
    cr_expect_str_eq(text, "CUDA_ERROR_ILLEGAL_ADDRESS");
    answers(cuGetErrorName((CUresult)12345, &text), CUDA_ERROR_INVALID_VALUE);
}
