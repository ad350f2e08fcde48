/* Stream-ordered allocation and memory pools.  An allocation is usable from the call on, which is
 * earlier than promised; a free takes effect when its stream arrives.  A pool holds no memory
 * back, because a fresh allocation costs the software GPU next to nothing; what it says to have
 * reserved is what a driver would that grows by 32 MiB and shrinks at synchronisations. */
#include "executor/softgpu/soft.h"

#include <stdlib.h>

enum { GROW_SHIFT = 25 };

struct pool {
    uint64_t handle;
    struct soft_dev *dev;
    bool is_default, destroyed;
    uint64_t attribute[CU_MEMPOOL_ATTR_USED_MEM_HIGH + 1];
    uint64_t used, used_high, live;
    uint64_t reserved, reserved_high;
    uint64_t seen; /* synchronisations that `reserved` has been told of */
};

static _Atomic uint64_t sync_n;

static pthread_mutex_t pool_lock =
    PTHREAD_MUTEX_INITIALIZER; /* all of this; before devmem's lock */

static struct pool *pool_new(struct soft_dev *dev, bool is_default)
{
    struct pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return NULL;
    pool->dev = dev;
    pool->is_default = is_default;
    pool->attribute[CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES] = 1;
    pool->attribute[CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC] = 1;
    pool->attribute[CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES] = 1;
    pool->handle = soft_handle_add(SOFT_POOL, pool);
    return pool;
}

static struct pool *pool_of(CUmemoryPool handle)
{
    return soft_handle_get((uint64_t)handle, SOFT_POOL);
}

uint64_t soft_pool_handle(uint64_t pool)
{
    return pool ? ((struct pool *)pool)->handle : 0;
}

/* Under pool_lock. */
static void pool_settle(struct pool *pool)
{
    if (pool->destroyed && pool->live == 0)
        free(pool);
}

/* Under pool_lock. */
static CUresult ensure(struct soft_dev *dev)
{
    if (dev->default_pool)
        return CUDA_SUCCESS;
    struct pool *pool = pool_new(dev, true);
    if (!pool)
        return CUDA_ERROR_OUT_OF_MEMORY;
    dev->default_pool = dev->pool = (CUmemoryPool)pool->handle;
    return CUDA_SUCCESS;
}

void soft_pool_synced(void)
{
    atomic_fetch_add_explicit(&sync_n, 1, memory_order_relaxed);
}

static uint64_t grown(uint64_t len)
{
    return (len + (1u << GROW_SHIFT) - 1) >> GROW_SHIFT << GROW_SHIFT;
}

/* Gives back what is reserved beyond `keep` and not used. */
static void shrink(struct pool *pool, uint64_t keep)
{
    uint64_t most = keep > grown(pool->used) ? keep : grown(pool->used);
    if (pool->reserved > most)
        pool->reserved = most;
}

/* What the synchronisations since the last look have given back.  Under pool_lock, and before
 * `used` changes: they did not see that. */
static void catch_up(struct pool *pool)
{
    uint64_t now = atomic_load_explicit(&sync_n, memory_order_relaxed);
    if (pool->seen != now)
        shrink(pool, pool->attribute[CU_MEMPOOL_ATTR_RELEASE_THRESHOLD]);
    pool->seen = now;
}

static void take(struct pool *pool, uint64_t len)
{
    catch_up(pool);
    pool->live++;
    pool->used += len;
    if (pool->reserved < grown(pool->used))
        pool->reserved = grown(pool->used);
    if (pool->used > pool->used_high)
        pool->used_high = pool->used;
    if (pool->reserved > pool->reserved_high)
        pool->reserved_high = pool->reserved;
}

static CUresult pool_alloc(struct soft_ctx *ctx, struct pool *pool, size_t len, CUdeviceptr *out)
{
    pthread_mutex_lock(&pool_lock);
    CUresult result = soft_heap_alloc(ctx->heap, len, 0, SOFT_MEM_ASYNC, (uint64_t)pool, out);
    if (result == CUDA_SUCCESS)
        take(pool, len);
    pthread_mutex_unlock(&pool_lock);
    return result;
}

