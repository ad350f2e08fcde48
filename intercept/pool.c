/* Memory pools and allocation in stream order, over the leases of lease.h: no record of their own.
 *
 * A block that is freed in a stream is the pool's at once: the same stream may have it again with
 * nothing in between, another one when the stream has passed the free.  Surprising: what a pool
 * keeps is only hinted at by its release threshold; memory that somebody else needs is given up
 * earlier.  The lock of the device's lease guards its pools. */
#define TFR_LOG_PART "intercept"
#include <stdlib.h>
#include <string.h>

#include "intercept/lease.h"
#include "intercept/memory.h"

enum { CACHE_BINS = 64, CACHE_SCAN = 64, CACHE_MIN = 64 << 20 };

struct tfr_pool {
    struct tfr_pool *next; /* in the lease */
    struct tfr_lease *lease;
    uint64_t id;
    bool destroyed;
    uint32_t live; /* allocations not freed yet */
    uint64_t used, used_high;
    uint64_t cached, reserved_high;
    uint64_t threshold;
    int reuse[3]; /* CU_MEMPOOL_ATTR_REUSE_*, as set: kept and told */
    struct tfr_block *cache[CACHE_BINS];
};

static struct tfr_pool *pool_of(CUmemoryPool handle)
{
    return handle ? tfr_handle_object(TFR_KIND_POOL, handle) : NULL;
}

CUmemoryPool tfr_pool_handle(const struct tfr_block *block)
{
    return block && block->pool ? tfr_handle_ptr(block->pool->id) : NULL;
}

/* ---- life; the lock is held ---- */

static CUresult pool_new(struct tfr_lease *lease, struct tfr_pool **pool_out)
{
    struct tfr_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = tfr_handle_new(TFR_KIND_POOL, &pool->id);
    if (result != CUDA_SUCCESS) {
        free(pool);
        return result;
    }
    pool->lease = lease;
    for (int i = 0; i < 3; i++)
        pool->reuse[i] = 1;
    pool->next = lease->pools;
    lease->pools = pool;
    tfr_handle_bind(pool->id, pool);
    *pool_out = pool;
    return CUDA_SUCCESS;
}

static CUresult pool_ensure(struct tfr_lease *lease)
{
    if (lease->pool_default)
        return CUDA_SUCCESS;
    CUresult result = pool_new(lease, &lease->pool_default);
    lease->pool_current = lease->pool_default;
    return result;
}

static void pool_unlink(struct tfr_pool *pool)
{
    struct tfr_pool **at = &pool->lease->pools;
    while (*at && *at != pool)
        at = &(*at)->next;
    if (!*at)
        return; /* the session has ended meanwhile, and it with it */
    *at = pool->next;
    tfr_handle_retire(pool);
}

static void pool_count(struct tfr_pool *pool)
{
    if (pool->used > pool->used_high)
        pool->used_high = pool->used;
    if (pool->used + pool->cached > pool->reserved_high)
        pool->reserved_high = pool->used + pool->cached;
}

void tfr_pool_leave(struct tfr_block *block)
{
    struct tfr_pool *pool = block->pool;
    block->pool = NULL;
    pool->used -= block->len;
    pool->live--;
    if (pool->destroyed && !pool->live)
        pool_unlink(pool);
}

/* ---- what a pool keeps ---- */

static struct tfr_block **cache_bin(struct tfr_pool *pool, uint64_t len)
{
    return &pool->cache[(len / TFR_LEASE_ALIGN * 0x9e3779b97f4a7c15u) >> 58];
}

static struct tfr_block *cache_take(struct tfr_pool *pool, uint64_t len, uint64_t stream)
{
    int scan = CACHE_SCAN;
    for (struct tfr_block *b = *cache_bin(pool, len); b && scan--; b = b->next) {
        if (b->len != len || (b->stream != stream && !tfr_ticket_passed(b->ticket)))
            continue;
        tfr_block_unlist(b);
        tfr_ticket_drop(pool->lease, b->ticket);
        b->ticket = NULL;
        b->state = TFR_BLOCK_USED;
        pool->cached -= b->len;
        return b;
    }
    return NULL;
}

