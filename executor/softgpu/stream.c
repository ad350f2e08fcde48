/* Streams: in-order queues of operations.  An operation of an idle stream that is cheap runs at
 * once on the submitting thread; everything else is carried forward by the engine's workers.
 *
 * Progress is a pair of numbers: an event, a join with the legacy stream and a host that waits all
 * mean "stream s has passed n".  Whoever finishes an operation publishes `done` and then looks at
 * `attention`; whoever waits raises `attention` and then looks at `done` (both seq_cst): one of the
 * two sees the other.  Dependencies only ever name what was submitted before, so no cycle can
 * arise. */
#include "executor/softgpu/soft.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/relax.h"

enum step { STEP_DONE, STEP_PARKED };
enum { ROOM_SMALL = 256, ROOM_BIG = 4096, SPARE_MAX = 512, WAIT_SPIN_NS = 50000 };

/* ---- life ---- */

struct soft_stream *soft_stream_new(struct soft_ctx *ctx, unsigned int flags, int priority)
{
    struct soft_stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return NULL;
    stream->handle = soft_handle_add(SOFT_STREAM, stream);
    if (!stream->handle) {
        free(stream);
        return NULL;
    }
    pthread_mutexattr_t spins; /* held for a hundred nanoseconds, by two cores in turn */
    pthread_mutexattr_init(&spins);
    pthread_mutexattr_settype(&spins, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&stream->lock, &spins);
    pthread_mutexattr_destroy(&spins);
    stream->ctx = ctx;
    stream->flags = flags;
    stream->priority = priority;
    stream->blocking = !(flags & CU_STREAM_NON_BLOCKING);
    stream->id = soft_next_id();
    if (soft_chaos.on)
        soft_chaos_stream(stream);
    atomic_init(&stream->refs, 1);
    pthread_mutex_lock(&ctx->lock);
    stream->next = ctx->streams;
    stream->prev = &ctx->streams;
    if (stream->next)
        stream->next->prev = &stream->next;
    ctx->streams = stream;
    pthread_mutex_unlock(&ctx->lock);
    return stream;
}

void soft_stream_ref(struct soft_stream *stream)
{
    atomic_fetch_add_explicit(&stream->refs, 1, memory_order_relaxed);
}

static void op_free(struct soft_op *op)
{
    if (op->data_cap > ROOM_BIG)
        free(op->data);
    free(op);
}

static void list_free(struct soft_op *op)
{
    while (op) {
        struct soft_op *next = op->next;
        op_free(op);
        op = next;
    }
}

void soft_stream_unref(struct soft_stream *stream)
{
    if (atomic_fetch_sub_explicit(&stream->refs, 1, memory_order_acq_rel) != 1)
        return;
    list_free(stream->spare_small);
    list_free(stream->spare_big);
    pthread_mutex_destroy(&stream->lock);
    free(stream);
}

/* Out of the context's list, which gives up its reference.  Under ctx->lock. */
static void unlist(struct soft_stream *stream)
{
    *stream->prev = stream->next;
    if (stream->next)
        stream->next->prev = stream->prev;
}

/* A dropped stream has run dry. */
static void reap(struct soft_stream *stream)
{
    pthread_mutex_lock(&stream->ctx->lock);
    unlist(stream);
    pthread_mutex_unlock(&stream->ctx->lock);
    soft_stream_unref(stream);
}

/* What is queued still runs, and whoever waits for the context waits for it: the stream stays in
 * the context's list until it has run dry. */
void soft_stream_drop(struct soft_stream *stream)
{
    soft_stream_ref(stream); /* once dropped, the thread that runs it dry may reap it */
    pthread_mutex_lock(&stream->lock);
    bool first = !stream->dropped, dry = !stream->active && !stream->head;
    stream->dropped = true;
    pthread_mutex_unlock(&stream->lock);
    if (first)
        soft_handle_del(stream->handle);
    if (first && dry)
        reap(stream);
    soft_stream_unref(stream);
}

bool soft_stream_dropped(struct soft_stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    bool dropped = stream->dropped;
    pthread_mutex_unlock(&stream->lock);
    return dropped;
}

/* ---- progress ---- */

