/* Loops over the 32 lanes, for ops_*.c.  These files are compiled twice (VM_ISA base and v3) with
 * -O3 -ffp-contract=off -fno-trapping-math -fno-math-errno -fno-strict-aliasing, so that a masked
 * loop becomes compute-all-and-blend.  The expression of an operation must therefore be safe to
 * evaluate for inactive lanes; VM_EACH visits active lanes only, for those that are not. */
#ifndef TFR_SOFTGPU_OPS_LANES_H
#define TFR_SOFTGPU_OPS_LANES_H

#include "executor/softgpu/vm_in.h"

#if defined(__clang__)
#define VM_IVDEP _Pragma("clang loop vectorize(assume_safety)")
#else
#define VM_IVDEP _Pragma("GCC ivdep")
#endif

#define VM_CAT2(a, b)   a##b
#define VM_CAT(a, b)    VM_CAT2(a, b)
#define VM_FILLER(name) void VM_CAT(vm_fill_##name##_, VM_ISA)(struct vm_isa * isa)

#define VM_OP(name) static const struct vm_ins *name(struct vm_warp *w, const struct vm_ins *in)

#define VM_REG(T, at) ((T *)(void *)(w->reg + (at)))

#define VM_EACH(i, m)                                                                              \
    for (uint32_t left_ = (m), i = 0; left_ && (i = (uint32_t)__builtin_ctz(left_), 1);            \
         left_ &= left_ - 1)

/* d = EXPR in the active lanes; EXPR sees i.  D: slot type. */
#define VM_STORE(D, EXPR)                                                                          \
    do {                                                                                           \
        const uint32_t m_ = vm_mask(w, in);                                                        \
        D *d_ = VM_REG(D, in->d);                                                                  \
        if (m_ == UINT32_MAX) {                                                                    \
            VM_IVDEP for (int i = 0; i < VM_LANES; i++) d_[i] = (EXPR);                            \
        } else {                                                                                   \
            VM_IVDEP for (int i = 0; i < VM_LANES; i++)                                            \
            {                                                                                      \
                D r_ = (EXPR);                                                                     \
                d_[i] = m_ >> i & 1 ? r_ : d_[i];                                                  \
            }                                                                                      \
        }                                                                                          \
    } while (0)

/* S: slot type, V: type the lane is read as, R: what the result is cut to before it is stored in D.
 */
#define VM_OP1(name, D, R, S, V, EXPR)                                                             \
    static inline R name##_f(V x)                                                                  \
    {                                                                                              \
        return (R)(EXPR);                                                                          \
    }                                                                                              \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a);                                                       \
        VM_STORE(D, (D)name##_f((V)a[i]));                                                         \
        return in + 1;                                                                             \
    }

#define VM_OP2T(name, D, R, S, V, S2, V2, EXPR)                                                    \
    static inline R name##_f(V x, V2 y)                                                            \
    {                                                                                              \
        return (R)(EXPR);                                                                          \
    }                                                                                              \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a);                                                       \
        const S2 *b = VM_REG(const S2, in->b);                                                     \
        VM_STORE(D, (D)name##_f((V)a[i], (V2)b[i]));                                               \
        return in + 1;                                                                             \
    }

#define VM_OP2(name, D, R, S, V, EXPR) VM_OP2T(name, D, R, S, V, S, V, EXPR)

#define VM_OP3T(name, D, R, S, V, S2, V2, S3, V3, EXPR)                                            \
    static inline R name##_f(V x, V2 y, V3 z)                                                      \
    {                                                                                              \
        return (R)(EXPR);                                                                          \
    }                                                                                              \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        const S *a = VM_REG(const S, in->a);                                                       \
        const S2 *b = VM_REG(const S2, in->b);                                                     \
        const S3 *c = VM_REG(const S3, in->c);                                                     \
        VM_STORE(D, (D)name##_f((V)a[i], (V2)b[i], (V3)c[i]));                                     \
        return in + 1;                                                                             \
    }

#define VM_OP3(name, D, R, S, V, EXPR) VM_OP3T(name, D, R, S, V, S, V, S, V, EXPR)

static inline float vm_f32(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static inline uint32_t vm_u32(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

static inline double vm_f64(uint64_t bits)
{
    double f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static inline uint64_t vm_u64(double f)
{
    uint64_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

/* The NaN that f32 arithmetic gives, whatever went in. */
static inline float vm_canon(float f)
{
    return f != f ? vm_f32(0x7fffffff) : f;
}

#endif