static void cache_drop(struct tfr_pool *pool, struct tfr_block *block)
{
    tfr_block_unlist(block);
    pool->cached -= block->len;
    block->pool = NULL;
    tfr_quarantine_add(pool->lease, block);
}

/* Down to `keep` bytes in all; what its stream has not passed stays, unless all must go. */
static void cache_shrink(struct tfr_pool *pool, uint64_t keep, bool all)
{
    for (int i = 0; i < CACHE_BINS; i++) {
        for (struct tfr_block *b = pool->cache[i], *next; b; b = next) {
            next = b->next;
            if (all || (pool->used + pool->cached > keep && tfr_ticket_passed(b->ticket)))
                cache_drop(pool, b);
        }
    }
}

void tfr_pool_empty(struct tfr_lease *lease, bool all)
{
    for (struct tfr_pool *pool = lease->pools; pool; pool = pool->next)
        if (pool->cached)
            cache_shrink(pool, pool->threshold, all);
    if (!all)
        tfr_quarantine_reap(lease, true);
}

void tfr_pool_forget_all(struct tfr_lease *lease)
{
    while (lease->pools) {
        struct tfr_pool *pool = lease->pools;
        lease->pools = pool->next;
        if (!pool->destroyed)
            tfr_handle_drop(TFR_KIND_POOL, pool->id);
        pool->destroyed = true;
        tfr_handle_retire(pool);
    }
    lease->pool_default = lease->pool_current = NULL;
}

/* ---- allocation in stream order ---- */

/* A block for the pool: one that it has, one of the lease, or one that the driver places.  The lock
 * is held. */
static CUresult block_take(struct tfr_pool *pool, uint64_t len, uint64_t stream,
                           struct tfr_block **block_out)
{
    struct tfr_lease *lease = pool->lease;
    uint64_t rounded = (len + TFR_LEASE_ALIGN - 1) & ~(uint64_t)(TFR_LEASE_ALIGN - 1), addr = 0;
    tfr_window_open(lease);
    *block_out = rounded < len ? NULL : cache_take(pool, rounded, stream);
    if (*block_out) {
        TFR_COUNT(pool_reuses, 1);
        return CUDA_SUCCESS;
    }
    if (lease->window == TFR_WINDOW_OPEN)
        return tfr_memory_take(lease, len, block_out);
    CUresult result = tfr_memory_ask_alloc(len, &addr);
    if (result != CUDA_SUCCESS)
        return result;
    *block_out = tfr_block_loose(lease, addr, rounded);
    if (*block_out)
        return CUDA_SUCCESS;
    tfr_memory_ask(TFR_OP_free, addr);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult pool_take(struct tfr_lease *lease, struct tfr_pool *pool, uint64_t len,
                          uint64_t stream, struct tfr_block **block_out)
{
    CUresult result = pool ? CUDA_SUCCESS : pool_ensure(lease);
    if (pool && pool->destroyed)
        result = CUDA_ERROR_INVALID_VALUE;
    if (result != CUDA_SUCCESS)
        return result;
    if (!pool)
        pool = lease->pool_current;
    pool->live++; /* the lock may be let go meanwhile */
    result = block_take(pool, len, stream, block_out);
    if (result != CUDA_SUCCESS) {
        if (!--pool->live && pool->destroyed)
            pool_unlink(pool);
        return result;
    }
    (*block_out)->pool = pool;
    pool->used += (*block_out)->len;
    pool_count(pool);
    return CUDA_SUCCESS;
}

static CUresult alloc_async(CUdeviceptr *addr_out, size_t len, struct tfr_pool *pool,
                            CUstream handle)
{
    struct tfr_stream *stream = tfr_stream_of(handle);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!addr_out || !len)
        return CUDA_ERROR_INVALID_VALUE;
    struct tfr_context *ctx = stream->ctx;
    struct tfr_lease *lease = pool ? pool->lease : tfr_lease_of(ctx->device);
    struct tfr_block *block = NULL;
    CUresult result = tfr_client_look();
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&lease->lock);
    result = pool_take(lease, pool, len, stream->id, &block);
    pthread_mutex_unlock(&lease->lock);
    if (result != CUDA_SUCCESS)
        return result;
    uint64_t addr = block->base;
    result = tfr_memory_known(ctx, addr, block, len);
    if (result == CUDA_SUCCESS) {
        *addr_out = addr;
    } else if (block->chunk) {
        tfr_memory_give(block, NULL, 0);
    } else {
        struct tfr_range range = {.base = addr, .block = block, .device = lease->device};
        tfr_memory_ask_free(&range, CUDA_SUCCESS);
    }
    return result;
}

