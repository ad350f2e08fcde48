/* Rectangles: one copy per row, or a single one where the rows lie end to end.  Arrays are not
 * forwarded. */
#define TFR_LOG_PART "intercept"
#include "intercept/memory.h"
#include "intercept/stream.h"

/* One side of a rectangle. */
struct side {
    uint64_t at, pitch;
    bool device; /* said to be; UNIFIED says nothing */
    bool unified;
};

static CUresult side_of(CUmemorytype type, const void *host, CUdeviceptr device, uint64_t x,
                        uint64_t y, uint64_t pitch, struct side *side_out)
{
    if (type != CU_MEMORYTYPE_HOST && type != CU_MEMORYTYPE_DEVICE && type != CU_MEMORYTYPE_UNIFIED)
        return type == CU_MEMORYTYPE_ARRAY ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_VALUE;
    uint64_t base = type == CU_MEMORYTYPE_HOST ? (uint64_t)host : device;
    *side_out = (struct side){.at = base + y * pitch + x,
                              .pitch = pitch,
                              .device = type == CU_MEMORYTYPE_DEVICE,
                              .unified = type == CU_MEMORYTYPE_UNIFIED};
    return CUDA_SUCCESS;
}

static enum tfr_direction direction_of(const struct side *dst, const struct side *src)
{
    if (dst->unified || src->unified || (!dst->device && !src->device))
        return TFR_BY_ADDRESS;
    if (dst->device && src->device)
        return TFR_ON_DEVICE;
    return dst->device ? TFR_TO_DEVICE : TFR_FROM_DEVICE;
}

static CUresult rectangle(const CUDA_MEMCPY2D *c, CUstream handle, bool sync)
{
    struct side dst, src;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!c)
        return CUDA_ERROR_INVALID_VALUE;
    struct tfr_stream *stream = tfr_stream_of(handle);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    uint64_t width = c->WidthInBytes, height = c->Height;
    uint64_t dst_pitch = c->dstPitch ? c->dstPitch : width;
    uint64_t src_pitch = c->srcPitch ? c->srcPitch : width;
    result = side_of(c->dstMemoryType, c->dstHost, c->dstDevice, c->dstXInBytes, c->dstY, dst_pitch,
                     &dst);
    if (result == CUDA_SUCCESS)
        result = side_of(c->srcMemoryType, c->srcHost, c->srcDevice, c->srcXInBytes, c->srcY,
                         src_pitch, &src);
    if (result != CUDA_SUCCESS || !width || !height)
        return result;
    uint64_t all;
    if (__builtin_mul_overflow(width, height, &all) ||
        (height > 1 && (dst_pitch < width || src_pitch < width)))
        return CUDA_ERROR_INVALID_VALUE;
    enum tfr_direction way = direction_of(&dst, &src);
    if (dst_pitch == width && src_pitch == width)
        return tfr_copy_bytes(way, dst.at, src.at, all, stream, sync);
    for (uint64_t row = 0; row < height && result == CUDA_SUCCESS; row++)
        result = tfr_copy_bytes(way, dst.at + row * dst_pitch, src.at + row * src_pitch, width,
                                stream, sync);
    return result;
}

CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *copy)
{
    return rectangle(copy, CU_STREAM_LEGACY, true);
}

CUresult cuMemcpy2D_v2_ptds(const CUDA_MEMCPY2D *copy)
{
    return rectangle(copy, CU_STREAM_PER_THREAD, true);
}

CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *copy)
{
    return rectangle(copy, CU_STREAM_LEGACY, true);
}

CUresult cuMemcpy2DUnaligned_v2_ptds(const CUDA_MEMCPY2D *copy)
{
    return rectangle(copy, CU_STREAM_PER_THREAD, true);
}

CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream)
{
    return rectangle(copy, stream, false);
}
