/* f16 and bf16 arithmetic, scalar and in pairs: widened, computed in double, rounded once.  Double
 * holds every product and enough of every sum that this is the correctly rounded result, fma
 * included. Filled into the table of vm_ops.h; compiled twice, see ops_lanes.h. */
#include "executor/softgpu/half.h"
#include "executor/softgpu/ops_lanes.h"

#include <math.h>

static inline uint16_t flush16(uint16_t h, uint32_t aux)
{
    return (aux & VM_FTZ) && !(h & 0x7c00) ? h & 0x8000 : h;
}

static inline uint16_t done_f16(double v, uint32_t aux)
{
    if (aux & VM_SAT)
        v = v > 0 ? (v < 1 ? v : 1) : 0;
    return flush16(half_from(v, HALF_RN), aux);
}

static inline uint16_t done_bf16(double v, uint32_t aux)
{
    if (aux & VM_SAT)
        v = v > 0 ? (v < 1 ? v : 1) : 0;
    return half_bf_from(v, HALF_RN);
}

static inline double wide_f16(uint16_t h, uint32_t aux)
{
    return (double)half_float(flush16(h, aux));
}

static inline double wide_bf16(uint16_t h, uint32_t aux)
{
    (void)aux;
    return (double)half_bf_float(h);
}

/* Negative zero counts as less than positive zero; a NaN loses, or wins in the .NaN forms. */
static inline double less_of(double x, double y, bool nan)
{
    if (x != x || y != y)
        return nan ? x + y : x != x ? y : x;
    return x < y || (x == y && signbit(x)) ? x : y;
}

static inline double more_of(double x, double y, bool nan)
{
    if (x != x || y != y)
        return nan ? x + y : x != x ? y : x;
    return x > y || (x == y && !signbit(x)) ? x : y;
}

static inline double relu(double v)
{
    return v > 0 || v != v ? v : 0;
}

/* x, y, z: widened operands */
#define EACH(name, n, EXPR)                                                                        \
    static inline uint16_t name##_##n##_f(uint16_t p, uint16_t q, uint16_t r, uint32_t aux)        \
    {                                                                                              \
        double x = wide_##n(p, aux), y = wide_##n(q, aux), z = wide_##n(r, aux);                   \
        (void)y;                                                                                   \
        (void)z;                                                                                   \
        return done_##n(EXPR, aux);                                                                \
    }                                                                                              \
    VM_OP(name##_##n)                                                                              \
    {                                                                                              \
        const uint32_t *a = VM_REG(const uint32_t, in->a), *b = VM_REG(const uint32_t, in->b);     \
        const uint32_t *c = VM_REG(const uint32_t, in->c);                                         \
        uint32_t *d = VM_REG(uint32_t, in->d), aux = in->aux;                                      \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        d[i] = name##_##n##_f((uint16_t)a[i], (uint16_t)b[i], (uint16_t)c[i], aux);                \
        return in + 1;                                                                             \
    }                                                                                              \
    VM_OP(name##_##n##x2)                                                                          \
    {                                                                                              \
        const uint32_t *a = VM_REG(const uint32_t, in->a), *b = VM_REG(const uint32_t, in->b);     \
        const uint32_t *c = VM_REG(const uint32_t, in->c);                                         \
        uint32_t *d = VM_REG(uint32_t, in->d), aux = in->aux;                                      \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        {                                                                                          \
            uint32_t lo = name##_##n##_f((uint16_t)a[i], (uint16_t)b[i], (uint16_t)c[i], aux);     \
            uint32_t hi = name##_##n##_f((uint16_t)(a[i] >> 16), (uint16_t)(b[i] >> 16),           \
                                         (uint16_t)(c[i] >> 16), aux);                             \
            d[i] = hi << 16 | lo;                                                                  \
        }                                                                                          \
        return in + 1;                                                                             \
    }

#define OPS(n)                                                                                     \
    EACH(add, n, x + y)                                                                            \
    EACH(sub, n, x - y)                                                                            \
    EACH(mul, n, x *y)                                                                             \
    EACH(fma, n, x *y + z)                                                                         \
    EACH(fmarelu, n, relu(x *y + z))                                                               \
    EACH(min, n, less_of(x, y, false))                                                             \
    EACH(max, n, more_of(x, y, false))                                                             \
    EACH(minnan, n, less_of(x, y, true))                                                           \
    EACH(maxnan, n, more_of(x, y, true))                                                           \
    EACH(ex2, n, exp2(x))                                                                          \
    EACH(tanh, n, tanh(x))
OPS(f16)
OPS(bf16)

/* Signs are bits; ftz of f16 clears subnormals. */
static inline uint32_t flush_pair(uint32_t v, uint32_t aux)
{
    return (uint32_t)flush16((uint16_t)(v >> 16), aux) << 16 | flush16((uint16_t)v, aux);
}
#define SIGN(name, EXPR)                                                                           \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        const uint32_t *a = VM_REG(const uint32_t, in->a);                                         \
        uint32_t aux = in->aux;                                                                    \
        VM_STORE(uint32_t, flush_pair(EXPR, aux));                                                 \
        return in + 1;                                                                             \
    }
