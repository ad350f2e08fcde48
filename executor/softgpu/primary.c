/* Primary contexts: one per device, made at the first question for it, alive while it is retained.
 * Its handle stays the same for ever; each life of it is another context (another id). */
#include "executor/softgpu/soft.h"

/* Guards soft_dev.primary, and .retained, .ending, .flags of these contexts. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;

/* Under lock. */
static struct soft_ctx *primary(struct soft_dev *dev)
{
    if (!dev->primary)
        dev->primary = soft_ctx_new(dev, 0, 3020, true);
    return dev->primary;
}

CUresult soft_primary(struct soft_dev *dev, struct soft_ctx **ctx_out)
{
    pthread_mutex_lock(&lock);
    *ctx_out = primary(dev);
    pthread_mutex_unlock(&lock);
    return *ctx_out ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *handle, CUdevice device)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!handle)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    struct soft_ctx *ctx = primary(dev);
    while (ctx && ctx->ending)
        pthread_cond_wait(&ended, &lock);
    bool ok = ctx && (ctx->retained > 0 || soft_ctx_start(ctx));
    if (ok) {
        ctx->retained++;
        *handle = (CUcontext)ctx->handle;
    }
    pthread_mutex_unlock(&lock);
    return ok ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* The last release, or a reset whatever the count. */
static CUresult primary_end(CUdevice device, bool reset)
{
    struct soft_dev *dev;
    bool last = false;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    pthread_mutex_lock(&lock);
    struct soft_ctx *ctx = dev->primary;
    if (!ctx || ctx->retained == 0) {
        result = reset ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
    } else {
        ctx->retained = reset ? 0 : ctx->retained - 1;
        last = ctx->ending = ctx->retained == 0;
    }
    pthread_mutex_unlock(&lock);
    if (!last)
        return result;
    soft_ctx_clear(
        ctx); /* without the lock: it calls destructors of others, which may ask us things */
    pthread_mutex_lock(&lock);
    ctx->ending = false;
    pthread_cond_broadcast(&ended);
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    return primary_end(dev, false);
}

CUresult cuDevicePrimaryCtxRelease(CUdevice dev)
{
    return primary_end(dev, false);
}

CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
    return primary_end(dev, true);
}

CUresult cuDevicePrimaryCtxReset(CUdevice dev)
{
    return primary_end(dev, true);
}

CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags)
{
    struct soft_dev *dev;
    struct soft_ctx *ctx;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if ((flags & ~(unsigned int)CU_CTX_FLAGS_MASK) ||
        (flags & CU_CTX_SCHED_MASK) > CU_CTX_SCHED_BLOCKING_SYNC)
        return CUDA_ERROR_INVALID_VALUE;
    result = soft_primary(dev, &ctx);
    if (result)
        return result;
    pthread_mutex_lock(&lock);
    ctx->flags = flags;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned int flags)
{
    return cuDevicePrimaryCtxSetFlags_v2(dev, flags);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!flags || !active)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    struct soft_ctx *ctx = dev->primary;
    *flags = ctx ? ctx->flags : 0;
    *active = ctx && ctx->retained > 0;
    pthread_mutex_unlock(&lock);
    return CUDA_SUCCESS;
}
