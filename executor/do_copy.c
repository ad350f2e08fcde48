/* Handlers of copies and fills. */
#define TFR_LOG_PART "executor"
#include "executor/session.h"
#include "executor/stat.h"
#include "tfr_dispatch_decl.h"

/* Where the host side of the copy is: behind the record, in the lane, in mapped memory; NULL:
 * nowhere. */
static void *copy_host_side(struct tfr_session *s, const struct tfr_copy_req *req)
{
    bool to_device = req->kind != TFR_COPY_PULL && req->kind != TFR_COPY_FROM_DEVICE;
    uint64_t at = to_device ? req->src : req->dst;
    switch ((enum tfr_copy_kind)req->kind) {
    case TFR_COPY_INLINE:
        return req->len <= req->head.size - sizeof *req ? (void *)(uintptr_t)(req + 1) : NULL;
    case TFR_COPY_PUSH:
    case TFR_COPY_PULL:
        return tfr_span_inside(at, req->len, s->lane_len) ? s->lane + at : NULL;
    case TFR_COPY_TO_DEVICE:
    case TFR_COPY_FROM_DEVICE:
        return tfr_host_at(s, at, req->len);
    case TFR_COPY_DEVICE:
        break;
    }
    return NULL;
}

static CUresult copy_submit(struct tfr_session *s, const struct tfr_rec *rec, CUstream stream)
{
    const struct tfr_copy_req *req = (const struct tfr_copy_req *)rec;
    if (req->kind == TFR_COPY_DEVICE)
        return s->cu->cuMemcpyDtoDAsync_v2(req->dst, req->src, req->len, stream);
    void *host = copy_host_side(s, req);
    if (!host)
        return tfr_session_bad(s, rec, "bytes outside of lane and mapped memory");
    if (req->kind == TFR_COPY_PULL || req->kind == TFR_COPY_FROM_DEVICE)
        return s->cu->cuMemcpyDtoHAsync_v2(host, req->src, req->len, stream);
    return s->cu->cuMemcpyHtoDAsync_v2(req->dst, host, req->len, stream);
}

static void copy_count(const struct tfr_copy_req *req)
{
    switch ((enum tfr_copy_kind)req->kind) {
    case TFR_COPY_INLINE:
        TFR_STAT_ADD(bytes_inline, req->len);
        break;
    case TFR_COPY_PUSH:
        TFR_STAT_ADD(bytes_push, req->len);
        break;
    case TFR_COPY_PULL:
        TFR_STAT_ADD(bytes_to_host, req->len);
        break;
    case TFR_COPY_TO_DEVICE:
    case TFR_COPY_FROM_DEVICE:
        TFR_STAT_ADD(bytes_mapped, req->len);
        break;
    case TFR_COPY_DEVICE:
        break;
    }
}

CUresult tfr_copy_submitted(struct tfr_session *s, struct tfr_stream *stream, uint64_t seq,
                            uint32_t flags)
{
    CUresult result = CUDA_SUCCESS;
    if (flags & TFR_COPY_FENCE) {
        result = s->cu->cuEventRecord(s->fence_event[stream->ctx], stream->real);
        stream->fence = ++s->fence;
        s->fence_ctx = stream->ctx;
        s->fence_legacy = stream->real == CU_STREAM_LEGACY;
    }
    if (result == CUDA_SUCCESS && (flags & TFR_COPY_MARK))
        result = tfr_news_ask(s, stream, seq);
    return result;
}

CUresult do_copy(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_copy_req *req = (const struct tfr_copy_req *)rec;
    struct tfr_stream *stream;
    CUresult result = tfr_stream_get(s, req->stream, &stream);
    if (result == CUDA_SUCCESS)
        result = copy_submit(s, rec, stream->real);
    copy_count(req);
    if (result == CUDA_SUCCESS && req->kind == TFR_COPY_PULL)
        result = tfr_news_deliver(s, stream, rec->seq, req->dst, req->len);
    return result == CUDA_SUCCESS ? tfr_copy_submitted(s, stream, rec->seq, req->flags) : result;
}

CUresult do_memset(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_memset_req *req = (const struct tfr_memset_req *)rec;
    const struct tfr_cu *cu = s->cu;
    struct tfr_stream *stream;
    CUresult result = tfr_stream_get(s, req->stream, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    uint64_t dst = req->dst, pitch = req->pitch, width = req->width, height = req->height;
    CUstream on = stream->real;
    bool row = height == 1;
    switch (req->element) {
    case 1:
        return row ? cu->cuMemsetD8Async(dst, (unsigned char)req->value, width, on)
                   : cu->cuMemsetD2D8Async(dst, pitch, (unsigned char)req->value, width, height,
                                           on);
    case 2:
        return row ? cu->cuMemsetD16Async(dst, (unsigned short)req->value, width, on)
                   : cu->cuMemsetD2D16Async(dst, pitch, (unsigned short)req->value, width, height,
                                            on);
    case 4:
        return row ? cu->cuMemsetD32Async(dst, req->value, width, on)
                   : cu->cuMemsetD2D32Async(dst, pitch, req->value, width, height, on);
    }
    return tfr_session_bad(s, rec, "no such element size");
}
