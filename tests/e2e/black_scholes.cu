/* Prices of options, in single and double precision, against the host's. */
#include <math.h>

#include "check.h"

enum { N = 8000 };

template <typename T> __host__ __device__ T phi(T d)
{
    return (T)0.5 * (T)erfc((double)(-d) * 0.70710678118654752440);
}

__host__ __device__ float phi_f(float d)
{
    return 0.5f * erfcf(-d * 0.707106781f);
}

__global__ void prices_f(const float *s, const float *x, const float *t, float *call, float *put)
{
    const float r = 0.02f, v = 0.3f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < N; i += gridDim.x * blockDim.x) {
        float root = sqrtf(t[i]);
        float d1 = (logf(s[i] / x[i]) + (r + 0.5f * v * v) * t[i]) / (v * root), d2 = d1 - v * root;
        float e = expf(-r * t[i]);
        call[i] = s[i] * phi_f(d1) - x[i] * e * phi_f(d2);
        put[i] = x[i] * e * phi_f(-d2) - s[i] * phi_f(-d1);
    }
}

__host__ __device__ double price_d(double s, double x, double t)
{
    const double r = 0.02, v = 0.3;
    double root = sqrt(t), d1 = (log(s / x) + (r + 0.5 * v * v) * t) / (v * root),
           d2 = d1 - v * root;
    return s * phi(d1) - x * exp(-r * t) * phi(d2);
}

__global__ void prices_d(const float *s, const float *x, const float *t, double *call)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < N; i += gridDim.x * blockDim.x)
        call[i] = price_d(s[i], x[i], t[i]);
}

int main(void)
{
    static float s[N], x[N], t[N], call[N], put[N];
    static double exact[N];
    uint32_t seed = 1;
    for (int i = 0; i < N; i++) {
        s[i] = 5 + (float)(check_random(&seed) % 25000) / 1000;
        x[i] = 1 + (float)(check_random(&seed) % 99000) / 1000;
        t[i] = 0.25f + (float)(check_random(&seed) % 9750) / 1000;
    }
    float *d = (float *)device_alloc(5 * sizeof s);
    double *dd = (double *)device_alloc(sizeof exact);
    CUDA(cudaMemcpy(d, s, sizeof s, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(d + N, x, sizeof s, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(d + 2 * N, t, sizeof s, cudaMemcpyHostToDevice));
    prices_f<<<16, 128>>>(d, d + N, d + 2 * N, d + 3 * N, d + 4 * N);
    prices_d<<<16, 128>>>(d, d + N, d + 2 * N, dd);
    LAUNCHED();
    CUDA(cudaMemcpy(call, d + 3 * N, sizeof s, cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(put, d + 4 * N, sizeof s, cudaMemcpyDeviceToHost));
    CUDA(cudaMemcpy(exact, dd, sizeof exact, cudaMemcpyDeviceToHost));
    double worst_f = 0, worst_d = 0, parity = 0, sum = 0;
    for (int i = 0; i < N; i++) {
        double want = price_d(s[i], x[i], t[i]);
        worst_f = fmax(worst_f, fabs(call[i] - want));
        worst_d = fmax(worst_d, fabs(exact[i] - want));
        parity = fmax(parity, fabs((double)call[i] - put[i] - s[i] + x[i] * exp(-0.02 * t[i])));
        sum += exact[i];
    }
    printf("single: %d, double: %d, call and put agree: %d\n", worst_f < 1e-3, worst_d < 1e-11,
           parity < 1e-3);
    printf("sum of calls: %.3f\n", sum);
    CUDA(cudaFree(d));
    CUDA(cudaFree(dd));
    return 0;
}
