/* The session seen from the application: one per process, joined to one worker of the executor.
 *
 * begin/end pairs hold the ring lock between them: assign the record's body and end it, nothing
 * else. post_*: fire and forget.  ask_*: waits for the answer in a reply slot.  Everything here is
 * thread-safe; waiting goes through tfr_relax and ends at the latest when the executor is gone. */
#ifndef TFR_INTERCEPT_CLIENT_H
#define TFR_INTERCEPT_CLIENT_H

#include <cuda.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/counter.h"
#include "base/relax.h"
#include "proto/wire.h"
#include "transport/boot.h"
#include "transport/ring.h"
#include "tfr_ops.h"

struct tfr_stream;
struct tfr_context;

/* A lane of the executor's, and our twin of it: host memory whose bytes are shipped to the same
 * offsets.  Where the executor's memory is mapped the twin is the lane itself. */
struct tfr_client_lane {
    uint8_t *twin;
    uint64_t len;
    struct tfr_mem *mem; /* the twin's */
    struct tfr_peer_mem *peer;
    uint64_t peer_at;
};

struct tfr_client {
    /* Set up under set_up_lock, then read by everybody. */
    struct tfr_feedback *feedback; /* a page of zeros before there is a session: never NULL */
    struct tfr_reply_slot *reply;
    bool mapped;          /* the executor's memory is in our address space */
    bool polled;          /* nothing arrives unless we progress the link */
    bool near;            /* the executor is on this machine */
    _Atomic bool sees;    /* kernels see pinned memory; before there is a session: most likely */
    bool gets, any_local; /* what the transport can: TFR_CAP_GET, TFR_CAP_ANY_LOCAL */
    uint32_t session_at;  /* number of the session: what is left of older ones is known by it */
    struct tfr_client_lane lanes[TFR_LANES_MAX];
    uint32_t lane_n;
    struct tfr_mem *shown;         /* our page area and twin of lane 0, registered */
    uint8_t *text;                 /* what kernels printed: a ring of TFR_TEXT_MAX bytes */
    uint8_t *error_text;           /* what the driver said: one of TFR_ERROR_TEXT_MAX bytes */
    struct tfr_client_page *page;  /* the executor's, or our image of it: see tfr_page_store */
    uint64_t page_at;              /* its place in the executor's memory */
    struct tfr_snapshot *snapshot; /* its devices are those that the program may see */
    uint8_t real[TFR_DEVICES_MAX]; /* which of the executor's each of them is */
    struct tfr_link *link;
    struct tfr_dev *dev;
    struct tfr_peer_mem *session; /* the worker's memory */
    struct tfr_boot boot;         /* closed by the peer: the executor is gone */
    int wake;     /* an eventfd: who sleeps on the link's descriptor is to leave; -1: none */
    int poke;     /* another: the thread of tick.c is to look again */
    int executor; /* the worker's process */
    _Atomic bool attached; /* pairs with the acquire in word_alive */
    _Atomic bool linked;   /* the link is open: see tfr_client_cut */
    /* What every call answers from now on (CUresult): the executor is gone, or we are a forked
     * child. Pairs with the acquire in tfr_enter. */
    _Atomic uint32_t error;
    char transport[sizeof((struct tfr_snapshot *)0)->transport]; /* the executor's setting */
    bool lacks_any; /* calls of ours that the executor does not know: a bit per op (edition.c) */
    uint64_t lacks[(TFR_OP_LIMIT + 63) / 64];

    /* The ring's writer. */
    _Alignas(64) _Atomic uint32_t ring_lock;
    struct tfr_ring_tx tx;    /* guarded by ring_lock */
    struct tfr_rec *rec;      /* guarded by ring_lock: the record in hand */
    bool open;                /* guarded by ring_lock: the ring has a reader */
    _Atomic uint32_t waiters; /* threads in tfr_wait_word: a detach sees them out first */
    _Atomic uint32_t movers;  /* threads that wait for transfers, and so progress the link: they
                                 spin longer, a sleep between pieces costs more than a piece */

