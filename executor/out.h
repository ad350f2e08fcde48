/* What the executor writes into the client's memory: words and bytes of the page area, and lane
 * bytes on their way home.
 *
 * Where the client's memory is mapped a word is one store.  Elsewhere s->feedback, s->reply and
 * s->text are an image of ours in registered memory, and every write goes out by put on channel 0,
 * in order: whoever sees a word sees everything that was written before it.  The calls wait for
 * room on the link, which is bounded by the peer's life.  Any thread. */
#ifndef TFR_EXECUTOR_OUT_H
#define TFR_EXECUTOR_OUT_H

#include "executor/session.h"

enum tfr_out_how {
    TFR_OUT_QUIET,
    TFR_OUT_BELL, /* wakes a client that sleeps */
    TFR_OUT_MORE, /* another word follows at once */
};

void tfr_out_word_put(struct tfr_session *s, _Atomic uint64_t *word, uint64_t value,
                      enum tfr_out_how how);

/* Pairs with acquire loads in the client. */
static inline void tfr_out_word(struct tfr_session *s, _Atomic uint64_t *word, uint64_t value,
                                enum tfr_out_how how)
{
    if (__builtin_expect(!s->mapped, 0)) {
        tfr_out_word_put(s, word, value, how);
        return;
    }
    atomic_store_explicit(word, value, memory_order_release);
    if (how == TFR_OUT_BELL)
        s->link->ops->ring(s->link);
}

/* Sends [at, at + len) of the image; a word that speaks of them follows at once.  The bytes stay as
 * they are until the client has seen that word and said so.  mapped: nothing to do. */
void tfr_out_bytes(struct tfr_session *s, const void *at, uint64_t len);

/* Lane bytes [place, place + len) go to the client's twin of the lane, before any word that is
 * written later. */
void tfr_out_lane(struct tfr_session *s, uint64_t place, uint64_t len);

/* Takes in what has arrived, and sees whether the link lives.  Nothing if another thread is at it.
 */
void tfr_out_progress(struct tfr_session *s);

#endif
