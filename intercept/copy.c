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
#include "intercept/copy_rect.h"
#include "intercept/gate.h"
#include "intercept/pull.h"
#include "intercept/stream.h"

enum {
    INLINE_MAX = 1024,
    CHUNK_MIN = 64 << 10,
    CHUNK_MAX = 512 << 10,
    IN_FLIGHT = 8,
    AHEAD_NS = 1000000, /* an asynchronous copy looks for lane space so long */
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

/* One piece that is staged already. */
static CUresult send_piece(struct tfr_stream *stream, uint64_t dst, const uint8_t *src,
                           uint64_t len, uint32_t flags, struct tfr_extent extent)
{
    struct tfr_copy_req req = {.kind = TFR_COPY_PUSH,
                               .dst = dst,
                               .src = tfr_extent_place(&extent),
                               .len = len,
                               .flags = TFR_COPY_MARK | flags};
    uint64_t seq;
    memcpy(tfr_extent_twin(&extent), src, len);
    TFR_COUNT(bytes_push, len);
    CUresult result = tfr_lane_ship(&extent, len, &req.stamp);
    if (result == CUDA_SUCCESS) /* the mark gives the extent back */
        result = tfr_copy_post(stream, &req, &seq);
    if (result == CUDA_SUCCESS)
        tfr_lane_give(extent, stream, seq);
    else
        tfr_lane_free(extent);
    return result;
}

/* The source has been read when it returns: the caller waits for room as long as it takes. */
static CUresult send_now(struct tfr_stream *stream, uint64_t dst, const uint8_t *src, uint64_t len,
                         uint32_t flags)
{
    CUresult result = CUDA_SUCCESS;
    for (uint64_t done = 0, n; result == CUDA_SUCCESS && done < len; done += n) {
        struct tfr_extent extent;
        n = piece_len(done, len - done);
        result = tfr_lane_take_some(&n, &extent);
        if (result == CUDA_SUCCESS) /* only the last piece has to fence */
            result =
                send_piece(stream, dst + done, src + done, n, done + n == len ? flags : 0, extent);
    }
    return result;
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
    uint64_t until = tfr_clock_now() + AHEAD_NS;
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_LANE_SPACE);
    do {
        tfr_relax_nap(&relax);
        tfr_copy_deliver();
        tfr_client_progress();
        if (tfr_lane_try_ahead(len, extent_out))
            return true;
    } while (tfr_clock_now() < until);
    if (moves == tfr_lane_moves())
        atomic_store_explicit(&stuck, moves, memory_order_relaxed);
    return false;
}

/* What found no room: registered memory is read when the stream gets there, pageable memory, which
 * the caller may change at once, goes to our heap first. */
static CUresult send_later(struct tfr_stream *stream, uint64_t dst, const uint8_t *src,
                           uint64_t len, enum tfr_place from)
{
    if (!tfr_gate_able(stream->ctx))
        return send_now(stream, dst, src, len, 0);
    if (from == TFR_PLACE_REGISTERED)
        return tfr_pull_to_device(stream, dst, src, len, NULL);
    void *heap = tfr_spill_take(src, len);
    return heap ? tfr_pull_to_device(stream, dst, heap, len, heap)
                : send_now(stream, dst, src, len, 0);
}

static CUresult send_ahead(struct tfr_stream *stream, uint64_t dst, const uint8_t *src,
                           uint64_t len, enum tfr_place from)
{
    CUresult result = CUDA_SUCCESS;
    for (uint64_t done = 0, n; result == CUDA_SUCCESS && done < len; done += n) {
        struct tfr_extent extent;
        n = piece_len(done, len - done);
        if (!tfr_copy_room(n, &extent))
            return send_later(stream, dst + done, src + done, len - done, from);
        result = send_piece(stream, dst + done, src + done, n, 0, extent);
    }
    return result;
}

