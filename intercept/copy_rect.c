/* Rectangles and boxes.  Rows go packed through lane extents, many to a record; memory that the
 * executor has mapped takes one record.  Arrays are not forwarded.
 *
 * Surprising: what lies end to end is one run of bytes and goes the way of copy.c, and so does each
 * row of a rectangle whose rows are long. */
#define TFR_LOG_PART "intercept"
#include "intercept/copy_rect.h"

#include <string.h>

#include "intercept/gate.h"
#include "intercept/stream.h"

enum { PIECE = 256 << 10, IN_FLIGHT = 8 };

CUresult tfr_side_find(uint64_t at, uint64_t span, bool said_device, struct tfr_side *side_out)
{
    struct tfr_range range = tfr_range_find(at);
    bool known = range.kind != TFR_RANGE_NONE;
    if (!at || (known ? !tfr_range_holds(&range, at, span) : said_device))
        return CUDA_ERROR_INVALID_VALUE;
    *side_out = (struct tfr_side){.gpu = at, .host = true};
    side_out->ctx = range.ctx ? range.ctx->slot : 0;
    if (tfr_range_is_device(&range)) {
        side_out->place = TFR_PLACE_GPU;
        side_out->host = false;
    } else if (range.kind == TFR_RANGE_MAPPED) {
        side_out->place = said_device ? TFR_PLACE_GPU : TFR_PLACE_MAPPED;
        side_out->gpu = range.device_addr + (at - range.base);
    } else {
        side_out->place = known ? TFR_PLACE_REGISTERED : TFR_PLACE_PAGEABLE;
        side_out->mem = range.mem;
    }
    return CUDA_SUCCESS;
}

/* ---- records ---- */

static CUresult rect_post(struct tfr_stream *stream, const struct tfr_rect_req *body,
                          uint64_t *seq_out)
{
    struct tfr_rect_req *req = tfr_post_begin(TFR_OP_rect, sizeof *req);
    if (!req)
        return tfr_post_failed();
    struct tfr_rec head = req->head;
    *req = *body;
    req->head = head;
    req->stream = stream->id;
    if (body->flags & TFR_COPY_MARK)
        atomic_store_explicit(&stream->mark, head.seq, memory_order_relaxed);
    return tfr_post_end_on(stream, seq_out);
}

static CUresult wait_for(struct tfr_stream *stream, uint64_t seq)
{
    TFR_COUNT(stream_waits, 1);
    CUresult result =
        tfr_wait_word(&tfr_client.feedback->stream[stream->word], seq, TFR_WAIT_STREAM);
    if (result == CUDA_SUCCESS)
        tfr_copy_deliver();
    return result;
}

/* The whole box in one record: nothing of it is staged. */
static CUresult in_place(const struct tfr_box *box, const struct tfr_side *to,
                         const struct tfr_side *from, struct tfr_stream *stream, bool sync)
{
    struct tfr_rect_req req = {.dst = box->dst,
                               .src = box->src,
                               .width = box->width,
                               .height = box->height,
                               .depth = box->depth,
                               .kind = TFR_COPY_DEVICE,
                               .dst_ctx = to->ctx,
                               .src_ctx = from->ctx};
    bool wait = sync && (to->host || from->host);
    uint64_t seq;
    if (to->place == TFR_PLACE_MAPPED)
        req.kind = TFR_COPY_FROM_DEVICE;
    else
        req.dst.at = to->gpu;
    if (from->place == TFR_PLACE_MAPPED)
        req.kind = TFR_COPY_TO_DEVICE;
    else
        req.src.at = from->gpu;
    req.flags = wait ? TFR_COPY_MARK : 0;
    if (to->host || from->host)
        TFR_COUNT(bytes_mapped, box->width * box->height * box->depth);
    CUresult result = to->host ? tfr_gate_settle(stream) : CUDA_SUCCESS;
    if (result == CUDA_SUCCESS)
        result = rect_post(stream, &req, &seq);
    return result == CUDA_SUCCESS && wait ? wait_for(stream, seq) : result;
}

/* ---- pieces: as many rows as an extent takes ---- */

struct piece {
    uint64_t slice, row;    /* where it begins */
    uint64_t height, depth; /* rows of one slice, or whole slices */
};

/* The piece that begins at row `done` of all rows. */
static struct piece piece_at(const struct tfr_box *box, uint64_t done)
{
    uint64_t rows = PIECE / box->width;
    struct piece p = {.slice = done / box->height, .row = done % box->height, .depth = 1};
    p.height = box->height - p.row;
    if (p.row == 0 && rows >= 2 * box->height && box->depth - p.slice > 1) {
        p.depth = rows / box->height;
        if (p.depth > box->depth - p.slice)
            p.depth = box->depth - p.slice;
    } else if (p.height > rows) {
        p.height = rows;
    }
    return p;
}

