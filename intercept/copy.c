/* Copies: which path the bytes take.
 *
 *   inline   <= 1 KiB to the device: behind the record
 *   push     pageable or registered source: into a lane extent now, a record with its place
 *   home     to pageable or registered memory: the executor fills an extent, we bring it home
 *   pull     (pull.c) registered memory that something may still write, or no room in the lane: the
 *            stream waits at a gate until we have moved the bytes.  Pageable sources spill to our
 * heap first mapped   pinned memory of ours: the GPU's copy engine reads and writes it in place
 *
 * Surprising: a copy into registered memory is finished by whoever learns that its stream has
 * passed (tfr_copy_deliver), because the executor cannot write the application's own pages. */
#define TFR_LOG_PART "intercept"
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/env.h"
#include "intercept/bulk.h"
#include "intercept/copy_rect.h"
#include "intercept/gate.h"
#include "intercept/gather.h"
#include "intercept/pull.h"
#include "intercept/stream.h"

enum {
    INLINE_MAX = 1024,
    CHUNK_MIN = 64 << 10,
    CHUNK_MAX = 512 << 10,
    IN_FLIGHT = 8,
    COMING_HOME = 4, /* of these, pieces that leave the lane at once */
    DIRECT_MIN = 256 << 10,
    AHEAD_NS = 2000000, /* an asynchronous copy looks for lane space so long */
};

static bool perf_inline, perf_early, perf_ahead; /* switches, read when a session begins */

void tfr_copy_init(void)
{
    perf_inline = tfr_perf_on("inline");
    perf_early = tfr_perf_on("early");
    perf_ahead = tfr_perf_on("ahead");
}

/* Pieces grow: a small first one lets the other side start early, large ones suit a copy engine. */
static uint64_t piece_len(uint64_t done, uint64_t left)
{
    uint64_t n = CHUNK_MIN;
    while (n < CHUNK_MAX && n <= done)
        n *= 2;
    return left < n ? left : n;
}

CUresult tfr_copy_post(struct tfr_stream *stream, const struct tfr_copy_req *body,
                       uint64_t *seq_out)
{
    struct tfr_copy_req *req = tfr_post_begin(TFR_OP_copy, sizeof *req);
    if (!req)
        return tfr_post_failed();
    struct tfr_rec head = req->head;
    *req = *body;
    req->head = head;
    req->stream = stream->id;
    if (body->flags & TFR_COPY_MARK)
        atomic_store_explicit(&stream->mark, req->head.seq, memory_order_relaxed);
    if (body->len >= CHUNK_MIN)
        tfr_gather_urge();
    return tfr_post_end_on(stream, seq_out);
}