void soft_pool_free(struct soft_ctx *ctx, uint64_t at)
{
    struct soft_range range;
    pthread_mutex_lock(&pool_lock);
    if (soft_mem_find(at, &range)) {
        struct pool *pool = (struct pool *)range.pool;
        soft_heap_free(at);
        if (pool) {
            catch_up(pool);
            pool->used -= range.len;
            pool->live--;
            pool_settle(pool);
        }
    }
    pthread_mutex_unlock(&pool_lock);
    if (ctx)
        atomic_fetch_sub_explicit(&ctx->frees_pending, 1, memory_order_release);
}

static CUresult alloc(CUdeviceptr *out, size_t len, CUmemoryPool pool_handle, bool given,
                      CUstream stream_handle)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(stream_handle, &stream);
    if (result)
        return result;
    struct soft_ctx *ctx = stream->ctx;
    if (!out || !len)
        return CUDA_ERROR_INVALID_VALUE;
    if (!given) {
        pthread_mutex_lock(&pool_lock);
        result = ensure(ctx->dev);
        pool_handle = ctx->dev->pool;
        pthread_mutex_unlock(&pool_lock);
    }
    struct pool *pool = pool_of(pool_handle);
    if (result || !pool)
        return result ? result : CUDA_ERROR_INVALID_VALUE;
    result = pool_alloc(ctx, pool, len, out);
    if (result == CUDA_ERROR_OUT_OF_MEMORY &&
        atomic_load_explicit(&ctx->frees_pending, memory_order_acquire)) {
        result = soft_ctx_wait(ctx);
        if (result == CUDA_SUCCESS)
            result = pool_alloc(ctx, pool, len, out);
    }
    return result;
}

CUresult cuMemAllocAsync(CUdeviceptr *out, size_t len, CUstream stream)
{
    return alloc(out, len, NULL, false, stream);
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr *out, size_t len, CUmemoryPool pool, CUstream stream)
{
    return alloc(out, len, pool, true, stream);
}

/* Memory of cuMemAlloc may be freed this way too. */
CUresult cuMemFreeAsync(CUdeviceptr at, CUstream handle)
{
    struct soft_stream *stream;
    struct soft_range range;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (!at || !soft_mem_find(at, &range) || range.base != at ||
        (range.flags & (SOFT_MEM_VMM | SOFT_MEM_MODULE)))
        return CUDA_ERROR_INVALID_VALUE;
    result = soft_mem_mark(at, SOFT_MEM_FREEING);
    if (result)
        return result;
    struct soft_op op = {.kind = SOFT_OP_FREE, .free = {at}};
    atomic_fetch_add_explicit(&stream->ctx->frees_pending, 1, memory_order_relaxed);
    return soft_submit(stream, &op, NULL, 0, true, NULL);
}

/* The context's memory goes with it, pools' allocations included. */
void soft_pool_forget(struct soft_ctx *ctx)
{
    uint64_t at;
    while (soft_heap_find(ctx->heap, SOFT_MEM_ASYNC, &at))
        soft_pool_free(NULL, at);
    atomic_store_explicit(&ctx->frees_pending, 0, memory_order_relaxed);
}

/* ---- pools by name ---- */

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *out, CUdevice device)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&pool_lock);
    result = ensure(dev);
    *out = dev->default_pool;
    pthread_mutex_unlock(&pool_lock);
    return result;
}

CUresult cuDeviceGetMemPool(CUmemoryPool *out, CUdevice device)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&pool_lock);
    result = ensure(dev);
    *out = dev->pool;
    pthread_mutex_unlock(&pool_lock);
    return result;
}

CUresult cuDeviceSetMemPool(CUdevice device, CUmemoryPool handle)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    struct pool *pool = pool_of(handle);
    if (!pool || pool->dev != dev)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&pool_lock);
    result = ensure(dev);
    dev->pool = handle;
    pthread_mutex_unlock(&pool_lock);
    return result;
}

