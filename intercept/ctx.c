/* Contexts: primary and created ones, and which is current on each thread.  All local, but for
 * beginning and end, which are context.c's. */
#define TFR_LOG_PART "intercept"
#include "intercept/entry.h"

#include <stdlib.h>

#include "intercept/stream.h"

static struct tfr_context *context_of_device(CUdevice dev)
{
    if (!tfr_client.snapshot || dev < 0 || dev >= (int)tfr_client.snapshot->device_n)
        return NULL;
    return &tfr_contexts[dev];
}

static bool flags_known(unsigned int flags)
{
    return !(flags & ~(unsigned int)CU_CTX_FLAGS_MASK) &&
           (flags & CU_CTX_SCHED_MASK) <= CU_CTX_SCHED_BLOCKING_SYNC;
}

static struct tfr_context *context_of(CUcontext ctx)
{
    return ctx ? tfr_handle_object(TFR_KIND_CTX, ctx) : tfr_thread_current();
}

CUresult tfr_enter_noctx(void)
{
    if (tfr_thread.calling)
        return CUDA_ERROR_NOT_PERMITTED;
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult error = tfr_client_error();
    if (error != CUDA_SUCCESS)
        tfr_text_take(); /* what the driver says about it */
    return error;
}

/* For calls that make a context: they come after a reset that another thread is at, as a driver has
 * it. cudart takes their failure for the last word. */
static CUresult enter_after_reset(void)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_ERROR_CONTEXT_IS_DESTROYED)
        return result;
    pthread_mutex_lock(&tfr_client.set_up_lock); /* tfr_client_detach holds it */
    pthread_mutex_unlock(&tfr_client.set_up_lock);
    return tfr_enter_noctx();
}

CUresult tfr_enter_slow(void)
{
    CUresult result = tfr_enter_noctx();
    if (result == CUDA_SUCCESS && !tfr_thread.ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (result == CUDA_SUCCESS && !tfr_context_alive(tfr_thread.ctx))
        result = CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (result != CUDA_SUCCESS)
        tfr_exit_hold();
    return result;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *ctx_out, CUdevice dev)
{
    CUresult result = enter_after_reset();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_context *ctx = context_of_device(dev);
    if (!ctx)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!ctx_out)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&tfr_context_lock);
    if (!tfr_context_alive(ctx))
        result = tfr_context_activate(ctx);
    if (result == CUDA_SUCCESS) {
        ctx->retained++;
        *ctx_out = tfr_handle_ptr(ctx->id);
    }
    pthread_mutex_unlock(&tfr_context_lock);
    return result;
}

/* cudart releases at exit, in forked children too: a thread of the parent may hold the lock. */
static bool is_child(void)
{
    return atomic_load_explicit(&tfr_client.error, memory_order_acquire) ==
           CUDA_ERROR_NOT_INITIALIZED;
}

/* Ends wait for kernels, which may take an hour: other threads should not wait for the lock. */
static void wait_outside(struct tfr_context *ctx)
{
    if (ctx && tfr_context_alive(ctx))
        tfr_context_wait(ctx);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    struct tfr_context *ctx = context_of_device(dev);
    if (!tfr_client.snapshot || is_child())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!ctx)
        return CUDA_ERROR_INVALID_DEVICE;
    pthread_mutex_lock(&tfr_context_lock);
    CUresult result = ctx->retained ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
    if (ctx->retained && --ctx->retained == 0)
        tfr_context_end(ctx);
    pthread_mutex_unlock(&tfr_context_lock);
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
    wait_outside(ctx);
    pthread_mutex_lock(&tfr_context_lock);
    if (tfr_context_alive(ctx))
        tfr_context_end(ctx);
    pthread_mutex_unlock(&tfr_context_lock);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxReset(CUdevice dev)
{
    return cuDevicePrimaryCtxReset_v2(dev);
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned int flags)
{
    CUresult result = enter_after_reset();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_context *ctx = context_of_device(dev);
    if (!ctx)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!flags_known(flags))
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
    *active = tfr_context_alive(ctx);
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *ctx)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!ctx)
        return CUDA_ERROR_INVALID_VALUE;
    const struct tfr_context *now = tfr_thread_current();
    *ctx = now ? tfr_handle_ptr(now->id) : NULL;
    return CUDA_SUCCESS;
}

/* ---- the stack ---- */

static CUresult stack_push(struct tfr_context *ctx)
{
    struct tfr_thread *t = &tfr_thread;
    if (t->ctx && t->depth == t->room) {
        int room = t->room ? 2 * t->room : 8;
        struct tfr_context **grown = realloc(t->below, (size_t)room * sizeof(struct tfr_context *));
        if (!grown)
            return CUDA_ERROR_OUT_OF_MEMORY;
        t->below = grown;
        t->room = room;
        tfr_thread_watch();
    }
    if (t->ctx)
        t->below[t->depth++] = t->ctx;
    t->ctx = ctx;
    return CUDA_SUCCESS;
}

static void stack_pop(void)
{
    struct tfr_thread *t = &tfr_thread;
    t->ctx = t->depth ? t->below[--t->depth] : NULL;
}

