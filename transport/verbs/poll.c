/* Completions.  One that tells of request n tells of all before it, so most requests make none; who
 * wants to hear of the last few is served by an empty request behind them, posted when nothing
 * else is going to tell. */
#define TFR_LOG_PART "transport"
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/relax.h"
#include "transport/verbs/verbs.h"

enum { BATCH = 16, IDLE_MAX = 32, LOOK_EVERY = 256 };
#define FLUSH_NS TFR_NS_PER_S /* how long a device may take to give up what it has */

static void retire(struct verbs_channel *channel, uint64_t upto, tfr_status status)
{
    uint64_t at = atomic_load_explicit(&channel->retired, memory_order_relaxed);
    /* pairs with the release in transfer: the flights below are written */
    uint64_t filled = atomic_load_explicit(&channel->filled, memory_order_acquire);

    for (upto = upto < filled ? upto : filled; at < upto; at++) {
        struct verbs_flight flight = channel->flights[at % channel->depth];
        if (flight.done)
            flight.done(flight.arg, status);
        /* pairs with the acquire in has_room: the slot may be filled again */
        atomic_store_explicit(&channel->retired, at + 1, memory_order_release);
    }
    channel->idle = 0;
}

static bool fail_first(struct verbs_link *link, tfr_status status)
{
    int32_t ok = TFR_OK;

    return atomic_compare_exchange_strong_explicit(&link->error, &ok, (int32_t)status,
                                                   memory_order_relaxed, memory_order_relaxed);
}

void verbs_fail(struct verbs_link *link, tfr_status status, const char *why)
{
    if (fail_first(link, status) && why)
        tfr_warn("verbs link lost: %s", why);
}

/* A queue pair that fails gives up everything; the one completion that says why may come late. */
static void completion_fail(struct verbs_link *link, enum ibv_wc_status why)
{
    bool first = fail_first(link, TFR_E_PEER);

    if (why == IBV_WC_WR_FLUSH_ERR) {
        link->unsaid |= first;
    } else if (first || link->unsaid) {
        link->unsaid = false;
        tfr_warn("verbs link lost: %s", ibv_wc_status_str(why));
    }
}

static void send_done(struct verbs_link *link, const struct ibv_wc *wc)
{
    struct verbs_channel *channel = &link->channels[wc->wr_id >> 56 & (TFR_CHANNELS - 1)];
    uint64_t number = wc->wr_id & 0xffffffffffffffull;
    bool extra = wc->wr_id & EXTRA_BIT;

    if (wc->wr_id & LAND_BIT) {
        if (wc->status != IBV_WC_SUCCESS)
            completion_fail(link, wc->status);
        verbs_landed(link, (uint32_t)number, wc->status == IBV_WC_SUCCESS ? TFR_OK : TFR_E_PEER);
        return;
    }
    channel->ends++;
    atomic_store_explicit(&channel->held, false, memory_order_relaxed);
    if (extra)
        atomic_fetch_sub_explicit(&channel->extras, 1, memory_order_relaxed);
    if (wc->status == IBV_WC_SUCCESS) {
        link->heard |= channel->at == 0;
        retire(channel, extra ? number : number + 1, TFR_OK);
        return;
    }
    if (verbs_error(link) == TFR_OK)
        retire(channel, number, TFR_OK); /* what was ahead of the first that failed */
    completion_fail(link, wc->status);
    retire(channel, extra ? number : number + 1, TFR_E_PEER);
}

static void sends_poll(struct verbs_link *link, struct ibv_cq *cq)
{
    struct ibv_wc wcs[BATCH];
    int n;

    do {
        n = ibv_poll_cq(cq, BATCH, wcs);
        for (int i = 0; i < n; i++)
            send_done(link, &wcs[i]);
    } while (n == BATCH);
    if (n < 0)
        verbs_fail(link, TFR_E_PEER, "completion queue broken");
}

static void recvs_poll(struct verbs_link *link, struct ibv_cq *cq)
{
    struct ibv_wc wcs[BATCH];
    int n;

    do {
        n = ibv_poll_cq(cq, BATCH, wcs);
        for (int i = 0; i < n; i++) {
            struct verbs_channel *channel = &link->channels[wcs[i].wr_id & (TFR_CHANNELS - 1)];
            if (wcs[i].status != IBV_WC_SUCCESS) {
                completion_fail(link, wcs[i].status);
                continue;
            }
            verbs_bell_came(channel, &wcs[i]);
            if (verbs_error(link) == TFR_OK)
                verbs_recvs_post(channel, 1);
        }
    } while (n == BATCH);
}

