/* Side queues of streams that have too much unfinished work.  How much is unfinished is read off
 * the mirror: marks that the client asked for, and where those are rare, marks of our own, which
 * have a mirror of their own.
 *
 * No cycle is possible: a kept record waits for records that came before it, and the oldest one of
 * all for the GPU alone, which has been given everything that it in turn depends on. */
#define TFR_LOG_PART "executor"
#include "executor/park.h"

#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "executor/arrival.h"
#include "executor/stat.h"
#include "tfr_ops.h"

enum { DEPTH_MIN = 2, BYTES_MAX = 64 << 20 };

struct tfr_parked {
    struct tfr_parked *next; /* in its stream's queue, or of the barriers */
    struct tfr_parked *event_next, *fence_next;
    struct tfr_stream *stream;
    struct tfr_event *event;
    const struct tfr_op_info *info;
    struct tfr_rec *rec;
};

void tfr_park_init(struct tfr_session *s)
{
    uint64_t depth = tfr_env_u64("TFR_QUEUE_DEPTH");
    struct tfr_park *p = &s->park;
    p->depth = depth < DEPTH_MIN ? DEPTH_MIN : depth > 1 << 20 ? 1 << 20 : (uint32_t)depth;
    p->fences_last = &p->fences;
}

bool tfr_park_full(const struct tfr_session *s)
{
    return s->park.bytes > BYTES_MAX;
}

struct tfr_stream *tfr_park_stream(struct tfr_session *s, uint64_t id)
{
    const struct tfr_parked *replay = s->park.replay;
    if (replay && replay->stream && replay->stream->id == id)
        return replay->stream;
    return tfr_object_aux(s, TFR_KIND_STREAM, id);
}

struct tfr_event *tfr_park_event(struct tfr_session *s, uint64_t id)
{
    const struct tfr_parked *replay = s->park.replay;
    if (replay && replay->event && replay->event->id == id)
        return replay->event;
    return tfr_object_aux(s, TFR_KIND_EVENT, id);
}

/* ---- how much of a stream is unfinished ---- */

static uint64_t unfinished(const struct tfr_stream *stream)
{
    return stream->submitted - stream->done;
}

/* A mark that is no news: it goes to a mirror that nobody shows, so that it wakes nobody. */
static CUresult mark(struct tfr_session *s, struct tfr_stream *stream, uint64_t seq)
{
    stream->submitted++;
    return s->cu->cuStreamWriteValue64_v2(
        stream->real, s->mirror_gpu + (TFR_STREAM_SLOTS + stream->word) * sizeof(uint64_t), seq, 0);
}

/* A mark from whose arrival we see how far the stream is; the client's own will do. */
static CUresult checkpoint(struct tfr_session *s, struct tfr_stream *stream)
{
    CUresult result = CUDA_SUCCESS;
    if (stream->submitted == stream->covered || stream->check_n == TFR_STREAM_CHECKS)
        return result;
    if (atomic_load_explicit(&s->asked[stream->word], memory_order_relaxed) < stream->last_seq) {
        result = tfr_session_enter(s, (uint16_t)(stream->ctx + 1));
        if (result == CUDA_SUCCESS)
            result = mark(s, stream, stream->last_seq);
    }
    if (result != CUDA_SUCCESS)
        return result;
    stream->check[stream->check_n].seq = stream->last_seq;
    stream->check[stream->check_n++].submitted = stream->submitted;
    stream->covered = stream->submitted;
    return result;
}

static void progress(struct tfr_session *s, struct tfr_stream *stream)
{
    /* both pair with the GPU's write */
    uint64_t seen = atomic_load_explicit(&s->mirror[stream->word], memory_order_acquire);
    uint64_t own =
        atomic_load_explicit(&s->mirror[TFR_STREAM_SLOTS + stream->word], memory_order_acquire);
    seen = seen > own ? seen : own;
    uint32_t passed = 0;
    while (passed < stream->check_n && stream->check[passed].seq <= seen)
        stream->done = stream->check[passed++].submitted;
    if (!passed)
        return;
    stream->check_n -= passed;
    memmove(stream->check, stream->check + passed, stream->check_n * sizeof stream->check[0]);
}

