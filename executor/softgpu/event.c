/* Events: "stream s has passed n", and for timing ones the time when it did.  A wait captures the
 * record that is the last at the time of the call. */
#include "executor/softgpu/soft.h"

#include <stdlib.h>

void soft_event_unref(struct soft_event *event)
{
    if (atomic_fetch_sub_explicit(&event->refs, 1, memory_order_acq_rel) != 1)
        return;
    if (event->stream)
        soft_stream_unref(event->stream);
    pthread_mutex_destroy(&event->lock);
    free(event);
}

void soft_event_drop(struct soft_event *event)
{
    struct soft_ctx *ctx = event->ctx;
    pthread_mutex_lock(&ctx->lock);
    bool listed = event->prev != NULL;
    if (listed) {
        *event->prev = event->next;
        if (event->next)
            event->next->prev = event->prev;
        event->prev = NULL;
    }
    pthread_mutex_unlock(&ctx->lock);
    if (!listed)
        return;
    soft_handle_del(event->handle);
    soft_event_unref(event);
}

CUresult cuEventCreate(CUevent *out, unsigned int flags)
{
    const unsigned int known =
        CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!out || (flags & ~known) ||
        (flags & CU_EVENT_INTERPROCESS && !(flags & CU_EVENT_DISABLE_TIMING)))
        return CUDA_ERROR_INVALID_VALUE;
    if (flags & CU_EVENT_INTERPROCESS)
        return CUDA_ERROR_NOT_SUPPORTED;
    struct soft_event *event = calloc(1, sizeof(*event));
    if (!event)
        return CUDA_ERROR_OUT_OF_MEMORY;
    event->handle = soft_handle_add(SOFT_EVENT, event);
    if (!event->handle) {
        free(event);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_init(&event->lock, NULL);
    event->ctx = ctx;
    event->flags = flags;
    atomic_init(&event->refs, 1);
    pthread_mutex_lock(&ctx->lock);
    event->next = ctx->events;
    event->prev = &ctx->events;
    if (event->next)
        event->next->prev = &event->next;
    ctx->events = event;
    pthread_mutex_unlock(&ctx->lock);
    *out = (CUevent)event->handle;
    return CUDA_SUCCESS;
}

static CUresult find(CUevent handle, struct soft_event **event_out)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    struct soft_event *event = soft_handle_get((uint64_t)handle, SOFT_EVENT);
    if (!event)
        return CUDA_ERROR_INVALID_HANDLE;
    *event_out = event;
    return soft_ctx_usable(event->ctx);
}

CUresult cuEventDestroy_v2(CUevent handle)
{
    struct soft_event *event = NULL;
    CUresult result = find(handle, &event);
    if (event)
        soft_event_drop(event);
    return result;
}

CUresult cuEventDestroy(CUevent event)
{
    return cuEventDestroy_v2(event);
}

/* The event means this record from now on; another record's stream is let go. */
static uint64_t claim(struct soft_event *event)
{
    pthread_mutex_lock(&event->lock);
    uint64_t version = ++event->version;
    pthread_mutex_unlock(&event->lock);
    return version;
}

static void settle(struct soft_event *event, struct soft_stream *stream, uint64_t seq,
                   uint64_t version)
{
    struct soft_stream *before = NULL;
    soft_stream_ref(stream);
    pthread_mutex_lock(&event->lock);
    if (event->version == version) {
        before = event->stream;
        event->stream = stream;
        event->seq = seq;
    } else {
        before = stream; /* another thread recorded meanwhile */
    }
    pthread_mutex_unlock(&event->lock);
    if (before)
        soft_stream_unref(before);
}

static CUresult record(CUevent handle, CUstream stream_handle)
{
    struct soft_event *event;
    struct soft_stream *stream;
    uint64_t seq;
    CUresult result = find(handle, &event);
    if (result == CUDA_SUCCESS)
        result = soft_stream_find(stream_handle, &stream);
    if (result)
        return result;
    if (stream->ctx != event->ctx)
        return CUDA_ERROR_INVALID_HANDLE;
    uint64_t version = claim(event);
    if (event->flags & CU_EVENT_DISABLE_TIMING && !soft_chaos.on) {
        seq = soft_stream_position(stream);
    } else {
        struct soft_op op = {.kind = SOFT_OP_RECORD, .record = {event, version}};
        atomic_fetch_add_explicit(&event->refs, 1, memory_order_relaxed);
        result = soft_submit(stream, &op, NULL, 0, true, &seq);
        if (result) {
            soft_event_unref(event);
            return result;
        }
    }
    settle(event, stream, seq, version);
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    return record(event, stream);
}

CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned int flags)
{
    if (flags & ~(unsigned int)CU_EVENT_RECORD_EXTERNAL)
        return CUDA_ERROR_INVALID_VALUE;
    return record(event, stream);
}

/* The last record; the stream is referenced for the caller; NULL: never recorded. */
static struct soft_stream *last_record(struct soft_event *event, uint64_t *seq_out)
{
    pthread_mutex_lock(&event->lock);
    struct soft_stream *stream = event->stream;
    if (stream)
        soft_stream_ref(stream);
    *seq_out = event->seq;
    pthread_mutex_unlock(&event->lock);
    return stream;
}

CUresult cuEventQuery(CUevent handle)
{
    struct soft_event *event;
    CUresult result = find(handle, &event);
    if (result)
        return result;
    pthread_mutex_lock(&event->lock);
    bool passed = !event->stream || soft_stream_passed(event->stream, event->seq);
    pthread_mutex_unlock(&event->lock);
    return passed ? soft_ctx_usable(event->ctx) : CUDA_ERROR_NOT_READY;
}

CUresult cuEventSynchronize(CUevent handle)
{
    struct soft_event *event;
    uint64_t seq;
    CUresult result = find(handle, &event);
    if (result)
        return result;
    struct soft_ctx *ctx = event->ctx;
    struct soft_stream *stream = last_record(event, &seq);
    if (stream) {
        soft_stream_wait(stream, seq);
        soft_stream_unref(stream);
    }
    vm_text_flush();
    soft_pool_synced();
    return soft_ctx_usable(ctx);
}

CUresult cuStreamWaitEvent(CUstream stream_handle, CUevent handle, unsigned int flags)
{
    struct soft_event *event;
    struct soft_stream *stream;
    uint64_t seq;
    if (flags & ~(unsigned int)CU_EVENT_WAIT_EXTERNAL)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = soft_stream_find(stream_handle, &stream);
    if (result == CUDA_SUCCESS)
        result = find(handle, &event);
    if (result)
        return result;
    struct soft_stream *on = last_record(event, &seq);
    if (!on || on == stream || soft_stream_passed(on, seq)) {
        if (on)
            soft_stream_unref(on);
        return CUDA_SUCCESS;
    }
    struct soft_op op = {.kind = SOFT_OP_WAIT_STREAM, .wait = {on, seq}};
    result = soft_submit(stream, &op, NULL, 0, false, NULL);
    if (result)
        soft_stream_unref(on);
    return result;
}

/* Time of the last record; NOT_READY before the stream has passed it. */
static CUresult time_of(struct soft_event *event, uint64_t *time_ns_out)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&event->lock);
    if (!event->stream)
        result = CUDA_ERROR_INVALID_HANDLE;
    else if (!soft_stream_passed(event->stream, event->seq))
        result = CUDA_ERROR_NOT_READY;
    *time_ns_out = event->time_ns;
    pthread_mutex_unlock(&event->lock);
    return result;
}

CUresult cuEventElapsedTime_v2(float *ms, CUevent from_handle, CUevent to_handle)
{
    struct soft_event *from, *to;
    uint64_t a, b;
    CUresult result = find(from_handle, &from);
    if (result == CUDA_SUCCESS)
        result = find(to_handle, &to);
    if (result)
        return result;
    if (!ms)
        return CUDA_ERROR_INVALID_VALUE;
    if (from->ctx != to->ctx || (from->flags | to->flags) & CU_EVENT_DISABLE_TIMING)
        return CUDA_ERROR_INVALID_HANDLE;
    result = time_of(from, &a);
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_NOT_READY) {
        CUresult other = time_of(to, &b);
        result = other == CUDA_ERROR_INVALID_HANDLE || result == CUDA_SUCCESS ? other : result;
    }
    if (result == CUDA_SUCCESS)
        *ms = (float)((double)(int64_t)(b - a) / 1e6);
    return result;
}

CUresult cuEventElapsedTime(float *ms, CUevent from, CUevent to)
{
    return cuEventElapsedTime_v2(ms, from, to);
}