    _Alignas(64) _Atomic uint64_t slots; /* bit set: reply slot free */
    pthread_mutex_t set_up_lock;         /* guards set-up and tear-down */
    pthread_mutex_t sleep_lock;          /* guards the rest */
    pthread_cond_t sleep_cond;
    enum tfr_sleep_leader { TFR_SLEEP_NONE, TFR_SLEEP_ARMING, TFR_SLEEP_ARMED } sleep_leader;
    uint32_t sleep_asides; /* threads that sleep without leading others */
};

extern struct tfr_client tfr_client;

/* What feedback is while there is no session. */
extern struct tfr_feedback tfr_page_of_zeros;

/* ---- init.c ---- */

/* cuInit's work: connects and fetches the snapshot.  Blocks up to TFR_CONNECT_MS. */
CUresult tfr_client_init(void);

/* Joins a worker, if there is none yet.  Blocks. */
CUresult tfr_client_attach(void);

/* Ends the session: the worker goes, and with it all that it held.  Handles of the session die. */
void tfr_client_detach(void);

/* ---- fds.c ---- */

/* Which of the first three descriptors the program has closed. */
struct tfr_holes {
    int n, fd[3];
    uint64_t file[3];
};

/* Between the two no descriptor that is opened is one of those. */
void tfr_holes_fill(struct tfr_holes *holes);
void tfr_holes_leave(const struct tfr_holes *holes);

/* tfr_client's wake and poke. */
void tfr_wakers_open(void);
void tfr_wakers_close(void);

/* ---- edition.c ---- */

/* Can we work with the executor that sent this snapshot?  If not, it has been said. */
bool tfr_edition_take(const struct tfr_snapshot *snapshot, size_t len);

/* Where the executor lacks calls: CUDA_ERROR_NOT_SUPPORTED for those, said once each. */
CUresult tfr_edition_check(uint16_t op);

/* ---- visible.c ---- */

/* Leaves those devices in the snapshot that the program may see, in its order. */
void tfr_visible_apply(struct tfr_snapshot *snapshot);

/* ---- exit.c ---- */

/* From here on the end of the process is seen, and forks are. */
void tfr_exit_watch(void);

/* While another thread runs the process's exit handlers: holds this one, as a driver would, so that
 * it does not return into a runtime that is being taken down.  Two seconds, once.  Else one load.
 */
void tfr_exit_hold(void);

/* ---- text.c ---- */

/* Has a kernel printed something that is not on our stdout yet?  Two loads. */
bool tfr_text_waiting(void);
/* Prints it.  Every wait for a stream ends with this, so that text comes before the synchronisation
 * returns. */
void tfr_text_take(void);

/* ---- client.c ---- */

/* The executor is gone: says why once (NULL: it has been said), and makes every later call answer
 * an error. */
CUresult tfr_client_broken(const char *why);

/* The same for the reason that there is most often. */
CUresult tfr_client_gone(void);

/* Before the session's memory goes: waits until the threads that wait have seen tfr_client.error,
 * which takes them 100 ms.  A second at most: one may be printing to a pipe that nobody reads. */
void tfr_client_quiet(void);

/* The session is lost, or ends (tfr_client.error says so; else nothing happens): closes ring and
 * link.  When it returns no transfer reads or writes memory of this process, and those under way
 * have ended.  The caller may hold locks that are held while transfers are waited for, and none of
 * those that put, get and progress need. */
void tfr_client_cut(void);

/* Adds what a link that is still open has done to the counters, for the process's end. */
void tfr_client_count(void);

/* For loops that wait without tfr_wait_word: breaks the session if the executor has gone, looking
 * every now and then.  Returns the session's error. */
CUresult tfr_client_look(void);

/* The sticky error of the session: GPU fault, refusal nobody foresaw, lost executor.  CUDA_SUCCESS
 * if none. */
CUresult tfr_client_error(void);

/* Waits until *word >= want.  An error of the session ends the wait with that error. */
CUresult tfr_wait_word(const _Atomic uint64_t *word, uint64_t want, enum tfr_wait_reason why);

/* Sleeps until the executor has news and over() holds, or for limit_ms; may return early.  For
 * helper threads: the caller looks again. */
void tfr_wait_news(bool (*over)(void), int limit_ms);

