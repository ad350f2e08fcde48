/* One operation at a time: PTX against C, over edge values and random ones, with full and partial
 * warps and with both tables of operations.  A row: name, statements on %r1..3 / %rd1..3 / %h1..3
 * (the low parts of three inputs) that set %rd0, and the same in C on A, B, C (64 bits), a, b, c
 * (32) or x, y, z (as floats), u, v, w (as doubles). */
#include "tests/unit/softgpu/vm_kit.h"

#include <fenv.h>
#include <math.h>

static float F(uint64_t bits)
{
    uint32_t low = (uint32_t)bits;
    float f;
    memcpy(&f, &low, sizeof(f));
    return f;
}

static uint64_t U(float f)
{
    uint32_t u;
    if (f != f)
        return 0x7fffffff;
    memcpy(&u, &f, sizeof(u));
    return u;
}

static double D(uint64_t bits)
{
    double f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static uint64_t Q(double f)
{
    uint64_t u;
    memcpy(&u, &f, sizeof(u));
    return f != f ? 0x7ff8000000000000ull : u;
}

/* A NaN of any payload as one. */
static uint64_t one_nan(uint64_t v)
{
    return (v & 0x7fffffffffffffffull) > 0x7ff0000000000000ull ? 0x7ff8000000000000ull : v;
}

static int64_t sat32(int64_t v)
{
    return v > INT32_MAX ? INT32_MAX : v < INT32_MIN ? INT32_MIN : v;
}

static uint32_t rotl(uint32_t lo, uint32_t hi, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        hi = hi << 1 | lo >> 31;
        lo <<= 1;
    }
    return hi;
}

static uint32_t field(int64_t v, uint32_t pos, uint32_t len, bool sign)
{
    uint32_t out = 0, top = 0;
    for (uint32_t i = 0; i < 32; i++) { /* bit by bit, as the manual describes it */
        uint32_t from = pos + i > 31 ? 31 : pos + i;
        uint32_t bit =
            pos + i > 31 ? (sign ? (uint32_t)(v >> 31 & 1) : 0) : (uint32_t)(v >> from & 1);
        if (i < len)
            top = bit;
        out |= (i < len ? bit : sign && len ? top : 0) << i;
    }
    return len ? out : 0;
}

static uint32_t put_field(uint32_t f, uint32_t base, uint32_t pos, uint32_t len)
{
    for (uint32_t i = 0; i < len && pos + i < 32; i++)
        base = (base & ~(1u << (pos + i))) | (f >> (i & 31) & (i < 32)) << (pos + i);
    return base;
}

static uint32_t bytes(uint64_t from, uint32_t sel)
{
    uint32_t out = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t byte = (uint8_t)(from >> 8 * (sel >> 4 * i & 7));
        out |= (uint32_t)(sel >> 4 * i & 8 ? (byte >> 7) * 255u : byte) << 8 * i;
    }
    return out;
}

static uint32_t table3(uint32_t a, uint32_t b, uint32_t c, uint32_t t)
{
    uint32_t out = 0;
    for (int i = 0; i < 32; i++)
        out |= (t >> ((a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1)) & 1) << i;
    return out;
}

static uint64_t to_int(double f, double lo, double hi, uint64_t nan)
{
    return f != f    ? nan
           : f <= lo ? (uint64_t)(int64_t)lo
           : f >= hi ? (uint64_t)hi - 1
           : f < 0   ? (uint64_t)(int64_t)f
                     : (uint64_t)f;
}

static double rounded(int mode, int op, double x, double y, double z, bool single)
{
    volatile float fx = (float)x, fy = (float)y, fz = (float)z, fr;
    volatile double dx = x, dy = y, dz = z, dr;
    fesetround(mode);
    if (single) {
        fr = op == 0   ? fx + fy
             : op == 1 ? fx * fy
             : op == 2 ? fmaf(fx, fy, fz)
             : op == 3 ? fx / fy
                       : sqrtf(fx);
        dr = (double)fr;
    } else {
        dr = op == 0   ? dx + dy
             : op == 1 ? dx * dy
             : op == 2 ? fma(dx, dy, dz)
             : op == 3 ? dx / dy
                       : sqrt(dx);
    }
    fesetround(FE_TONEAREST);
    return dr;
}

static float half(uint64_t h)
{
    int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
    float f = e == 31 ? (m ? NAN : INFINITY)
              : e     ? ldexpf((float)(m | 1024), e - 25)
                      : ldexpf((float)m, -24);
    return h & 0x8000 ? -f : f;
}

