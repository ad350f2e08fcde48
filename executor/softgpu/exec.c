/* The warp scheduler and the operations that move lanes between groups: branches, barriers, exits.
 * Called by block.c, one warp at a time.  While a warp is converged it has one group; otherwise the
 * group with the lowest program counter (of the deepest call) runs until it meets the next one,
 * which reconverges the code that compilers lay out.  After many backward branches another group
 * has its turn: spin loops. */
#include "executor/softgpu/vm_in.h"

#include <stdio.h>
#include <time.h>

enum { QUANTUM_DIVERGED = 1024 };

/* ---- scheduler ---- */

static bool before(const struct vm_group *a, const struct vm_group *b, bool rotate)
{
    if (rotate && a->turn != b->turn)
        return (int32_t)(a->turn - b->turn) < 0;
    return a->depth != b->depth ? a->depth > b->depth : a->pc < b->pc;
}

static struct vm_group *choose(struct vm_warp *w)
{
    struct vm_group *best = NULL;
    for (unsigned int i = 0; i < w->group_n; i++) {
        struct vm_group *g = &w->group[i];
        if (g->state == VG_READY && (!best || before(g, best, w->rotate)))
            best = g;
    }
    w->rotate = false;
    if (best)
        return best;
    /* Lanes wait for lanes that will not come: undefined in PTX.  Hardware goes on, so do we. */
    for (unsigned int i = 0; i < w->group_n; i++)
        if (w->group[i].state == VG_SYNC) {
            best = &w->group[i];
            w->force = best->pc;
            return best;
        }
    return NULL;
}

/* Makes the chosen group the running one, with all that stand at the same place; answers the place
 * where it meets the next group. */
static const struct vm_ins *enter(struct vm_warp *w, struct vm_group *g)
{
    const struct vm_ins *pc = g->pc, *meet = VM_LEAVE;
    uint32_t mask = 0, depth = g->depth;
    unsigned int n = 0;
    g->state = VG_READY;
    for (unsigned int i = 0; i < w->group_n; i++) {
        struct vm_group *o = &w->group[i];
        if (o->state == VG_READY && o->pc == pc && o->depth == depth) {
            mask |= o->mask;
            continue;
        }
        if (o->state == VG_READY && o->depth == depth && o->pc > pc && o->pc < meet)
            meet = o->pc;
        w->group[n++] = *o;
    }
    w->group_n = (uint8_t)n;
    w->active = mask;
    w->depth = depth;
    w->run = pc;
    if (n && w->quantum > QUANTUM_DIVERGED)
        w->quantum = QUANTUM_DIVERGED;
    return meet;
}

void vm_warp_run(struct vm_warp *w)
{
    w->quantum = w->blk->job->quantum;
    for (;;) {
        struct vm_group *g = choose(w);
        if (!g)
            return;
        const struct vm_ins *in = g->pc, *meet = enter(w, g);
        do
            in = in->fn(w, in);
        while (in < meet);
        if (in != VM_LEAVE) {
            vm_count(w, in - 1, in);
            vm_push(w, w->active, in);
        }
        if (w->rotate || atomic_load_explicit(&w->blk->job->failed, memory_order_relaxed))
            return;
    }
}

const struct vm_ins *vm_give_way(struct vm_warp *w, uint32_t mask, const struct vm_ins *pc)
{
    w->turn++;
    vm_push(w, mask, pc);
    w->rotate = true;
    return VM_LEAVE;
}

/* ---- faults ---- */

static const char *fault_name(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_ILLEGAL_ADDRESS:
        return "illegal address";
    case CUDA_ERROR_MISALIGNED_ADDRESS:
        return "misaligned address";
    case CUDA_ERROR_ASSERT:
        return "assertion failed";
    case CUDA_ERROR_LAUNCH_TIMEOUT:
        return "instruction budget exceeded";
    default:
        return "launch failed";
    }
}

