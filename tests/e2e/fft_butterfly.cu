/* A fast Fourier transform by hand: bit reversal, butterflies in shared memory for the short
 * strides and in global memory for the long ones; a product of spectra is a convolution. */
#include <math.h>

#include "check.h"

enum { LOG = 12, N = 1 << LOG, INNER = 9 };

__global__ void reverse(const float2 *in, float2 *out)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    out[__brev(i) >> (32 - LOG)] = in[i];
}

__device__ void butterfly(float2 *a, float2 *b, float angle)
{
    float s, c;
    sincospif(angle, &s, &c);
    float2 t = make_float2(c * b->x - s * b->y, c * b->y + s * b->x);
    *b = make_float2(a->x - t.x, a->y - t.y);
    *a = make_float2(a->x + t.x, a->y + t.y);
}

__global__ void inner(float2 *x, float sign)
{
    __shared__ float2 s[1 << INNER];
    unsigned base = blockIdx.x << INNER, t = threadIdx.x;
    s[t] = x[base + t];
    s[t + blockDim.x] = x[base + t + blockDim.x];
    for (unsigned half = 1; half < 1 << INNER; half *= 2) {
        __syncthreads();
        unsigned k = t & (half - 1), at = 2 * t - k;
        butterfly(&s[at], &s[at + half], sign * (float)k / (float)half);
    }
    __syncthreads();
    x[base + t] = s[t];
    x[base + t + blockDim.x] = s[t + blockDim.x];
}

__global__ void outer(float2 *x, unsigned half, float sign)
{
    unsigned t = blockIdx.x * blockDim.x + threadIdx.x, k = t & (half - 1), at = 2 * t - k;
    butterfly(&x[at], &x[at + half], sign * (float)k / (float)half);
}

__global__ void multiply(float2 *x, const float2 *y)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    float2 a = x[i], b = y[i];
    x[i] = make_float2((a.x * b.x - a.y * b.y) / N, (a.x * b.y + a.y * b.x) / N);
}

static void fft(const float2 *in, float2 *out, float sign)
{
    reverse<<<N / 256, 256>>>(in, out);
    inner<<<N / (1 << INNER), 1 << (INNER - 1)>>>(out, sign);
    for (unsigned half = 1 << INNER; half < N; half *= 2)
        outer<<<N / 512, 256>>>(out, half, sign);
    LAUNCHED();
}

int main(void)
{
    static float2 x[N], y[N], got[N];
    float2 *d[4];
    for (int i = 0; i < 4; i++)
        d[i] = (float2 *)device_alloc(sizeof x);
    /* One tone: one line in the spectrum. */
    for (int i = 0; i < N; i++)
        x[i] = make_float2((float)cos(2 * M_PI * 37 * i / N), 0);
    CUDA(cudaMemcpy(d[0], x, sizeof x, cudaMemcpyHostToDevice));
    fft(d[0], d[1], -1);
    CUDA(cudaMemcpy(got, d[1], sizeof got, cudaMemcpyDeviceToHost));
    int lines = 0;
    for (int i = 0; i < N; i++)
        if (hypotf(got[i].x, got[i].y) > 1) {
            printf("line at %d: %.1f\n", i, got[i].x);
            lines++;
        }
    printf("lines: %d\n", lines);
    /* Convolution of small whole numbers comes out whole. */
    uint32_t seed = 6;
    for (int i = 0; i < N; i++) {
        x[i] = make_float2(i < N / 2 ? (float)(check_random(&seed) % 5) : 0, 0);
        y[i] = make_float2(i < 40 ? (float)(check_random(&seed) % 5) : 0, 0);
    }
    CUDA(cudaMemcpy(d[0], x, sizeof x, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(d[1], y, sizeof y, cudaMemcpyHostToDevice));
    fft(d[0], d[2], -1);
    fft(d[1], d[3], -1);
    multiply<<<N / 256, 256>>>(d[2], d[3]);
    fft(d[2], d[0], 1);
    CUDA(cudaMemcpy(got, d[0], sizeof got, cudaMemcpyDeviceToHost));
    int wrong = 0;
    unsigned sum = 0;
    for (int i = 0; i < N; i++) {
        int want = 0;
        for (int k = 0; k < 40 && k <= i; k++)
            want += (int)(x[i - k].x * y[k].x);
        wrong += (int)lrintf(got[i].x) != want;
        sum = sum * 31 + (unsigned)want;
    }
    printf("convolution: %d wrong, %08x\n", wrong, sum);
    for (int i = 0; i < 4; i++)
        CUDA(cudaFree(d[i]));
    return 0;
}
