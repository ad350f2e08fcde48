/* Copies in one dimension.  What a call promises about the host's memory follows the kind of
 * memory: pinned memory is read or written when the stream arrives; pageable memory has been read
 * or written when the call returns, as with NVIDIA's driver. */
#include "executor/softgpu/soft.h"

#include <stdlib.h>

enum { STAGE_MAX = 64 << 10 }; /* pageable sources up to here are copied at the call */

enum side { SIDE_DEVICE, SIDE_PINNED, SIDE_PAGEABLE };

static enum side side_of(uint64_t at, uint64_t len)
{
    if (soft_is_device(at))
        return SIDE_DEVICE;
    return soft_host_pinned(at, len) ? SIDE_PINNED : SIDE_PAGEABLE;
}

/* `sync`: the caller wants the copy done, unless it stays inside the device. */
static CUresult copy(struct soft_stream *stream, uint64_t dst, uint64_t src, uint64_t len,
                     bool sync, bool peer)
{
    if (len == 0)
        return CUDA_SUCCESS;
    CUresult result = soft_mem_check(dst, len, SOFT_PAGE_WRITE);
    if (result == CUDA_SUCCESS)
        result = soft_mem_check(src, len, SOFT_PAGE_READ);
    if (result || !dst || !src)
        return result ? result : CUDA_ERROR_INVALID_VALUE;
    enum side to = side_of(dst, len), from = side_of(src, len);
    struct soft_op op = {.kind = SOFT_OP_COPY, .copy = {dst, src, len, peer}};
    bool stage = !sync && from == SIDE_PAGEABLE && len <= STAGE_MAX;
    bool wait = sync ? to != SIDE_DEVICE || from != SIDE_DEVICE
                     : to == SIDE_PAGEABLE || (from == SIDE_PAGEABLE && !stage);
    if (!sync && to != SIDE_DEVICE && from != SIDE_DEVICE)
        wait = true;
    struct soft_ctx *ctx = stream->ctx;
    uint64_t seq;
    if (wait)
        soft_stream_ref(stream);
    result = soft_submit(stream, &op, stage ? (const void *)src : NULL, stage ? (uint32_t)len : 0,
                         sync || len <= soft_inline_copy, &seq);
    if (wait) {
        if (result == CUDA_SUCCESS)
            soft_stream_wait(stream, seq);
        soft_stream_unref(stream);
        if (result == CUDA_SUCCESS)
            result = soft_ctx_usable(ctx);
    }
    return result;
}

static CUresult copy_in(CUstream handle, uint64_t dst, uint64_t src, uint64_t len, bool sync)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    return result ? result : copy(stream, dst, src, len, sync, false);
}

/* An address that must be the device's: allocated, mapped, or registered host memory. */
static CUresult device_side(uint64_t at, size_t len)
{
    if (len == 0 || soft_is_device(at) || soft_host_pinned(at, len))
        return CUDA_SUCCESS;
    return CUDA_ERROR_INVALID_VALUE;
}

static CUresult htod(CUstream stream, CUdeviceptr dst, const void *src, size_t len, bool sync)
{
    CUresult result = device_side(dst, len);
    struct soft_ctx *ctx;
    CUresult usable = soft_enter(&ctx);
    if (usable)
        return usable;
    return result ? result : copy_in(stream, dst, (uint64_t)src, len, sync);
}

static CUresult dtoh(CUstream stream, void *dst, CUdeviceptr src, size_t len, bool sync)
{
    CUresult result = device_side(src, len);
    struct soft_ctx *ctx;
    CUresult usable = soft_enter(&ctx);
    if (usable)
        return usable;
    return result ? result : copy_in(stream, (uint64_t)dst, src, len, sync);
}

static CUresult dtod(CUstream handle, CUdeviceptr dst, CUdeviceptr src, size_t len, bool sync,
                     bool peer)
{
    struct soft_stream *stream;
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result == CUDA_SUCCESS)
        result = device_side(dst, len);
    if (result == CUDA_SUCCESS)
        result = device_side(src, len);
    if (result == CUDA_SUCCESS)
        result = soft_stream_find(handle, &stream);
    return result ? result : copy(stream, dst, src, len, sync, peer);
}

/* Both contexts must exist; memory is memory.  The synchronous form comes after all that both were
 * given, and before all that they will be. */
static CUresult dtod_peer(CUstream stream, CUdeviceptr dst, CUcontext to, CUdeviceptr src,
                          CUcontext from, size_t len, bool sync)
{
    struct soft_ctx *ctx[2] = {soft_handle_get((uint64_t)to, SOFT_CTX),
                               soft_handle_get((uint64_t)from, SOFT_CTX)};
    CUresult result = CUDA_SUCCESS;
    if (!ctx[0] || !ctx[1])
        return soft_ready() ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_INVALID_CONTEXT;
    for (int i = 0; sync && i < 2 && result == CUDA_SUCCESS; i++)
        result = soft_ctx_wait(ctx[i]);
    if (result == CUDA_SUCCESS)
        result = dtod(stream, dst, src, len, sync, true);
    struct soft_ctx *current;
    if (result == CUDA_SUCCESS && sync && ctx[0] != ctx[1])
        result = soft_enter(&current) ? CUDA_SUCCESS : soft_ctx_wait(current);
    return result;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr dst, const void *src, size_t len)
{
    return htod(NULL, dst, src, len, true);
}

CUresult cuMemcpyHtoD_v2_ptds(CUdeviceptr dst, const void *src, size_t len)
{
    return htod(CU_STREAM_PER_THREAD, dst, src, len, true);
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dst, const void *src, size_t len, CUstream stream)
{
    return htod(stream, dst, src, len, false);
}

CUresult cuMemcpyDtoH_v2(void *dst, CUdeviceptr src, size_t len)
{
    return dtoh(NULL, dst, src, len, true);
}

CUresult cuMemcpyDtoH_v2_ptds(void *dst, CUdeviceptr src, size_t len)
{
    return dtoh(CU_STREAM_PER_THREAD, dst, src, len, true);
}

CUresult cuMemcpyDtoHAsync_v2(void *dst, CUdeviceptr src, size_t len, CUstream stream)
{
    return dtoh(stream, dst, src, len, false);
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr dst, CUdeviceptr src, size_t len)
{
    return dtod(NULL, dst, src, len, true, false);
}

CUresult cuMemcpyDtoD_v2_ptds(CUdeviceptr dst, CUdeviceptr src, size_t len)
{
    return dtod(CU_STREAM_PER_THREAD, dst, src, len, true, false);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dst, CUdeviceptr src, size_t len, CUstream stream)
{
    return dtod(stream, dst, src, len, false, false);
}

CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t len)
{
    return copy_in(NULL, dst, src, len, true);
}

CUresult cuMemcpy_ptds(CUdeviceptr dst, CUdeviceptr src, size_t len)
{
    return copy_in(CU_STREAM_PER_THREAD, dst, src, len, true);
}

CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t len, CUstream stream)
{
    return copy_in(stream, dst, src, len, false);
}

CUresult cuMemcpyPeer(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from, size_t len)
{
    return dtod_peer(NULL, dst, to, src, from, len, true);
}

CUresult cuMemcpyPeer_ptds(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from,
                           size_t len)
{
    return dtod_peer(CU_STREAM_PER_THREAD, dst, to, src, from, len, true);
}

CUresult cuMemcpyPeerAsync(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from,
                           size_t len, CUstream stream)
{
    return dtod_peer(stream, dst, to, src, from, len, false);
}