bool tfr_copy_early(void)
{
    return perf_early;
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

/* ---- host to device ---- */

static CUresult send_inline(struct tfr_stream *stream, uint64_t dst, const void *src, uint64_t len,
                            uint32_t flags)
{
    struct tfr_copy_req *req = tfr_post_begin(TFR_OP_copy, (uint32_t)(sizeof *req + len));
    if (!req)
        return tfr_post_failed();
    req->stream = stream->id;
    req->dst = dst;
    req->src = 0;
    req->len = len;
    req->kind = TFR_COPY_INLINE;
    req->flags = flags;
    req->stamp = 0;
    memcpy(req + 1, src, len);
    TFR_COUNT(bytes_inline, len);
    return tfr_post_end_on(stream, NULL);
}

/* Where the bytes of a copy to the device lie. */
struct source {
    const uint8_t *at;
    enum tfr_place place;
    struct tfr_mem *mem;
    bool direct;  /* the transport reads them where they are */
    bool awaited; /* and they are settled before the copy returns */
};

/* Into the lane: staged, or straight from the source, which then may not change before
 * tfr_lane_settle. */
static CUresult piece_ship(const struct source *src, uint64_t done, uint64_t len,
                           const struct tfr_extent *extent, uint64_t *stamp_out)
{
    if (!src->direct) {
        memcpy(tfr_extent_twin(extent), src->at + done, len);
        TFR_COUNT(bytes_push, len);
        return tfr_lane_ship(extent, len, stamp_out);
    }
    const struct tfr_load load = {.extent = extent,
                                  .local = (void *)(uintptr_t)(src->at + done),
                                  .mem = src->mem,
                                  .len = len,
                                  .awaited = src->awaited};
    TFR_COUNT(bytes_direct, len);
    return tfr_bulk_put(&load, stamp_out);
}

/* The bytes [done, done + len) of the source. */
static CUresult send_piece(struct tfr_stream *stream, uint64_t dst, const struct source *src,
                           uint64_t done, uint64_t len, uint32_t flags, struct tfr_extent extent)
{
    struct tfr_copy_req req = {.kind = TFR_COPY_PUSH,
                               .dst = dst + done,
                               .src = tfr_extent_place(&extent),
                               .len = len,
                               .flags = TFR_COPY_MARK | flags};
    uint64_t seq;
    CUresult result = piece_ship(src, done, len, &extent, &req.stamp);
    if (result == CUDA_SUCCESS) /* the mark gives the extent back */
        result = tfr_copy_post(stream, &req, &seq);
    if (result == CUDA_SUCCESS)
        tfr_lane_give(extent, stream, seq);
    else
        tfr_lane_free(extent);
    return result;
}

/* Nothing reads the source any more. */
static CUresult flight_end(const struct tfr_extent flight[IN_FLIGHT], unsigned int n,
                           CUresult result)
{
    for (unsigned int i = 0; i < n && i < IN_FLIGHT; i++) {
        CUresult settled = tfr_lane_settle(&flight[i]);
        result = result == CUDA_SUCCESS ? settled : result;
    }
    return result;
}

/* The source has been read when it returns: the caller waits for room as long as it takes. */
static CUresult send_now(struct tfr_stream *stream, uint64_t dst, const struct source *src,
                         uint64_t len, uint32_t flags)
{
    struct tfr_extent flight[IN_FLIGHT];
    CUresult result = CUDA_SUCCESS;
    unsigned int n = 0;
    for (uint64_t done = 0, part; result == CUDA_SUCCESS && done < len; done += part, n++) {
        struct tfr_extent *extent = &flight[n % IN_FLIGHT];
        if (src->direct && n >= IN_FLIGHT)
            result = tfr_lane_settle(extent);
        if (result != CUDA_SUCCESS)
            break;
        part = piece_len(done, len - done);
        result = tfr_lane_take_some(&part, extent);
        if (result != CUDA_SUCCESS)
            break; /* there is no extent to settle */
        /* only the last piece has to fence */
        result = send_piece(stream, dst, src, done, part, done + part == len ? flags : 0, *extent);
    }
    return src->direct ? flight_end(flight, n, result) : result;
}

/* While the lane moves somebody has to take in what comes home, and it is us. */
static bool room_wait(uint64_t len, struct tfr_extent *extent_out)
{
    uint64_t until = tfr_clock_now() + AHEAD_NS;
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_LANE_SPACE);
    bool found = false;
    relax.patience = TFR_MOVE_PATIENCE;
    atomic_fetch_add_explicit(&tfr_client.movers, 1, memory_order_relaxed);
    do {
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_wait_aside(tfr_lane_freed, 1);
        tfr_copy_deliver();
        tfr_client_progress();
        found = tfr_lane_try_ahead(len, extent_out);
    } while (!found && tfr_clock_now() < until);
    atomic_fetch_sub_explicit(&tfr_client.movers, 1, memory_order_relaxed);
    return found;
}

