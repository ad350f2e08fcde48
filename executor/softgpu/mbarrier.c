/* mbarrier objects in shared memory, bulk copies, and the election of a lane.  A block runs on one
 * thread of the host, so a word is changed in place.  The word: arrivals still pending in the
 * phase (20 bits), arrivals that a phase expects (20), bytes outstanding (22, signed), the phase's
 * parity (bit 63).  Called through vm_ins. */
#include "executor/softgpu/devmem.h"
#include "executor/softgpu/vm_in.h"

enum { COUNT_MAX = (1 << 20) - 1, EXPECTED_SHIFT = 20, TX_SHIFT = 40, TX_BITS = 22 };

#define REG(T, at) ((T *)(void *)(w->reg + (at)))

static uint64_t pending_of(uint64_t v)
{
    return v & COUNT_MAX;
}

static uint64_t expected_of(uint64_t v)
{
    return v >> EXPECTED_SHIFT & COUNT_MAX;
}

static int64_t tx_of(uint64_t v)
{
    return (int64_t)(v << (64 - TX_SHIFT - TX_BITS)) >> (64 - TX_BITS);
}

static uint64_t word(uint64_t phase, uint64_t pending, uint64_t expected, int64_t tx)
{
    return phase << 63 | ((uint64_t)tx & ((1ull << TX_BITS) - 1)) << TX_SHIFT |
           (expected & COUNT_MAX) << EXPECTED_SHIFT | (pending & COUNT_MAX);
}

/* The word after arrivals and bytes; a phase that is complete gives way to the next one. */
static uint64_t advance(uint64_t v, uint64_t arrivals, uint64_t drops, int64_t tx)
{
    uint64_t phase = v >> 63, pending = pending_of(v) - arrivals;
    uint64_t expected = expected_of(v) - drops;
    tx += tx_of(v);
    if (!pending && !tx) {
        phase ^= 1;
        pending = expected;
    }
    return word(phase, pending, expected, tx);
}

static uint64_t *object(struct vm_warp *w, const struct vm_ins *in, unsigned int lane, uint32_t reg,
                        uint32_t a32, uint64_t imm)
{
    uint64_t addr = a32 ? (uint32_t)(REG(const uint32_t, reg)[lane] + (uint32_t)imm)
                        : REG(const uint64_t, reg)[lane] + imm;
    uint64_t *at = NULL;
    if (!(addr & 7))
        at = vm_lane_ptr(w, in, lane, in->aux & VM_MEM_SPACE, addr, 8,
                         SOFT_PAGE_READ | SOFT_PAGE_WRITE);
    if (!at)
        vm_fault_at(w, in, addr & 7 ? CUDA_ERROR_MISALIGNED_ADDRESS : CUDA_ERROR_ILLEGAL_ADDRESS,
                    lane, addr, "mbarrier");
    return at;
}

static const char *apply(struct vm_warp *w, const struct vm_ins *in, unsigned int lane,
                         uint64_t *at)
{
    unsigned int op = in->aux >> VM_MEM_OP_SHIFT;
    uint64_t old = *at, n = REG(const uint32_t, in->b)[lane];
    uint64_t drops = op == VM_MB_DROP || op == VM_MB_DROP_TX ? 1 : 0, arrivals = 1;
    int64_t tx = 0;
    switch (op) {
    case VM_MB_INIT:
        *at = word(0, n, n, 0);
        return n && n <= COUNT_MAX ? NULL : "the count of an mbarrier is 1 to 2^20-1";
    case VM_MB_EXPECT_TX:
    case VM_MB_COMPLETE_TX:
        if (n > COUNT_MAX)
            return "too many bytes for an mbarrier";
        *at = advance(old, 0, 0, op == VM_MB_EXPECT_TX ? (int64_t)n : -(int64_t)n);
        return NULL;
    case VM_MB_ARRIVE_TX:
    case VM_MB_DROP_TX:
        tx = (int64_t)(n > COUNT_MAX ? COUNT_MAX : n);
        break;
    default:
        arrivals = n;
        drops *= n;
        break;
    }
    if (!arrivals || arrivals > pending_of(old) || drops > expected_of(old))
        return "more arrivals than the mbarrier expects";
    *at = advance(old, arrivals, drops, tx);
    if (in->d != VM_TRASH)
        REG(uint64_t, in->d)[lane] = old;
    return NULL;
}

/* init, arrive, expect and complete; b: count or bytes, d: the state before. */
const struct vm_ins *vm_op_mbarrier(struct vm_warp *w, const struct vm_ins *in)
{
    for (uint32_t left = vm_mask(w, in); left; left &= left - 1) {
        unsigned int i = (unsigned int)__builtin_ctz(left);
        uint64_t *at = object(w, in, i, in->a, in->aux & VM_MEM_A32, (uint64_t)in->imm);
        const char *bad = at ? apply(w, in, i, at) : NULL;
        if (bad)
            vm_fault_at(w, in, CUDA_ERROR_LAUNCH_FAILED, i, 0, bad);
        if (!at || bad)
            return VM_LEAVE;
    }
    return in + 1;
}

