/* setp and set: comparisons of integers and floats, joined with a third predicate, with one or two
 * results.  Filled into the tables of vm_ops.h; compiled twice, see ops_lanes.h. */
#include "executor/softgpu/ops_lanes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* One bit per lane from 32 words that are 0 or -1. */
static inline uint32_t bits_of(const int32_t *t)
{
    uint32_t r = 0;
#if defined(__AVX2__)
    for (int k = 0; k < 4; k++)
        r |= (uint32_t)_mm256_movemask_ps(
                 _mm256_castsi256_ps(_mm256_loadu_si256((const __m256i *)(t + 8 * k))))
             << (8 * k);
#elif defined(__x86_64__)
    for (int k = 0; k < 8; k++)
        r |= (uint32_t)_mm_movemask_ps(
                 _mm_castsi128_ps(_mm_loadu_si128((const __m128i *)(t + 4 * k))))
             << (4 * k);
#else
    for (int i = 0; i < VM_LANES; i++)
        r |= (uint32_t)(t[i] & 1) << i;
#endif
    return r;
}

static inline const struct vm_ins *finish(struct vm_warp *w, const struct vm_ins *in, uint32_t r)
{
    uint32_t m = vm_mask(w, in), *p = VM_REG(uint32_t, in->d), *q = VM_REG(uint32_t, in->e);
    uint32_t how = in->aux >> VM_AUX_SHIFT, no = ~r;
    uint32_t c = *VM_REG(const uint32_t, in->c) ^ (how & VM_JOIN_NEG ? UINT32_MAX : 0);
    switch (how & VM_JOIN) {
    case VM_JOIN_AND:
        r &= c;
        no &= c;
        break;
    case VM_JOIN_OR:
        r |= c;
        no |= c;
        break;
    case VM_JOIN_XOR:
        r ^= c;
        no ^= c;
        break;
    default:
        break;
    }
    *q = (*q & ~m) | (no & m);
    *p = (*p & ~m) | (r & m);
    return in + 1;
}

/* set: all ones or 1.0 where true, in a 32-bit register. */
static inline const struct vm_ins *finish_set(struct vm_warp *w, const struct vm_ins *in,
                                              uint32_t r)
{
    uint32_t how = in->aux >> VM_AUX_SHIFT;
    uint32_t c = *VM_REG(const uint32_t, in->c) ^ (how & VM_JOIN_NEG ? UINT32_MAX : 0);
    uint32_t yes = how & VM_SET_FLOAT  ? 0x3f800000
                   : how & VM_SET_HALF ? 0x3c00
                   : how & VM_SET_BF   ? 0x3f80
                                       : UINT32_MAX;
    if ((how & VM_JOIN) == VM_JOIN_AND)
        r &= c;
    else if ((how & VM_JOIN) == VM_JOIN_OR)
        r |= c;
    else if ((how & VM_JOIN) == VM_JOIN_XOR)
        r ^= c;
    VM_STORE(uint32_t, r >> i & 1 ? yes : 0);
    return in + 1;
}

