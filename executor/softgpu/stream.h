/* Streams, their operations, events, and the engine that carries streams forward (stream.c, op.c,
 * event.c, engine.c).  Included through soft.h. */
#ifndef TFR_SOFTGPU_STREAM_H
#define TFR_SOFTGPU_STREAM_H

#include "executor/softgpu/soft.h"

enum soft_op_kind {
    SOFT_OP_KERNEL,
    SOFT_OP_COPY,
    SOFT_OP_COPY3D,
    SOFT_OP_FILL,
    SOFT_OP_WRITE,
    SOFT_OP_WAIT_VALUE,
    SOFT_OP_WAIT_STREAM,
    SOFT_OP_RECORD,
    SOFT_OP_HOST,
    SOFT_OP_CALLBACK,
    SOFT_OP_FREE,
    SOFT_OP_NONE,
};

struct soft_event;

struct soft_box { /* a 3D piece of linear memory */
    uint64_t at, pitch, slice;
};

struct soft_op {
    struct soft_op *next;
    uint64_t seq;
    uint64_t ticket; /* chaos: its place in the channel */
    enum soft_op_kind kind;
    bool follows; /* part of the submission before it */
    uint32_t data_len, data_cap;
    void *data; /* data_len bytes copied in at submission; `room` or a block behind it */
    union {
        struct {
            struct vm_kernel *kernel;
            struct soft_module *module; /* holds a reference */
            uint32_t grid[3], block[3], shared_len;
            bool cooperative;
        } launch;
        struct {
            uint64_t dst, src, len;
            bool peer; /* each side with its own device's rights */
        } copy;
        struct {
            struct soft_box dst, src;
            uint64_t width, height, depth;
            bool peer;
        } copy3d;
        struct {
            uint64_t at, pitch, width, height; /* width in elements */
            uint32_t value, size;
        } fill;
        struct {
            uint64_t at, value;
            uint32_t wide, flags;
            bool passed; /* a parked wait saw the value */
        } value;
        struct {
            struct soft_stream *stream; /* holds a reference */
            uint64_t seq;
        } wait;
        struct {
            struct soft_event *event; /* holds a reference */
            uint64_t version;
        } record;
        struct {
            CUhostFn fn;
            CUstreamCallback callback;
            void *arg;
            uint64_t stream;
        } host;
        struct {
            uint64_t at;
        } free;
    };
};

/* From the first byte of a side to the last. */
static inline uint64_t soft_box_len(const struct soft_op *op, const struct soft_box *box)
{
    return (op->copy3d.depth - 1) * box->slice + (op->copy3d.height - 1) * box->pitch +
           op->copy3d.width;
}

/* Hints to hardware: kept, and told. */
struct soft_stream_attrs {
    CUaccessPolicyWindow window;
    CUsynchronizationPolicy sync; /* 0: auto */
    CUlaunchMemSyncDomain domain;
    CUlaunchMemSyncDomainMap domains; /* with has_domains */
    bool has_domains;
};

struct soft_stream {
    pthread_mutex_t lock; /* queue, spares, waiters, active */
    struct soft_op *head, *tail;
    struct soft_op *spare_small, *spare_big;
    uint32_t spare_n;
    bool dropped;               /* destroyed: goes when it has run dry */
    bool active;                /* queued for a worker, being run, or parked */
    bool blocking, per_thread;  /* blocking: takes part in the legacy stream's order */
    _Atomic uint64_t submitted; /* written under lock */
    _Atomic uint64_t done; /* release by who ran the operation; pairs with acquire of all waiters */
    _Atomic uint32_t attention; /* sleepers + parked streams; seq_cst against done */
    _Atomic uint32_t bell;
    struct soft_stream *waiters; /* streams parked on my progress, by run_next */
    struct soft_stream *run_next;
    uint64_t wait_seq;                /* while parked on another stream */
    struct soft_op *parked;           /* while parked on a value */
    uint64_t joined;                  /* blocking: legacy's seq waited for; legacy: unused */
    uint64_t joined_by_legacy;        /* guarded by ctx->lock */
    struct soft_stream *next, **prev; /* in ctx->streams, by ctx->lock */
    struct soft_ctx *ctx;
    unsigned int flags;
    int priority;
    struct soft_stream_attrs attrs;
    uint64_t id, handle;
    struct soft_channel *channel; /* chaos */
    uint64_t series;              /* chaos: delays; whoever carries the stream draws */
    _Atomic uint32_t refs;
};

struct soft_event {
    pthread_mutex_t lock;
    struct soft_ctx *ctx;
    unsigned int flags;
    struct soft_stream *stream; /* of the last record; holds a reference; NULL: never recorded */
    uint64_t seq, version;
    uint64_t time_ns;                /* when the stream passed the last record */
    struct soft_event *next, **prev; /* in ctx->events */
    uint64_t handle;
    _Atomic uint32_t refs;
};

struct soft_stream *soft_stream_new(struct soft_ctx *ctx, unsigned int flags, int priority);
void soft_stream_ref(struct soft_stream *stream);
void soft_stream_unref(struct soft_stream *stream);
void soft_stream_drop(
    struct soft_stream *stream); /* gives up its handle, goes when it has run dry */
bool soft_stream_dropped(struct soft_stream *stream);
void soft_event_unref(struct soft_event *event);
void soft_event_drop(struct soft_event *event);

/* A handle, or one of the names NULL/1 (legacy) and 2 (per thread), in the current context. */
CUresult soft_stream_find(CUstream handle, struct soft_stream **stream_out);

/* Appends *op (with `len` bytes at `data`) behind what the stream and the legacy rules require.
 * `cheap`: run it here and now if nothing is ahead of it.  *seq_out may be NULL. */
CUresult soft_submit(struct soft_stream *stream, const struct soft_op *op, const void *data,
                     uint32_t len, bool cheap, uint64_t *seq_out);
/* The position that covers all that was submitted, the legacy joins included. */
uint64_t soft_stream_position(struct soft_stream *stream);
bool soft_stream_passed(const struct soft_stream *stream, uint64_t seq);
void soft_stream_wait(struct soft_stream *stream, uint64_t seq);

/* engine.c, for stream.c */

/* A worker will carry it forward; the caller has set stream->active. */
void soft_engine_run(struct soft_stream *stream);
/* Parks it until the value is there; false: it is. */
bool soft_engine_park(struct soft_stream *stream, struct soft_op *op);
/* Memory was written: looks at parked streams, if there are any. */
void soft_engine_poll(void);
void soft_exec(struct soft_stream *stream, struct soft_op *op); /* op.c: anything but a wait */
/* Runs operations until the stream is empty or parked; the caller owns stream->active. */
void soft_stream_work(struct soft_stream *stream);
bool soft_value_there(const struct soft_op *op);

#endif
