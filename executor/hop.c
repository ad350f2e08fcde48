/* Work on memory of another device than its stream's.  Leased memory is open to its own device and
 * to those that were let in, yet CUDA copies to, from and between all devices whatever is current:
 * such a copy or fill runs on a stream of the owner's, between two events of the client's stream.
 *
 * Each stream of the client has its own such streams, so that one that waits holds up no other.
 * The pump's, but for tfr_hops_end. */
#define TFR_LOG_PART "executor"
#include <stdlib.h>

#include "executor/session.h"

struct tfr_hop {
    struct tfr_hop *next;
    CUstream stream;
    CUevent before, after; /* of the client's stream, of ours */
    uint64_t life;         /* of the owner's context: stream and `after` go with it */
    uint16_t at;
};

/* Slot of a context of the device; 0: none. */
static uint16_t context_on(const struct tfr_session *s, uint32_t device)
{
    if (s->ctx[device])
        return (uint16_t)(device + 1);
    for (int i = TFR_DEVICES_MAX; i < TFR_CONTEXTS_MAX; i++)
        if (s->ctx[i] && s->ctx_device[i] == device)
            return (uint16_t)(i + 1);
    return 0;
}

uint16_t tfr_hop_owner(struct tfr_session *s, const struct tfr_stream *stream, uint64_t addr)
{
    uint16_t own = (uint16_t)(stream->ctx + 1), at = 0;
    /* pairs with the release in do_window */
    uint32_t others = atomic_load_explicit(&s->windows, memory_order_acquire);
    others &= ~(1u << stream->device);
    for (; others && !at; others &= others - 1) {
        uint32_t device = (uint32_t)__builtin_ctz(others);
        if (addr - s->lease[device].base < s->lease[device].len)
            at = context_on(s, device);
    }
    return at ? at : own;
}

uint16_t tfr_hop_owners(struct tfr_session *s, const struct tfr_stream *stream, uint64_t dst,
                        uint64_t src, uint16_t *from_out)
{
    uint16_t own = (uint16_t)(stream->ctx + 1);
    uint16_t to = tfr_hop_owner(s, stream, dst), from = tfr_hop_owner(s, stream, src);
    /* Pinned memory is every device's. */
    if (to != own && from == own && tfr_host_at(s, src, 1))
        from = to;
    else if (from != own && to == own && tfr_host_at(s, dst, 1))
        to = from;
    *from_out = from;
    return to;
}

/* The owner's half, in the owner's context. */
static CUresult hop_open(struct tfr_session *s, struct tfr_hop *hop)
{
    uint64_t life = s->ctx_life[hop->at - 1];
    CUresult result = tfr_session_enter(s, hop->at);
    if (result != CUDA_SUCCESS || (hop->stream && hop->life == life))
        return result;
    hop->stream = NULL;
    hop->life = life;
    result = s->cu->cuEventCreate(&hop->after, CU_EVENT_DISABLE_TIMING);
    if (result == CUDA_SUCCESS)
        result = s->cu->cuStreamCreate(&hop->stream, CU_STREAM_NON_BLOCKING);
    return result;
}

/* With the client's context current. */
static CUresult hop_get(struct tfr_session *s, struct tfr_stream *stream, uint16_t at,
                        struct tfr_hop **hop_out)
{
    struct tfr_hop *hop = stream->hops;
    while (hop && hop->at != at)
        hop = hop->next;
    *hop_out = hop;
    if (hop)
        return CUDA_SUCCESS;
    hop = calloc(1, sizeof *hop);
    if (!hop)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = s->cu->cuEventCreate(&hop->before, CU_EVENT_DISABLE_TIMING);
    if (result != CUDA_SUCCESS) {
        free(hop);
        return result;
    }
    hop->at = at;
    hop->next = stream->hops;
    *hop_out = stream->hops = hop;
    return result;
}

CUresult tfr_hop_begin(struct tfr_session *s, struct tfr_stream *stream, uint16_t at,
                       struct tfr_hop **hop_out, CUstream *on_out)
{
    struct tfr_hop *hop;
    CUresult result = hop_get(s, stream, at, &hop);
    if (result == CUDA_SUCCESS)
        result = s->cu->cuEventRecord(hop->before, stream->real);
    if (result == CUDA_SUCCESS)
        result = hop_open(s, hop);
    if (result == CUDA_SUCCESS)
        result = s->cu->cuStreamWaitEvent(hop->stream, hop->before, 0);
    if (result != CUDA_SUCCESS)
        return result;
    stream->submitted += 2; /* two on the client's stream, as many as on ours */
    *hop_out = hop;
    *on_out = hop->stream;
    return result;
}

CUresult tfr_hop_end(struct tfr_session *s, struct tfr_stream *stream, struct tfr_hop *hop)
{
    CUresult result = s->cu->cuEventRecord(hop->after, hop->stream);
    if (result == CUDA_SUCCESS)
        result = tfr_session_enter(s, (uint16_t)(stream->ctx + 1));
    return result == CUDA_SUCCESS ? s->cu->cuStreamWaitEvent(stream->real, hop->after, 0) : result;
}

void tfr_hops_end(struct tfr_session *s, struct tfr_stream *stream)
{
    struct tfr_hop *hop = stream->hops;
    stream->hops = NULL;
    while (hop) {
        struct tfr_hop *next = hop->next;
        s->cu->cuEventDestroy_v2(hop->before);
        if (hop->stream && hop->life == s->ctx_life[hop->at - 1]) {
            s->cu->cuStreamDestroy_v2(hop->stream);
            s->cu->cuEventDestroy_v2(hop->after);
        }
        tfr_object_bury(s, hop);
        hop = next;
    }
}
