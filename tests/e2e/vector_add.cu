/* The first program of everybody: c = a + b, checked element by element on the CPU. */
#include "check.h"

__global__ void add(const float *a, const float *b, float *c, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        c[i] = a[i] + b[i];
}

int main(void)
{
    const int n = 100003;
    const size_t len = n * sizeof(float);
    float *a = (float *)malloc(len), *b = (float *)malloc(len), *c = (float *)malloc(len);
    for (int i = 0; i < n; i++) {
        a[i] = 0.5f * i;
        b[i] = 3.0f - 0.25f * i;
    }
    float *da = (float *)device_alloc(len), *db = (float *)device_alloc(len);
    float *dc = (float *)device_alloc(len);
    CUDA(cudaMemcpy(da, a, len, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(db, b, len, cudaMemcpyHostToDevice));
    add<<<(n + 255) / 256, 256>>>(da, db, dc, n);
    LAUNCHED();
    CUDA(cudaMemcpy(c, dc, len, cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; i++)
        CHECK(c[i] == a[i] + b[i]);
    CUDA(cudaFree(da));
    CUDA(cudaFree(db));
    CUDA(cudaFree(dc));
    printf("vector_add: %d sums are right, last %.2f\n", n, c[n - 1]);
    return 0;
}
