/* cvt between all integer and floating-point types.  The decoder takes care of wider registers,
 * ftz, sat and rounding modes (the wrapper of ops_float.c).  Filled into the table of vm_ops.h;
 * compiled twice, see ops_lanes.h.  Float to integer clamps; NaN gives 0, or the top bit where a
 * 64-bit type is involved. */
#include "executor/softgpu/half.h"
#include "executor/softgpu/ops_lanes.h"

#include <math.h>

/* name, table type, slot, value, result, lowest, highest */
#define INTS(X, ...)                                                                               \
    X(u8, PT_U8, uint32_t, uint8_t, uint8_t, 0, UINT8_MAX, __VA_ARGS__)                            \
    X(s8, PT_S8, uint32_t, int8_t, uint8_t, INT8_MIN, INT8_MAX, __VA_ARGS__)                       \
    X(u16, PT_U16, uint32_t, uint16_t, uint16_t, 0, UINT16_MAX, __VA_ARGS__)                       \
    X(s16, PT_S16, uint32_t, int16_t, uint16_t, INT16_MIN, INT16_MAX, __VA_ARGS__)                 \
    X(u32, PT_U32, uint32_t, uint32_t, uint32_t, 0, UINT32_MAX, __VA_ARGS__)                       \
    X(s32, PT_S32, uint32_t, int32_t, uint32_t, INT32_MIN, INT32_MAX, __VA_ARGS__)                 \
    X(u64, PT_U64, uint64_t, uint64_t, uint64_t, 0, UINT64_MAX, __VA_ARGS__)                       \
    X(s64, PT_S64, uint64_t, int64_t, uint64_t, INT64_MIN, INT64_MAX, __VA_ARGS__)
/* The same again: a macro cannot expand inside itself. */
#define INTS2(X, ...)                                                                              \
    X(u8, PT_U8, uint32_t, uint8_t, uint8_t, 0, UINT8_MAX, __VA_ARGS__)                            \
    X(s8, PT_S8, uint32_t, int8_t, uint8_t, INT8_MIN, INT8_MAX, __VA_ARGS__)                       \
    X(u16, PT_U16, uint32_t, uint16_t, uint16_t, 0, UINT16_MAX, __VA_ARGS__)                       \
    X(s16, PT_S16, uint32_t, int16_t, uint16_t, INT16_MIN, INT16_MAX, __VA_ARGS__)                 \
    X(u32, PT_U32, uint32_t, uint32_t, uint32_t, 0, UINT32_MAX, __VA_ARGS__)                       \
    X(s32, PT_S32, uint32_t, int32_t, uint32_t, INT32_MIN, INT32_MAX, __VA_ARGS__)                 \
    X(u64, PT_U64, uint64_t, uint64_t, uint64_t, 0, UINT64_MAX, __VA_ARGS__)                       \
    X(s64, PT_S64, uint64_t, int64_t, uint64_t, INT64_MIN, INT64_MAX, __VA_ARGS__)

