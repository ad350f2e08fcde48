/* The driver API by itself: plain C, linked with nothing of CUDA, libcuda.so.1 loaded at run time,
 * PTX text as the image.  Modules and libraries, both ways to pass parameters, globals, copies and
 * memsets of each width, attributes, pointers, error names. */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#include <dlfcn.h>

#include "check.h"

/* clang-format off */
#define CALLS(X)                                                                                   \
    X(cuInit) X(cuDriverGetVersion) X(cuDeviceGet) X(cuDeviceGetCount) X(cuDeviceGetName)          \
    X(cuDeviceGetAttribute) X(cuDeviceTotalMem_v2) X(cuDevicePrimaryCtxRetain)                     \
    X(cuDevicePrimaryCtxRelease_v2) X(cuCtxSetCurrent) X(cuCtxGetCurrent) X(cuCtxGetDevice)        \
    X(cuCtxSynchronize) X(cuCtxPushCurrent_v2) X(cuCtxPopCurrent_v2) X(cuModuleLoadData)           \
    X(cuModuleUnload) X(cuModuleGetFunction) X(cuModuleGetGlobal_v2) X(cuLibraryLoadData)          \
    X(cuLibraryGetKernel) X(cuKernelGetFunction) X(cuLibraryUnload) X(cuFuncGetAttribute)          \
    X(cuLaunchKernel) X(cuMemAlloc_v2) X(cuMemFree_v2) X(cuMemcpyHtoD_v2) X(cuMemcpyDtoH_v2)       \
    X(cuMemcpyHtoDAsync_v2) X(cuMemcpyDtoHAsync_v2) X(cuMemcpyDtoD_v2) X(cuMemsetD8_v2)            \
    X(cuMemsetD16_v2) X(cuMemsetD32_v2) X(cuMemsetD32Async) X(cuMemGetInfo_v2)                     \
    X(cuMemHostAlloc) X(cuMemFreeHost) X(cuStreamCreate) X(cuStreamDestroy_v2)                     \
    X(cuStreamSynchronize) X(cuStreamQuery) X(cuStreamWaitEvent) X(cuEventCreate)                  \
    X(cuEventRecord) X(cuEventQuery) X(cuEventSynchronize) X(cuEventElapsedTime_v2)                \
    X(cuEventDestroy_v2) X(cuPointerGetAttribute) X(cuGetErrorName) X(cuGetErrorString)
/* clang-format on */

static struct {
#define FIELD(name) __typeof__(&name) name;
    CALLS(FIELD)
#undef FIELD
} cu;

static const char ptx[] = ".version 7.0\n.target sm_75\n.address_size 64\n"
                          ".visible .global .align 4 .u32 added = 5;\n"
                          ".visible .const .align 4 .u32 factor[2] = {2, 3};\n"
                          ".visible .entry combine(.param .u64 out, .param .u32 n, .param .f32 f)\n"
                          "{\n"
                          "  .reg .pred %p; .reg .b32 %r<8>; .reg .b64 %d<4>; .reg .f32 %f<3>;\n"
                          "  ld.param.u64 %d1, [out];\n"
                          "  ld.param.u32 %r1, [n];\n"
                          "  ld.param.f32 %f1, [f];\n"
                          "  cvta.to.global.u64 %d1, %d1;\n"
                          "  mov.u32 %r2, %ctaid.x;\n"
                          "  mov.u32 %r3, %ntid.x;\n"
                          "  mov.u32 %r4, %tid.x;\n"
                          "  mad.lo.u32 %r4, %r2, %r3, %r4;\n"
                          "  setp.ge.u32 %p, %r4, %r1;\n"
                          "  @%p bra done;\n"
                          "  ld.global.u32 %r5, [added];\n"
                          "  ld.const.u32 %r6, [factor+4];\n"
                          "  mad.lo.u32 %r5, %r4, %r6, %r5;\n"
                          "  cvt.rn.f32.u32 %f2, %r5;\n"
                          "  mul.f32 %f2, %f2, %f1;\n"
                          "  mul.wide.u32 %d2, %r4, 4;\n"
                          "  add.s64 %d2, %d1, %d2;\n"
                          "  st.global.f32 [%d2], %f2;\n"
                          "done:\n"
                          "  ret;\n"
                          "}\n";