CUresult cuMemAllocAsync(CUdeviceptr *addr_out, size_t len, CUstream stream)
{
    CUresult result = tfr_enter();
    return result == CUDA_SUCCESS ? alloc_async(addr_out, len, NULL, stream) : result;
}

CUresult cuMemAllocFromPoolAsync(CUdeviceptr *addr_out, size_t len, CUmemoryPool handle,
                                 CUstream stream)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_pool *pool = pool_of(handle);
    return pool ? alloc_async(addr_out, len, pool, stream) : CUDA_ERROR_INVALID_VALUE;
}

/* Back to its pool, for the stream at once and for others after the point. */
static bool cache_add(struct tfr_block *block, const struct tfr_stream *stream,
                      const struct tfr_point *point)
{
    struct tfr_pool *pool = block->pool;
    if (!pool || pool->destroyed)
        return false;
    block->ticket = tfr_ticket_take(pool->lease, point, 1);
    if (!block->ticket)
        return false;
    tfr_pool_leave(block);
    block->stream = stream->id;
    block->state = TFR_BLOCK_CACHED;
    block->pool = pool;
    tfr_block_list(cache_bin(pool, block->len), block);
    pool->cached += block->len;
    pool_count(pool);
    uint64_t most = pool->used > pool->threshold ? pool->used : pool->threshold;
    if (pool->cached > (most > CACHE_MIN ? most : CACHE_MIN))
        cache_shrink(pool, 0, true);
    return true;
}

CUresult cuMemFreeAsync(CUdeviceptr addr, CUstream handle)
{
    struct tfr_range range;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *stream = tfr_stream_of(handle);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!addr || !tfr_range_take(addr, 1u << TFR_RANGE_DEVICE, &range))
        return CUDA_ERROR_INVALID_VALUE;
    if (!range.block || !range.block->chunk)
        return tfr_memory_ask_free(&range, tfr_stream_wait(stream));
    struct tfr_point point = {stream->word, tfr_stream_target(stream)};
    struct tfr_lease *lease = tfr_lease_of(range.block->device);
    pthread_mutex_lock(&lease->lock);
    bool kept = cache_add(range.block, stream, &point);
    pthread_mutex_unlock(&lease->lock);
    if (!kept)
        tfr_memory_give(range.block, &point, 1);
    return CUDA_SUCCESS;
}

/* ---- pools by name ---- */

static struct tfr_lease *lease_at(CUdevice dev)
{
    const struct tfr_snapshot *snapshot = tfr_client.snapshot;
    return snapshot && dev >= 0 && dev < (int)snapshot->device_n ? tfr_lease_of(dev) : NULL;
}

enum which { DEFAULT, CURRENT };

static CUresult pool_get(CUmemoryPool *pool_out, CUdevice dev, enum which which)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_lease *lease = lease_at(dev);
    if (!lease)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!pool_out)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lease->lock);
    result = pool_ensure(lease);
    if (result == CUDA_SUCCESS) {
        const struct tfr_pool *pool = which == DEFAULT ? lease->pool_default : lease->pool_current;
        *pool_out = tfr_handle_ptr(pool->id);
    }
    pthread_mutex_unlock(&lease->lock);
    return result;
}

CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool_out, CUdevice dev)
{
    return pool_get(pool_out, dev, DEFAULT);
}

CUresult cuDeviceGetMemPool(CUmemoryPool *pool_out, CUdevice dev)
{
    return pool_get(pool_out, dev, CURRENT);
}

CUresult cuDeviceSetMemPool(CUdevice dev, CUmemoryPool handle)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_lease *lease = lease_at(dev);
    struct tfr_pool *pool = pool_of(handle);
    if (!lease)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!pool || pool->lease != lease)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lease->lock);
    result = pool->destroyed ? CUDA_ERROR_INVALID_VALUE : pool_ensure(lease);
    if (result == CUDA_SUCCESS)
        lease->pool_current = pool;
    pthread_mutex_unlock(&lease->lock);
    return result;
}

/* The names of CUDA 13: a location and a kind of memory.  Ours are pinned memory of devices. */
static bool is_device_memory(const CUmemLocation *location, CUmemAllocationType type)
{
    return location && location->type == CU_MEM_LOCATION_TYPE_DEVICE &&
           type == CU_MEM_ALLOCATION_TYPE_PINNED;
}

CUresult cuMemGetDefaultMemPool(CUmemoryPool *pool_out, CUmemLocation *location,
                                CUmemAllocationType type)
{
    return is_device_memory(location, type) ? pool_get(pool_out, location->id, DEFAULT)
                                            : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemGetMemPool(CUmemoryPool *pool_out, CUmemLocation *location, CUmemAllocationType type)
{
    return is_device_memory(location, type) ? pool_get(pool_out, location->id, CURRENT)
                                            : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool)
{
    return is_device_memory(location, type) ? cuDeviceSetMemPool(location->id, pool)
                                            : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemPoolCreate(CUmemoryPool *pool_out, const CUmemPoolProps *props)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    if (!pool_out || !props || !is_device_memory(&props->location, props->allocType))
        return CUDA_ERROR_INVALID_VALUE;
    struct tfr_lease *lease = lease_at(props->location.id);
    if (!lease)
        return CUDA_ERROR_INVALID_VALUE;
    if (props->handleTypes != CU_MEM_HANDLE_TYPE_NONE)
        return CUDA_ERROR_NOT_SUPPORTED;
    struct tfr_pool *pool;
    pthread_mutex_lock(&lease->lock);
    result = pool_ensure(lease);
    if (result == CUDA_SUCCESS)
        result = pool_new(lease, &pool);
    pthread_mutex_unlock(&lease->lock);
    if (result == CUDA_SUCCESS)
        *pool_out = tfr_handle_ptr(pool->id);
    return result;
}

/* A pool and its lease, locked; or NULL: result_out says why. */
static struct tfr_pool *pool_enter(CUmemoryPool handle, CUresult *result_out)
{
    *result_out = tfr_enter_noctx();
    struct tfr_pool *pool = *result_out == CUDA_SUCCESS ? pool_of(handle) : NULL;
    if (pool)
        pthread_mutex_lock(&pool->lease->lock);
    if (pool && pool->destroyed) { /* by another thread, just before */
        pthread_mutex_unlock(&pool->lease->lock);
        pool = NULL;
    }
    if (!pool && *result_out == CUDA_SUCCESS)
        *result_out = CUDA_ERROR_INVALID_VALUE;
    return pool;
}

/* Its allocations live on until they are freed. */
CUresult cuMemPoolDestroy(CUmemoryPool handle)
{
    CUresult result;
    struct tfr_pool *pool = pool_enter(handle, &result);
    if (!pool)
        return result;
    struct tfr_lease *lease = pool->lease;
    if (pool == lease->pool_default) {
        result = CUDA_ERROR_INVALID_VALUE;
    } else {
        if (lease->pool_current == pool)
            lease->pool_current = lease->pool_default;
        cache_shrink(pool, 0, true);
        tfr_handle_drop(TFR_KIND_POOL, pool->id);
        pool->destroyed = true;
        if (!pool->live)
            pool_unlink(pool);
    }
    pthread_mutex_unlock(&lease->lock);
    return result;
}

CUresult cuMemPoolTrimTo(CUmemoryPool handle, size_t keep)
{
    CUresult result;
    struct tfr_pool *pool = pool_enter(handle, &result);
    if (!pool)
        return result;
    struct tfr_lease *lease = pool->lease;
    cache_shrink(pool, keep, false);
    tfr_quarantine_reap(lease, true);
    tfr_lease_shrink(lease, true);
    pthread_mutex_unlock(&lease->lock);
    return CUDA_SUCCESS;
}

/* ---- attributes ---- */

/* The 64-bit word behind an attribute that has one. */
static uint64_t *wide(struct tfr_pool *pool, CUmemPool_attribute attribute, uint64_t *reserved)
{
    switch ((int)attribute) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        return &pool->threshold;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
        *reserved = pool->used + pool->cached;
        return reserved;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        return &pool->reserved_high;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
        return &pool->used;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        return &pool->used_high;
    }
    return NULL;
}

