/* Contexts: the primary context of each device, and which one is current on each thread.  All
 * local, but for the first retain, which attaches the session, and the last release, which ends it.
 */
#define TFR_LOG_PART "intercept"
#include "intercept/entry.h"

#include "face/face.h"
#include "intercept/stream.h"

static struct tfr_context *context_of_device(CUdevice dev)
{
    if (!tfr_client.snapshot || dev < 0 || dev >= (int)tfr_client.snapshot->device_n)
        return NULL;
    return &tfr_contexts[dev];
}

static struct tfr_context *context_of(CUcontext ctx)
{
    return ctx ? tfr_handle_object(TFR_KIND_CTX, ctx) : tfr_thread.ctx;
}

CUresult tfr_enter_noctx(void)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    return tfr_client_error();
}

CUresult tfr_enter_slow(void)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    if (!tfr_thread.ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!atomic_load_explicit(&tfr_thread.ctx->active, memory_order_acquire))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return CUDA_SUCCESS;
}

/* The worker retains its primary context and learns the id of the legacy stream. */
static CUresult context_activate(struct tfr_context *ctx)
{
    CUresult result = tfr_client_attach();
    if (result == CUDA_SUCCESS)
        result = tfr_stream_legacy_new(ctx);
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_ask ask;
    struct tfr_context_req *req = tfr_ask_begin(&ask, TFR_OP_context, sizeof *req);
    if (!req)
        return ask.result;
    req->legacy = ctx->legacy->id;
    req->legacy_word = ctx->legacy->word;
    req->device = (uint32_t)ctx->device;
    req->flags = ctx->flags;
    req->reserved = 0;
    tfr_ask_send(&ask, 0);
    result = tfr_ask_end(&ask);
    if (result == CUDA_SUCCESS) /* pairs with the acquire in tfr_enter */
        atomic_store_explicit(&ctx->active, 1, memory_order_release);
    return result;
}

/* Guards retain, release and reset against each other. */
static pthread_mutex_t retain_lock = PTHREAD_MUTEX_INITIALIZER;

CUresult cuDevicePrimaryCtxRetain(CUcontext *ctx_out, CUdevice dev)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_context *ctx = context_of_device(dev);
    if (!ctx)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!ctx_out)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&retain_lock);
    if (!atomic_load_explicit(&ctx->active, memory_order_acquire))
        result = context_activate(ctx);
    if (result == CUDA_SUCCESS) {
        ctx->retained++;
        *ctx_out = tfr_handle_ptr(ctx->id);
    }
    pthread_mutex_unlock(&retain_lock);
    return result;
}

/* Another device's context may still be in use: the session ends with the last one. */
static void context_end(struct tfr_context *ctx)
{
    tfr_face_context_gone(tfr_handle_ptr(ctx->id));
    atomic_store_explicit(&ctx->active, 0, memory_order_release);
    ctx->retained = 0;
    for (uint32_t i = 0; i < tfr_client.snapshot->device_n; i++)
        if (tfr_contexts[i].retained)
            return;
    tfr_client_detach();
}

