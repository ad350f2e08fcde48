/* Two devices: peers, copies between them, and copies in rows. */
#include "tests/unit/softgpu/api_kit.h"

static void two_open(CUcontext ctx[2])
{
    setenv("TFR_SOFT_DEVICES", "2", 1);
    ok(cuInit(0));
    for (int i = 0; i < 2; i++)
        ok(cuDevicePrimaryCtxRetain(&ctx[i], i));
    ok(cuCtxSetCurrent(ctx[0]));
}

Test(soft_peer, is_enabled_once_and_disabled_once)
{
    CUcontext ctx[2], twin;
    int can, value;
    two_open(ctx);
    ok(cuDeviceCanAccessPeer(&can, 0, 1));
    cr_expect_eq(can, 1);
    ok(cuDeviceCanAccessPeer(&can, 0, 0));
    cr_expect_eq(can, 0);
    answers(cuDeviceCanAccessPeer(&can, 0, 2), CUDA_ERROR_INVALID_DEVICE);
    ok(cuDeviceGetP2PAttribute(&value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0, 1));
    cr_expect_eq(value, 1);
    answers(cuDeviceGetP2PAttribute(&value, CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, 0, 0),
            CUDA_ERROR_INVALID_VALUE);

    answers(cuCtxDisablePeerAccess(ctx[1]), CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
    ok(cuCtxEnablePeerAccess(ctx[1], 0));
    answers(cuCtxEnablePeerAccess(ctx[1], 0), CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED);
    answers(cuCtxEnablePeerAccess(ctx[1], 1), CUDA_ERROR_INVALID_VALUE);
    ok(cuCtxDisablePeerAccess(ctx[1]));
    answers(cuCtxDisablePeerAccess(ctx[1]), CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);

    answers(cuCtxEnablePeerAccess(ctx[0], 0), CUDA_ERROR_INVALID_DEVICE);
    ok(cuCtxCreate(&twin, NULL, 0, 0));
    answers(cuCtxEnablePeerAccess(ctx[0], 0), CUDA_ERROR_INVALID_DEVICE);
    answers(cuCtxEnablePeerAccess((CUcontext)5, 0), CUDA_ERROR_INVALID_CONTEXT);
}

Test(soft_peer, copies_between_devices)
{
    CUcontext ctx[2];
    CUdeviceptr at[2];
    CUstream s;
    two_open(ctx);
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    at[0] = kit_zeros(64);
    ok(cuCtxSetCurrent(ctx[1]));
    at[1] = kit_zeros(64);
    ok(cuCtxSetCurrent(ctx[0]));
    ok(cuMemsetD32(at[0], 9, 16));
    ok(cuCtxSynchronize());
    ok(cuMemcpyPeerAsync(at[1], ctx[1], at[0], ctx[0], 4, s));
    ok(cuMemcpyAsync(at[1] + 4, at[0], 4, s)); /* by address, without being told */
    ok(cuStreamSynchronize(s));
    cr_expect_eq(kit_read(at[1] + 4), 9);
    answers(cuMemcpyPeer(at[1], (CUcontext)5, at[0], ctx[0], 4), CUDA_ERROR_INVALID_CONTEXT);

    CUDA_MEMCPY3D_PEER box = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                              .srcDevice = at[0],
                              .srcContext = ctx[0],
                              .srcPitch = 16,
                              .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                              .dstDevice = at[1],
                              .dstContext = ctx[1],
                              .dstPitch = 32,
                              .WidthInBytes = 8,
                              .Height = 2,
                              .Depth = 1};
    ok(cuMemcpy3DPeer(&box));
    ok(cuCtxSynchronize());
    cr_expect_eq(kit_read(at[1] + 32), 9);
    cr_expect_eq(kit_read(at[1] + 16), 0);
    ok(cuMemcpy3DPeerAsync(&box, s));
    ok(cuStreamSynchronize(s));
    box.dstContext = (CUcontext)5;
    answers(cuMemcpy3DPeer(&box), CUDA_ERROR_INVALID_CONTEXT);
}

Test(soft_peer, fills_and_copies_memory_of_the_host_by_address)
{
    static uint32_t registered[1024];
    struct kit k = kit_open();
    uint32_t *pinned;
    CUdeviceptr dev = kit_zeros(4096);
    ok(cuMemHostAlloc((void **)&pinned, 4096, 0));
    ok(cuMemHostRegister(registered, sizeof(registered), 0));
    ok(cuMemsetD32((CUdeviceptr)pinned, 3, 1024)); /* has happened when it returns */
    cr_expect_eq(pinned[1023], 3);
    ok(cuMemcpyDtoD((CUdeviceptr)registered, (CUdeviceptr)pinned, 4096));
    ok(cuCtxSynchronize());
    cr_expect_eq(registered[1023], 3);
    ok(cuMemcpyDtoD(dev, (CUdeviceptr)registered, 4096));
    ok(cuCtxSynchronize());
    cr_expect_eq(kit_read(dev + 4092), 3);
    ok(cuMemsetD2D32((CUdeviceptr)registered, 64, 8, 2, 3));
    cr_expect_eq(registered[16 + 1], 8);
    cr_expect_eq(registered[16 + 2], 3);
    ok(cuMemcpyHtoD((CUdeviceptr)pinned, registered, 64));
    cr_expect_eq(pinned[0], 8);
    ok(kit_launch(k.inc, NULL, (CUdeviceptr)pinned, 1, 1));
    ok(cuCtxSynchronize());
    cr_expect_eq(pinned[0], 9);
    uint32_t pageable[4] = {0};
    answers(cuMemsetD32((CUdeviceptr)pageable, 1, 4), CUDA_ERROR_INVALID_VALUE);
    answers(cuMemcpyDtoD(dev, (CUdeviceptr)pageable, 16), CUDA_ERROR_INVALID_VALUE);
}

Test(soft_peer, copies_a_batch_in_order)
{
    kit_open();
    CUdeviceptr at = kit_zeros(64);
    uint32_t in[4] = {1, 2, 3, 4}, out[4] = {0};
    CUdeviceptr dst[3] = {at, at + 16, (CUdeviceptr)out}, src[3] = {(CUdeviceptr)in, at, at + 16};
    size_t len[3] = {16, 16, 16}, first = 0;
    CUmemcpyAttributes how = {.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM};
    CUstream s;
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(cuMemcpyBatchAsync(dst, src, len, 3, &how, &first, 1, s));
    ok(cuStreamSynchronize(s));
    cr_expect_eq(out[3], 4);
}