static int *flag(struct tfr_pool *pool, CUmemPool_attribute attribute)
{
    switch ((int)attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
        return &pool->reuse[0];
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
        return &pool->reuse[1];
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        return &pool->reuse[2];
    }
    return NULL;
}

CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void *value)
{
    CUresult result;
    uint64_t reserved;
    struct tfr_pool *pool = pool_enter(handle, &result);
    if (!pool)
        return result;
    cache_shrink(pool, pool->threshold, false);
    const uint64_t *word = wide(pool, attribute, &reserved);
    const int *set = flag(pool, attribute);
    if (!value || (!word && !set))
        result = CUDA_ERROR_INVALID_VALUE;
    else if (word)
        *(cuuint64_t *)value = *word;
    else
        *(int *)value = *set;
    pthread_mutex_unlock(&pool->lease->lock);
    return result;
}

/* A high-water mark can only be reset, to what there is: any write does. */
CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attribute, void *value)
{
    CUresult result;
    struct tfr_pool *pool = pool_enter(handle, &result);
    if (!pool)
        return result;
    int *set = flag(pool, attribute);
    bool mark = attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH ||
                attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    if (!value || (mark && *(const cuuint64_t *)value)) /* marks are only ever reset */
        result = CUDA_ERROR_INVALID_VALUE;
    else if (set)
        *set = *(const int *)value != 0;
    else if (attribute == CU_MEMPOOL_ATTR_RELEASE_THRESHOLD)
        pool->threshold = *(const cuuint64_t *)value;
    else if (attribute == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)
        pool->reserved_high = pool->used + pool->cached;
    else if (attribute == CU_MEMPOOL_ATTR_USED_MEM_HIGH)
        pool->used_high = pool->used;
    else
        result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_unlock(&pool->lease->lock);
    return result;
}

CUresult cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc *map, size_t n)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    const struct tfr_pool *pool = pool_of(handle);
    if (!pool || (n && !map))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < n; i++) {
        int can = 1;
        if (map[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE || !lease_at(map[i].location.id))
            return CUDA_ERROR_INVALID_VALUE;
        if (map[i].location.id != pool->lease->device)
            cuDeviceCanAccessPeer(&can, map[i].location.id, pool->lease->device);
        if (!can)
            return CUDA_ERROR_INVALID_DEVICE;
    }
    return CUDA_SUCCESS;
}

CUresult cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool handle, CUmemLocation *location)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    const struct tfr_pool *pool = pool_of(handle);
    if (!flags || !location || !pool || location->type != CU_MEM_LOCATION_TYPE_DEVICE ||
        !lease_at(location->id))
        return CUDA_ERROR_INVALID_VALUE;
    *flags = location->id == pool->lease->device ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                                                 : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return CUDA_SUCCESS;
}