/* Nearest by search, not by arithmetic; ties to even. */
static uint64_t to_half(double f)
{
    uint64_t sign = signbit(f) ? 0x8000 : 0, best = 0;
    f = fabs(f);
    if (f != f)
        return 0x7fff;
    if (f >= 65520)
        return sign | 0x7c00;
    uint64_t lo = 0, hi = 0x7c00;
    while (hi - lo > 1) {
        uint64_t mid = (lo + hi) / 2;
        if ((double)half(mid) <= f)
            lo = mid;
        else
            hi = mid;
    }
    double below = f - (double)half(lo), above = (hi == 0x7c00 ? 65536 : (double)half(hi)) - f;
    best = below < above || (below == above && !(lo & 1)) ? lo : hi;
    return sign | best;
}

#define W32(expr) "mov.b64 %rd0, 0; " expr " cvt.u64.u32 %rd0, %r0;"
#define W16(expr) expr " cvt.u32.u16 %r0, %h0; cvt.u64.u32 %rd0, %r0;"
#define WF(expr)                                                                                   \
    "mov.b32 %f1, %r1; mov.b32 %f2, %r2; mov.b32 %f3, %r3; " expr                                  \
    " mov.b32 %r0, %f0; cvt.u64.u32 %rd0, %r0;"
#define WD(expr)                                                                                   \
    "mov.b64 %fd1, %rd1; mov.b64 %fd2, %rd2; mov.b64 %fd3, %rd3; " expr " mov.b64 %rd0, %fd0;"
#define WP(expr)  expr " selp.b64 %rd0, 1, 0, %p1;"
#define WFP(expr) "mov.b32 %f1, %r1; mov.b32 %f2, %r2; " expr " selp.b64 %rd0, 1, 0, %p1;"

