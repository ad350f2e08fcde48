/* Records that are answered in a reply slot: called by every entry that asks.  Surprising: a slot
 * whose answer has not come when its caller gives up stays taken for good. */
#define TFR_LOG_PART "intercept"
#include "intercept/client.h"

enum { SLOT_NONE = TFR_REPLY_SLOTS };

/* SLOT_NONE: the session has failed. */
static uint32_t slot_take(void)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_REPLY);
    for (;;) {
        uint64_t free = atomic_load_explicit(&tfr_client.slots, memory_order_relaxed);
        while (free) {
            uint32_t at = (uint32_t)__builtin_ctzll(free);
            /* pairs with the release in tfr_ask_end */
            if (atomic_compare_exchange_weak_explicit(&tfr_client.slots, &free,
                                                      free & ~(1ull << at), memory_order_acquire,
                                                      memory_order_relaxed))
                return at;
        }
        if (tfr_relax(&relax) == TFR_RELAX_SPUN)
            continue;
        if (tfr_client_look() != CUDA_SUCCESS)
            return SLOT_NONE;
        tfr_relax_nap(&relax);
    }
}

static void slot_give(uint32_t at)
{
    atomic_fetch_or_explicit(&tfr_client.slots, 1ull << at, memory_order_release);
}

void *tfr_ask_begin(struct tfr_ask *ask, uint16_t op, uint32_t len)
{
    ask->slot = slot_take();
    if (ask->slot == SLOT_NONE) {
        ask->result = tfr_client_error();
        return NULL;
    }
    struct tfr_asked_req *req = tfr_post_begin(op, len);
    if (!req) {
        ask->result = tfr_post_failed();
        slot_give(ask->slot);
        return NULL;
    }
    req->slot = ask->slot;
    req->in_len = 0;
    return req;
}

const void *tfr_ask_send(struct tfr_ask *ask, size_t min_len)
{
    struct tfr_reply_slot *slot = &tfr_client.reply[ask->slot];
    TFR_COUNT(round_trips, 1);
    ask->result = tfr_post_end_on(NULL, &ask->seq);
    if (ask->result == CUDA_SUCCESS)
        ask->result = tfr_wait_word(&slot->seq, ask->seq, TFR_WAIT_REPLY);
    if (ask->result != CUDA_SUCCESS)
        return NULL;
    ask->result = (CUresult)slot->result;
    uint32_t len = *(const volatile uint32_t *)&slot->len;
    if (ask->result != CUDA_SUCCESS || len < min_len || len > sizeof slot->payload) {
        if (ask->result == CUDA_SUCCESS)
            ask->result = tfr_client_broken("the executor sent a malformed reply");
        return NULL;
    }
    return slot->payload;
}

const void *tfr_ask_payload(const struct tfr_ask *ask, uint32_t *len_out)
{
    struct tfr_reply_slot *slot = &tfr_client.reply[ask->slot];
    if (atomic_load_explicit(&slot->seq, memory_order_acquire) != ask->seq)
        return NULL;
    uint32_t len = *(const volatile uint32_t *)&slot->len; /* read once: it is the executor's */
    if (len > sizeof slot->payload)
        return NULL;
    *len_out = len;
    return slot->payload;
}

CUresult tfr_ask_end(struct tfr_ask *ask)
{
    /* A slot whose reply may still come stays retired: a late answer must not hit another call. */
    if (atomic_load_explicit(&tfr_client.reply[ask->slot].seq, memory_order_acquire) == ask->seq)
        slot_give(ask->slot);
    return ask->result;
}