static struct tfr_box_side side_at(const struct tfr_box_side *side, const struct piece *p)
{
    return (struct tfr_box_side){side->at + (p->slice * side->rows + p->row) * side->pitch,
                                 side->pitch, side->rows};
}

/* Where the piece's bytes lie in an extent. */
static struct tfr_box_side packed(const struct tfr_box *box, const struct piece *p, uint64_t at)
{
    return (struct tfr_box_side){at, box->width, p->height};
}

/* The application's rows to the lane or back. */
static void rows_move(const struct tfr_box *box, const struct piece *p,
                      const struct tfr_box_side *side, uint8_t *lane, bool to_lane)
{
    struct tfr_box_side from = side_at(side, p);
    for (uint64_t z = 0; z < p->depth; z++) {
        uint8_t *row = (uint8_t *)from.at + z * from.rows * from.pitch;
        for (uint64_t y = 0; y < p->height; y++, row += from.pitch, lane += box->width)
            memcpy(to_lane ? lane : row, to_lane ? row : lane, box->width);
    }
}

static enum tfr_direction direction_of(const struct tfr_box *box)
{
    if (box->dst_device && box->src_device)
        return TFR_ON_DEVICE;
    return box->dst_device ? TFR_TO_DEVICE : box->src_device ? TFR_FROM_DEVICE : TFR_BY_ADDRESS;
}

/* Row by row from row `done` of all rows, each a copy of its own: it knows what to do when there is
 * no room in the lane.  The last one waits where the call does. */
static CUresult row_by_row(const struct tfr_box *box, uint64_t done, struct tfr_stream *stream,
                           bool sync)
{
    uint64_t all = box->height * box->depth;
    CUresult result = CUDA_SUCCESS;
    for (; done < all && result == CUDA_SUCCESS; done++) {
        struct piece p = {.slice = done / box->height, .row = done % box->height};
        result =
            tfr_copy_bytes(direction_of(box), side_at(&box->dst, &p).at, side_at(&box->src, &p).at,
                           box->width, stream, sync && done + 1 == all);
    }
    return result;
}

static CUresult push(const struct tfr_box *box, struct tfr_stream *stream, bool sync)
{
    uint64_t all = box->height * box->depth;
    for (uint64_t done = 0; done < all;) {
        struct piece p = piece_at(box, done);
        uint64_t len = box->width * p.height * p.depth, seq;
        struct tfr_extent extent;
        if (!sync && !tfr_copy_room(len, &extent))
            return row_by_row(box, done, stream, sync);
        CUresult result = sync ? tfr_lane_take(len, &extent) : CUDA_SUCCESS;
        if (result != CUDA_SUCCESS)
            return result;
        rows_move(box, &p, &box->src, tfr_extent_twin(&extent), true);
        TFR_COUNT(bytes_push, len);
        done += p.height * p.depth;
        struct tfr_rect_req req = {.dst = side_at(&box->dst, &p),
                                   .src = packed(box, &p, tfr_extent_place(&extent)),
                                   .width = box->width,
                                   .height = p.height,
                                   .depth = p.depth,
                                   .kind = TFR_COPY_PUSH,
                                   .flags =
                                       TFR_COPY_MARK | (sync && done == all ? TFR_COPY_FENCE : 0)};
        req.dst.at += box->dst_shift;
        result = tfr_lane_ship(&extent, len, &req.stamp);
        if (result == CUDA_SUCCESS)
            result = rect_post(stream, &req, &seq);
        if (result != CUDA_SUCCESS) {
            tfr_lane_free(extent);
            return result;
        }
        tfr_lane_give(extent, stream, seq);
    }
    return CUDA_SUCCESS;
}

static CUresult pull_piece(const struct tfr_box *box, const struct piece *p,
                           struct tfr_stream *stream, const struct tfr_extent *extent,
                           uint64_t *seq_out)
{
    struct tfr_rect_req req = {.dst = packed(box, p, tfr_extent_place(extent)),
                               .src = side_at(&box->src, p),
                               .width = box->width,
                               .height = p->height,
                               .depth = p->depth,
                               .kind = TFR_COPY_PULL,
                               .flags = TFR_COPY_MARK};
    req.flags |= tfr_home_flags(box->width * p->height * p->depth);
    req.src.at += box->src_shift;
    return rect_post(stream, &req, seq_out);
}

