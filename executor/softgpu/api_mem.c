/* Entry points that allocate and free device memory, and those that ask about it. */
#include "executor/softgpu/soft.h"

CUresult cuMemAlloc_v2(CUdeviceptr *out, size_t len)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    result = soft_heap_alloc(ctx->heap, len, 0, 0, 0, out);
    if (result == CUDA_ERROR_OUT_OF_MEMORY &&
        atomic_load_explicit(&ctx->frees_pending, memory_order_acquire)) {
        result = soft_ctx_wait(ctx); /* a cuMemFreeAsync is on its way */
        if (result == CUDA_SUCCESS)
            result = soft_heap_alloc(ctx->heap, len, 0, 0, 0, out);
    }
    return result;
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *out, size_t *pitch, size_t width, size_t height,
                            unsigned int element)
{
    if (!pitch || width == 0 || height == 0 || (element != 4 && element != 8 && element != 16))
        return soft_ready() ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_INVALID_VALUE;
    size_t row = (width + 511) & ~(size_t)511, len;
    if (row < width || __builtin_mul_overflow(row, height, &len))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = cuMemAlloc_v2(out, len);
    if (result == CUDA_SUCCESS)
        *pitch = row;
    return result;
}

CUresult cuMemAllocManaged(CUdeviceptr *out, size_t len, unsigned int flags)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!out || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
        return CUDA_ERROR_INVALID_VALUE;
    return soft_heap_alloc(ctx->heap, len, 0, SOFT_MEM_MANAGED, 0, out);
}

/* Frees behind everything that was submitted before: the memory may be in use. */
CUresult cuMemFree_v2(CUdeviceptr at)
{
    struct soft_ctx *ctx;
    struct soft_range range;
    CUresult result = soft_enter(&ctx);
    if (result || !at)
        return result;
    if (!soft_mem_find(at, &range) || range.base != at ||
        (range.flags & (SOFT_MEM_VMM | SOFT_MEM_FREEING)) || (range.flags & SOFT_MEM_MODULE))
        return CUDA_ERROR_INVALID_VALUE;
    result = soft_ctx_wait(range.ctx ? range.ctx : ctx);
    if (result)
        return result;
    if (range.flags & SOFT_MEM_ASYNC) {
        result = soft_mem_mark(at, SOFT_MEM_FREEING);
        if (result == CUDA_SUCCESS)
            soft_pool_free(NULL, at);
        return result;
    }
    return soft_heap_free(at);
}

CUresult cuMemGetInfo_v2(size_t *free_len, size_t *total)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (free_len)
        *free_len = ctx->dev->memory - soft_mem_used(ctx->dev);
    if (total)
        *total = ctx->dev->memory;
    return CUDA_SUCCESS;
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *len, CUdeviceptr at)
{
    struct soft_ctx *ctx;
    struct soft_range range;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!soft_any_find(at, &range))
        return CUDA_ERROR_NOT_FOUND;
    if (base)
        *base = range.base;
    if (len)
        *len = range.len;
    return CUDA_SUCCESS;
}

/* ---- managed memory: it is where it is ---- */

static CUresult managed(CUdeviceptr at, size_t len)
{
    struct soft_ctx *ctx;
    struct soft_range range;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!len || !soft_mem_find(at, &range) || !(range.flags & SOFT_MEM_MANAGED) ||
        len > range.base + range.len - at)
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

CUresult cuMemAdvise(CUdeviceptr at, size_t len, CUmem_advise advice, CUdevice dev)
{
    (void)dev;
    if (advice < CU_MEM_ADVISE_SET_READ_MOSTLY || advice > CU_MEM_ADVISE_UNSET_ACCESSED_BY)
        return CUDA_ERROR_INVALID_VALUE;
    return managed(at, len);
}

CUresult cuMemAdvise_v2(CUdeviceptr at, size_t len, CUmem_advise advice, CUmemLocation location)
{
    return cuMemAdvise(at, len, advice, location.id);
}

CUresult cuMemPrefetchAsync(CUdeviceptr at, size_t len, CUdevice dev, CUstream handle)
{
    struct soft_stream *stream;
    CUresult result = managed(at, len);
    if (result == CUDA_SUCCESS && (dev < CU_DEVICE_CPU || dev >= soft_dev_n))
        result = CUDA_ERROR_INVALID_DEVICE;
    return result ? result : soft_stream_find(handle, &stream);
}

CUresult cuMemPrefetchAsync_v2(CUdeviceptr at, size_t len, CUmemLocation location,
                               unsigned int flags, CUstream stream)
{
    CUdevice dev = location.type == CU_MEM_LOCATION_TYPE_DEVICE ? location.id : CU_DEVICE_CPU;
    return flags ? CUDA_ERROR_INVALID_VALUE : cuMemPrefetchAsync(at, len, dev, stream);
}
