/* Matrix product over 16x16 tiles in shared memory, ragged edges, 2D grid; exact: small integers.
 */
#include "check.h"

enum { TILE = 16 };

__global__ void matmul(const float *a, const float *b, float *c, int m, int n, int k)
{
    __shared__ float ta[TILE][TILE], tb[TILE][TILE];
    int row = blockIdx.y * TILE + threadIdx.y, col = blockIdx.x * TILE + threadIdx.x;
    float sum = 0;
    for (int at = 0; at < k; at += TILE) {
        int ka = at + threadIdx.x, kb = at + threadIdx.y;
        ta[threadIdx.y][threadIdx.x] = row < m && ka < k ? a[row * k + ka] : 0;
        tb[threadIdx.y][threadIdx.x] = col < n && kb < k ? b[kb * n + col] : 0;
        __syncthreads();
        for (int i = 0; i < TILE; i++)
            sum += ta[threadIdx.y][i] * tb[i][threadIdx.x];
        __syncthreads();
    }
    if (row < m && col < n)
        c[row * n + col] = sum;
}

static void fill(float *x, int n, uint32_t seed)
{
    for (int i = 0; i < n; i++)
        x[i] = (float)(check_random(&seed) % 17) - 8;
}

static void product(const float *a, const float *b, float *c, int m, int n, int k)
{
    memset(c, 0, (size_t)m * n * sizeof(float));
    for (int i = 0; i < m; i++)
        for (int l = 0; l < k; l++)
            for (int j = 0; j < n; j++)
                c[i * n + j] += a[i * k + l] * b[l * n + j];
}

static void run(int m, int n, int k)
{
    size_t la = (size_t)m * k * 4, lb = (size_t)k * n * 4, lc = (size_t)m * n * 4;
    float *a = (float *)malloc(la), *b = (float *)malloc(lb);
    float *c = (float *)malloc(lc), *want = (float *)malloc(lc);
    fill(a, m * k, 1);
    fill(b, k * n, 2);
    product(a, b, want, m, n, k);
    float *da = (float *)device_alloc(la), *db = (float *)device_alloc(lb);
    float *dc = (float *)device_alloc(lc);
    CUDA(cudaMemcpy(da, a, la, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(db, b, lb, cudaMemcpyHostToDevice));
    dim3 grid((n + TILE - 1) / TILE, (m + TILE - 1) / TILE), block(TILE, TILE);
    matmul<<<grid, block>>>(da, db, dc, m, n, k);
    LAUNCHED();
    CUDA(cudaMemcpy(c, dc, lc, cudaMemcpyDeviceToHost));
    CHECK(memcmp(c, want, lc) == 0);
    double trace = 0;
    for (int i = 0; i < m && i < n; i++)
        trace += c[i * n + i];
    printf("matmul %dx%dx%d: trace %.0f\n", m, n, k, trace);
    CUDA(cudaFree(da));
    CUDA(cudaFree(db));
    CUDA(cudaFree(dc));
    free(a);
    free(b);
    free(c);
    free(want);
}

int main(void)
{
    run(16, 16, 16);
    run(1, 1, 1);
    run(67, 45, 101);
    run(160, 128, 96);
    return 0;
}