/* clang-format off */
#define ROWS(X) \
    X(add_s32, W32("add.s32 %r0, %r1, %r2;"), a + b) \
    X(sub_u64, "sub.u64 %rd0, %rd1, %rd2;", A - B) \
    X(add_s16, W16("add.s16 %h0, %h1, %h2;"), (uint16_t)(A + B)) \
    X(add_sat, W32("add.sat.s32 %r0, %r1, %r2;"), (uint32_t)sat32((int64_t)(int32_t)a + (int32_t)b)) \
    X(sub_sat, W32("sub.sat.s32 %r0, %r1, %r2;"), (uint32_t)sat32((int64_t)(int32_t)a - (int32_t)b)) \
    X(mul_lo_s32, W32("mul.lo.s32 %r0, %r1, %r2;"), a * b) \
    X(mul_hi_s32, W32("mul.hi.s32 %r0, %r1, %r2;"), (uint32_t)(((int64_t)(int32_t)a * (int32_t)b) >> 32)) \
    X(mul_hi_u32, W32("mul.hi.u32 %r0, %r1, %r2;"), (uint32_t)(((uint64_t)a * b) >> 32)) \
    X(mul_hi_u64, "mul.hi.u64 %rd0, %rd1, %rd2;", (uint64_t)(((unsigned __int128)A * B) >> 64)) \
    X(mul_hi_s64, "mul.hi.s64 %rd0, %rd1, %rd2;", (uint64_t)(((__int128)(int64_t)A * (int64_t)B) >> 64)) \
    X(mul_hi_u16, W16("mul.hi.u16 %h0, %h1, %h2;"), (uint16_t)((uint32_t)(uint16_t)A * (uint16_t)B >> 16)) \
    X(mul_wide_s32, "mul.wide.s32 %rd0, %r1, %r2;", (uint64_t)((int64_t)(int32_t)a * (int32_t)b)) \
    X(mul_wide_u16, W32("mul.wide.u16 %r0, %h1, %h2;"), (uint32_t)(uint16_t)A * (uint16_t)B) \
    X(mad_lo_s32, W32("mad.lo.s32 %r0, %r1, %r2, %r3;"), a * b + c) \
    X(mad_hi_u32, W32("mad.hi.u32 %r0, %r1, %r2, %r3;"), (uint32_t)(((uint64_t)a * b) >> 32) + c) \
    X(mad_wide_u32, "mad.wide.u32 %rd0, %r1, %r2, %rd3;", (uint64_t)a * b + C) \
    X(mad24_u, W32("mad24.lo.u32 %r0, %r1, %r2, %r3;"), (uint32_t)((uint64_t)(a & 0xffffff) * (b & 0xffffff)) + c) \
    X(mul24_hi_s, W32("mul24.hi.s32 %r0, %r1, %r2;"), (uint32_t)(((int64_t)((int32_t)(a << 8) >> 8) * ((int32_t)(b << 8) >> 8)) >> 16)) \
    X(div_s32, W32("div.s32 %r0, %r1, %r2;"), !b ? UINT32_MAX : b == UINT32_MAX ? 0u - a : (uint32_t)((int32_t)a / (int32_t)b)) \
    X(rem_s32, W32("rem.s32 %r0, %r1, %r2;"), !b ? a : b == UINT32_MAX ? 0 : (uint32_t)((int32_t)a % (int32_t)b)) \
    X(div_u64, "div.u64 %rd0, %rd1, %rd2;", B ? A / B : UINT64_MAX) \
    X(rem_u16, W16("rem.u16 %h0, %h1, %h2;"), (uint16_t)B ? (uint16_t)A % (uint16_t)B : (uint16_t)A) \
    X(sad_s32, W32("sad.s32 %r0, %r1, %r2, %r3;"), c + ((int32_t)a < (int32_t)b ? b - a : a - b)) \
    X(min_s16, W16("min.s16 %h0, %h1, %h2;"), (uint16_t)((int16_t)A < (int16_t)B ? A : B)) \
    X(max_u32, W32("max.u32 %r0, %r1, %r2;"), a > b ? a : b) \
    X(min_s64, "min.s64 %rd0, %rd1, %rd2;", (int64_t)A < (int64_t)B ? A : B) \
    X(abs_s32, W32("abs.s32 %r0, %r1;"), a >> 31 ? 0u - a : a) \
    X(neg_s64, "neg.s64 %rd0, %rd1;", 0 - A) \
    X(carry, "{.reg .b32 x,y; .reg .b32 p,q,s,t; mov.b64 {x,y}, %rd1; mov.b64 {p,q}, %rd2; add.cc.u32 s, x, p; addc.u32 t, y, q; mov.b64 %rd0, {s,t};}", A + B) \
    X(borrow, "{.reg .b32 x,y; .reg .b32 p,q,s,t; mov.b64 {x,y}, %rd1; mov.b64 {p,q}, %rd2; sub.cc.u32 s, x, p; subc.u32 t, y, q; mov.b64 %rd0, {s,t};}", A - B) \
    X(no_borrow, "{.reg .b32 s,t; sub.cc.u32 s, %r1, %r2; addc.u32 t, 0, 0; cvt.u64.u32 %rd0, t;}", (uint32_t)a >= (uint32_t)b) \
    X(mad_carry, "{.reg .b32 s,t; mad.lo.cc.u32 s, %r1, %r2, %r3; madc.hi.u32 t, %r1, %r2, 0; mov.b64 %rd0, {s,t};}", (uint64_t)a * b + c) \
    X(carry64, "{.reg .b64 s; add.cc.u64 s, %rd1, %rd2; addc.u64 %rd0, 0, 0;}", A + B < A) \
    X(dp4a_ss, W32("dp4a.s32.s32 %r0, %r1, %r2, %r3;"), c + (uint32_t)((int8_t)a * (int8_t)b + (int8_t)(a >> 8) * (int8_t)(b >> 8) + (int8_t)(a >> 16) * (int8_t)(b >> 16) + (int8_t)(a >> 24) * (int8_t)(b >> 24))) \
    X(dp4a_us, W32("dp4a.u32.s32 %r0, %r1, %r2, %r3;"), c + (uint32_t)((uint8_t)a * (int8_t)b + (uint8_t)(a >> 8) * (int8_t)(b >> 8) + (uint8_t)(a >> 16) * (int8_t)(b >> 16) + (uint8_t)(a >> 24) * (int8_t)(b >> 24))) \
    X(dp2a_hi, W32("dp2a.hi.s32.u32 %r0, %r1, %r2, %r3;"), c + (uint32_t)((int16_t)a * (uint8_t)(b >> 16) + (int16_t)(a >> 16) * (uint8_t)(b >> 24))) \
    X(and_b64, "and.b64 %rd0, %rd1, %rd2;", A & B) \
    X(not_b16, W16("not.b16 %h0, %h1;"), (uint16_t)~A) \
    X(cnot, W32("cnot.b32 %r0, %r1;"), !a) \
    X(shl_b32, W32("shl.b32 %r0, %r1, %r2;"), b > 31 ? 0 : a << b) \
    X(shl_small, W32("and.b32 %r4, %r2, 63; shl.b32 %r0, %r1, %r4;"), (b & 63) > 31 ? 0 : a << (b & 63)) \
    X(shr_s32, W32("and.b32 %r4, %r2, 63; shr.s32 %r0, %r1, %r4;"), (uint32_t)((int32_t)a >> ((b & 63) > 31 ? 31 : b & 63))) \
    X(shr_u64, "and.b32 %r4, %r2, 127; shr.u64 %rd0, %rd1, %r4;", (b & 127) > 63 ? 0 : A >> (b & 127)) \
    X(shr_s16, W16("and.b32 %r4, %r2, 31; shr.s16 %h0, %h1, %r4;"), (uint16_t)((int16_t)A >> ((b & 31) > 15 ? 15 : b & 31))) \
    X(shf_l, W32("and.b32 %r4, %r3, 63; shf.l.clamp.b32 %r0, %r1, %r2, %r4;"), rotl(a, b, (c & 63) > 32 ? 32 : c & 63)) \
    X(shf_r, W32("shf.r.wrap.b32 %r0, %r1, %r2, %r3;"), (uint32_t)(((uint64_t)b << 32 | a) >> (c & 31))) \
    X(popc, W32("popc.b64 %r0, %rd1;"), (uint32_t)__builtin_popcountll(A)) \
    X(clz, W32("clz.b32 %r0, %r1;"), a ? (uint32_t)__builtin_clz(a) : 32) \
    X(brev, W32("brev.b32 %r0, %r1;"), ({ uint32_t r_ = 0; for (int i = 0; i < 32; i++) r_ |= (a >> i & 1) << (31 - i); r_; })) \
    X(bfe_u, W32("and.b32 %r4, %r2, 63; and.b32 %r5, %r3, 63; bfe.u32 %r0, %r1, %r4, %r5;"), field(a, b & 63, c & 63, false)) \
    X(bfe_s, W32("and.b32 %r4, %r2, 63; and.b32 %r5, %r3, 63; bfe.s32 %r0, %r1, %r4, %r5;"), field((int32_t)a, b & 63, c & 63, true)) \
    X(bfi, W32("and.b32 %r4, %r3, 63; bfi.b32 %r0, %r1, %r2, %r4, 7;"), put_field(a, b, c & 63, 7)) \
    X(bfind_s, W32("bfind.s32 %r0, %r1;"), ({ uint32_t v_ = a >> 31 ? ~a : a; v_ ? 31 - (uint32_t)__builtin_clz(v_) : UINT32_MAX; })) \
    X(bfind_sh, W32("bfind.shiftamt.u32 %r0, %r1;"), a ? (uint32_t)__builtin_clz(a) : UINT32_MAX) \
    X(bmsk, W32("bmsk.clamp.b32 %r0, %r1, %r2;"), ({ uint32_t r_ = 0; for (uint32_t i = 0; i < 32; i++) r_ |= (uint32_t)(i >= a && i - a < b) << i; r_; })) \
    X(prmt, W32("prmt.b32 %r0, %r1, %r2, %r3;"), bytes((uint64_t)b << 32 | a, c)) \
    X(prmt_b4e, W32("prmt.b32.b4e %r0, %r1, %r2, %r3;"), ({ static const uint32_t s_[] = {0x5670, 0x6701, 0x7012, 0x0123}; bytes((uint64_t)b << 32 | a, s_[c & 3]); })) \
    X(lop3, W32("lop3.b32 %r0, %r1, %r2, %r3, 0x96;"), a ^ b ^ c) \
    X(lop3_any, W32("lop3.b32 %r0, %r1, %r2, %r3, 0xe2;"), table3(a, b, c, 0xe2)) \
    X(selp, W32("setp.lt.s32 %p1, %r1, %r2; selp.b32 %r0, %r3, 7, %p1;"), (int32_t)a < (int32_t)b ? c : 7) \
    X(slct, W32("slct.b32.s32 %r0, %r1, %r2, %r3;"), (int32_t)c >= 0 ? a : b) \
    X(setp_lo, WP("setp.lo.u32 %p1, %r1, %r2;"), a < b) \
    X(setp_and, WP("setp.ne.s32 %p2, %r3, 0; setp.ge.and.s64 %p1, %rd1, %rd2, %p2;"), (int64_t)A >= (int64_t)B && c) \
    X(setp_two, WP("setp.eq.s32 %p2, %r3, 0; setp.gt.or.u16 %p3|%p1, %h1, %h2, !%p2;"), !((uint16_t)A > (uint16_t)B) || c) \
    X(set_f32, W32("mov.b32 %f1, %r1; mov.b32 %f2, %r2; set.lt.u32.f32 %r0, %f1, %f2;"), x < y ? UINT32_MAX : 0) \
    X(set_as_f32, WF("set.gt.f32.f32 %f0, %f1, %f2;"), U(x > y ? 1.0f : 0.0f)) \
    X(pred_logic, WP("setp.ne.s32 %p2, %r1, 0; setp.lt.s32 %p3, %r2, 0; xor.pred %p1, %p2, %p3; not.pred %p1, %p1; and.pred %p1, %p1, %p2;"), a && (int32_t)b < 0) \
    X(add_f32, WF("add.rn.f32 %f0, %f1, %f2;"), U(x + y)) \
    X(sub_f32, WF("sub.f32 %f0, %f1, %f2;"), U(x - y)) \
    X(mul_f32, WF("mul.f32 %f0, %f1, %f2;"), U(x * y)) \
    X(fma_f32, WF("fma.rn.f32 %f0, %f1, %f2, %f3;"), U(fmaf(x, y, z))) \
    X(div_f32, WF("div.rn.f32 %f0, %f1, %f2;"), U(x / y)) \
    X(sqrt_f32, WF("sqrt.rn.f32 %f0, %f1;"), U(sqrtf(x))) \
    X(rcp_f32, WF("rcp.rn.f32 %f0, %f1;"), U(1 / x)) \
    X(add_rz, WF("add.rz.f32 %f0, %f1, %f2;"), U((float)rounded(FE_TOWARDZERO, 0, (double)x, (double)y, 0, true))) \
    X(mul_rm, WF("mul.rm.f32 %f0, %f1, %f2;"), U((float)rounded(FE_DOWNWARD, 1, (double)x, (double)y, 0, true))) \
    X(fma_rp, WF("fma.rp.f32 %f0, %f1, %f2, %f3;"), U((float)rounded(FE_UPWARD, 2, (double)x, (double)y, (double)z, true))) \
    X(div_rp, WF("div.rp.f32 %f0, %f1, %f2;"), U((float)rounded(FE_UPWARD, 3, (double)x, (double)y, 0, true))) \
    X(add_sat_f, WF("add.sat.f32 %f0, %f1, %f2;"), U(x + y > 0 ? fminf(x + y, 1) : 0)) \
    X(min_f32, WF("min.f32 %f0, %f1, %f2;"), x != x ? U(y) : y != y ? U(x) : x == y ? U(x) | U(y) : U(x < y ? x : y)) \
    X(max_f32, WF("max.f32 %f0, %f1, %f2;"), x != x ? U(y) : y != y ? U(x) : x == y ? U(x) & U(y) : U(x > y ? x : y)) \
    X(max_nan, WF("max.NaN.f32 %f0, %f1, %f2;"), x != x || y != y ? 0x7fffffff : x == y ? U(x) & U(y) : U(x > y ? x : y)) \
    X(neg_f32, WF("neg.f32 %f0, %f1;"), a ^ 0x80000000u) \
    X(abs_f32, WF("abs.f32 %f0, %f1;"), a & 0x7fffffffu) \
    X(copysign, WF("copysign.f32 %f0, %f1, %f2;"), (b & 0x7fffffff) | (a & 0x80000000)) \
    X(add_ftz, WF("add.ftz.f32 %f0, %f1, %f2;"), ({ float p_ = fpclassify(x) == FP_SUBNORMAL ? copysignf(0, x) : x, q_ = fpclassify(y) == FP_SUBNORMAL ? copysignf(0, y) : y, r_ = p_ + q_; U(fpclassify(r_) == FP_SUBNORMAL ? copysignf(0, r_) : r_); })) \
    X(neg_ftz, WF("neg.ftz.f32 %f0, %f1;"), ({ uint32_t v_ = a ^ 0x80000000u; v_ & 0x7f800000 ? v_ : v_ & 0x80000000u; })) \
    X(setp_equ, WFP("setp.equ.f32 %p1, %f1, %f2;"), x == y || x != x || y != y) \
    X(setp_ne, WFP("setp.ne.f32 %p1, %f1, %f2;"), x < y || x > y) \
    X(setp_neu, WFP("setp.neu.f32 %p1, %f1, %f2;"), x != y) \
    X(setp_ltu, WFP("setp.ltu.f32 %p1, %f1, %f2;"), !(x >= y)) \
    X(setp_num, WFP("setp.num.f32 %p1, %f1, %f2;"), x == x && y == y) \
    X(testp_sub, WFP("testp.subnormal.f32 %p1, %f1;"), fpclassify(x) == FP_SUBNORMAL) \
    X(testp_nan, WFP("testp.notanumber.f32 %p1, %f1;"), x != x) \
    X(add_f64, WD("add.f64 %fd0, %fd1, %fd2;"), Q(u + v)) \
    X(fma_f64, WD("fma.rn.f64 %fd0, %fd1, %fd2, %fd3;"), Q(fma(u, v, w))) \
    X(div_f64, WD("div.rn.f64 %fd0, %fd1, %fd2;"), Q(u / v)) \
    X(mul_rz_f64, WD("mul.rz.f64 %fd0, %fd1, %fd2;"), Q(rounded(FE_TOWARDZERO, 1, u, v, 0, false))) \
    X(sqrt_rm_f64, WD("sqrt.rm.f64 %fd0, %fd1;"), Q(rounded(FE_DOWNWARD, 4, u, 0, 0, false))) \
    X(max_f64, WD("max.f64 %fd0, %fd1, %fd2;"), u != u ? Q(v) : v != v ? Q(u) : u == v ? Q(u) & Q(v) : Q(u > v ? u : v)) \
    X(cvt_u8_s32, W32("cvt.u8.s32 %r0, %r1;"), a & 0xff) \
    X(cvt_s8_s32, W32("cvt.s8.s32 %r0, %r1;"), (uint32_t)(int8_t)a) \
    X(cvt_sat_u8, W32("cvt.sat.u8.s32 %r0, %r1;"), (int32_t)a < 0 ? 0 : a > 255 ? 255 : a) \
    X(cvt_sat_s16, W32("cvt.sat.s16.s64 %r0, %rd1;"), (uint32_t)((int64_t)A < -32768 ? -32768 : (int64_t)A > 32767 ? 32767 : (int32_t)A)) \
    X(cvt_s64_s8, "cvt.s64.s8 %rd0, %r1;", (uint64_t)(int8_t)a) \
    X(cvt_u32_u64, W32("cvt.u32.u64 %r0, %rd1;"), (uint32_t)A) \
    X(cvt_f32_s32, WF("cvt.rn.f32.s32 %f0, %r1;"), U((float)(int32_t)a)) \
    X(cvt_f32_u64, WF("cvt.rn.f32.u64 %f0, %rd1;"), U((float)A)) \
    X(cvt_f32_u32_rz, WF("cvt.rz.f32.u32 %f0, %r1;"), ({ float f_ = (float)a; U((double)f_ > (double)a ? nextafterf(f_, 0) : f_); })) \
    X(cvt_f64_u64, WD("cvt.rn.f64.u64 %fd0, %rd1;"), Q((double)A)) \
    X(cvt_s32_f32, WF("cvt.rzi.s32.f32 %r4, %f1; mov.b32 %f0, %r4;"), (uint32_t)to_int((double)x, -0x1p31, 0x1p31, 0)) \
    X(cvt_u32_f32_rni, WF("cvt.rni.u32.f32 %r4, %f1; mov.b32 %f0, %r4;"), (uint32_t)to_int((double)rintf(x), 0, 0x1p32, 0)) \
    X(cvt_s32_f32_rmi, WF("cvt.rmi.s32.f32 %r4, %f1; mov.b32 %f0, %r4;"), (uint32_t)to_int((double)floorf(x), -0x1p31, 0x1p31, 0)) \
    X(cvt_s64_f64, "mov.b64 %fd1, %rd1; cvt.rzi.s64.f64 %rd0, %fd1;", u != u ? 1ull << 63 : u >= 0x1p63 ? INT64_MAX : u <= -0x1p63 ? 1ull << 63 : (uint64_t)(int64_t)u) \
    X(cvt_u64_f32, "mov.b32 %f1, %r1; cvt.rzi.u64.f32 %rd0, %f1;", x != x ? 1ull << 63 : x >= 0x1p64f ? UINT64_MAX : x <= 0 ? 0 : (uint64_t)x) \
    X(cvt_s32_f64, W32("mov.b64 %fd1, %rd1; cvt.rpi.s32.f64 %r0, %fd1;"), (uint32_t)to_int(ceil(u), -0x1p31, 0x1p31, 0x80000000u)) \
    X(cvt_u8_f32, W32("mov.b32 %f1, %r1; cvt.rzi.u8.f32 %r0, %f1;"), (uint32_t)to_int((double)x, 0, 256, 0)) \
    X(cvt_rint, WF("cvt.rni.f32.f32 %f0, %f1;"), U(rintf(x))) \
    X(cvt_trunc, WF("cvt.rzi.f32.f32 %f0, %f1;"), U(truncf(x))) \
    X(cvt_f32_f64, WF("mov.b64 %fd1, %rd1; cvt.rn.f32.f64 %f0, %fd1;"), U((float)u)) \
    X(cvt_f64_f32, "mov.b32 %f1, %r1; cvt.f64.f32 %fd0, %f1; mov.b64 %rd0, %fd0;", Q((double)x)) \
    X(cvt_sat_f32, WF("cvt.sat.f32.f32 %f0, %f1;"), U(x > 0 ? fminf(x, 1) : 0)) \
    X(cvt_f16_f32, W16("mov.b32 %f1, %r1; cvt.rn.f16.f32 %h0, %f1;"), to_half((double)x)) \
    X(cvt_f16_f64, W16("mov.b64 %fd1, %rd1; cvt.rn.f16.f64 %h0, %fd1;"), to_half(u)) \
    X(cvt_f32_f16, WF("cvt.f32.f16 %f0, %h1;"), U(half(A & 0xffff))) \
    X(cvt_f16_s32, W16("cvt.rn.f16.s32 %h0, %r1;"), to_half((double)(int32_t)a)) \
    X(cvt_bf16, W16("mov.b32 %f1, %r1; cvt.rn.bf16.f32 %h0, %f1;"), x != x ? 0x7fff : (a + 0x7fff + (a >> 16 & 1)) >> 16) \
    X(cvt_f16x2, W32("mov.b32 %f1, %r1; mov.b32 %f2, %r2; cvt.rn.f16x2.f32 %r0, %f1, %f2;"), to_half((double)x) << 16 | to_half((double)y)) \
    X(add_f16, W16("add.f16 %h0, %h1, %h2;"), to_half((double)half(A & 0xffff) + (double)half(B & 0xffff))) \
    X(fma_f16, W16("fma.rn.f16 %h0, %h1, %h2, %h3;"), to_half(fma((double)half(A & 0xffff), (double)half(B & 0xffff), (double)half(C & 0xffff)))) \
    X(mul_f16x2, W32("mul.f16x2 %r0, %r1, %r2;"), to_half((double)half(a >> 16) * (double)half(b >> 16)) << 16 | to_half((double)half(a & 0xffff) * (double)half(b & 0xffff))) \
    X(neg_f16x2, W32("neg.f16x2 %r0, %r1;"), a ^ 0x80008000u) \
    X(setp_f16, WP("setp.le.f16 %p1, %h1, %h2;"), half(A & 0xffff) <= half(B & 0xffff)) \
    X(set_f16x2, W32("set.gt.f16x2.f16x2 %r0, %r1, %r2;"), (half(a >> 16) > half(b >> 16) ? 0x3c000000u : 0) | (half(a & 0xffff) > half(b & 0xffff) ? 0x3c00u : 0)) \
    X(set_pair_mask, W32("set.le.u32.f16x2 %r0, %r1, %r2;"), (half(a >> 16) <= half(b >> 16) ? 0xffff0000u : 0) | (half(a & 0xffff) <= half(b & 0xffff) ? 0xffffu : 0)) \
    X(pack, "mov.b64 %rd0, {%r2, %r1};", (uint64_t)a << 32 | b) \
    X(unpack, W32("{.reg .b16 p, q; mov.b32 {p, q}, %r1; mov.b32 %r0, {q, p};}"), a >> 16 | a << 16) \
    X(vabsdiff4, W32("vabsdiff4.u32.u32.u32.add %r0, %r1, %r2, %r3;"), ({ uint32_t s_ = c; for (int i = 0; i < 32; i += 8) s_ += (uint32_t)abs((int)(a >> i & 255) - (int)(b >> i & 255)); s_; }))