/* When to look at the stream again. */
static void limit_set(struct tfr_session *s, struct tfr_stream *stream)
{
    uint64_t full = stream->done + s->park.depth;
    uint64_t next = stream->covered + s->park.depth / 2;
    stream->limit = next < full && stream->check_n < TFR_STREAM_CHECKS ? next : full;
}

/* ---- order ---- */

/* Does a kept record that joins through the legacy stream come before? */
static bool legacy_waits(const struct tfr_session *s, const struct tfr_stream *stream, uint64_t seq)
{
    if (!stream->joins_legacy)
        return false;
    for (const struct tfr_stream *t = s->park.streams; t; t = t->parked_next)
        if (t != stream && t->first && t->ctx == stream->ctx && t->joins_legacy &&
            (t->real == CU_STREAM_LEGACY || stream->real == CU_STREAM_LEGACY) &&
            t->first->rec->seq < seq)
            return true;
    return false;
}

/* Must the record `seq` of the stream wait for another stream's kept record? */
static bool others_first(const struct tfr_session *s, const struct tfr_stream *stream,
                         const struct tfr_event *event, const struct tfr_parked *self, uint64_t seq)
{
    const struct tfr_parked *fence = s->park.fences;
    if (event && event->first && event->first != self)
        return true;
    if (fence && fence->stream != stream && fence->rec->seq < seq)
        return true;
    return legacy_waits(s, stream, seq);
}

CUresult tfr_park_look(struct tfr_session *s, struct tfr_stream *stream)
{
    struct tfr_park *p = &s->park;
    CUresult result = CUDA_SUCCESS;
    p->stream = stream;
    progress(s, stream);
    if (stream->submitted - stream->covered >= p->depth / 2)
        result = checkpoint(s, stream);
    limit_set(s, stream);
    if (result != CUDA_SUCCESS || p->replay)
        return result;
    if (stream->first || unfinished(stream) >= p->depth ||
        (p->n && others_first(s, stream, p->event, NULL, p->seq)))
        return TFR_RESULT_PARK;
    return CUDA_SUCCESS;
}

/* ---- what a record is ---- */

/* Do later records of every stream come after it? */
static bool is_fence(const struct tfr_rec *rec)
{
    uint32_t flags = 0;
    switch (rec->op) {
    case TFR_OP_copy:
        flags = ((const struct tfr_copy_req *)rec)->flags;
        break;
    case TFR_OP_rect:
        flags = ((const struct tfr_rect_req *)rec)->flags;
        break;
    case TFR_OP_peer:
        flags = ((const struct tfr_peer_req *)rec)->flags;
        break;
    }
    return (flags & TFR_COPY_FENCE) != 0;
}

/* Who waits for a kept record waits for the GPU: the watch looks for faults meanwhile. */
static void kept_set(struct tfr_session *s, uint32_t n)
{
    s->park.n = n;
    atomic_store_explicit(&s->kept, n, memory_order_seq_cst);
    /* pairs with the fence in relief_sleep */
    if (n == 1 && atomic_load_explicit(&s->relief_asleep, memory_order_seq_cst))
        tfr_relief_wake(s);
}

/* ---- whose contexts it needs ---- */

static void need(struct tfr_stream *stream, uint32_t slot)
{
    stream->needs_others |= slot && slot != stream->ctx + 1;
    if (slot && slot <= TFR_CONTEXTS_MAX)
        stream->needs[(slot - 1) / 64] |= 1ull << ((slot - 1) % 64);
}

static void needs_add(struct tfr_stream *stream, const struct tfr_parked *kept)
{
    const struct tfr_rec *rec = kept->rec;
    if (!stream->first) {
        memset(stream->needs, 0, sizeof stream->needs);
        stream->needs_others = false;
    }
    need(stream, stream->ctx + 1);
    if (kept->event)
        need(stream, kept->event->ctx);
    if (rec->op == TFR_OP_rect) {
        need(stream, ((const struct tfr_rect_req *)rec)->dst_ctx);
        need(stream, ((const struct tfr_rect_req *)rec)->src_ctx);
    } else if (rec->op == TFR_OP_peer) {
        need(stream, ((const struct tfr_peer_req *)rec)->dst_ctx);
        need(stream, ((const struct tfr_peer_req *)rec)->src_ctx);
    }
}

static bool needs(const struct tfr_stream *stream, uint32_t slot)
{
    return slot == 0 || slot > TFR_CONTEXTS_MAX ||
           stream->needs[(slot - 1) / 64] >> ((slot - 1) % 64) & 1;
}

