/* The weakest legal transport: shm under a wire that delays, reorders and tears.  Tests run over it
 * what must also run over a real network.  A put becomes visible by and by, in pieces and in any
 * order, until a later AFTER put of its channel forces it out; nothing is mapped; done() comes
 * late; bells come late; put answers TFR_AGAIN now and then; what is under way at close is lost.
 * Each link has a thread, the wire, that delivers by what the peer's NIC would be.  The choices at
 * put follow from TFR_FAULT_SEED alone; what the wire does depends on timing too.  Speed is no
 * concern. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "base/rec.h"
#include "transport/backend.h"

enum {
    FLIGHT_N = 64,  /* puts under way; more: TFR_AGAIN */
    PIECES_MAX = 4, /* a put is torn into so many at most */
    AGAIN_ONE_IN = 16,
    SLOW_ONE_IN = 8, /* AFTER puts and bells that are late; others are prompt */
};

/* Delays in nanoseconds, upper ends. */
#define LAZY_NS   (300 * TFR_NS_PER_US) /* a put that nothing forces */
#define PROMPT_NS (4 * TFR_NS_PER_US)
#define SLOW_NS   (100 * TFR_NS_PER_US)
#define DONE_NS   (60 * TFR_NS_PER_US)

struct fault_dev {
    struct tfr_dev base;
    struct tfr_dev *inner;
};

struct fault_link;

struct fault_mem {
    struct tfr_mem base;
    struct tfr_mem *inner;
    struct fault_link *link; /* of the last put from here; valid while busy */
    uint32_t busy;           /* transfers not done, under the caller's lock like put */
};

struct fault_peer_mem {
    struct tfr_peer_mem base;
    struct tfr_peer_mem *inner;
    struct fault_link *link;
    uint8_t *addr;
    uint32_t busy;
};

struct flight {
    struct flight *next;
    struct tfr_xfer xfer; /* local points to `small` if the put was small */
    uint64_t number;
    uint64_t due_ns; /* of delivery, then of done */
    tfr_status status;
    uint8_t small[TFR_SMALL_MAX];
};

struct queue {
    struct flight *first, **last;
};

struct fault_link {
    struct tfr_link base;
    struct tfr_link *inner;
    uint64_t put_seed; /* the caller's lock */
    pthread_t wire;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;  /* something to deliver, or stop */
    pthread_cond_t idle;  /* a delivery has ended */
    uint64_t wire_seed;
    struct queue channels[TFR_CHANNELS];
    struct queue delivered; /* done() to be called */
    struct flight *spare;
    uint64_t number;      /* of the last put */
    uint64_t bell_after;  /* ring the peer when all puts up to this one are visible */
    uint64_t bell_due_ns; /* 0: no bell asked for */
    bool delivering, hurry, stop;
    struct flight flights[FLIGHT_N];
};

