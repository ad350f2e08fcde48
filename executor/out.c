/* Writes into the client's memory over a link without mapping.  Called by the feedback role, by
 * helpers that answer and by the pump.  Surprising: nobody waits for done().  A word goes AFTER the
 * bytes that it speaks of, so a client that has seen it has the bytes, and until it has seen the
 * word it has no say in what becomes of their source. */
#define TFR_LOG_PART "executor"
#include "executor/out.h"

#include <string.h>

#include "base/relax.h"
#include "executor/arrival.h"

void tfr_out_progress(struct tfr_session *s)
{
    /* pairs with the release below */
    if (s->mapped || atomic_exchange_explicit(&s->progress_lock, 1, memory_order_acquire))
        return;
    if (s->link->ops->progress(s->link) != TFR_OK)
        atomic_store_explicit(&s->ended, 1, memory_order_release);
    atomic_store_explicit(&s->progress_lock, 0, memory_order_release);
}

/* A link without room has puts under way: progress ends them, or the link.  Of a host that died
 * while its end took nothing, the boot socket alone tells in time. */
static void put(struct tfr_session *s, const struct tfr_xfer *xfer)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    while (!atomic_load_explicit(&s->ended, memory_order_acquire)) {
        pthread_mutex_lock(&s->out_lock);
        tfr_status status = s->link->ops->put(s->link, xfer);
        pthread_mutex_unlock(&s->out_lock);
        if (status == TFR_OK)
            return;
        if (status != TFR_AGAIN)
            break;
        tfr_out_progress(s);
        if (tfr_relax(&relax) != TFR_RELAX_SLEEP)
            continue;
        if (tfr_boot_gone(&s->boot))
            break;
        tfr_relax_nap(&relax);
    }
    atomic_store_explicit(&s->ended, 1, memory_order_release);
}

static uint64_t page_offset(const struct tfr_session *s, const void *at)
{
    return (uint64_t)((const uint8_t *)at - (const uint8_t *)s->feedback);
}

void tfr_out_word_put(struct tfr_session *s, _Atomic uint64_t *word, uint64_t value,
                      enum tfr_out_how how)
{
    struct tfr_xfer xfer = {.flags = TFR_XFER_AFTER,
                            .local = &value,
                            .peer = s->page,
                            .peer_at = page_offset(s, word),
                            .len = sizeof value};
    if (how == TFR_OUT_BELL)
        xfer.flags |= TFR_XFER_BELL;
    else if (how == TFR_OUT_MORE)
        xfer.flags |= TFR_XFER_MORE;
    atomic_store_explicit(word, value, memory_order_relaxed);
    put(s, &xfer);
}

void tfr_out_bytes(struct tfr_session *s, const void *at, uint64_t len)
{
    struct tfr_xfer xfer = {.flags = TFR_XFER_MORE,
                            .local = (void *)(uintptr_t)at,
                            .mem = s->image_mem,
                            .peer = s->page,
                            .peer_at = page_offset(s, at),
                            .len = len};
    if (!s->mapped && len)
        put(s, &xfer);
}

void tfr_out_lane(struct tfr_session *s, uint64_t place, uint64_t len)
{
    uint64_t at;
    const struct tfr_lane *lane = tfr_lane_find(s, place, len, &at);
    /* What the client has no room for hurts the client alone. */
    if (!lane || !tfr_span_inside(at, len, lane->peer_len))
        return;
    /* Small puts are copied by the CPU, which cannot read the GPU's memory; what comes behind lies
     * in the same unit of the lane. */
    if (!lane->host && len <= TFR_SMALL_MAX)
        len = TFR_SMALL_MAX + 8;
    struct tfr_xfer xfer = {.flags = TFR_XFER_MORE,
                            .local = lane->host ? lane->host + at : (void *)(lane->gpu + at),
                            .mem = lane->mem,
                            .peer = s->page,
                            .peer_at = lane->peer_at + at,
                            .len = len};
    put(s, &xfer);
}
