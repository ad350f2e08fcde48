/* Handlers of streams, events, marks. */
#define TFR_LOG_PART "executor"
#include <stdlib.h>

#include "executor/session.h"
#include "tfr_dispatch_decl.h"

CUresult tfr_stream_add(struct tfr_session *s, uint64_t id, uint32_t word, uint32_t ctx,
                        CUstream real, bool joins_legacy)
{
    struct tfr_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *stream = (struct tfr_stream){
        .real = real, .word = word, .ctx = ctx, .joins_legacy = joins_legacy, .id = id};
    stream->device = s->ctx_device[ctx];
    CUresult result = tfr_object_new_aux(s, TFR_KIND_STREAM, id, real, stream);
    if (result != CUDA_SUCCESS)
        free(stream);
    return result;
}

/* Blocking streams come after the legacy stream anyway; what else did not see the fence waits for
 * it. */
static CUresult fence_wait(struct tfr_session *s, struct tfr_stream *stream)
{
    stream->fence = s->fence;
    stream->submitted++;
    if (s->fence_legacy && stream->joins_legacy && stream->ctx == s->fence_ctx)
        return CUDA_SUCCESS;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&s->fence_lock);
    CUevent event = s->fence_event[s->fence_ctx]; /* NULL: done, for its context was destroyed */
    if (event)
        result = s->cu->cuStreamWaitEvent(stream->real, event, 0);
    pthread_mutex_unlock(&s->fence_lock);
    return result;
}

CUresult tfr_stream_get(struct tfr_session *s, uint64_t id, struct tfr_stream **stream_out)
{
    struct tfr_stream *stream = __builtin_expect(s->park.n != 0, 0)
                                    ? tfr_park_stream(s, id)
                                    : tfr_object_aux(s, TFR_KIND_STREAM, id);
    CUresult result = CUDA_SUCCESS;
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    *stream_out = stream;
    if (__builtin_expect(stream->submitted >= stream->limit || s->park.n, 0))
        result = tfr_park_look(s, stream);
    /* A thread may wait for, or copy in, a stream of a device that is not its current one. */
    if (result == CUDA_SUCCESS)
        result = tfr_session_enter(s, (uint16_t)(stream->ctx + 1));
    if (result != CUDA_SUCCESS)
        return result;
    stream->submitted++;
    stream->last_seq = s->park.seq;
    return stream->fence == s->fence ? CUDA_SUCCESS : fence_wait(s, stream);
}

CUresult tfr_event_get(struct tfr_session *s, uint64_t id, CUevent *real_out)
{
    struct tfr_event *event = tfr_park_event(s, id);
    if (!event)
        return CUDA_ERROR_INVALID_HANDLE;
    s->park.event = event;
    *real_out = event->real;
    return CUDA_SUCCESS;
}

CUresult do_stream_new(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_stream_new_req *req = (const struct tfr_stream_new_req *)rec;
    CUstream real;
    if (req->word >= TFR_STREAM_SLOTS || rec->ctx == 0)
        return tfr_session_bad(s, rec, "no such word");
    CUresult result = s->cu->cuStreamCreateWithPriority(&real, req->flags, req->priority);
    if (result != CUDA_SUCCESS)
        return result;
    result = tfr_stream_add(s, req->stream, req->word, rec->ctx - 1u, real,
                            !(req->flags & CU_STREAM_NON_BLOCKING));
    if (result != CUDA_SUCCESS)
        s->cu->cuStreamDestroy_v2(real);
    return result;
}

CUresult do_stream_free(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_stream_free_req *req = (const struct tfr_stream_free_req *)rec;
    struct tfr_stream *stream = tfr_park_stream(s, req->stream);
    if (!stream || stream->real == CU_STREAM_LEGACY)
        return CUDA_ERROR_INVALID_HANDLE;
    if (s->park.replay) {
        stream->dead = true;
        tfr_hops_end(s, stream);
        return s->cu->cuStreamDestroy_v2(stream->real);
    }
    tfr_object_take(s, TFR_KIND_STREAM, req->stream);
    if (stream->first) {
        s->park.stream = stream; /* its last record */
        return TFR_RESULT_PARK;
    }
    tfr_hops_end(s, stream);
    CUresult result = s->cu->cuStreamDestroy_v2(stream->real);
    tfr_object_bury(s, stream);
    return result;
}

