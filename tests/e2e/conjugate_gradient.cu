/* Conjugate gradients on a sparse matrix (five-point Laplace), with the dot products brought to the
 * host in each step: many small launches, copies and waits. */
#include <math.h>

#include "check.h"

enum { SIDE = 48, N = SIDE * SIDE, THREADS = 128, BLOCKS = (N + THREADS - 1) / THREADS };

__global__ void apply(const int *row, const int *col, const double *val, const double *x, double *y)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= N)
        return;
    double sum = 0;
    for (int k = row[i]; k < row[i + 1]; k++)
        sum += val[k] * x[col[k]];
    y[i] = sum;
}

__global__ void dot(const double *x, const double *y, double *part)
{
    __shared__ double s[THREADS];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    s[threadIdx.x] = i < N ? x[i] * y[i] : 0;
    for (int step = THREADS / 2; step; step /= 2) {
        __syncthreads();
        if (threadIdx.x < step)
            s[threadIdx.x] += s[threadIdx.x + step];
    }
    if (threadIdx.x == 0)
        part[blockIdx.x] = s[0];
}

__global__ void axpy(double a, const double *x, double *y)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N)
        y[i] += a * x[i];
}

__global__ void xpby(const double *x, double b, double *y)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N)
        y[i] = x[i] + b * y[i];
}

static double *part;

static double dot_of(const double *x, const double *y)
{
    double got[BLOCKS], sum = 0;
    dot<<<BLOCKS, THREADS>>>(x, y, part);
    LAUNCHED();
    CUDA(cudaMemcpy(got, part, sizeof got, cudaMemcpyDeviceToHost));
    for (int i = 0; i < BLOCKS; i++)
        sum += got[i];
    return sum;
}

int main(void)
{
    static int row[N + 1], col[5 * N];
    static double val[5 * N], b[N], x[N];
    int n = 0;
    for (int i = 0; i < N; i++) {
        const int step[5] = {-SIDE, -1, 0, 1, SIDE};
        for (int k = 0; k < 5; k++) {
            int j = i + step[k];
            if (j < 0 || j >= N || (abs(step[k]) == 1 && j / SIDE != i / SIDE))
                continue;
            col[n] = j;
            val[n++] = k == 2 ? 4 : -1;
        }
        row[i + 1] = n;
        b[i] = (i % 7) - 3;
    }
    int *d_row = (int *)device_alloc(sizeof row), *d_col = (int *)device_alloc(sizeof col);
    double *d_val = (double *)device_alloc(sizeof val), *d_x = (double *)device_alloc(sizeof x);
    double *r = (double *)device_alloc(sizeof x), *p = (double *)device_alloc(sizeof x);
    double *q = (double *)device_alloc(sizeof x);
    part = (double *)device_alloc(BLOCKS * sizeof *part);
    CUDA(cudaMemcpy(d_row, row, sizeof row, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(d_col, col, sizeof col, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(d_val, val, sizeof val, cudaMemcpyHostToDevice));
    CUDA(cudaMemset(d_x, 0, sizeof x));
    CUDA(cudaMemcpy(r, b, sizeof b, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(p, r, sizeof b, cudaMemcpyDeviceToDevice));
    double rr = dot_of(r, r), first = rr;
    int steps = 0;
    while (rr > 1e-20 * first && steps < 500) {
        apply<<<BLOCKS, THREADS>>>(d_row, d_col, d_val, p, q);
        double alpha = rr / dot_of(p, q);
        axpy<<<BLOCKS, THREADS>>>(alpha, p, d_x);
        axpy<<<BLOCKS, THREADS>>>(-alpha, q, r);
        double next = dot_of(r, r);
        xpby<<<BLOCKS, THREADS>>>(r, next / rr, p);
        rr = next;
        steps++;
    }
    CUDA(cudaMemcpy(x, d_x, sizeof x, cudaMemcpyDeviceToHost));
    double worst = 0;
    for (int i = 0; i < N; i++) {
        double sum = -b[i];
        for (int k = row[i]; k < row[i + 1]; k++)
            sum += val[k] * x[col[k]];
        worst = fabs(sum) > worst ? fabs(sum) : worst;
    }
    printf("converged: %d, residual small: %d\n", steps < 500, worst < 1e-7);
    printf("x[0] = %.6f, x[middle] = %.6f\n", x[0], x[N / 2]);
    CUDA(cudaDeviceReset());
    return 0;
}
