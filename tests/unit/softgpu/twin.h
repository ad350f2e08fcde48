/* Twins: functions compiled for the host by the C compiler and for the GPU by nvcc, which have to
 * give the same bits.  Plain C without approximations, and neither compiler may fuse a product and
 * a sum.  Included by vm_twin_test.c and twin.cu.  Each takes three 64-bit values and gives one. */
#ifndef TFR_TESTS_TWIN_H
#define TFR_TESTS_TWIN_H

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define TWIN static __device__ __noinline__
#else
#define TWIN static
#endif

/* clang-format off */
#define TWINS(X) \
    X(collatz) X(gcd) X(hash) X(isqrt) X(crc) X(divisions) \
    X(bubble) X(parse) X(newton) X(horner) X(mandel) X(pendulum) \
    X(narrow) X(towers) X(automaton) X(mixed) X(bits_of_double) X(records)
/* clang-format on */

TWIN uint64_t collatz(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t n = 0, v = (a ^ b) % 10000 + 1 + (c & 1);
    for (; v != 1 && n < 500; n++)
        v = v & 1 ? 3 * v + 1 : v / 2;
    return n;
}

TWIN uint64_t gcd(uint64_t a, uint64_t b, uint64_t c)
{
    a ^= c >> 7;
    while (b) {
        uint64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

TWIN uint64_t hash(uint64_t a, uint64_t b, uint64_t c)
{
    for (int i = 0; i < 5; i++) {
        a = (a ^ (a >> 33)) * 0xff51afd7ed558ccdull + b;
        b = (b << 13 | b >> 51) ^ c;
        c += a * b;
    }
    return a ^ b ^ c;
}

TWIN uint64_t isqrt(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t v = a + b * 3 + c, root = 0;
    for (uint64_t bit = 1ull << 31; bit; bit >>= 1)
        if ((root | bit) * (root | bit) <= v)
            root |= bit;
    return root;
}

TWIN uint64_t crc(uint64_t a, uint64_t b, uint64_t c)
{
    uint32_t r = ~(uint32_t)c;
    for (int i = 0; i < 16; i++) {
        r ^= (uint8_t)((i < 8 ? a : b) >> 8 * (i & 7));
        for (int k = 0; k < 8; k++)
            r = r >> 1 ^ (0xedb88320u & (0u - (r & 1)));
    }
    return ~r;
}

TWIN uint64_t divisions(uint64_t a, uint64_t b, uint64_t c)
{
    int64_t x = (int64_t)a, y = (int64_t)(b | 1);
    int32_t p = (int32_t)c, q = (int32_t)(b >> 32) | 1;
    if (y == -1)
        y = 3;
    if (q == -1)
        q = 5;
    return (uint64_t)(x / y) ^ (uint64_t)(x % y) << 1 ^ (uint64_t)(uint32_t)(p / q) << 2 ^
           (uint64_t)(uint32_t)(p % q) << 3 ^ (uint64_t)((uint16_t)a / ((uint8_t)c | 1)) ^
           (uint64_t)(int64_t)((int16_t)a % 7);
}

TWIN uint64_t bubble(uint64_t a, uint64_t b, uint64_t c)
{
    int8_t v[16];
    for (int i = 0; i < 16; i++)
        v[i] = (int8_t)((i < 8 ? a : b) >> 8 * (i & 7));
    for (int i = 0; i < 15; i++)
        for (int k = 0; k < 15 - i; k++)
            if (v[k] > v[k + 1]) {
                int8_t t = v[k];
                v[k] = v[k + 1];
                v[k + 1] = t;
            }
    return (uint64_t)(int64_t)v[c & 15];
}

TWIN uint64_t parse(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t state = 0, out = b;
    for (int i = 0; i < 32; i++) {
        switch (state * 4 + (a >> 2 * i & 3)) {
        case 0:
        case 5:
            state = 1;
            break;
        case 1:
        case 4:
            out += c;
            break;
        case 2:
            state = 2;
            out ^= (uint64_t)i << 40;
            break;
        case 8:
            state = 0;
            out *= 31;
            break;
        case 6:
            out = ~out;
            state = 2;
            break;
        default:
            out -= state;
            break;
        }
    }
    return out;
}

TWIN float unit_float(uint64_t v)
{
    return (float)(int32_t)(v >> 8 & 0xffffff) / 16777216.0f;
}

TWIN uint64_t float_bits(float f)
{
    union {
        float f;
        uint32_t u;
    } v;
    v.f = f;
    return v.u;
}

TWIN uint64_t double_bits(double d)
{
    union {
        double d;
        uint64_t u;
    } v;
    v.d = d;
    return v.u;
}

TWIN uint64_t newton(uint64_t a, uint64_t b, uint64_t c)
{
    float v = unit_float(a) * 1000.0f + unit_float(b ^ c), r = v / 2.0f;
    for (int i = 0; i < 12; i++)
        r = fmaf(-0.5f, r, fmaf(1.0f, r, v / r * 0.5f));
    return float_bits(r) << 32 | float_bits(sqrtf(v));
}

TWIN uint64_t horner(uint64_t a, uint64_t b, uint64_t c)
{
    double x = (double)(int64_t)a / 9.3e18, r = (double)(int64_t)b;
    for (int i = 0; i < 20; i++)
        r = fma(r, x, 1.0 / (double)(i + 1) + (double)(c & 15));
    return double_bits(r);
}

TWIN uint64_t mandel(uint64_t a, uint64_t b, uint64_t c)
{
    float cx = unit_float(a) * 3.0f - 2.0f, cy = unit_float(b) * 2.0f - 1.0f, x = 0, y = 0;
    uint64_t n = 0;
    while (n < 100 + (c & 63) && fmaf(x, x, y * y) < 4.0f) {
        float t = fmaf(x, x, fmaf(-y, y, cx));
        y = fmaf(2.0f * x, y, cy);
        x = t;
        n++;
    }
    return n << 32 | float_bits(x);
}

TWIN uint64_t pendulum(uint64_t a, uint64_t b, uint64_t c)
{
    double p = (double)(a & 0xffff) / 65536.0, v = (double)(b & 0xffff) / 65536.0;
    for (uint64_t i = 0; i < 10 + (c & 31); i++) {
        v = fma(-0.01, p, v);
        p = fma(0.01, v, p);
        if (p > 1.0)
            p = -p;
    }
    return double_bits(p) ^ double_bits(v);
}

TWIN uint64_t narrow(uint64_t a, uint64_t b, uint64_t c)
{
    float f = (float)(int64_t)a * 0.25f, g = (float)b;
    double d = (double)f + (double)c;
    return (uint64_t)(int64_t)(int8_t)(int32_t)(f * 1e-17f) ^ (uint64_t)(int32_t)(g * 1e-12f) << 8 ^
           (uint64_t)(uint32_t)(int64_t)(d * 1e-11) << 16 ^ float_bits((float)d) << 20;
}

TWIN uint64_t hanoi(uint64_t n, uint64_t from, uint64_t to)
{
    if (n == 0)
        return from * 3 + to;
    return hanoi(n - 1, from, 3 - from - to) * 5 + hanoi(n - 1, 3 - from - to, to) + n;
}

TWIN uint64_t towers(uint64_t a, uint64_t b, uint64_t c)
{
    return hanoi(a & 7, b & 1, 1 + (c & 1) - (b & 1 & c));
}

TWIN uint64_t automaton(uint64_t a, uint64_t b, uint64_t c)
{
    for (int i = 0; i < 40; i++) {
        uint64_t l = a << 1 | a >> 63, r = a >> 1 | a << 63, next = 0;
        for (int k = 0; k < 8; k++)
            if (b >> k & 1)
                next |= (k & 4 ? l : ~l) & (k & 2 ? a : ~a) & (k & 1 ? r : ~r);
        a = next ^ c;
    }
    return a;
}

TWIN uint64_t mixed(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t out = 0;
    for (uint64_t i = 0; i < (c & 15); i++) {
        if ((a >> i & 3) == 0)
            continue;
        if ((b >> i & 7) == 7)
            break;
        for (uint64_t k = 0; k < (a >> i & 3); k++)
            out = out * 7 + (k ^ (b & 1 ? i : ~i));
    }
    return out;
}

TWIN uint64_t bits_of_double(uint64_t a, uint64_t b, uint64_t c)
{
    double x = (double)(a >> 11) * 1e-300, y = (double)(b >> 40) * 1e-10, z = x * y;
    return double_bits(z) ^ double_bits(floor(y * 3.7)) << 1 ^ double_bits(fabs(x - y)) ^
           (uint64_t)(z < x) << 7 ^ double_bits(fmin(y, (double)c));
}

struct record {
    uint8_t tag;
    int16_t small;
    float real;
    uint64_t wide[3];
};

TWIN struct record record_make(uint64_t v, float f)
{
    struct record r = {(uint8_t)v, (int16_t)(v >> 8), f, {v, ~v, v * 3}};
    return r;
}

TWIN uint64_t record_sum(struct record r, uint64_t at)
{
    return r.tag + (uint64_t)(int64_t)r.small + float_bits(r.real) + r.wide[at % 3];
}

TWIN uint64_t records(uint64_t a, uint64_t b, uint64_t c)
{
    struct record r = record_make(a, unit_float(b));
    if (c & 1)
        r = record_make(r.wide[2], r.real * 2.0f);
    return record_sum(r, b) ^ (c & 2 ? record_sum(r, b + 1) : 0);
}

#endif
