/* What the executor writes into the client's memory: words and bytes of the page area, and lane
 * bytes on their way home.
 *
 * Where the client's memory is mapped a word is one store.  Elsewhere s->feedback, s->reply and
 * s->text are an image of ours in registered memory, and every write goes out by put, in order:
 * whoever sees a word sees everything that was written before it.  The calls wait for room on the
 * link, which is bounded by the peer's life.  Any thread. */
#ifndef TFR_EXECUTOR_OUT_H
#define TFR_EXECUTOR_OUT_H

#include "executor/session.h"

void tfr_out_word_put(struct tfr_session *s, _Atomic uint64_t *word, uint64_t value, bool bell);

/* Pairs with acquire loads in the client.  bell: wakes a client that sleeps. */
static inline void tfr_out_word(struct tfr_session *s, _Atomic uint64_t *word, uint64_t value,
                                bool bell)
{
    if (__builtin_expect(!s->mapped, 0)) {
        tfr_out_word_put(s, word, value, bell);
        return;
    }
    atomic_store_explicit(word, value, memory_order_release);
    if (bell)
        s->link->ops->ring(s->link);
}

/* Sends [at, at + len) of the image; it may change when this returns.  mapped: nothing to do. */
void tfr_out_bytes(struct tfr_session *s, const void *at, uint64_t len);

/* Lane bytes [at, at + len) go to the client's lane; *pending is counted up now and down when they
 * are there (by a later call of ours, on any thread). */
void tfr_out_lane(struct tfr_session *s, uint64_t at, uint64_t len, _Atomic uint32_t *pending);

/* Lets done() of earlier writes run. */
void tfr_out_progress(struct tfr_session *s);

/* Waits until *pending is 0; false: the link or the session is at its end. */
bool tfr_out_settle(struct tfr_session *s, const _Atomic uint32_t *pending);

#endif
