/* Device memory: cuMemAlloc and cuMemFree over a lease (lease.h), without a record as a rule.
 * Surprising: a free waits, as natively it does, when the program may look at host memory that the
 * GPU still writes; otherwise the block waits in quarantine instead of the caller. */
#define TFR_LOG_PART "intercept"
#include "intercept/memory.h"

#include "base/log.h"
#include "intercept/gate.h"
#include "intercept/lease.h"
#include "intercept/stream.h"

enum { POINTS = 32, PITCH = 512 };

/* ---- asking ---- */

CUresult tfr_memory_ask_alloc(uint64_t len, uint64_t *addr_out)
{
    struct tfr_ask ask;
    struct tfr_alloc_req *req = tfr_ask_begin(&ask, TFR_OP_alloc, sizeof *req);
    if (!req)
        return ask.result;
    req->len = len;
    const struct tfr_alloc_rep *rep = tfr_ask_send(&ask, sizeof *rep);
    if (rep)
        *addr_out = rep->addr;
    return tfr_ask_end(&ask);
}

CUresult tfr_memory_ask(uint16_t op, uint64_t addr)
{
    struct tfr_ask ask;
    struct tfr_free_req *req = tfr_ask_begin(&ask, op, sizeof *req);
    if (!req)
        return ask.result;
    req->addr = addr;
    tfr_ask_send(&ask, 0);
    return tfr_ask_end(&ask);
}

/* ---- taking ---- */

/* More in quarantine than this, and a block that does not fit waits for an old one: natively the
 * free would have waited.  Else a program that runs ahead of the GPU would ask for memory again and
 * again. */
static uint64_t quarantine_limit(const struct tfr_lease *lease)
{
    uint64_t used = lease->backed - lease->free - lease->quarantined;
    uint64_t least = tfr_lease_step(lease) / 2;
    return used > least ? used : least;
}

/* The driver has no more: whatever may still come free does, then idle chunks make room for a new
 * one. */
static CUresult cut_last(struct tfr_lease *lease, uint64_t len, struct tfr_block **block_out)
{
    CUresult result;
    tfr_pool_empty(lease, true);
    while ((result = tfr_quarantine_wait(lease)) == CUDA_SUCCESS)
        ;
    if (result != CUDA_ERROR_NOT_FOUND)
        return result;
    *block_out = tfr_lease_cut(lease, len);
    if (*block_out)
        return CUDA_SUCCESS;
    tfr_lease_shrink(lease, true);
    result = tfr_lease_grow(lease, len, false);
    if (result == CUDA_SUCCESS)
        *block_out = tfr_lease_cut(lease, len);
    return result;
}

static CUresult cut_slow(struct tfr_lease *lease, uint64_t len, struct tfr_block **block_out)
{
    CUresult result;
    tfr_pool_empty(lease, true);
    tfr_quarantine_reap(lease, true);
    *block_out = tfr_lease_cut(lease, len);
    while (!*block_out && lease->quarantined >= quarantine_limit(lease)) {
        result = tfr_quarantine_wait(lease);
        if (result != CUDA_SUCCESS)
            return result;
        *block_out = tfr_lease_cut(lease, len);
    }
    if (*block_out)
        return CUDA_SUCCESS;
    result = tfr_lease_grow(lease, len, true);
    if (result == CUDA_ERROR_OUT_OF_MEMORY)
        result = cut_last(lease, len, block_out);
    else if (result == CUDA_SUCCESS)
        *block_out = tfr_lease_cut(lease, len);
    return result == CUDA_SUCCESS && !*block_out ? CUDA_ERROR_OUT_OF_MEMORY : result;
}

CUresult tfr_memory_take(struct tfr_lease *lease, uint64_t len, struct tfr_block **block_out)
{
    /* More than there is: nothing that could be waited for would help. */
    if (len > tfr_client.snapshot->device[lease->device].total_mem)
        return CUDA_ERROR_OUT_OF_MEMORY;
    len = (len + TFR_LEASE_ALIGN - 1) & ~(uint64_t)(TFR_LEASE_ALIGN - 1);
    tfr_quarantine_reap(lease, false);
    *block_out = tfr_lease_cut(lease, len);
    return *block_out ? CUDA_SUCCESS : cut_slow(lease, len, block_out);
}

