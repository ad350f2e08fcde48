/* A kernel compiled at run time: NVRTC to PTX and, where it can, to a cubin; loaded as a module and
 * launched through the driver.  A text with a mistake gives a log. */
#include <cuda.h>
#include <nvrtc.h>

#include "check.h"

static const char *const text =
    "extern \"C\" __global__ void saxpy(float a, const float *x, float *y,\n"
    "                                 int n)\n"
    "{\n"
    "    int i = blockIdx.x * blockDim.x + threadIdx.x;\n"
    "    if (i < n)\n"
    "        y[i] = a * x[i] + y[i];\n"
    "}\n"
    "template <typename T> __global__ void add(T *x, T by)\n"
    "{\n"
    "    x[threadIdx.x] += by;\n"
    "}\n";

#define DRIVER(call) check_true((call) == CUDA_SUCCESS, #call, __LINE__)
#define RTC(call)    check_true((call) == NVRTC_SUCCESS, #call, __LINE__)

static char *compile(const char **lowered_out, nvrtcProgram *program)
{
    size_t len;
    const char *options[] = {"--gpu-architecture=compute_75", "-default-device"};
    RTC(nvrtcCreateProgram(program, text, "saxpy.cu", 0, NULL, NULL));
    RTC(nvrtcAddNameExpression(*program, "add<int>"));
    RTC(nvrtcCompileProgram(*program, 2, options));
    RTC(nvrtcGetLoweredName(*program, "add<int>", lowered_out));
    RTC(nvrtcGetPTXSize(*program, &len));
    char *ptx = (char *)malloc(len);
    RTC(nvrtcGetPTX(*program, ptx));
    return ptx;
}

static void mistake(void)
{
    nvrtcProgram program;
    size_t len;
    RTC(nvrtcCreateProgram(&program, "__global__ void f() { undeclared = 1; }", "wrong.cu", 0, NULL,
                           NULL));
    nvrtcResult result = nvrtcCompileProgram(program, 0, NULL);
    RTC(nvrtcGetProgramLogSize(program, &len));
    char *log = (char *)malloc(len);
    RTC(nvrtcGetProgramLog(program, log));
    printf("a mistake: %s, named in the log: %d\n", nvrtcGetErrorString(result),
           strstr(log, "undeclared") != NULL);
    free(log);
    RTC(nvrtcDestroyProgram(&program));
}

int main(void)
{
    enum { N = 3000 };
    static float x[N], y[N];
    CUdevice dev;
    CUcontext ctx;
    CUmodule module;
    CUfunction saxpy, add;
    CUdeviceptr dx, dy;
    const char *lowered;
    nvrtcProgram program;
    char *ptx = compile(&lowered, &program);
    DRIVER(cuInit(0));
    DRIVER(cuDeviceGet(&dev, 0));
    DRIVER(cuDevicePrimaryCtxRetain(&ctx, dev));
    DRIVER(cuCtxSetCurrent(ctx));
    DRIVER(cuModuleLoadData(&module, ptx));
    DRIVER(cuModuleGetFunction(&saxpy, module, "saxpy"));
    DRIVER(cuModuleGetFunction(&add, module, lowered));
    printf("template: %s\n", lowered);
    for (int i = 0; i < N; i++) {
        x[i] = (float)i;
        y[i] = (float)(N - i);
    }
    DRIVER(cuMemAlloc(&dx, sizeof x));
    DRIVER(cuMemAlloc(&dy, sizeof y));
    DRIVER(cuMemcpyHtoD(dx, x, sizeof x));
    DRIVER(cuMemcpyHtoD(dy, y, sizeof y));
    float a = 2;
    int n = N;
    void *args[] = {&a, &dx, &dy, &n};
    DRIVER(cuLaunchKernel(saxpy, (N + 127) / 128, 1, 1, 128, 1, 1, 0, NULL, args, NULL));
    DRIVER(cuMemcpyDtoH(y, dy, sizeof y));
    for (int i = 0; i < N; i++)
        CHECK(y[i] == 2.0f * i + (N - i));
    printf("saxpy: %g %g\n", y[1], y[N - 1]);
    int by = 5, ints[32] = {1, 2, 3};
    void *add_args[] = {&dx, &by};
    DRIVER(cuMemcpyHtoD(dx, ints, sizeof ints));
    DRIVER(cuLaunchKernel(add, 1, 1, 1, 32, 1, 1, 0, NULL, add_args, NULL));
    DRIVER(cuMemcpyDtoH(ints, dx, sizeof ints));
    printf("add<int>: %d %d %d %d\n", ints[0], ints[1], ints[2], ints[31]);
    DRIVER(cuModuleUnload(module));
    RTC(nvrtcDestroyProgram(&program));
    free(ptx);
    mistake();
    DRIVER(cuMemFree(dx));
    DRIVER(cuMemFree(dy));
    DRIVER(cuDevicePrimaryCtxRelease(dev));
    return 0;
}
