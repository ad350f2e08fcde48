/* The caller's side of a fault link: what put, get, progress and the sleepers' calls do on the
 * caller's own thread.  A transfer is queued for the wire (wire.c), and done() is called from here
 * some time after the inner link is done with its pieces. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rec.h"
#include "transport/fault/fault.h"

enum {
    AGAIN_ONE_IN = 16,
    SLOW_ONE_IN = 8, /* AFTER puts and bells that are late; others are prompt */
};

/* Delays in nanoseconds, upper ends. */
#define LAZY_NS   (300 * TFR_NS_PER_US) /* a put that nothing forces */
#define PROMPT_NS (4 * TFR_NS_PER_US)
#define SLOW_NS   (100 * TFR_NS_PER_US)

#define SETTLE_NAP_NS (20 * TFR_NS_PER_US)
#define DEAD_NS       (2 * TFR_NS_PER_S) /* a dead inner link gives back what it took by then */

uint64_t fault_draw(uint64_t *seed)
{
    uint64_t x = *seed += 0x9e3779b97f4a7c15ull;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

void fault_queue_init(struct fault_queue *queue)
{
    queue->first = NULL;
    queue->last = &queue->first;
}

void fault_queue_push(struct fault_queue *queue, struct fault_flight *flight)
{
    flight->next = NULL;
    *queue->last = flight;
    queue->last = &flight->next;
}

struct fault_flight *fault_queue_pop(struct fault_queue *queue)
{
    struct fault_flight *flight = queue->first;

    if (flight && !(queue->first = flight->next))
        queue->last = &queue->first;
    return flight;
}

uint64_t fault_due(uint64_t *seed, uint16_t flags)
{
    uint64_t most = LAZY_NS;

    if (flags & (TFR_XFER_AFTER | TFR_XFER_BELL))
        most = fault_draw(seed) % SLOW_ONE_IN ? PROMPT_NS : SLOW_NS;
    return tfr_clock_now() + fault_draw(seed) % most;
}

void fault_inner_enter(struct fault_link *link)
{
    pthread_mutex_lock(&link->inner_lock);
}

void fault_inner_leave(struct fault_link *link)
{
    pthread_mutex_unlock(&link->inner_lock);
}

void fault_error_note(struct fault_link *link, tfr_status status)
{
    int32_t ok = TFR_OK;

    if (status < TFR_OK)
        atomic_compare_exchange_strong_explicit(&link->error, &ok, status, memory_order_relaxed,
                                                memory_order_relaxed);
}

static tfr_status error_of(struct fault_link *link)
{
    return (tfr_status)atomic_load_explicit(&link->error, memory_order_relaxed);
}

static void busy_add(const struct tfr_xfer *xfer, uint32_t by)
{
    if (xfer->mem)
        atomic_fetch_add_explicit(&((struct fault_mem *)xfer->mem)->busy, by, memory_order_relaxed);
    if (xfer->peer)
        atomic_fetch_add_explicit(&((struct fault_peer_mem *)xfer->peer)->busy, by,
                                  memory_order_relaxed);
}

/* Pairs with the acquire loads of unreg and forget. */
static void busy_drop(const struct tfr_xfer *xfer)
{
    if (xfer->mem)
        atomic_fetch_sub_explicit(&((struct fault_mem *)xfer->mem)->busy, 1, memory_order_release);
    if (xfer->peer)
        atomic_fetch_sub_explicit(&((struct fault_peer_mem *)xfer->peer)->busy, 1,
                                  memory_order_release);
}

static void flight_done(struct fault_link *link, struct fault_flight *flight)
{
    const struct tfr_xfer *xfer = &flight->xfer;

    if (xfer->peer && !flight->get && xfer->channel == 0)
        atomic_fetch_sub_explicit(&link->busy, 1, memory_order_relaxed);
    if (xfer->done)
        xfer->done(xfer->arg, flight->status);
    busy_drop(xfer);
}

void fault_done_run(struct fault_link *link, bool all)
{
    struct fault_flight *flight;

    pthread_mutex_lock(&link->lock);
    while ((flight = link->delivered.first) && (all || flight->due_ns <= tfr_clock_now())) {
        fault_queue_pop(&link->delivered);
        pthread_mutex_unlock(&link->lock);
        flight_done(link, flight);
        pthread_mutex_lock(&link->lock);
        flight->next = link->spare;
        link->spare = flight;
        link->flying--;
    }
    pthread_mutex_unlock(&link->lock);
}

/* What was announced by MORE goes; with the lock held. */
static void held_release(struct fault_queue *channel)
{
    for (struct fault_flight *at = channel->first; at; at = at->next)
        at->held = false;
}

static bool settled(struct fault_link *link)
{
    bool idle;

    pthread_mutex_lock(&link->lock);
    for (int i = 0; i < TFR_CHANNELS; i++)
        held_release(&link->channels[i]);
    pthread_cond_signal(&link->work);
    idle = link->flying == 0 && !link->bell_due_ns;
    pthread_mutex_unlock(&link->lock);
    return idle;
}

static void hurry_add(struct fault_link *link, uint32_t by)
{
    pthread_mutex_lock(&link->lock);
    link->hurry += by;
    pthread_mutex_unlock(&link->lock);
}

bool fault_settle(struct fault_link *link, const _Atomic uint32_t *busy)
{
    const struct timespec nap = {.tv_nsec = (long)SETTLE_NAP_NS};
    uint64_t dead_ns = 0;
    bool idle;

    hurry_add(link, 1);
    while (!(idle = settled(link) || !atomic_load_explicit(busy, memory_order_acquire))) {
        fault_done_run(link, true);
        if (fault_progress(&link->base) != TFR_OK && !dead_ns)
            dead_ns = tfr_clock_now() + DEAD_NS;
        if (dead_ns && tfr_clock_now() > dead_ns)
            break;
        clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
    }
    hurry_add(link, UINT32_MAX);
    return idle;
}

tfr_status fault_progress(struct tfr_link *base)
{
    struct fault_link *link = fault_link_of(base);
    tfr_status status;

    fault_done_run(link, false);
    if (atomic_load_explicit(&link->wire_wants, memory_order_relaxed))
        sched_yield();
    fault_inner_enter(link);
    status = link->inner->ops->progress(link->inner);
    fault_inner_leave(link);
    fault_error_note(link, status);
    return status;
}

static tfr_status xfer_check(const struct fault_link *link, const struct tfr_xfer *xfer, bool get)
{
    bool need_mem =
        !(link->base.ops->caps & TFR_CAP_ANY_LOCAL) && (get || xfer->len > TFR_SMALL_MAX);

    if (xfer->channel >= TFR_CHANNELS || (need_mem && !xfer->mem) ||
        !tfr_span_inside(xfer->peer_at, xfer->len, xfer->peer->len))
        return tfr_fail(TFR_E_INVAL, "transfer of %zu bytes at %llu on channel %u", xfer->len,
                        (unsigned long long)xfer->peer_at, xfer->channel);
    return TFR_OK;
}

/* With the lock held; NULL: the wire is full.  What MORE holds back must not fill it for good. */
static struct fault_flight *flight_take(struct fault_link *link)
{
    struct fault_flight *flight = link->spare;

    if (flight) {
        link->spare = flight->next;
        link->flying++;
        flight->link = link;
        flight->status = TFR_OK;
        return flight;
    }
    for (int i = 0; i < TFR_CHANNELS; i++)
        held_release(&link->channels[i]);
    pthread_cond_signal(&link->work);
    return NULL;
}

static void flight_start(struct fault_link *link, struct fault_flight *flight,
                         const struct tfr_xfer *xfer, bool get)
{
    struct fault_queue *channel = &link->channels[xfer->channel];

    flight->xfer = *xfer;
    flight->get = get;
    if (!get && xfer->len <= TFR_SMALL_MAX) {
        memcpy(flight->small, xfer->local, xfer->len);
        flight->xfer.local = flight->small;
    }
    flight->number = ++link->number;
    flight->due_ns = fault_due(&link->put_seed[xfer->channel], xfer->flags);
    flight->held = !get && (xfer->flags & TFR_XFER_MORE);
    if (!flight->held)
        held_release(channel);
    fault_queue_push(channel, flight);
    busy_add(xfer, 1);
    if (!get && xfer->channel == 0)
        atomic_fetch_add_explicit(&link->busy, 1, memory_order_relaxed);
    *(get ? &link->gets : &link->puts) += 1;
    pthread_cond_signal(&link->work);
}

static tfr_status flight_send(struct fault_link *link, const struct tfr_xfer *xfer, bool get)
{
    tfr_status status = xfer_check(link, xfer, get);
    struct fault_flight *flight = NULL;

    if (status == TFR_OK)
        status = error_of(link);
    if (status != TFR_OK)
        return status;
    fault_done_run(link, false);
    pthread_mutex_lock(&link->lock);
    if (fault_draw(&link->put_seed[xfer->channel]) % AGAIN_ONE_IN)
        flight = flight_take(link);
    if (flight)
        flight_start(link, flight, xfer, get);
    pthread_mutex_unlock(&link->lock);
    return flight ? TFR_OK : TFR_AGAIN;
}

tfr_status fault_put(struct tfr_link *base, const struct tfr_xfer *xfer)
{
    return flight_send(fault_link_of(base), xfer, false);
}

tfr_status fault_get(struct tfr_link *base, const struct tfr_xfer *xfer)
{
    if (!(base->ops->caps & TFR_CAP_GET))
        return TFR_E_UNSUP;
    return flight_send(fault_link_of(base), xfer, true);
}

static void land_done(void *arg, tfr_status status)
{
    struct fault_flight *flight = arg;
    struct fault_link *link = flight->link;

    pthread_mutex_lock(&link->lock);
    flight->status = status;
    fault_flight_end(flight);
    pthread_mutex_unlock(&link->lock);
}

tfr_status fault_land(struct tfr_link *base, const struct tfr_landing *landing)
{
    struct fault_link *link = fault_link_of(base);
    struct tfr_landing inner = *landing;
    struct fault_flight *flight;
    tfr_status status;

    pthread_mutex_lock(&link->lock);
    flight = flight_take(link);
    pthread_mutex_unlock(&link->lock);
    if (!flight)
        return TFR_AGAIN;
    flight->get = false;
    flight->xfer =
        (struct tfr_xfer){.mem = landing->mem, .done = landing->done, .arg = landing->arg};
    busy_add(&flight->xfer, 1);
    inner.mem = ((struct fault_mem *)landing->mem)->inner;
    inner.done = land_done;
    inner.arg = flight;
    fault_inner_enter(link);
    status = link->inner->ops->land(link->inner, &inner);
    fault_inner_leave(link);
    if (status == TFR_OK)
        return TFR_OK;
    busy_drop(&flight->xfer);
    pthread_mutex_lock(&link->lock);
    flight->next = link->spare;
    link->spare = flight;
    link->flying--;
    pthread_mutex_unlock(&link->lock);
    return status;
}

uint32_t fault_busy(const struct tfr_link *base)
{
    return atomic_load_explicit(&((const struct fault_link *)base)->busy, memory_order_relaxed);
}

uint32_t fault_spread(const struct tfr_link *base)
{
    const struct fault_link *link = (const struct fault_link *)base;

    return link->inner->ops->spread(link->inner);
}

void fault_count(const struct tfr_link *base, struct tfr_link_count *count_out)
{
    struct fault_link *link = (struct fault_link *)(uintptr_t)base;

    fault_inner_enter(link);
    link->inner->ops->count(link->inner, count_out);
    fault_inner_leave(link);
    pthread_mutex_lock(&link->lock);
    count_out->puts = link->puts;
    count_out->gets = link->gets;
    pthread_mutex_unlock(&link->lock);
}

/* All puts up to now must be visible to whoever the bell wakes. */
void fault_ring(struct tfr_link *base)
{
    struct fault_link *link = fault_link_of(base);

    pthread_mutex_lock(&link->lock);
    link->bell_after = link->number;
    if (!link->bell_due_ns)
        link->bell_due_ns = fault_due(&link->wire_seed, TFR_XFER_BELL);
    pthread_cond_signal(&link->work);
    pthread_mutex_unlock(&link->lock);
}

/* With the lock held. */
static tfr_status sleeper_watch(struct fault_link *link, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};

    if (link->inner_fd == fd)
        return TFR_OK;
    if (link->inner_fd >= 0)
        epoll_ctl(link->epoll, EPOLL_CTL_DEL, link->inner_fd, NULL);
    link->inner_fd = -1;
    if (epoll_ctl(link->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        return tfr_fail(TFR_E_SYS, "epoll of the fault link: %s", strerror(errno));
    link->inner_fd = fd;
    return TFR_OK;
}

tfr_status fault_arm(struct tfr_link *base, int *fd_out)
{
    struct fault_link *link = fault_link_of(base);
    tfr_status status;
    int fd;

    fault_inner_enter(link);
    status = link->inner->ops->arm(link->inner, &fd);
    if (status == TFR_OK) {
        pthread_mutex_lock(&link->lock);
        status = sleeper_watch(link, fd);
        link->armed += status == TFR_OK;
        pthread_cond_signal(&link->work);
        pthread_mutex_unlock(&link->lock);
        if (status != TFR_OK)
            link->inner->ops->disarm(link->inner);
    }
    fault_inner_leave(link);
    if (status == TFR_OK)
        *fd_out = link->epoll;
    return status;
}

void fault_disarm(struct tfr_link *base)
{
    struct fault_link *link = fault_link_of(base);
    uint64_t told;

    fault_inner_enter(link);
    link->inner->ops->disarm(link->inner);
    fault_inner_leave(link);
    pthread_mutex_lock(&link->lock);
    if (--link->armed == 0 && link->told)
        link->told = read(link->event, &told, sizeof(told)) != sizeof(told);
    pthread_mutex_unlock(&link->lock);
}
