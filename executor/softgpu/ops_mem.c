/* ld and st of global and shared memory, by element type, register width and vector length.  The
 * fast ways are a run of memory and a single place; then scattered lanes, all legal; the rest goes
 * through vm_ld_lanes and vm_st_lanes, which also serve the other spaces and raise the faults.
 * Filled into the tables of vm_ops.h; compiled twice, see ops_lanes.h. */
#include "executor/softgpu/ops_addr.h"

/* memory type, result cut before it is stored, destination slot */
#define LOAD(name, T, R, D, N, SHARED)                                                             \
    static const struct vm_ins *name##_lanes(struct vm_warp *w, const struct vm_ins *in,           \
                                             uint32_t m)                                           \
    {                                                                                              \
        uint32_t at[VM_LANES], size = sizeof(T) * N;                                               \
        uint64_t addr[VM_LANES];                                                                   \
        D *part[4] = {VM_REG(D, in->d), VM_REG(D, in->b), VM_REG(D, in->c), VM_REG(D, in->e)};     \
        if (SHARED ? !vm_scatter_shared(w, in, m, size, at)                                        \
                   : !vm_scatter_global(w, in, m, size, SOFT_PAGE_READ, addr))                     \
            return vm_ld_lanes(w, in);                                                             \
        if (SHARED && m == UINT32_MAX) {                                                           \
            const uint8_t *base = w->blk->shared;                                                  \
            for (int k = 0; k < N; k++)                                                            \
                VM_IVDEP for (int i = 0; i < VM_LANES; i++) part[k][i] =                           \
                    (D)(R)((const T *)(const void *)(base + at[i]))[k];                            \
            return in + 1;                                                                         \
        }                                                                                          \
        VM_EACH(i, m)                                                                              \
        {                                                                                          \
            const T *p = SHARED ? (const T *)(const void *)(w->blk->shared + at[i])                \
                                : (const T *)(uintptr_t)addr[i];                                   \
            for (int k = 0; k < N; k++)                                                            \
                part[k][i] = (D)(R)p[k];                                                           \
        }                                                                                          \
        return in + 1;                                                                             \
    }                                                                                              \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        uint32_t m = vm_mask(w, in);                                                               \
        if (!m)                                                                                    \
            return in + 1;                                                                         \
        struct vm_run run =                                                                        \
            vm_find_run(w, in, m, sizeof(T) * N, sizeof(T) * N, SHARED, SOFT_PAGE_READ);           \
        if (!run.ok)                                                                               \
            return name##_lanes(w, in, m);                                                         \
        const T *p = (const T *)(const void *)run.p;                                               \
        D *part[4] = {VM_REG(D, in->d), N > 1 ? VM_REG(D, in->b) : NULL,                           \
                      N > 2 ? VM_REG(D, in->c) : NULL, N > 2 ? VM_REG(D, in->e) : NULL};           \
        for (int k = 0; k < N; k++) {                                                              \
            D *d = part[k];                                                                        \
            if (run.same) {                                                                        \
                D one = (D)(R)p[k];                                                                \
                VM_IVDEP for (int i = 0; i < VM_LANES; i++) d[i] = m >> i & 1 ? one : d[i];        \
            } else if (m == UINT32_MAX) {                                                          \
                VM_IVDEP for (int i = 0; i < VM_LANES; i++) d[i] = (D)(R)p[i * N + k];             \
            } else {                                                                               \
                for (int i = 0; i < VM_LANES; i++)                                                 \
                    if (m >> i & 1)                                                                \
                        d[i] = (D)(R)p[i * N + k];                                                 \
            }                                                                                      \
        }                                                                                          \
        return in + 1;                                                                             \
    }

