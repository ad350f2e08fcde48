/* Bytes over a link that maps nothing.  Called by lane.c, copy.c and client.c.  Surprising: done()
 * of a put may run on any thread that progresses, or inside the put itself. */
#define TFR_LOG_PART "intercept"
#include "intercept/bulk.h"

#include <stddef.h>
#include <string.h>

#include "base/log.h"
#include "intercept/gather.h"
#include "intercept/pulse.h"
#include "transport/ways.h"

static struct channel {
    _Alignas(64) _Atomic uint32_t lock; /* guards the rest, and puts and gets of the channel */
    uint64_t stamps;                    /* made in this session */
} channels[TFR_CHANNELS];
static_assert((int)TFR_CHANNELS <= (int)TFR_STAMPS, "a stamp for each channel");

static _Atomic uint32_t progress_lock; /* guards progress of the link; never waited for */
static _Atomic bool live;              /* written with every lock held */
static _Atomic uint32_t turn;
static _Atomic uint32_t spread = 1; /* of the session's link */
static _Atomic uint64_t moved; /* bytes to and fro, where progress moves them: a sign of life */

void tfr_bulk_open(void)
{
    tfr_client.near = tfr_boot_near(&tfr_client.boot);
    tfr_gather_init();
    atomic_store_explicit(&tfr_client.page->cpu, 0, memory_order_relaxed);
    atomic_store_explicit(&spread, tfr_client.link->ops->spread(tfr_client.link),
                          memory_order_relaxed);
    for (int i = 0; i < TFR_CHANNELS; i++)
        channels[i].stamps = 0;
    atomic_store_explicit(&live, true, memory_order_release);
}

void tfr_bulk_close(void)
{
    for (int i = 1; i < TFR_CHANNELS; i++)
        tfr_spin_lock(&channels[i].lock);
    tfr_spin_lock(&progress_lock);
    atomic_store_explicit(&live, false, memory_order_release);
    tfr_spin_unlock(&progress_lock);
    for (int i = 1; i < TFR_CHANNELS; i++)
        tfr_spin_unlock(&channels[i].lock);
}

/* With the lock. */
static tfr_status link_progress(void)
{
    struct tfr_link *link = tfr_client.link;
    struct tfr_link_count count;
    tfr_status status = link->ops->progress(link);
    if (tfr_client.polled) {
        link->ops->count(link, &count);
        atomic_store_explicit(&moved, count.bytes + count.taken, memory_order_relaxed);
    }
    return status;
}

void tfr_client_progress(void)
{
    /* A lost session writes no more into the application's memory. */
    if (tfr_client.mapped || !atomic_load_explicit(&live, memory_order_acquire) ||
        atomic_load_explicit(&tfr_client.error, memory_order_acquire))
        return;
    tfr_post_flush();
    /* pairs with the release in tfr_spin_unlock */
    if (atomic_exchange_explicit(&progress_lock, 1, memory_order_acquire))
        return;
    bool lost = atomic_load_explicit(&live, memory_order_relaxed) && link_progress() != TFR_OK;
    tfr_spin_unlock(&progress_lock);
    if (lost)
        tfr_client_gone();
}

/* ---- room ---- */

static CUresult look(void)
{
    tfr_pulse_look(TFR_WAIT_TRANSFER);
    if (tfr_boot_gone(&tfr_client.boot))
        tfr_client_gone();
    return (CUresult)atomic_load_explicit(&tfr_client.error, memory_order_acquire);
}

CUresult tfr_bulk_room_wait(struct tfr_relax *relax)
{
    enum tfr_relax_step step = tfr_relax(relax);
    tfr_client_progress();
    if (step != TFR_RELAX_SLEEP)
        return CUDA_SUCCESS;
    tfr_relax_nap(relax);
    return look();
}

CUresult tfr_bulk_wait(const _Atomic uint32_t *left)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    CUresult result = CUDA_SUCCESS;
    uint64_t seen = 0;
    relax.patience = TFR_MOVE_PATIENCE;
    atomic_fetch_add_explicit(&tfr_client.movers, 1, memory_order_relaxed);
    /* pairs with the release in landed */
    while (atomic_load_explicit(left, memory_order_acquire) && result == CUDA_SUCCESS) {
        enum tfr_relax_step step = tfr_relax(&relax);
        tfr_client_progress();
        if (step != TFR_RELAX_SLEEP)
            continue;
        uint64_t moves = atomic_load_explicit(&moved, memory_order_relaxed);
        if (moves != seen) {
            seen = moves;
            tfr_relax_again(&relax);
            continue;
        }
        if (tfr_client.polled)
            tfr_wait_moved(left);
        else
            tfr_relax_nap(&relax);
        result = look();
    }
    atomic_fetch_sub_explicit(&tfr_client.movers, 1, memory_order_relaxed);
    return result;
}