/* NULL takes the top away; anything else replaces it. */
CUresult cuCtxSetCurrent(CUcontext ctx)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (tfr_thread.calling) /* cudart makes sure of it before each call */
        return CUDA_SUCCESS;
    struct tfr_context *to = ctx ? tfr_handle_object(TFR_KIND_CTX, ctx) : NULL;
    if (ctx && !to)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (to)
        tfr_thread.ctx = to;
    else
        stack_pop();
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (tfr_thread.calling)
        return CUDA_ERROR_NOT_PERMITTED;
    struct tfr_context *to = tfr_handle_object(TFR_KIND_CTX, ctx);
    return to ? stack_push(to) : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxPopCurrent_v2(CUcontext *ctx)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!tfr_thread.ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (ctx)
        *ctx = tfr_handle_ptr(tfr_thread.ctx->id);
    stack_pop();
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

/* ---- created contexts ---- */

static CUresult create(CUcontext *out, unsigned int flags, CUdevice dev, unsigned int version)
{
    struct tfr_context *ctx;
    CUresult result = enter_after_reset();
    if (result != CUDA_SUCCESS)
        return result;
    if (!context_of_device(dev))
        return CUDA_ERROR_INVALID_DEVICE;
    if (!out || !flags_known(flags))
        return CUDA_ERROR_INVALID_VALUE;
    result = tfr_context_new(dev, flags | CU_CTX_MAP_HOST, version, &ctx);
    if (result == CUDA_SUCCESS)
        result = stack_push(ctx);
    if (result == CUDA_SUCCESS)
        *out = tfr_handle_ptr(ctx->id);
    return result;
}

CUresult cuCtxCreate(CUcontext *ctx, unsigned int flags, CUdevice dev)
{
    return create(ctx, flags, dev, 3010);
}

CUresult cuCtxCreate_v2(CUcontext *ctx, unsigned int flags, CUdevice dev)
{
    return create(ctx, flags, dev, 3020);
}

CUresult cuCtxCreate_v3(CUcontext *ctx, CUexecAffinityParam *affinity, int n, unsigned int flags,
                        CUdevice dev)
{
    return affinity && n ? CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY : create(ctx, flags, dev, 3020);
}

CUresult cuCtxCreate_v4(CUcontext *ctx, CUctxCreateParams *params, unsigned int flags, CUdevice dev)
{
    if (params && (params->numExecAffinityParams || params->cigParams))
        return CUDA_ERROR_NOT_SUPPORTED;
    return create(ctx, flags, dev, 3020);
}

CUresult cuCtxDestroy_v2(CUcontext handle)
{
    if (!tfr_client.snapshot || is_child())
        return CUDA_ERROR_NOT_INITIALIZED;
    wait_outside(handle ? tfr_handle_object(TFR_KIND_CTX, handle) : NULL);
    pthread_mutex_lock(&tfr_context_lock);
    struct tfr_context *ctx = handle ? tfr_handle_object(TFR_KIND_CTX, handle) : NULL;
    CUresult result = !ctx                          ? CUDA_ERROR_INVALID_CONTEXT
                      : tfr_context_is_primary(ctx) ? CUDA_ERROR_INVALID_VALUE
                                                    : CUDA_SUCCESS;
    if (result == CUDA_SUCCESS)
        tfr_context_end(ctx);
    pthread_mutex_unlock(&tfr_context_lock);
    if (result == CUDA_SUCCESS && tfr_thread.ctx == ctx)
        stack_pop();
    return result;
}

CUresult cuCtxDestroy(CUcontext handle)
{
    return cuCtxDestroy_v2(handle);
}

/* Usage counts of old: the last detach destroys. */
CUresult cuCtxAttach(CUcontext *ctx, unsigned int flags)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!ctx || flags)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&tfr_context_lock);
    tfr_thread.ctx->retained++;
    pthread_mutex_unlock(&tfr_context_lock);
    *ctx = tfr_handle_ptr(tfr_thread.ctx->id);
    return CUDA_SUCCESS;
}

CUresult cuCtxDetach(CUcontext handle)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_context *ctx = handle ? tfr_handle_object(TFR_KIND_CTX, handle) : NULL;
    if (!ctx || ctx != tfr_thread.ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (tfr_context_is_primary(ctx))
        return cuDevicePrimaryCtxRelease_v2(ctx->device);
    pthread_mutex_lock(&tfr_context_lock);
    bool last = --ctx->retained == 0;
    pthread_mutex_unlock(&tfr_context_lock);
    return last ? cuCtxDestroy_v2(handle) : CUDA_SUCCESS;
}

/* ---- what a context says of itself ---- */

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

CUresult cuCtxSetFlags(unsigned int flags)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!flags_known(flags))
        return CUDA_ERROR_INVALID_VALUE;
    tfr_thread.ctx->flags = flags;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetSharedMemConfig(CUsharedconfig *config)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!config)
        return CUDA_ERROR_INVALID_VALUE;
    *config = CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetSharedMemConfig(CUsharedconfig config)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    return (unsigned int)config > CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE
               ? CUDA_ERROR_INVALID_VALUE
               : CUDA_SUCCESS;
}

CUresult cuCtxGetExecAffinity(CUexecAffinityParam *affinity, CUexecAffinityType type)
{
    (void)affinity;
    (void)type;
    CUresult result = tfr_enter();
    return result != CUDA_SUCCESS ? result : CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
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
    *id = ctx->serial;
    return CUDA_SUCCESS;
}

/* cudart asks before it resets a device, also one with a sticky error: that is no reason to refuse.
 */
CUresult cuCtxGetApiVersion(CUcontext handle, unsigned int *version)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    const struct tfr_context *ctx = context_of(handle);
    if (!ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = ctx->api_version;
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
    if (!ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    return tfr_context_alive(ctx) ? tfr_context_wait(ctx) : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}
