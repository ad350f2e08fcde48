/* Integer arithmetic: add to rem, carry chains, min/max, saturation.  Filled into the table of
 * vm_ops.h; compiled twice, see ops_lanes.h.  16-bit values live in 32-bit slots with their upper
 * half zero. */
#include "executor/softgpu/ops_lanes.h"

typedef unsigned __int128 u128;
typedef __int128 s128;

/* name, table type, slot, value, result, unsigned value, wide result, wide slot, bits */
#define INT_TYPES(X)                                                                               \
    X(u16, PT_U16, uint32_t, uint16_t, uint16_t, uint16_t, uint32_t, 16)                           \
    X(s16, PT_S16, uint32_t, int16_t, uint16_t, uint16_t, int32_t, 16)                             \
    X(u32, PT_U32, uint32_t, uint32_t, uint32_t, uint32_t, uint64_t, 32)                           \
    X(s32, PT_S32, uint32_t, int32_t, uint32_t, uint32_t, int64_t, 32)                             \
    X(u64, PT_U64, uint64_t, uint64_t, uint64_t, uint64_t, u128, 64)                               \
    X(s64, PT_S64, uint64_t, int64_t, uint64_t, uint64_t, s128, 64)

#define ARITH(n, pt, S, V, R, U, W, BITS)                                                          \
    VM_OP2(add_##n, S, R, S, V, (U)((U)x + (U)y))                                                  \
    VM_OP2(sub_##n, S, R, S, V, (U)((U)x - (U)y))                                                  \
    VM_OP2(mul_##n, S, R, S, V, (U)((uint64_t)x * (uint64_t)y))                                    \
    VM_OP2(mulhi_##n, S, R, S, V, (U)((W)((W)x * (W)y) >> BITS))                                   \
    VM_OP3(mad_##n, S, R, S, V, (U)((uint64_t)x * (uint64_t)y + (uint64_t)z))                      \
    VM_OP3(madhi_##n, S, R, S, V, (U)((U)((W)((W)x * (W)y) >> BITS) + (U)z))                       \
    VM_OP3(sad_##n, S, R, S, V, (U)((U)z + (x < y ? (U)((U)y - (U)x) : (U)((U)x - (U)y))))         \
    VM_OP2(min_##n, S, R, S, V, x < y ? x : y)                                                     \
    VM_OP2(max_##n, S, R, S, V, x > y ? x : y)                                                     \
    VM_OP3(min3_##n, S, R, S, V, x < y ? (x < z ? x : z) : (y < z ? y : z))                        \
    VM_OP3(max3_##n, S, R, S, V, x > y ? (x > z ? x : z) : (y > z ? y : z))
INT_TYPES(ARITH)

/* Division by zero gives all ones, as the hardware's routine does; the remainder is the dividend.
 */
#define DIVIDE(n, pt, S, V, R, U, W, BITS)                                                         \
    static inline R div_##n##_f(V x, V y)                                                          \
    {                                                                                              \
        if (!y)                                                                                    \
            return (R) ~(R)0;                                                                      \
        if ((V)-1 < (V)1 && y == (V)-1)                                                            \
            return (R)(0 - (U)x);                                                                  \
        return (R)(x / y);                                                                         \
    }                                                                                              \
    static inline R rem_##n##_f(V x, V y)                                                          \
    {                                                                                              \
        if (!y)                                                                                    \
            return (R)x;                                                                           \
        if ((V)-1 < (V)1 && y == (V)-1)                                                            \
            return 0;                                                                              \
        return (R)(x % y);                                                                         \
    }                                                                                              \
    VM_OP(div_##n)                                                                                 \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a), *b = VM_REG(const S, in->b);                          \
        S *d = VM_REG(S, in->d);                                                                   \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        d[i] = div_##n##_f((V)a[i], (V)b[i]);                                                      \
        return in + 1;                                                                             \
    }                                                                                              \
    VM_OP(rem_##n)                                                                                 \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a), *b = VM_REG(const S, in->b);                          \
        S *d = VM_REG(S, in->d);                                                                   \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        d[i] = rem_##n##_f((V)a[i], (V)b[i]);                                                      \
        return in + 1;                                                                             \
    }
INT_TYPES(DIVIDE)

/* name, slot and value of the source, slot, value and result of the destination */
#define WIDE(n, S, V, WS, WV, WR)                                                                  \
    VM_OP2(mulwide_##n, WS, WR, S, V, (WV)x *(WV)y)                                                \
    VM_OP3T(madwide_##n, WS, WR, S, V, S, V, WS, WR, (WR)((WV)x * (WV)y) + z)
WIDE(u16, uint32_t, uint16_t, uint32_t, uint32_t, uint32_t)
WIDE(s16, uint32_t, int16_t, uint32_t, int32_t, uint32_t)
WIDE(u32, uint32_t, uint32_t, uint64_t, uint64_t, uint64_t)
WIDE(s32, uint32_t, int32_t, uint64_t, int64_t, uint64_t)

static inline int64_t low24(int64_t v)
{
    return (int64_t)((uint64_t)v << 40) >> 40;
}

#define MUL24(n, V, CUT)                                                                           \
    VM_OP2(mul24_##n, uint32_t, uint32_t, uint32_t, V, (uint64_t)(CUT(x) * CUT(y)))                \
    VM_OP2(mul24hi_##n, uint32_t, uint32_t, uint32_t, V, (uint64_t)(CUT(x) * CUT(y)) >> 16)        \
    VM_OP3(mad24_##n, uint32_t, uint32_t, uint32_t, V, (uint64_t)(CUT(x) * CUT(y)) + (uint64_t)z)  \
    VM_OP3(mad24hi_##n, uint32_t, uint32_t, uint32_t, V,                                           \
           ((uint64_t)(CUT(x) * CUT(y)) >> 16) + (uint64_t)z)
#define CUT_U(v) ((uint64_t)((v)&0xffffff))
MUL24(u32, uint32_t, CUT_U)
MUL24(s32, int32_t, low24)

static inline int64_t clamp32(int64_t v)
{
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : v;
}
VM_OP2(add_sat, uint32_t, uint32_t, uint32_t, int32_t, clamp32((int64_t)x + y))
VM_OP2(sub_sat, uint32_t, uint32_t, uint32_t, int32_t, clamp32((int64_t)x - y))
VM_OP3(madhi_sat, uint32_t, uint32_t, uint32_t, int32_t, clamp32((((int64_t)x * y) >> 32) + z))
VM_OP2(min_relu, uint32_t, uint32_t, uint32_t, int32_t, (x < y ? x : y) < 0 ? 0 : x < y ? x : y)
VM_OP2(max_relu, uint32_t, uint32_t, uint32_t, int32_t, (x > y ? x : y) < 0 ? 0 : x > y ? x : y)

#define SIGNED(n, S, V, R, U)                                                                      \
    VM_OP1(abs_##n, S, R, S, V, x < 0 ? (U)(0 - (U)x) : (U)x)                                      \
    VM_OP1(neg_##n, S, R, S, V, (U)(0 - (U)x))
SIGNED(s16, uint32_t, int16_t, uint16_t, uint16_t)
SIGNED(s32, uint32_t, int32_t, uint32_t, uint32_t)
SIGNED(s64, uint64_t, int64_t, uint64_t, uint64_t)

/* Carry chains.  CC.CF is one bit per lane in the warp.  A subtraction is a + ~b + 1, so the flag
 * it leaves means that nothing was borrowed: nvcc's 128-bit division adds it up with addc. */
#define CHAIN(n, S, W, BITS)                                                                       \
    VM_OP(addc_##n)                                                                                \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a), *b = VM_REG(const S, in->b);                          \
        S *d = VM_REG(S, in->d);                                                                   \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        {                                                                                          \
            W sum = (W)a[i] + b[i] + (in->aux & VM_CC_IN ? w->carry >> i & 1 : 0);                 \
            d[i] = (S)sum;                                                                         \
            if (in->aux & VM_CC_OUT)                                                               \
                w->carry = (w->carry & ~(1u << i)) | (uint32_t)(sum >> BITS & 1) << i;             \
        }                                                                                          \
        return in + 1;                                                                             \
    }                                                                                              \
    VM_OP(subc_##n)                                                                                \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a), *b = VM_REG(const S, in->b);                          \
        S *d = VM_REG(S, in->d);                                                                   \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        {                                                                                          \
            W diff = (W)a[i] + (S)~b[i] + (in->aux & VM_CC_IN ? w->carry >> i & 1 : 1);            \
            d[i] = (S)diff;                                                                        \
            if (in->aux & VM_CC_OUT)                                                               \
                w->carry = (w->carry & ~(1u << i)) | (uint32_t)(diff >> BITS & 1) << i;            \
        }                                                                                          \
        return in + 1;                                                                             \
    }
CHAIN(u32, uint32_t, uint64_t, 32)
CHAIN(u64, uint64_t, u128, 64)

#define MAD_CHAIN(name, S, V, W, SUM, PRODUCT, BITS)                                               \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a), *b = VM_REG(const S, in->b);                          \
        const S *c = VM_REG(const S, in->c);                                                       \
        S *d = VM_REG(S, in->d);                                                                   \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        {                                                                                          \
            W p = (W)(V)a[i] * (W)(V)b[i];                                                         \
            SUM sum = (SUM)(S)(PRODUCT) + c[i] + (in->aux & VM_CC_IN ? w->carry >> i & 1 : 0);     \
            d[i] = (S)sum;                                                                         \
            if (in->aux & VM_CC_OUT)                                                               \
                w->carry = (w->carry & ~(1u << i)) | (uint32_t)(sum >> BITS & 1) << i;             \
        }                                                                                          \
        return in + 1;                                                                             \
    }
MAD_CHAIN(madc_u32, uint32_t, uint32_t, uint64_t, uint64_t, p, 32)
MAD_CHAIN(madchi_u32, uint32_t, uint32_t, uint64_t, uint64_t, p >> 32, 32)
MAD_CHAIN(madchi_s32, uint32_t, int32_t, int64_t, uint64_t, p >> 32, 32)
MAD_CHAIN(madc_u64, uint64_t, uint64_t, u128, u128, p, 64)
MAD_CHAIN(madchi_u64, uint64_t, uint64_t, u128, u128, p >> 64, 64)
MAD_CHAIN(madchi_s64, uint64_t, int64_t, s128, u128, p >> 64, 64)

static inline uint32_t lane8(uint32_t v, int k, bool sign)
{
    uint32_t b = v >> (8 * k) & 0xff;
    return sign ? (uint32_t)(int32_t)(int8_t)b : b;
}

static inline uint32_t lane16(uint32_t v, int k, bool sign)
{
    uint32_t h = v >> (16 * k) & 0xffff;
    return sign ? (uint32_t)(int32_t)(int16_t)h : h;
}

static inline uint32_t dp4(uint32_t x, uint32_t y, uint32_t z, bool sx, bool sy)
{
    for (int k = 0; k < 4; k++)
        z += lane8(x, k, sx) * lane8(y, k, sy);
    return z;
}

static inline uint32_t dp2(uint32_t x, uint32_t y, uint32_t z, bool sx, bool sy, int hi)
{
    for (int k = 0; k < 2; k++)
        z += lane16(x, k, sx) * lane8(y, k + hi, sy);
    return z;
}

/* aux: b is signed */
#define DOT(name, EXPR)                                                                            \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        const uint32_t *a = VM_REG(const uint32_t, in->a), *b = VM_REG(const uint32_t, in->b);     \
        const uint32_t *c = VM_REG(const uint32_t, in->c);                                         \
        bool sy = in->aux;                                                                         \
        VM_STORE(uint32_t, EXPR);                                                                  \
        return in + 1;                                                                             \
    }
DOT(dp4_u, dp4(a[i], b[i], c[i], false, sy))
DOT(dp4_s, dp4(a[i], b[i], c[i], true, sy))
DOT(dp2lo_u, dp2(a[i], b[i], c[i], false, sy, 0))
DOT(dp2lo_s, dp2(a[i], b[i], c[i], true, sy, 0))
DOT(dp2hi_u, dp2(a[i], b[i], c[i], false, sy, 2))
DOT(dp2hi_s, dp2(a[i], b[i], c[i], true, sy, 2))

VM_FILLER(int)
{
#define PUT(n, pt, S, V, R, U, W, BITS)                                                            \
    isa->fn[VO_ADD][pt] = add_##n;                                                                 \
    isa->fn[VO_SUB][pt] = sub_##n;                                                                 \
    isa->fn[VO_MUL][pt] = mul_##n;                                                                 \
    isa->fn[VO_MUL_HI][pt] = mulhi_##n;                                                            \
    isa->fn[VO_MAD][pt] = mad_##n;                                                                 \
    isa->fn[VO_MAD_HI][pt] = madhi_##n;                                                            \
    isa->fn[VO_SAD][pt] = sad_##n;                                                                 \
    isa->fn[VO_MIN][pt] = min_##n;                                                                 \
    isa->fn[VO_MAX][pt] = max_##n;                                                                 \
    isa->fn[VO_MIN3][pt] = min3_##n;                                                               \
    isa->fn[VO_MAX3][pt] = max3_##n;                                                               \
    isa->fn[VO_DIV][pt] = div_##n;                                                                 \
    isa->fn[VO_REM][pt] = rem_##n;
    INT_TYPES(PUT)
#define PUT_WIDE(n, pt)                                                                            \
    isa->fn[VO_MUL_WIDE][pt] = mulwide_##n;                                                        \
    isa->fn[VO_MAD_WIDE][pt] = madwide_##n;
    PUT_WIDE(u16, PT_U16)
    PUT_WIDE(s16, PT_S16)
    PUT_WIDE(u32, PT_U32)
    PUT_WIDE(s32, PT_S32)
#define PUT_24(n, pt)                                                                              \
    isa->fn[VO_MUL24][pt] = mul24_##n;                                                             \
    isa->fn[VO_MUL24_HI][pt] = mul24hi_##n;                                                        \
    isa->fn[VO_MAD24][pt] = mad24_##n;                                                             \
    isa->fn[VO_MAD24_HI][pt] = mad24hi_##n;
    PUT_24(u32, PT_U32)
    PUT_24(s32, PT_S32)
#define PUT_SIGNED(n, pt)                                                                          \
    isa->fn[VO_ABS][pt] = abs_##n;                                                                 \
    isa->fn[VO_NEG][pt] = neg_##n;
    PUT_SIGNED(s16, PT_S16)
    PUT_SIGNED(s32, PT_S32)
    PUT_SIGNED(s64, PT_S64)
    isa->fn[VO_ADD_SAT][PT_S32] = add_sat;
    isa->fn[VO_SUB_SAT][PT_S32] = sub_sat;
    isa->fn[VO_MAD_HI_SAT][PT_S32] = madhi_sat;
    isa->fn[VO_MIN_RELU][PT_S32] = min_relu;
    isa->fn[VO_MAX_RELU][PT_S32] = max_relu;
    for (int s = 0; s < 2; s++) {
        isa->fn[VO_ADDC][s ? PT_S32 : PT_U32] = addc_u32;
        isa->fn[VO_SUBC][s ? PT_S32 : PT_U32] = subc_u32;
        isa->fn[VO_ADDC][s ? PT_S64 : PT_U64] = addc_u64;
        isa->fn[VO_SUBC][s ? PT_S64 : PT_U64] = subc_u64;
        isa->fn[VO_MADC][s ? PT_S32 : PT_U32] = madc_u32;
        isa->fn[VO_MADC][s ? PT_S64 : PT_U64] = madc_u64;
    }
    isa->fn[VO_MADC_HI][PT_U32] = madchi_u32;
    isa->fn[VO_MADC_HI][PT_S32] = madchi_s32;
    isa->fn[VO_MADC_HI][PT_U64] = madchi_u64;
    isa->fn[VO_MADC_HI][PT_S64] = madchi_s64;
    isa->fn[VO_DP4A][PT_U32] = dp4_u;
    isa->fn[VO_DP4A][PT_S32] = dp4_s;
    isa->fn[VO_DP2A_LO][PT_U32] = dp2lo_u;
    isa->fn[VO_DP2A_LO][PT_S32] = dp2lo_s;
    isa->fn[VO_DP2A_HI][PT_U32] = dp2hi_u;
    isa->fn[VO_DP2A_HI][PT_S32] = dp2hi_s;
}