/* With the channel's lock. */
static CUresult xfer_start(tfr_status (*op)(struct tfr_link *link, const struct tfr_xfer *xfer),
                           const struct tfr_xfer *xfer)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    CUresult result = CUDA_SUCCESS;
    while (result == CUDA_SUCCESS) {
        tfr_status status = op(tfr_client.link, xfer);
        if (status == TFR_OK)
            return CUDA_SUCCESS;
        result = status == TFR_AGAIN ? tfr_bulk_room_wait(&relax) : tfr_client_gone();
    }
    return result;
}

CUresult tfr_bulk_send(const struct tfr_xfer *xfer)
{
    return xfer_start(tfr_client.link->ops->put, xfer);
}

/* ---- loads ---- */

static void landed(void *arg, tfr_status status)
{
    /* First: who settles takes bytes for good unless this is known by then. */
    if (status == TFR_E_INVAL)
        tfr_lane_fault(arg);
    else if (status != TFR_OK)
        tfr_client_gone();
    /* pairs with the acquire in lane.c */
    atomic_fetch_sub_explicit((_Atomic uint32_t *)arg, 1, memory_order_release);
}

/* Nobody would hear of it. */
static void landed_alone(void *arg, tfr_status status)
{
    if (status == TFR_E_INVAL)
        tfr_client_broken("memory was unmapped while a copy still needed it");
    landed(arg, status == TFR_E_INVAL ? TFR_E_PEER : status);
}

static struct tfr_xfer xfer_of(const struct tfr_load *load, uint16_t channel)
{
    const struct tfr_client_lane *lane = &tfr_client.lanes[load->extent->lane];
    return (struct tfr_xfer){.channel = channel,
                             .local = load->local ? load->local : tfr_extent_twin(load->extent),
                             .mem = load->local ? load->mem : lane->mem,
                             .peer = lane->peer,
                             .peer_at = lane->peer_at + load->extent->at,
                             .len = load->len,
                             .done = load->awaited ? landed : landed_alone,
                             .arg = tfr_lane_shipping(load->extent)};
}

uint16_t tfr_bulk_channel(void)
{
    uint32_t n = atomic_fetch_add_explicit(&turn, 1, memory_order_relaxed);
    return (uint16_t)(1 + n % atomic_load_explicit(&spread, memory_order_relaxed));
}

/* Locked; false: that session is over. */
static bool channel_take(struct channel *c, uint16_t session)
{
    tfr_spin_lock(&c->lock);
    /* pairs with the release in tfr_bulk_open */
    if (atomic_load_explicit(&live, memory_order_acquire) &&
        session == (uint16_t)tfr_client.session_at)
        return true;
    tfr_spin_unlock(&c->lock);
    return false;
}

/* With the channel's lock, behind what was put there. */
static CUresult word_put(const _Atomic uint64_t *word, uint64_t value, uint16_t channel)
{
    struct tfr_xfer xfer = {.channel = channel,
                            .flags = TFR_XFER_AFTER,
                            .local = &value,
                            .peer = tfr_client.session,
                            .peer_at = tfr_client.page_at + (uint64_t)((const uint8_t *)word -
                                                                       (uint8_t *)tfr_client.page),
                            .len = sizeof value};
    return tfr_bulk_send(&xfer);
}

CUresult tfr_bulk_put(const struct tfr_load *load, uint64_t *stamp_out)
{
    uint16_t at = load->channel ? load->channel : tfr_bulk_channel();
    struct channel *c = &channels[at];
    if (!channel_take(c, load->extent->session))
        return tfr_client_ended();
    struct tfr_xfer xfer = xfer_of(load, at);
    xfer.flags = TFR_XFER_MORE;
    atomic_fetch_add_explicit(tfr_lane_shipping(load->extent), 1, memory_order_relaxed);
    CUresult result = tfr_bulk_send(&xfer);
    if (result != CUDA_SUCCESS)
        landed(tfr_lane_shipping(load->extent), TFR_E_PEER);
    else
        result = word_put(&tfr_client.page->arrived[at], ++c->stamps, at);
    *stamp_out = tfr_stamp_make(at, c->stamps);
    tfr_spin_unlock(&c->lock);
    return result;
}

CUresult tfr_bulk_get(const struct tfr_load *load)
{
    uint16_t at = load->channel ? load->channel : tfr_bulk_channel();
    struct channel *c = &channels[at];
    if (!channel_take(c, load->extent->session))
        return tfr_client_ended();
    struct tfr_xfer xfer = xfer_of(load, at);
    atomic_fetch_add_explicit(tfr_lane_shipping(load->extent), 1, memory_order_relaxed);
    CUresult result = xfer_start(tfr_client.link->ops->get, &xfer);
    if (result != CUDA_SUCCESS)
        landed(tfr_lane_shipping(load->extent), TFR_E_PEER);
    tfr_spin_unlock(&c->lock);
    return result;
}

void tfr_bulk_word(_Atomic uint64_t *word, uint64_t value, uint16_t channel, uint32_t session)
{
    struct channel *c = &channels[channel];
    if (!channel_take(c, (uint16_t)session))
        return;
    word_put(word, value, channel);
    tfr_spin_unlock(&c->lock);
}
