/* Handlers of copies that are no single run of bytes: rectangles and boxes between lane, mapped
 * memory and device, and copies between devices.  A rectangle in the lane is packed: the driver
 * spreads it over the rows. */
#define TFR_LOG_PART "executor"
#include "executor/arrival.h"
#include "tfr_dispatch_decl.h"

/* A side as the driver wants it. */
struct side {
    CUmemorytype type;
    void *host;
    CUdeviceptr device;
    size_t pitch, rows;
    CUcontext ctx;
    bool lane; /* passes through ours, whatever device that is of */
};

static CUcontext context_of(struct tfr_session *s, uint32_t at)
{
    return at > 0 && at <= TFR_CONTEXTS_MAX ? s->ctx[at - 1] : NULL;
}

/* False: not inside of what this side's bytes may lie in. */
static bool side_find(struct tfr_session *s, const struct tfr_rect_req *req,
                      const struct tfr_box_side *from, bool lane, bool mapped,
                      struct side *side_out)
{
    uint64_t span;
    if (!tfr_box_span(from, req->width, req->height, req->depth, &span) ||
        from->pitch < req->width || (req->depth > 1 && from->rows < req->height))
        return false;
    *side_out = (struct side){.type = CU_MEMORYTYPE_HOST, .pitch = from->pitch, .rows = from->rows};
    if (lane) {
        uint64_t at;
        const struct tfr_lane *in = tfr_lane_find(s, from->at, span, &at);
        side_out->lane = true;
        if (in && in->host) {
            side_out->host = in->host + at;
        } else if (in) {
            side_out->type = CU_MEMORYTYPE_DEVICE;
            side_out->device = in->gpu + at;
        }
        return in != NULL;
    }
    if (mapped) {
        side_out->host = tfr_host_at(s, from->at, span);
        return side_out->host != NULL;
    }
    side_out->type = CU_MEMORYTYPE_DEVICE;
    side_out->device = from->at;
    return true;
}

static CUresult submit_flat(const struct tfr_cu *cu, const struct tfr_rect_req *req,
                            const struct side *dst, const struct side *src, CUstream stream)
{
    CUDA_MEMCPY2D copy = {.srcMemoryType = src->type,
                          .srcHost = src->host,
                          .srcDevice = src->device,
                          .srcPitch = src->pitch,
                          .dstMemoryType = dst->type,
                          .dstHost = dst->host,
                          .dstDevice = dst->device,
                          .dstPitch = dst->pitch,
                          .WidthInBytes = req->width,
                          .Height = req->height};
    return cu->cuMemcpy2DAsync_v2(&copy, stream);
}

static CUresult submit_deep(const struct tfr_cu *cu, const struct tfr_rect_req *req,
                            const struct side *dst, const struct side *src, CUstream stream)
{
    CUDA_MEMCPY3D copy = {.srcMemoryType = src->type,
                          .srcHost = src->host,
                          .srcDevice = src->device,
                          .srcPitch = src->pitch,
                          .srcHeight = src->rows,
                          .dstMemoryType = dst->type,
                          .dstHost = dst->host,
                          .dstDevice = dst->device,
                          .dstPitch = dst->pitch,
                          .dstHeight = dst->rows,
                          .WidthInBytes = req->width,
                          .Height = req->height,
                          .Depth = req->depth};
    return cu->cuMemcpy3DAsync_v2(&copy, stream);
}

static CUresult submit_peer(const struct tfr_cu *cu, const struct tfr_rect_req *req,
                            const struct side *dst, const struct side *src, CUstream stream)
{
    CUDA_MEMCPY3D_PEER copy = {.srcMemoryType = src->type,
                               .srcDevice = src->device,
                               .srcContext = src->ctx,
                               .srcPitch = src->pitch,
                               .srcHeight = req->depth > 1 ? src->rows : req->height,
                               .dstMemoryType = dst->type,
                               .dstDevice = dst->device,
                               .dstContext = dst->ctx,
                               .dstPitch = dst->pitch,
                               .dstHeight = req->depth > 1 ? dst->rows : req->height,
                               .WidthInBytes = req->width,
                               .Height = req->height,
                               .Depth = req->depth};
    return cu->cuMemcpy3DPeerAsync(&copy, stream);
}

static CUresult rect_submit(const struct tfr_cu *cu, const struct tfr_rect_req *req,
                            const struct side *dst, const struct side *src, CUstream stream)
{
    return req->depth == 1 ? submit_flat(cu, req, dst, src, stream)
                           : submit_deep(cu, req, dst, src, stream);
}

