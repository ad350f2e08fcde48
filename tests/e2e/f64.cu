/* Double precision: plain IEEE operations bit for bit, transcendental functions within 4 ulp of the
 * C library's, and an atomicAdd on doubles. */
#include <math.h>

#include "check.h"

enum { N = 2048 };

__global__ void plain(const double *x, double *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    double a = x[i], b = x[(i + 1) % N];
    out[i] = a + b;
    out[N + i] = a * b;
    out[2 * N + i] = a / b;
    out[3 * N + i] = sqrt(fabs(a));
    out[4 * N + i] = fma(a, b, 1.0);
    out[5 * N + i] = floor(a);
    out[6 * N + i] = (double)(long long)a;
    out[7 * N + i] = fmin(a, b);
}

__global__ void curved(const double *x, double *out)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = exp(x[i] * 0.01);
    out[N + i] = log(fabs(x[i]));
    out[2 * N + i] = sin(x[i]);
    out[3 * N + i] = cos(x[i]);
    out[4 * N + i] = pow(fabs(x[i]), 0.3);
    out[5 * N + i] = tanh(x[i] * 0.01);
}

__global__ void total(const double *x, double *sum)
{
    atomicAdd(sum, floor(x[blockIdx.x * blockDim.x + threadIdx.x]));
}

static double ulps(double got, double want)
{
    double unit = nextafter(fabs(want), INFINITY) - fabs(want);
    return fabs(got - want) / unit;
}

static void check_plain(const double *x, const double *out)
{
    for (int i = 0; i < N; i++) {
        double a = x[i], b = x[(i + 1) % N];
        double want[8] = {
            a + b,     a * b, a / b, sqrt(fabs(a)), fma(a, b, 1.0), floor(a), (double)(long long)a,
            fmin(a, b)};
        for (int k = 0; k < 8; k++)
            CHECK(memcmp(&out[k * N + i], &want[k], sizeof(double)) == 0);
    }
    printf("plain operations are bit-exact\n");
}

static void check_curved(const double *x, const double *out)
{
    static const char *name[6] = {"exp", "log", "sin", "cos", "pow", "tanh"};
    double worst[6] = {0};
    for (int i = 0; i < N; i++) {
        double a = fabs(x[i]);
        double want[6] = {exp(x[i] * 0.01), log(a),      sin(x[i]),
                          cos(x[i]),        pow(a, 0.3), tanh(x[i] * 0.01)};
        for (int k = 0; k < 6; k++)
            worst[k] = fmax(worst[k], ulps(out[k * N + i], want[k]));
    }
    for (int k = 0; k < 6; k++)
        printf("%s: %s\n", name[k], worst[k] <= 4 ? "within 4 ulp" : "too far");
}

int main(void)
{
    static double x[N], out[8 * N];
    uint32_t seed = 3;
    double want = 0, sum = 0;
    for (int i = 0; i < N; i++) {
        x[i] = ((double)check_random(&seed) - 8388608.5) / 8192.0;
        want += floor(x[i]);
    }
    double *dx = (double *)device_alloc(sizeof(x)), *dout = (double *)device_alloc(sizeof(out));
    CUDA(cudaMemcpy(dx, x, sizeof(x), cudaMemcpyHostToDevice));
    plain<<<N / 128, 128>>>(dx, dout);
    LAUNCHED();
    CUDA(cudaMemcpy(out, dout, sizeof(out), cudaMemcpyDeviceToHost));
    check_plain(x, out);
    curved<<<N / 128, 128>>>(dx, dout);
    LAUNCHED();
    CUDA(cudaMemcpy(out, dout, 6 * N * sizeof(double), cudaMemcpyDeviceToHost));
    check_curved(x, out);
    CUDA(cudaMemcpy(dout, &sum, sizeof(sum), cudaMemcpyHostToDevice));
    total<<<N / 128, 128>>>(dx, dout);
    LAUNCHED();
    CUDA(cudaMemcpy(&sum, dout, sizeof(sum), cudaMemcpyDeviceToHost));
    CHECK(sum == want);
    printf("atomic sum %.0f\n", sum);
    return 0;
}
