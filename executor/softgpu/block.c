/* One block of a launch: its memory (warps, register files, shared and local memory in one piece),
 * what is written into it before it runs, and the round over its warps.  Called by pool.c.  The
 * memory is kept from launch to launch with what was filled in for the same code and shape: an
 * empty kernel costs less than a memset would. */
#include "executor/softgpu/vm_in.h"

#include <stdlib.h>

enum { ROUNDS = 256 }; /* from barrier to barrier, until the caller may look at budget and stop */

struct vm_block *vm_block_new(void)
{
    return calloc(1, sizeof(struct vm_block));
}

void vm_block_free(struct vm_block *blk)
{
    if (!blk)
        return;
    for (uint32_t i = 0; blk->mem && i < blk->warp_n; i++)
        vm_stack_free(&blk->warp[i]);
    free(blk->mem);
    free(blk);
}

static size_t pad(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

static void fill32(uint8_t *at, uint32_t v)
{
    uint32_t *d = (uint32_t *)(void *)at;
    for (int i = 0; i < VM_LANES; i++)
        d[i] = v;
}

static void fill64(uint8_t *at, uint64_t v)
{
    uint64_t *d = (uint64_t *)(void *)at;
    for (int i = 0; i < VM_LANES; i++)
        d[i] = v;
}

static uint32_t special_value(const struct vm_block *blk, const struct vm_warp *w,
                              const struct vm_special *s, unsigned int lane)
{
    const struct vm_launch *l = blk->job->launch;
    uint32_t t = w->index * VM_LANES + lane;
    switch (s->sreg) {
    case SR_TID:
        return s->comp == 0   ? t % l->block[0]
               : s->comp == 1 ? t / l->block[0] % l->block[1]
                              : t / l->block[0] / l->block[1];
    case SR_NTID:
        return l->block[s->comp];
    case SR_NCTAID:
    case SR_NCLUSTER_ID:
        return l->grid[s->comp];
    case SR_LANEID:
        return lane;
    case SR_WARPID:
        return w->index;
    case SR_NWARPID:
        return blk->warp_n;
    case SR_NSMID:
        return 1;
    case SR_LM_EQ:
        return 1u << lane;
    case SR_LM_LE:
        return UINT32_MAX >> (31 - lane);
    case SR_LM_LT:
        return (1u << lane) - 1;
    case SR_LM_GE:
        return UINT32_MAX << lane;
    case SR_LM_GT:
        return ~(UINT32_MAX >> (31 - lane));
    case SR_DYN_SMEM:
        return l->shared_len;
    case SR_TOTAL_SMEM:
        return blk->shared_len;
    case SR_RESERVED:
        return blk->reserved_at;
    case SR_RESERVED_HALF:
        return blk->reserved_at + VM_RESERVED / 2;
    case SR_RESERVED_END:
        return blk->reserved_at + VM_RESERVED;
    default:
        return 0;
    }
}

/* Written anew for every block. */
static bool of_block(const struct vm_special *s)
{
    return s->sreg == SR_CTAID || s->sreg == SR_CLUSTER_ID || s->sreg == SR_GRIDID ||
           s->sreg == SR_ENVREG1 || s->sreg == SR_ENVREG2;
}

static void fill_warp(struct vm_block *blk, struct vm_warp *w)
{
    const struct vm_code *c = blk->code;
    fill32(w->reg + VM_TRASH, 0);
    *(uint32_t *)(void *)(w->reg + VM_TRUE) = UINT32_MAX;
    *(uint32_t *)(void *)(w->reg + VM_FALSE) = 0;
    for (uint32_t i = 0; i < c->fill_n; i++)
        if (c->fill[i].wide)
            fill64(w->reg + c->fill[i].at, c->fill[i].bits);
        else
            fill32(w->reg + c->fill[i].at, (uint32_t)c->fill[i].bits);
    for (uint32_t i = 0; i < c->special_n; i++) {
        const struct vm_special *s = &c->special[i];
        if (of_block(s))
            continue;
        for (unsigned int lane = 0; lane < VM_LANES; lane++)
            ((uint32_t *)(void *)(w->reg + s->at))[lane] = special_value(blk, w, s, lane);
    }
}

static bool lay_out(struct vm_block *blk, uint32_t warp_n, uint32_t shared_len)
{
    const struct vm_code *c = blk->code;
    size_t warps = pad(warp_n * sizeof(struct vm_warp));
    size_t local = pad((size_t)blk->stack_len * VM_LANES), regs = pad(c->file_len);
    size_t len = warps + warp_n * (regs + local) + pad((size_t)shared_len + 64);
    for (uint32_t i = 0; blk->mem && i < blk->warp_n; i++)
        vm_stack_free(&blk->warp[i]);
    if (len > blk->mem_len) {
        free(blk->mem);
        blk->mem_len = 0;
        blk->mem = aligned_alloc(64, len);
        if (!blk->mem)
            return false;
        blk->mem_len = len;
    }
    uint8_t *at = blk->mem;
    blk->warp = blk->mem;
    blk->warp_n = warp_n;
    at += warps;
    for (uint32_t i = 0; i < warp_n; i++) {
        struct vm_warp *w = &blk->warp[i];
        w->blk = blk;
        w->index = i;
        w->reg = at;
        w->stack = NULL;
        w->turn = 0;
        w->count = 0;
        w->local = at + regs;
        at += regs + local;
    }
    blk->shared = at;
    return true;
}

/* Filled already for this code and shape?  Then nothing is left to do. */
bool vm_block_prepare(struct vm_block *blk, struct vm_job *job)
{
    const struct vm_launch *l = job->launch;
    uint32_t shared_len = l->kernel->info.shared_len + l->shared_len;
    uint32_t reserved_at = (shared_len + 15) & ~15u;
    if (job->code->reserved)
        shared_len = reserved_at + VM_RESERVED;
    uint32_t threads = l->block[0] * l->block[1] * l->block[2];
    blk->job = job;
    blk->kernel = l->kernel;
    blk->code = job->code;
    blk->params = l->params;
    if (blk->code_id == job->code->id && blk->lay_shared == shared_len &&
        blk->stack_len == job->stack_len && !memcmp(blk->dim, l->block, sizeof(blk->dim)) &&
        !memcmp(blk->grid, l->grid, sizeof(blk->grid)))
        return true;
    blk->code_id = 0;
    blk->shared_len = shared_len;
    blk->reserved_at = reserved_at;
    blk->stack_len = job->stack_len;
    if (!lay_out(blk, (threads + VM_LANES - 1) / VM_LANES, shared_len))
        return false;
    for (uint32_t i = 0; i < blk->warp_n; i++)
        fill_warp(blk, &blk->warp[i]);
    blk->code_id = job->code->id;
    blk->lay_shared = shared_len;
    memcpy(blk->dim, l->block, sizeof(blk->dim));
    memcpy(blk->grid, l->grid, sizeof(blk->grid));
    return true;
}

static void start_warp(struct vm_block *blk, struct vm_warp *w, uint32_t threads)
{
    const struct vm_code *c = blk->code;
    uint32_t left = threads - w->index * VM_LANES;
    w->alive = left >= VM_LANES ? UINT32_MAX : (1u << left) - 1;
    w->depth = 0;
    w->carry = 0;
    w->rotate = false;
    w->force = NULL;
    w->group_n = 0;
    if (w->stack)
        vm_stack_reset(w);
    vm_push(w, w->alive, c->frame[0]->entry);
    for (uint32_t i = 0; i < c->special_n; i++) {
        const struct vm_special *s = &c->special[i];
        if (s->sreg == SR_CTAID || s->sreg == SR_CLUSTER_ID)
            fill32(w->reg + s->at, blk->ctaid[s->comp]);
        else if (s->sreg == SR_GRIDID)
            fill64(w->reg + s->at, blk->job->id);
        else if (s->sreg == SR_ENVREG1)
            fill32(w->reg + s->at, (uint32_t)(blk->job->workspace >> 32));
        else if (s->sreg == SR_ENVREG2)
            fill32(w->reg + s->at, (uint32_t)blk->job->workspace);
    }
    if (c->frame_n > 1)
        for (int i = 0; i < VM_LANES; i++)
            w->lsp[i] = c->local_len;
}

void vm_block_start(struct vm_block *blk, uint64_t number)
{
    const struct vm_launch *l = blk->job->launch;
    uint32_t threads = l->block[0] * l->block[1] * l->block[2];
    blk->ctaid[0] = (uint32_t)(number % l->grid[0]);
    blk->ctaid[1] = (uint32_t)(number / l->grid[0] % l->grid[1]);
    blk->ctaid[2] = (uint32_t)(number / l->grid[0] / l->grid[1]);
    blk->alive = threads;
    blk->bar_used = 0;
    if (blk->code->reserved)
        memset(blk->shared + blk->reserved_at, 0, VM_RESERVED);
    for (uint32_t i = 0; i < blk->warp_n; i++)
        start_warp(blk, &blk->warp[i], threads);
}

static bool runnable(const struct vm_warp *w)
{
    for (unsigned int i = 0; i < w->group_n; i++)
        if (w->group[i].state != VG_BARRIER)
            return true;
    return false;
}

enum vm_step vm_block_step(struct vm_block *blk)
{
    const struct vm_job *job = blk->job;
    for (int round = 0; round < ROUNDS; round++) {
        bool ran = false, yielded = false;
        for (uint32_t i = 0; i < blk->warp_n; i++) {
            struct vm_warp *w = &blk->warp[i];
            if (!runnable(w))
                continue;
            vm_warp_run(w);
            ran = true;
            yielded |= w->rotate;
            if (atomic_load_explicit(&job->failed, memory_order_relaxed)) /* with vm_fault_at */
                return VM_STEP_DONE;
        }
        if (!blk->alive)
            return VM_STEP_DONE;
        if (!ran)
            return VM_STEP_STUCK;
        if (yielded)
            return VM_STEP_YIELD;
    }
    return VM_STEP_YIELD;
}

uint64_t vm_block_count(struct vm_block *blk)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < blk->warp_n; i++) {
        n += blk->warp[i].count;
        blk->warp[i].count = 0;
    }
    return n;
}
