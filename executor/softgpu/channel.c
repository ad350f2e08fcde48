/* What TFR_SOFT_CHAOS does to streams.  All streams of a context share two in-order channels: an
 * operation starts when everything that was given to its channel before it has started, so that one
 * that waits (for a value, another stream, a host function) holds strangers back.  A stream takes
 * eight unfinished submissions; the ninth blocks its caller, and with it every other caller that
 * submits to that context.
 *
 * No cycle can arise that the program did not make: tickets are drawn at submission, and whatever
 * an operation waits for by CUDA's rules was submitted, and has its ticket, before it. */
#include "executor/softgpu/soft.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"

enum { CHANNEL_N = 2, DEPTH = 8, DELAY_MAX_US = 300 };

struct soft_channel {
    pthread_mutex_t lock;       /* passed, parked; a leaf but for the engine's lock */
    _Atomic uint64_t given;     /* tickets drawn: release with the stream's `submitted` */
    uint64_t passed;            /* all up to here have started */
    struct soft_stream *parked; /* by run_next; wait_seq is the ticket */
};

struct soft_channels {
    pthread_mutex_t submitting; /* held while a submission waits for room; outermost */
    struct soft_channel channel[CHANNEL_N];
    struct soft_ctx *next; /* in `all` */
};

static struct soft_ctx *_Atomic all; /* contexts are never freed: a list that only grows */

bool soft_chaos_ctx(struct soft_ctx *ctx)
{
    struct soft_channels *channels = calloc(1, sizeof(*channels));
    if (!channels)
        return false;
    pthread_mutex_init(&channels->submitting, NULL);
    for (int i = 0; i < CHANNEL_N; i++)
        pthread_mutex_init(&channels->channel[i].lock, NULL);
    ctx->channels = channels;
    channels->next = atomic_load_explicit(&all, memory_order_relaxed);
    /* Pairs with soft_chaos_unmap. */
    while (!atomic_compare_exchange_weak_explicit(&all, &channels->next, ctx, memory_order_release,
                                                  memory_order_relaxed))
        continue;
    return true;
}

void soft_chaos_stream(struct soft_stream *stream)
{
    stream->series = stream->id;
    stream->channel = &stream->ctx->channels->channel[soft_chaos_draw(&stream->series) % CHANNEL_N];
}

/* ---- room ---- */

CUresult soft_chaos_enter(struct soft_stream *stream, const struct soft_op *op)
{
    pthread_mutex_lock(&stream->ctx->channels->submitting);
    soft_stream_ref(stream);
    uint64_t last = atomic_load_explicit(&stream->submitted, memory_order_acquire);
    if (last >= DEPTH && !op->follows)
        soft_stream_wait(stream, last - DEPTH + 1);
    CUresult result = soft_ctx_usable(stream->ctx); /* it may have changed meanwhile */
    if (result)
        soft_chaos_leave(stream);
    return result;
}

void soft_chaos_leave(struct soft_stream *stream)
{
    pthread_mutex_unlock(&stream->ctx->channels->submitting);
    soft_stream_unref(stream);
}

/* ---- channels ---- */

void soft_chaos_ticket(struct soft_stream *stream, struct soft_op *op)
{
    op->ticket = atomic_fetch_add_explicit(&stream->channel->given, 1, memory_order_relaxed) + 1;
}

bool soft_chaos_turn(struct soft_stream *stream, const struct soft_op *op)
{
    struct soft_channel *channel = stream->channel;
    pthread_mutex_lock(&channel->lock);
    bool turn = channel->passed + 1 == op->ticket;
    if (!turn) {
        stream->wait_seq = op->ticket;
        stream->run_next = channel->parked;
        channel->parked = stream;
    }
    pthread_mutex_unlock(&channel->lock);
    return turn;
}