/* To registered memory: brought home by whoever learns that the stream has passed. */
static CUresult pull_later(const struct tfr_box *box, struct tfr_stream *stream)
{
    uint64_t all = box->height * box->depth;
    for (uint64_t done = 0; done < all;) {
        struct piece p = piece_at(box, done);
        struct tfr_owed owed = {.dst = side_at(&box->dst, &p),
                                .width = box->width,
                                .height = p.height,
                                .depth = p.depth,
                                .ctx = stream->ctx,
                                .word = stream->word};
        uint64_t len = box->width * p.height * p.depth;
        owed.flags = tfr_home_flags(len);
        if (!tfr_copy_room(len, &owed.extent))
            return row_by_row(box, done, stream, false);
        CUresult result = pull_piece(box, &p, stream, &owed.extent, &owed.seq);
        if (result == CUDA_SUCCESS)
            result = tfr_copy_owe(&owed);
        else
            tfr_lane_free(owed.extent);
        if (result != CUDA_SUCCESS)
            return result;
        done += p.height * p.depth;
    }
    return CUDA_SUCCESS;
}

/* Into the twin, where the executor does not send it. */
static CUresult piece_fetch(const struct tfr_box *box, const struct piece *p,
                            const struct tfr_extent *extent)
{
    struct tfr_home home = {.extent = *extent, .len = box->width * p->height * p->depth};
    home.flags = tfr_home_flags(home.len);
    CUresult result = tfr_home_begin(&home);
    return result == CUDA_SUCCESS ? tfr_home_end(&home) : result;
}

/* Several pieces in flight: the copy engine fills one while we empty another. */
static CUresult pull(const struct tfr_box *box, struct tfr_stream *stream)
{
    struct {
        struct piece piece;
        struct tfr_extent extent;
        uint64_t seq;
    } flight[IN_FLIGHT];
    uint64_t all = box->height * box->depth, asked = 0;
    unsigned int asked_n = 0, done_n = 0;
    CUresult result = CUDA_SUCCESS;
    for (;;) {
        while (result == CUDA_SUCCESS && asked < all && asked_n - done_n < IN_FLIGHT) {
            unsigned int at = asked_n % IN_FLIGHT;
            struct piece p = piece_at(box, asked);
            uint64_t len = box->width * p.height * p.depth;
            /* Who waits for room has none: else threads that pull would wait for each other. */
            if (asked_n == done_n)
                result = tfr_lane_take(len, &flight[at].extent);
            else if (!tfr_lane_try_ahead(len, &flight[at].extent))
                break;
            if (result != CUDA_SUCCESS)
                break;
            result = pull_piece(box, &p, stream, &flight[at].extent, &flight[at].seq);
            if (result == CUDA_SUCCESS) {
                flight[at].piece = p;
                asked += p.height * p.depth;
                asked_n++;
            } else {
                tfr_lane_free(flight[at].extent);
            }
        }
        if (done_n == asked_n)
            return result;
        unsigned int at = done_n++ % IN_FLIGHT;
        CUresult waited = wait_for(stream, flight[at].seq);
        if (waited == CUDA_SUCCESS)
            waited = piece_fetch(box, &flight[at].piece, &flight[at].extent);
        if (waited == CUDA_SUCCESS) {
            rows_move(box, &flight[at].piece, &box->dst, tfr_extent_twin(&flight[at].extent),
                      false);
            tfr_lane_free(flight[at].extent);
        } else {
            tfr_lane_give(flight[at].extent, stream, flight[at].seq);
            result = waited;
        }
    }
}

/* ---- which way ---- */

static void on_host(const struct tfr_box *box)
{
    for (uint64_t z = 0; z < box->depth; z++) {
        for (uint64_t y = 0; y < box->height; y++) {
            struct piece p = {.slice = z, .row = y};
            memmove((void *)side_at(&box->dst, &p).at, (const void *)side_at(&box->src, &p).at,
                    box->width);
        }
    }
}

/* Fewer dimensions where both sides lie end to end. */
static void flatten(struct tfr_box *box)
{
    if (box->depth > 1 && box->dst.rows == box->height && box->src.rows == box->height) {
        box->height *= box->depth;
        box->depth = 1;
    }
    if (box->depth == 1 && box->dst.pitch == box->width && box->src.pitch == box->width) {
        box->width *= box->height;
        box->height = 1;
    }
}

