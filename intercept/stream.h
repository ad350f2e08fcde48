/* Streams and events as the client sees them: a word of the feedback page and sequence numbers. */
#ifndef TFR_INTERCEPT_STREAM_H
#define TFR_INTERCEPT_STREAM_H

#include "intercept/entry.h"

struct tfr_stream {
    uint64_t id;
    struct tfr_context *ctx;
    uint32_t word; /* index on the feedback page */
    unsigned int flags;
    int priority;
    bool blocking; /* joins the legacy stream */
    bool legacy;
    bool dead;             /* guarded by the ring lock: no record may name it */
    _Atomic uint64_t last; /* seq of the last record of this stream; written under the ring lock */
    _Atomic uint64_t mark; /* highest mark asked for; written under the ring lock */
    struct tfr_stream *next, **prev_next; /* in the context's list */
};

/* A thread's own stream in one context. */
struct tfr_own_stream {
    struct tfr_own_stream *next;
    const struct tfr_context *ctx;
    uint64_t id; /* the stream's, if it is still alive */
};

/* A moment of a stream: it has passed once the word has reached seq. */
struct tfr_point {
    uint32_t word;
    uint64_t seq;
};

struct tfr_event {
    uint64_t id;
    struct tfr_context *ctx;
    unsigned int flags;
    bool dead;            /* as above */
    pthread_mutex_t lock; /* guards word and seq together */
    uint32_t word;
    uint64_t seq; /* 0: never recorded */
};

/* The stream that a handle means on this thread, with a current context: 0 and 1 the legacy stream,
 * 2 this thread's own (created at first use), else a live stream.  NULL: no such stream. */
struct tfr_stream *tfr_stream_special(CUstream handle);

static inline struct tfr_stream *tfr_stream_of(CUstream handle)
{
    if ((uint64_t)handle <= 2)
        return tfr_stream_special(handle);
    return tfr_handle_object(TFR_KIND_STREAM, handle);
}

/* What the stream must reach before all that it was given is done (0: nothing): its own last
 * record, and for the legacy stream that of every stream which joins it. */
uint64_t tfr_stream_target(const struct tfr_stream *stream);

/* Asks for a mark unless one covers `target` already. */
CUresult tfr_stream_ask_mark(struct tfr_stream *stream, uint64_t target);

/* Waits until the stream has done all it was given so far, and delivers what it brought. */
CUresult tfr_stream_wait(struct tfr_stream *stream);

/* Waits for every stream of the context. */
CUresult tfr_context_wait(struct tfr_context *ctx);

/* Creates the legacy stream's object at set-up; the id is announced by the context record. */
CUresult tfr_stream_legacy_new(struct tfr_context *ctx);

/* The session ended: every stream and event is gone. */
void tfr_stream_forget_all(void);

/* The context ends: its streams, its events are gone. */
void tfr_stream_forget_context(struct tfr_context *ctx);
void tfr_event_forget_context(const struct tfr_context *ctx);

/* ---- word.c ---- */

/* A word that is nobody's, or false: all are taken. */
bool tfr_word_take(uint32_t *word_out);

/* It is this stream's, whose word is set. */
void tfr_word_give(struct tfr_stream *stream);

/* It is nobody's; somebody else may have it once it has reached `after`. */
void tfr_word_retire(const struct tfr_context *ctx, uint32_t word, uint64_t after);

/* A destroyed stream's work that is still under way, if any: it counts as the context's. */
bool tfr_word_retired_busy(const struct tfr_context *ctx, uint32_t *word_out, uint64_t *after_out);

void tfr_word_forget_all(void);

/* Where every stream of the session is that has work to do; their number, which may be more than
 * room: then only so many are there.  Records after `until` do not count, so that who takes points
 * again and again comes to an end beside threads that keep posting. */
uint32_t tfr_points_take(struct tfr_point *points, uint32_t room, uint64_t until);

/* Asks for marks that cover the points. */
CUresult tfr_points_mark(const struct tfr_point *points, uint32_t n);

/* Waits until they have passed, and delivers what they brought. */
CUresult tfr_points_wait(const struct tfr_point *points, uint32_t n);

#endif