const struct vm_ins *vm_fault_at(struct vm_warp *w, const struct vm_ins *in, CUresult result,
                                 unsigned int lane, uint64_t addr, const char *what)
{
    struct vm_job *job = w->blk->job;
    const uint32_t *dim = job->launch->block, *b = w->blk->ctaid;
    uint32_t t = w->index * VM_LANES + lane;
    uint32_t x = t % dim[0], y = t / dim[0] % dim[1], z = t / dim[0] / dim[1];
    bool address = result == CUDA_ERROR_ILLEGAL_ADDRESS || result == CUDA_ERROR_MISALIGNED_ADDRESS;
    pthread_mutex_lock(&job->lock);
    if (!job->fault_set && job->fault) {
        struct vm_fault *f = job->fault;
        job->fault_set = true;
        *f = (struct vm_fault){.result = result, .line = in ? in->line : 0, .addr = addr};
        memcpy(f->block, b, sizeof(f->block));
        memcpy(f->thread, (uint32_t[3]){x, y, z}, sizeof(f->thread));
        int n = snprintf(f->text.s, sizeof(f->text.s),
                         "kernel %.200s, block (%u,%u,%u), thread (%u,%u,%u), ptx line %u: %s",
                         w->blk->kernel->info.name, b[0], b[1], b[2], x, y, z, f->line,
                         fault_name(result));
        if (address)
            snprintf(f->text.s + n, sizeof(f->text.s) - (size_t)n, " 0x%llx (%s memory)",
                     (unsigned long long)addr, what);
        else if (what)
            snprintf(f->text.s + n, sizeof(f->text.s) - (size_t)n, ": %s", what);
    }
    pthread_mutex_unlock(&job->lock);
    /* relaxed: the fault itself is read after the workers have been joined */
    atomic_store_explicit(&job->failed, true, memory_order_relaxed);
    return VM_LEAVE;
}

/* ---- branches ---- */

const struct vm_ins *vm_op_bra(struct vm_warp *w, const struct vm_ins *in)
{
    uint32_t m = vm_mask(w, in), rest = w->active & ~m;
    const struct vm_ins *to = in->target;
    if (!m)
        return in + 1;
    vm_count(w, in, to);
    if (to <= in && --w->quantum < 0) {
        if (rest)
            vm_push(w, rest, in + 1);
        return vm_give_way(w, m, to);
    }
    if (!rest)
        return to;
    vm_push(w, rest, in + 1);
    vm_push(w, m, to);
    return VM_LEAVE;
}

const struct vm_ins *vm_op_brx(struct vm_warp *w, const struct vm_ins *in)
{
    uint32_t m = vm_mask(w, in);
    const uint32_t *index = (const uint32_t *)(w->reg + in->a);
    if (!m)
        return in + 1;
    vm_count(w, in, in + 1);
    if (w->active & ~m)
        vm_push(w, w->active & ~m, in + 1);
    while (m) {
        unsigned int first = (unsigned int)__builtin_ctz(m);
        uint32_t same = 0, v = index[first];
        if (v >= in->table->n)
            return vm_fault_at(w, in, CUDA_ERROR_LAUNCH_FAILED, first, 0,
                               "branch index out of range");
        for (uint32_t left = m; left; left &= left - 1)
            if (index[__builtin_ctz(left)] == v)
                same |= left & (0u - left);
        m &= ~same;
        vm_push(w, same, in->table->target[v]);
    }
    if (--w->quantum < 0) {
        w->turn++;
        w->rotate = true;
    }
    return VM_LEAVE;
}

/* ---- barriers ---- */

static bool complete(const struct vm_block *blk, const struct vm_barrier *bar)
{
    if (!bar->expected)
        return bar->arrived == blk->alive;
    uint32_t n = 0;
    for (uint32_t i = 0; i < blk->warp_n; i++)
        if (bar->mask[i]) { /* a warp counts in full once all its living lanes are here */
            bool all = !(blk->warp[i].alive & ~bar->mask[i]);
            n += all ? VM_LANES : (uint32_t)__builtin_popcount(bar->mask[i]);
        }
    return n >= bar->expected;
}

static void deliver(struct vm_warp *w, const struct vm_group *g, const struct vm_barrier *bar)
{
    const struct vm_ins *in = g->pc;
    unsigned int kind = in->aux & VM_BAR_KIND;
    uint32_t *d = (uint32_t *)(w->reg + in->d);
    if (kind < VM_BAR_POPC)
        return;
    if (kind == VM_BAR_POPC) {
        for (int i = 0; i < VM_LANES; i++)
            if (g->mask >> i & 1)
                d[i] = bar->red[0];
        return;
    }
    uint32_t v = kind == VM_BAR_AND ? bar->red[1] : bar->red[2];
    *d = (*d & ~g->mask) | (v ? g->mask : 0);
}