static CUresult to_device(uint64_t dst, const void *src, enum tfr_place from, uint64_t len,
                          struct tfr_stream *stream, bool sync)
{
    if (from == TFR_PLACE_MAPPED) {
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
    if (from == TFR_PLACE_REGISTERED && tfr_copy_unsettled((uint64_t)src, len)) {
        if (tfr_gate_able(stream->ctx)) {
            result = tfr_pull_to_device(stream, dst, src, len, NULL);
            return result == CUDA_SUCCESS && sync ? tfr_stream_wait(stream) : result;
        }
        tfr_copy_deliver_into((uint64_t)src, len);
    }
    if (len <= INLINE_MAX && perf_inline)
        result = send_inline(stream, dst, src, len, sync ? TFR_COPY_FENCE : 0);
    else if (sync)
        result = send_now(stream, dst, src, len, TFR_COPY_FENCE);
    else
        result = send_ahead(stream, dst, src, len, from);
    return result == CUDA_SUCCESS && sync && !perf_early ? tfr_stream_wait(stream) : result;
}

/* ---- device to host ---- */

struct owed {
    struct owed *next;
    struct tfr_owed body;
};

static pthread_mutex_t owed_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list */
static struct owed *owed_head, **owed_tail = &owed_head;
static _Atomic uint32_t owed_n; /* length of the list, read without the lock as a hint */

bool tfr_copy_owed(void)
{
    return atomic_load_explicit(&owed_n, memory_order_acquire) != 0;
}

static bool owed_overlaps(const struct tfr_owed *o, uint64_t at, uint64_t len)
{
    uint64_t rows = (o->depth - 1) * o->dst.rows + o->height;
    uint64_t end = o->dst.at + (rows - 1) * o->dst.pitch + o->width;
    return o->dst.at < at + len && at < end;
}

bool tfr_copy_unsettled(uint64_t at, uint64_t len)
{
    /* What kernels see of host memory they may be waiting for: the program fills its buffers after
     * it has posted their copies, and then tells the kernel. */
    bool into = tfr_range_mapped() || tfr_gate_caller_pending() || tfr_pull_brings();
    if (into || !tfr_copy_owed())
        return into;
    pthread_mutex_lock(&owed_lock);
    for (const struct owed *o = owed_head; o && !into; o = o->next)
        into = owed_overlaps(&o->body, at, len);
    pthread_mutex_unlock(&owed_lock);
    return into;
}

static void owed_bring(const struct tfr_owed *o)
{
    const uint8_t *from = tfr_extent_twin(&o->extent);
    for (uint64_t z = 0; z < o->depth; z++) {
        uint8_t *row = (uint8_t *)o->dst.at + z * o->dst.rows * o->dst.pitch;
        for (uint64_t y = 0; y < o->height; y++, row += o->dst.pitch, from += o->width)
            memcpy(row, from, o->width);
    }
    tfr_lane_free(o->extent);
}

CUresult tfr_copy_owe(const struct tfr_owed *body)
{
    struct owed *o = malloc(sizeof *o);
    if (!o) {
        CUresult result =
            tfr_wait_word(&tfr_client.feedback->stream[body->word], body->seq, TFR_WAIT_STREAM);
        if (result == CUDA_SUCCESS)
            owed_bring(body);
        return result;
    }
    o->body = *body;
    o->next = NULL;
    pthread_mutex_lock(&owed_lock);
    *owed_tail = o;
    owed_tail = &o->next;
    atomic_fetch_add_explicit(&owed_n, 1, memory_order_release);
    pthread_mutex_unlock(&owed_lock);
    /* Should nobody ever wait for it.  Without a thread it comes when somebody does. */
    if (tfr_tick_start() == CUDA_SUCCESS)
        tfr_tick_wake();
    return CUDA_SUCCESS;
}

/* Stream words are stored in sets that form a consistent cut; while one is being stored, a stream
 * may be seen to have passed an event whose own stream's word is still on its way. */
static void cut_settle(void)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_LOCK);
    while (atomic_load_explicit(&tfr_client.feedback->cut, memory_order_acquire) & 1) {
        if (tfr_relax(&relax) == TFR_RELAX_SPUN)
            continue;
        if (tfr_client_look() != CUDA_SUCCESS)
            return;
        tfr_relax_nap(&relax);
    }
}

void tfr_copy_deliver(void)
{
    /* Whose wait is over may read what was brought home at a gate: the news went through the
     * executor, which is no order that this process could rely on. */
    (void)tfr_pull_brings();
    if (__builtin_expect(!tfr_copy_owed(), 1))
        return;
    cut_settle();
    pthread_mutex_lock(&owed_lock);
    for (struct owed **at = &owed_head; *at;) {
        struct owed *o = *at;
        if (!tfr_word_reached(o->body.word, o->body.seq)) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        if (!o->next)
            owed_tail = at;
        owed_bring(&o->body);
        free(o);
        /* Only now: who finds nothing owed does not take the lock, and the bytes must be there. */
        atomic_fetch_sub_explicit(&owed_n, 1, memory_order_release);
    }
    pthread_mutex_unlock(&owed_lock);
}

bool tfr_copy_due(void)
{
    bool due = false;
    if (!tfr_copy_owed())
        return false;
    pthread_mutex_lock(&owed_lock);
    for (struct owed *o = owed_head; o && !due; o = o->next)
        due = tfr_word_reached(o->body.word, o->body.seq);
    pthread_mutex_unlock(&owed_lock);
    return due;
}

void tfr_copy_deliver_into(uint64_t at, uint64_t len)
{
    CUresult result = CUDA_SUCCESS;
    while (tfr_copy_owed() && result == CUDA_SUCCESS) {
        struct tfr_point point = {0};
        pthread_mutex_lock(&owed_lock);
        for (struct owed *o = owed_head; o && !point.seq; o = o->next)
            if (owed_overlaps(&o->body, at, len))
                point = (struct tfr_point){o->body.word, o->body.seq};
        pthread_mutex_unlock(&owed_lock);
        if (!point.seq)
            break;
        result =
            tfr_wait_word(&tfr_client.feedback->stream[point.word], point.seq, TFR_WAIT_STREAM);
        tfr_copy_deliver();
    }
}

