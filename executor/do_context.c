/* Handlers of contexts. */
#define TFR_LOG_PART "executor"
#include "executor/session.h"
#include "tfr_dispatch_decl.h"

CUresult do_context(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_context_req *req = (const struct tfr_context_req *)rec;
    if (req->device >= (uint32_t)s->device_n || req->legacy_word >= TFR_STREAM_SLOTS)
        return tfr_session_bad(s, rec, "no such device or word");
    CUcontext ctx = s->ctx[req->device];
    CUresult result = CUDA_SUCCESS;
    if (!ctx)
        result = s->cu->cuDevicePrimaryCtxRetain(&ctx, (CUdevice)req->device);
    s->ctx[req->device] = ctx;
    if (result == CUDA_SUCCESS)
        result = tfr_session_enter(s, (uint16_t)(req->device + 1));
    /* Announced again after it was released while another device's was in use: it lives on. */
    if (result == CUDA_SUCCESS && !s->fence_event[req->device])
        result = s->cu->cuEventCreate(&s->fence_event[req->device], CU_EVENT_DISABLE_TIMING);
    if (result == CUDA_SUCCESS)
        result =
            tfr_stream_add(s, req->legacy, req->legacy_word, req->device, CU_STREAM_LEGACY, true);
    return result;
}
