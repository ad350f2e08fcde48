/* Transposition through padded shared tiles, with 1, 2, 4, 8 and 16 byte elements (vector loads).
 */
#include "check.h"

enum { TILE = 32, ROWS = 8 };

template <typename T> __global__ void transpose(const T *in, T *out, int w, int h)
{
    __shared__ T tile[TILE][TILE + 1];
    int x = blockIdx.x * TILE + threadIdx.x, y0 = blockIdx.y * TILE;
    for (int r = threadIdx.y; r < TILE; r += ROWS)
        if (x < w && y0 + r < h)
            tile[r][threadIdx.x] = in[(y0 + r) * w + x];
    __syncthreads();
    int tx = y0 + threadIdx.x, ty0 = blockIdx.x * TILE;
    for (int r = threadIdx.y; r < TILE; r += ROWS)
        if (tx < h && ty0 + r < w)
            out[(ty0 + r) * h + tx] = tile[threadIdx.x][r];
}

template <typename T> static void run(const char *name, int w, int h)
{
    size_t len = (size_t)w * h * sizeof(T);
    T *in = (T *)malloc(len), *out = (T *)malloc(len);
    T *din = (T *)device_alloc(len), *dout = (T *)device_alloc(len);
    uint32_t seed = w;
    for (size_t i = 0; i < len; i++)
        ((unsigned char *)in)[i] = (unsigned char)check_random(&seed);
    CUDA(cudaMemcpy(din, in, len, cudaMemcpyHostToDevice));
    dim3 grid((w + TILE - 1) / TILE, (h + TILE - 1) / TILE), block(TILE, ROWS);
    transpose<T><<<grid, block>>>(din, dout, w, h);
    LAUNCHED();
    CUDA(cudaMemcpy(out, dout, len, cudaMemcpyDeviceToHost));
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            CHECK(memcmp(&out[x * h + y], &in[y * w + x], sizeof(T)) == 0);
    printf("%s %dx%d: ok\n", name, w, h);
    CUDA(cudaFree(din));
    CUDA(cudaFree(dout));
    free(in);
    free(out);
}

int main(void)
{
    run<float>("float", 96, 64);
    run<float>("float", 101, 37);
    run<unsigned char>("byte", 77, 50);
    run<unsigned short>("short", 33, 65);
    run<double>("double", 64, 40);
    run<float4>("float4", 45, 32);
    run<int2>("int2", 32, 31);
    return 0;
}
