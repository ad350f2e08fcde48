/* f16 and bf16: exact widening, and one correctly rounded narrowing from double in any mode. Header
 * only, for ops_*.c and tests.  NaN becomes 0x7fff in both formats. */
#ifndef TFR_SOFTGPU_HALF_H
#define TFR_SOFTGPU_HALF_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { HALF_RN, HALF_RZ, HALF_RM, HALF_RP }; /* as VM_ROUND_* */

static inline float half_bf_float(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline float half_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3ff, u;
    if (exp == 31) {
        u = sign | 0x7f800000 | man << 13;
    } else if (exp) {
        u = sign | (exp + 112) << 23 | man << 13;
    } else { /* man * 2^-24, exactly */
        float f = (float)man * 0x1p-24f;
        memcpy(&u, &f, sizeof(u));
        u |= sign;
    }
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

static inline bool half_up(uint64_t rest, uint64_t half, bool odd, bool neg, int mode)
{
    if (mode == HALF_RN)
        return rest > half || (rest == half && odd);
    return rest && mode != HALF_RZ && (mode == HALF_RM) == neg;
}

/* man_bits 10, bias 15 for f16; 7, 127 for bf16. */
static inline uint16_t half_round(double v, int man_bits, int bias, int mode)
{
    uint64_t u;
    memcpy(&u, &v, sizeof(u));
    bool neg = u >> 63;
    uint16_t sign = neg ? 0x8000 : 0, inf = (uint16_t)((uint32_t)(2 * bias + 1) << man_bits);
    int exp = (int)(u >> 52 & 0x7ff);
    uint64_t sig = u & ((1ull << 52) - 1);
    if (exp == 0x7ff)
        return sig ? 0x7fff : (uint16_t)(sign | inf);
    if (exp)
        sig |= 1ull << 52;
    else
        exp = 1;
    int to = exp - 1023 + bias, shift = 52 - man_bits;
    if (to < 1) {
        shift += 1 - to;
        to = 1;
    }
    if (shift > 62)
        shift = 62;
    uint64_t out = sig >> shift, rest = sig & ((1ull << shift) - 1);
    out += half_up(rest, 1ull << (shift - 1), out & 1, neg, mode);
    out += (uint64_t)(to - 1) << man_bits;
    if (out >= inf) /* overflow: infinity, or the largest number where the mode points inwards */
        out = mode == HALF_RN || (mode != HALF_RZ && (mode == HALF_RM) == neg) ? inf : inf - 1u;
    return (uint16_t)(sign | out);
}

static inline uint16_t half_from(double v, int mode)
{
    return half_round(v, 10, 15, mode);
}

static inline uint16_t half_bf_from(double v, int mode)
{
    return half_round(v, 7, 127, mode);
}

#endif