static void release(struct vm_block *blk, unsigned int id)
{
    struct vm_barrier *bar = &blk->bar[id];
    for (uint32_t i = 0; i < blk->warp_n; i++) {
        struct vm_warp *w = &blk->warp[i];
        for (unsigned int k = 0; bar->mask[i] && k < w->group_n; k++) {
            struct vm_group *g = &w->group[k];
            if (g->state != VG_BARRIER || g->bar != id)
                continue;
            deliver(w, g, bar);
            g->state = VG_READY;
            g->pc++;
        }
    }
    blk->bar_used &= ~(1u << id);
}

static void accumulate(const struct vm_warp *w, const struct vm_ins *in, uint32_t m,
                       struct vm_barrier *bar)
{
    uint32_t p = *(const uint32_t *)(w->reg + in->c) ^ (in->aux & VM_BAR_NEG ? UINT32_MAX : 0);
    bar->red[0] += (uint32_t)__builtin_popcount(p & m);
    bar->red[1] &= (p & m) == m;
    bar->red[2] |= (p & m) != 0;
}

const struct vm_ins *vm_op_bar(struct vm_warp *w, const struct vm_ins *in)
{
    struct vm_block *blk = w->blk;
    uint32_t m = vm_mask(w, in), count = 0;
    if (!m)
        return in + 1;
    unsigned int first = (unsigned int)__builtin_ctz(m);
    const uint32_t *ids = (const uint32_t *)(w->reg + in->a);
    uint32_t id = ids[first];
    if (in->aux & VM_BAR_COUNT)
        count = ((const uint32_t *)(w->reg + in->b))[first];
    for (uint32_t left = m; left; left &= left - 1)
        if (ids[__builtin_ctz(left)] != id)
            id = VM_BARRIERS;
    /* the cluster's barrier has a number that no program can give */
    if (id >= VM_CLUSTER_BARRIER + (in->aux & VM_BAR_CLUSTER ? 1u : 0u) ||
        ((in->aux & VM_BAR_COUNT) && (!count || count % VM_LANES)))
        return vm_fault_at(w, in, CUDA_ERROR_LAUNCH_FAILED, first, 0,
                           "bad barrier number or count");
    struct vm_barrier *bar = &blk->bar[id];
    if (!(blk->bar_used >> id & 1)) {
        blk->bar_used |= 1u << id;
        memset(bar, 0, sizeof(*bar));
        bar->red[1] = 1;
    }
    vm_count(w, in, in + 1);
    bar->mask[w->index] |= m;
    bar->arrived += (uint32_t)__builtin_popcount(m);
    bar->expected = count;
    accumulate(w, in, m, bar);
    uint32_t rest = w->active & ~m;
    if ((in->aux & VM_BAR_KIND) == VM_BAR_ARRIVE) {
        vm_push(w, w->active, in + 1);
    } else {
        if (rest)
            vm_push(w, rest, in + 1);
        vm_push(w, m, in);
        w->group[w->group_n - 1].state = VG_BARRIER;
        w->group[w->group_n - 1].bar = (uint8_t)id;
    }
    if (complete(blk, bar))
        release(blk, id);
    return VM_LEAVE;
}

/* ---- ends ---- */

const struct vm_ins *vm_op_exit(struct vm_warp *w, const struct vm_ins *in)
{
    struct vm_block *blk = w->blk;
    uint32_t m = vm_mask(w, in);
    if (!m)
        return in + 1;
    vm_count(w, in, in + 1);
    w->alive &= ~m;
    w->active &= ~m;
    blk->alive -= (uint32_t)__builtin_popcount(m);
    for (uint32_t left = blk->bar_used; left && blk->alive; left &= left - 1) {
        unsigned int id = (unsigned int)__builtin_ctz(left);
        if (complete(blk, &blk->bar[id]))
            release(blk, id);
    }
    for (unsigned int i = 0; i < w->group_n; i++) /* those who waited for the lanes that went */
        if (w->group[i].state == VG_SYNC && w->active == 0)
            w->group[i].state = VG_READY;
    if (w->active)
        return in + 1;
    return VM_LEAVE;
}

