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
    struct tfr_context *ctx; /* current; NULL: none */
    int depth;
    struct tfr_context *below[15];           /* cuCtxPushCurrent */
    struct tfr_stream *own[TFR_DEVICES_MAX]; /* what CU_STREAM_PER_THREAD means here */
    uint64_t own_id[TFR_DEVICES_MAX];        /* is it still alive? */
    CUresult post_error;
    CUstreamCaptureMode capture_mode; /* 0: global, the default */
};

/* Initial-exec: one addition to reach it; the space comes out of what libc keeps for dlopen'ed
 * libraries. */
extern __thread struct tfr_thread tfr_thread __attribute__((tls_model("initial-exec")));

/* One per device: its primary context. */
struct tfr_context {
    uint64_t id; /* the handle */
    int device;
    _Atomic uint32_t active; /* known to the executor; pairs with the release in ctx.c */
    unsigned int flags;
    unsigned int retained;          /* guarded by set_up_lock */
    struct tfr_stream *legacy;      /* the legacy stream */
    _Atomic uint64_t blocking_last; /* last record of any stream that joins the legacy stream */
    pthread_mutex_t streams_lock;   /* guards the list of streams */
    struct tfr_stream *streams;
};
extern struct tfr_context tfr_contexts[TFR_DEVICES_MAX];

CUresult tfr_enter_slow(void);

static inline CUresult tfr_enter(void)
{
    const struct tfr_context *ctx = tfr_thread.ctx;
    if (__builtin_expect(
            ctx && atomic_load_explicit(&ctx->active, memory_order_acquire) &&
                !atomic_load_explicit(&tfr_client.error, memory_order_acquire) &&
                !atomic_load_explicit(&tfr_client.feedback->sticky, memory_order_acquire),
            1))
        return CUDA_SUCCESS;
    return tfr_enter_slow();
}

/* For calls that need cuInit only. */
CUresult tfr_enter_noctx(void);

#endif