/* By the device whose memory it is, where that is not the stream's. */
static CUresult rect_route(struct tfr_session *s, const struct tfr_rect_req *req, struct side *dst,
                           struct side *src, struct tfr_stream *stream)
{
    uint16_t own = (uint16_t)(stream->ctx + 1), at, from = 0;
    struct tfr_hop *hop;
    CUstream on;
    bool to_client = dst->host || dst->lane;
    if (to_client || src->host || src->lane)
        at = from = tfr_hop_owner(s, stream, to_client ? src->device : dst->device);
    else
        at = tfr_hop_owners(s, stream, dst->device, src->device, &from);
    if (at != from) {
        dst->ctx = s->ctx[at - 1];
        src->ctx = s->ctx[from - 1];
        return submit_peer(s->cu, req, dst, src, stream->real);
    }
    if (at == own)
        return rect_submit(s->cu, req, dst, src, stream->real);
    CUresult result = tfr_hop_begin(s, stream, at, &hop, &on);
    if (result == CUDA_SUCCESS)
        result = rect_submit(s->cu, req, dst, src, on);
    return result == CUDA_SUCCESS ? tfr_hop_end(s, stream, hop) : result;
}

static CUresult rect_run(struct tfr_session *s, const struct tfr_rec *rec,
                         struct tfr_stream *stream)
{
    const struct tfr_rect_req *req = (const struct tfr_rect_req *)rec;
    uint32_t kind = req->kind;
    struct side dst, src;
    if (kind > TFR_COPY_DEVICE || kind == TFR_COPY_INLINE || !req->width || !req->height ||
        !req->depth)
        return tfr_session_bad(s, rec, "no such rectangle");
    if (!side_find(s, req, &req->dst, kind == TFR_COPY_PULL, kind == TFR_COPY_FROM_DEVICE, &dst) ||
        !side_find(s, req, &req->src, kind == TFR_COPY_PUSH, kind == TFR_COPY_TO_DEVICE, &src))
        return tfr_session_bad(s, rec, "rectangle outside of lane and mapped memory");
    if (kind == TFR_COPY_DEVICE && req->dst_ctx != req->src_ctx) {
        dst.ctx = context_of(s, req->dst_ctx);
        src.ctx = context_of(s, req->src_ctx);
        if (!dst.ctx || !src.ctx)
            return tfr_session_bad(s, rec, "no such device");
        return submit_peer(s->cu, req, &dst, &src, stream->real);
    }
    return tfr_hop_possible(s, stream) ? rect_route(s, req, &dst, &src, stream)
                                       : rect_submit(s->cu, req, &dst, &src, stream->real);
}

static void rect_count(const struct tfr_session *s, const struct tfr_rect_req *req)
{
    uint64_t len = req->width * req->height * req->depth;
    if (req->kind == TFR_COPY_PUSH)
        tfr_lane_count(s, req->src.at, len);
    else if (req->kind == TFR_COPY_PULL)
        tfr_lane_count(s, req->dst.at, len);
}

CUresult do_rect(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_rect_req *req = (const struct tfr_rect_req *)rec;
    struct tfr_stream *stream;
    if (__builtin_expect(req->stamp && !tfr_arrival_here(s, rec, req->stream), 0))
        return TFR_RESULT_PARK;
    CUresult result = tfr_stream_get(s, req->stream, &stream);
    if (result == CUDA_SUCCESS)
        result = rect_run(s, rec, stream);
    if (result == CUDA_SUCCESS)
        rect_count(s, req);
    bool sends = req->kind == TFR_COPY_PULL && !(req->flags & TFR_COPY_FETCH);
    if (result == CUDA_SUCCESS && sends) /* packed: no gaps */
        result =
            tfr_news_deliver(s, stream, rec, req->dst.at, req->width * req->height * req->depth);
    return result == CUDA_SUCCESS ? tfr_copy_submitted(s, stream, rec->seq, req->flags) : result;
}

CUresult do_peer(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_peer_req *req = (const struct tfr_peer_req *)rec;
    CUcontext to = context_of(s, req->dst_ctx), from = context_of(s, req->src_ctx);
    struct tfr_stream *stream;
    CUresult result = tfr_stream_get(s, req->stream, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (!to || !from)
        return tfr_session_bad(s, rec, "no such device");
    result = s->cu->cuMemcpyPeerAsync(req->dst, to, req->src, from, req->len, stream->real);
    return result == CUDA_SUCCESS ? tfr_copy_submitted(s, stream, rec->seq, req->flags) : result;
}
