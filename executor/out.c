/* Writes into the client's memory over a link without mapping.  Called by the feedback role, by
 * helpers that answer and by the pump; the link takes one caller at a time. */
#define TFR_LOG_PART "executor"
#include "executor/out.h"

#include <string.h>

#include "base/relax.h"

static void put_done(void *arg, tfr_status status)
{
    (void)status; /* the link keeps its error */
    /* pairs with the acquire in tfr_out_settle */
    atomic_fetch_sub_explicit((_Atomic uint32_t *)arg, 1, memory_order_release);
}

static void link_failed(struct tfr_session *s)
{
    atomic_store_explicit(&s->ended, 1, memory_order_release);
}

/* With out_lock held.  A link without room has puts under way: progress ends them, or the link. */
static void put(struct tfr_session *s, const struct tfr_xfer *xfer)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    while (!atomic_load_explicit(&s->ended, memory_order_acquire)) {
        tfr_status status = s->link->ops->put(s->link, xfer);
        if (status == TFR_OK)
            return;
        if (status != TFR_AGAIN || s->link->ops->progress(s->link) != TFR_OK)
            break;
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
    }
    link_failed(s);
    if (xfer->done)
        xfer->done(xfer->arg, TFR_E_PEER);
}

static uint64_t page_offset(const struct tfr_session *s, const void *at)
{
    return (uint64_t)((const uint8_t *)at - (const uint8_t *)s->feedback);
}

void tfr_out_word_put(struct tfr_session *s, _Atomic uint64_t *word, uint64_t value, bool bell)
{
    struct tfr_xfer xfer = {.flags = TFR_XFER_AFTER | (bell ? TFR_XFER_BELL : 0),
                            .local = &value,
                            .peer = s->page,
                            .peer_at = page_offset(s, word),
                            .len = sizeof value};
    pthread_mutex_lock(&s->out_lock);
    atomic_store_explicit(word, value, memory_order_relaxed);
    put(s, &xfer);
    pthread_mutex_unlock(&s->out_lock);
}

void tfr_out_bytes(struct tfr_session *s, const void *at, uint64_t len)
{
    struct tfr_xfer xfer = {.local = (void *)(uintptr_t)at,
                            .mem = s->image_mem,
                            .peer = s->page,
                            .peer_at = page_offset(s, at),
                            .len = len};
    if (s->mapped || !len)
        return;
    if (len > TFR_SMALL_MAX) { /* the link reads the image until it is done */
        atomic_fetch_add_explicit(&s->out_pending, 1, memory_order_relaxed);
        xfer.done = put_done;
        xfer.arg = &s->out_pending;
    }
    pthread_mutex_lock(&s->out_lock);
    put(s, &xfer);
    pthread_mutex_unlock(&s->out_lock);
    if (xfer.done)
        tfr_out_settle(s, &s->out_pending);
}

void tfr_out_lane(struct tfr_session *s, uint64_t at, uint64_t len, _Atomic uint32_t *pending)
{
    struct tfr_xfer xfer = {.local = s->lane + at,
                            .mem = s->session_mem,
                            .peer = s->page,
                            .peer_at = s->peer_lane_at + at,
                            .len = len,
                            .done = put_done,
                            .arg = pending};
    atomic_fetch_add_explicit(pending, 1, memory_order_relaxed);
    pthread_mutex_lock(&s->out_lock);
    put(s, &xfer);
    pthread_mutex_unlock(&s->out_lock);
}

void tfr_out_progress(struct tfr_session *s)
{
    if (s->mapped || pthread_mutex_trylock(&s->out_lock) != 0)
        return;
    if (s->link->ops->progress(s->link) != TFR_OK)
        link_failed(s);
    pthread_mutex_unlock(&s->out_lock);
}

bool tfr_out_settle(struct tfr_session *s, const _Atomic uint32_t *pending)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    while (atomic_load_explicit(pending, memory_order_acquire)) {
        if (atomic_load_explicit(&s->ended, memory_order_acquire))
            return false;
        tfr_out_progress(s);
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
    }
    return true;
}
