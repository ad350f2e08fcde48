/* Two 16-bit integers in one register: sums, minima and maxima; and the clamped minima and maxima
 * of 32 bits.  Filled into the table of vm_ops.h; compiled twice, see ops_lanes.h. */
#include "executor/softgpu/ops_lanes.h"

/* x, y: the halves; H: as what they are read. */
#define PAIR(name, H, EXPR)                                                                        \
    static inline uint32_t name##_half(uint32_t a, uint32_t b)                                     \
    {                                                                                              \
        H x = (H)a, y = (H)b;                                                                      \
        return (uint16_t)(EXPR);                                                                   \
    }                                                                                              \
    VM_OP2(name, uint32_t, uint32_t, uint32_t, uint32_t,                                           \
           name##_half(x >> 16, y >> 16) << 16 | name##_half(x & 0xffff, y & 0xffff))
PAIR(add_x2, uint16_t, x + y)
PAIR(min_u16x2, uint16_t, x < y ? x : y)
PAIR(max_u16x2, uint16_t, x > y ? x : y)
PAIR(min_s16x2, int16_t, x < y ? x : y)
PAIR(max_s16x2, int16_t, x > y ? x : y)
PAIR(min_relu_s16x2, int16_t, (x < y ? x : y) > 0 ? (x < y ? x : y) : 0)
PAIR(max_relu_s16x2, int16_t, (x > y ? x : y) > 0 ? (x > y ? x : y) : 0)
VM_OP2(min_relu_s32, uint32_t, uint32_t, uint32_t, int32_t, x < 0 || y < 0 ? 0 : x < y ? x : y)
VM_OP2(max_relu_s32, uint32_t, uint32_t, uint32_t, int32_t, x < 0 && y < 0 ? 0 : x > y ? x : y)

VM_FILLER(pair)
{
    isa->fn[VO_ADD][PT_U16X2] = isa->fn[VO_ADD][PT_S16X2] = add_x2;
    isa->fn[VO_MIN][PT_U16X2] = min_u16x2;
    isa->fn[VO_MAX][PT_U16X2] = max_u16x2;
    isa->fn[VO_MIN][PT_S16X2] = min_s16x2;
    isa->fn[VO_MAX][PT_S16X2] = max_s16x2;
    isa->fn[VO_MIN_RELU][PT_S16X2] = min_relu_s16x2;
    isa->fn[VO_MAX_RELU][PT_S16X2] = max_relu_s16x2;
    isa->fn[VO_MIN_RELU][PT_S32] = min_relu_s32;
    isa->fn[VO_MAX_RELU][PT_S32] = max_relu_s32;
}