static void check_cu(CUresult got, const char *what, int line)
{
    const char *name = "unknown error";
    if (got == CUDA_SUCCESS)
        return;
    if (cu.cuGetErrorName)
        cu.cuGetErrorName(got, &name);
    fflush(stdout);
    fprintf(stderr, "line %d: %s: %s\n", line, what, name);
    exit(1);
}
#define CU(call) check_cu(cu.call, #call, __LINE__)

static void show(const char *what, CUresult got)
{
    const char *name = NULL;
    CHECK(cu.cuGetErrorName(got, &name) == CUDA_SUCCESS && name);
    printf("%s: %s\n", what, name);
}

static void load(void)
{
    void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(lib);
#define LOAD(name)                                                                                 \
    *(void **)&cu.name = dlsym(lib, #name);                                                        \
    CHECK(cu.name);
    CALLS(LOAD)
#undef LOAD
}

enum { N = 1000 };

static void check_result(CUdeviceptr dev, unsigned added, float f)
{
    float got[N];
    CU(cuMemcpyDtoH_v2(got, dev, sizeof(got)));
    for (unsigned i = 0; i < N; i++)
        CHECK(got[i] == (float)(i * 3 + added) * f);
    CU(cuMemsetD8_v2(dev, 0, sizeof(got)));
    printf("added %u, times %g: %g\n", added, f, got[N - 1]);
}

static void launches(void)
{
    CUmodule module;
    CUfunction fn, missing;
    CUdeviceptr dev, global;
    size_t len = 0;
    unsigned n = N, added = 100;
    float f = 0.5f;
    CU(cuModuleLoadData(&module, ptx));
    CU(cuModuleGetFunction(&fn, module, "combine"));
    show("no such function", cu.cuModuleGetFunction(&missing, module, "nothing"));
    CU(cuMemAlloc_v2(&dev, N * sizeof(float)));
    void *params[] = {&dev, &n, &f};
    CU(cuLaunchKernel(fn, (N + 63) / 64, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    check_result(dev, 5, f);

    CU(cuModuleGetGlobal_v2(&global, &len, module, "added"));
    CHECK(len == 4);
    CU(cuMemcpyHtoD_v2(global, &added, sizeof(added)));
    struct {
        CUdeviceptr out;
        unsigned n;
        float f;
    } packed = {dev, N, 2.0f};
    size_t packed_len = sizeof(packed);
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE,
                     &packed_len, CU_LAUNCH_PARAM_END};
    CU(cuLaunchKernel(fn, (N + 255) / 256, 1, 1, 256, 1, 1, 0, NULL, NULL, extra));
    check_result(dev, 100, 2.0f);

    int threads = 0, version = 0;
    CU(cuFuncGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, fn));
    CU(cuFuncGetAttribute(&version, CU_FUNC_ATTRIBUTE_PTX_VERSION, fn));
    CHECK(threads == 1024 && version >= 70);
    show("no such global", cu.cuModuleGetGlobal_v2(&global, &len, module, "nothing"));
    show("too many threads", cu.cuLaunchKernel(fn, 1, 1, 1, 4096, 1, 1, 0, NULL, params, NULL));
    CU(cuModuleUnload(module));

    CUlibrary library;
    CUkernel kernel;
    CU(cuLibraryLoadData(&library, ptx, NULL, NULL, 0, NULL, NULL, 0));
    CU(cuLibraryGetKernel(&kernel, library, "combine"));
    CU(cuKernelGetFunction(&fn, kernel));
    CU(cuLaunchKernel(fn, (N + 127) / 128, 1, 1, 128, 1, 1, 0, NULL, params, NULL));
    check_result(dev, 5, 0.5f);
    CU(cuLaunchKernel((CUfunction)kernel, 4, 1, 1, 256, 1, 1, 0, NULL, params, NULL));
    check_result(dev, 5, 0.5f);
    CU(cuLibraryUnload(library));
    CU(cuMemFree_v2(dev));
    CHECK(cu.cuModuleLoadData(&module, "this is no image") != CUDA_SUCCESS);
}

static void memory(void)
{
    unsigned char *host = NULL;
    unsigned short half[8];
    unsigned word[8];
    CUdeviceptr a, b;
    CUstream stream;
    size_t free_len = 0, total = 0;
    CU(cuMemAlloc_v2(&a, 4096));
    CU(cuMemAlloc_v2(&b, 4096));
    CHECK(a % 256 == 0 && b % 256 == 0 && a != b);
    CU(cuMemGetInfo_v2(&free_len, &total));
    CHECK(free_len > 0 && free_len <= total);
    CU(cuMemsetD16_v2(a, 0xabcd, 2048));
    CU(cuMemcpyDtoH_v2(half, a + 4080, sizeof(half)));
    CU(cuMemsetD32_v2(a + 64, 0x12345678, 16));
    CU(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    CU(cuCtxSynchronize());
    CU(cuMemsetD32Async(a + 96, 0xcafe, 2, stream));
    CU(cuStreamSynchronize(stream));
    CU(cuMemcpyDtoD_v2(b, a, 4096));
    CU(cuMemcpyDtoH_v2(word, b + 80, sizeof(word)));
    printf("%04x %08x %08x %08x %08x\n", half[7], word[3], word[4], word[5], word[6]);

    CU(cuMemHostAlloc((void **)&host, 8192, 0));
    for (int i = 0; i < 4096; i++)
        host[i] = (unsigned char)(i * 7);
    CU(cuMemcpyHtoDAsync_v2(a, host, 4096, stream));
    CU(cuMemcpyDtoHAsync_v2(host + 4096, a, 4096, stream));
    CU(cuStreamSynchronize(stream));
    CHECK(memcmp(host, host + 4096, 4096) == 0);
    unsigned type = 0;
    CU(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, a + 100));
    CHECK(type == CU_MEMORYTYPE_DEVICE);
    CU(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)host));
    CHECK(type == CU_MEMORYTYPE_HOST);
    show("a pointer of nobody",
         cu.cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)&type));
    CU(cuMemFreeHost(host));
    CU(cuMemFree_v2(a));
    CU(cuMemFree_v2(b));
    show("freed twice", cu.cuMemFree_v2(b));
    CU(cuStreamDestroy_v2(stream));
}