/* clang-format on */

#define REFERENCE(name, ptx, expr)                                                                 \
    static uint64_t ref_##name(uint64_t A, uint64_t B, uint64_t C)                                 \
    {                                                                                              \
        uint32_t a = (uint32_t)A, b = (uint32_t)B, c = (uint32_t)C;                                \
        float x = F(A), y = F(B), z = F(C);                                                        \
        double u = D(A), v = D(B), w = D(C);                                                       \
        (void)a, (void)b, (void)c, (void)x, (void)y, (void)z, (void)u, (void)v, (void)w;           \
        return (expr);                                                                             \
    }
ROWS(REFERENCE)

static const struct row {
    const char *name, *ptx;
    uint64_t (*ref)(uint64_t, uint64_t, uint64_t);
} rows[] = {
#define ROW(name, ptx, expr) {#name, ptx, ref_##name},
    ROWS(ROW)
#undef ROW
};

enum { COUNT = 4500 };

static const uint64_t edges[] = {
    0,
    1,
    2,
    3,
    7,
    31,
    32,
    33,
    63,
    64,
    127,
    128,
    255,
    256,
    0x7fff,
    0x8000,
    0xffff,
    0x7fffffff,
    0x80000000,
    0xffffffff,
    0x100000000,
    INT64_MAX,
    1ull << 63,
    UINT64_MAX,
    0x3f800000,
    0xbf800000,
    0x7f800000,
    0xff800000,
    0x7fc00000,
    0xffc00001,
    0x7f7fffff,
    0x00800000,
    0x007fffff,
    0x00000001,
    0x80000001,
    0x4b000000,
    0x4f000000,
    0xcf000000,
    0x4effffff,
    0x3f000000,
    0x3effffff,
    0x40200000,
    0x477fe000,
    0x477ff000,
    0x33000000,
    0x33800000,
    0x3c00,
    0xbc00,
    0x7c00,
    0xfc00,
    0x7e00,
    0x0001,
    0x03ff,
    0x0400,
    0x7bff,
    0x3ff0000000000000,
    0xbff0000000000000,
    0x7ff0000000000000,
    0x7ff8000000000000,
    0x000fffffffffffff,
    0x0010000000000000,
    0x43e0000000000000,
    0xc3e0000000000000,
    0x41dfffffffc00000,
    0xc1e0000000000000,
    0x40eff00000000000,
};