#define CMP(name, S, V, EXPR)                                                                      \
    static inline uint32_t name##_bits(struct vm_warp *w, const struct vm_ins *in)                 \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a), *b = VM_REG(const S, in->b);                          \
        int32_t t[VM_LANES];                                                                       \
        VM_IVDEP for (int i = 0; i < VM_LANES; i++)                                                \
        {                                                                                          \
            V x = (V)a[i], y = (V)b[i];                                                            \
            t[i] = (EXPR) ? -1 : 0;                                                                \
        }                                                                                          \
        return bits_of(t);                                                                         \
    }                                                                                              \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        return finish(w, in, name##_bits(w, in));                                                  \
    }                                                                                              \
    VM_OP(set_##name)                                                                              \
    {                                                                                              \
        return finish_set(w, in, name##_bits(w, in));                                              \
    }

#define CMPS(n, S, V)                                                                              \
    CMP(eq_##n, S, V, x == y)                                                                      \
    CMP(ne_##n, S, V, x != y)                                                                      \
    CMP(lt_##n, S, V, x < y)                                                                       \
    CMP(le_##n, S, V, x <= y)                                                                      \
    CMP(gt_##n, S, V, x > y)                                                                       \
    CMP(ge_##n, S, V, x >= y)
CMPS(u16, uint32_t, uint16_t)
CMPS(s16, uint32_t, int16_t)
CMPS(u32, uint32_t, uint32_t)
CMPS(s32, uint32_t, int32_t)
CMPS(u64, uint64_t, uint64_t)
CMPS(s64, uint64_t, int64_t)

/* The ordered ones are false for NaN; "ne" included, unlike C's. */
#define CMPS_F(n, S)                                                                               \
    CMP(eq_##n, S, S, x == y)                                                                      \
    CMP(ne_##n, S, S, (x < y) | (x > y))                                                           \
    CMP(lt_##n, S, S, x < y)                                                                       \
    CMP(le_##n, S, S, x <= y)                                                                      \
    CMP(gt_##n, S, S, x > y)                                                                       \
    CMP(ge_##n, S, S, x >= y)                                                                      \
    CMP(equ_##n, S, S, !((x < y) | (x > y)))                                                       \
    CMP(neu_##n, S, S, x != y)                                                                     \
    CMP(ltu_##n, S, S, !(x >= y))                                                                  \
    CMP(leu_##n, S, S, !(x > y))                                                                   \
    CMP(gtu_##n, S, S, !(x <= y))                                                                  \
    CMP(geu_##n, S, S, !(x < y))                                                                   \
    CMP(num_##n, S, S, (x == x) & (y == y))                                                        \
    CMP(nan_##n, S, S, (x != x) | (y != y))
CMPS_F(f32, float)
CMPS_F(f64, double)

VM_FILLER(cmp)
{
#define PUT(n, pt, c, name)                                                                        \
    isa->setp[c][pt] = name##_##n;                                                                 \
    isa->set[c][pt] = set_##name##_##n;
#define PUT_ALL(n, pt)                                                                             \
    PUT(n, pt, VC_EQ, eq)                                                                          \
    PUT(n, pt, VC_NE, ne)                                                                          \
    PUT(n, pt, VC_LT, lt)                                                                          \
    PUT(n, pt, VC_LE, le)                                                                          \
    PUT(n, pt, VC_GT, gt)                                                                          \
    PUT(n, pt, VC_GE, ge)
#define PUT_FLOAT(n, pt)                                                                           \
    PUT_ALL(n, pt)                                                                                 \
    PUT(n, pt, VC_EQU, equ)                                                                        \
    PUT(n, pt, VC_NEU, neu)                                                                        \
    PUT(n, pt, VC_LTU, ltu)                                                                        \
    PUT(n, pt, VC_LEU, leu)                                                                        \
    PUT(n, pt, VC_GTU, gtu)                                                                        \
    PUT(n, pt, VC_GEU, geu)                                                                        \
    PUT(n, pt, VC_NUM, num)                                                                        \
    PUT(n, pt, VC_NAN, nan)
    PUT_ALL(u16, PT_U16)
    PUT_ALL(s16, PT_S16)
    PUT_ALL(u32, PT_U32)
    PUT_ALL(s32, PT_S32)
    PUT_ALL(u64, PT_U64)
    PUT_ALL(s64, PT_S64)
    PUT_FLOAT(f32, PT_F32)
    PUT_FLOAT(f64, PT_F64)
    PUT(u16, PT_B16, VC_EQ, eq)
    PUT(u16, PT_B16, VC_NE, ne)
    PUT(u32, PT_B32, VC_EQ, eq)
    PUT(u32, PT_B32, VC_NE, ne)
    PUT(u64, PT_B64, VC_EQ, eq)
    PUT(u64, PT_B64, VC_NE, ne)
}