static void events(void)
{
    CUevent first, second;
    CUstream stream, other;
    float ms = -1;
    CU(cuStreamCreate(&stream, 0));
    CU(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    CU(cuEventCreate(&first, 0));
    CU(cuEventCreate(&second, CU_EVENT_BLOCKING_SYNC));
    CU(cuEventRecord(first, stream));
    CU(cuStreamWaitEvent(other, first, 0));
    CU(cuEventRecord(second, other));
    CU(cuEventSynchronize(second));
    CU(cuEventQuery(first));
    CU(cuStreamQuery(stream));
    CU(cuEventElapsedTime_v2(&ms, first, second));
    CHECK(ms >= 0);
    CU(cuEventDestroy_v2(first));
    CU(cuEventDestroy_v2(second));
    CU(cuStreamDestroy_v2(stream));
    CU(cuStreamDestroy_v2(other));
    printf("events and streams: ok\n");
}

int main(void)
{
    int n = 0, version = 0, major = 0;
    char name[256] = "";
    const char *text = NULL;
    size_t total = 0;
    CUdevice dev = -1, now = -1;
    CUcontext ctx = NULL, got = NULL;
    load();
    show("before cuInit", cu.cuDeviceGetCount(&n));
    CU(cuInit(0));
    show("cuInit with flags", cu.cuInit(7));
    CU(cuDriverGetVersion(&version));
    CU(cuDeviceGetCount(&n));
    CHECK(version >= 13000 && n >= 1);
    CU(cuDeviceGet(&dev, 0));
    show("device 99", cu.cuDeviceGet(&dev, 99));
    CU(cuDeviceGetName(name, sizeof(name), dev));
    CU(cuDeviceTotalMem_v2(&total, dev));
    CU(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, dev));
    CHECK(name[0] && total > 0 && major >= 7);
    show("without a context", cu.cuCtxSynchronize());
    CU(cuDevicePrimaryCtxRetain(&ctx, dev));
    CU(cuCtxSetCurrent(ctx));
    CU(cuCtxGetCurrent(&got));
    CU(cuCtxGetDevice(&now));
    CHECK(got == ctx && now == dev);
    CU(cuCtxPopCurrent_v2(&got));
    CHECK(got == ctx);
    CU(cuCtxGetCurrent(&got));
    CHECK(got == NULL);
    CU(cuCtxPushCurrent_v2(ctx));
    launches();
    memory();
    events();
    CU(cuGetErrorString(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
    printf("700: %s\n", text);
    CHECK(cu.cuGetErrorName((CUresult)12345, &text) == CUDA_ERROR_INVALID_VALUE);
    CU(cuDevicePrimaryCtxRelease_v2(dev));
    return 0;
}
