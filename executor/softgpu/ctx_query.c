/* What a context answers about itself: device, flags, limits, peers.  Also its synchronisation. */
#include "executor/softgpu/soft.h"

CUresult cuCtxGetDevice(CUdevice *dev)
{
    struct soft_ctx *ctx = soft_current();
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!dev)
        return CUDA_ERROR_INVALID_VALUE;
    *dev = ctx->dev->at;
    return CUDA_SUCCESS;
}

/* A named context, or the current one for NULL. */
static CUresult named(CUcontext handle, struct soft_ctx **ctx_out)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    *ctx_out = handle ? soft_handle_get((uint64_t)handle, SOFT_CTX) : soft_current();
    return *ctx_out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxGetDevice_v2(CUdevice *dev, CUcontext handle)
{
    struct soft_ctx *ctx;
    CUresult result = named(handle, &ctx);
    if (result)
        return result;
    if (!dev)
        return CUDA_ERROR_INVALID_VALUE;
    *dev = ctx->dev->at;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetApiVersion(CUcontext handle, unsigned int *version)
{
    struct soft_ctx *ctx;
    CUresult result = named(handle, &ctx);
    if (result)
        return result;
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = ctx->api_version;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetId(CUcontext handle, unsigned long long *id)
{
    struct soft_ctx *ctx;
    CUresult result = named(handle, &ctx);
    if (result)
        return result;
    if (!id)
        return CUDA_ERROR_INVALID_VALUE;
    *id = ctx->id;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetFlags(unsigned int *flags)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = ctx->flags;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetFlags(unsigned int flags)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if ((flags & ~(unsigned int)CU_CTX_FLAGS_MASK) ||
        (flags & CU_CTX_SCHED_MASK) > CU_CTX_SCHED_BLOCKING_SYNC)
        return CUDA_ERROR_INVALID_VALUE;
    ctx->flags = flags;
    return CUDA_SUCCESS;
}

CUresult cuCtxSynchronize(void)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result == CUDA_SUCCESS)
        result = soft_ctx_wait(ctx);
    vm_text_flush();
    return result;
}

CUresult cuCtxSynchronize_v2(CUcontext handle)
{
    struct soft_ctx *ctx;
    CUresult result = named(handle, &ctx);
    if (result == CUDA_SUCCESS)
        result = soft_ctx_usable(ctx);
    if (result == CUDA_SUCCESS)
        result = soft_ctx_wait(ctx);
    vm_text_flush();
    return result;
}

CUresult cuCtxGetLimit(size_t *value, CUlimit limit)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    if ((unsigned int)limit >= CU_LIMIT_SHMEM_SIZE)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    pthread_mutex_lock(&ctx->lock);
    *value = ctx->limit[limit];
    pthread_mutex_unlock(&ctx->lock);
    return CUDA_SUCCESS;
}

CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if ((unsigned int)limit >= CU_LIMIT_SHMEM_SIZE)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    if (limit == CU_LIMIT_STACK_SIZE && value > 512 << 10)
        return CUDA_ERROR_INVALID_VALUE;
    if (limit == CU_LIMIT_PERSISTING_L2_CACHE_SIZE)
        value = 0;
    if (limit == CU_LIMIT_STACK_SIZE)
        value = (value + 15) & ~(size_t)15;
    pthread_mutex_lock(&ctx->lock);
    ctx->limit[limit] = value;
    pthread_mutex_unlock(&ctx->lock);
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCacheConfig(CUfunc_cache *config)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!config)
        return CUDA_ERROR_INVALID_VALUE;
    *config = ctx->cache;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCacheConfig(CUfunc_cache config)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if ((unsigned int)config > CU_FUNC_CACHE_PREFER_EQUAL)
        return CUDA_ERROR_INVALID_VALUE;
    ctx->cache = config;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetSharedMemConfig(CUsharedconfig *config)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!config)
        return CUDA_ERROR_INVALID_VALUE;
    *config = CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE;
    return CUDA_SUCCESS;
}

CUresult cuCtxSetSharedMemConfig(CUsharedconfig config)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    return (unsigned int)config > CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE
               ? CUDA_ERROR_INVALID_VALUE
               : CUDA_SUCCESS;
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (least)
        *least = 0;
    if (greatest)
        *greatest = SOFT_PRIORITY_HIGH;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetExecAffinity(CUexecAffinityParam *affinity, CUexecAffinityType type)
{
    (void)affinity;
    (void)type;
    return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
}

CUresult cuCtxResetPersistingL2Cache(void)
{
    struct soft_ctx *ctx;
    return soft_enter(&ctx);
}

static CUresult peer_change(CUcontext handle, bool on)
{
    struct soft_ctx *ctx, *peer = soft_handle_get((uint64_t)handle, SOFT_CTX);
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!peer)
        return CUDA_ERROR_INVALID_CONTEXT;
    uint32_t bit = 1u << peer->dev->at;
    pthread_mutex_lock(&ctx->lock);
    if (on && peer->dev == ctx->dev)
        result = CUDA_ERROR_INVALID_DEVICE;
    else if (!!(ctx->peers & bit) == on)
        result = on ? CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED : CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    else
        ctx->peers ^= bit;
    pthread_mutex_unlock(&ctx->lock);
    return result;
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags)
{
    return flags ? CUDA_ERROR_INVALID_VALUE : peer_change(peer, true);
}

CUresult cuCtxDisablePeerAccess(CUcontext peer)
{
    return peer_change(peer, false);
}

CUresult cuProfilerStart(void)
{
    struct soft_ctx *ctx;
    return soft_enter(&ctx);
}

CUresult cuProfilerStop(void)
{
    struct soft_ctx *ctx;
    return soft_enter(&ctx);
}