/* Several lanes at one place: the highest active lane's value stays. */
#define SAVE(name, T, S, N, SHARED)                                                                \
    static const struct vm_ins *name##_lanes(struct vm_warp *w, const struct vm_ins *in,           \
                                             uint32_t m)                                           \
    {                                                                                              \
        uint32_t at[VM_LANES], size = sizeof(T) * N;                                               \
        uint64_t addr[VM_LANES];                                                                   \
        const S *part[4] = {VM_REG(const S, in->d), VM_REG(const S, in->b),                        \
                            VM_REG(const S, in->c), VM_REG(const S, in->e)};                       \
        if (SHARED ? !vm_scatter_shared(w, in, m, size, at)                                        \
                   : !vm_scatter_global(w, in, m, size, SOFT_PAGE_READ | SOFT_PAGE_WRITE, addr))   \
            return vm_st_lanes(w, in);                                                             \
        VM_EACH(i, m)                                                                              \
        {                                                                                          \
            T *p = SHARED ? (T *)(void *)(w->blk->shared + at[i]) : (T *)(uintptr_t)addr[i];       \
            for (int k = 0; k < N; k++)                                                            \
                p[k] = (T)part[k][i];                                                              \
        }                                                                                          \
        return in + 1;                                                                             \
    }                                                                                              \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        uint32_t m = vm_mask(w, in);                                                               \
        if (!m)                                                                                    \
            return in + 1;                                                                         \
        struct vm_run run = vm_find_run(w, in, m, sizeof(T) * N, sizeof(T) * N, SHARED,            \
                                        SOFT_PAGE_READ | SOFT_PAGE_WRITE);                         \
        if (!run.ok)                                                                               \
            return name##_lanes(w, in, m);                                                         \
        T *p = (T *)(void *)run.p;                                                                 \
        const S *part[4] = {VM_REG(const S, in->d), N > 1 ? VM_REG(const S, in->b) : NULL,         \
                            N > 2 ? VM_REG(const S, in->c) : NULL,                                 \
                            N > 2 ? VM_REG(const S, in->e) : NULL};                                \
        for (int k = 0; k < N; k++) {                                                              \
            const S *s = part[k];                                                                  \
            if (run.same) {                                                                        \
                p[k] = (T)s[31 - __builtin_clz(m)];                                                \
            } else if (m == UINT32_MAX) {                                                          \
                VM_IVDEP for (int i = 0; i < VM_LANES; i++) p[i * N + k] = (T)s[i];                \
            } else {                                                                               \
                for (int i = 0; i < VM_LANES; i++)                                                 \
                    if (m >> i & 1)                                                                \
                        p[i * N + k] = (T)s[i];                                                    \
            }                                                                                      \
        }                                                                                          \
        return in + 1;                                                                             \
    }

#define LOADS(X)                                                                                   \
    X(u8_32, uint8_t, uint32_t, uint32_t)                                                          \
    X(u8_64, uint8_t, uint64_t, uint64_t)                                                          \
    X(s8_16, int8_t, uint16_t, uint32_t)                                                           \
    X(s8_32, int8_t, uint32_t, uint32_t)                                                           \
    X(s8_64, int8_t, uint64_t, uint64_t)                                                           \
    X(u16_32, uint16_t, uint32_t, uint32_t)                                                        \
    X(u16_64, uint16_t, uint64_t, uint64_t)                                                        \
    X(s16_32, int16_t, uint32_t, uint32_t)                                                         \
    X(s16_64, int16_t, uint64_t, uint64_t)                                                         \
    X(u32_32, uint32_t, uint32_t, uint32_t)                                                        \
    X(u32_64, uint32_t, uint64_t, uint64_t)                                                        \
    X(s32_64, int32_t, uint64_t, uint64_t)                                                         \
    X(u64_64, uint64_t, uint64_t, uint64_t)
#define SAVES(X)                                                                                   \
    X(u8_32, uint8_t, uint32_t)                                                                    \
    X(u8_64, uint8_t, uint64_t)                                                                    \
    X(u16_32, uint16_t, uint32_t)                                                                  \
    X(u16_64, uint16_t, uint64_t)                                                                  \
    X(u32_32, uint32_t, uint32_t)                                                                  \
    X(u32_64, uint32_t, uint64_t)                                                                  \
    X(u64_64, uint64_t, uint64_t)