static CUresult sides_find(const struct tfr_box *box, struct tfr_side *to, struct tfr_side *from)
{
    uint64_t dst_span, src_span, all;
    if (__builtin_mul_overflow(box->width, box->height, &all) ||
        __builtin_mul_overflow(all, box->depth, &all) ||
        !tfr_box_span(&box->dst, box->width, box->height, box->depth, &dst_span) ||
        !tfr_box_span(&box->src, box->width, box->height, box->depth, &src_span))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = tfr_side_find(box->dst.at, dst_span, box->dst_device, to);
    return result == CUDA_SUCCESS ? tfr_side_find(box->src.at, src_span, box->src_device, from)
                                  : result;
}

static bool unsettled(const struct tfr_box *box)
{
    uint64_t span;
    return tfr_box_span(&box->src, box->width, box->height, box->depth, &span) &&
           tfr_copy_unsettled(box->src.at, span);
}

CUresult tfr_copy_box(struct tfr_box *box, struct tfr_stream *stream, bool sync)
{
    struct tfr_side to, from;
    CUresult result = sides_find(box, &to, &from);
    if (result != CUDA_SUCCESS)
        return result;
    flatten(box);
    bool to_gpu = to.place == TFR_PLACE_GPU, from_gpu = from.place == TFR_PLACE_GPU;
    if (!to_gpu && !from_gpu) {
        /* From host to host natively waits too, also in a stream. */
        result = tfr_stream_wait(stream);
        if (result == CUDA_SUCCESS)
            on_host(box);
        return result;
    }
    if (box->height == 1 && box->depth == 1)
        return tfr_copy_bytes(direction_of(box), box->dst.at, box->src.at, box->width, stream,
                              sync);
    if (to.place <= TFR_PLACE_MAPPED && from.place <= TFR_PLACE_MAPPED)
        return in_place(box, &to, &from, stream, sync);
    box->dst_shift = to.gpu - box->dst.at;
    box->src_shift = from.gpu - box->src.at;
    bool registered = to.place == TFR_PLACE_REGISTERED || from.place == TFR_PLACE_REGISTERED;
    if (box->width > PIECE || (from.place == TFR_PLACE_REGISTERED && unsettled(box))) {
        result = row_by_row(box, 0, stream, sync);
        /* the rows before the last may be read when the stream gets there */
        return result == CUDA_SUCCESS && sync && registered ? tfr_stream_wait(stream) : result;
    }
    if (!to_gpu)
        return registered && !sync ? pull_later(box, stream) : pull(box, stream);
    result = push(box, stream, sync);
    bool wait = sync && (to.host || !tfr_copy_early());
    return result == CUDA_SUCCESS && wait ? tfr_stream_wait(stream) : result;
}

