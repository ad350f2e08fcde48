/* Handlers of contexts.  Created ones and the primary ones of most devices are the driver's own and
 * end with it.  Surprising: that of the first device is never let go, since lane and mirror live in
 * it; what its end would destroy is destroyed object by object. */
#define TFR_LOG_PART "executor"
#include <stdlib.h>

#include "executor/session.h"
#include "tfr_dispatch_decl.h"

enum { OURS = 1 }; /* slot of the context that lane and mirror live in */

/* Limits that a program may change; the others are read-only or a state of the L2 cache. */
static const CUlimit limits[] = {CU_LIMIT_STACK_SIZE, CU_LIMIT_PRINTF_FIFO_SIZE,
                                 CU_LIMIT_MALLOC_HEAP_SIZE};

/* With the context current: what is to be restored when it ends. */
static void limits_keep(struct tfr_session *s)
{
    size_t value;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++)
        if (!s->limit[limits[i]] && s->cu->cuCtxGetLimit(&value, limits[i]) == CUDA_SUCCESS)
            s->limit[limits[i]] = value;
}

static void limits_restore(struct tfr_session *s)
{
    size_t value;
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        uint64_t want = s->limit[limits[i]];
        if (want && s->cu->cuCtxGetLimit(&value, limits[i]) == CUDA_SUCCESS && value != want)
            s->cu->cuCtxSetLimit(limits[i], want);
    }
}

/* Helpers make and destroy contexts while the watch looks at them. */
static void slot_set(struct tfr_session *s, uint32_t at, CUcontext ctx, CUdevice device)
{
    pthread_mutex_lock(&s->ctx_lock);
    s->ctx_device[at - 1] = (uint8_t)device;
    s->ctx_life[at - 1]++;
    s->ctx[at - 1] = ctx;
    pthread_mutex_unlock(&s->ctx_lock);
}

/* How threads wait over here is the executor's affair, not the program's. */
static CUresult context_create(struct tfr_session *s, const struct tfr_context_req *req,
                               CUcontext *ctx_out)
{
    CUcontext popped;
    CUresult result = s->cu->cuCtxCreate_v2(ctx_out, req->flags & CU_CTX_LMEM_RESIZE_TO_MAX,
                                            (CUdevice)req->device);
    /* It is pushed on this helper's stack, where the next record expects nothing. */
    if (result == CUDA_SUCCESS)
        s->cu->cuCtxPopCurrent_v2(&popped);
    return result;
}

/* Announced again, the first device's has lived on. */
static CUresult context_take(struct tfr_session *s, const struct tfr_context_req *req)
{
    CUcontext ctx = s->ctx[req->at - 1];
    CUresult result = CUDA_SUCCESS;
    if (ctx)
        return req->at == OURS ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
    if (req->at <= TFR_DEVICES_MAX)
        result = s->cu->cuDevicePrimaryCtxRetain(&ctx, (CUdevice)req->device);
    else
        result = context_create(s, req, &ctx);
    if (result == CUDA_SUCCESS)
        slot_set(s, req->at, ctx, (CUdevice)req->device);
    return result;
}

CUresult do_context(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_context_req *req = (const struct tfr_context_req *)rec;
    bool primary = req->at == req->device + 1;
    if (req->device >= (uint32_t)s->device_n || req->legacy_word >= TFR_STREAM_SLOTS ||
        (!primary && (req->at <= TFR_DEVICES_MAX || req->at > TFR_CONTEXTS_MAX)))
        return tfr_session_bad(s, rec, "no such device, word or slot");
    CUresult result = context_take(s, req);
    if (result == CUDA_SUCCESS)
        result = tfr_session_enter(s, (uint16_t)req->at);
    if (result == CUDA_SUCCESS && req->at == OURS)
        limits_keep(s);
    if (result == CUDA_SUCCESS && !s->fence_event[req->at - 1])
        result = s->cu->cuEventCreate(&s->fence_event[req->at - 1], CU_EVENT_DISABLE_TIMING);
    if (result == CUDA_SUCCESS)
        result =
            tfr_stream_add(s, req->legacy, req->legacy_word, req->at - 1, CU_STREAM_LEGACY, true);
    return result;
}

/* ---- peer access ---- */

/* What the driver had from an earlier life of a context that was kept is as good. */
static CUresult access_change(struct tfr_session *s, CUcontext peer, bool on)
{
    CUresult result =
        on ? s->cu->cuCtxEnablePeerAccess(peer, 0) : s->cu->cuCtxDisablePeerAccess(peer);
    bool same = result ==
                (on ? CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED : CUDA_ERROR_PEER_ACCESS_NOT_ENABLED);
    return same ? CUDA_SUCCESS : result;
}

/* The devices whose memory the context may use henceforth, or no more.  Leased memory knows devices
 * alone: one may use it while any context of it may. */