bool tfr_copy_room(uint64_t len, struct tfr_extent *extent_out)
{
    if (!perf_ahead)
        return false;
    if (tfr_lane_try_ahead(len, extent_out))
        return true;
    /* What did not move while somebody waited will not move for the next one either. */
    static _Atomic uint64_t stuck = UINT64_MAX;
    uint64_t moves = tfr_lane_moves();
    if (moves == atomic_load_explicit(&stuck, memory_order_relaxed))
        return false;
    bool found = room_wait(len, extent_out);
    if (!found && moves == tfr_lane_moves())
        atomic_store_explicit(&stuck, moves, memory_order_relaxed);
    return found;
}

/* What found no room, from `done` on: registered memory is read when the stream gets there,
 * pageable memory, which the caller may change at once, goes to our heap first. */
static CUresult send_later(struct tfr_stream *stream, uint64_t dst, const struct source *src,
                           uint64_t done, uint64_t len)
{
    struct source rest = *src;
    rest.at += done;
    dst += done;
    len -= done;
    if (!tfr_gate_able(stream->ctx))
        return send_now(stream, dst, &rest, len, 0);
    if (src->place == TFR_PLACE_REGISTERED)
        return tfr_pull_to_device(stream, dst, rest.at, len, NULL);
    void *heap = tfr_spill_take(rest.at, len);
    return heap ? tfr_pull_to_device(stream, dst, heap, len, heap)
                : send_now(stream, dst, &rest, len, 0);
}

/* Staged, or where the transport reads the source itself from there: registered memory, which stays
 * as it is, or so much pageable memory that a copy of it would take longer than the link. */
static CUresult send_ahead(struct tfr_stream *stream, uint64_t dst, const struct source *src,
                           uint64_t len)
{
    struct source ahead = *src;
    struct tfr_extent flight[IN_FLIGHT];
    bool stays = src->place == TFR_PLACE_REGISTERED;
    unsigned int n = 0;
    uint64_t done = 0, part;
    CUresult result = CUDA_SUCCESS;
    ahead.direct = src->direct && (stays || len >= DIRECT_MIN);
    ahead.awaited = ahead.direct && !stays;
    for (; result == CUDA_SUCCESS && done < len; done += part, n++) {
        struct tfr_extent *extent = &flight[n % IN_FLIGHT];
        if (ahead.awaited && n >= IN_FLIGHT)
            result = tfr_lane_settle(extent);
        if (result != CUDA_SUCCESS)
            break;
        part = piece_len(done, len - done);
        if (!tfr_copy_room(part, extent))
            break;
        result = send_piece(stream, dst, &ahead, done, part, 0, *extent);
    }
    if (ahead.awaited)
        result = flight_end(flight, n, result);
    return result == CUDA_SUCCESS && done < len ? send_later(stream, dst, src, done, len) : result;
}

static CUresult to_device(uint64_t dst, const void *src, const struct tfr_side *side, uint64_t len,
                          struct tfr_stream *stream, bool sync)
{
    const struct source from = {src, side->place, side->mem, tfr_bulk_takes(side->mem), true};
    if (from.place == TFR_PLACE_MAPPED) {
        struct tfr_copy_req req = {.kind = TFR_COPY_TO_DEVICE,
                                   .dst = dst,
                                   .src = (uint64_t)src,
                                   .len = len,
                                   .flags = sync ? TFR_COPY_MARK : 0};
        uint64_t seq;
        TFR_COUNT(bytes_mapped, len);
        CUresult result = tfr_copy_post(stream, &req, &seq);
        return result == CUDA_SUCCESS && sync ? wait_for(stream, seq) : result;
    }
    CUresult result;
    /* Something that the stream comes after may still write the source. */
    if (from.place == TFR_PLACE_REGISTERED && tfr_copy_unsettled((uint64_t)src, len)) {
        if (tfr_gate_able(stream->ctx)) {
            result = tfr_pull_to_device(stream, dst, src, len, NULL);
            return result == CUDA_SUCCESS && sync ? tfr_stream_wait(stream) : result;
        }
        tfr_copy_deliver_into((uint64_t)src, len);
    }
    if (len <= INLINE_MAX && perf_inline)
        result = send_inline(stream, dst, src, len, sync ? TFR_COPY_FENCE : 0);
    else if (sync)
        result = send_now(stream, dst, &from, len, TFR_COPY_FENCE);
    else
        result = send_ahead(stream, dst, &from, len);
    return result == CUDA_SUCCESS && sync && !perf_early ? tfr_stream_wait(stream) : result;
}

