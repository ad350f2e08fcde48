/* f32 and f64 arithmetic on the host's IEEE hardware, and the wrapper that puts a rounding mode,
 * ftz or sat around an operation.  Filled into the table of vm_ops.h; compiled twice, see
 * ops_lanes.h. f32 results that are NaN become the canonical one; f64 keeps the host's payloads. */
#include "executor/softgpu/ops_lanes.h"

#include <math.h>

#if defined(__x86_64__)
#include <immintrin.h>
static inline uint32_t mode_set(uint32_t aux)
{
    static const uint32_t round[4] = {0, 3u << 13, 1u << 13, 2u << 13};
    uint32_t old = _mm_getcsr();
    uint32_t csr = (old & ~(3u << 13)) | round[aux & VM_ROUND] | (aux & VM_FTZ ? 0x8040u : 0);
    __asm__ volatile("ldmxcsr %0" : : "m"(csr) : "memory");
    return old;
}
static inline void mode_reset(uint32_t old)
{
    __asm__ volatile("ldmxcsr %0" : : "m"(old) : "memory");
}
#elif defined(__aarch64__)
static inline uint64_t mode_set(uint32_t aux)
{
    static const uint64_t round[4] = {0, 3ull << 22, 2ull << 22, 1ull << 22};
    uint64_t old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old) : : "memory");
    uint64_t now = (old & ~(3ull << 22)) | round[aux & VM_ROUND] | (aux & VM_FTZ ? 1ull << 24 : 0);
    __asm__ volatile("msr fpcr, %0" : : "r"(now) : "memory");
    return old;
}
static inline void mode_reset(uint64_t old)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(old) : "memory");
}
#else
#error "no floating-point mode control for this host"
#endif

static inline float flush(float f)
{
    uint32_t u = vm_u32(f);
    return u & 0x7f800000 ? f : vm_f32(u & 0x80000000);
}

static inline float sat(float f)
{
    return f > 0 ? (f < 1 ? f : 1) : 0; /* NaN and -0 give +0 */
}

/* A scalar double result never needs this: f64 has no ftz, and .sat exists for f32 and f16 only. */
VM_OP(fp_wrap)
{
    float *d = VM_REG(float, in->d);
    if (in->aux & (VM_ROUND | VM_FTZ)) {
        __typeof__(mode_set(0)) old = mode_set(in->aux);
        in->inner(w, in);
        mode_reset(old);
    } else {
        in->inner(w, in);
    }
    if (in->aux & VM_FLUSH_OUT)
        VM_STORE(float, flush(d[i]));
    if (in->aux & VM_SAT)
        VM_STORE(float, sat(d[i]));
    return in + 1;
}

#define F32(name, EXPR1)   VM_OP1(name, float, float, float, float, vm_canon(EXPR1))
#define F32_2(name, EXPR2) VM_OP2(name, float, float, float, float, vm_canon(EXPR2))
#define F32_3(name, EXPR3) VM_OP3(name, float, float, float, float, vm_canon(EXPR3))
#define F64(name, EXPR1)   VM_OP1(name, double, double, double, double, EXPR1)
#define F64_2(name, EXPR2) VM_OP2(name, double, double, double, double, EXPR2)
#define F64_3(name, EXPR3) VM_OP3(name, double, double, double, double, EXPR3)

F32_2(add_f32, x + y)
F32_2(sub_f32, x - y)
F32_2(mul_f32, x *y)
F32_2(div_f32, x / y)
F32_3(fma_f32, __builtin_fmaf(x, y, z))
F32(sqrt_f32, __builtin_sqrtf(x))
F32(rcp_f32, 1.0f / x)
F32(rint_f32, rintf(x))
F64_2(add_f64, x + y)
F64_2(sub_f64, x - y)
F64_2(mul_f64, x *y)
F64_2(div_f64, x / y)
F64_3(fma_f64, __builtin_fma(x, y, z))
F64(sqrt_f64, __builtin_sqrt(x))
F64(rcp_f64, 1.0 / x)
F64(rint_f64, rint(x))

/* On bits: no rounding, no canonical NaN. */
VM_OP1(neg_f32, uint32_t, uint32_t, uint32_t, uint32_t, x ^ 0x80000000u)
VM_OP1(abs_f32, uint32_t, uint32_t, uint32_t, uint32_t, x & 0x7fffffffu)
VM_OP1(neg_f64, uint64_t, uint64_t, uint64_t, uint64_t, x ^ 1ull << 63)
VM_OP1(abs_f64, uint64_t, uint64_t, uint64_t, uint64_t, x & ~(1ull << 63))
VM_OP2(copysign_f32, uint32_t, uint32_t, uint32_t, uint32_t, (y & 0x7fffffffu) | (x & 0x80000000u))
VM_OP2(copysign_f64, uint64_t, uint64_t, uint64_t, uint64_t, (y & ~(1ull << 63)) | (x & 1ull << 63))