CUresult tfr_memory_known(struct tfr_context *ctx, uint64_t addr, struct tfr_block *block,
                          uint64_t len)
{
    struct tfr_range range = {.base = addr,
                              .len = len,
                              .kind = TFR_RANGE_DEVICE,
                              .ctx = ctx,
                              .block = block,
                              .device = ctx->device};
    if (tfr_range_add(&range))
        return CUDA_SUCCESS;
    tfr_warn("device address 0x%llx is taken by other memory of this process",
             (unsigned long long)addr);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

static void untake(struct tfr_lease *lease, struct tfr_block *block)
{
    pthread_mutex_lock(&lease->lock);
    tfr_lease_join(lease, block);
    pthread_mutex_unlock(&lease->lock);
}

static CUresult alloc_asked(struct tfr_context *ctx, uint64_t len, uint64_t *addr_out)
{
    uint64_t addr = 0;
    CUresult result = tfr_memory_ask_alloc(len, &addr);
    if (result != CUDA_SUCCESS)
        return result;
    result = tfr_memory_known(ctx, addr, NULL, len);
    if (result != CUDA_SUCCESS)
        tfr_memory_ask(TFR_OP_free, addr);
    else
        *addr_out = addr;
    return result;
}

static CUresult alloc(uint64_t len, uint64_t *addr_out)
{
    struct tfr_context *ctx = tfr_thread.ctx;
    struct tfr_lease *lease = tfr_lease_of(ctx->device);
    struct tfr_block *block = NULL;
    /* A loop that allocates and frees posts nothing: it must notice that the executor is gone. */
    CUresult result = tfr_client_look();
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&lease->lock);
    tfr_window_open(lease);
    bool leased = lease->window == TFR_WINDOW_OPEN;
    if (leased)
        result = tfr_memory_take(lease, len, &block);
    pthread_mutex_unlock(&lease->lock);
    if (!leased)
        return alloc_asked(ctx, len, addr_out);
    if (result != CUDA_SUCCESS)
        return result;
    uint64_t addr = block->base;
    result = tfr_memory_known(ctx, addr, block, len);
    if (result != CUDA_SUCCESS)
        untake(lease, block);
    else
        *addr_out = addr;
    return result;
}

CUresult cuMemAlloc_v2(CUdeviceptr *addr_out, size_t len)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!addr_out || !len)
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t addr;
    result = alloc(len, &addr);
    if (result == CUDA_SUCCESS)
        *addr_out = addr;
    return result;
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *addr_out, size_t *pitch_out, size_t width, size_t height,
                            unsigned int element)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    uint64_t pitch = ((uint64_t)width + PITCH - 1) & ~(uint64_t)(PITCH - 1), len, addr;
    if (!addr_out || !pitch_out || !width || !height ||
        (element != 4 && element != 8 && element != 16) || pitch < width ||
        __builtin_mul_overflow(pitch, height, &len))
        return CUDA_ERROR_INVALID_VALUE;
    result = alloc(len, &addr);
    if (result == CUDA_SUCCESS) {
        *addr_out = addr;
        *pitch_out = pitch;
    }
    return result;
}

/* ---- giving back ---- */

/* May the GPU be writing host memory that the program will read after the free? */
static bool host_is_written(void)
{
    return tfr_range_mapped() || tfr_gate_writer_pending();
}

/* What must pass before the block may be used again: nothing, if it has been waited for. */
static CUresult points_before_free(struct tfr_point points[POINTS], uint32_t *n_out)
{
    CUresult result = CUDA_SUCCESS;
    uint32_t n = tfr_points_take(points, POINTS, UINT64_MAX);
    uint64_t until = n > POINTS ? tfr_post_last() : 0;
    while (result == CUDA_SUCCESS && n && (n > POINTS || host_is_written())) {
        TFR_COUNT(stream_waits, 1);
        result = tfr_points_wait(points, n < POINTS ? n : POINTS);
        n = n > POINTS ? tfr_points_take(points, POINTS, until) : 0;
    }
    *n_out = n;
    return result;
}