#define LOAD_BOTH(n, T, R, D)                                                                      \
    LOAD(ldg_##n, T, R, D, 1, false)                                                               \
    LOAD(lds_##n, T, R, D, 1, true)
LOADS(LOAD_BOTH)
#define SAVE_BOTH(n, T, S)                                                                         \
    SAVE(stg_##n, T, S, 1, false)                                                                  \
    SAVE(sts_##n, T, S, 1, true)
SAVES(SAVE_BOTH)

#define VECTOR(n, T, D, N)                                                                         \
    LOAD(ldg##N##_##n, T, D, D, N, false)                                                          \
    LOAD(lds##N##_##n, T, D, D, N, true)                                                           \
    SAVE(stg##N##_##n, T, D, N, false)                                                             \
    SAVE(sts##N##_##n, T, D, N, true)
VECTOR(u32_32, uint32_t, uint32_t, 2)
VECTOR(u32_32, uint32_t, uint32_t, 4)
VECTOR(u64_64, uint64_t, uint64_t, 2)

VM_FILLER(mem)
{
    for (int sp = 0; sp < VM_SP_N; sp++)
        for (int t = 0; t < PT_N; t++)
            for (int dw = 0; dw < 3; dw++)
                for (int n = 0; n < 3; n++) {
                    isa->ld[sp][t][dw][n] = vm_ld_lanes;
                    isa->st[sp][t][dw][n] = vm_st_lanes;
                }
#define PUT(table, sp, pt, dw, n, f) isa->table[sp][pt][dw][n] = f;
#define PUT_LD(pt, dw, n)                                                                          \
    PUT(ld, VM_SP_GLOBAL, pt, dw, 0, ldg_##n)                                                      \
    PUT(ld, VM_SP_SHARED, pt, dw, 0, lds_##n)
#define PUT_ST(pt, dw, n)                                                                          \
    PUT(st, VM_SP_GLOBAL, pt, dw, 0, stg_##n)                                                      \
    PUT(st, VM_SP_SHARED, pt, dw, 0, sts_##n)
#define PUT_BOTH(pt, dw, n) PUT_LD(pt, dw, n) PUT_ST(pt, dw, n)
#define PUT_VECTOR(pt, dw, n, N, at)                                                               \
    PUT(ld, VM_SP_GLOBAL, pt, dw, at, ldg##N##_##n)                                                \
    PUT(ld, VM_SP_SHARED, pt, dw, at, lds##N##_##n)                                                \
    PUT(st, VM_SP_GLOBAL, pt, dw, at, stg##N##_##n)                                                \
    PUT(st, VM_SP_SHARED, pt, dw, at, sts##N##_##n)
    PUT_BOTH(PT_U8, 0, u8_32)
    PUT_BOTH(PT_U8, 1, u8_32)
    PUT_BOTH(PT_U8, 2, u8_64)
    PUT_LD(PT_S8, 0, s8_16)
    PUT_LD(PT_S8, 1, s8_32)
    PUT_LD(PT_S8, 2, s8_64)
    PUT_BOTH(PT_U16, 0, u16_32)
    PUT_BOTH(PT_U16, 1, u16_32)
    PUT_BOTH(PT_U16, 2, u16_64)
    PUT_LD(PT_S16, 0, u16_32)
    PUT_LD(PT_S16, 1, s16_32)
    PUT_LD(PT_S16, 2, s16_64)
    PUT_BOTH(PT_U32, 1, u32_32)
    PUT_BOTH(PT_U32, 2, u32_64)
    PUT_LD(PT_S32, 2, s32_64)
    PUT_BOTH(PT_U64, 2, u64_64)
    PUT_VECTOR(PT_U32, 1, u32_32, 2, 1)
    PUT_VECTOR(PT_U32, 1, u32_32, 4, 2)
    PUT_VECTOR(PT_U64, 2, u64_64, 2, 1)
}
