/* Copies in two and three dimensions between linear memories.  Arrays do not exist yet. */
#include "executor/softgpu/soft.h"

struct side {
    CUmemorytype type;
    uint64_t at;
    size_t x, y, z, pitch, height;
};

/* First byte, and how many bytes lie between it and the last; 0: nothing to reach. */
static CUresult place(const struct side *side, size_t width, size_t height, size_t depth,
                      bool write, struct soft_box *box_out, uint64_t *span_out)
{
    if (side->type == CU_MEMORYTYPE_ARRAY)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (side->type < CU_MEMORYTYPE_HOST || side->type > CU_MEMORYTYPE_UNIFIED)
        return CUDA_ERROR_INVALID_VALUE;
    size_t pitch = side->pitch ? side->pitch : side->x + width;
    size_t rows = side->height ? side->height : side->y + height;
    if (side->x + width > pitch || (depth > 1 && side->y + height > rows))
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t slice = (uint64_t)pitch * rows;
    *box_out =
        (struct soft_box){side->at + side->z * slice + side->y * pitch + side->x, pitch, slice};
    *span_out = (depth - 1) * slice + (height - 1) * pitch + width;
    if (!side->at)
        return CUDA_ERROR_INVALID_VALUE;
    if (side->type == CU_MEMORYTYPE_DEVICE && !soft_is_device(box_out->at) &&
        !soft_host_pinned(box_out->at, *span_out))
        return CUDA_ERROR_INVALID_VALUE;
    return soft_mem_check(box_out->at, *span_out, write ? SOFT_PAGE_WRITE : SOFT_PAGE_READ);
}

static bool is_pageable(uint64_t at, uint64_t len)
{
    return !soft_is_device(at) && !soft_host_pinned(at, len);
}

static CUresult copy(CUstream handle, const struct side *dst, const struct side *src, size_t width,
                     size_t height, size_t depth, bool sync, bool peer)
{
    struct soft_op op = {
        .kind = SOFT_OP_COPY3D,
        .copy3d = {.width = width, .height = height, .depth = depth, .peer = peer}};
    struct soft_stream *stream;
    struct soft_ctx *ctx;
    uint64_t dst_len, src_len, seq;
    CUresult result = soft_enter(&ctx);
    if (result == CUDA_SUCCESS)
        result = soft_stream_find(handle, &stream);
    if (result || !width || !height || !depth)
        return result;
    result = place(dst, width, height, depth, true, &op.copy3d.dst, &dst_len);
    if (result == CUDA_SUCCESS)
        result = place(src, width, height, depth, false, &op.copy3d.src, &src_len);
    if (result)
        return result;
    bool wait = is_pageable(op.copy3d.dst.at, dst_len) || is_pageable(op.copy3d.src.at, src_len);
    if (sync && (!soft_is_device(op.copy3d.dst.at) || !soft_is_device(op.copy3d.src.at)))
        wait = true;
    ctx = stream->ctx;
    soft_stream_ref(stream);
    result = soft_submit(stream, &op, NULL, 0,
                         wait || (uint64_t)width * height * depth <= soft_inline_copy, &seq);
    if (wait && result == CUDA_SUCCESS) {
        soft_stream_wait(stream, seq);
        result = soft_ctx_usable(ctx);
    }
    soft_stream_unref(stream);
    return result;
}

static uint64_t address(CUmemorytype type, const void *host, CUdeviceptr device)
{
    return type == CU_MEMORYTYPE_HOST ? (uint64_t)host : device;
}

static CUresult copy2d(CUstream stream, const CUDA_MEMCPY2D *c, bool sync)
{
    if (!c)
        return soft_ready() ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_INVALID_VALUE;
    struct side dst = {c->dstMemoryType,
                       address(c->dstMemoryType, c->dstHost, c->dstDevice),
                       c->dstXInBytes,
                       c->dstY,
                       0,
                       c->dstPitch,
                       0};
    struct side src = {c->srcMemoryType,
                       address(c->srcMemoryType, c->srcHost, c->srcDevice),
                       c->srcXInBytes,
                       c->srcY,
                       0,
                       c->srcPitch,
                       0};
    return copy(stream, &dst, &src, c->WidthInBytes, c->Height, 1, sync, false);
}

static CUresult copy3d(CUstream stream, const CUDA_MEMCPY3D *c, bool sync)
{
    if (!c)
        return soft_ready() ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_INVALID_VALUE;
    struct side dst = {c->dstMemoryType, address(c->dstMemoryType, c->dstHost, c->dstDevice),
                       c->dstXInBytes,   c->dstY,
                       c->dstZ,          c->dstPitch,
                       c->dstHeight};
    struct side src = {c->srcMemoryType, address(c->srcMemoryType, c->srcHost, c->srcDevice),
                       c->srcXInBytes,   c->srcY,
                       c->srcZ,          c->srcPitch,
                       c->srcHeight};
    if (c->dstLOD || c->srcLOD)
        return CUDA_ERROR_INVALID_VALUE;
    return copy(stream, &dst, &src, c->WidthInBytes, c->Height, c->Depth, sync, false);
}

/* Sides that are told by their address need no context. */
static bool is_context(CUmemorytype type, CUcontext handle)
{
    return type != CU_MEMORYTYPE_DEVICE || soft_handle_get((uint64_t)handle, SOFT_CTX);
}

static CUresult copy3d_peer(CUstream stream, const CUDA_MEMCPY3D_PEER *c, bool sync)
{
    if (!c)
        return soft_ready() ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_INVALID_VALUE;
    if (!is_context(c->dstMemoryType, c->dstContext) ||
        !is_context(c->srcMemoryType, c->srcContext))
        return soft_ready() ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_INVALID_CONTEXT;
    struct side dst = {c->dstMemoryType, address(c->dstMemoryType, c->dstHost, c->dstDevice),
                       c->dstXInBytes,   c->dstY,
                       c->dstZ,          c->dstPitch,
                       c->dstHeight};
    struct side src = {c->srcMemoryType, address(c->srcMemoryType, c->srcHost, c->srcDevice),
                       c->srcXInBytes,   c->srcY,
                       c->srcZ,          c->srcPitch,
                       c->srcHeight};
    return copy(stream, &dst, &src, c->WidthInBytes, c->Height, c->Depth, sync, true);
}

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *c)
{
    return copy2d(NULL, c, true);
}

CUresult cuMemcpy2D_v2_ptds(const CUDA_MEMCPY2D *c)
{
    return copy2d(CU_STREAM_PER_THREAD, c, true);
}

CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *c)
{
    return copy2d(NULL, c, true);
}

CUresult cuMemcpy2DUnaligned_v2_ptds(const CUDA_MEMCPY2D *c)
{
    return copy2d(CU_STREAM_PER_THREAD, c, true);
}

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *c, CUstream stream)
{
    return copy2d(stream, c, false);
}

CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *c)
{
    return copy3d(NULL, c, true);
}

CUresult cuMemcpy3D_v2_ptds(const CUDA_MEMCPY3D *c)
{
    return copy3d(CU_STREAM_PER_THREAD, c, true);
}

CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *c, CUstream stream)
{
    return copy3d(stream, c, false);
}

CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *c)
{
    return copy3d_peer(NULL, c, true);
}

CUresult cuMemcpy3DPeer_ptds(const CUDA_MEMCPY3D_PEER *c)
{
    return copy3d_peer(CU_STREAM_PER_THREAD, c, true);
}

CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *c, CUstream stream)
{
    return copy3d_peer(stream, c, false);
}