void tfr_memory_give(struct tfr_block *block, const struct tfr_point *points, uint32_t n)
{
    struct tfr_lease *lease = tfr_lease_of(block->device);
    pthread_mutex_lock(&lease->lock);
    if (block->pool)
        tfr_pool_leave(block);
    block->ticket = n ? tfr_ticket_take(lease, points, n) : NULL;
    if (n && !block->ticket) {
        pthread_mutex_unlock(&lease->lock);
        tfr_points_wait(points, n);
        pthread_mutex_lock(&lease->lock);
    }
    if (block->ticket)
        tfr_quarantine_add(lease, block);
    else
        tfr_lease_join(lease, block);
    if (lease->idle > TFR_LEASE_GROW)
        tfr_lease_shrink(lease, false);
    pthread_mutex_unlock(&lease->lock);
}

CUresult tfr_memory_ask_free(const struct tfr_range *range, CUresult waited)
{
    if (waited != CUDA_SUCCESS)
        return waited;
    if (range->block) {
        struct tfr_lease *lease = tfr_lease_of(range->device);
        pthread_mutex_lock(&lease->lock);
        if (range->block->pool)
            tfr_pool_leave(range->block);
        tfr_block_forget(lease, range->block);
        pthread_mutex_unlock(&lease->lock);
    }
    return tfr_memory_ask(TFR_OP_free, range->base);
}

CUresult cuMemFree_v2(CUdeviceptr addr)
{
    struct tfr_range range;
    struct tfr_point points[POINTS];
    uint32_t n;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS || !addr)
        return result;
    if (!tfr_range_take(addr, 1u << TFR_RANGE_DEVICE, &range))
        return CUDA_ERROR_INVALID_VALUE;
    if (!range.block || !range.block->chunk)
        return tfr_memory_ask_free(&range, tfr_context_wait(range.ctx));
    result = points_before_free(points, &n);
    if (result == CUDA_SUCCESS)
        tfr_memory_give(range.block, points, n);
    return result;
}

/* ---- how much there is ---- */

static CUresult info_ask(uint64_t *free_out, uint64_t *total_out)
{
    struct tfr_ask ask;
    struct tfr_mem_info_req *req = tfr_ask_begin(&ask, TFR_OP_mem_info, sizeof *req);
    if (!req)
        return ask.result;
    const struct tfr_mem_info_rep *rep = tfr_ask_send(&ask, sizeof *rep);
    if (rep) {
        *free_out = rep->free;
        *total_out = rep->total;
    }
    return tfr_ask_end(&ask);
}

CUresult cuMemGetInfo_v2(size_t *free_out, size_t *total_out)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    uint64_t left = 0, total = 0;
    struct tfr_lease *lease = tfr_lease_of(tfr_thread.ctx->device);
    pthread_mutex_lock(&lease->lock);
    tfr_pool_empty(lease, false);
    result = info_ask(&left, &total);
    left += lease->free + lease->quarantined;
    pthread_mutex_unlock(&lease->lock);
    if (result != CUDA_SUCCESS)
        return result;
    if (free_out)
        *free_out = left;
    if (total_out)
        *total_out = total;
    return CUDA_SUCCESS;
}

/* ---- the end ---- */

void tfr_memory_forget_context(struct tfr_context *ctx)
{
    struct tfr_range range;
    while (tfr_range_take_of(ctx, 1u << TFR_RANGE_DEVICE, &range)) {
        if (range.block && range.block->chunk)
            tfr_memory_give(range.block, NULL, 0);
        else
            tfr_memory_ask_free(&range, CUDA_SUCCESS);
    }
    while (tfr_range_take_of(ctx, 1u << TFR_RANGE_MAPPED | 1u << TFR_RANGE_REGISTERED, &range)) {
        if (range.kind == TFR_RANGE_MAPPED)
            tfr_memory_ask(TFR_OP_host_unmap, range.base);
        else if (range.ours || range.mem)
            tfr_copy_deliver_into(range.base, range.len);
        tfr_pinned_drop(&range);
    }
}

void tfr_memory_forget_all(void)
{
    struct tfr_range range;
    while (tfr_range_take_of(NULL, 1u << TFR_RANGE_MAPPED | 1u << TFR_RANGE_REGISTERED, &range))
        tfr_pinned_drop(&range);
    tfr_range_clear();
    for (int i = 0; i < TFR_DEVICES_MAX; i++) {
        struct tfr_lease *lease = tfr_lease_of(i);
        pthread_mutex_lock(&lease->lock);
        tfr_window_close(lease);
        tfr_pool_forget_all(lease);
        tfr_lease_reset(lease);
        pthread_mutex_unlock(&lease->lock);
    }
}