/* ---- device to host ---- */

/* One piece into an extent; its mark tells that it is there. */
static CUresult pull_piece(struct tfr_stream *stream, uint64_t src, uint64_t len,
                           const struct tfr_extent *extent, uint64_t *seq_out)
{
    struct tfr_copy_req req = {.kind = TFR_COPY_PULL,
                               .dst = tfr_extent_place(extent),
                               .src = src,
                               .len = len,
                               .flags = TFR_COPY_MARK | tfr_home_flags(len)};
    return tfr_copy_post(stream, &req, seq_out);
}

static CUresult pull_later(struct tfr_stream *stream, uint8_t *dst, struct tfr_mem *mem,
                           uint64_t src, uint64_t len)
{
    CUresult result = CUDA_SUCCESS;
    bool gates = tfr_gate_able(stream->ctx);
    /* What a kernel writes into mapped memory behind the copy may tell the program that it is done.
     */
    if (gates && tfr_range_mapped())
        return tfr_pull_from_device(stream, dst, mem, src, len);
    for (uint64_t done = 0, n; result == CUDA_SUCCESS && done < len; done += n) {
        n = piece_len(done, len - done);
        struct tfr_owed owed = {.ctx = stream->ctx,
                                .word = stream->word,
                                .flags = tfr_home_flags(n),
                                .mem = mem,
                                .dst = {(uint64_t)dst + done, n, 1},
                                .width = n,
                                .height = 1,
                                .depth = 1};
        if (!tfr_copy_room(n, &owed.extent)) {
            if (gates)
                return tfr_pull_from_device(stream, dst + done, mem, src + done, len - done);
            result = tfr_lane_take(n, &owed.extent);
        }
        if (result != CUDA_SUCCESS)
            break; /* there is no extent to free */
        result = pull_piece(stream, src + done, n, &owed.extent, &owed.seq);
        if (result == CUDA_SUCCESS)
            result = tfr_copy_owe(&owed);
        else
            tfr_lane_free(owed.extent);
    }
    return result;
}

/* A copy that waits, with several pieces in flight: the copy engine fills one while another comes
 * home.  Free-running counts, asked >= begun >= done. */
struct pulling {
    struct tfr_home home[IN_FLIGHT];
    uint64_t seq[IN_FLIGHT];
    unsigned int asked, begun, done;
};

/* Asks for the piece that begins at `at`; *n_out 0: there is no room now. */
static CUresult pulling_ask(struct pulling *p, struct tfr_stream *stream, uint64_t src, uint64_t at,
                            uint64_t len, uint64_t *n_out)
{
    struct tfr_home *home = &p->home[p->asked % IN_FLIGHT];
    uint64_t n = piece_len(at, len - at);
    CUresult result = CUDA_SUCCESS;
    *n_out = 0;
    /* Who waits for room has none: else threads that pull would wait for each other. */
    if (p->asked == p->done)
        result = tfr_lane_take_some(&n, &home->extent);
    else if (!tfr_lane_try_ahead(n, &home->extent))
        return CUDA_SUCCESS;
    if (result != CUDA_SUCCESS)
        return result;
    home->len = n;
    home->flags = tfr_home_flags(n);
    result = pull_piece(stream, src + at, n, &home->extent, &p->seq[p->asked % IN_FLIGHT]);
    if (result == CUDA_SUCCESS)
        p->asked++;
    else
        tfr_lane_free(home->extent);
    *n_out = n;
    return result;
}