CUresult cuMemPoolCreate(CUmemoryPool *out, const CUmemPoolProps *props)
{
    struct soft_dev *dev;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!out || !props || props->allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
        props->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
        soft_dev_get(props->location.id, &dev))
        return CUDA_ERROR_INVALID_VALUE;
    if (props->handleTypes != CU_MEM_HANDLE_TYPE_NONE)
        return CUDA_ERROR_NOT_SUPPORTED;
    struct pool *pool = pool_new(dev, false);
    if (!pool)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = (CUmemoryPool)pool->handle;
    return CUDA_SUCCESS;
}

CUresult cuMemPoolDestroy(CUmemoryPool handle)
{
    CUresult result = CUDA_SUCCESS;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&pool_lock);
    struct pool *pool = pool_of(handle);
    if (!pool || pool->is_default) {
        result = CUDA_ERROR_INVALID_VALUE;
    } else {
        if (pool->dev->pool == handle)
            pool->dev->pool = pool->dev->default_pool;
        soft_handle_del(pool->handle);
        pool->destroyed = true;
        pool_settle(pool);
    }
    pthread_mutex_unlock(&pool_lock);
    return result;
}

static bool is_wide(CUmemPool_attribute attribute)
{
    return attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD ||
           attribute >= CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
}

static bool is_known(CUmemPool_attribute attribute)
{
    return attribute >= CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES &&
           attribute <= CU_MEMPOOL_ATTR_USED_MEM_HIGH;
}

CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void *value)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    struct pool *pool = pool_of(handle);
    if (!pool || !value || !is_known(attribute))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&pool_lock);
    catch_up(pool);
    uint64_t found = pool->attribute[attribute];
    if (attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
        found = pool->reserved;
    else if (attribute == CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
        found = pool->used;
    else if (attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)
        found = pool->reserved_high;
    else if (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH)
        found = pool->used_high;
    pthread_mutex_unlock(&pool_lock);
    if (is_wide(attribute))
        *(cuuint64_t *)value = found;
    else
        *(int *)value = (int)found;
    return CUDA_SUCCESS;
}

/* A high-water mark can only be reset, by writing zero. */
static CUresult set(struct pool *pool, CUmemPool_attribute attribute, const void *value)
{
    uint64_t wanted = is_wide(attribute) ? *(const cuuint64_t *)value : *(const int *)value != 0;
    switch ((int)attribute) {
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
        return CUDA_ERROR_INVALID_VALUE;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        if (wanted)
            return CUDA_ERROR_INVALID_VALUE;
        pool->reserved_high = pool->reserved;
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        if (wanted)
            return CUDA_ERROR_INVALID_VALUE;
        pool->used_high = pool->used;
        return CUDA_SUCCESS;
    default:
        pool->attribute[attribute] = wanted;
        return CUDA_SUCCESS;
    }
}

CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void *value)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    struct pool *pool = pool_of(handle);
    if (!pool || !value || !is_known(attribute))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&pool_lock);
    catch_up(pool);
    CUresult result = set(pool, attribute, value);
    pthread_mutex_unlock(&pool_lock);
    return result;
}

CUresult cuMemPoolTrimTo(CUmemoryPool handle, size_t keep)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    struct pool *pool = pool_of(handle);
    if (!pool)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&pool_lock);
    catch_up(pool);
    shrink(pool, keep);
    pthread_mutex_unlock(&pool_lock);
    return CUDA_SUCCESS;
}

CUresult cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc *map, size_t n)
{
    struct soft_dev *dev;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!pool_of(handle) || (n && !map))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < n; i++)
        if (map[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
            soft_dev_get(map[i].location.id, &dev))
            return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

CUresult cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool handle, CUmemLocation *location)
{
    struct soft_dev *dev;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!flags || !location || !pool_of(handle) || location->type != CU_MEM_LOCATION_TYPE_DEVICE ||
        soft_dev_get(location->id, &dev))
        return CUDA_ERROR_INVALID_VALUE;
    *flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    return CUDA_SUCCESS;
}
