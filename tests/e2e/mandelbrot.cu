/* The Mandelbrot set in integers (fixed point, so exact everywhere): loops of very different length
 * in neighbouring lanes, and a picture in letters. */
#include "check.h"

enum { W = 144, H = 64, TURNS = 200, ONE = 1 << 13 };

__host__ __device__ static int escape(int cx, int cy)
{
    int x = 0, y = 0, n = 0;
    while (n < TURNS && (long long)x * x + (long long)y * y <= 4ll * ONE * ONE) {
        int next = (int)(((long long)x * x - (long long)y * y) / ONE) + cx;
        y = (int)(2ll * x * y / ONE) + cy;
        x = next;
        n++;
    }
    return n;
}

__global__ void mandelbrot(int *out)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x < W && y < H)
        out[y * W + x] = escape((x - 100) * ONE / 50, (y - H / 2) * ONE / 26);
}

int main(void)
{
    static int got[W * H];
    int *dev = (int *)device_alloc(sizeof(got));
    dim3 block(16, 8), grid((W + 15) / 16, (H + 7) / 8);
    mandelbrot<<<grid, block>>>(dev);
    LAUNCHED();
    CUDA(cudaMemcpy(got, dev, sizeof(got), cudaMemcpyDeviceToHost));
    long sum = 0;
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            CHECK(got[y * W + x] == escape((x - 100) * ONE / 50, (y - H / 2) * ONE / 26));
            sum += got[y * W + x];
        }
    for (int y = 0; y < H; y += 4) {
        for (int x = 0; x < W; x += 2)
            putchar(" .:-=+*#%@"[got[y * W + x] >= TURNS ? 9 : got[y * W + x] % 9]);
        putchar('\n');
    }
    printf("turns %ld\n", sum);
    return 0;
}
