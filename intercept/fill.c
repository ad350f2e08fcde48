/* Fills: one record each, of a row or a rectangle, posted for every form of cuMemset. */
#define TFR_LOG_PART "intercept"
#include "intercept/memory.h"
#include "intercept/stream.h"

struct fill {
    uint64_t dst, pitch, width, height;
    uint32_t value, element;
};

static CUresult fill(const struct fill *f, CUstream handle)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *stream = tfr_stream_of(handle);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!f->width || !f->height)
        return CUDA_SUCCESS;
    uint64_t row, span;
    struct tfr_range to = tfr_range_find(f->dst);
    if (__builtin_mul_overflow(f->width, f->element, &row) ||
        __builtin_mul_overflow(f->pitch, f->height - 1, &span) ||
        __builtin_add_overflow(span, row, &span) || (f->height > 1 && f->pitch < row) ||
        f->dst % f->element || (f->height > 1 && f->pitch % f->element) ||
        !tfr_range_is_device(&to) || !tfr_range_holds(&to, f->dst, span))
        return CUDA_ERROR_INVALID_VALUE;
    struct tfr_memset_req *req = tfr_post_begin(TFR_OP_memset, sizeof *req);
    if (!req)
        return tfr_post_failed();
    req->stream = stream->id;
    req->dst = f->dst;
    req->pitch = f->pitch;
    req->width = f->width;
    req->height = f->height;
    req->value = f->value;
    req->element = f->element;
    req->flags = req->reserved = 0;
    return tfr_post_end_on(stream, NULL);
}

/* The fills of one element width: synchronous (legacy and per-thread stream) and in a stream, one
 * row and rectangle.  Natively too, none of them waits for the host's sake. */
/* clang-format off */
#define FILLS(bits, type)                                                                          \
    CUresult cuMemsetD##bits##_v2(CUdeviceptr dst, type value, size_t n)                           \
    {                                                                                              \
        return fill(&(struct fill){dst, 0, n, 1, value, bits / 8}, CU_STREAM_LEGACY);              \
    }                                                                                              \
    CUresult cuMemsetD##bits##_v2_ptds(CUdeviceptr dst, type value, size_t n)                      \
    {                                                                                              \
        return fill(&(struct fill){dst, 0, n, 1, value, bits / 8}, CU_STREAM_PER_THREAD);          \
    }                                                                                              \
    CUresult cuMemsetD##bits##Async(CUdeviceptr dst, type value, size_t n, CUstream stream)        \
    {                                                                                              \
        return fill(&(struct fill){dst, 0, n, 1, value, bits / 8}, stream);                        \
    }                                                                                              \
    CUresult cuMemsetD2D##bits##_v2(CUdeviceptr dst, size_t pitch, type value, size_t width,       \
                                    size_t height)                                                 \
    {                                                                                              \
        return fill(&(struct fill){dst, pitch, width, height, value, bits / 8}, CU_STREAM_LEGACY); \
    }                                                                                              \
    CUresult cuMemsetD2D##bits##_v2_ptds(CUdeviceptr dst, size_t pitch, type value, size_t width,  \
                                         size_t height)                                            \
    {                                                                                              \
        return fill(&(struct fill){dst, pitch, width, height, value, bits / 8},                    \
                    CU_STREAM_PER_THREAD);                                                         \
    }                                                                                              \
    CUresult cuMemsetD2D##bits##Async(CUdeviceptr dst, size_t pitch, type value, size_t width,     \
                                      size_t height, CUstream stream)                              \
    {                                                                                              \
        return fill(&(struct fill){dst, pitch, width, height, value, bits / 8}, stream);           \
    }
/* clang-format on */

FILLS(8, unsigned char)
FILLS(16, unsigned short)
FILLS(32, unsigned int)
