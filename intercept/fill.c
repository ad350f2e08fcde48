/* Fills: one record each, of a row or a rectangle, posted for every form of cuMemset. */
#define TFR_LOG_PART "intercept"
#include <string.h>

#include "intercept/copy_rect.h"
#include "intercept/gate.h"
#include "intercept/stream.h"

struct fill {
    uint64_t dst, pitch, width, height;
    uint32_t value, element;
};

/* The GPU does not see registered memory: filled once its turn has come. */
static CUresult fill_here(const struct fill *f, struct tfr_stream *stream)
{
    CUresult result = tfr_stream_wait(stream);
    if (result != CUDA_SUCCESS)
        return result;
    for (uint64_t y = 0; y < f->height; y++) {
        uint8_t *row = (uint8_t *)f->dst + y * f->pitch;
        for (uint64_t x = 0; x < f->width; x++)
            memcpy(row + x * f->element, &f->value, f->element);
    }
    return CUDA_SUCCESS;
}

/* Natively too, a fill waits only where the host can see it, and then in its synchronous form. */
static CUresult fill(const struct fill *f, CUstream handle, bool sync)
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
    struct tfr_side to;
    if (__builtin_mul_overflow(f->width, f->element, &row) ||
        __builtin_mul_overflow(f->pitch, f->height - 1, &span) ||
        __builtin_add_overflow(span, row, &span) || (f->height > 1 && f->pitch < row) ||
        f->dst % f->element || (f->height > 1 && f->pitch % f->element))
        return CUDA_ERROR_INVALID_VALUE;
    result = tfr_side_find(f->dst, span, true, &to);
    if (result != CUDA_SUCCESS)
        return result;
    if (to.place == TFR_PLACE_REGISTERED)
        return fill_here(f, stream);
    if (to.host)
        result = tfr_gate_settle(stream);
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_memset_req *req = tfr_post_begin(TFR_OP_memset, sizeof *req);
    if (!req)
        return tfr_post_failed();
    req->stream = stream->id;
    req->dst = to.gpu;
    req->pitch = f->pitch;
    req->width = f->width;
    req->height = f->height;
    req->value = f->value;
    req->element = f->element;
    req->flags = req->reserved = 0;
    result = tfr_post_end_on(stream, NULL);
    return result == CUDA_SUCCESS && sync && to.host ? tfr_stream_wait(stream) : result;
}

/* The fills of one element width: synchronous (legacy and per-thread stream) and in a stream, one
 * row and rectangle. */
/* clang-format off */
#define FILLS(bits, type)                                                                          \
    CUresult cuMemsetD##bits##_v2(CUdeviceptr dst, type value, size_t n)                           \
    {                                                                                              \
        return fill(&(struct fill){dst, 0, n, 1, value, bits / 8}, CU_STREAM_LEGACY, true);              \
    }                                                                                              \
    CUresult cuMemsetD##bits##_v2_ptds(CUdeviceptr dst, type value, size_t n)                      \
    {                                                                                              \
        return fill(&(struct fill){dst, 0, n, 1, value, bits / 8}, CU_STREAM_PER_THREAD, true);          \
    }                                                                                              \
    CUresult cuMemsetD##bits##Async(CUdeviceptr dst, type value, size_t n, CUstream stream)        \
    {                                                                                              \
        return fill(&(struct fill){dst, 0, n, 1, value, bits / 8}, stream, false);                       \
    }                                                                                              \
    CUresult cuMemsetD2D##bits##_v2(CUdeviceptr dst, size_t pitch, type value, size_t width,       \
                                    size_t height)                                                 \
    {                                                                                              \
        return fill(&(struct fill){dst, pitch, width, height, value, bits / 8}, CU_STREAM_LEGACY, true); \
    }                                                                                              \
    CUresult cuMemsetD2D##bits##_v2_ptds(CUdeviceptr dst, size_t pitch, type value, size_t width,  \
                                         size_t height)                                            \
    {                                                                                              \
        return fill(&(struct fill){dst, pitch, width, height, value, bits / 8},                    \
                    CU_STREAM_PER_THREAD, true);                                                         \
    }                                                                                              \
    CUresult cuMemsetD2D##bits##Async(CUdeviceptr dst, size_t pitch, type value, size_t width,     \
                                      size_t height, CUstream stream)                              \
    {                                                                                              \
        return fill(&(struct fill){dst, pitch, width, height, value, bits / 8}, stream, false);          \
    }
/* clang-format on */

FILLS(8, unsigned char)
FILLS(16, unsigned short)
FILLS(32, unsigned int)