static CUresult peers_change(struct tfr_session *s, uint16_t at, uint32_t more, uint32_t less)
{
    CUresult result = CUDA_SUCCESS;
    uint32_t device = s->ctx_device[at - 1], all = 0;
    pthread_mutex_lock(&s->ctx_lock);
    uint32_t own = atomic_load_explicit(&s->ctx_peers[at - 1], memory_order_relaxed);
    atomic_store_explicit(&s->ctx_peers[at - 1], (own & ~less) | more, memory_order_relaxed);
    for (int i = 0; i < TFR_CONTEXTS_MAX; i++)
        if (s->ctx[i] && s->ctx_device[i] == device)
            all |= atomic_load_explicit(&s->ctx_peers[i], memory_order_relaxed);
    uint32_t changed = all ^ s->peers[device];
    s->peers[device] = all;
    pthread_mutex_unlock(&s->ctx_lock);
    for (uint32_t owner = 0; owner < (uint32_t)s->device_n && result == CUDA_SUCCESS; owner++)
        if (changed >> owner & 1)
            result = tfr_lease_share(s, owner, device, all >> owner & 1);
    return result;
}

CUresult do_peer_access(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_peer_access_req *req = (const struct tfr_peer_access_req *)rec;
    if (req->peer == 0 || req->peer > TFR_CONTEXTS_MAX || !s->ctx[req->peer - 1] || !rec->ctx)
        return tfr_session_bad(s, rec, "no such context");
    CUresult result = access_change(s, s->ctx[req->peer - 1], req->on);
    if (result != CUDA_SUCCESS)
        return result;
    uint32_t bit = 1u << s->ctx_device[req->peer - 1];
    return peers_change(s, rec->ctx, req->on ? bit : 0, req->on ? 0 : bit);
}

/* ---- the end of one ---- */

static CUresult destroy_one(struct tfr_session *s, enum tfr_kind kind, void *real)
{
    switch (kind) {
    case TFR_KIND_STREAM:
        return real == CU_STREAM_LEGACY ? CUDA_SUCCESS : s->cu->cuStreamDestroy_v2(real);
    case TFR_KIND_EVENT:
        return s->cu->cuEventDestroy_v2(real);
    case TFR_KIND_MODULE:
        return s->cu->cuModuleUnload(real);
    default:
        return CUDA_SUCCESS;
    }
}

/* Ids die; the driver's objects too, unless their context takes them along. */
static CUresult objects_free(struct tfr_session *s, uint16_t at)
{
    static const enum tfr_kind kinds[] = {TFR_KIND_FUNCTION, TFR_KIND_EVENT, TFR_KIND_STREAM,
                                          TFR_KIND_MODULE};
    CUresult result = CUDA_SUCCESS;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        struct tfr_object_list list;
        if (!tfr_object_take_context(s, kinds[k], at, &list))
            return CUDA_ERROR_OUT_OF_MEMORY;
        for (size_t i = 0; i < list.n && kinds[k] == TFR_KIND_STREAM; i++)
            tfr_hops_end(s, list.aux[i]);
        for (size_t i = 0; i < list.n && at == OURS; i++) {
            CUresult one = destroy_one(s, kinds[k], list.real[i]);
            result = result == CUDA_SUCCESS ? one : result;
        }
        free(list.real);
    }
    return result;
}

static CUresult context_destroy(struct tfr_session *s, uint16_t at)
{
    CUcontext ctx = s->ctx[at - 1];
    CUdevice device = s->ctx_device[at - 1];
    slot_set(s, at, NULL, 0);
    pthread_mutex_lock(&s->fence_lock);
    s->fence_event[at - 1] = NULL;
    pthread_mutex_unlock(&s->fence_lock);
    return at > TFR_DEVICES_MAX ? s->cu->cuCtxDestroy_v2(ctx)
                                : s->cu->cuDevicePrimaryCtxRelease_v2(device);
}

/* What the kept context could reach it can no more. */
static void peers_end(struct tfr_session *s)
{
    for (int i = 0; i < TFR_CONTEXTS_MAX; i++)
        if (s->ctx[i] && s->ctx_device[i] != s->ctx_device[OURS - 1])
            access_change(s, s->ctx[i], false);
}

CUresult do_context_free(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_context_free_req *req = (const struct tfr_context_free_req *)rec;
    if (req->at == 0 || req->at > TFR_CONTEXTS_MAX || !s->ctx[req->at - 1])
        return tfr_session_bad(s, rec, "no such context");
    uint16_t at = (uint16_t)req->at;
    CUresult result = tfr_session_enter(s, at);
    if (result == CUDA_SUCCESS)
        result = s->cu->cuCtxSynchronize();
    if (result == CUDA_SUCCESS)
        result = peers_change(s, at, 0, UINT32_MAX);
    if (at == OURS) {
        peers_end(s);
        limits_restore(s);
    }
    CUresult freed = objects_free(s, at);
    result = result == CUDA_SUCCESS ? freed : result;
    if (at != OURS) {
        CUresult destroyed = context_destroy(s, at);
        result = result == CUDA_SUCCESS ? destroyed : result;
    }
    return result;
}