SIGN(neg_one, a[i] ^ 0x8000)
SIGN(neg_two, a[i] ^ 0x80008000)
SIGN(abs_one, a[i] & 0x7fff)
SIGN(abs_two, a[i] & 0x7fff7fff)

/* Comparisons: one predicate, or p for the low half and q for the high one. */
static bool compare(unsigned int cmp, double x, double y)
{
    bool nan = x != x || y != y;
    switch (cmp) {
    case VC_EQ:
        return !nan && x == y;
    case VC_NE:
        return !nan && x != y;
    case VC_LT:
        return x < y;
    case VC_LE:
        return x <= y;
    case VC_GT:
        return x > y;
    case VC_GE:
        return x >= y;
    case VC_EQU:
        return nan || x == y;
    case VC_NEU:
        return nan || x != y;
    case VC_LTU:
        return nan || x < y;
    case VC_LEU:
        return nan || x <= y;
    case VC_GTU:
        return nan || x > y;
    case VC_GEU:
        return nan || x >= y;
    case VC_NUM:
        return !nan;
    default:
        return nan;
    }
}

static uint32_t joined(const struct vm_warp *w, const struct vm_ins *in, uint32_t r)
{
    uint32_t how = in->aux >> VM_AUX_SHIFT;
    uint32_t c = *VM_REG(const uint32_t, in->c) ^ (how & VM_JOIN_NEG ? UINT32_MAX : 0);
    switch (how & VM_JOIN) {
    case VM_JOIN_AND:
        return r & c;
    case VM_JOIN_OR:
        return r | c;
    case VM_JOIN_XOR:
        return r ^ c;
    default:
        return r;
    }
}

static inline const struct vm_ins *setp_half(struct vm_warp *w, const struct vm_ins *in,
                                             unsigned int cmp, bool bf, bool pair)
{
    const uint32_t *a = VM_REG(const uint32_t, in->a), *b = VM_REG(const uint32_t, in->b);
    uint32_t m = vm_mask(w, in), r[2] = {0, 0};
    uint32_t *p = VM_REG(uint32_t, in->d), *q = VM_REG(uint32_t, in->e);
    for (int i = 0; i < VM_LANES; i++)
        for (int k = 0; k <= pair; k++) {
            uint16_t x = (uint16_t)(a[i] >> 16 * k), y = (uint16_t)(b[i] >> 16 * k);
            bool t = bf ? compare(cmp, wide_bf16(x, 0), wide_bf16(y, 0))
                        : compare(cmp, wide_f16(x, in->aux), wide_f16(y, in->aux));
            r[k] |= (uint32_t)t << i;
        }
    uint32_t yes = joined(w, in, r[0]), other = joined(w, in, pair ? r[1] : ~r[0]);
    *q = (*q & ~m) | (other & m);
    *p = (*p & ~m) | (yes & m);
    return in + 1;
}

/* set on scalars: see ops_cmp.c for the values. */
static inline const struct vm_ins *set_half(struct vm_warp *w, const struct vm_ins *in,
                                            unsigned int cmp, bool bf)
{
    const uint32_t *a = VM_REG(const uint32_t, in->a), *b = VM_REG(const uint32_t, in->b);
    uint32_t how = in->aux >> VM_AUX_SHIFT, r = 0;
    uint32_t yes = how & VM_SET_FLOAT  ? 0x3f800000
                   : how & VM_SET_HALF ? 0x3c00
                   : how & VM_SET_BF   ? 0x3f80
                                       : UINT32_MAX;
    for (int i = 0; i < VM_LANES; i++) {
        uint16_t x = (uint16_t)a[i], y = (uint16_t)b[i];
        bool t = bf ? compare(cmp, wide_bf16(x, 0), wide_bf16(y, 0))
                    : compare(cmp, wide_f16(x, 0), wide_f16(y, 0));
        r |= (uint32_t)t << i;
    }
    r = joined(w, in, r);
    VM_STORE(uint32_t, r >> i & 1 ? yes : 0);
    return in + 1;
}

