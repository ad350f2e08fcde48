/* Functions of the application that a stream calls: cuLaunchHostFunc, cuStreamAddCallback.  Each is
 * a gate; they run on threads of ours (tick.c), where CUDA calls answer CUDA_ERROR_NOT_PERMITTED as
 * they do on the driver's. */
#define TFR_LOG_PART "intercept"
#include <stdlib.h>

#include "intercept/copy.h"
#include "intercept/gate.h"

struct call {
    struct tfr_gate gate;
    struct tfr_context *ctx;
    CUhostFn fn; /* NULL: a callback */
    CUstreamCallback callback;
    CUstream stream; /* as the application named it */
    void *arg;
};

static void call_run(struct tfr_gate *gate, CUresult status)
{
    struct call *call = (struct call *)gate;
    struct tfr_context *before = tfr_thread.ctx;
    if (status == CUDA_SUCCESS) {
        tfr_copy_deliver(); /* what the stream brought before the call */
        tfr_text_take();
    }
    tfr_thread.ctx = NULL;
    tfr_thread.calling = call->ctx;
    if (call->fn && status == CUDA_SUCCESS)
        call->fn(call->arg);
    /* A session that the application itself has ended is no error to tell of. */
    if (call->callback && status != CUDA_ERROR_CONTEXT_IS_DESTROYED)
        call->callback(call->stream, status, call->arg);
    tfr_thread.calling = NULL;
    tfr_thread.ctx = before;
    free(call);
}

static CUresult call_post(CUstream handle, const struct call *what)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *stream = tfr_stream_of(handle);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!what->fn && !what->callback)
        return CUDA_ERROR_INVALID_VALUE;
    struct call *call = malloc(sizeof *call);
    if (!call)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *call = *what;
    call->gate.run = call_run;
    call->ctx = stream->ctx;
    result = tfr_gate_post(stream, TFR_GATE_CALL, &call->gate);
    if (result != CUDA_SUCCESS)
        free(call);
    return result;
}

CUresult cuLaunchHostFunc(CUstream stream, CUhostFn fn, void *arg)
{
    return call_post(stream, &(struct call){.fn = fn, .arg = arg});
}

CUresult cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void *arg,
                             unsigned int flags)
{
    return call_post(
        stream, &(struct call){.callback = flags ? NULL : callback, .stream = stream, .arg = arg});
}