static inline __int128 clamp_wide(__int128 v, __int128 lo, __int128 hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

#define I2I(dn, dpt, DS, DV, DR, DLO, DHI, sn, SS, SV)                                             \
    VM_OP1(cvt_##dn##_##sn, DS, DR, SS, SV, (DV)x)                                                 \
    VM_OP1(cvts_##dn##_##sn, DS, DR, SS, SV, clamp_wide(x, DLO, DHI))
#define I2I_FROM(sn, spt, SS, SV, SR, LO, HI, ...) INTS2(I2I, sn, SS, SV)
INTS(I2I_FROM, 0)

#define I2F(sn, spt, SS, SV, SR, LO, HI, ...)                                                      \
    VM_OP1(cvt_f32_##sn, float, float, SS, SV, x)                                                  \
    VM_OP1(cvt_f64_##sn, double, double, SS, SV, x)
INTS(I2F, 0)

/* hi is the first power of two that no longer fits. */
#define F2I(dn, dpt, DS, DV, DR, DLO, DHI, fn, F, NAN_BITS)                                        \
    static inline DR clamp_##dn##_##fn(F x)                                                        \
    {                                                                                              \
        const F hi = (F)(DHI / 2 + 1) * 2, lo = (F)DLO;                                            \
        if (x != x)                                                                                \
            return (DR)((NAN_BITS) || sizeof(DR) == 8 ? (DR)((DR)1 << (8 * sizeof(DR) - 1)) : 0);  \
        return (DR)(x >= hi ? (DV)DHI : x <= lo ? (DV)DLO : (DV)x);                                \
    }                                                                                              \
    VM_OP1(cvt_##dn##_##fn, DS, DR, F, F, clamp_##dn##_##fn(x))
INTS(F2I, f32, float, 0)
INTS(F2I, f64, double, 1)
#define F2I_ROUND(dn, dpt, DS, DV, DR, DLO, DHI, ...)                                              \
    VM_OP1(cvtr_##dn##_f32, DS, DR, float, float, clamp_##dn##_f32(rintf(x)))                      \
    VM_OP1(cvtr_##dn##_f64, DS, DR, double, double, clamp_##dn##_f64(rint(x)))
INTS(F2I_ROUND, 0)

VM_OP1(cvt_f64_f32, double, double, float, float, x)
VM_OP1(cvt_f32_f64, float, float, double, double, vm_canon((float)x))
VM_OP1(mov_f32, float, float, float, float, vm_canon(x))
VM_OP1(mov_f64, double, double, double, double, x)

/* Halves.  The mode is the instruction's, for the host cannot round to them. */
#define HALVES(X)                                                                                  \
    X(f16, PT_F16, half_float, half_from)                                                          \
    X(bf16, PT_BF16, half_bf_float, half_bf_from)

static inline uint16_t relu_half(uint16_t h)
{
    return h < 0x8000 ? h : 0; /* NaN, 0x7fff, stays */
}

/* sat: to [0, 1] before rounding, which keeps both ends; NaN gives 0 */
static inline double sat_half(double v, uint32_t aux)
{
    if (!(aux & VM_SAT))
        return v;
    return v > 0 ? (v < 1 ? v : 1) : 0;
}

#define TO_HALF(name, S, V, FROM, POST)                                                            \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a);                                                       \
        uint32_t *d = VM_REG(uint32_t, in->d);                                                     \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        d[i] = POST(FROM(sat_half((double)(V)a[i], in->aux), in->aux & VM_ROUND));                 \
        return in + 1;                                                                             \
    }
#define SAME(v) (v)
#define HALF(hn, pt, WIDEN, FROM)                                                                  \
    VM_OP1(cvt_f32_##hn, float, float, uint32_t, uint16_t, vm_canon(WIDEN(x)))                     \
    VM_OP1(cvt_f64_##hn, double, double, uint32_t, uint16_t, (double)WIDEN(x))                     \
    TO_HALF(cvt_##hn##_f32, float, float, FROM, SAME)                                              \
    TO_HALF(cvt_##hn##_f64, double, double, FROM, SAME)                                            \
    TO_HALF(cvtz_##hn##_f32, float, float, FROM, relu_half)                                        \
    VM_OP(pack_##hn)                                                                               \
    {                                                                                              \
        const float *a = VM_REG(const float, in->a), *b = VM_REG(const float, in->b);              \
        uint32_t *d = VM_REG(uint32_t, in->d);                                                     \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        {                                                                                          \
            uint16_t hi = FROM((double)a[i], in->aux & VM_ROUND);                                  \
            uint16_t lo = FROM((double)b[i], in->aux & VM_ROUND);                                  \
            if (in->aux >> VM_AUX_SHIFT & 1) {                                                     \
                hi = relu_half(hi);                                                                \
                lo = relu_half(lo);                                                                \
            }                                                                                      \
            d[i] = (uint32_t)hi << 16 | lo;                                                        \
        }                                                                                          \
        return in + 1;                                                                             \
    }
HALVES(HALF)

/* Integers to halves: 64-bit ones do not fit a double, so their low bits are made sticky first. */
static inline double sticky_u64(uint64_t v)
{
    return v >> 53 ? (double)((v >> 11 | (v & 2047 ? 1 : 0)) << 1) * 0x1p10 : (double)v;
}
static inline double sticky_s64(int64_t v)
{
    return v < 0 ? -sticky_u64(0 - (uint64_t)v) : sticky_u64((uint64_t)v);
}
#define I2H(sn, spt, SS, SV, SR, LO, HI, hn, FROM)                                                 \
    VM_OP(cvt_##hn##_##sn)                                                                         \
    {                                                                                              \
        const SS *a = VM_REG(const SS, in->a);                                                     \
        uint32_t *d = VM_REG(uint32_t, in->d);                                                     \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        {                                                                                          \
            SV v = (SV)a[i];                                                                       \
            double f = LO ? sticky_s64((int64_t)v) : sticky_u64((uint64_t)v);                      \
            d[i] = FROM(f, in->aux & VM_ROUND);                                                    \
        }                                                                                          \
        return in + 1;                                                                             \
    }
INTS(I2H, f16, half_from)
INTS(I2H, bf16, half_bf_from)
#define H2I(dn, dpt, DS, DV, DR, DLO, DHI, hn, WIDEN)                                              \
    VM_OP1(cvt_##dn##_##hn, DS, DR, uint32_t, uint16_t, clamp_##dn##_f32(WIDEN(x)))                \
    VM_OP1(cvtr_##dn##_##hn, DS, DR, uint32_t, uint16_t, clamp_##dn##_f32(rintf(WIDEN(x))))
INTS(H2I, f16, half_float)
INTS(H2I, bf16, half_bf_float)

VM_FILLER(cvt)
{
#define PUT(dn, dpt, DS, DV, DR, DLO, DHI, sn, spt)                                                \
    isa->cvt[VCV_PLAIN][dpt][spt] = cvt_##dn##_##sn;                                               \
    isa->cvt[VCV_SAT][dpt][spt] = cvts_##dn##_##sn;
#define PUT_FROM(sn, spt, SS, SV, SR, LO, HI, ...) INTS2(PUT, sn, spt)
    INTS(PUT_FROM, 0)
#define PUT_FLOAT(n, pt, S, V, R, LO, HI, ...)                                                     \
    isa->cvt[VCV_PLAIN][PT_F32][pt] = cvt_f32_##n;                                                 \
    isa->cvt[VCV_PLAIN][PT_F64][pt] = cvt_f64_##n;                                                 \
    isa->cvt[VCV_PLAIN][PT_F16][pt] = cvt_f16_##n;                                                 \
    isa->cvt[VCV_PLAIN][PT_BF16][pt] = cvt_bf16_##n;                                               \
    isa->cvt[VCV_PLAIN][pt][PT_F32] = cvt_##n##_f32;                                               \
    isa->cvt[VCV_PLAIN][pt][PT_F64] = cvt_##n##_f64;                                               \
    isa->cvt[VCV_PLAIN][pt][PT_F16] = cvt_##n##_f16;                                               \
    isa->cvt[VCV_PLAIN][pt][PT_BF16] = cvt_##n##_bf16;                                             \
    isa->cvt[VCV_ROUND][pt][PT_F32] = cvtr_##n##_f32;                                              \
    isa->cvt[VCV_ROUND][pt][PT_F64] = cvtr_##n##_f64;                                              \
    isa->cvt[VCV_ROUND][pt][PT_F16] = cvtr_##n##_f16;                                              \
    isa->cvt[VCV_ROUND][pt][PT_BF16] = cvtr_##n##_bf16;
    INTS(PUT_FLOAT, 0)
#define PUT_HALF(hn, pt, WIDEN, FROM)                                                              \
    isa->cvt[VCV_PLAIN][PT_F32][pt] = cvt_f32_##hn;                                                \
    isa->cvt[VCV_PLAIN][PT_F64][pt] = cvt_f64_##hn;                                                \
    isa->cvt[VCV_PLAIN][pt][PT_F32] = cvt_##hn##_f32;                                              \
    isa->cvt[VCV_PLAIN][pt][PT_F64] = cvt_##hn##_f64;                                              \
    isa->cvt[VCV_RELU][pt][PT_F32] = cvtz_##hn##_f32;
    HALVES(PUT_HALF)
    isa->cvt[VCV_PLAIN][PT_F64][PT_F32] = cvt_f64_f32;
    isa->cvt[VCV_PLAIN][PT_F32][PT_F64] = cvt_f32_f64;
    isa->cvt[VCV_PLAIN][PT_F32][PT_F32] = mov_f32;
    isa->cvt[VCV_PLAIN][PT_F64][PT_F64] = mov_f64;
    isa->fn[VO_CVT_PACK][PT_F16X2] = pack_f16;
    isa->fn[VO_CVT_PACK][PT_BF16X2] = pack_bf16;
}
