/* Handlers of copies and fills. */
#define TFR_LOG_PART "executor"
#include "executor/arrival.h"
#include "executor/stat.h"
#include "tfr_dispatch_decl.h"

/* Where the client's side of the copy is: behind the record, in a lane, in mapped memory; neither:
 * nowhere. */
struct side {
    void *host;
    CUdeviceptr gpu;
};

static struct side lane_side(struct tfr_session *s, uint64_t place, uint64_t len)
{
    uint64_t at;
    const struct tfr_lane *lane = tfr_lane_find(s, place, len, &at);
    if (!lane)
        return (struct side){0};
    return lane->host ? (struct side){.host = lane->host + at}
                      : (struct side){.gpu = lane->gpu + at};
}

static struct side side_find(struct tfr_session *s, const struct tfr_copy_req *req)
{
    bool to_device = req->kind != TFR_COPY_PULL && req->kind != TFR_COPY_FROM_DEVICE;
    uint64_t at = to_device ? req->src : req->dst;
    struct side side = {0};
    switch ((enum tfr_copy_kind)req->kind) {
    case TFR_COPY_INLINE:
        if (req->len <= req->head.size - sizeof *req)
            side.host = (void *)(uintptr_t)(req + 1);
        break;
    case TFR_COPY_PUSH:
    case TFR_COPY_PULL:
        side = lane_side(s, at, req->len);
        break;
    case TFR_COPY_TO_DEVICE:
    case TFR_COPY_FROM_DEVICE:
        side.host = tfr_host_at(s, at, req->len);
        break;
    case TFR_COPY_DEVICE:
        break;
    }
    return side;
}

static CUresult copy_submit(struct tfr_session *s, const struct tfr_rec *rec, CUstream stream)
{
    const struct tfr_copy_req *req = (const struct tfr_copy_req *)rec;
    if (req->kind == TFR_COPY_DEVICE)
        return s->cu->cuMemcpyDtoDAsync_v2(req->dst, req->src, req->len, stream);
    struct side side = side_find(s, req);
    if (!side.host && !side.gpu)
        return tfr_session_bad(s, rec, "bytes outside of lane and mapped memory");
    if (side.gpu)
        return s->cu->cuMemcpyDtoDAsync_v2(req->kind == TFR_COPY_PULL ? side.gpu : req->dst,
                                           req->kind == TFR_COPY_PULL ? req->src : side.gpu,
                                           req->len, stream);
    if (req->kind == TFR_COPY_PULL || req->kind == TFR_COPY_FROM_DEVICE)
        return s->cu->cuMemcpyDtoHAsync_v2(side.host, req->src, req->len, stream);
    return s->cu->cuMemcpyHtoDAsync_v2(req->dst, side.host, req->len, stream);
}

/* By the device whose memory it is, where that is not the stream's. */
static CUresult copy_route(struct tfr_session *s, const struct tfr_rec *rec,
                           struct tfr_stream *stream)
{
    const struct tfr_copy_req *req = (const struct tfr_copy_req *)rec;
    bool to_host = req->kind == TFR_COPY_PULL || req->kind == TFR_COPY_FROM_DEVICE;
    uint16_t own = (uint16_t)(stream->ctx + 1), at, from = 0;
    struct tfr_hop *hop;
    CUstream on;
    if (req->kind == TFR_COPY_DEVICE)
        at = tfr_hop_owners(s, stream, req->dst, req->src, &from);
    else
        at = from = tfr_hop_owner(s, stream, to_host ? req->src : req->dst);
    if (at != from)
        return s->cu->cuMemcpyPeerAsync(req->dst, s->ctx[at - 1], req->src, s->ctx[from - 1],
                                        req->len, stream->real);
    if (at == own)
        return copy_submit(s, rec, stream->real);
    CUresult result = tfr_hop_begin(s, stream, at, &hop, &on);
    if (result == CUDA_SUCCESS)
        result = copy_submit(s, rec, on);
    return result == CUDA_SUCCESS ? tfr_hop_end(s, stream, hop) : result;
}

static void copy_count(const struct tfr_session *s, const struct tfr_copy_req *req)
{
    switch ((enum tfr_copy_kind)req->kind) {
    case TFR_COPY_INLINE:
        TFR_STAT_ADD(bytes_inline, req->len);
        break;
    case TFR_COPY_PUSH:
        TFR_STAT_ADD(bytes_push, req->len);
        tfr_lane_count(s, req->src, req->len);
        break;
    case TFR_COPY_PULL:
        TFR_STAT_ADD(bytes_to_host, req->len);
        tfr_lane_count(s, req->dst, req->len);
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
    if (flags & TFR_COPY_MARK) /* before the event that others wait for, as in do_event_record */
        result = tfr_news_ask(s, stream, seq);
    if (result == CUDA_SUCCESS && (flags & TFR_COPY_FENCE)) {
        result = s->cu->cuEventRecord(s->fence_event[stream->ctx], stream->real);
        stream->fence = ++s->fence;
        s->fence_ctx = stream->ctx;
        s->fence_legacy = stream->real == CU_STREAM_LEGACY;
    }
    return result;
}

CUresult do_copy(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_copy_req *req = (const struct tfr_copy_req *)rec;
    struct tfr_stream *stream;
    if (__builtin_expect(req->stamp && !tfr_arrival_here(s, rec, req->stream), 0))
        return TFR_RESULT_PARK;
    CUresult result = tfr_stream_get(s, req->stream, &stream);
    if (result == CUDA_SUCCESS)
        result = tfr_hop_possible(s, stream) ? copy_route(s, rec, stream)
                                             : copy_submit(s, rec, stream->real);
    if (result == CUDA_SUCCESS)
        copy_count(s, req);
    if (result == CUDA_SUCCESS && req->kind == TFR_COPY_PULL && !(req->flags & TFR_COPY_FETCH))
        result = tfr_news_deliver(s, stream, rec, req->dst, req->len);
    return result == CUDA_SUCCESS ? tfr_copy_submitted(s, stream, rec->seq, req->flags) : result;
}

static CUresult memset_submit(struct tfr_session *s, const struct tfr_rec *rec, CUstream on)
{
    const struct tfr_memset_req *req = (const struct tfr_memset_req *)rec;
    const struct tfr_cu *cu = s->cu;
    uint64_t dst = req->dst, pitch = req->pitch, width = req->width, height = req->height;
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

CUresult do_memset(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_memset_req *req = (const struct tfr_memset_req *)rec;
    struct tfr_stream *stream;
    struct tfr_hop *hop;
    CUstream on;
    CUresult result = tfr_stream_get(s, req->stream, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    uint16_t at = tfr_hop_possible(s, stream) ? tfr_hop_owner(s, stream, req->dst) : 0;
    if (!at || at == stream->ctx + 1)
        return memset_submit(s, rec, stream->real);
    result = tfr_hop_begin(s, stream, at, &hop, &on);
    if (result == CUDA_SUCCESS)
        result = memset_submit(s, rec, on);
    return result == CUDA_SUCCESS ? tfr_hop_end(s, stream, hop) : result;
}
