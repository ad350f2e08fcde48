/* Streams: created and destroyed without an answer, queried by a load, waited for by a mark.  Also
 * the per-thread streams, which the client mints (the driver's own would be the executor thread's).
 * Surprising: a stream's word is given to another stream only after its last mark was seen. */
#define TFR_LOG_PART "intercept"
#include "intercept/stream.h"

#include <stdlib.h>

#include "intercept/memory.h"

/* ---- creation and death ---- */

static CUresult stream_make(struct tfr_context *ctx, unsigned int flags, int priority,
                            struct tfr_stream **stream_out)
{
    struct tfr_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!tfr_word_take(&stream->word)) {
        free(stream);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult result = tfr_handle_new(TFR_KIND_STREAM, &stream->id);
    if (result != CUDA_SUCCESS) {
        tfr_word_retire(ctx, stream->word, 0);
        free(stream);
        return result;
    }
    stream->ctx = ctx;
    stream->flags = flags;
    stream->priority = priority;
    stream->blocking = !(flags & CU_STREAM_NON_BLOCKING);
    tfr_handle_bind(stream->id, stream);
    pthread_mutex_lock(&ctx->streams_lock);
    stream->next = ctx->streams;
    stream->prev_next = &ctx->streams;
    if (stream->next)
        stream->next->prev_next = &stream->next;
    ctx->streams = stream;
    pthread_mutex_unlock(&ctx->streams_lock);
    tfr_word_give(stream);
    *stream_out = stream;
    return CUDA_SUCCESS;
}

static void stream_unlink(struct tfr_stream *stream)
{
    pthread_mutex_lock(&stream->ctx->streams_lock);
    *stream->prev_next = stream->next;
    if (stream->next)
        stream->next->prev_next = stream->prev_next;
    pthread_mutex_unlock(&stream->ctx->streams_lock);
}

/* With the ring lock held.  The last mark that will come: one that another thread asks for from
 * here on names a stream that is no more, and nobody writes it. */
static uint64_t stream_end(struct tfr_stream *stream)
{
    stream->dead = true;
    return atomic_load_explicit(&stream->mark, memory_order_relaxed);
}

/* Of a stream that has ended. */
static void stream_forget(struct tfr_stream *stream, uint64_t last_mark)
{
    tfr_handle_drop(TFR_KIND_STREAM, stream->id);
    stream_unlink(stream);
    tfr_word_retire(stream->ctx, stream->word, last_mark);
    tfr_handle_retire(stream);
}

/* Without a record: its context is no more, or never heard of it. */
static void stream_kill(struct tfr_stream *stream)
{
    tfr_post_hold();
    bool first = !stream->dead;
    uint64_t last_mark = stream_end(stream);
    tfr_post_release();
    if (first)
        stream_forget(stream, last_mark);
}

void tfr_stream_forget_context(struct tfr_context *ctx)
{
    for (;;) {
        pthread_mutex_lock(&ctx->streams_lock);
        struct tfr_stream *stream = ctx->streams;
        pthread_mutex_unlock(&ctx->streams_lock);
        if (!stream)
            break;
        stream_kill(stream); /* if another thread is at it, the list gets shorter by itself */
    }
    ctx->legacy = NULL;
    atomic_store_explicit(&ctx->blocking_last, 0, memory_order_relaxed);
}

CUresult tfr_stream_legacy_new(struct tfr_context *ctx)
{
    CUresult result = stream_make(ctx, 0, 0, &ctx->legacy);
    if (result == CUDA_SUCCESS)
        ctx->legacy->legacy = true;
    return result;
}

