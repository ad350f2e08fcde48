/* Gates: points of a stream where the executor's stream waits until this process has done
 * something.  copy.c has bytes to move there (TFR_GATE_MOVE), hostfn.c functions to call.
 *
 * A gate is one record with number seq.  The stream's word reaches seq - 1 when all before the gate
 * is done; then `run` is called, after which the client page's gate word becomes seq and the stream
 * goes on.  The stream's last record is then the gate itself (seq), and no mark of that number is
 * asked for: whoever waits for the stream asks for one of its own, which comes after the wait.
 * So a word that has reached seq has passed the gate.
 *
 * What opens gates takes no lock that is held by a thread that waits, posts no record, and does not
 * depend on the pump.  Lock order: the ring lock before ours. */
#ifndef TFR_INTERCEPT_GATE_H
#define TFR_INTERCEPT_GATE_H

#include "intercept/stream.h"

enum tfr_gate_who {
    TFR_GATE_MOVE, /* quick and never blocks: on any thread that waits for the session */
    TFR_GATE_CALL, /* application code: may take long; a thread of ours that does nothing else */
    TFR_GATE_WHO_LIMIT,
};

/* First member of the caller's own struct; `run` is the caller's to set, the rest is gate.c's. */
struct tfr_gate {
    /* Called once, on a thread of gate.c's choice, without locks.  Status other than 0: the session
     * failed before the stream got here, or has ended (CUDA_ERROR_CONTEXT_IS_DESTROYED). Frees the
     * gate. */
    void (*run)(struct tfr_gate *gate, CUresult status);
    struct tfr_gate *next;
    enum tfr_gate_who who;
    uint32_t word;
    uint64_t seq;
    uint64_t due; /* the caller's to set: `run` is called once the stream has got so far, which may
                     be well before the gate; 0: right before it */
    _Atomic uint64_t *open; /* on the client page of the gate's own session, */
    uint32_t session;       /* this one */
    bool mapped;            /* where that page is in our address space, also when it has ended */
};

/* Puts a gate behind all that the stream was given.  An error: nothing was posted and the gate is
 * still the caller's.  CUDA_ERROR_NOT_SUPPORTED: the device cannot wait for values.  Thread-safe;
 * several gates of a stream open in the order of the ring. */
CUresult tfr_gate_post(struct tfr_stream *stream, enum tfr_gate_who who, struct tfr_gate *gate);

/* What the stream does next the application may see in its memory, with no call that would bring
 * home the copies owed to registered memory: the stream waits until they are there. */
CUresult tfr_gate_settle(struct tfr_stream *stream);

/* Could gates be posted to streams of this context?  Says so once if not. */
bool tfr_gate_able(const struct tfr_context *ctx);

/* May code of the application still run that is ordered before what a stream will do: a host
 * function, or whatever a stream's wait for a value stands for? */
bool tfr_gate_caller_pending(void);

/* The same, or an unfinished copy into registered memory: all that may write host memory. */
bool tfr_gate_writer_pending(void);

/* The stream waits for a value at seq (which marks it): until then somebody may be about to write.
 */
void tfr_gate_value_waits(const struct tfr_stream *stream, uint64_t seq);

/* ---- for the threads that serve gates ---- */

/* Gates of this kind that are posted and not yet done with. */
extern _Atomic uint32_t tfr_gate_pending[TFR_GATE_WHO_LIMIT];

/* Has a stream reached a gate of this kind that nobody has taken? */
bool tfr_gate_due(enum tfr_gate_who who);

/* Runs and opens the gates of this kind that are due, at most `limit` of them; how many there were.
 */
uint32_t tfr_gate_serve(enum tfr_gate_who who, uint32_t limit);

/* For waiting threads; one load when there are none. */
static inline void tfr_gate_help(void)
{
    if (__builtin_expect(
            atomic_load_explicit(&tfr_gate_pending[TFR_GATE_MOVE], memory_order_relaxed) != 0, 0))
        tfr_gate_serve(TFR_GATE_MOVE, UINT32_MAX);
}

/* The session has failed: returns when no gate moves bytes any more, or after a second, since a
 * function of the program may be ahead of it. */
void tfr_gate_moves_end(void);

/* The session ended: runs every gate that is left with CUDA_ERROR_CONTEXT_IS_DESTROYED, and lets
 * functions that are running end, for a second. */
void tfr_gate_forget_all(void);

/* ---- tick.c ---- */

/* Starts the helper threads where there are none.  An error: there can be none. */
CUresult tfr_tick_start(void);

/* Something was posted that they look after: gates, copies owed to registered memory.  soon: it
 * should not wait for a nap to end. */
void tfr_tick_wake(bool soon);

/* A host function was posted that is due: no news will tell of it. */
void tfr_tick_call(void);

#endif