/* cudart releases at exit, in forked children too: a thread of the parent may hold the lock. */
static bool is_child(void)
{
    return atomic_load_explicit(&tfr_client.error, memory_order_acquire) ==
           CUDA_ERROR_NOT_INITIALIZED;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    struct tfr_context *ctx = context_of_device(dev);
    if (!tfr_client.snapshot || is_child())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!ctx)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&retain_lock);
    CUresult result = ctx->retained ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
    if (ctx->retained && --ctx->retained == 0)
        context_end(ctx);
    pthread_mutex_unlock(&retain_lock);
    return result;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice dev)
{
    return cuDevicePrimaryCtxRelease_v2(dev);
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
    if (!tfr_client.snapshot || is_child())
        return CUDA_ERROR_NOT_INITIALIZED;
    struct tfr_context *ctx = context_of_device(dev);
    if (!ctx)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&retain_lock);
    if (atomic_load_explicit(&ctx->active, memory_order_acquire)) {
        tfr_context_wait(ctx); /* natively a reset lets kernels finish and print */
        context_end(ctx);
    }
    pthread_mutex_unlock(&retain_lock);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxReset(CUdevice dev)
{
    return cuDevicePrimaryCtxReset_v2(dev);
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned int flags)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_context *ctx = context_of_device(dev);
    if (!ctx)
        return CUDA_ERROR_INVALID_DEVICE;
    if (flags & ~(unsigned int)CU_CTX_FLAGS_MASK)
        return CUDA_ERROR_INVALID_VALUE;
    /* Spin, yield or block: our waits have their own budget; the flags are kept to be answered. */
    ctx->flags = flags;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned int flags)
{
    return cuDevicePrimaryCtxSetFlags_v2(dev, flags);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags, int *active)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct tfr_context *ctx = context_of_device(dev);
    if (!ctx)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!flags || !active)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = ctx->flags;
    *active = atomic_load_explicit(&ctx->active, memory_order_acquire) ? 1 : 0;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *ctx)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!ctx)
        return CUDA_ERROR_INVALID_VALUE;
    *ctx = tfr_thread.ctx ? tfr_handle_ptr(tfr_thread.ctx->id) : NULL;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext ctx)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct tfr_context *to = ctx ? tfr_handle_object(TFR_KIND_CTX, ctx) : NULL;
    if (ctx && !to)
        return CUDA_ERROR_INVALID_CONTEXT;
    tfr_thread.ctx = to;
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct tfr_context *to = tfr_handle_object(TFR_KIND_CTX, ctx);
    if (!to)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (tfr_thread.depth == (int)(sizeof tfr_thread.below / sizeof tfr_thread.below[0]))
        return CUDA_ERROR_INVALID_VALUE;
    tfr_thread.below[tfr_thread.depth++] = tfr_thread.ctx;
    tfr_thread.ctx = to;
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext *ctx)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!tfr_thread.ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (ctx)
        *ctx = tfr_handle_ptr(tfr_thread.ctx->id);
    tfr_thread.ctx = tfr_thread.depth ? tfr_thread.below[--tfr_thread.depth] : NULL;
    return CUDA_SUCCESS;
}

/* The names before _v2 are aliases for programs that use dlsym. */
CUresult cuCtxPushCurrent(CUcontext ctx)
{
    return cuCtxPushCurrent_v2(ctx);
}

CUresult cuCtxPopCurrent(CUcontext *ctx)
{
    return cuCtxPopCurrent_v2(ctx);
}

CUresult cuCtxGetDevice_v2(CUdevice *dev, CUcontext handle)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    struct tfr_context *ctx = context_of(handle);
    if (!ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!dev)
        return CUDA_ERROR_INVALID_VALUE;
    *dev = ctx->device;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice *dev)
{
    return cuCtxGetDevice_v2(dev, NULL);
}

CUresult cuCtxGetFlags(unsigned int *flags)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = tfr_thread.ctx->flags;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetId(CUcontext handle, unsigned long long *id)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_context *ctx = context_of(handle);
    if (!ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!id)
        return CUDA_ERROR_INVALID_VALUE;
    *id = (unsigned long long)ctx->device + 1;
    return CUDA_SUCCESS;
}

/* cudart asks before it resets a device, also one with a sticky error: that is no reason to refuse.
 */
CUresult cuCtxGetApiVersion(CUcontext handle, unsigned int *version)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!context_of(handle))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = 3020; /* what drivers answer for every context since CUDA 3.2 */
    return CUDA_SUCCESS;
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (least)
        *least = tfr_client.snapshot->priority_least;
    if (greatest)
        *greatest = tfr_client.snapshot->priority_greatest;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void)
{
    CUresult result = tfr_enter();
    return result != CUDA_SUCCESS ? result : tfr_context_wait(tfr_thread.ctx);
}

CUresult cuCtxSynchronize_v2(CUcontext handle)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_context *ctx = context_of(handle);
    if (!ctx || !atomic_load_explicit(&ctx->active, memory_order_acquire))
        return CUDA_ERROR_INVALID_CONTEXT;
    return tfr_context_wait(ctx);
}
