/* Copies between devices, batches of copies, and hints about memory that moves by itself (none does
 * here: what the calls answer is what they answer for other memory). */
#define TFR_LOG_PART "intercept"
#include "intercept/copy_rect.h"
#include "intercept/stream.h"

/* ---- between devices ---- */

static CUresult peer_post(struct tfr_stream *stream, uint64_t dst, uint64_t src, uint64_t len,
                          const struct tfr_side *to, const struct tfr_side *from, uint32_t flags)
{
    struct tfr_peer_req *req = tfr_post_begin(TFR_OP_peer, sizeof *req);
    if (!req)
        return tfr_post_failed();
    req->stream = stream->id;
    req->dst = dst;
    req->src = src;
    req->len = len;
    req->dst_ctx = to->ctx;
    req->src_ctx = from->ctx;
    req->flags = flags;
    req->reserved = 0;
    return tfr_post_end_on(stream, NULL);
}

/* The synchronous form comes after all that the three contexts were given, and before all that they
 * will be given. */
static CUresult peer(uint64_t dst, CUcontext to_ctx, uint64_t src, CUcontext from_ctx, uint64_t len,
                     CUstream handle, bool sync)
{
    struct tfr_side to, from;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_context *ctx[2] = {tfr_handle_object(TFR_KIND_CTX, to_ctx),
                                  tfr_handle_object(TFR_KIND_CTX, from_ctx)};
    struct tfr_stream *stream = tfr_stream_of(handle);
    if (!ctx[0] || !ctx[1])
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!len)
        return CUDA_SUCCESS;
    result = tfr_side_find(dst, len, true, &to);
    if (result == CUDA_SUCCESS)
        result = tfr_side_find(src, len, true, &from);
    if (result != CUDA_SUCCESS)
        return result;
    for (int i = 0; sync && i < 2 && result == CUDA_SUCCESS; i++)
        if (ctx[i] != tfr_thread.ctx && (i == 0 || ctx[1] != ctx[0]))
            result = tfr_context_wait(ctx[i]);
    if (result != CUDA_SUCCESS)
        return result;
    if (to.place != TFR_PLACE_GPU || from.place != TFR_PLACE_GPU)
        return tfr_copy_bytes(TFR_BY_ADDRESS, dst, src, len, stream, sync);
    result = peer_post(stream, to.gpu, from.gpu, len, &to, &from, sync ? TFR_COPY_FENCE : 0);
    return result == CUDA_SUCCESS && sync && to.host ? tfr_stream_wait(stream) : result;
}

CUresult cuMemcpyPeer(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from, size_t len)
{
    return peer(dst, to, src, from, len, CU_STREAM_LEGACY, true);
}

CUresult cuMemcpyPeer_ptds(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from,
                           size_t len)
{
    return peer(dst, to, src, from, len, CU_STREAM_PER_THREAD, true);
}

CUresult cuMemcpyPeerAsync(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from,
                           size_t len, CUstream stream)
{
    return peer(dst, to, src, from, len, stream, false);
}

/* ---- batches ---- */

static bool order_known(CUmemcpySrcAccessOrder order)
{
    return order >= CU_MEMCPY_SRC_ACCESS_ORDER_STREAM && order <= CU_MEMCPY_SRC_ACCESS_ORDER_ANY;
}

/* Attributes hold from their first copy on to that of the next. */
static bool attributes_known(const CUmemcpyAttributes *attributes, const size_t *firsts, size_t n,
                             size_t copies)
{
    if (!attributes || !firsts || !n || n > copies || firsts[0])
        return false;
    for (size_t i = 0; i < n; i++)
        if (!order_known(attributes[i].srcAccessOrder) || firsts[i] >= copies ||
            (i && firsts[i] <= firsts[i - 1]))
            return false;
    return true;
}

static CUresult batch(CUdeviceptr *dst, CUdeviceptr *src, size_t *len, size_t n,
                      const CUmemcpyAttributes *attributes, const size_t *firsts,
                      size_t attribute_n, size_t *failed, CUstream handle)
{
    CUresult result = tfr_enter();
    if (failed)
        *failed = SIZE_MAX;
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *stream = tfr_stream_of(handle);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!dst || !src || !len || !n || !attributes_known(attributes, firsts, attribute_n, n))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0, of = 0; i < n && result == CUDA_SUCCESS; i++) {
        if (of + 1 < attribute_n && firsts[of + 1] == i)
            of++;
        bool now = attributes[of].srcAccessOrder == CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;
        result = tfr_copy_bytes(TFR_BY_ADDRESS, dst[i], src[i], len[i], stream, now);
        if (result != CUDA_SUCCESS && failed)
            *failed = i;
    }
    return result;
}