static uint64_t draw(uint64_t *seed)
{
    uint64_t x = *seed += 0x9e3779b97f4a7c15ull;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

static struct fault_link *link_of(struct tfr_link *link)
{
    return (struct fault_link *)link;
}

static void queue_init(struct queue *queue)
{
    queue->first = NULL;
    queue->last = &queue->first;
}

static void queue_push(struct queue *queue, struct flight *flight)
{
    flight->next = NULL;
    *queue->last = flight;
    queue->last = &flight->next;
}

static struct flight *queue_pop(struct queue *queue)
{
    struct flight *flight = queue->first;

    if (flight && !(queue->first = flight->next))
        queue->last = &queue->first;
    return flight;
}

/* A word of eight bytes is never torn; its reader pairs an acquire load with this. */
static void piece_write(uint8_t *to, const uint8_t *from, size_t len)
{
    uint64_t word;

    if (len == sizeof(word) && (uintptr_t)to % sizeof(word) == 0) {
        memcpy(&word, from, sizeof(word));
        atomic_store_explicit((_Atomic uint64_t *)(void *)to, word, memory_order_release);
    } else {
        memcpy(to, from, len);
    }
}

struct piece {
    uint8_t *to;
    const uint8_t *from;
    size_t len;
};

static size_t pieces_cut(struct flight *flight, uint64_t *seed, struct piece *pieces)
{
    const struct tfr_xfer *xfer = &flight->xfer;
    struct fault_peer_mem *peer = (struct fault_peer_mem *)xfer->peer;
    size_t n = 0, at = 0;

    while (at < xfer->len) {
        size_t left = xfer->len - at;
        size_t len = left <= sizeof(uint64_t) || n == PIECES_MAX - 1 ? left : draw(seed) % left + 1;
        pieces[n++] =
            (struct piece){peer->addr + xfer->peer_at + at, (const uint8_t *)xfer->local + at, len};
        at += len;
    }
    return n;
}

/* Writes the puts of a list, torn and in any order. */
static void group_write(struct flight *list, uint64_t *seed)
{
    struct piece pieces[FLIGHT_N * PIECES_MAX];
    size_t n = 0;

    for (; list; list = list->next)
        n += pieces_cut(list, seed, pieces + n);
    while (n) {
        size_t pick = draw(seed) % n;
        struct piece piece = pieces[pick];
        pieces[pick] = pieces[--n];
        piece_write(piece.to, piece.from, piece.len);
        if (draw(seed) % 8 == 0)
            sched_yield();
    }
}

/* The puts of a channel that must go when `last` goes: all up to it.  Cut after each AFTER put, as
 * what precedes one must be written before it. */
static void channel_deliver(struct fault_link *link, struct queue *channel, uint64_t last)
{
    while (channel->first && channel->first->number <= last) {
        struct queue group;
        uint64_t seed = draw(&link->wire_seed);
        bool bell = false;

        queue_init(&group);
        do {
            bell |= channel->first->xfer.flags & TFR_XFER_BELL;
            queue_push(&group, queue_pop(channel));
        } while (channel->first && channel->first->number <= last &&
                 !(channel->first->xfer.flags & TFR_XFER_AFTER));
        pthread_mutex_unlock(&link->lock);
        group_write(group.first, &seed);
        if (bell)
            link->inner->ops->ring(link->inner);
        pthread_mutex_lock(&link->lock);
        while (group.first) {
            struct flight *flight = queue_pop(&group);
            flight->due_ns = tfr_clock_now() + draw(&link->wire_seed) % DONE_NS;
            queue_push(&link->delivered, flight);
        }
    }
}

/* The last put of the channel that is due now; 0: none. */
static uint64_t channel_due(const struct queue *channel, uint64_t now, bool hurry)
{
    uint64_t last = 0;

    for (const struct flight *at = channel->first; at; at = at->next) {
        if (hurry || at->due_ns <= now)
            last = at->number;
    }
    return last;
}

static void due_deliver(struct fault_link *link)
{
    uint64_t now = tfr_clock_now();
    bool bell = link->bell_due_ns && (link->hurry || link->bell_due_ns <= now);
    uint64_t bell_after = link->bell_after;

    link->delivering = true;
    for (int i = 0; i < TFR_CHANNELS; i++) {
        uint64_t last = channel_due(&link->channels[i], now, link->hurry);
        channel_deliver(link, &link->channels[i], bell && bell_after > last ? bell_after : last);
    }
    if (bell) {
        if (link->bell_after == bell_after)
            link->bell_due_ns = 0;
        pthread_mutex_unlock(&link->lock);
        link->inner->ops->ring(link->inner);
        pthread_mutex_lock(&link->lock);
    }
    link->delivering = false;
    pthread_cond_broadcast(&link->idle);
}

/* When the next thing is due; UINT64_MAX: nothing waits. */
static uint64_t next_due(const struct fault_link *link)
{
    uint64_t due = link->bell_due_ns ? link->bell_due_ns : UINT64_MAX;

    for (int i = 0; i < TFR_CHANNELS; i++) {
        for (const struct flight *at = link->channels[i].first; at; at = at->next)
            due = at->due_ns < due ? at->due_ns : due;
    }
    return due;
}

static void *wire_main(void *arg)
{
    struct fault_link *link = arg;

    pthread_mutex_lock(&link->lock);
    while (!link->stop) {
        uint64_t due = next_due(link);
        struct timespec until = {.tv_sec = (time_t)(due / TFR_NS_PER_S),
                                 .tv_nsec = (long)(due % TFR_NS_PER_S)};
        if (due == UINT64_MAX)
            pthread_cond_wait(&link->work, &link->lock);
        else if (link->hurry || due <= tfr_clock_now())
            due_deliver(link);
        else
            pthread_cond_timedwait(&link->work, &link->lock, &until);
    }
    pthread_mutex_unlock(&link->lock);
    return NULL;
}

/* Calls done() for what the wire has delivered long enough ago (all: for everything). */
static void done_run(struct fault_link *link, bool all)
{
    for (;;) {
        struct flight *flight = NULL;
        struct tfr_xfer xfer;
        tfr_status status;

        pthread_mutex_lock(&link->lock);
        if (link->delivered.first && (all || link->delivered.first->due_ns <= tfr_clock_now()))
            flight = queue_pop(&link->delivered);
        if (flight) {
            xfer = flight->xfer;
            status = flight->status;
            flight->next = link->spare;
            link->spare = flight;
        }
        pthread_mutex_unlock(&link->lock);
        if (!flight)
            return;
        if (xfer.mem)
            ((struct fault_mem *)xfer.mem)->busy--;
        ((struct fault_peer_mem *)xfer.peer)->busy--;
        if (xfer.done)
            xfer.done(xfer.arg, status);
    }
}

/* Returns when nothing is under way and every done() has run. */
static void settle(struct fault_link *link)
{
    pthread_mutex_lock(&link->lock);
    link->hurry = true;
    pthread_cond_signal(&link->work);
    while (link->delivering || next_due(link) != UINT64_MAX)
        pthread_cond_wait(&link->idle, &link->lock);
    link->hurry = false;
    pthread_mutex_unlock(&link->lock);
    done_run(link, true);
}

static uint64_t delay(uint64_t *seed, uint16_t flags)
{
    if (!(flags & (TFR_XFER_AFTER | TFR_XFER_BELL)))
        return draw(seed) % LAZY_NS;
    return draw(seed) % (draw(seed) % SLOW_ONE_IN ? PROMPT_NS : SLOW_NS);
}

static void flight_start(struct fault_link *link, struct flight *flight,
                         const struct tfr_xfer *xfer)
{
    flight->xfer = *xfer;
    if (xfer->len <= TFR_SMALL_MAX) {
        memcpy(flight->small, xfer->local, xfer->len);
        flight->xfer.local = flight->small;
    }
    flight->status = TFR_OK;
    flight->number = ++link->number;
    flight->due_ns = tfr_clock_now() + delay(&link->put_seed, xfer->flags);
    queue_push(&link->channels[xfer->channel], flight);
    pthread_cond_signal(&link->work);
}

static tfr_status put_check(const struct tfr_xfer *xfer)
{
    const struct fault_mem *mem = (const struct fault_mem *)xfer->mem;

    if (xfer->channel >= TFR_CHANNELS || (xfer->len > TFR_SMALL_MAX && !mem) ||
        !tfr_span_inside(xfer->peer_at, xfer->len, xfer->peer->len))
        return tfr_fail(TFR_E_INVAL, "put of %zu bytes at %llu on channel %u", xfer->len,
                        (unsigned long long)xfer->peer_at, xfer->channel);
    return TFR_OK;
}

static tfr_status fault_progress(struct tfr_link *base)
{
    struct fault_link *link = link_of(base);

    done_run(link, false);
    return link->inner->ops->progress(link->inner);
}

static tfr_status fault_put(struct tfr_link *base, const struct tfr_xfer *xfer)
{
    struct fault_link *link = link_of(base);
    tfr_status status = put_check(xfer);
    struct flight *flight;

    if (status == TFR_OK)
        status = fault_progress(base);
    if (status != TFR_OK)
        return status;
    if (draw(&link->put_seed) % AGAIN_ONE_IN == 0)
        return TFR_AGAIN;
    pthread_mutex_lock(&link->lock);
    flight = link->spare;
    if (flight) {
        link->spare = flight->next;
        flight_start(link, flight, xfer);
    }
    pthread_mutex_unlock(&link->lock);
    if (!flight)
        return TFR_AGAIN;
    if (xfer->mem) {
        ((struct fault_mem *)xfer->mem)->busy++;
        ((struct fault_mem *)xfer->mem)->link = link;
    }
    ((struct fault_peer_mem *)xfer->peer)->busy++;
    return TFR_OK;
}

/* All puts up to now must be visible to whoever the bell wakes. */
static void fault_ring(struct tfr_link *base)
{
    struct fault_link *link = link_of(base);

    pthread_mutex_lock(&link->lock);
    link->bell_after = link->number;
    if (!link->bell_due_ns)
        link->bell_due_ns = tfr_clock_now() + delay(&link->wire_seed, TFR_XFER_BELL);
    pthread_cond_signal(&link->work);
    pthread_mutex_unlock(&link->lock);
}

static tfr_status fault_arm(struct tfr_link *base, int *fd_out)
{
    struct tfr_link *inner = link_of(base)->inner;

    return inner->ops->arm(inner, fd_out);
}

static void fault_disarm(struct tfr_link *base)
{
    struct tfr_link *inner = link_of(base)->inner;

    inner->ops->disarm(inner);
}

static tfr_status fault_prepare(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out)
{
    struct fault_dev *dev = malloc(sizeof(*dev));
    tfr_status status;

    if (!dev)
        return tfr_fail(TFR_E_NOMEM, "fault device");
    dev->base.ops = &tfr_fault_ops;
    status = tfr_shm_ops.prepare(cfg, &dev->inner);
    if (status != TFR_OK) {
        free(dev);
        return status;
    }
    *dev_out = &dev->base;
    return TFR_OK;
}

static void fault_release(struct tfr_dev *base)
{
    struct fault_dev *dev = (struct fault_dev *)base;

    dev->inner->ops->release(dev->inner);
    free(dev);
}

static tfr_status fault_reg(struct tfr_dev *base, const struct tfr_area *area,
                            struct tfr_mem **mem_out)
{
    struct fault_dev *dev = (struct fault_dev *)base;
    struct fault_mem *mem = calloc(1, sizeof(*mem));
    tfr_status status;

    if (!mem)
        return tfr_fail(TFR_E_NOMEM, "fault registration");
    mem->base.ops = &tfr_fault_ops;
    status = dev->inner->ops->reg(dev->inner, area, &mem->inner);
    if (status != TFR_OK) {
        free(mem);
        return status;
    }
    *mem_out = &mem->base;
    return TFR_OK;
}

static void fault_unreg(struct tfr_mem *base)
{
    struct fault_mem *mem = (struct fault_mem *)base;

    if (mem->busy)
        settle(mem->link);
    mem->inner->ops->unreg(mem->inner);
    free(mem);
}

static void fault_key(const struct tfr_mem *base, struct tfr_key *key_out)
{
    const struct fault_mem *mem = (const struct fault_mem *)base;

    mem->inner->ops->key(mem->inner, key_out);
}

static tfr_status wire_start(struct fault_link *link)
{
    pthread_condattr_t attr;
    sigset_t all, old;
    int err;

    pthread_mutex_init(&link->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&link->work, &attr);
    pthread_cond_init(&link->idle, NULL);
    pthread_condattr_destroy(&attr);
    sigfillset(&all); /* signals are the application's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&link->wire, NULL, wire_main, link);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!err)
        return TFR_OK;
    pthread_mutex_destroy(&link->lock);
    pthread_cond_destroy(&link->work);
    pthread_cond_destroy(&link->idle);
    return tfr_fail(TFR_E_SYS, "thread of the fault link: %s", strerror(err));
}

static tfr_status fault_open(struct tfr_dev *base, int sock, bool first, struct tfr_link **link_out)
{
    struct fault_dev *dev = (struct fault_dev *)base;
    struct fault_link *link = calloc(1, sizeof(*link));
    tfr_status status;

    if (!link)
        return tfr_fail(TFR_E_NOMEM, "fault link");
    link->base.ops = &tfr_fault_ops;
    link->put_seed = tfr_env_u64("TFR_FAULT_SEED") * 2 + first;
    link->wire_seed = ~link->put_seed;
    queue_init(&link->delivered);
    for (int i = 0; i < TFR_CHANNELS; i++)
        queue_init(&link->channels[i]);
    for (int i = 0; i < FLIGHT_N; i++) {
        link->flights[i].next = link->spare;
        link->spare = &link->flights[i];
    }
    status = dev->inner->ops->open(dev->inner, sock, first, &link->inner);
    if (status != TFR_OK)
        goto link_free;
    status = wire_start(link);
    if (status != TFR_OK)
        goto inner_close;
    *link_out = &link->base;
    return TFR_OK;

inner_close:
    link->inner->ops->close(link->inner);
link_free:
    free(link);
    return status;
}

/* What the wire still carries is lost, as it would be with a queue pair. */
static void fault_close(struct tfr_link *base)
{
    struct fault_link *link = link_of(base);
    struct flight *flight;

    pthread_mutex_lock(&link->lock);
    link->stop = true;
    pthread_cond_signal(&link->work);
    pthread_mutex_unlock(&link->lock);
    pthread_join(link->wire, NULL);
    for (int i = 0; i < TFR_CHANNELS; i++) {
        while ((flight = queue_pop(&link->channels[i]))) {
            flight->status = TFR_E_PEER;
            queue_push(&link->delivered, flight);
        }
    }
    done_run(link, true);
    link->inner->ops->close(link->inner);
    pthread_mutex_destroy(&link->lock);
    pthread_cond_destroy(&link->work);
    pthread_cond_destroy(&link->idle);
    free(link);
}

static void fault_forked(struct tfr_link *base)
{
    struct tfr_link *inner = link_of(base)->inner;

    inner->ops->forked(inner);
}

static tfr_status fault_import(struct tfr_link *base, const struct tfr_key *key,
                               struct tfr_peer_mem **peer_out)
{
    struct fault_link *link = link_of(base);
    struct tfr_peer_mem *inner;
    struct fault_peer_mem *peer;
    tfr_status status = link->inner->ops->import(link->inner, key, &inner);

    if (status != TFR_OK)
        return status;
    peer = calloc(1, sizeof(*peer));
    if (!peer) {
        inner->ops->forget(inner);
        return tfr_fail(TFR_E_NOMEM, "imported memory");
    }
    peer->base.ops = &tfr_fault_ops;
    peer->base.len = inner->len;
    peer->inner = inner;
    peer->link = link;
    peer->addr = inner->ops->addr(inner);
    *peer_out = &peer->base;
    return TFR_OK;
}

static void fault_forget(struct tfr_peer_mem *base)
{
    struct fault_peer_mem *peer = (struct fault_peer_mem *)base;

    if (peer->busy)
        settle(peer->link);
    peer->inner->ops->forget(peer->inner);
    free(peer);
}

struct tfr_transport_ops tfr_fault_ops = {
    .name = "fault",
    .caps = TFR_CAP_ONESIDED | TFR_CAP_SLEEP,
    .prepare = fault_prepare,
    .release = fault_release,
    .reg = fault_reg,
    .unreg = fault_unreg,
    .key = fault_key,
    .open = fault_open,
    .close = fault_close,
    .import = fault_import,
    .forget = fault_forget,
    .put = fault_put,
    .progress = fault_progress,
    .arm = fault_arm,
    .disarm = fault_disarm,
    .ring = fault_ring,
    .forked = fault_forked,
};