/* A NaN loses against a number; -0 < +0. */
#define MINMAX(n, T, U, BITS, CANON)                                                               \
    static inline T lesser_##n(T x, T y)                                                           \
    {                                                                                              \
        T r = x < y || (x == y && BITS(x) > BITS(y)) ? x : y; /* -0 has the larger bits */         \
        r = y != y ? x : r;                                                                        \
        return CANON(r);                                                                           \
    }                                                                                              \
    static inline T greater_##n(T x, T y)                                                          \
    {                                                                                              \
        T r = x > y || (x == y && BITS(x) < BITS(y)) ? x : y;                                      \
        r = y != y ? x : r;                                                                        \
        return CANON(r);                                                                           \
    }
#define SAME(v) (v)
MINMAX(f32, float, uint32_t, vm_u32, vm_canon)
MINMAX(f64, double, uint64_t, vm_u64, SAME)
F32_2(min_f32, lesser_f32(x, y))
F32_2(max_f32, greater_f32(x, y))
F32_2(minnan_f32, x != x || y != y ? x + y : lesser_f32(x, y))
F32_2(maxnan_f32, x != x || y != y ? x + y : greater_f32(x, y))
F64_2(min_f64, lesser_f64(x, y))
F64_2(max_f64, greater_f64(x, y))
F32_3(min3_f32, lesser_f32(lesser_f32(x, y), z))
F32_3(max3_f32, greater_f32(greater_f32(x, y), z))

#define TEST(name, S, EXPR)                                                                        \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a);                                                       \
        uint32_t m = vm_mask(w, in), r = 0, *d = VM_REG(uint32_t, in->d);                          \
        for (int i = 0; i < VM_LANES; i++) {                                                       \
            S x = a[i];                                                                            \
            r |= (uint32_t)(EXPR) << i;                                                            \
        }                                                                                          \
        *d = (*d & ~m) | (r & m);                                                                  \
        return in + 1;                                                                             \
    }
#define TESTS(n, S, EXP, MAN)                                                                      \
    TEST(finite_##n, S, (x & EXP) != EXP)                                                          \
    TEST(infinite_##n, S, (x & (EXP | MAN)) == EXP)                                                \
    TEST(number_##n, S, (x & (EXP | MAN)) <= EXP)                                                  \
    TEST(nan_##n, S, (x & (EXP | MAN)) > EXP)                                                      \
    TEST(normal_##n, S, (x & EXP) != EXP && (x & EXP))                                             \
    TEST(subnormal_##n, S, !(x & EXP) && (x & MAN))
TESTS(f32, uint32_t, 0x7f800000u, 0x007fffffu)
TESTS(f64, uint64_t, 0x7ff0000000000000ull, 0x000fffffffffffffull)

VM_FILLER(float)
{
#define PUT(n, pt)                                                                                 \
    isa->fn[VO_ADD][pt] = add_##n;                                                                 \
    isa->fn[VO_SUB][pt] = sub_##n;                                                                 \
    isa->fn[VO_MUL][pt] = mul_##n;                                                                 \
    isa->fn[VO_DIV][pt] = div_##n;                                                                 \
    isa->fn[VO_FMA][pt] = fma_##n;                                                                 \
    isa->fn[VO_SQRT][pt] = sqrt_##n;                                                               \
    isa->fn[VO_RCP][pt] = rcp_##n;                                                                 \
    isa->fn[VO_RINT][pt] = rint_##n;                                                               \
    isa->fn[VO_NEG][pt] = neg_##n;                                                                 \
    isa->fn[VO_ABS][pt] = abs_##n;                                                                 \
    isa->fn[VO_MIN][pt] = min_##n;                                                                 \
    isa->fn[VO_MAX][pt] = max_##n;                                                                 \
    isa->fn[VO_COPYSIGN][pt] = copysign_##n;                                                       \
    isa->fn[VO_TESTP_FINITE][pt] = finite_##n;                                                     \
    isa->fn[VO_TESTP_INFINITE][pt] = infinite_##n;                                                 \
    isa->fn[VO_TESTP_NUMBER][pt] = number_##n;                                                     \
    isa->fn[VO_TESTP_NOTANUMBER][pt] = nan_##n;                                                    \
    isa->fn[VO_TESTP_NORMAL][pt] = normal_##n;                                                     \
    isa->fn[VO_TESTP_SUBNORMAL][pt] = subnormal_##n;
    PUT(f32, PT_F32)
    PUT(f64, PT_F64)
    isa->fn[VO_MIN_NAN][PT_F32] = minnan_f32;
    isa->fn[VO_MAX_NAN][PT_F32] = maxnan_f32;
    isa->fn[VO_MIN3][PT_F32] = min3_f32;
    isa->fn[VO_MAX3][PT_F32] = max3_f32;
    isa->fn[VO_FP_WRAP][PT_NONE] = fp_wrap;
}
