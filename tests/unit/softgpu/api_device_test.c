/* Devices and contexts: what they say of themselves, and that there may be several. */
#include "tests/unit/softgpu/api_kit.h"

#include <pthread.h>
#include <stdatomic.h>

Test(soft_device, describes_itself_consistently)
{
    char name[64];
    int major, minor, bus, value, n = 0;
    CUuuid uuid;
    size_t total;
    CUdevice dev;
    char pci[32];
    ok(cuInit(0));
    ok(cuDeviceGetName(name, sizeof(name), 0));
    cr_expect_str_eq(name, "TFR software GPU");
    ok(cuDeviceGetUuid_v2(&uuid, 0));
    ok(cuDeviceTotalMem(&total, 0));
    cr_expect_eq(total, (size_t)4 << 30);
    ok(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0));
    ok(cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0));
    cr_expect_eq(major * 10 + minor, 90);
    ok(cuDeviceGetPCIBusId(pci, sizeof(pci), 0));
    ok(cuDeviceGetByPCIBusId(&dev, pci));
    cr_expect_eq(dev, 0);
    ok(cuDeviceGetAttribute(&bus, CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, 0));
    cr_expect_eq(strtol(pci + 5, NULL, 16), bus);
    for (int i = 1; i < CU_DEVICE_ATTRIBUTE_MAX; i++)
        n += cuDeviceGetAttribute(&value, (CUdevice_attribute)i, 0) == CUDA_SUCCESS;
    cr_expect_eq(n, CU_DEVICE_ATTRIBUTE_MAX - 1);
    answers(cuDeviceGetAttribute(&value, (CUdevice_attribute)0, 0), CUDA_ERROR_INVALID_VALUE);
    answers(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MAX, 0), CUDA_ERROR_INVALID_VALUE);
}

Test(soft_device, follows_its_settings)
{
    int n, major;
    size_t total;
    setenv("TFR_SOFT_DEVICES", "2", 1);
    setenv("TFR_SOFT_CC", "7.5", 1);
    setenv("TFR_SOFT_MEMORY", "64m", 1);
    ok(cuInit(0));
    ok(cuDeviceGetCount(&n));
    cr_expect_eq(n, 2);
    ok(cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 1));
    cr_expect_eq(major, 7);
    ok(cuDeviceTotalMem(&total, 1));
    cr_expect_eq(total, 64 << 20);
}