static CUresult stream_create(struct tfr_context *ctx, unsigned int flags, int priority,
                              struct tfr_stream **stream_out)
{
    struct tfr_stream *stream;
    CUresult result = stream_make(ctx, flags, priority, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream_new_req *req = tfr_post_begin(TFR_OP_stream_new, sizeof *req);
    if (!req) {
        stream_kill(stream);
        return tfr_post_failed();
    }
    /* The next session may be here already, with another stream in this one's place. */
    if (!tfr_context_alive(ctx) || stream->dead) {
        tfr_post_cancel(CUDA_SUCCESS);
        stream_kill(stream);
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    }
    req->stream = stream->id;
    req->word = stream->word;
    req->flags = flags;
    req->priority = priority;
    req->reserved = 0;
    *stream_out = stream;
    return tfr_post_end();
}

static CUresult stream_destroy(struct tfr_stream *stream)
{
    uint64_t target = tfr_stream_target(stream);
    CUresult result = tfr_stream_ask_mark(stream, target);
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream_free_req *req = tfr_post_begin(TFR_OP_stream_free, sizeof *req);
    if (!req)
        return tfr_post_failed();
    if (stream->dead)
        return tfr_post_cancel(CUDA_ERROR_INVALID_HANDLE);
    uint64_t last_mark = stream_end(stream);
    req->stream = stream->id;
    req->reserved = 0;
    result = tfr_post_end();
    stream_forget(stream, last_mark);
    return result;
}

/* The ring is closed: a thread that has one of them in hand must not name it in the next session.
 */
static void stream_bury(void *object)
{
    ((struct tfr_stream *)object)->dead = true;
    tfr_handle_retire(object);
}

static void event_bury(void *object)
{
    ((struct tfr_event *)object)->dead = true;
    tfr_handle_retire(object);
}

void tfr_stream_forget_all(void)
{
    tfr_handle_clear(TFR_KIND_STREAM, stream_bury);
    tfr_handle_clear(TFR_KIND_EVENT, event_bury);
    tfr_word_forget_all();
}

/* ---- per-thread streams ---- */

static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;

static struct tfr_stream *own_alive(const struct tfr_own_stream *own)
{
    return tfr_handle_object(TFR_KIND_STREAM, tfr_handle_ptr(own->id));
}

/* Runs as the thread ends: its own streams go with it. */
static void thread_end(void *arg)
{
    struct tfr_thread *thread = arg;
    /* A forked child has no ring, a lost executor no streams. */
    bool alive = tfr_client_error() == CUDA_SUCCESS;
    while (thread->own) {
        struct tfr_own_stream *own = thread->own;
        struct tfr_stream *stream = own_alive(own);
        thread->own = own->next;
        if (alive && stream)
            stream_destroy(stream);
        free(own);
    }
    free(thread->below);
    thread->below = NULL;
    thread->depth = thread->room = 0;
}

static void thread_key_make(void)
{
    pthread_key_create(&thread_key, thread_end);
}

void tfr_thread_watch(void)
{
    pthread_once(&thread_once, thread_key_make);
    pthread_setspecific(thread_key, &tfr_thread);
}

/* A place for one more: that of a stream which is gone, or a new one. */
static struct tfr_own_stream *own_place(void)
{
    struct tfr_own_stream *own = tfr_thread.own;
    while (own && own_alive(own))
        own = own->next;
    if (!own && (own = calloc(1, sizeof *own))) {
        own->next = tfr_thread.own;
        tfr_thread.own = own;
        tfr_thread_watch();
    }
    return own;
}

static struct tfr_stream *stream_own(struct tfr_context *ctx)
{
    struct tfr_stream *stream = NULL;
    struct tfr_own_stream *own = tfr_thread.own;
    for (; own; own = own->next)
        if (own->ctx == ctx && (stream = own_alive(own)))
            return stream;
    own = own_place();
    if (!own || stream_create(ctx, CU_STREAM_DEFAULT, 0, &stream) != CUDA_SUCCESS)
        return NULL;
    own->ctx = ctx;
    own->id = stream->id;
    return stream;
}

struct tfr_stream *tfr_stream_special(CUstream handle)
{
    struct tfr_context *ctx = tfr_thread.ctx;
    if (!ctx)
        return NULL;
    return handle == CU_STREAM_PER_THREAD ? stream_own(ctx) : ctx->legacy;
}

/* ---- progress ---- */

uint64_t tfr_stream_target(const struct tfr_stream *stream)
{
    uint64_t last = atomic_load_explicit(&stream->last, memory_order_acquire);
    if (!stream->legacy)
        return last;
    uint64_t joined = atomic_load_explicit(&stream->ctx->blocking_last, memory_order_acquire);
    return joined > last ? joined : last;
}

CUresult tfr_stream_ask_mark(struct tfr_stream *stream, uint64_t target)
{
    if (atomic_load_explicit(&stream->mark, memory_order_relaxed) >= target)
        return CUDA_SUCCESS;
    struct tfr_mark_req *req = tfr_post_begin(TFR_OP_mark, sizeof *req);
    if (!req)
        return tfr_post_failed();
    if (stream->dead)
        return tfr_post_cancel(CUDA_ERROR_INVALID_HANDLE);
    req->stream = stream->id;
    req->reserved = 0;
    atomic_store_explicit(&stream->mark, req->head.seq, memory_order_relaxed);
    TFR_COUNT(marks, 1);
    return tfr_post_end();
}

CUresult tfr_stream_wait(struct tfr_stream *stream)
{
    uint64_t target = tfr_stream_target(stream);
    if (!tfr_word_reached(stream->word, target)) {
        TFR_COUNT(stream_waits, 1);
        CUresult result = tfr_stream_ask_mark(stream, target);
        if (result == CUDA_SUCCESS)
            result =
                tfr_wait_word(&tfr_client.feedback->stream[stream->word], target, TFR_WAIT_STREAM);
        if (result != CUDA_SUCCESS)
            return result;
    }
    tfr_text_take(); /* also if there was nothing to wait for */
    tfr_copy_deliver();
    tfr_exit_hold();
    return tfr_client_error();
}

CUresult tfr_context_wait(struct tfr_context *ctx)
{
    uint32_t word[64];
    uint64_t target[64];
    CUresult result = CUDA_SUCCESS;
    /* Marks go out to all streams before the first is waited for; more than 64 dirty streams take
     * rounds. */
    for (bool again = true; again && result == CUDA_SUCCESS;) {
        int n = 0;
        again = false;
        pthread_mutex_lock(&ctx->streams_lock);
        for (struct tfr_stream *s = ctx->streams; s && result == CUDA_SUCCESS; s = s->next) {
            uint64_t want = atomic_load_explicit(&s->last, memory_order_acquire);
            if (tfr_word_reached(s->word, want))
                continue;
            if (n == 64) {
                again = true;
                break;
            }
            result = tfr_stream_ask_mark(s, want);
            if (result ==
                CUDA_ERROR_INVALID_HANDLE) { /* being destroyed: about to leave the list */
                result = CUDA_SUCCESS;
                again = true;
                break;
            }
            word[n] = s->word;
            target[n++] = want;
        }
        pthread_mutex_unlock(&ctx->streams_lock);
        if (n)
            TFR_COUNT(stream_waits, 1);
        for (int i = 0; i < n && result == CUDA_SUCCESS; i++)
            result =
                tfr_wait_word(&tfr_client.feedback->stream[word[i]], target[i], TFR_WAIT_STREAM);
    }
    while (result == CUDA_SUCCESS && tfr_word_retired_busy(ctx, &word[0], &target[0]))
        result = tfr_wait_word(&tfr_client.feedback->stream[word[0]], target[0], TFR_WAIT_STREAM);
    if (result != CUDA_SUCCESS)
        return result;
    tfr_text_take(); /* also if there was nothing to wait for */
    tfr_copy_deliver();
    tfr_exit_hold();
    return tfr_client_error();
}

/* ---- the exported calls ---- */

CUresult cuStreamCreateWithPriority(CUstream *stream_out, unsigned int flags, int priority)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!stream_out || (flags & ~(unsigned int)CU_STREAM_NON_BLOCKING))
        return CUDA_ERROR_INVALID_VALUE;
    if (priority > tfr_client.snapshot->priority_least)
        priority = tfr_client.snapshot->priority_least;
    if (priority < tfr_client.snapshot->priority_greatest)
        priority = tfr_client.snapshot->priority_greatest;
    struct tfr_stream *stream = NULL;
    result = stream_create(tfr_thread.ctx, flags, priority, &stream);
    if (result == CUDA_SUCCESS)
        *stream_out = tfr_handle_ptr(stream->id);
    return result;
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags)
{
    return cuStreamCreateWithPriority(stream, flags, 0);
}

