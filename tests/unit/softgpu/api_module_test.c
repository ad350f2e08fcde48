/* Modules, libraries, kernels and what they say of themselves. */
#include "tests/unit/softgpu/api_kit.h"

#include <stdio.h>

Test(soft_module, finds_variables_and_functions)
{
    struct kit k = kit_open();
    CUdeviceptr at;
    size_t len, offset;
    unsigned int n;
    const char *name;
    uint64_t value;
    ok(cuModuleGetGlobal(&at, &len, k.module, "var"));
    cr_expect_eq(len, 8);
    ok(cuMemcpyDtoH(&value, at, 8));
    cr_expect_eq(value, 41);
    answers(cuMemFree(at), CUDA_ERROR_INVALID_VALUE);
    answers(cuModuleGetGlobal(&at, &len, k.module, "no"), CUDA_ERROR_NOT_FOUND);
    ok(cuModuleGetFunctionCount(&n, k.module));
    cr_expect_eq(n, 4);
    ok(cuFuncGetName(&name, k.inc));
    cr_expect_str_eq(name, "inc");
    ok(cuFuncGetParamInfo(k.inc, 2, &offset, &len));
    cr_expect_eq(offset, 12);
    cr_expect_eq(len, 4);
    answers(cuFuncGetParamInfo(k.inc, 3, &offset, &len), CUDA_ERROR_INVALID_VALUE);
}

Test(soft_module, is_gone_after_its_unload)
{
    struct kit k = kit_open();
    CUfunction f;
    ok(cuModuleUnload(k.module));
    answers(cuModuleUnload(k.module), CUDA_ERROR_INVALID_HANDLE);
    answers(cuModuleGetFunction(&f, k.module, "fill"), CUDA_ERROR_INVALID_HANDLE);
    answers(kit_launch(k.fill, NULL, 0, 1, 1), CUDA_ERROR_INVALID_HANDLE);
}

Test(soft_module, lets_a_launch_finish_after_its_unload)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    ok(cuStreamWriteValue32(s, (CUdeviceptr)(word + 1), 2, 0));
    ok(cuModuleUnload(k.module));
    answers(cuStreamQuery(s), CUDA_ERROR_NOT_READY);
    word[0] = 1;
    ok(cuStreamSynchronize(s));
    cr_expect_eq(word[1], 2);
}

Test(soft_module, launches_a_library_kernel_in_every_context)
{
    struct kit k = kit_open();
    CUlibrary library;
    CUkernel kernel;
    CUdeviceptr var[2];
    size_t len;
    unsigned int n;
    ok(cuLibraryLoadData(&library, kit_ptx, NULL, NULL, 0, NULL, NULL, 0));
    ok(cuLibraryGetKernelCount(&n, library));
    cr_expect_eq(n, 4);
    ok(cuLibraryGetKernel(&kernel, library, "fill"));
    answers(cuLibraryGetKernel(&kernel, library, "no"), CUDA_ERROR_NOT_FOUND);
    for (int i = 0; i < 2; i++) {
        CUdeviceptr at = kit_zeros(64);
        ok(kit_launch((CUfunction)kernel, NULL, at, 16, 3));
        ok(cuCtxSynchronize());
        cr_expect_eq(kit_read(at + 60), 3);
        ok(cuLibraryGetGlobal(&var[i], &len, library, "var"));
        ok(cuCtxCreate(&k.ctx, NULL, 0, 0));
    }
    cr_expect_neq(var[0], var[1]);
    ok(cuLibraryUnload(library));
    answers(cuLibraryUnload(library), CUDA_ERROR_INVALID_HANDLE);
    answers(kit_launch((CUfunction)kernel, NULL, 0, 1, 1), CUDA_ERROR_INVALID_HANDLE);
}

Test(soft_module, has_consistent_attributes)
{
    struct kit k = kit_open();
    int threads, regs, blocks, sms, grid, block;
    ok(cuFuncGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, k.fill));
    ok(cuFuncGetAttribute(&regs, CU_FUNC_ATTRIBUTE_NUM_REGS, k.fill));
    cr_expect_eq(threads, 1024);
    cr_expect(regs >= 8 && regs <= 255);
    ok(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, k.fill, 1024, 0));
    cr_expect(blocks >= 1 && blocks <= 2);
    ok(cuDeviceGetAttribute(&sms, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0));
    ok(cuOccupancyMaxPotentialBlockSize(&grid, &block, k.fill, NULL, 0, 0));
    cr_expect(block > 0 && block <= 1024 && grid % sms == 0 && grid > 0);
}

Test(soft_module, takes_parameters_as_one_buffer)
{
    struct kit k = kit_open();
    struct {
        CUdeviceptr at;
        uint32_t n, v;
    } block = {kit_zeros(64), 16, 8};
    size_t len = sizeof(block);
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &block, CU_LAUNCH_PARAM_BUFFER_SIZE, &len,
                     CU_LAUNCH_PARAM_END};
    CUlaunchConfig config = {.gridDimX = 1,
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = 16,
                             .blockDimY = 1,
                             .blockDimZ = 1};
    ok(cuLaunchKernelEx(&config, k.fill, NULL, extra));
    ok(cuCtxSynchronize());
    cr_expect_eq(kit_read(block.at + 60), 8);
    len = 8;
    answers(cuLaunchKernelEx(&config, k.fill, NULL, extra), CUDA_ERROR_INVALID_VALUE);
}

Test(soft_module, refuses_text_for_another_device)
{
    static const char head[] = ".version 9.0\n.target %s\n.address_size 64\n"
                               ".visible .entry k() { ret; }\n";
    static const struct {
        const char *target;
        CUresult want;
    } cases[] = {{"sm_90", CUDA_SUCCESS},
                 {"sm_90a", CUDA_SUCCESS},
                 {"sm_52", CUDA_SUCCESS},
                 {"sm_89a", CUDA_ERROR_INVALID_PTX},
                 {"sm_100", CUDA_ERROR_INVALID_PTX}};
    struct kit k = kit_open();
    (void)k;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char text[256], error[128] = "";
        CUjit_option option[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
        void *value[] = {error, (void *)sizeof(error)};
        CUmodule m;
        snprintf(text, sizeof(text), head, cases[i].target);
        answers(cuModuleLoadDataEx(&m, text, 2, option, value), cases[i].want);
        cr_expect_eq(!cases[i].want, !strstr(error, "sm_90"), "%s", error);
    }
}