/* The oldest piece that the stream still has to fill. */
static CUresult pulling_begin(struct pulling *p, struct tfr_stream *stream)
{
    CUresult result = wait_for(stream, p->seq[p->begun % IN_FLIGHT]);
    if (result != CUDA_SUCCESS)
        return result; /* it may still be filled */
    return tfr_home_begin(&p->home[p->begun++ % IN_FLIGHT]);
}

static CUresult pulling_end(struct pulling *p)
{
    const struct tfr_home *home = &p->home[p->done++ % IN_FLIGHT];
    CUresult result = tfr_home_end(home);
    tfr_lane_free(home->extent);
    return result;
}

static CUresult pull_now(struct tfr_stream *stream, uint8_t *dst, struct tfr_mem *mem, uint64_t src,
                         uint64_t len)
{
    struct pulling p = {.asked = 0};
    CUresult result = CUDA_SUCCESS;
    atomic_fetch_add_explicit(&tfr_client.movers, 1, memory_order_relaxed);
    for (uint64_t asked = 0, n = 1; result == CUDA_SUCCESS && (asked < len || p.done != p.asked);
         n = 1) {
        while (result == CUDA_SUCCESS && n && asked < len && p.asked - p.done < IN_FLIGHT) {
            struct tfr_home *home = &p.home[p.asked % IN_FLIGHT];
            home->dst = dst + asked;
            home->mem = mem;
            home->awaited = true;
            result = pulling_ask(&p, stream, src, asked, len, &n);
            asked += n;
        }
        if (result != CUDA_SUCCESS)
            break;
        if (p.begun != p.asked && p.begun - p.done < COMING_HOME)
            result = pulling_begin(&p, stream);
        else
            result = pulling_end(&p);
    }
    while (p.done != p.begun) /* nothing writes to the program's memory when we return */
        pulling_end(&p);
    for (; p.done != p.asked; p.done++) /* the stream still fills these */
        tfr_lane_give(p.home[p.done % IN_FLIGHT].extent, stream, p.seq[p.done % IN_FLIGHT]);
    atomic_fetch_sub_explicit(&tfr_client.movers, 1, memory_order_relaxed);
    return result;
}

static CUresult from_device(void *dst, const struct tfr_side *to, uint64_t src, uint64_t len,
                            struct tfr_stream *stream, bool sync)
{
    if (to->place == TFR_PLACE_MAPPED) {
        struct tfr_copy_req req = {.kind = TFR_COPY_FROM_DEVICE,
                                   .dst = (uint64_t)dst,
                                   .src = src,
                                   .len = len,
                                   .flags = sync ? TFR_COPY_MARK : 0};
        uint64_t seq;
        TFR_COUNT(bytes_mapped, len);
        CUresult result = tfr_gate_settle(stream);
        if (result == CUDA_SUCCESS)
            result = tfr_copy_post(stream, &req, &seq);
        return result == CUDA_SUCCESS && sync ? wait_for(stream, seq) : result;
    }
    if (!sync && to->place == TFR_PLACE_REGISTERED &&
        (tfr_gate_able(stream->ctx) || len <= tfr_client.lanes[0].len / 8))
        return pull_later(stream, dst, to->mem, src, len);
    return pull_now(stream, dst, to->mem, src, len);
}

/* ---- which way ---- */

/* Natively too it is the host that waits. */
static CUresult on_host(void *dst, const void *src, uint64_t len, struct tfr_stream *stream)
{
    CUresult result = tfr_stream_wait(stream);
    if (result == CUDA_SUCCESS)
        memmove(dst, src, len);
    return result;
}

