/* Single precision: IEEE operations and directed rounding bit for bit, fast and library functions
 * within a tolerance, conversions, saturation, integer oddities (shifts, high products, bit
 * counts). */
#include <math.h>

#include "check.h"

enum { N = 4096, INTS = 10 };

__global__ void plain(const float *x, float *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float a = x[i], b = x[(i + 1) % N];
    out[i] = a / b;
    out[N + i] = sqrtf(fabsf(a));
    out[2 * N + i] = fmaf(a, b, 0.5f);
    out[3 * N + i] = __fadd_ru(a, b) - __fadd_rd(a, b) >= 0 ? a + b : -1;
    out[4 * N + i] = __saturatef(a);
    out[5 * N + i] = (float)(int)a + rintf(b) + truncf(a);
    out[6 * N + i] = (float)(unsigned char)(signed char)(int)a;
    out[7 * N + i] = fmodf(a, 3.0f);
}

__global__ void curved(const float *x, float *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float a = x[i];
    out[i] = expf(a * 0.02f);
    out[N + i] = logf(fabsf(a));
    out[2 * N + i] = sinf(a);
    out[3 * N + i] = powf(fabsf(a), 0.7f);
    out[4 * N + i] = rsqrtf(fabsf(a));
    out[5 * N + i] = tanhf(a * 0.01f);
    out[6 * N + i] = __expf(a * 0.02f);
    out[7 * N + i] = atan2f(a, 3.0f);
}

__global__ void integers(const int *x, int *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x, a = x[i], b = x[(i + 1) % N];
    out[i] = __popc(a) + 100 * __clz(a) + 10000 * __ffs(b);
    out[N + i] = __mulhi(a, b);
    out[2 * N + i] = (int)__umulhi((unsigned)a, (unsigned)b);
    out[3 * N + i] = a / (b | 1) + a % (b | 1);
    out[4 * N + i] = (int)__brev((unsigned)a);
    out[5 * N + i] = (int)__byte_perm((unsigned)a, (unsigned)b, 0x3715);
    out[6 * N + i] = (a << (b & 31)) ^ (a >> (b & 31)) ^ (int)((unsigned)a >> (b & 31));
    out[7 * N + i] = (int)__funnelshift_l((unsigned)a, (unsigned)b, (unsigned)a & 31);
    out[8 * N + i] = min(a, b) ^ max(a, -b) ^ abs(a);
    out[9 * N + i] =
        (int)(((long long)a * b) >> 13) + (int)((unsigned long long)a / ((unsigned)b | 1u));
}

static int high(int a, int b)
{
    return (int)(((long long)a * b) >> 32);
}

static unsigned reversed(unsigned v)
{
    unsigned r = 0;
    for (int i = 0; i < 32; i++)
        r |= (v >> i & 1) << (31 - i);
    return r;
}

static unsigned permuted(unsigned a, unsigned b, unsigned select)
{
    unsigned long long both = (unsigned long long)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++)
        r |= (unsigned)(both >> (8 * (select >> (4 * i) & 7)) & 0xff) << (8 * i);
    return r;
}

static void check_ints(const int *x, const int *out)
{
    for (int i = 0; i < N; i++) {
        int a = x[i], b = x[(i + 1) % N], s = b & 31;
        unsigned ua = (unsigned)a, ub = (unsigned)b;
        unsigned funnel = (unsigned)(((unsigned long long)ub << 32 | ua) << (ua & 31) >> 32);
        int want[INTS] = {
            __builtin_popcount(ua) + 100 * (a ? __builtin_clz(ua) : 32) + 10000 * __builtin_ffs(b),
            high(a, b),
            (int)((unsigned long long)ua * ub >> 32),
            a / (b | 1) + a % (b | 1),
            (int)reversed(ua),
            (int)permuted(ua, ub, 0x3715),
            (int)(ua << s) ^ (a >> s) ^ (int)(ua >> s),
            (int)funnel,
            (a < b ? a : b) ^ (a > -b ? a : -b) ^ (a < 0 ? -a : a),
            (int)(((long long)a * b) >> 13) + (int)((unsigned long long)a / (ub | 1u)),
        };
        for (int k = 0; k < INTS; k++)
            CHECK(out[k * N + i] == want[k]);
    }
    printf("integer operations are exact\n");
}

static void check_plain(const float *x, const float *out)
{
    for (int i = 0; i < N; i++) {
        float a = x[i], b = x[(i + 1) % N];
        float want[8] = {a / b,
                         sqrtf(fabsf(a)),
                         fmaf(a, b, 0.5f),
                         a + b,
                         a < 0   ? 0
                         : a > 1 ? 1
                                 : a,
                         (float)(int)a + rintf(b) + truncf(a),
                         (float)(unsigned char)(signed char)(int)a,
                         fmodf(a, 3.0f)};
        for (int k = 0; k < 8; k++)
            CHECK(out[k * N + i] == want[k]);
    }
    printf("plain operations are bit-exact\n");
}

static void check_curved(const float *x, const float *out)
{
    static const char *name[8] = {"expf",   "logf",  "sinf",   "powf",
                                  "rsqrtf", "tanhf", "__expf", "atan2f"};
    double worst[8] = {0};
    for (int i = 0; i < N; i++) {
        double a = x[i], p = fabs(a), e = exp((double)(x[i] * 0.02f));
        double want[8] = {e,           log(p),
                          sin(a),      pow(p, (double)0.7f),
                          1 / sqrt(p), tanh((double)(x[i] * 0.01f)),
                          e,           atan2(a, 3.0)};
        for (int k = 0; k < 8; k++)
            worst[k] = fmax(worst[k], fabs(out[k * N + i] - want[k]) / (fabs(want[k]) + 1e-3));
    }
    for (int k = 0; k < 8; k++)
        printf("%s: %s\n", name[k], worst[k] < 4e-6 ? "close" : "too far");
}

int main(void)
{
    static float x[N], out[8 * N];
    static int ix[N], iout[INTS * N];
    uint32_t seed = 9;
    for (int i = 0; i < N; i++) {
        x[i] = ((float)(check_random(&seed) % 200000) - 100000.5f) / 1024.0f;
        ix[i] = (int)(check_random(&seed) << 8 ^ check_random(&seed)) >> (i % 3 * 8);
    }
    float *dx = (float *)device_alloc(sizeof(x)), *dout = (float *)device_alloc(sizeof(out));
    int *dix = (int *)device_alloc(sizeof(ix)), *diout = (int *)device_alloc(sizeof(iout));
    CUDA(cudaMemcpy(dx, x, sizeof(x), cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(dix, ix, sizeof(ix), cudaMemcpyHostToDevice));
    plain<<<N / 128, 128>>>(dx, dout);
    LAUNCHED();
    CUDA(cudaMemcpy(out, dout, sizeof(out), cudaMemcpyDeviceToHost));
    check_plain(x, out);
    curved<<<N / 128, 128>>>(dx, dout);
    LAUNCHED();
    CUDA(cudaMemcpy(out, dout, sizeof(out), cudaMemcpyDeviceToHost));
    check_curved(x, out);
    integers<<<N / 128, 128>>>(dix, diout);
    LAUNCHED();
    CUDA(cudaMemcpy(iout, diout, sizeof(iout), cudaMemcpyDeviceToHost));
    check_ints(ix, iout);
    return 0;
}