/* Makes the device give up what it has, once; then waits for it to say so. */
static void errored_poll(struct verbs_link *link)
{
    if (!link->errored) {
        link->errored = true;
        link->errored_ns = tfr_clock_now();
        for (int i = 0; i < TFR_CHANNELS; i++)
            verbs_qp_error(link->channels[i].qp);
        for (int i = 0; i < VERBS_NIC_MAX; i++)
            verbs_qp_error(link->loops[i]);
    } else if (tfr_clock_now() - link->errored_ns > FLUSH_NS) {
        verbs_abandon(link);
    }
}

void verbs_end_ask(struct verbs_channel *channel, bool all, bool now)
{
    uint64_t retired = atomic_load_explicit(&channel->retired, memory_order_relaxed);
    uint64_t upto = all ? atomic_load_explicit(&channel->posted, memory_order_relaxed)
                        : atomic_load_explicit(&channel->wanted, memory_order_relaxed);

    if (upto <= retired || atomic_load_explicit(&channel->extras, memory_order_relaxed) ||
        atomic_load_explicit(&channel->signalled, memory_order_relaxed) > retired)
        channel->idle = 0;
    else if (now || ++channel->idle > IDLE_MAX)
        verbs_extra(channel, NULL, 0, NULL);
}

void verbs_poll_locked(struct verbs_link *link)
{
    /* pairs with the peer's put; looked at first, so that what came before it is taken below */
    bool closed = atomic_load_explicit(&link->ctl->closed, memory_order_acquire) != 0;

    for (uint32_t i = 0; i < link->dev->nic_n; i++) {
        if (!link->cqs[i].events)
            continue;
        sends_poll(link, link->cqs[i].send);
        recvs_poll(link, link->cqs[i].recv);
    }
    if (closed)
        verbs_fail(link, TFR_E_PEER, NULL);
    if (verbs_error(link) != TFR_OK) {
        errored_poll(link);
        return;
    }
    verbs_answer(link);
    verbs_notes_return(link, false);
    for (int i = 0; i < TFR_CHANNELS; i++)
        verbs_end_ask(&link->channels[i], false, false);
}

tfr_status verbs_progress(struct tfr_link *base)
{
    struct verbs_link *link = verbs_link_of(base);
    uint32_t looks = atomic_load_explicit(&link->looks, memory_order_relaxed);

    if (pthread_mutex_trylock(&link->poll) == 0) {
        atomic_store_explicit(&link->looks, looks + 1, memory_order_relaxed);
        if (looks % LOOK_EVERY == 0)
            verbs_look(link);
        verbs_poll_locked(link);
        pthread_mutex_unlock(&link->poll);
    }
    return verbs_error(link);
}

/* Is something below the marks still under way? */
static bool is_behind(const struct verbs_link *link, const uint64_t marks[TFR_CHANNELS])
{
    if (verbs_landings_busy(link))
        return true;
    for (int i = 0; i < TFR_CHANNELS; i++) {
        /* pairs with the release in retire: done() has returned */
        if (atomic_load_explicit(&link->channels[i].retired, memory_order_acquire) < marks[i])
            return true;
    }
    return false;
}

void verbs_drain(struct verbs_link *link)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    uint64_t marks[TFR_CHANNELS];

    for (int i = 0; i < TFR_CHANNELS; i++)
        marks[i] = atomic_load_explicit(&link->channels[i].posted, memory_order_relaxed);
    while (is_behind(link, marks)) {
        pthread_mutex_lock(&link->poll);
        verbs_look(link);
        verbs_poll_locked(link);
        for (int i = 0; i < TFR_CHANNELS && verbs_error(link) == TFR_OK; i++)
            verbs_end_ask(&link->channels[i], true, true);
        pthread_mutex_unlock(&link->poll);
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
    }
}

void verbs_abandon(struct verbs_link *link)
{
    for (int i = 0; i < TFR_CHANNELS; i++)
        retire(&link->channels[i], UINT64_MAX, TFR_E_PEER);
    verbs_landings_abandon(link);
}