CUresult tfr_copy_bytes(enum tfr_direction way, uint64_t dst, uint64_t src, uint64_t len,
                        struct tfr_stream *stream, bool sync)
{
    struct tfr_side to, from;
    if (!len)
        return CUDA_SUCCESS;
    CUresult result = tfr_side_find(dst, len, way == TFR_TO_DEVICE || way == TFR_ON_DEVICE, &to);
    if (result == CUDA_SUCCESS)
        result = tfr_side_find(src, len, way == TFR_FROM_DEVICE || way == TFR_ON_DEVICE, &from);
    if (result == CUDA_SUCCESS && to.place == TFR_PLACE_GPU && to.host)
        result = tfr_gate_settle(stream);
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_copy_req on_device = {
        .kind = TFR_COPY_DEVICE, .dst = to.gpu, .src = from.gpu, .len = len};
    if (to.place == TFR_PLACE_GPU && from.place == TFR_PLACE_GPU)
        result = tfr_copy_post(stream, &on_device, NULL);
    else if (to.place == TFR_PLACE_GPU)
        result = to_device(to.gpu, (const void *)src, &from, len, stream, sync);
    else if (from.place == TFR_PLACE_GPU)
        return from_device((void *)dst, &to, from.gpu, len, stream, sync);
    else
        return on_host((void *)dst, (const void *)src, len, stream);
    /* To pinned memory said to be device memory: the application sees the bytes. */
    return result == CUDA_SUCCESS && sync && to.host ? tfr_stream_wait(stream) : result;
}

/* ---- the exported calls ---- */

static CUresult copy(enum tfr_direction way, uint64_t dst, uint64_t src, size_t len,
                     CUstream handle, bool sync)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *stream = tfr_stream_of(handle);
    return stream ? tfr_copy_bytes(way, dst, src, len, stream, sync) : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t len)
{
    return copy(TFR_BY_ADDRESS, dst, src, len, CU_STREAM_LEGACY, true);
}

CUresult cuMemcpy_ptds(CUdeviceptr dst, CUdeviceptr src, size_t len)
{
    return copy(TFR_BY_ADDRESS, dst, src, len, CU_STREAM_PER_THREAD, true);
}

CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t len, CUstream stream)
{
    return copy(TFR_BY_ADDRESS, dst, src, len, stream, false);
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr dst, const void *src, size_t len)
{
    return copy(TFR_TO_DEVICE, dst, (uint64_t)src, len, CU_STREAM_LEGACY, true);
}

CUresult cuMemcpyHtoD_v2_ptds(CUdeviceptr dst, const void *src, size_t len)
{
    return copy(TFR_TO_DEVICE, dst, (uint64_t)src, len, CU_STREAM_PER_THREAD, true);
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dst, const void *src, size_t len, CUstream stream)
{
    return copy(TFR_TO_DEVICE, dst, (uint64_t)src, len, stream, false);
}

CUresult cuMemcpyDtoH_v2(void *dst, CUdeviceptr src, size_t len)
{
    return copy(TFR_FROM_DEVICE, (uint64_t)dst, src, len, CU_STREAM_LEGACY, true);
}

CUresult cuMemcpyDtoH_v2_ptds(void *dst, CUdeviceptr src, size_t len)
{
    return copy(TFR_FROM_DEVICE, (uint64_t)dst, src, len, CU_STREAM_PER_THREAD, true);
}

CUresult cuMemcpyDtoHAsync_v2(void *dst, CUdeviceptr src, size_t len, CUstream stream)
{
    return copy(TFR_FROM_DEVICE, (uint64_t)dst, src, len, stream, false);
}

CUresult cuMemcpyDtoD_v2(CUdeviceptr dst, CUdeviceptr src, size_t len)
{
    return copy(TFR_ON_DEVICE, dst, src, len, CU_STREAM_LEGACY, true);
}

CUresult cuMemcpyDtoD_v2_ptds(CUdeviceptr dst, CUdeviceptr src, size_t len)
{
    return copy(TFR_ON_DEVICE, dst, src, len, CU_STREAM_PER_THREAD, true);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dst, CUdeviceptr src, size_t len, CUstream stream)
{
    return copy(TFR_ON_DEVICE, dst, src, len, stream, false);
}
