/* The wire of a fault link: a thread that carries transfers to the inner link by and by.  Between
 * two AFTER puts of a channel it tears them and sends the pieces in any order; the inner link may
 * reorder them further.  done() of a piece comes from the inner link, under its lock, and only
 * counts: the caller's done() runs in the caller's own calls (path.c). */
#define TFR_LOG_PART "transport"
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "transport/fault/fault.h"

/* Delays in nanoseconds, upper ends. */
#define DONE_NS  (60 * TFR_NS_PER_US)
#define AGAIN_NS (50 * TFR_NS_PER_US)

struct piece {
    struct fault_flight *flight;
    size_t at, len;
};

void fault_flight_end(struct fault_flight *flight)
{
    struct fault_link *link = flight->link;

    flight->due_ns = tfr_clock_now() + fault_draw(&link->wire_seed) % DONE_NS;
    fault_queue_push(&link->delivered, flight);
    if (link->armed)
        pthread_cond_signal(&link->work);
}

/* The inner link has done a piece, or refused it, or the last one has been sent. */
static void piece_done(void *arg, tfr_status status)
{
    struct fault_flight *flight = arg;
    struct fault_link *link = flight->link;

    pthread_mutex_lock(&link->lock);
    if (status != TFR_OK)
        flight->status = status;
    if (--flight->pending == 0)
        fault_flight_end(flight);
    pthread_mutex_unlock(&link->lock);
}

/* Room in the inner link comes by the caller's progress; false: the link is being closed. */
static bool again_wait(struct fault_link *link)
{
    const struct timespec nap = {.tv_nsec = (long)AGAIN_NS};
    bool stop;

    clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
    pthread_mutex_lock(&link->lock);
    stop = link->stop;
    pthread_mutex_unlock(&link->lock);
    return !stop;
}

static tfr_status piece_try(struct fault_link *link, const struct tfr_xfer *xfer, bool get)
{
    tfr_status status;

    atomic_store_explicit(&link->wire_wants, true, memory_order_relaxed);
    fault_inner_enter(link);
    atomic_store_explicit(&link->wire_wants, false, memory_order_relaxed);
    if (get)
        status = link->inner->ops->get(link->inner, xfer);
    else
        status = link->inner->ops->put(link->inner, xfer);
    fault_inner_leave(link);
    return status;
}

static void piece_send(struct fault_link *link, const struct piece *piece, uint16_t flags)
{
    struct fault_flight *flight = piece->flight;
    const struct tfr_xfer *whole = &flight->xfer;
    struct tfr_xfer xfer = {
        .channel = whole->channel,
        .flags = flags,
        .local = (uint8_t *)whole->local + piece->at,
        .mem = whole->mem ? ((struct fault_mem *)whole->mem)->inner : NULL,
        .peer = ((struct fault_peer_mem *)whole->peer)->inner,
        .peer_at = whole->peer_at + piece->at,
        .len = piece->len,
        .done = piece_done,
        .arg = flight,
    };
    tfr_status status;

    pthread_mutex_lock(&link->lock);
    flight->pending++;
    pthread_mutex_unlock(&link->lock);
    while ((status = piece_try(link, &xfer, flight->get)) == TFR_AGAIN) {
        if (!again_wait(link)) {
            status = TFR_E_PEER;
            break;
        }
    }
    if (status == TFR_OK)
        return;
    fault_error_note(link, status);
    piece_done(flight, status);
}

/* A word of eight bytes stays whole. */
static size_t pieces_cut(struct fault_flight *flight, uint64_t *seed, struct piece *pieces)
{
    size_t n = 0, at = 0, len;

    do {
        size_t left = flight->xfer.len - at;
        bool whole = left <= sizeof(uint64_t) || n == FAULT_PIECES - 1;
        len = whole ? left : fault_draw(seed) % left + 1;
        pieces[n++] = (struct piece){flight, at, len};
        at += len;
    } while (at < flight->xfer.len);
    return n;
}

/* Sends the transfers of a list, torn and in any order.  A bell rings behind all of them. */
static void group_send(struct fault_link *link, struct fault_flight *list, uint64_t *seed)
{
    struct piece pieces[FAULT_FLIGHTS * FAULT_PIECES];
    size_t n = 0, puts = 0;
    uint16_t bell = 0;

    for (struct fault_flight *at = list; at; at = at->next) {
        size_t cut = pieces_cut(at, seed, pieces + n);
        n += cut;
        puts += at->get ? 0 : cut;
        bell |= at->xfer.flags & TFR_XFER_BELL;
    }
    while (n) {
        size_t pick = fault_draw(seed) % n;
        struct piece piece = pieces[pick];
        uint16_t flags = piece.flight->get ? 0 : piece.flight->xfer.flags & TFR_XFER_AFTER;

        pieces[pick] = pieces[--n];
        if (!piece.flight->get && --puts == 0)
            flags |= bell ? TFR_XFER_AFTER | TFR_XFER_BELL : 0;
        else if (n == puts && puts && fault_draw(seed) % 2)
            flags |= piece.flight->get ? 0 : TFR_XFER_MORE;
        piece_send(link, &piece, flags);
        if (fault_draw(seed) % 8 == 0)
            sched_yield();
    }
}