const struct vm_ins *vm_op_trap(struct vm_warp *w, const struct vm_ins *in)
{
    uint32_t m = vm_mask(w, in);
    if (!m)
        return in + 1;
    return vm_fault_at(w, in, CUDA_ERROR_LAUNCH_FAILED, (unsigned int)__builtin_ctz(m), 0, "trap");
}

const struct vm_ins *vm_op_nop(struct vm_warp *w, const struct vm_ins *in)
{
    (void)w;
    return in + 1;
}

const struct vm_ins *vm_op_fence(struct vm_warp *w, const struct vm_ins *in)
{
    (void)w;
    atomic_thread_fence(memory_order_seq_cst); /* with the other workers' blocks and the host */
    return in + 1;
}

/* nanosleep: others first. */
const struct vm_ins *vm_op_yield(struct vm_warp *w, const struct vm_ins *in)
{
    if (!vm_mask(w, in))
        return in + 1;
    vm_count(w, in, in + 1);
    return vm_give_way(w, w->active, in + 1);
}

/* ---- lanes waiting for each other ---- */

bool vm_gather(struct vm_warp *w, const struct vm_ins *in, uint32_t members)
{
    uint32_t need = members & w->alive, all = w->active;
    unsigned int n = 0;
    if (!(need & ~all))
        return true;
    if (w->force == in) {
        w->force = NULL;
        return true;
    }
    for (unsigned int i = 0; i < w->group_n; i++) {
        const struct vm_group *g = &w->group[i];
        if (g->state == VG_SYNC && g->pc == in && g->depth == w->depth)
            all |= g->mask;
    }
    vm_count(w, in - 1, in);
    if (need & ~all) {
        vm_push(w, w->active, in);
        w->group[w->group_n - 1].state = VG_SYNC;
        return false;
    }
    for (unsigned int i = 0; i < w->group_n; i++) {
        const struct vm_group *g = &w->group[i];
        if (!(g->state == VG_SYNC && g->pc == in && g->depth == w->depth))
            w->group[n++] = *g;
    }
    w->group_n = (uint8_t)n;
    w->active = all;
    return true;
}

/* bar.warp.sync: the lanes may come from different places, so each group goes on from its own. */
const struct vm_ins *vm_op_warpsync(struct vm_warp *w, const struct vm_ins *in)
{
    uint32_t m = vm_mask(w, in), members = 0, all = w->active;
    const uint32_t *mask = (const uint32_t *)(void *)(w->reg + in->a);
    for (uint32_t left = m; left; left &= left - 1)
        members |= mask[__builtin_ctz(left)];
    if (!m || !(members & w->alive & ~all))
        return in + 1;
    if (w->force == in) {
        w->force = NULL;
        return in + 1;
    }
    for (unsigned int i = 0; i < w->group_n; i++)
        if (w->group[i].state == VG_SYNC && w->group[i].pc->fn == vm_op_warpsync)
            all |= w->group[i].mask;
    vm_count(w, in, in + 1);
    if (members & w->alive & ~all) {
        vm_push(w, w->active, in);
        w->group[w->group_n - 1].state = VG_SYNC;
        return VM_LEAVE;
    }
    for (unsigned int i = 0; i < w->group_n; i++)
        if (w->group[i].state == VG_SYNC && w->group[i].pc->fn == vm_op_warpsync) {
            w->group[i].state = VG_READY;
            w->group[i].pc++;
        }
    vm_push(w, w->active, in + 1);
    return VM_LEAVE;
}

/* ---- clocks ---- */

const struct vm_ins *vm_op_sreg(struct vm_warp *w, const struct vm_ins *in)
{
    uint32_t m = vm_mask(w, in);
    uint64_t v = 0;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    v = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    if (in->aux == SR_CLOCK_HI || in->aux == SR_TIMER_HI)
        v >>= 32;
    for (int i = 0; i < VM_LANES; i++) {
        if (!(m >> i & 1))
            continue;
        if (in->aux == SR_CLOCK64 || in->aux == SR_TIMER)
            ((uint64_t *)(void *)(w->reg + in->d))[i] = v;
        else
            ((uint32_t *)(void *)(w->reg + in->d))[i] = (uint32_t)v;
    }
    return in + 1;
}
