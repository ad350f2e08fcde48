/* Memsets, in one and two dimensions.  They do not wait, unless they write memory of the host. */
#include "executor/softgpu/soft.h"

static CUresult fill(CUstream handle, CUdeviceptr at, uint64_t pitch, uint32_t value, uint32_t size,
                     uint64_t width, uint64_t height, bool sync)
{
    struct soft_stream *stream;
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result == CUDA_SUCCESS)
        result = soft_stream_find(handle, &stream);
    if (result || width == 0 || height == 0)
        return result;
    uint64_t row, len;
    if (__builtin_mul_overflow(width, size, &row) || (height > 1 && pitch < row) ||
        (at & (size - 1)) || (pitch & (size - 1)) ||
        __builtin_mul_overflow(pitch, height - 1, &len) || len + row < len)
        return CUDA_ERROR_INVALID_VALUE;
    len += row;
    if (!soft_is_device(at) && !soft_host_pinned(at, len))
        return CUDA_ERROR_INVALID_VALUE;
    result = soft_mem_check(at, len, SOFT_PAGE_WRITE);
    if (result)
        return result;
    struct soft_op op = {.kind = SOFT_OP_FILL, .fill = {at, pitch, width, height, value, size}};
    uint64_t seq;
    ctx = stream->ctx;
    soft_stream_ref(stream);
    result = soft_submit(stream, &op, NULL, 0, row * height <= soft_inline_copy, &seq);
    if (result == CUDA_SUCCESS && sync && !soft_is_device(at)) {
        soft_stream_wait(stream, seq);
        result = soft_ctx_usable(ctx);
    }
    soft_stream_unref(stream);
    return result;
}

/* One width has six entry points: 1D and 2D, on the legacy stream, the thread's own, a given one.
 */
#define MEMSET(bits, type)                                                                         \
    CUresult cuMemsetD##bits##_v2(CUdeviceptr at, type value, size_t n)                            \
    {                                                                                              \
        return fill(NULL, at, 0, value, (bits) / 8, n, 1, true);                                   \
    }                                                                                              \
    CUresult cuMemsetD##bits##_v2_ptds(CUdeviceptr at, type value, size_t n)                       \
    {                                                                                              \
        return fill(CU_STREAM_PER_THREAD, at, 0, value, (bits) / 8, n, 1, true);                   \
    }                                                                                              \
    CUresult cuMemsetD##bits##Async(CUdeviceptr at, type value, size_t n, CUstream stream)         \
    {                                                                                              \
        return fill(stream, at, 0, value, (bits) / 8, n, 1, false);                                \
    }                                                                                              \
    CUresult cuMemsetD2D##bits##_v2(CUdeviceptr at, size_t pitch, type value, size_t width,        \
                                    size_t height)                                                 \
    {                                                                                              \
        return fill(NULL, at, pitch, value, (bits) / 8, width, height, true);                      \
    }                                                                                              \
    CUresult cuMemsetD2D##bits##_v2_ptds(CUdeviceptr at, size_t pitch, type value, size_t width,   \
                                         size_t height)                                            \
    {                                                                                              \
        return fill(CU_STREAM_PER_THREAD, at, pitch, value, (bits) / 8, width, height, true);      \
    }                                                                                              \
    CUresult cuMemsetD2D##bits##Async(CUdeviceptr at, size_t pitch, type value, size_t width,      \
                                      size_t height, CUstream stream)                              \
    {                                                                                              \
        return fill(stream, at, pitch, value, (bits) / 8, width, height, false);                   \
    }

MEMSET(8, unsigned char)
MEMSET(16, unsigned short)
MEMSET(32, unsigned int)
