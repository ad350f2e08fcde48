/* Bits: logic, shifts, counts, fields, funnel shifts, byte permutation, predicates' logic,
 * selection. Filled into the table of vm_ops.h; compiled twice, see ops_lanes.h. */
#include "executor/softgpu/ops_lanes.h"

#define LOGIC(n, S, R)                                                                             \
    VM_OP2(and_##n, S, R, S, R, x &y)                                                              \
    VM_OP2(or_##n, S, R, S, R, x | y)                                                              \
    VM_OP2(xor_##n, S, R, S, R, x ^ y)                                                             \
    VM_OP1(not_##n, S, R, S, R, ~x)                                                                \
    VM_OP1(cnot_##n, S, R, S, R, x == 0)
LOGIC(b16, uint32_t, uint16_t)
LOGIC(b32, uint32_t, uint32_t)
LOGIC(b64, uint64_t, uint64_t)

/* The amount is 32-bit for all; larger ones clamp. */
#define SHIFT(n, S, V, R, BITS)                                                                    \
    VM_OP2T(shl_##n, S, R, S, R, uint32_t, uint32_t, y >= BITS ? 0 : (uint64_t)x << (y & 63))      \
    VM_OP2T(shr_##n, S, R, S, V, uint32_t, uint32_t,                                               \
            y >= BITS ? ((V)-1 < (V)1 ? x >> (BITS - 1) : 0) : x >> (y & (BITS - 1)))
SHIFT(u16, uint32_t, uint16_t, uint16_t, 16)
SHIFT(s16, uint32_t, int16_t, uint16_t, 16)
SHIFT(s64, uint64_t, int64_t, uint64_t, 64)
SHIFT(u64, uint64_t, uint64_t, uint64_t, 64)
VM_OP2(shl_u32, uint32_t, uint32_t, uint32_t, uint32_t, y >= 32 ? 0 : x << (y & 31))
VM_OP2(shr_u32, uint32_t, uint32_t, uint32_t, uint32_t, y >= 32 ? 0 : x >> (y & 31))
VM_OP2T(shr_s32, uint32_t, uint32_t, uint32_t, int32_t, uint32_t, uint32_t, x >> (y > 31 ? 31 : y))

VM_OP1(popc_b32, uint32_t, uint32_t, uint32_t, uint32_t, __builtin_popcount(x))
VM_OP1(popc_b64, uint32_t, uint32_t, uint64_t, uint64_t, __builtin_popcountll(x))
VM_OP1(clz_b32, uint32_t, uint32_t, uint32_t, uint32_t, x ? __builtin_clz(x) : 32)
VM_OP1(clz_b64, uint32_t, uint32_t, uint64_t, uint64_t, x ? __builtin_clzll(x) : 64)

static inline uint32_t rev32(uint32_t v)
{
    v = (v >> 1 & 0x55555555) | (v & 0x55555555) << 1;
    v = (v >> 2 & 0x33333333) | (v & 0x33333333) << 2;
    v = (v >> 4 & 0x0f0f0f0f) | (v & 0x0f0f0f0f) << 4;
    return __builtin_bswap32(v);
}
VM_OP1(brev_b32, uint32_t, uint32_t, uint32_t, uint32_t, rev32(x))
VM_OP1(brev_b64, uint64_t, uint64_t, uint64_t, uint64_t,
       (uint64_t)rev32((uint32_t)x) << 32 | rev32((uint32_t)(x >> 32)))

/* bfe: position and length are the low bytes; beyond the top the sign bit repeats. */
static inline uint64_t bfe(uint64_t v, uint32_t pos, uint32_t len, uint32_t bits, bool sign)
{
    pos &= 0xff;
    len &= 0xff;
    if (!len)
        return 0;
    uint64_t out = pos >= bits ? 0 : v >> pos;
    uint32_t top = pos + len - 1 < bits - 1 ? pos + len - 1 : bits - 1;
    uint64_t keep = len >= 64 ? UINT64_MAX : (1ull << len) - 1;
    if (!sign || !(v >> top & 1))
        return out & keep;
    uint32_t have = pos >= bits ? 0 : bits - pos < len ? bits - pos : len;
    return have >= 64 ? out : (out & ((1ull << have) - 1)) | ~0ull << have;
}

static inline uint64_t bfi(uint64_t field, uint64_t base, uint32_t pos, uint32_t len, uint32_t bits)
{
    pos &= 0xff;
    len &= 0xff;
    if (!len || pos >= bits)
        return base;
    uint64_t keep = (len >= 64 ? UINT64_MAX : (1ull << len) - 1) << pos;
    return (base & ~keep) | (field << pos & keep);
}

#define BFE(n, S, BITS, SIGN)                                                                      \
    VM_OP3T(bfe_##n, S, S, S, S, uint32_t, uint32_t, uint32_t, uint32_t, bfe(x, y, z, BITS, SIGN))
BFE(u32, uint32_t, 32, false)
BFE(s32, uint32_t, 32, true)
BFE(u64, uint64_t, 64, false)
BFE(s64, uint64_t, 64, true)

#define BFI(n, S, BITS)                                                                            \
    VM_OP(bfi_##n)                                                                                 \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a), *b = VM_REG(const S, in->b);                          \
        const uint32_t *c = VM_REG(const uint32_t, in->c), *e = VM_REG(const uint32_t, in->e);     \
        VM_STORE(S, (S)bfi(a[i], b[i], c[i], e[i], BITS));                                         \
        return in + 1;                                                                             \
    }
BFI(b32, uint32_t, 32)
BFI(b64, uint64_t, 64)

static inline uint32_t find(uint64_t v, uint32_t bits, bool sign, bool shift)
{
    if (sign && v >> (bits - 1) & 1)
        v = ~v;
    if (bits == 32)
        v &= UINT32_MAX;
    if (!v)
        return UINT32_MAX;
    uint32_t at = 63 - (uint32_t)__builtin_clzll(v);
    return shift ? bits - 1 - at : at;
}
#define BFIND(n, S, BITS, SIGN)                                                                    \
    VM_OP1(bfind_##n, uint32_t, uint32_t, S, S, find(x, BITS, SIGN, false))                        \
    VM_OP1(bfindsh_##n, uint32_t, uint32_t, S, S, find(x, BITS, SIGN, true))
BFIND(u32, uint32_t, 32, false)
BFIND(s32, uint32_t, 32, true)
BFIND(u64, uint64_t, 64, false)
BFIND(s64, uint64_t, 64, true)

/* The offset-th set bit from base upwards (offset > 0) or downwards (< 0). */
static inline uint32_t nth_set(uint32_t mask, uint32_t base, int32_t offset)
{
    if (base > 31)
        return UINT32_MAX;
    if (!offset)
        return mask >> base & 1 ? base : UINT32_MAX;
    int step = offset > 0 ? 1 : -1;
    uint32_t left = offset > 0 ? (uint32_t)offset : 0u - (uint32_t)offset;
    for (int at = (int)base; at >= 0 && at < 32; at += step)
        if (mask >> at & 1 && !--left)
            return (uint32_t)at;
    return UINT32_MAX;
}
VM_OP3T(fns, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t, int32_t,
        nth_set(x, y, z))

#define FUNNEL(x, y) ((uint64_t)(y) << 32 | (x))
static inline uint32_t clamp_shift(uint32_t n)
{
    return n > 32 ? 32 : n;
}
#define SHF(name, EXPR) VM_OP3(name, uint32_t, uint32_t, uint32_t, uint32_t, EXPR)
SHF(shf_l_clamp, (FUNNEL(x, y) << clamp_shift(z)) >> 32)
SHF(shf_r_clamp, FUNNEL(x, y) >> clamp_shift(z))
SHF(shf_l_wrap, (FUNNEL(x, y) << (z & 31)) >> 32)
SHF(shf_r_wrap, FUNNEL(x, y) >> (z & 31))

VM_OP(lop3)
{
    const uint32_t *a = VM_REG(const uint32_t, in->a), *b = VM_REG(const uint32_t, in->b);
    const uint32_t *c = VM_REG(const uint32_t, in->c);
    uint32_t t[8];
    for (int k = 0; k < 8; k++)
        t[k] = in->aux >> k & 1 ? UINT32_MAX : 0;
    VM_STORE(uint32_t, (t[0] & ~a[i] & ~b[i] & ~c[i]) | (t[1] & ~a[i] & ~b[i] & c[i]) |
                           (t[2] & ~a[i] & b[i] & ~c[i]) | (t[3] & ~a[i] & b[i] & c[i]) |
                           (t[4] & a[i] & ~b[i] & ~c[i]) | (t[5] & a[i] & ~b[i] & c[i]) |
                           (t[6] & a[i] & b[i] & ~c[i]) | (t[7] & a[i] & b[i] & c[i]));
    return in + 1;
}

static inline uint32_t prmt(uint32_t x, uint32_t y, uint32_t sel)
{
    uint64_t v = FUNNEL(x, y);
    uint32_t out = 0;
    for (int k = 0; k < 4; k++) {
        uint32_t s = sel >> (4 * k);
        uint32_t byte = (uint32_t)(v >> (8 * (s & 7))) & 0xff;
        if (s & 8)
            byte = byte & 0x80 ? 0xff : 0;
        out |= byte << (8 * k);
    }
    return out;
}

/* The named modes are selectors computed from the low two bits. */
static inline uint32_t sel_of(const uint8_t (*table)[4], uint32_t z)
{
    const uint8_t *t = table[z & 3];
    return (uint32_t)t[0] | (uint32_t)t[1] << 4 | (uint32_t)t[2] << 8 | (uint32_t)t[3] << 12;
}
static const uint8_t f4e[4][4] = {{0, 1, 2, 3}, {1, 2, 3, 4}, {2, 3, 4, 5}, {3, 4, 5, 6}};
static const uint8_t b4e[4][4] = {{0, 7, 6, 5}, {1, 0, 7, 6}, {2, 1, 0, 7}, {3, 2, 1, 0}};
static const uint8_t rc8[4][4] = {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}};
static const uint8_t ecl[4][4] = {{0, 1, 2, 3}, {1, 1, 2, 3}, {2, 2, 2, 3}, {3, 3, 3, 3}};
static const uint8_t ecr[4][4] = {{0, 0, 0, 0}, {0, 1, 1, 1}, {0, 1, 2, 2}, {0, 1, 2, 3}};
static const uint8_t rc16[4][4] = {{0, 1, 0, 1}, {2, 3, 2, 3}, {0, 1, 0, 1}, {2, 3, 2, 3}};
SHF(prmt_gen, prmt(x, y, z))
SHF(prmt_f4e, prmt(x, y, sel_of(f4e, z)))
SHF(prmt_b4e, prmt(x, y, sel_of(b4e, z)))
SHF(prmt_rc8, prmt(x, y, sel_of(rc8, z)))
SHF(prmt_ecl, prmt(x, y, sel_of(ecl, z)))
SHF(prmt_ecr, prmt(x, y, sel_of(ecr, z)))
SHF(prmt_rc16, prmt(x, y, sel_of(rc16, z)))

static inline uint32_t bmsk(uint32_t a, uint32_t b, bool wrap)
{
    if (wrap) {
        a &= 31;
        b &= 31;
    }
    if (a > 31 || !b)
        return 0;
    uint64_t ones = b > 31 ? UINT32_MAX : (1ull << b) - 1;
    return (uint32_t)(ones << a);
}
static inline uint32_t szext(uint32_t v, uint32_t n, bool wrap, bool sign)
{
    if (wrap)
        n &= 31;
    if (n > 31)
        return v;
    if (!n)
        return 0;
    uint32_t keep = (1u << n) - 1;
    return sign && v >> (n - 1) & 1 ? v | ~keep : v & keep;
}
#define PAIR(name, EXPR) VM_OP2(name, uint32_t, uint32_t, uint32_t, uint32_t, EXPR)
PAIR(bmsk_clamp, bmsk(x, y, false))
PAIR(bmsk_wrap, bmsk(x, y, true))
PAIR(szext_clamp_u, szext(x, y, false, false))
PAIR(szext_wrap_u, szext(x, y, true, false))
PAIR(szext_clamp_s, szext(x, y, false, true))
PAIR(szext_wrap_s, szext(x, y, true, true))

static inline uint32_t absdiff(uint32_t x, uint32_t y, uint32_t z, int parts, bool sign, bool each)
{
    if (each)
        z = 0;
    for (int k = 0; k < parts; k++) {
        int32_t p, q;
        if (parts == 4) {
            p = sign ? (int8_t)(x >> 8 * k) : (uint8_t)(x >> 8 * k);
            q = sign ? (int8_t)(y >> 8 * k) : (uint8_t)(y >> 8 * k);
        } else {
            p = sign ? (int16_t)(x >> 16 * k) : (uint16_t)(x >> 16 * k);
            q = sign ? (int16_t)(y >> 16 * k) : (uint16_t)(y >> 16 * k);
        }
        z += (uint32_t)(p > q ? p - q : q - p) << (each ? 32 / parts * k : 0);
    }
    return z;
}
SHF(vabsdiff4_u, absdiff(x, y, z, 4, false, false))
SHF(vabsdiff4_each_u, absdiff(x, y, z, 4, false, true))
SHF(vabsdiff4_s, absdiff(x, y, z, 4, true, false))
SHF(vabsdiff4_each_s, absdiff(x, y, z, 4, true, true))
SHF(vabsdiff2_u, absdiff(x, y, z, 2, false, false))
SHF(vabsdiff2_each_u, absdiff(x, y, z, 2, false, true))
SHF(vabsdiff2_s, absdiff(x, y, z, 2, true, false))
SHF(vabsdiff2_each_s, absdiff(x, y, z, 2, true, true))

#define SELECT(n, S)                                                                               \
    VM_OP(selp_##n)                                                                                \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a), *b = VM_REG(const S, in->b);                          \
        uint32_t p = *VM_REG(const uint32_t, in->c) ^ in->aux;                                     \
        VM_STORE(S, p >> i & 1 ? a[i] : b[i]);                                                     \
        return in + 1;                                                                             \
    }                                                                                              \
    VM_OP3T(slct_##n, S, S, S, S, S, S, uint32_t, int32_t, z >= 0 ? x : y)                         \
    VM_OP3T(slctf_##n, S, S, S, S, S, S, float, float, z >= 0 ? x : y)
SELECT(b32, uint32_t)
SELECT(b64, uint64_t)

/* Predicates: one word; aux bits negate a and b. */
#define PLOGIC(name, EXPR)                                                                         \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        uint32_t m = vm_mask(w, in), *d = VM_REG(uint32_t, in->d);                                 \
        uint32_t x = *VM_REG(const uint32_t, in->a), y = *VM_REG(const uint32_t, in->b);           \
        x ^= in->aux & 1 ? UINT32_MAX : 0;                                                         \
        y ^= in->aux & 2 ? UINT32_MAX : 0;                                                         \
        *d = (*d & ~m) | ((EXPR)&m);                                                               \
        return in + 1;                                                                             \
    }
PLOGIC(pand, x &y)
PLOGIC(por, x | y)
PLOGIC(pxor, x ^ y)
PLOGIC(pmov, ((void)y, x))
PLOGIC(pnot, ((void)y, ~x))

VM_FILLER(bit)
{
#define PUT(n, pt)                                                                                 \
    isa->fn[VO_AND][pt] = and_##n;                                                                 \
    isa->fn[VO_OR][pt] = or_##n;                                                                   \
    isa->fn[VO_XOR][pt] = xor_##n;                                                                 \
    isa->fn[VO_NOT][pt] = not_##n;                                                                 \
    isa->fn[VO_CNOT][pt] = cnot_##n;
    PUT(b16, PT_B16)
    PUT(b32, PT_B32)
    PUT(b64, PT_B64)
#define PUT_SHIFT(bits)                                                                            \
    isa->fn[VO_SHL][PT_B##bits] = shl_u##bits;                                                     \
    isa->fn[VO_SHR][PT_U##bits] = isa->fn[VO_SHR][PT_B##bits] = shr_u##bits;                       \
    isa->fn[VO_SHR][PT_S##bits] = shr_s##bits;
    PUT_SHIFT(16)
    PUT_SHIFT(32)
    PUT_SHIFT(64)
    (void)shl_s16;
    (void)shl_s64;
    isa->fn[VO_POPC][PT_B32] = popc_b32;
    isa->fn[VO_POPC][PT_B64] = popc_b64;
    isa->fn[VO_CLZ][PT_B32] = clz_b32;
    isa->fn[VO_CLZ][PT_B64] = clz_b64;
    isa->fn[VO_BREV][PT_B32] = brev_b32;
    isa->fn[VO_BREV][PT_B64] = brev_b64;
    isa->fn[VO_BFI][PT_B32] = bfi_b32;
    isa->fn[VO_BFI][PT_B64] = bfi_b64;
#define PUT_FIELD(n, pt)                                                                           \
    isa->fn[VO_BFE][pt] = bfe_##n;                                                                 \
    isa->fn[VO_BFIND][pt] = bfind_##n;                                                             \
    isa->fn[VO_BFIND_SHIFT][pt] = bfindsh_##n;
    PUT_FIELD(u32, PT_U32)
    PUT_FIELD(s32, PT_S32)
    PUT_FIELD(u64, PT_U64)
    PUT_FIELD(s64, PT_S64)
    isa->fn[VO_FNS][PT_B32] = fns;
    isa->fn[VO_SHF_L_CLAMP][PT_B32] = shf_l_clamp;
    isa->fn[VO_SHF_R_CLAMP][PT_B32] = shf_r_clamp;
    isa->fn[VO_SHF_L_WRAP][PT_B32] = shf_l_wrap;
    isa->fn[VO_SHF_R_WRAP][PT_B32] = shf_r_wrap;
    isa->fn[VO_LOP3][PT_B32] = lop3;
    isa->fn[VO_PRMT][PT_B32] = prmt_gen;
    isa->fn[VO_PRMT_F4E][PT_B32] = prmt_f4e;
    isa->fn[VO_PRMT_B4E][PT_B32] = prmt_b4e;
    isa->fn[VO_PRMT_RC8][PT_B32] = prmt_rc8;
    isa->fn[VO_PRMT_ECL][PT_B32] = prmt_ecl;
    isa->fn[VO_PRMT_ECR][PT_B32] = prmt_ecr;
    isa->fn[VO_PRMT_RC16][PT_B32] = prmt_rc16;
    isa->fn[VO_BMSK_CLAMP][PT_B32] = bmsk_clamp;
    isa->fn[VO_BMSK_WRAP][PT_B32] = bmsk_wrap;
    isa->fn[VO_SZEXT_CLAMP][PT_U32] = szext_clamp_u;
    isa->fn[VO_SZEXT_WRAP][PT_U32] = szext_wrap_u;
    isa->fn[VO_SZEXT_CLAMP][PT_S32] = szext_clamp_s;
    isa->fn[VO_SZEXT_WRAP][PT_S32] = szext_wrap_s;
    isa->fn[VO_VABSDIFF4][PT_U32] = vabsdiff4_u;
    isa->fn[VO_VABSDIFF4_EACH][PT_U32] = vabsdiff4_each_u;
    isa->fn[VO_VABSDIFF4][PT_S32] = vabsdiff4_s;
    isa->fn[VO_VABSDIFF4_EACH][PT_S32] = vabsdiff4_each_s;
    isa->fn[VO_VABSDIFF2][PT_U32] = vabsdiff2_u;
    isa->fn[VO_VABSDIFF2_EACH][PT_U32] = vabsdiff2_each_u;
    isa->fn[VO_VABSDIFF2][PT_S32] = vabsdiff2_s;
    isa->fn[VO_VABSDIFF2_EACH][PT_S32] = vabsdiff2_each_s;
    isa->fn[VO_SELP][PT_B32] = selp_b32;
    isa->fn[VO_SELP][PT_B64] = selp_b64;
    isa->fn[VO_SLCT][PT_B32] = slct_b32;
    isa->fn[VO_SLCT][PT_B64] = slct_b64;
    isa->fn[VO_SLCT_F32][PT_B32] = slctf_b32;
    isa->fn[VO_SLCT_F32][PT_B64] = slctf_b64;
    isa->fn[VO_PAND][PT_PRED] = pand;
    isa->fn[VO_POR][PT_PRED] = por;
    isa->fn[VO_PXOR][PT_PRED] = pxor;
    isa->fn[VO_PMOV][PT_PRED] = pmov;
    isa->fn[VO_PNOT][PT_PRED] = pnot;
}