static uint64_t state = 88172645463325252ull;

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static uint64_t input(void)
{
    enum { N = sizeof(edges) / sizeof(*edges) };
    switch (next_random() % 5) {
    case 0:
    case 1:
        return edges[next_random() % N];
    case 2:
        return next_random() >> (next_random() & 63);
    case 3: { /* a float of moderate size in both halves and a double */
        float f = ldexpf((float)(int32_t)next_random(), (int)(next_random() % 50) - 45);
        return next_random() & 1 ? U(f) : Q((double)f);
    }
    default:
        return next_random();
    }
}

static void make_text(char *text, size_t n, const struct row *row)
{
    snprintf(text, n,
             VM_PTX_HEAD
             ".visible .entry k(.param .u64 in, .param .u64 out, .param .u32 n)\n{\n"
             ".reg .pred %%p<9>; .reg .b16 %%h<9>; .reg .b32 %%r<20>; .reg .b64 %%rd<20>;\n"
             ".reg .f32 %%f<9>; .reg .f64 %%fd<9>;\n"
             "ld.param.u64 %%rd9, [in]; ld.param.u64 %%rd10, [out]; ld.param.u32 %%r10, [n];\n"
             "mov.u32 %%r11, %%ctaid.x; mov.u32 %%r12, %%ntid.x; mov.u32 %%r13, %%tid.x;\n"
             "mad.lo.s32 %%r11, %%r11, %%r12, %%r13; setp.ge.u32 %%p8, %%r11, %%r10;\n"
             "@%%p8 bra END;\n"
             "mul.wide.u32 %%rd11, %%r11, 24; add.s64 %%rd9, %%rd9, %%rd11;\n"
             "mul.wide.u32 %%rd11, %%r11, 8; add.s64 %%rd10, %%rd10, %%rd11;\n"
             "ld.global.u64 %%rd1, [%%rd9]; ld.global.u64 %%rd2, [%%rd9+8];\n"
             "ld.global.u64 %%rd3, [%%rd9+16]; cvt.u32.u64 %%r1, %%rd1; cvt.u32.u64 %%r2, %%rd2;\n"
             "cvt.u32.u64 %%r3, %%rd3; cvt.u16.u64 %%h1, %%rd1; cvt.u16.u64 %%h2, %%rd2;\n"
             "cvt.u16.u64 %%h3, %%rd3;\n%s\nst.global.u64 [%%rd10], %%rd0;\nEND: ret;\n}\n",
             row->ptx);
}