CUresult do_mark(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_mark_req *req = (const struct tfr_mark_req *)rec;
    struct tfr_stream *stream;
    CUresult result = tfr_stream_get(s, req->stream, &stream);
    return result != CUDA_SUCCESS ? result : tfr_news_ask(s, stream, rec->seq);
}

CUresult do_stream_query(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_stream_query_req *req = (const struct tfr_stream_query_req *)rec;
    struct tfr_stream *stream;
    CUresult result = tfr_stream_get(s, req->stream, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    /* Before the mark, which is work too: no GPU has done it by the next line. */
    CUresult now = s->cu->cuStreamQuery(stream->real);
    result = tfr_news_ask(s, stream, rec->seq);
    return result != CUDA_SUCCESS ? result : now;
}

CUresult do_event_new(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_event_new_req *req = (const struct tfr_event_new_req *)rec;
    CUevent real;
    struct tfr_event *event = calloc(1, sizeof *event);
    if (!event)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = s->cu->cuEventCreate(&real, req->flags);
    if (result == CUDA_SUCCESS) {
        *event = (struct tfr_event){.real = real, .id = req->event, .ctx = tfr_session_entered()};
        result = tfr_object_new_aux(s, TFR_KIND_EVENT, req->event, real, event);
        if (result == CUDA_SUCCESS)
            return result;
        s->cu->cuEventDestroy_v2(real);
    }
    free(event);
    return result;
}

CUresult do_event_free(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_event_free_req *req = (const struct tfr_event_free_req *)rec;
    struct tfr_event *event = tfr_object_take(s, TFR_KIND_EVENT, req->event);
    if (!event)
        return CUDA_ERROR_INVALID_HANDLE;
    event->doomed = true;
    if (event->first)
        return CUDA_SUCCESS; /* goes with the last kept record that uses it */
    CUresult result = s->cu->cuEventDestroy_v2(event->real);
    tfr_object_bury(s, event);
    return result;
}

CUresult do_event_record(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_event_record_req *req = (const struct tfr_event_record_req *)rec;
    struct tfr_stream *stream;
    CUevent real;
    CUresult result = tfr_event_get(s, req->event, &real);
    if (result == CUDA_SUCCESS)
        result = tfr_stream_get(s, req->stream, &stream);
    /* The mark goes before its event: whatever waited for the event comes after the mark, and no
     * word tells of it before the event's own word. */
    if (result == CUDA_SUCCESS)
        result = tfr_news_ask(s, stream, rec->seq);
    if (result != CUDA_SUCCESS)
        return result;
    return req->flags ? s->cu->cuEventRecordWithFlags(real, stream->real, req->flags)
                      : s->cu->cuEventRecord(real, stream->real);
}

CUresult do_event_elapsed(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    const struct tfr_event_elapsed_req *req = (const struct tfr_event_elapsed_req *)rec;
    struct tfr_event_elapsed_rep *rep = tfr_reply_room(reply, sizeof *rep);
    CUevent start, end;
    float ms = 0;
    CUresult result = tfr_object_get(s, TFR_KIND_EVENT, req->start, (void **)&start);
    if (result == CUDA_SUCCESS)
        result = tfr_object_get(s, TFR_KIND_EVENT, req->end, (void **)&end);
    if (result == CUDA_SUCCESS)
        result = s->cu->cuEventElapsedTime_v2 ? s->cu->cuEventElapsedTime_v2(&ms, start, end)
                                              : s->cu->cuEventElapsedTime(&ms, start, end);
    rep->ms = ms;
    return result;
}

CUresult do_stream_wait(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_stream_wait_req *req = (const struct tfr_stream_wait_req *)rec;
    struct tfr_stream *stream;
    CUevent real;
    CUresult result = tfr_event_get(s, req->event, &real);
    if (result == CUDA_SUCCESS)
        result = tfr_stream_get(s, req->stream, &stream);
    return result != CUDA_SUCCESS ? result
                                  : s->cu->cuStreamWaitEvent(stream->real, real, req->flags);
}