CUresult cuMemcpyBatchAsync_v2(CUdeviceptr *dst, CUdeviceptr *src, size_t *len, size_t n,
                               CUmemcpyAttributes *attributes, size_t *firsts, size_t attribute_n,
                               CUstream stream)
{
    return batch(dst, src, len, n, attributes, firsts, attribute_n, NULL, stream);
}

CUresult cuMemcpyBatchAsync(CUdeviceptr *dst, CUdeviceptr *src, size_t *len, size_t n,
                            CUmemcpyAttributes *attributes, size_t *firsts, size_t attribute_n,
                            size_t *failed, CUstream stream)
{
    return batch(dst, src, len, n, attributes, firsts, attribute_n, failed, stream);
}

static CUresult operand_place(const struct tfr_box *box, const CUmemcpy3DOperand *operand,
                              struct tfr_box_side *side_out)
{
    if (operand->type != CU_MEMCPY_OPERAND_TYPE_POINTER)
        return operand->type == CU_MEMCPY_OPERAND_TYPE_ARRAY ? CUDA_ERROR_NOT_SUPPORTED
                                                             : CUDA_ERROR_INVALID_VALUE;
    return tfr_box_place(box, operand->op.ptr.ptr, (const uint64_t[3]){0},
                         operand->op.ptr.rowLength, operand->op.ptr.layerHeight, side_out);
}

static CUresult batch_box(const CUDA_MEMCPY3D_BATCH_OP *op, struct tfr_stream *stream)
{
    struct tfr_box box = {
        .width = op->extent.width, .height = op->extent.height, .depth = op->extent.depth};
    if (!box.width || !box.height || !box.depth || !order_known(op->srcAccessOrder))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = operand_place(&box, &op->dst, &box.dst);
    if (result == CUDA_SUCCESS)
        result = operand_place(&box, &op->src, &box.src);
    bool now = op->srcAccessOrder == CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;
    return result == CUDA_SUCCESS ? tfr_copy_box(&box, stream, now) : result;
}

static CUresult batch3d(size_t n, const CUDA_MEMCPY3D_BATCH_OP *ops, size_t *failed,
                        unsigned long long flags, CUstream handle)
{
    CUresult result = tfr_enter();
    if (failed)
        *failed = SIZE_MAX;
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *stream = tfr_stream_of(handle);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!n || !ops || flags)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < n && result == CUDA_SUCCESS; i++) {
        result = batch_box(&ops[i], stream);
        if (result != CUDA_SUCCESS && failed)
            *failed = i;
    }
    return result;
}

CUresult cuMemcpy3DBatchAsync_v2(size_t n, CUDA_MEMCPY3D_BATCH_OP *ops, unsigned long long flags,
                                 CUstream stream)
{
    return batch3d(n, ops, NULL, flags, stream);
}

CUresult cuMemcpy3DBatchAsync(size_t n, CUDA_MEMCPY3D_BATCH_OP *ops, size_t *failed,
                              unsigned long long flags, CUstream stream)
{
    return batch3d(n, ops, failed, flags, stream);
}

/* ---- memory that moves by itself ---- */

/* None of it is managed. */
static CUresult not_managed(void)
{
    CUresult result = tfr_enter();
    return result == CUDA_SUCCESS ? CUDA_ERROR_INVALID_VALUE : result;
}

CUresult cuMemPrefetchAsync(CUdeviceptr at, size_t len, CUdevice dev, CUstream stream)
{
    (void)at;
    (void)len;
    (void)dev;
    (void)stream;
    return not_managed();
}

CUresult cuMemPrefetchAsync_v2(CUdeviceptr at, size_t len, CUmemLocation location,
                               unsigned int flags, CUstream stream)
{
    (void)at;
    (void)len;
    (void)location;
    (void)flags;
    (void)stream;
    return not_managed();
}

CUresult cuMemAdvise(CUdeviceptr at, size_t len, CUmem_advise advice, CUdevice dev)
{
    (void)at;
    (void)len;
    (void)advice;
    (void)dev;
    return not_managed();
}

CUresult cuMemAdvise_v2(CUdeviceptr at, size_t len, CUmem_advise advice, CUmemLocation location)
{
    (void)at;
    (void)len;
    (void)advice;
    (void)location;
    return not_managed();
}

CUresult cuMemRangeGetAttribute(void *data, size_t data_len, CUmem_range_attribute attribute,
                                CUdeviceptr at, size_t len)
{
    (void)data;
    (void)data_len;
    (void)attribute;
    (void)at;
    (void)len;
    return not_managed();
}

CUresult cuMemRangeGetAttributes(void **data, size_t *data_lens, CUmem_range_attribute *attributes,
                                 size_t n, CUdeviceptr at, size_t len)
{
    (void)data;
    (void)data_lens;
    (void)attributes;
    (void)n;
    (void)at;
    (void)len;
    return not_managed();
}