bool soft_stream_passed(const struct soft_stream *stream, uint64_t seq)
{
    return atomic_load_explicit(&stream->done, memory_order_acquire) >= seq;
}

/* Streams parked on this one that may go on, and threads that sleep. */
static void attend(struct soft_stream *stream)
{
    struct soft_stream *go = NULL;
    pthread_mutex_lock(&stream->lock);
    uint64_t done = atomic_load_explicit(&stream->done, memory_order_relaxed);
    for (struct soft_stream **at = &stream->waiters; *at;) {
        struct soft_stream *waiter = *at;
        if (waiter->wait_seq <= done) {
            *at = waiter->run_next;
            waiter->run_next = go;
            go = waiter;
            atomic_fetch_sub_explicit(&stream->attention, 1, memory_order_relaxed);
        } else {
            at = &waiter->run_next;
        }
    }
    pthread_mutex_unlock(&stream->lock);
    while (go) {
        struct soft_stream *next = go->run_next;
        soft_engine_run(go);
        go = next;
    }
    atomic_fetch_add_explicit(&stream->bell, 1, memory_order_release);
    syscall(SYS_futex, &stream->bell, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void complete(struct soft_stream *stream, uint64_t seq)
{
    atomic_store_explicit(&stream->done, seq, memory_order_seq_cst);
    if (atomic_load_explicit(&stream->attention, memory_order_seq_cst))
        attend(stream);
}

/* ---- operations ---- */

/* Under stream->lock. */
static struct soft_op *op_new(struct soft_stream *stream, uint32_t len)
{
    struct soft_op **spare = len <= ROOM_SMALL ? &stream->spare_small : &stream->spare_big;
    if (len <= ROOM_BIG && *spare) {
        struct soft_op *op = *spare;
        *spare = op->next;
        stream->spare_n--;
        return op;
    }
    uint32_t room = len <= ROOM_SMALL ? ROOM_SMALL : len <= ROOM_BIG ? ROOM_BIG : 0;
    struct soft_op *op = malloc(sizeof(*op) + room);
    if (!op)
        return NULL;
    op->data = op + 1;
    op->data_cap = room;
    if (!room) {
        op->data = malloc(len);
        op->data_cap = len;
    }
    if (!op->data) {
        free(op);
        return NULL;
    }
    return op;
}

/* Under stream->lock. */
static void op_recycle(struct soft_stream *stream, struct soft_op *op)
{
    if (op->data_cap > ROOM_BIG || stream->spare_n >= SPARE_MAX) {
        op_free(op);
        return;
    }
    struct soft_op **spare = op->data_cap == ROOM_SMALL ? &stream->spare_small : &stream->spare_big;
    op->next = *spare;
    *spare = op;
    stream->spare_n++;
}

/* Under stream->lock.  The stream may not be active yet: see unlock_kick. */
static bool append(struct soft_stream *stream, const struct soft_op *model, const void *data,
                   uint32_t len)
{
    struct soft_op *op = op_new(stream, len);
    if (!op)
        return false;
    void *room = op->data;
    uint32_t cap = op->data_cap;
    *op = *model;
    op->data = room;
    op->data_cap = cap;
    op->data_len = len;
    op->next = NULL;
    if (len)
        memcpy(room, data, len);
    if (soft_chaos.on)
        soft_chaos_ticket(stream, op);
    op->seq = atomic_load_explicit(&stream->submitted, memory_order_relaxed) + 1;
    if (stream->tail)
        stream->tail->next = op;
    else
        stream->head = op;
    stream->tail = op;
    atomic_store_explicit(&stream->submitted, op->seq, memory_order_release);
    return true;
}

static bool idle(const struct soft_stream *stream)
{
    return !stream->active && !stream->head;
}

static bool append_wait(struct soft_stream *stream, struct soft_stream *on, uint64_t seq)
{
    struct soft_op op = {.kind = SOFT_OP_WAIT_STREAM, .wait = {on, seq}};
    soft_stream_ref(on);
    if (append(stream, &op, NULL, 0))
        return true;
    soft_stream_unref(on);
    return false;
}

/* Leaves stream->lock; what was queued becomes the engine's, after the lock: a worker wants it at
 * once. */
static void unlock_kick(struct soft_stream *stream)
{
    bool kick = !stream->active && stream->head;
    if (kick) {
        stream->active = true;
        soft_stream_ref(stream);
    }
    pthread_mutex_unlock(&stream->lock);
    if (kick)
        soft_engine_run(stream);
}

/* The legacy stream comes after all that blocking streams were given so far.  Under ctx->lock and
 * legacy->lock. */
static bool join_all(struct soft_stream *legacy)
{
    for (struct soft_stream *s = legacy->ctx->streams; s; s = s->next) {
        if (s == legacy || !s->blocking)
            continue;
        uint64_t seq = atomic_load_explicit(&s->submitted, memory_order_acquire);
        if (seq == s->joined_by_legacy || soft_stream_passed(s, seq))
            continue;
        if (!append_wait(legacy, s, seq))
            return false;
        s->joined_by_legacy = seq;
    }
    return true;
}

/* A blocking stream comes after all that the legacy stream was given so far.  Under stream->lock.
 */
static bool join_legacy(struct soft_stream *stream)
{
    struct soft_stream *legacy = stream->ctx->legacy;
    uint64_t seq = atomic_load_explicit(&legacy->submitted, memory_order_acquire);
    if (seq == stream->joined || soft_stream_passed(legacy, seq))
        return true;
    stream->joined = seq;
    return append_wait(stream, legacy, seq);
}

/* Takes stream->lock with the implied waits appended. */
static bool lock_joined(struct soft_stream *stream)
{
    bool ok = true;
    if (stream == stream->ctx->legacy) {
        pthread_mutex_lock(&stream->ctx->lock);
        pthread_mutex_lock(&stream->lock);
        ok = join_all(stream);
        pthread_mutex_unlock(&stream->ctx->lock);
    } else {
        pthread_mutex_lock(&stream->lock);
        if (stream->blocking)
            ok = join_legacy(stream);
    }
    return ok;
}

/* The stream is idle: runs the operation on this thread.  Entered with stream->lock, which is left.
 */
static void run_here(struct soft_stream *stream, const struct soft_op *model, const void *data,
                     uint32_t len)
{
    struct soft_op op = *model;
    op.data = (void *)data;
    op.data_len = len;
    op.seq = atomic_load_explicit(&stream->submitted, memory_order_relaxed) + 1;
    stream->active = true;
    atomic_store_explicit(&stream->submitted, op.seq, memory_order_release);
    pthread_mutex_unlock(&stream->lock);
    soft_exec(stream, &op);
    complete(stream, op.seq);
    pthread_mutex_lock(&stream->lock);
    stream->active = false;
    bool dry = stream->dropped && !stream->head;
    unlock_kick(stream);
    if (dry)
        reap(stream);
}

/* Only these can be told beforehand not to park. */
static bool can_run_here(const struct soft_op *op)
{
    if (op->kind == SOFT_OP_WAIT_VALUE)
        return soft_value_there(op);
    return op->kind != SOFT_OP_WAIT_STREAM;
}

static CUresult submit(struct soft_stream *stream, const struct soft_op *op, const void *data,
                       uint32_t len, bool cheap, uint64_t *seq_out)
{
    bool ok = lock_joined(stream);
    if (ok && cheap && idle(stream) && can_run_here(op)) {
        if (seq_out)
            *seq_out = atomic_load_explicit(&stream->submitted, memory_order_relaxed) + 1;
        run_here(stream, op, data, len);
        return CUDA_SUCCESS;
    }
    ok = ok && append(stream, op, data, len);
    if (seq_out)
        *seq_out = atomic_load_explicit(&stream->submitted, memory_order_relaxed);
    unlock_kick(stream);
    return ok ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult soft_submit(struct soft_stream *stream, const struct soft_op *op, const void *data,
                     uint32_t len, bool cheap, uint64_t *seq_out)
{
    if (__builtin_expect(!soft_chaos.on, 1))
        return submit(stream, op, data, len, cheap, seq_out);
    CUresult result = soft_chaos_enter(stream, op);
    if (result)
        return result;
    result = submit(stream, op, data, len, false, seq_out);
    soft_chaos_leave(stream);
    return result;
}

uint64_t soft_stream_position(struct soft_stream *stream)
{
    lock_joined(stream);
    uint64_t seq = atomic_load_explicit(&stream->submitted, memory_order_relaxed);
    unlock_kick(stream);
    return seq;
}

/* ---- waiting ---- */

/* Parks `stream` until `on` has passed seq; false: it has. */
static bool park_on(struct soft_stream *stream, struct soft_stream *on, uint64_t seq)
{
    if (soft_stream_passed(on, seq))
        return false;
    pthread_mutex_lock(&on->lock);
    atomic_fetch_add_explicit(&on->attention, 1, memory_order_seq_cst);
    bool parked = atomic_load_explicit(&on->done, memory_order_seq_cst) < seq;
    if (parked) {
        stream->wait_seq = seq;
        stream->run_next = on->waiters;
        on->waiters = stream;
    } else {
        atomic_fetch_sub_explicit(&on->attention, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&on->lock);
    return parked;
}

void soft_stream_wait(struct soft_stream *stream, uint64_t seq)
{
    uint64_t until = 0;
    for (int i = 0; !soft_stream_passed(stream, seq); i++) {
        if (i % 64 == 0) {
            uint64_t now = tfr_clock_now();
            until = until ? until : now + WAIT_SPIN_NS;
            if (now > until)
                break;
            if (i)
                sched_yield(); /* the worker may be waiting for this core */
        }
        tfr_pause();
    }
    if (soft_stream_passed(stream, seq))
        return;
    atomic_fetch_add_explicit(&stream->attention, 1, memory_order_seq_cst);
    for (;;) {
        uint32_t seen = atomic_load_explicit(&stream->bell, memory_order_acquire);
        if (atomic_load_explicit(&stream->done, memory_order_seq_cst) >= seq)
            break;
        syscall(SYS_futex, &stream->bell, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    }
    atomic_fetch_sub_explicit(&stream->attention, 1, memory_order_relaxed);
}

/* ---- a worker's part ---- */

/* One operation.  PARKED: the stream belongs to somebody else now and must not be touched. */
static enum step step(struct soft_stream *stream, struct soft_op *op)
{
    if (op->kind == SOFT_OP_WAIT_VALUE) {
        bool stays =
            !op->value.passed && !soft_ctx_usable(stream->ctx) && soft_engine_park(stream, op);
        return stays ? STEP_PARKED : STEP_DONE;
    }
    if (op->kind == SOFT_OP_WAIT_STREAM) {
        if (park_on(stream, op->wait.stream, op->wait.seq))
            return STEP_PARKED;
        soft_stream_unref(op->wait.stream);
        return STEP_DONE;
    }
    soft_exec(stream, op);
    return STEP_DONE;
}

/* Until a waiting operation is through, nothing behind it in the channel starts. */
static enum step chaos_step(struct soft_stream *stream, struct soft_op *op)
{
    uint64_t ticket = op->ticket;
    bool waits = op->kind == SOFT_OP_WAIT_VALUE || op->kind == SOFT_OP_WAIT_STREAM;
    bool holds = waits || op->kind == SOFT_OP_HOST || op->kind == SOFT_OP_CALLBACK;
    if (!soft_chaos_turn(stream, op))
        return STEP_PARKED;
    if (!holds)
        soft_chaos_pass(stream, ticket);
    if (!waits)
        soft_chaos_delay(stream);
    if (step(stream, op) == STEP_PARKED)
        return STEP_PARKED;
    if (holds)
        soft_chaos_pass(stream, ticket);
    return STEP_DONE;
}

void soft_stream_work(struct soft_stream *stream)
{
    struct soft_op *op = NULL;
    bool dry = false;
    for (;;) {
        pthread_mutex_lock(&stream->lock);
        if (op) {
            stream->head = op->next;
            if (!stream->head)
                stream->tail = NULL;
            op_recycle(stream, op);
        }
        op = stream->head;
        if (!op) {
            stream->active = false;
            dry = stream->dropped;
        }
        pthread_mutex_unlock(&stream->lock);
        if (!op)
            break;
        uint64_t seq = op->seq;
        if ((soft_chaos.on ? chaos_step(stream, op) : step(stream, op)) == STEP_PARKED)
            return;
        complete(stream, seq);
    }
    if (dry)
        reap(stream);
    soft_stream_unref(stream);
}
