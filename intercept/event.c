/* Events: a stream word and a seq.  Recording posts, querying loads, only elapsed time asks. */
#define TFR_LOG_PART "intercept"
#include <stdlib.h>

#include "intercept/memory.h"
#include "intercept/stream.h"

static const unsigned int event_flags =
    CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;

static struct tfr_event *event_of(CUevent handle)
{
    return tfr_handle_object(TFR_KIND_EVENT, handle);
}

static void event_forget(struct tfr_event *event)
{
    tfr_handle_drop(TFR_KIND_EVENT, event->id);
    tfr_handle_retire(event);
}

/* Without a record: its context is no more, or never heard of it. */
static void event_kill(struct tfr_event *event)
{
    tfr_post_hold();
    bool first = !event->dead;
    event->dead = true;
    tfr_post_release();
    if (first)
        event_forget(event);
}

static void event_end(void *object, void *ctx)
{
    struct tfr_event *event = object;
    if (event->ctx == ctx)
        event_kill(event);
}

void tfr_event_forget_context(const struct tfr_context *ctx)
{
    tfr_handle_each(TFR_KIND_EVENT, event_end, (void *)(uintptr_t)ctx);
}

CUresult cuEventCreate(CUevent *event_out, unsigned int flags)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!event_out || (flags & ~event_flags))
        return CUDA_ERROR_INVALID_VALUE;
    if (flags & CU_EVENT_INTERPROCESS)
        return CUDA_ERROR_NOT_SUPPORTED;
    struct tfr_event *event = calloc(1, sizeof *event);
    if (!event)
        return CUDA_ERROR_OUT_OF_MEMORY;
    result = tfr_handle_new(TFR_KIND_EVENT, &event->id);
    if (result != CUDA_SUCCESS) {
        free(event);
        return result;
    }
    event->flags = flags;
    event->ctx = tfr_thread.ctx;
    pthread_mutex_init(&event->lock, NULL);
    tfr_handle_bind(event->id, event);
    struct tfr_event_new_req *req = tfr_post_begin(TFR_OP_event_new, sizeof *req);
    if (!req) {
        event_kill(event);
        return tfr_post_failed();
    }
    if (!tfr_context_alive(event->ctx) || event->dead) { /* as for streams */
        tfr_post_cancel(CUDA_SUCCESS);
        event_kill(event);
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    }
    req->event = event->id;
    req->flags = flags;
    req->reserved = 0;
    *event_out = tfr_handle_ptr(event->id);
    return tfr_post_end();
}

CUresult cuEventDestroy_v2(CUevent handle)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_event *event = event_of(handle);
    if (!event)
        return CUDA_ERROR_INVALID_HANDLE;
    struct tfr_event_free_req *req = tfr_post_begin(TFR_OP_event_free, sizeof *req);
    if (!req)
        return tfr_post_failed();
    if (event->dead)
        return tfr_post_cancel(CUDA_ERROR_INVALID_HANDLE);
    event->dead = true;
    req->event = event->id;
    req->reserved = 0;
    result = tfr_post_end();
    event_forget(event);
    return result;
}

CUresult cuEventDestroy(CUevent handle)
{
    return cuEventDestroy_v2(handle);
}

CUresult cuEventRecordWithFlags(CUevent handle, CUstream stream_handle, unsigned int flags)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_event *event = event_of(handle);
    struct tfr_stream *stream = tfr_stream_of(stream_handle);
    if (!event || !stream || event->ctx != stream->ctx)
        return CUDA_ERROR_INVALID_HANDLE;
    if (flags) /* the one flag there is means something while capturing only */
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&event->lock);
    struct tfr_event_record_req *req = tfr_post_begin(TFR_OP_event_record, sizeof *req);
    if (!req) {
        pthread_mutex_unlock(&event->lock);
        return tfr_post_failed();
    }
    if (event->dead || stream->dead) {
        pthread_mutex_unlock(&event->lock);
        return tfr_post_cancel(CUDA_ERROR_INVALID_HANDLE);
    }
    req->stream = stream->id;
    req->event = event->id;
    req->flags = flags;
    req->reserved[0] = req->reserved[1] = req->reserved[2] = 0;
    event->word = stream->word;
    event->seq = req->head.seq;
    atomic_store_explicit(&stream->mark, req->head.seq, memory_order_relaxed);
    result = tfr_post_end_on(stream, NULL);
    pthread_mutex_unlock(&event->lock);
    return result;
}