/* ---- keeping ---- */

static struct tfr_parked *parked_new(struct tfr_session *s, const struct tfr_op_info *info,
                                     const struct tfr_rec *rec)
{
    struct tfr_parked *kept = calloc(1, sizeof *kept + rec->size);
    if (!kept) {
        tfr_session_sticky(s, CUDA_ERROR_OUT_OF_MEMORY, rec);
        return NULL;
    }
    kept->info = info;
    kept->rec = (struct tfr_rec *)(kept + 1);
    memcpy(kept->rec, rec, rec->size);
    kept_set(s, s->park.n + 1);
    s->park.bytes += sizeof *kept + rec->size;
    return kept;
}

static void parked_free(struct tfr_session *s, struct tfr_parked *kept)
{
    kept_set(s, s->park.n - 1);
    s->park.bytes -= sizeof *kept + kept->rec->size;
    free(kept);
}

/* A query is answered at once; the mark that it also asks for comes in its turn. */
static void mark_from_query(struct tfr_parked *kept)
{
    struct tfr_stream_query_req query = *(struct tfr_stream_query_req *)kept->rec;
    struct tfr_mark_req *mark = (struct tfr_mark_req *)kept->rec;
    static_assert(sizeof query == sizeof *mark, "one takes the place of the other");
    *mark = (struct tfr_mark_req){.head = query.head, .stream = query.stream};
    mark->head.op = TFR_OP_mark;
    kept->info = &tfr_op_table[TFR_OP_mark];
}

void tfr_park_keep(struct tfr_session *s, const struct tfr_op_info *info, const struct tfr_rec *rec)
{
    struct tfr_park *p = &s->park;
    struct tfr_stream *stream = p->stream;
    struct tfr_parked *kept = parked_new(s, info, rec);
    if (!kept)
        return;
    if (!stream) {
        kept->next = p->late;
        p->late = kept;
        return;
    }
    if (rec->op == TFR_OP_stream_query)
        mark_from_query(kept);
    kept->stream = stream;
    kept->event = p->event;
    needs_add(stream, kept);
    if (!stream->first) {
        TFR_STAT_ADD(parked, 1);
        stream->last = &stream->first;
        stream->parked_next = p->streams;
        p->streams = stream;
    }
    *stream->last = kept;
    stream->last = &kept->next;
    if (kept->event) {
        if (!kept->event->first)
            kept->event->last = &kept->event->first;
        *kept->event->last = kept;
        kept->event->last = &kept->event_next;
    }
    if (is_fence(rec)) {
        *p->fences_last = kept;
        p->fences_last = &kept->fence_next;
    }
}

/* Does the record take away something that those before it may use?  Leased memory goes back once
 * no stream uses it, and pinned memory when all have finished: the client has waited for them. */
static bool takes_away(const struct tfr_rec *rec)
{
    switch (rec->op) {
    case TFR_OP_free:
    case TFR_OP_module_unload:
    case TFR_OP_context_free:
        return true;
    case TFR_OP_peer_access:
        return rec->size >= sizeof(struct tfr_peer_access_req) &&
               !((const struct tfr_peer_access_req *)rec)->on;
    }
    return false;
}

/* The slot of the context whose streams alone can use what it takes away; 0: any may. */
static uint32_t taken_from(struct tfr_session *s, const struct tfr_rec *rec)
{
    if (rec->op == TFR_OP_peer_access)
        return rec->ctx;
    if (rec->op == TFR_OP_context_free && rec->size >= sizeof(struct tfr_context_free_req))
        return ((const struct tfr_context_free_req *)rec)->at;
    if (rec->op == TFR_OP_module_unload && rec->size >= sizeof(struct tfr_module_unload_req))
        return tfr_object_context(s, TFR_KIND_MODULE,
                                  ((const struct tfr_module_unload_req *)rec)->id);
    return 0;
}

/* May the kept records of the stream use what the record takes away?  Memory can be used by its own
 * context, for which the client has waited, and by those with peers. */
static bool may_use(const struct tfr_session *s, const struct tfr_stream *stream,
                    const struct tfr_rec *rec, uint32_t slot)
{
    if (rec->op == TFR_OP_free)
        return atomic_load_explicit(&s->ctx_peers[stream->ctx], memory_order_relaxed) ||
               stream->needs_others || needs(stream, rec->ctx);
    return needs(stream, slot);
}

