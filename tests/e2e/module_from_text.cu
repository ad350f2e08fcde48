/* Code that comes as data: PTX text by each of the load calls, with options
 * for the just-in-time compiler; and what is no code. */
#include <cuda.h>
#include <unistd.h>

#include "check.h"

#define DRIVER(call) check_true((call) == CUDA_SUCCESS, #call, __LINE__)

static const char ptx[] = ".version 6.4\n"
                          ".target sm_50\n"
                          ".address_size 64\n"
                          ".visible .global .align 4 .u32 base = 40;\n"
                          ".visible .entry add(.param .u64 p, .param .u32 n)\n"
                          "{\n"
                          "    .reg .u32 %r<6>; .reg .u64 %rd<4>; .reg .pred %p;\n"
                          "    ld.param.u64 %rd1, [p];\n"
                          "    ld.param.u32 %r1, [n];\n"
                          "    mov.u32 %r2, %tid.x;\n"
                          "    setp.ge.u32 %p, %r2, %r1;\n"
                          "    @%p bra done;\n"
                          "    ld.global.u32 %r3, [base];\n"
                          "    mul.wide.u32 %rd2, %r2, 4;\n"
                          "    cvta.to.global.u64 %rd1, %rd1;\n"
                          "    add.u64 %rd2, %rd1, %rd2;\n"
                          "    add.u32 %r4, %r2, %r3;\n"
                          "    st.global.u32 [%rd2], %r4;\n"
                          "done:\n"
                          "    ret;\n"
                          "}\n";

static void use(const char *what, CUmodule module)
{
    CUfunction add;
    CUdeviceptr base, out;
    size_t len;
    unsigned got[32], n = 20, to = 7;
    DRIVER(cuModuleGetFunction(&add, module, "add"));
    DRIVER(cuModuleGetGlobal(&base, &len, module, "base"));
    DRIVER(cuMemAlloc(&out, sizeof got));
    DRIVER(cuMemsetD32(out, 0, 32));
    void *args[] = {&out, &n};
    DRIVER(cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, NULL, args, NULL));
    DRIVER(cuMemcpyDtoH(got, out, sizeof got));
    printf("%s: %u %u %u, variable of %zu bytes", what, got[0], got[19], got[20], len);
    DRIVER(cuMemcpyHtoD(base, &to, sizeof to));
    DRIVER(cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, NULL, args, NULL));
    DRIVER(cuMemcpyDtoH(got, out, sizeof got));
    printf(", then %u\n", got[19]);
    CUfunction none;
    printf("  no such kernel: %d, no such variable: %d\n",
           (int)cuModuleGetFunction(&none, module, "sub"),
           (int)cuModuleGetGlobal(&base, &len, module, "top"));
    DRIVER(cuMemFree(out));
    DRIVER(cuModuleUnload(module));
}

static void with_options(void)
{
    char info[1024] = "", error[1024] = "";
    CUmodule module;
    CUjit_option option[] = {CU_JIT_INFO_LOG_BUFFER,    CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
                             CU_JIT_ERROR_LOG_BUFFER,   CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
                             CU_JIT_OPTIMIZATION_LEVEL, CU_JIT_MAX_REGISTERS};
    void *value[] = {info, (void *)sizeof info, error, (void *)sizeof error, (void *)4, (void *)32};
    DRIVER(cuModuleLoadDataEx(&module, ptx, 6, option, value));
    use("with options", module);
    error[0] = 0;
    value[1] = (void *)sizeof info;
    value[3] = (void *)sizeof error;
    int result = cuModuleLoadDataEx(
        &module, ".version 6.4\n.target sm_50\n.visible .entry f( { ret; }\n", 4, option, value);
    printf("text with a mistake: %d, the log says something: %d\n", result, error[0] != 0);
}

static void from_file(void)
{
    char path[] = "/tmp/tfr-ptx-XXXXXX";
    CUmodule module;
    int fd = mkstemp(path);
    CHECK(fd >= 0 && write(fd, ptx, sizeof ptx - 1) == (ssize_t)sizeof ptx - 1);
    close(fd);
    DRIVER(cuModuleLoad(&module, path));
    unlink(path);
    use("from a file", module);
    printf("no such file: %d\n", (int)cuModuleLoad(&module, "/nonexistent/x.ptx"));
}

/* The program's own code, as nvcc has put it there: a fatbin behind a wrapper. */
extern "C" __global__ void times(int *x, int by)
{
    x[threadIdx.x] *= by;
}

static void as_library(void)
{
    CUlibrary library;
    CUkernel kernel;
    CUfunction function;
    DRIVER(cuLibraryLoadData(&library, ptx, NULL, NULL, 0, NULL, NULL, 0));
    DRIVER(cuLibraryGetKernel(&kernel, library, "add"));
    DRIVER(cuKernelGetFunction(&function, kernel));
    printf("library: %d\n", function != NULL);
    DRIVER(cuLibraryUnload(library));
}

int main(void)
{
    CUdevice dev;
    CUcontext ctx;
    CUmodule module;
    DRIVER(cuInit(0));
    DRIVER(cuDeviceGet(&dev, 0));
    DRIVER(cuDevicePrimaryCtxRetain(&ctx, dev));
    DRIVER(cuCtxSetCurrent(ctx));
    DRIVER(cuModuleLoadData(&module, ptx));
    use("PTX", module);
    with_options();
    from_file();
    as_library();
    printf("no text: %d\n", (int)cuModuleLoadData(&module, NULL));
    int *x = (int *)device_alloc(32 * sizeof(int)), got[32];
    for (int i = 0; i < 32; i++)
        got[i] = i;
    CUDA(cudaMemcpy(x, got, sizeof got, cudaMemcpyHostToDevice));
    times<<<1, 32>>>(x, 3);
    LAUNCHED();
    CUDA(cudaMemcpy(got, x, sizeof got, cudaMemcpyDeviceToHost));
    printf("beside it the program's own: %d\n", got[31]);
    CUDA(cudaFree(x));
    DRIVER(cuDevicePrimaryCtxRelease(dev));
    return 0;
}