Test(soft_device, has_memory_and_contexts_of_its_own)
{
    CUcontext ctx[2];
    CUdeviceptr at[2];
    size_t free_len, total;
    int can, dev;
    setenv("TFR_SOFT_DEVICES", "2", 1);
    setenv("TFR_SOFT_MEMORY", "64m", 1);
    ok(cuInit(0));
    for (int i = 0; i < 2; i++) {
        ok(cuDevicePrimaryCtxRetain(&ctx[i], i));
        ok(cuCtxSetCurrent(ctx[i]));
        ok(cuMemAlloc(&at[i], 60 << 20));
        ok(cuMemGetInfo(&free_len, &total));
        cr_expect_eq(free_len, 4 << 20);
        ok(cuMemsetD32(at[i], 5u + (unsigned int)i, 1));
    }
    ok(cuPointerGetAttribute(&dev, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, at[1]));
    cr_expect_eq(dev, 1);
    ok(cuDeviceCanAccessPeer(&can, 0, 1));
    cr_expect_eq(can, 1);
    ok(cuCtxEnablePeerAccess(ctx[0], 0));
    answers(cuCtxEnablePeerAccess(ctx[0], 0), CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
    ok(cuMemcpyPeer(at[1], ctx[1], at[0], ctx[0], 4));
    ok(cuCtxSynchronize());
    cr_expect_eq(kit_read(at[1]), 5);
}

Test(soft_context, is_a_stack_per_thread)
{
    CUcontext a, b, now;
    ok(cuInit(0));
    ok(cuCtxCreate(&a, NULL, 0, 0));
    ok(cuCtxCreate(&b, NULL, CU_CTX_SCHED_SPIN, 0));
    ok(cuCtxGetCurrent(&now));
    cr_expect_eq(now, b);
    ok(cuCtxPopCurrent(&now));
    cr_expect_eq(now, b);
    ok(cuCtxGetCurrent(&now));
    cr_expect_eq(now, a);
    ok(cuCtxPushCurrent(b));
    ok(cuCtxDestroy(b));
    ok(cuCtxGetCurrent(&now));
    cr_expect_eq(now, a);
    answers(cuCtxPushCurrent(b), CUDA_ERROR_INVALID_CONTEXT);
    ok(cuCtxSetCurrent(NULL));
    answers(cuCtxPopCurrent(&now), CUDA_ERROR_INVALID_CONTEXT);
}

Test(soft_context, keeps_the_primary_handle)
{
    CUcontext a, b;
    unsigned int flags;
    int active;
    ok(cuInit(0));
    ok(cuDevicePrimaryCtxGetState(0, &flags, &active));
    cr_expect_eq(active, 0);
    answers(cuDevicePrimaryCtxRelease(0), CUDA_ERROR_INVALID_CONTEXT);
    ok(cuDevicePrimaryCtxSetFlags(0, CU_CTX_SCHED_YIELD));
    ok(cuDevicePrimaryCtxRetain(&a, 0));
    ok(cuDevicePrimaryCtxRetain(&b, 0));
    cr_expect_eq(a, b);
    ok(cuDevicePrimaryCtxRelease(0));
    ok(cuDevicePrimaryCtxGetState(0, &flags, &active));
    cr_expect_eq(active, 1);
    cr_expect_eq(flags, CU_CTX_SCHED_YIELD);
    ok(cuDevicePrimaryCtxRelease(0));
    ok(cuDevicePrimaryCtxGetState(0, &flags, &active));
    cr_expect_eq(active, 0);
    ok(cuDevicePrimaryCtxRetain(&b, 0));
    cr_expect_eq(a, b);
}

static void *synchronize(void *arg)
{
    struct kit *k = arg;
    cuCtxSetCurrent(k->ctx);
    return (void *)(uintptr_t)cuCtxSynchronize();
}

Test(soft_context, stops_a_kernel_that_never_ends)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUstream s;
    pthread_t thread;
    void *result;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    pthread_create(&thread, NULL, synchronize, &k);
    usleep(5000);
    ok(cuCtxDestroy(k.ctx));
    pthread_join(thread, &result);
    cr_expect_neq((uintptr_t)result, CUDA_SUCCESS);
}

static void nap(void *arg)
{
    usleep(100000);
    atomic_fetch_add((_Atomic int *)arg, 1);
}

Test(soft_context, finishes_its_work_before_it_goes)
{
    struct kit k = kit_open();
    _Atomic int naps = 0;
    CUcontext other;
    CUdeviceptr at;
    CUevent e;
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING)); /* all of these are alive when it goes */
    ok(cuEventCreate(&e, 0));
    ok(cuMemAlloc(&at, 1 << 20));
    for (int i = 0; i < 3; i++)
        ok(cuLaunchHostFunc(s, nap, &naps));
    ok(cuEventRecord(e, s));
    ok(cuCtxCreate(&other, NULL, 0, 0));
    ok(cuCtxDestroy(k.ctx)); /* not the current one */
    cr_expect_eq(atomic_load(&naps), 3);
    answers(cuStreamQuery(s), CUDA_ERROR_INVALID_HANDLE);
    answers(cuEventQuery(e), CUDA_ERROR_INVALID_HANDLE);
    answers(cuMemFree(at), CUDA_ERROR_INVALID_VALUE);
    ok(cuCtxSynchronize());
    ok(cuCtxDestroy(other)); /* below it on the stack is the one that went first */
    answers(cuCtxSynchronize(), CUDA_ERROR_CONTEXT_IS_DESTROYED);
}

Test(soft_context, has_limits)
{
    size_t value;
    int least, greatest;
    kit_open();
    ok(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 4096));
    ok(cuCtxGetLimit(&value, CU_LIMIT_STACK_SIZE));
    cr_expect_eq(value, 4096);
    answers(cuCtxGetLimit(&value, (CUlimit)77), CUDA_ERROR_UNSUPPORTED_LIMIT);
    ok(cuCtxGetStreamPriorityRange(&least, &greatest));
    cr_expect_lt(greatest, least);
}