/* The same for a thread that only looks after the link: others sleep by themselves meanwhile. */
void tfr_wait_aside(bool (*over)(void), int limit_ms);

/* Either of them for the thread of tick.c, which the other function wakes. */
void tfr_wait_tick(bool (*over)(void), int limit_ms, bool aside);
void tfr_wait_poke(void);

/* Of waits for transfers, and for streams meanwhile: what a piece takes on its way. */
enum { TFR_MOVE_PATIENCE = 5 };

/* Sleeps until *left is 0 or something came that may be part of it; not for long. */
void tfr_wait_moved(const _Atomic uint32_t *left);

/* A record of `len` bytes with its head filled, or NULL (see tfr_post_failed).  Holds the ring
 * lock. */
void *tfr_post_begin(uint16_t op, uint32_t len);
CUresult tfr_post_failed(void);

/* Ends the record and lets go of the ring. */
CUresult tfr_post_end(void);

/* Gives the record up: nothing was posted.  Returns why. */
CUresult tfr_post_cancel(CUresult why);

/* The same as tfr_post_end; the record belongs to the stream: its completion is the stream's.
 * *seq_out may be NULL.  A stream that another thread has destroyed meanwhile: nothing is posted,
 * CUDA_ERROR_INVALID_HANDLE. */
CUresult tfr_post_end_on(struct tfr_stream *stream, uint64_t *seq_out);

/* Sends what has gathered, unless another thread has the ring: then that one does, or the helper
 * thread. */
void tfr_post_flush(void);

/* Between the two nobody posts: objects are marked dead, so that no record names one after it. */
void tfr_post_hold(void);
void tfr_post_release(void);

/* Number of the last record. */
uint64_t tfr_post_last(void);

/* ---- ask.c ---- */

struct tfr_ask {
    CUresult result;
    uint32_t slot;
    uint64_t seq;
};

/* As tfr_post_begin, with a reply slot named in the record; NULL: ask->result says why, nothing is
 * held. */
void *tfr_ask_begin(struct tfr_ask *ask, uint16_t op, uint32_t len);

/* Publishes and waits.  The reply's payload, at least min_len bytes, valid until tfr_ask_end; NULL
 * unless the call succeeded.  */
const void *tfr_ask_send(struct tfr_ask *ask, size_t min_len);

/* The payload whatever the result, and its length: for calls that answer text on failure. */
const void *tfr_ask_payload(const struct tfr_ask *ask, uint32_t *len_out);

/* Gives the slot back; returns the call's result. */
CUresult tfr_ask_end(struct tfr_ask *ask);

/* ---- client.c ---- */

/* Stores a word of the client page; the executor sees it after everything stored before. */
void tfr_page_store(_Atomic uint64_t *word, uint64_t value);

/* ---- bulk.c ---- */

/* Where nothing is mapped: lets what is under way, both ways, arrive.  Called by whoever waits. */
void tfr_client_progress(void);

/* Is the executor on another machine? */
static inline bool tfr_client_away(void)
{
    return !tfr_client.mapped && !tfr_client.near;
}

/* Why ring and link are closed. */
static inline CUresult tfr_client_ended(void)
{
    uint32_t error = atomic_load_explicit(&tfr_client.error, memory_order_acquire);
    return error ? (CUresult)error : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

/* For locks that are held for moments. */
void tfr_spin_lock_slow(_Atomic uint32_t *lock);

static inline void tfr_spin_lock(_Atomic uint32_t *lock)
{
    /* pairs with the release in tfr_spin_unlock */
    if (__builtin_expect(atomic_exchange_explicit(lock, 1, memory_order_acquire) != 0, 0))
        tfr_spin_lock_slow(lock);
}

static inline void tfr_spin_unlock(_Atomic uint32_t *lock)
{
    atomic_store_explicit(lock, 0, memory_order_release);
}

/* Has the stream word passed seq?  One load. */
static inline bool tfr_word_reached(uint32_t word, uint64_t seq)
{
    /* pairs with the release in the executor's feedback.c */
    return atomic_load_explicit(&tfr_client.feedback->stream[word], memory_order_acquire) >= seq;
}

#endif