CUresult cuEventRecord(CUevent event, CUstream stream)
{
    return cuEventRecordWithFlags(event, stream, 0);
}

/* What the event waits for at this moment. */
static uint64_t event_at(struct tfr_event *event, uint32_t *word_out)
{
    pthread_mutex_lock(&event->lock);
    uint64_t seq = event->seq;
    *word_out = event->word;
    pthread_mutex_unlock(&event->lock);
    return seq;
}

CUresult cuEventQuery(CUevent handle)
{
    uint32_t word;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_event *event = event_of(handle);
    if (!event)
        return CUDA_ERROR_INVALID_HANDLE;
    uint64_t seq = event_at(event, &word);
    bool reached = tfr_word_reached(word, seq);
    result = tfr_client_look(); /* of an executor that is gone a program that polls hears here */
    tfr_exit_hold();
    if (result != CUDA_SUCCESS || !reached)
        return result != CUDA_SUCCESS ? result : CUDA_ERROR_NOT_READY;
    tfr_copy_deliver();
    return CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent handle)
{
    uint32_t word;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_event *event = event_of(handle);
    if (!event)
        return CUDA_ERROR_INVALID_HANDLE;
    uint64_t seq = event_at(event, &word);
    if (!tfr_word_reached(word, seq)) {
        TFR_COUNT(stream_waits, 1);
        result = tfr_wait_word(&tfr_client.feedback->stream[word], seq, TFR_WAIT_STREAM);
        if (result != CUDA_SUCCESS)
            return result;
    }
    tfr_text_take(); /* also if there was nothing to wait for */
    tfr_copy_deliver();
    return CUDA_SUCCESS;
}

CUresult cuStreamWaitEvent(CUstream stream_handle, CUevent handle, unsigned int flags)
{
    uint32_t word;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *stream = tfr_stream_of(stream_handle);
    struct tfr_event *event = event_of(handle);
    if (!event || !stream)
        return CUDA_ERROR_INVALID_HANDLE;
    if (flags) /* as above */
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t seq = event_at(event, &word);
    if (seq == 0 || tfr_word_reached(word, seq))
        return CUDA_SUCCESS; /* nothing to wait for */
    struct tfr_stream_wait_req *req = tfr_post_begin(TFR_OP_stream_wait, sizeof *req);
    if (!req)
        return tfr_post_failed();
    if (event->dead)
        return tfr_post_cancel(CUDA_ERROR_INVALID_HANDLE);
    req->stream = stream->id;
    req->event = event->id;
    req->flags = flags;
    req->reserved[0] = req->reserved[1] = req->reserved[2] = 0;
    return tfr_post_end_on(stream, NULL);
}

static CUresult elapsed_ask(const struct tfr_event *start, const struct tfr_event *end, float *ms)
{
    struct tfr_ask ask;
    struct tfr_event_elapsed_req *req = tfr_ask_begin(&ask, TFR_OP_event_elapsed, sizeof *req);
    if (!req)
        return ask.result;
    req->start = start->id;
    req->end = end->id;
    const struct tfr_event_elapsed_rep *rep = tfr_ask_send(&ask, sizeof *rep);
    if (rep)
        *ms = rep->ms;
    return tfr_ask_end(&ask);
}

CUresult cuEventElapsedTime_v2(float *ms, CUevent start_handle, CUevent end_handle)
{
    uint32_t word[2];
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_event *start = event_of(start_handle), *end = event_of(end_handle);
    if (!start || !end || start->ctx != end->ctx)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!ms)
        return CUDA_ERROR_INVALID_VALUE;
    if ((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING)
        return CUDA_ERROR_INVALID_HANDLE;
    /* The words are ahead of the events by the moment that the GPU takes from one to the other. */
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_STREAM);
    for (;;) {
        uint64_t from = event_at(start, &word[0]), to = event_at(end, &word[1]);
        if (!from || !to)
            return CUDA_ERROR_INVALID_HANDLE;
        if (!tfr_word_reached(word[0], from) || !tfr_word_reached(word[1], to))
            return CUDA_ERROR_NOT_READY;
        result = elapsed_ask(start, end, ms);
        if (result != CUDA_ERROR_NOT_READY)
            return result;
        tfr_relax_nap(&relax);
        result = tfr_client_look();
        if (result != CUDA_SUCCESS)
            return result;
    }
}

CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end)
{
    return cuEventElapsedTime_v2(ms, start, end);
}