static bool check_row(const struct row *row, unsigned int threads)
{
    char text[4096];
    struct vm_fault fault;
    uint64_t *in = vm_kit_mem(COUNT * 24), *out = vm_kit_mem(COUNT * 8);
    make_text(text, sizeof(text), row);
    for (int i = 0; i < COUNT * 3; i++)
        in[i] = input();
    struct {
        uint64_t in, out;
        uint32_t n;
    } p = {(uintptr_t)in, (uintptr_t)out, COUNT};
    struct vm_module *m = vm_kit_load(text);
    CUresult r =
        vm_kit_run(vm_kit_kernel(m, "k"), (COUNT + threads - 1) / threads, threads, 0, &p, &fault);
    cr_assert_eq(r, CUDA_SUCCESS, "%s: %s", row->name, fault.text.s);
    vm_module_unload(m);
    bool wide = strstr(row->ptx, "%fd0") != NULL; /* f64 keeps the payloads of NaNs */
    int bad = 0;
    for (int i = 0; i < COUNT; i++) {
        uint64_t want = row->ref(in[3 * i], in[3 * i + 1], in[3 * i + 2]);
        if ((wide ? one_nan(out[i]) : out[i]) == (wide ? one_nan(want) : want))
            continue;
        if (bad++ < 3)
            cr_log_error("%s(%llx, %llx, %llx) gives %llx, not %llx", row->name,
                         (unsigned long long)in[3 * i], (unsigned long long)in[3 * i + 1],
                         (unsigned long long)in[3 * i + 2], (unsigned long long)out[i],
                         (unsigned long long)want);
    }
    soft_mem_free((CUdeviceptr)(uintptr_t)in);
    soft_mem_free((CUdeviceptr)(uintptr_t)out);
    return bad == 0;
}

static void check_all(unsigned int threads)
{
    int bad = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++)
        bad += !check_row(&rows[i], threads);
    cr_assert_eq(bad, 0, "%d operations differ", bad);
}

Test(vm_alu, gives_what_c_gives_in_full_warps)
{
    check_all(128);
}

Test(vm_alu, gives_what_c_gives_in_partial_warps)
{
    check_all(45);
}

Test(vm_alu, gives_the_same_on_any_processor)
{
    setenv("TFR_SOFT_ISA", "base", 1);
    check_all(64);
}
