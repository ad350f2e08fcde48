/* Shape of the addresses of one memory operation: one run of memory, one place, or scattered.  For
 * ops_mem.c; the shapes are what makes most accesses one vector copy instead of 32 checked ones. */
#ifndef TFR_SOFTGPU_OPS_ADDR_H
#define TFR_SOFTGPU_OPS_ADDR_H

#include "executor/softgpu/devmem.h"
#include "executor/softgpu/ops_lanes.h"

enum vm_shape { VM_RUN, VM_ONE, VM_SCATTER };

/* base_out: address of lane 0 for VM_RUN (even if lane 0 is not active), the place for VM_ONE. */
#define VM_SHAPE(T)                                                                                \
    static inline enum vm_shape shape_##T(const T *a, uint32_t m, uint32_t size, T *base_out)      \
    {                                                                                              \
        unsigned int first = (unsigned int)__builtin_ctz(m);                                       \
        T one = a[first], base = one - (T)(first * size), run = 0, same = 0;                       \
        if (m == UINT32_MAX) {                                                                     \
            for (int i = 0; i < VM_LANES; i++) {                                                   \
                run |= a[i] ^ (base + (T)((uint32_t)i * size));                                    \
                same |= a[i] ^ one;                                                                \
            }                                                                                      \
        } else {                                                                                   \
            for (int i = 0; i < VM_LANES; i++) {                                                   \
                T on = (T)0 - (T)(m >> i & 1);                                                     \
                run |= (a[i] ^ (base + (T)((uint32_t)i * size))) & on;                             \
                same |= (a[i] ^ one) & on;                                                         \
            }                                                                                      \
        }                                                                                          \
        *base_out = run ? one : base;                                                              \
        return !run ? VM_RUN : !same ? VM_ONE : VM_SCATTER;                                        \
    }
VM_SHAPE(uint32_t)
VM_SHAPE(uint64_t)

struct vm_run {
    uint8_t *p;    /* of lane 0 for VM_RUN */
    bool ok, same; /* !ok: scattered, or something is wrong with it: the careful way decides */
};

static inline struct vm_run vm_run_check(struct vm_warp *w, const struct vm_ins *in, uint32_t m,
                                         enum vm_shape shape, uint64_t base, uint32_t size,
                                         uint32_t align, bool shared, unsigned int want)
{
    struct vm_run r = {NULL, false, shape == VM_ONE};
    (void)in;
    if (shape == VM_SCATTER)
        return r;
    unsigned int first = r.same ? 0 : (unsigned int)__builtin_ctz(m);
    unsigned int last = r.same ? 0 : 31 - (unsigned int)__builtin_clz(m);
    uint64_t from = base + first * size, len = (last - first + 1) * size;
    if (from & (align - 1))
        return r;
    if (shared) {
        if (from >> 32 || from + len > w->blk->shared_len)
            return r;
        r.p = w->blk->shared + base;
    } else {
        if (!soft_mem_ok(from, len, want))
            return r;
        r.p = (uint8_t *)(uintptr_t)base;
    }
    r.ok = true;
    return r;
}

static inline struct vm_run vm_find_run(struct vm_warp *w, const struct vm_ins *in, uint32_t m,
                                        uint32_t size, uint32_t align, bool shared,
                                        unsigned int want)
{
    enum vm_shape shape;
    uint64_t base;
    if (in->aux & VM_MEM_A32) {
        uint32_t b32;
        shape = shape_uint32_t(VM_REG(const uint32_t, in->a), m, size, &b32);
        base = (uint32_t)(b32 + (uint32_t)in->imm);
    } else {
        shape = shape_uint64_t(VM_REG(const uint64_t, in->a), m, size, &base);
        base += (uint64_t)in->imm;
    }
    return vm_run_check(w, in, m, shape, base, size, align, shared, want);
}

/* Scattered, but all in bounds and aligned?  Then where; lanes that are not active get the start.
 */
static inline bool vm_scatter_shared(struct vm_warp *w, const struct vm_ins *in, uint32_t m,
                                     uint32_t size, uint32_t *at)
{
    uint32_t bad = 0, len = w->blk->shared_len;
    if (len < size)
        return false;
    if (in->aux & VM_MEM_A32) {
        const uint32_t *a = VM_REG(const uint32_t, in->a);
        for (int i = 0; i < VM_LANES; i++)
            at[i] = m >> i & 1 ? a[i] + (uint32_t)in->imm : 0;
    } else {
        const uint64_t *a = VM_REG(const uint64_t, in->a);
        for (int i = 0; i < VM_LANES; i++) {
            uint64_t v = m >> i & 1 ? a[i] + (uint64_t)in->imm : 0;
            at[i] = v >> 32 ? UINT32_MAX : (uint32_t)v;
        }
    }
    for (int i = 0; i < VM_LANES; i++)
        bad |= (uint32_t)(at[i] > len - size) | (at[i] & (size - 1));
    return !bad;
}

/* An aligned access lies in one page: a page is looked up once for its neighbours. */
static inline bool vm_scatter_global(struct vm_warp *w, const struct vm_ins *in, uint32_t m,
                                     uint32_t size, unsigned int want, uint64_t *at)
{
    const uint64_t *a = VM_REG(const uint64_t, in->a);
    uint64_t page = UINT64_MAX;
    VM_EACH(i, m)
    {
        uint64_t v = a[i] + (uint64_t)in->imm;
        at[i] = v;
        if (v & (size - 1))
            return false;
        if (v >> SOFT_PAGE_SHIFT == page)
            continue;
        if (!soft_mem_ok(v, size, want))
            return false;
        /* registered host memory may end inside a page */
        page = v - soft_mem.base < soft_mem.len ? v >> SOFT_PAGE_SHIFT : UINT64_MAX;
    }
    return true;
}

#endif
