/* The approximate functions: computed in double and rounded once, so more accurate than a GPU.
 * Filled into the table of vm_ops.h; compiled twice, see ops_lanes.h.  Scalar: libm has no vectors.
 */
#include "executor/softgpu/ops_lanes.h"

#include <math.h>

#define EACH32(name, EXPR)                                                                         \
    VM_OP(name)                                                                                    \
    {                                                                                              \
        const float *a = VM_REG(const float, in->a);                                               \
        float *d = VM_REG(float, in->d);                                                           \
        VM_EACH(i, vm_mask(w, in))                                                                 \
        {                                                                                          \
            double x = (double)a[i];                                                               \
            d[i] = vm_canon((float)(EXPR));                                                        \
        }                                                                                          \
        return in + 1;                                                                             \
    }
EACH32(ex2, exp2(x))
EACH32(lg2, log2(x))
EACH32(sin_approx, sin(x))
EACH32(cos_approx, cos(x))
EACH32(tanh_approx, tanh(x))

VM_OP1(rsqrt_f32, float, float, float, float, vm_canon((float)(1.0 / __builtin_sqrt((double)x))))
VM_OP1(sqrt_approx, float, float, float, float, vm_canon(__builtin_sqrtf(x)))
VM_OP1(rcp_approx, float, float, float, float, vm_canon(1.0f / x))
VM_OP2(div_approx, float, float, float, float, vm_canon(x / y))
VM_OP1(rsqrt_f64, double, double, double, double, 1.0 / __builtin_sqrt(x))

/* The upper word of the result alone is computed; subnormals count as zero. */
static inline double upper(double v)
{
    return vm_f64(vm_u64(v) & ~0xffffffffull);
}
static inline double flush64(double v)
{
    uint64_t u = vm_u64(v);
    return u >> 52 & 0x7ff ? v : vm_f64(u & 1ull << 63);
}
VM_OP1(rcp_ftz64, double, double, double, double, upper(flush64(1.0 / flush64(x))))
VM_OP1(rsqrt_ftz64, double, double, double, double,
       upper(flush64(1.0 / __builtin_sqrt(flush64(x)))))

VM_FILLER(approx)
{
    isa->fn[VO_EX2][PT_F32] = ex2;
    isa->fn[VO_LG2][PT_F32] = lg2;
    isa->fn[VO_SIN][PT_F32] = sin_approx;
    isa->fn[VO_COS][PT_F32] = cos_approx;
    isa->fn[VO_TANH][PT_F32] = tanh_approx;
    isa->fn[VO_RSQRT][PT_F32] = rsqrt_f32;
    isa->fn[VO_RSQRT][PT_F64] = rsqrt_f64;
    isa->fn[VO_SQRT_APPROX][PT_F32] = sqrt_approx;
    isa->fn[VO_RCP_APPROX][PT_F32] = rcp_approx;
    isa->fn[VO_DIV_APPROX][PT_F32] = div_approx;
    isa->fn[VO_RCP_FTZ64][PT_F64] = rcp_ftz64;
    isa->fn[VO_RSQRT_FTZ64][PT_F64] = rsqrt_ftz64;
}
