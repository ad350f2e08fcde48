/* What every exported function starts with.  tfr_enter answers what the driver would answer before
 * it looks at arguments: not initialised, no context, a sticky error. */
#ifndef TFR_INTERCEPT_ENTRY_H
#define TFR_INTERCEPT_ENTRY_H

#include <cuda.h>

#include "intercept/client.h"
#include "intercept/handle.h"
#include "tfr_calls.h"

struct tfr_context;

/* Of the calling thread. */
struct tfr_thread {
    struct tfr_context *ctx;    /* current: the top of the stack; NULL: it is empty */
    struct tfr_context **below; /* the rest of the stack */
    int depth, room;
    struct tfr_own_stream *own; /* what CU_STREAM_PER_THREAD means here, by context */
    CUresult post_error;
    CUstreamCaptureMode capture_mode; /* 0: global, the default */
    /* Of the host function that this thread runs.  It is current to those who ask, and as `ctx` is
     * NULL then, everybody else gets to tfr_enter_slow: CUDA calls are not permitted. */
    struct tfr_context *calling;
    bool held; /* see tfr_exit_hold */
};

/* Initial-exec: one addition to reach it; the space comes out of what libc keeps for dlopen'ed
 * libraries. */
extern __thread struct tfr_thread tfr_thread __attribute__((tls_model("initial-exec")));

/* What cuCtxGetCurrent answers. */
static inline struct tfr_context *tfr_thread_current(void)
{
    return tfr_thread.calling ? tfr_thread.calling : tfr_thread.ctx;
}

/* A context, primary or created.  Its memory stays: a thread may keep a destroyed one as its
 * current context and is told so. */
struct tfr_context {
    uint64_t id; /* the handle */
    int device;
    uint16_t slot;           /* its name on the wire */
    _Atomic uint32_t active; /* enum tfr_context_state; pairs with the release in context.c */
    unsigned int flags, api_version;
    unsigned int retained;                     /* or attached; guarded by tfr_context_lock */
    uint64_t peers[TFR_CONTEXTS_MAX / 64 + 1]; /* slots whose memory was enabled; the same */
    unsigned long long serial;                 /* of this life */
    struct tfr_stream *legacy;                 /* the legacy stream */
    _Atomic uint64_t blocking_last; /* last record of any stream that joins the legacy stream */
    pthread_mutex_t streams_lock;   /* guards the list of streams */
    struct tfr_stream *streams;
};
enum tfr_context_state {
    TFR_CONTEXT_DEAD,
    TFR_CONTEXT_ALIVE, /* known to the executor */
    TFR_CONTEXT_ENDING /* the thread that ends it still frees what is in it */
};
/* Primary ones, by device. */
extern struct tfr_context tfr_contexts[TFR_DEVICES_MAX];

/* ---- context.c ---- */

static inline bool tfr_context_alive(const struct tfr_context *ctx)
{
    return atomic_load_explicit(&ctx->active, memory_order_acquire) == TFR_CONTEXT_ALIVE;
}

/* Guards creation and end of contexts; taken before set_up_lock. */
extern pthread_mutex_t tfr_context_lock;

/* Primary contexts get their handles, once the snapshot is there. */
void tfr_context_init_all(void);

/* With the lock held: the executor learns of the context, the session is attached if there is none.
 */
CUresult tfr_context_activate(struct tfr_context *ctx);

/* A new one, created and alive. */
CUresult tfr_context_new(CUdevice dev, unsigned int flags, unsigned int version,
                         struct tfr_context **ctx_out);

static inline bool tfr_context_is_primary(const struct tfr_context *ctx)
{
    return ctx->slot <= TFR_DEVICES_MAX;
}

/* With the lock held: waits for its work and ends what is in it.  The last primary context takes
 * the session along. */
CUresult tfr_context_end(struct tfr_context *ctx);

/* The session ended: no context is alive.  With set_up_lock held. */
void tfr_context_forget_all(void);

CUresult tfr_enter_slow(void);

/* stream.c: what this thread has on the heap goes when it ends. */
void tfr_thread_watch(void);

static inline CUresult tfr_enter(void)
{
    const struct tfr_context *ctx = tfr_thread.ctx;
    if (__builtin_expect(
            ctx && tfr_context_alive(ctx) &&
                !atomic_load_explicit(&tfr_client.error, memory_order_acquire) &&
                !atomic_load_explicit(&tfr_client.feedback->sticky, memory_order_acquire),
            1))
        return CUDA_SUCCESS;
    return tfr_enter_slow();
}

/* For calls that need cuInit only. */
CUresult tfr_enter_noctx(void);

#endif
