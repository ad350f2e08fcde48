/* Conversions to and from the narrow floats that tensor cores take: 8-bit e4m3 and e5m2 in pairs,
 * tf32; and f16 and bf16 to integral values.  Filled into the table of vm_ops.h; compiled twice,
 * see ops_lanes.h. */
#include "executor/softgpu/half.h"
#include "executor/softgpu/ops_lanes.h"

#include <math.h>

/* Nearest, ties to even; what is too large becomes the largest, infinity too; NaN has one form. */
static uint32_t fp8_from(double v, int man_bits, int bias, uint32_t largest)
{
    uint64_t u = vm_u64(v), sig = u & ((1ull << 52) - 1);
    uint32_t sign = (uint32_t)(u >> 63) << 7;
    int exp = (int)(u >> 52 & 0x7ff);
    if (v != v)
        return 0x7f;
    if (exp == 0x7ff)
        return sign | largest;
    if (exp)
        sig |= 1ull << 52;
    int to = exp - 1023 + bias, shift = 52 - man_bits;
    if (to < 1) {
        shift += 1 - to;
        to = 1;
    }
    if (shift > 62)
        shift = 62;
    uint64_t out = sig >> shift, rest = sig & ((1ull << shift) - 1), half = 1ull << (shift - 1);
    out += rest > half || (rest == half && (out & 1));
    out += (uint64_t)(to - 1) << man_bits;
    return sign | (out > largest ? largest : (uint32_t)out);
}

static uint32_t e4m3_from(double v)
{
    return fp8_from(v, 3, 7, 0x7e);
}

static uint32_t e5m2_from(double v)
{
    return fp8_from(v, 2, 15, 0x7b);
}

static uint16_t e4m3_half(uint32_t b)
{
    uint32_t sign = (b & 0x80) << 8, exp = b >> 3 & 15, man = b & 7;
    if ((b & 0x7f) == 0x7f)
        return 0x7fff;
    if (exp)
        return (uint16_t)(sign | (exp + 8) << 10 | man << 7);
    return (uint16_t)(sign | half_from((double)man * 0x1p-9, HALF_RN));
}

static uint16_t e5m2_half(uint32_t b)
{
    return (b & 0x7f) > 0x7c ? 0x7fff : (uint16_t)(b << 8);
}

static uint32_t relu8(uint32_t b, uint32_t aux)
{
    return (aux >> VM_AUX_SHIFT & 1) && (b & 0x80) ? 0 : b;
}

#define FP8(n)                                                                                     \
    static inline uint32_t n##_pair(double hi, double lo, uint32_t aux)                            \
    {                                                                                              \
        return relu8(n##_from(hi), aux) << 8 | relu8(n##_from(lo), aux);                           \
    }                                                                                              \
    VM_OP(pack_##n)                                                                                \
    {                                                                                              \
        const float *a = VM_REG(const float, in->a), *b = VM_REG(const float, in->b);              \
        uint32_t *d = VM_REG(uint32_t, in->d);                                                     \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        d[i] = n##_pair((double)a[i], (double)b[i], in->aux);                                      \
        return in + 1;                                                                             \
    }                                                                                              \
    VM_OP(cvt_##n##_f16x2)                                                                         \
    {                                                                                              \
        const uint32_t *a = VM_REG(const uint32_t, in->a);                                         \
        uint32_t *d = VM_REG(uint32_t, in->d);                                                     \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        d[i] = n##_pair((double)half_float((uint16_t)(a[i] >> 16)),                                \
                        (double)half_float((uint16_t)a[i]), in->aux);                              \
        return in + 1;                                                                             \
    }                                                                                              \
    VM_OP(cvt_f16x2_##n)                                                                           \
    {                                                                                              \
        const uint32_t *a = VM_REG(const uint32_t, in->a);                                         \
        uint32_t *d = VM_REG(uint32_t, in->d);                                                     \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        {                                                                                          \
            uint32_t hi = n##_half(a[i] >> 8 & 0xff), lo = n##_half(a[i] & 0xff);                  \
            if (in->aux >> VM_AUX_SHIFT & 1) {                                                     \
                hi = hi & 0x8000 ? 0 : hi;                                                         \
                lo = lo & 0x8000 ? 0 : lo;                                                         \
            }                                                                                      \
            d[i] = hi << 16 | lo;                                                                  \
        }                                                                                          \
        return in + 1;                                                                             \
    }
FP8(e4m3)
FP8(e5m2)

/* f32 with ten bits of fraction; the others are zero.  b: half of the last place, ties go away from
 * zero (rna), to even (rn), or nothing is added (rz). */
static inline uint32_t tf32_from(uint32_t u, uint32_t aux)
{
    if ((u & 0x7fffffff) > 0x7f800000)
        return 0x7fffffff;
    if ((u & 0x7f800000) != 0x7f800000) {
        uint32_t odd = u >> 13 & 1;
        u += aux & VM_CVT_RNA ? 0x1000 : (aux & VM_ROUND) == VM_ROUND_RN ? 0xfff + odd : 0;
    }
    u &= 0xffffe000;
    return (aux >> VM_AUX_SHIFT & 1) && u >> 31 ? 0 : u;
}

VM_OP(cvt_tf32)
{
    const uint32_t *a = VM_REG(const uint32_t, in->a);
    uint32_t aux = in->aux;
    VM_STORE(uint32_t, tf32_from(a[i], aux));
    return in + 1;
}

static double integral(double v, uint32_t aux)
{
    switch (aux & VM_ROUND) {
    case VM_ROUND_RZ:
        v = trunc(v);
        break;
    case VM_ROUND_RM:
        v = floor(v);
        break;
    case VM_ROUND_RP:
        v = ceil(v);
        break;
    default:
        v = nearbyint(v);
        break;
    }
    return !(aux & VM_SAT) ? v : v > 0 ? (v < 1 ? v : 1) : 0;
}

#define RINT(n, WIDEN, FROM)                                                                       \
    VM_OP(rint_##n)                                                                                \
    {                                                                                              \
        const uint32_t *a = VM_REG(const uint32_t, in->a);                                         \
        uint32_t *d = VM_REG(uint32_t, in->d);                                                     \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        d[i] = FROM(integral((double)WIDEN((uint16_t)a[i]), in->aux), HALF_RN);                    \
        return in + 1;                                                                             \
    }
RINT(f16, half_float, half_from)
RINT(bf16, half_bf_float, half_bf_from)

VM_FILLER(narrow)
{
    isa->fn[VO_CVT_PACK][PT_E4M3X2] = pack_e4m3;
    isa->fn[VO_CVT_PACK][PT_E5M2X2] = pack_e5m2;
    isa->fn[VO_CVT_NARROW][PT_E4M3X2] = cvt_e4m3_f16x2;
    isa->fn[VO_CVT_NARROW][PT_E5M2X2] = cvt_e5m2_f16x2;
    isa->fn[VO_CVT_WIDEN][PT_E4M3X2] = cvt_f16x2_e4m3;
    isa->fn[VO_CVT_WIDEN][PT_E5M2X2] = cvt_f16x2_e5m2;
    isa->fn[VO_CVT_NARROW][PT_TF32] = cvt_tf32;
    isa->fn[VO_RINT][PT_F16] = rint_f16;
    isa->fn[VO_RINT][PT_BF16] = rint_bf16;
}