/* Must it wait for a kept record that came before it? */
static bool is_held(struct tfr_session *s, const struct tfr_rec *rec)
{
    uint32_t slot = taken_from(s, rec);
    for (const struct tfr_stream *t = s->park.streams; t; t = t->parked_next)
        if (t->first && t->first->rec->seq < rec->seq && may_use(s, t, rec, slot))
            return true;
    return false;
}

bool tfr_park_barrier(struct tfr_session *s, const struct tfr_op_info *info,
                      const struct tfr_rec *rec)
{
    struct tfr_park *p = &s->park;
    if (!takes_away(rec) || !is_held(s, rec))
        return false;
    struct tfr_parked *kept = parked_new(s, info, rec);
    if (!kept)
        return false;
    kept->next = p->barriers;
    p->barriers = kept;
    return true;
}

/* ---- going on ---- */

static void event_release(struct tfr_session *s, struct tfr_event *event,
                          const struct tfr_parked *kept)
{
    event->first = kept->event_next;
    if (event->first || !event->doomed)
        return;
    s->cu->cuEventDestroy_v2(event->real);
    tfr_object_bury(s, event);
}

/* The first of its stream's queue. */
static void play(struct tfr_session *s, struct tfr_parked *kept)
{
    struct tfr_park *p = &s->park;
    struct tfr_stream *stream = kept->stream;
    p->replay = kept;
    p->seq = kept->rec->seq;
    p->event = kept->event;
    tfr_session_run(s, kept->info, kept->rec);
    p->replay = NULL;
    stream->first = kept->next;
    if (kept->event)
        event_release(s, kept->event, kept);
    if (p->fences == kept) {
        p->fences = kept->fence_next;
        if (!p->fences)
            p->fences_last = &p->fences;
    }
    parked_free(s, kept);
}

/* Plays the queue until something holds it again. */
static bool queue_run(struct tfr_session *s, struct tfr_stream *stream)
{
    bool moved = false, failed = atomic_load_explicit(&s->sticky, memory_order_acquire) != 0;
    if (!failed) {
        progress(s, stream);
        if (unfinished(stream) > s->park.depth / 2 && checkpoint(s, stream) != CUDA_SUCCESS)
            failed = true;
        if (unfinished(stream) > s->park.depth / 2 && !failed)
            return false;
    }
    while (stream->first && (failed || unfinished(stream) < s->park.depth)) {
        struct tfr_parked *kept = stream->first;
        if (!failed && (others_first(s, stream, kept->event, kept, kept->rec->seq) ||
                        !tfr_arrival_of_kept(s, kept->rec)))
            break;
        play(s, kept);
        moved = true;
    }
    return moved;
}

/* Answered calls as well, in no order among themselves. */
static void barriers_run(struct tfr_session *s)
{
    for (struct tfr_parked **at = &s->park.barriers; *at;) {
        struct tfr_parked *kept = *at;
        if (is_held(s, kept->rec)) {
            at = &kept->next;
            continue;
        }
        *at = kept->next;
        tfr_helper_run(s, kept->info, kept->rec);
        parked_free(s, kept);
    }
}

/* Each is an answered call, whose thread waits: they know no order among themselves. */
static bool late_run(struct tfr_session *s)
{
    bool moved = false, failed = atomic_load_explicit(&s->sticky, memory_order_acquire) != 0;
    for (struct tfr_parked **at = &s->park.late; *at;) {
        struct tfr_parked *kept = *at;
        if (!failed && !tfr_arrival_of_kept(s, kept->rec)) {
            at = &kept->next;
            continue;
        }
        *at = kept->next;
        s->park.replay = kept;
        tfr_session_run(s, kept->info, kept->rec);
        s->park.replay = NULL;
        parked_free(s, kept);
        moved = true;
    }
    return moved;
}

bool tfr_park_run(struct tfr_session *s)
{
    bool moved = late_run(s);
    struct tfr_stream **at = &s->park.streams;
    while (*at) {
        struct tfr_stream *stream = *at;
        moved |= queue_run(s, stream);
        if (stream->first) {
            at = &stream->parked_next;
            continue;
        }
        *at = stream->parked_next;
        if (stream->dead)
            tfr_object_bury(s, stream);
    }
    barriers_run(s);
    return moved;
}