CUresult tfr_box_place(const struct tfr_box *box, uint64_t base, const uint64_t offset[3],
                       uint64_t pitch, uint64_t rows, struct tfr_box_side *side_out)
{
    uint64_t width, height, at;
    if (__builtin_add_overflow(offset[0], box->width, &width) ||
        __builtin_add_overflow(offset[1], box->height, &height))
        return CUDA_ERROR_INVALID_VALUE;
    side_out->pitch = pitch ? pitch : width;
    side_out->rows = rows ? rows : height;
    int most = tfr_client.snapshot->device[tfr_thread.ctx->device]
                   .attribute[CU_DEVICE_ATTRIBUTE_MAX_PITCH];
    if (side_out->pitch < width || (box->depth > 1 && side_out->rows < height) ||
        (most > 0 && pitch > (uint64_t)most))
        return CUDA_ERROR_INVALID_VALUE;
    if (__builtin_mul_overflow(offset[2], side_out->rows, &at) ||
        __builtin_add_overflow(at, offset[1], &at) ||
        __builtin_mul_overflow(at, side_out->pitch, &at) ||
        __builtin_add_overflow(at, offset[0], &at) || !base ||
        __builtin_add_overflow(base, at, &side_out->at))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* ---- the exported calls ---- */

/* One side as the CUDA structs say it. */
struct said {
    CUmemorytype type;
    const void *host;
    CUdeviceptr device;
    uint64_t offset[3], pitch, rows;
};

static CUresult side_of(const struct said *said, const struct tfr_box *box, bool *device_out,
                        struct tfr_box_side *side_out)
{
    if (said->type != CU_MEMORYTYPE_HOST && said->type != CU_MEMORYTYPE_DEVICE &&
        said->type != CU_MEMORYTYPE_UNIFIED)
        return said->type == CU_MEMORYTYPE_ARRAY ? CUDA_ERROR_NOT_SUPPORTED
                                                 : CUDA_ERROR_INVALID_VALUE;
    *device_out = said->type == CU_MEMORYTYPE_DEVICE;
    return tfr_box_place(box,
                         said->type == CU_MEMORYTYPE_HOST ? (uint64_t)said->host : said->device,
                         said->offset, said->pitch, said->rows, side_out);
}

static CUresult copy_said(struct tfr_box *box, const struct said *dst, const struct said *src,
                          struct tfr_stream *stream, bool sync)
{
    if (!box->width || !box->height || !box->depth)
        return CUDA_SUCCESS;
    CUresult result = side_of(dst, box, &box->dst_device, &box->dst);
    if (result == CUDA_SUCCESS)
        result = side_of(src, box, &box->src_device, &box->src);
    return result == CUDA_SUCCESS ? tfr_copy_box(box, stream, sync) : result;
}

static CUresult enter_on(const void *copy, CUstream handle, struct tfr_stream **stream_out)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!copy)
        return CUDA_ERROR_INVALID_VALUE;
    *stream_out = tfr_stream_of(handle);
    return *stream_out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static CUresult rectangle(const CUDA_MEMCPY2D *c, CUstream handle, bool sync)
{
    struct tfr_stream *stream;
    CUresult result = enter_on(c, handle, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_box box = {.width = c->WidthInBytes, .height = c->Height, .depth = 1};
    struct said dst = {c->dstMemoryType, c->dstHost, c->dstDevice, {c->dstXInBytes, c->dstY, 0},
                       c->dstPitch,      0};
    struct said src = {c->srcMemoryType, c->srcHost, c->srcDevice, {c->srcXInBytes, c->srcY, 0},
                       c->srcPitch,      0};
    return copy_said(&box, &dst, &src, stream, sync);
}

static CUresult cuboid(const CUDA_MEMCPY3D *c, CUstream handle, bool sync)
{
    struct tfr_stream *stream;
    CUresult result = enter_on(c, handle, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (c->srcLOD || c->dstLOD)
        return CUDA_ERROR_INVALID_VALUE;
    struct tfr_box box = {.width = c->WidthInBytes, .height = c->Height, .depth = c->Depth};
    struct said dst = {c->dstMemoryType, c->dstHost,
                       c->dstDevice,     {c->dstXInBytes, c->dstY, c->dstZ},
                       c->dstPitch,      c->dstHeight};
    struct said src = {c->srcMemoryType, c->srcHost,
                       c->srcDevice,     {c->srcXInBytes, c->srcY, c->srcZ},
                       c->srcPitch,      c->srcHeight};
    return copy_said(&box, &dst, &src, stream, sync);
}

/* The contexts say no more than the addresses do. */
static CUresult cuboid_peer(const CUDA_MEMCPY3D_PEER *c, CUstream handle, bool sync)
{
    CUDA_MEMCPY3D copy;
    if (!c)
        return cuboid(NULL, handle, sync);
    copy = (CUDA_MEMCPY3D){.srcXInBytes = c->srcXInBytes,
                           .srcY = c->srcY,
                           .srcZ = c->srcZ,
                           .srcLOD = c->srcLOD,
                           .srcMemoryType = c->srcMemoryType,
                           .srcHost = c->srcHost,
                           .srcDevice = c->srcDevice,
                           .srcPitch = c->srcPitch,
                           .srcHeight = c->srcHeight,
                           .dstXInBytes = c->dstXInBytes,
                           .dstY = c->dstY,
                           .dstZ = c->dstZ,
                           .dstLOD = c->dstLOD,
                           .dstMemoryType = c->dstMemoryType,
                           .dstHost = c->dstHost,
                           .dstDevice = c->dstDevice,
                           .dstPitch = c->dstPitch,
                           .dstHeight = c->dstHeight,
                           .WidthInBytes = c->WidthInBytes,
                           .Height = c->Height,
                           .Depth = c->Depth};
    return cuboid(&copy, handle, sync);
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

CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *copy)
{
    return cuboid(copy, CU_STREAM_LEGACY, true);
}

CUresult cuMemcpy3D_v2_ptds(const CUDA_MEMCPY3D *copy)
{
    return cuboid(copy, CU_STREAM_PER_THREAD, true);
}

CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *copy, CUstream stream)
{
    return cuboid(copy, stream, false);
}

CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *copy)
{
    return cuboid_peer(copy, CU_STREAM_LEGACY, true);
}

CUresult cuMemcpy3DPeer_ptds(const CUDA_MEMCPY3D_PEER *copy)
{
    return cuboid_peer(copy, CU_STREAM_PER_THREAD, true);
}

CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *copy, CUstream stream)
{
    return cuboid_peer(copy, stream, false);
}