/* The transfers of a channel that must go when `last` goes: all up to it.  Cut before each AFTER
 * put, as what precedes one must be sent before it. */
static void channel_deliver(struct fault_link *link, struct fault_queue *channel, uint64_t last)
{
    while (channel->first && channel->first->number <= last && !channel->first->held) {
        struct fault_queue group;
        struct fault_flight *next;
        uint64_t seed = fault_draw(&link->wire_seed);

        fault_queue_init(&group);
        do {
            channel->first->pending = 1;
            fault_queue_push(&group, fault_queue_pop(channel));
        } while (channel->first && channel->first->number <= last && !channel->first->held &&
                 !(channel->first->xfer.flags & TFR_XFER_AFTER));
        pthread_mutex_unlock(&link->lock);
        group_send(link, group.first, &seed);
        for (struct fault_flight *at = group.first; at; at = next) {
            next = at->next; /* `at` may be in another queue at once */
            piece_done(at, TFR_OK);
        }
        pthread_mutex_lock(&link->lock);
    }
}

/* The last transfer of the channel that is due now; 0: none. */
static uint64_t channel_due(const struct fault_queue *channel, uint64_t now, bool hurry)
{
    uint64_t last = 0;

    for (const struct fault_flight *at = channel->first; at && !at->held; at = at->next) {
        if (hurry || at->due_ns <= now)
            last = at->number;
    }
    return last;
}

static void bell_ring(struct fault_link *link)
{
    pthread_mutex_unlock(&link->lock);
    fault_inner_enter(link);
    link->inner->ops->ring(link->inner);
    fault_inner_leave(link);
    pthread_mutex_lock(&link->lock);
}

/* A sleeper must call progress for a done() that is due. */
static void sleeper_tell(struct fault_link *link, uint64_t now)
{
    const uint64_t one = 1;

    if (!link->armed || link->told || !link->delivered.first || link->delivered.first->due_ns > now)
        return;
    link->told = write(link->event, &one, sizeof(one)) == sizeof(one);
}

static void due_deliver(struct fault_link *link)
{
    uint64_t now = tfr_clock_now();
    bool bell = link->bell_due_ns && (link->hurry || link->bell_due_ns <= now);
    uint64_t bell_after = link->bell_after;

    for (int i = 0; i < TFR_CHANNELS; i++) {
        uint64_t last = channel_due(&link->channels[i], now, link->hurry);
        channel_deliver(link, &link->channels[i], bell && bell_after > last ? bell_after : last);
    }
    if (bell) {
        if (link->bell_after == bell_after)
            link->bell_due_ns = 0;
        bell_ring(link);
    }
    sleeper_tell(link, now);
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* When the next thing is due; UINT64_MAX: nothing waits. */
static uint64_t next_due(const struct fault_link *link)
{
    uint64_t due = link->bell_due_ns ? link->bell_due_ns : UINT64_MAX;

    for (int i = 0; i < TFR_CHANNELS; i++) {
        for (const struct fault_flight *at = link->channels[i].first; at && !at->held;
             at = at->next)
            due = earlier(due, at->due_ns);
    }
    if (link->hurry && due != UINT64_MAX)
        return 0;
    if (link->armed && !link->told && link->delivered.first)
        due = earlier(due, link->delivered.first->due_ns);
    return due;
}

void *fault_wire_main(void *arg)
{
    struct fault_link *link = arg;

    pthread_mutex_lock(&link->lock);
    while (!link->stop) {
        uint64_t due = next_due(link);
        struct timespec until = {.tv_sec = (time_t)(due / TFR_NS_PER_S),
                                 .tv_nsec = (long)(due % TFR_NS_PER_S)};
        if (due == UINT64_MAX)
            pthread_cond_wait(&link->work, &link->lock);
        else if (due <= tfr_clock_now())
            due_deliver(link);
        else
            pthread_cond_timedwait(&link->work, &link->lock, &until);
    }
    pthread_mutex_unlock(&link->lock);
    return NULL;
}