void soft_chaos_pass(struct soft_stream *stream, uint64_t ticket)
{
    struct soft_channel *channel = stream->channel;
    struct soft_stream *next = NULL;
    pthread_mutex_lock(&channel->lock);
    channel->passed = ticket;
    for (struct soft_stream **at = &channel->parked; *at && !next; at = &(*at)->run_next) {
        if ((*at)->wait_seq == ticket + 1) {
            next = *at;
            *at = next->run_next;
            break;
        }
    }
    pthread_mutex_unlock(&channel->lock);
    if (next)
        soft_engine_run(next);
}

/* Half of the operations start at once: programs are to see both. */
void soft_chaos_delay(struct soft_stream *stream)
{
    uint64_t n = soft_chaos_draw(&stream->series);
    struct timespec nap = {0, (long)((n >> 8) % DELAY_MAX_US * TFR_NS_PER_US)};
    if (n & 1 && soft_ctx_usable(stream->ctx) == CUDA_SUCCESS)
        nanosleep(&nap, NULL);
}

/* ---- memory in use ---- */

struct span {
    uint64_t at, len;
};

static bool meets(const struct span *span, uint64_t at, uint64_t len)
{
    return at < span->at + span->len && span->at < at + len;
}

/* A kernel uses what its parameters point to. */
static bool params_meet(const struct span *span, const struct soft_op *op)
{
    for (uint32_t i = 0; i + 8 <= op->data_len; i += 8) {
        uint64_t word;
        memcpy(&word, (const char *)op->data + i, 8);
        if (meets(span, word, 1))
            return true;
    }
    return false;
}

static const char *use(const struct span *span, const struct soft_op *op)
{
    switch (op->kind) {
    case SOFT_OP_KERNEL:
        return params_meet(span, op) ? "kernel" : NULL;
    case SOFT_OP_COPY:
        return meets(span, op->copy.dst, op->copy.len) ||
                       (!op->data_len && meets(span, op->copy.src, op->copy.len))
                   ? "copy"
                   : NULL;
    case SOFT_OP_COPY3D:
        return meets(span, op->copy3d.dst.at, soft_box_len(op, &op->copy3d.dst)) ||
                       meets(span, op->copy3d.src.at, soft_box_len(op, &op->copy3d.src))
                   ? "copy"
                   : NULL;
    case SOFT_OP_FILL:
        return meets(span, op->fill.at,
                     (op->fill.height - 1) * op->fill.pitch + op->fill.width * op->fill.size)
                   ? "memset"
                   : NULL;
    case SOFT_OP_WRITE:
    case SOFT_OP_WAIT_VALUE:
        return meets(span, op->value.at, 4) ? "value operation" : NULL;
    default:
        return NULL;
    }
}

/* What of the stream's unfinished work uses the span; NULL: nothing. */
static const char *stream_use(struct soft_stream *stream, const struct span *span)
{
    const char *found = NULL;
    pthread_mutex_lock(&stream->lock);
    for (const struct soft_op *op = stream->head; op && !found; op = op->next)
        if (!soft_stream_passed(stream, op->seq))
            found = use(span, op);
    pthread_mutex_unlock(&stream->lock);
    return found;
}

void soft_chaos_unmap(uint64_t at, uint64_t len)
{
    const struct span span = {at, len};
    struct soft_ctx *ctx = atomic_load_explicit(&all, memory_order_acquire); /* soft_chaos_ctx */
    for (; ctx; ctx = ctx->channels->next) {
        const char *found = NULL;
        pthread_mutex_lock(&ctx->lock);
        for (struct soft_stream *s = ctx->streams; s && !found; s = s->next)
            found = stream_use(s, &span);
        pthread_mutex_unlock(&ctx->lock);
        if (!found)
            continue;
        tfr_say("softgpu: 0x%llx is unmapped while a %s that is not done uses it",
                (unsigned long long)at, found);
        soft_ctx_fault(ctx, CUDA_ERROR_ILLEGAL_ADDRESS);
    }
}