CUresult cuStreamDestroy_v2(CUstream handle)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *stream = tfr_handle_object(TFR_KIND_STREAM, handle);
    if (!stream || stream->legacy)
        return CUDA_ERROR_INVALID_HANDLE;
    return stream_destroy(stream);
}

CUresult cuStreamDestroy(CUstream handle)
{
    return cuStreamDestroy_v2(handle);
}

/* No mark covers the stream's work yet, so its word cannot tell: the driver is asked, once, and a
 * mark goes with the question; later queries are loads. */
static CUresult query_ask(struct tfr_stream *stream)
{
    struct tfr_ask ask;
    struct tfr_stream_query_req *req = tfr_ask_begin(&ask, TFR_OP_stream_query, sizeof *req);
    if (!req)
        return ask.result;
    req->stream = stream->id;
    atomic_store_explicit(&stream->mark, req->head.seq, memory_order_relaxed);
    TFR_COUNT(marks, 1);
    tfr_ask_send(&ask, 0);
    CUresult result = tfr_ask_end(&ask);
    /* Done, so its word is on its way: what was copied is delivered after it. */
    if (result == CUDA_SUCCESS)
        result =
            tfr_wait_word(&tfr_client.feedback->stream[stream->word], ask.seq, TFR_WAIT_STREAM);
    return result;
}