/* Both halves: ones or 1.0 in each. */
static inline const struct vm_ins *set_pair(struct vm_warp *w, const struct vm_ins *in,
                                            unsigned int cmp, bool bf)
{
    const uint32_t *a = VM_REG(const uint32_t, in->a), *b = VM_REG(const uint32_t, in->b);
    uint32_t how = in->aux >> VM_AUX_SHIFT, r[2] = {0, 0};
    uint32_t yes = how & VM_SET_HALF ? 0x3c00 : how & VM_SET_BF ? 0x3f80 : 0xffff;
    for (int i = 0; i < VM_LANES; i++)
        for (int k = 0; k < 2; k++) {
            uint16_t x = (uint16_t)(a[i] >> 16 * k), y = (uint16_t)(b[i] >> 16 * k);
            bool t = bf ? compare(cmp, wide_bf16(x, 0), wide_bf16(y, 0))
                        : compare(cmp, wide_f16(x, 0), wide_f16(y, 0));
            r[k] |= (uint32_t)t << i;
        }
    r[0] = joined(w, in, r[0]);
    r[1] = joined(w, in, r[1]);
    VM_STORE(uint32_t, (r[0] >> i & 1 ? yes : 0) | (r[1] >> i & 1 ? yes << 16 : 0));
    return in + 1;
}

#define CMPS(X)                                                                                    \
    X(EQ) X(NE) X(LT) X(LE) X(GT) X(GE) X(EQU) X(NEU) X(LTU) X(LEU) X(GTU) X(GEU) X(NUM) X(NAN)
#define SETP(c)                                                                                    \
    VM_OP(setp_f16_##c)                                                                            \
    {                                                                                              \
        return setp_half(w, in, VC_##c, false, false);                                             \
    }                                                                                              \
    VM_OP(setp_bf16_##c)                                                                           \
    {                                                                                              \
        return setp_half(w, in, VC_##c, true, false);                                              \
    }                                                                                              \
    VM_OP(setp_f16x2_##c)                                                                          \
    {                                                                                              \
        return setp_half(w, in, VC_##c, false, true);                                              \
    }                                                                                              \
    VM_OP(setp_bf16x2_##c)                                                                         \
    {                                                                                              \
        return setp_half(w, in, VC_##c, true, true);                                               \
    }                                                                                              \
    VM_OP(set_f16_##c)                                                                             \
    {                                                                                              \
        return set_half(w, in, VC_##c, false);                                                     \
    }                                                                                              \
    VM_OP(set_f16x2_##c)                                                                           \
    {                                                                                              \
        return set_pair(w, in, VC_##c, false);                                                     \
    }                                                                                              \
    VM_OP(set_bf16x2_##c)                                                                          \
    {                                                                                              \
        return set_pair(w, in, VC_##c, true);                                                      \
    }                                                                                              \
    VM_OP(set_bf16_##c)                                                                            \
    {                                                                                              \
        return set_half(w, in, VC_##c, true);                                                      \
    }
CMPS(SETP)

VM_FILLER(half)
{
#define PUT_ONE(n, pt)                                                                             \
    isa->fn[VO_ADD][pt] = add_##n;                                                                 \
    isa->fn[VO_SUB][pt] = sub_##n;                                                                 \
    isa->fn[VO_MUL][pt] = mul_##n;                                                                 \
    isa->fn[VO_FMA][pt] = fma_##n;                                                                 \
    isa->fn[VO_FMA_RELU][pt] = fmarelu_##n;                                                        \
    isa->fn[VO_MIN][pt] = min_##n;                                                                 \
    isa->fn[VO_MAX][pt] = max_##n;                                                                 \
    isa->fn[VO_MIN_NAN][pt] = minnan_##n;                                                          \
    isa->fn[VO_MAX_NAN][pt] = maxnan_##n;                                                          \
    isa->fn[VO_EX2][pt] = ex2_##n;                                                                 \
    isa->fn[VO_TANH][pt] = tanh_##n;
    PUT_ONE(f16, PT_F16)
    PUT_ONE(bf16, PT_BF16)
    PUT_ONE(f16x2, PT_F16X2)
    PUT_ONE(bf16x2, PT_BF16X2)
    isa->fn[VO_NEG][PT_F16] = isa->fn[VO_NEG][PT_BF16] = neg_one;
    isa->fn[VO_NEG][PT_F16X2] = isa->fn[VO_NEG][PT_BF16X2] = neg_two;
    isa->fn[VO_ABS][PT_F16] = isa->fn[VO_ABS][PT_BF16] = abs_one;
    isa->fn[VO_ABS][PT_F16X2] = isa->fn[VO_ABS][PT_BF16X2] = abs_two;
#define PUT_CMP(c)                                                                                 \
    isa->setp[VC_##c][PT_F16] = setp_f16_##c;                                                      \
    isa->setp[VC_##c][PT_BF16] = setp_bf16_##c;                                                    \
    isa->setp[VC_##c][PT_F16X2] = setp_f16x2_##c;                                                  \
    isa->setp[VC_##c][PT_BF16X2] = setp_bf16x2_##c;                                                \
    isa->set[VC_##c][PT_F16] = set_f16_##c;                                                        \
    isa->set[VC_##c][PT_F16X2] = set_f16x2_##c;                                                    \
    isa->set[VC_##c][PT_BF16X2] = set_bf16x2_##c;                                                  \
    isa->set[VC_##c][PT_BF16] = set_bf16_##c;
    CMPS(PUT_CMP)
}