/* test_wait and try_wait: d: predicate, b: state or parity.  Who asks in vain lets others run. */
const struct vm_ins *vm_op_mbarrier_wait(struct vm_warp *w, const struct vm_ins *in)
{
    uint32_t m = vm_mask(w, in), yes = 0, *d = REG(uint32_t, in->d);
    bool parity = in->aux >> VM_MEM_OP_SHIFT == VM_MB_PARITY;
    if (!m)
        return in + 1;
    for (uint32_t left = m; left; left &= left - 1) {
        unsigned int i = (unsigned int)__builtin_ctz(left);
        const uint64_t *at = object(w, in, i, in->a, in->aux & VM_MEM_A32, (uint64_t)in->imm);
        if (!at)
            return VM_LEAVE;
        uint64_t phase =
            parity ? REG(const uint32_t, in->b)[i] & 1 : REG(const uint64_t, in->b)[i] >> 63;
        yes |= (uint32_t)(*at >> 63 != phase) << i;
    }
    *d = (*d & ~m) | yes;
    if (yes == m)
        return in + 1;
    vm_count(w, in, in + 1);
    return vm_give_way(w, w->active, in + 1);
}

const struct vm_ins *vm_op_mbarrier_pending(struct vm_warp *w, const struct vm_ins *in)
{
    for (uint32_t left = vm_mask(w, in); left; left &= left - 1) {
        unsigned int i = (unsigned int)__builtin_ctz(left);
        REG(uint32_t, in->d)[i] = (uint32_t)pending_of(REG(const uint64_t, in->a)[i]);
    }
    return in + 1;
}

static bool piece(struct vm_warp *w, const struct vm_ins *in, unsigned int lane, unsigned int to,
                  const uint64_t at[2], uint32_t n)
{
    void *dst = vm_lane_ptr(w, in, lane, to, at[0], n, SOFT_PAGE_READ | SOFT_PAGE_WRITE);
    const void *src =
        vm_lane_ptr(w, in, lane, to == PS_SHARED ? PS_GLOBAL : PS_SHARED, at[1], n, SOFT_PAGE_READ);
    if (dst && src)
        memcpy(dst, src, n);
    else
        vm_fault_at(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, lane, at[dst ? 1 : 0], "bulk copy");
    return dst && src;
}

/* cp.async.bulk between global and shared memory: at once.  a: place of both addresses, 64 bits; b:
 * bytes; c: the mbarrier's, which hears of the bytes. */
const struct vm_ins *vm_op_bulk(struct vm_warp *w, const struct vm_ins *in)
{
    bool to_shared = in->c != VM_TRASH;
    for (uint32_t left = vm_mask(w, in); left; left &= left - 1) {
        unsigned int i = (unsigned int)__builtin_ctz(left);
        uint64_t at[2] = {REG(const uint64_t, in->d)[i], REG(const uint64_t, in->a)[i]};
        uint32_t n = REG(const uint32_t, in->b)[i];
        if ((at[0] | at[1] | n) & 15 || n > COUNT_MAX)
            return vm_fault_at(w, in, CUDA_ERROR_MISALIGNED_ADDRESS, i, at[0], "bulk copy");
        for (uint32_t done = 0; done < n; done += 16, at[0] += 16, at[1] += 16)
            if (!piece(w, in, i, to_shared ? PS_SHARED : PS_GLOBAL, at, 16))
                return VM_LEAVE;
        if (!to_shared)
            continue;
        uint64_t *bar = object(w, in, i, in->c, 0, 0);
        if (!bar)
            return VM_LEAVE;
        *bar = advance(*bar, 0, 0, -(int64_t)n);
    }
    return in + 1;
}

/* elect.sync: the lowest lane of the mask. */
const struct vm_ins *vm_op_elect(struct vm_warp *w, const struct vm_ins *in)
{
    uint32_t m = vm_mask(w, in), members = 0, *p = REG(uint32_t, in->e);
    const uint32_t *mask = REG(const uint32_t, in->a);
    for (uint32_t left = m; left; left &= left - 1)
        members |= mask[__builtin_ctz(left)];
    if (!m)
        return in + 1;
    if (!vm_gather(w, in, members))
        return VM_LEAVE;
    m = vm_mask(w, in);
    uint32_t leader = (uint32_t)__builtin_ctz(members & m ? members & m : m);
    for (uint32_t left = m; left; left &= left - 1)
        REG(uint32_t, in->d)[__builtin_ctz(left)] = leader;
    *p = (*p & ~m) | 1u << leader;
    return in + 1;
}