void tfr_copy_forget_all(void)
{
    tfr_pull_forget_all();
    pthread_mutex_lock(&owed_lock);
    while (owed_head) {
        struct owed *o = owed_head;
        owed_head = o->next;
        free(o);
    }
    owed_tail = &owed_head;
    atomic_store_explicit(&owed_n, 0, memory_order_release);
    pthread_mutex_unlock(&owed_lock);
}

/* One piece into an extent; its mark tells that it is there. */
static CUresult pull_piece(struct tfr_stream *stream, uint64_t src, uint64_t len,
                           const struct tfr_extent *extent, uint64_t *seq_out)
{
    struct tfr_copy_req req = {.kind = TFR_COPY_PULL,
                               .dst = tfr_extent_place(extent),
                               .src = src,
                               .len = len,
                               .flags = TFR_COPY_MARK};
    return tfr_copy_post(stream, &req, seq_out);
}

static CUresult pull_later(struct tfr_stream *stream, uint8_t *dst, uint64_t src, uint64_t len)
{
    CUresult result = CUDA_SUCCESS;
    bool gates = tfr_gate_able(stream->ctx);
    /* What a kernel writes into mapped memory behind the copy may tell the program that it is done.
     */
    if (gates && tfr_range_mapped())
        return tfr_pull_from_device(stream, dst, src, len);
    for (uint64_t done = 0, n; result == CUDA_SUCCESS && done < len; done += n) {
        n = piece_len(done, len - done);
        struct tfr_owed owed = {.word = stream->word,
                                .dst = {(uint64_t)dst + done, n, 1},
                                .width = n,
                                .height = 1,
                                .depth = 1};
        if (!tfr_copy_room(n, &owed.extent)) {
            if (gates)
                return tfr_pull_from_device(stream, dst + done, src + done, len - done);
            result = tfr_lane_take(n, &owed.extent);
        }
        if (result == CUDA_SUCCESS)
            result = pull_piece(stream, src + done, n, &owed.extent, &owed.seq);
        if (result == CUDA_SUCCESS)
            result = tfr_copy_owe(&owed);
    }
    return result;
}

/* Waits, with several pieces in flight: the copy engine fills one while we empty another. */
static CUresult pull_now(struct tfr_stream *stream, uint8_t *dst, uint64_t src, uint64_t len)
{
    struct {
        struct tfr_extent extent;
        uint64_t seq, len;
    } flight[IN_FLIGHT];
    uint64_t asked = 0, done = 0;
    unsigned int asked_n = 0, done_n = 0;
    CUresult result = CUDA_SUCCESS;
    while (done < len) {
        while (result == CUDA_SUCCESS && asked < len && asked_n - done_n < IN_FLIGHT) {
            uint64_t n = piece_len(asked, len - asked);
            unsigned int at = asked_n % IN_FLIGHT;
            /* Who waits for room has none: else threads that pull would wait for each other. */
            if (asked_n == done_n)
                result = tfr_lane_take_some(&n, &flight[at].extent);
            else if (!tfr_lane_try_ahead(n, &flight[at].extent))
                break;
            bool placed = result == CUDA_SUCCESS;
            if (placed)
                result = pull_piece(stream, src + asked, n, &flight[at].extent, &flight[at].seq);
            if (result == CUDA_SUCCESS) {
                flight[at].len = n;
                asked += n;
                asked_n++;
            } else if (placed) {
                tfr_lane_free(flight[at].extent);
            }
        }
        if (done_n == asked_n)
            return result;
        unsigned int at = done_n++ % IN_FLIGHT;
        CUresult waited = wait_for(stream, flight[at].seq);
        if (waited != CUDA_SUCCESS)
            return waited;
        memcpy(dst + done, tfr_extent_twin(&flight[at].extent), flight[at].len);
        tfr_lane_free(flight[at].extent);
        done += flight[at].len;
    }
    return result;
}

static CUresult from_device(void *dst, enum tfr_place to, uint64_t src, uint64_t len,
                            struct tfr_stream *stream, bool sync)
{
    if (to == TFR_PLACE_MAPPED) {
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
    TFR_COUNT(bytes_push, len);
    if (!sync && to == TFR_PLACE_REGISTERED &&
        (tfr_gate_able(stream->ctx) || len <= tfr_client.lanes[0].len / 8))
        return pull_later(stream, dst, src, len);
    return pull_now(stream, dst, src, len);
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
        result = to_device(to.gpu, (const void *)src, from.place, len, stream, sync);
    else if (from.place == TFR_PLACE_GPU)
        return from_device((void *)dst, to.place, from.gpu, len, stream, sync);
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
