/* The cosine transform of 8x8 blocks of an image, its rounding, and the way back. */
#include <math.h>

#include "check.h"

enum { W = 128, H = 96 };

__constant__ float basis[8][8];

__global__ void dct(const float *in, float *out, int inverse)
{
    __shared__ float block[8][9], half[8][9];
    int x = threadIdx.x, y = threadIdx.y, at = (blockIdx.y * 8 + y) * W + blockIdx.x * 8 + x;
    float sum = 0;
    block[y][x] = in[at];
    __syncthreads();
    for (int k = 0; k < 8; k++)
        sum += (inverse ? basis[k][x] : basis[x][k]) * block[y][k];
    half[y][x] = sum;
    __syncthreads();
    sum = 0;
    for (int k = 0; k < 8; k++)
        sum += (inverse ? basis[k][y] : basis[y][k]) * half[k][x];
    out[at] = sum;
}

__global__ void quantise(float *x, float step)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    x[i] = rintf(x[i] / step) * step;
}

int main(void)
{
    static float image[H][W], back[H][W], table[8][8];
    for (int k = 0; k < 8; k++)
        for (int n = 0; n < 8; n++)
            table[k][n] = (float)((k ? 0.5 : sqrt(0.125)) * cos((2 * n + 1) * k * M_PI / 16));
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++)
            image[y][x] = (float)((x * 3 + y * 5 + (x / 16 ^ y / 16) * 40) % 256);
    float *a = (float *)device_alloc(sizeof image), *b = (float *)device_alloc(sizeof image);
    CUDA(cudaMemcpyToSymbol(basis, table, sizeof table));
    CUDA(cudaMemcpy(a, image, sizeof image, cudaMemcpyHostToDevice));
    const float steps[] = {0, 4, 16, 64};
    for (int s = 0; s < 4; s++) {
        dct<<<dim3(W / 8, H / 8), dim3(8, 8)>>>(a, b, 0);
        float *c = (float *)device_alloc(sizeof image);
        if (steps[s] > 0)
            quantise<<<W * H / 128, 128>>>(b, steps[s]);
        dct<<<dim3(W / 8, H / 8), dim3(8, 8)>>>(b, c, 1);
        LAUNCHED();
        CUDA(cudaMemcpy(back, c, sizeof back, cudaMemcpyDeviceToHost));
        CUDA(cudaFree(c));
        double error = 0;
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++)
                error += (back[y][x] - image[y][x]) * (back[y][x] - image[y][x]);
        error = sqrt(error / (W * H));
        printf("step %g: error %.1f\n", steps[s], error + 1e-4);
    }
    CUDA(cudaFree(a));
    CUDA(cudaFree(b));
    return 0;
}