CUresult cuStreamQuery(CUstream handle)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *stream = tfr_stream_of(handle);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    uint64_t target = tfr_stream_target(stream);
    if (!tfr_word_reached(stream->word, target)) {
        if (atomic_load_explicit(&stream->mark, memory_order_relaxed) < target)
            result = query_ask(stream);
        else if ((result = tfr_client_look()) == CUDA_SUCCESS)
            result = CUDA_ERROR_NOT_READY;
        tfr_exit_hold();
        if (result != CUDA_SUCCESS)
            return result;
    } else if ((result = tfr_client_look()) != CUDA_SUCCESS) {
        return result; /* of an executor that is gone nobody else may hear */
    }
    tfr_copy_deliver();
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream handle)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *stream = tfr_stream_of(handle);
    return stream ? tfr_stream_wait(stream) : CUDA_ERROR_INVALID_HANDLE;
}

/* The stream of a query, or an error. */
static CUresult stream_asked(CUstream handle, const void *out, struct tfr_stream **stream_out)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    *stream_out = tfr_stream_of(handle);
    if (!*stream_out)
        return CUDA_ERROR_INVALID_HANDLE;
    return out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuStreamGetFlags(CUstream handle, unsigned int *flags)
{
    struct tfr_stream *stream;
    CUresult result = stream_asked(handle, flags, &stream);
    if (result == CUDA_SUCCESS)
        *flags = stream->flags;
    return result;
}

CUresult cuStreamGetPriority(CUstream handle, int *priority)
{
    struct tfr_stream *stream;
    CUresult result = stream_asked(handle, priority, &stream);
    if (result == CUDA_SUCCESS)
        *priority = stream->priority;
    return result;
}

CUresult cuStreamGetId(CUstream handle, unsigned long long *id)
{
    struct tfr_stream *stream;
    CUresult result = stream_asked(handle, id, &stream);
    if (result == CUDA_SUCCESS)
        *id = stream->id;
    return result;
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext *ctx)
{
    struct tfr_stream *stream;
    CUresult result = stream_asked(handle, ctx, &stream);
    if (result == CUDA_SUCCESS)
        *ctx = tfr_handle_ptr(stream->ctx->id);
    return result;
}

CUresult cuStreamGetCtx_v2(CUstream handle, CUcontext *ctx, CUgreenCtx *green)
{
    CUresult result = cuStreamGetCtx(handle, ctx);
    if (result == CUDA_SUCCESS && green)
        *green = NULL;
    return result;
}

CUresult cuStreamGetDevice(CUstream handle, CUdevice *dev)
{
    struct tfr_stream *stream;
    CUresult result = stream_asked(handle, dev, &stream);
    if (result == CUDA_SUCCESS)
        *dev = stream->ctx->device;
    return result;
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status)
{
    struct tfr_stream *stream;
    CUresult result = stream_asked(handle, status, &stream);
    if (result == CUDA_SUCCESS)
        *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return result;
}

CUresult cuStreamGetCaptureInfo(CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id)
{
    (void)id; /* set only while capturing */
    return cuStreamIsCapturing(handle, status);
}

CUresult cuStreamGetCaptureInfo_v2(CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id,
                                   CUgraph *graph, const CUgraphNode **nodes, size_t *node_n)
{
    (void)id;
    (void)graph;
    (void)nodes;
    (void)node_n;
    return cuStreamIsCapturing(handle, status);
}

CUresult cuStreamGetCaptureInfo_v3(CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id,
                                   CUgraph *graph, const CUgraphNode **nodes,
                                   const CUgraphEdgeData **edges, size_t *node_n)
{
    (void)edges;
    return cuStreamGetCaptureInfo_v2(handle, status, id, graph, nodes, node_n);
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!mode || *mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    CUstreamCaptureMode old = tfr_thread.capture_mode;
    tfr_thread.capture_mode = *mode;
    *mode = old;
    return CUDA_SUCCESS;
}
