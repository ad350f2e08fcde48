/* __device__ and __constant__ variables: initialisers, copies to and from symbols with offsets,
 * addresses and sizes, kernels that use them, values that outlive a launch. */
#include "check.h"

struct pair {
    int a;
    double b;
};

__device__ int counter = 41;
__device__ float table[8] = {1, 2, 4, 8};
__device__ struct pair pairs[3] = {{1, 1.5}, {2, 2.5}, {3, 3.5}};
__constant__ int weights[16] = {3, 1, 4, 1, 5, 9, 2, 6};
__constant__ float scale = 0.5f;
static __device__ unsigned char bytes[5] = {'h', 'e', 'l', 'l', 'o'};
__device__ int *link;
__device__ int target[4];

__global__ void count(void)
{
    atomicAdd(&counter, 1);
}

__global__ void apply(float *out)
{
    int i = threadIdx.x;
    out[i] = weights[i] * scale + table[i & 7];
    if (i == 0)
        pairs[1].b += pairs[0].a;
}

__global__ void through_link(int value)
{
    link[threadIdx.x] = value + threadIdx.x;
}

int main(void)
{
    int n = 0;
    CUDA(cudaMemcpyFromSymbol(&n, counter, sizeof(n)));
    count<<<2, 32>>>();
    LAUNCHED();
    int later = 0;
    CUDA(cudaMemcpyFromSymbol(&later, counter, sizeof(later)));
    printf("counter %d then %d\n", n, later);

    int tail[8] = {7, 7, 7, 7, 7, 7, 7, 8};
    float half = 0.25f, out[16];
    CUDA(cudaMemcpyToSymbol(weights, tail, sizeof(tail), 8 * sizeof(int)));
    CUDA(cudaMemcpyToSymbol(scale, &half, sizeof(half)));
    float *dout = (float *)device_alloc(sizeof(out));
    apply<<<1, 16>>>(dout);
    LAUNCHED();
    CUDA(cudaMemcpy(out, dout, sizeof(out), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 16; i++)
        printf("%g%c", out[i], i == 15 ? '\n' : ' ');

    struct pair p[3];
    CUDA(cudaMemcpyFromSymbol(p, pairs, sizeof(p)));
    printf("pairs %d %g %d %g %d %g\n", p[0].a, p[0].b, p[1].a, p[1].b, p[2].a, p[2].b);

    void *at = NULL;
    size_t len = 0;
    CUDA(cudaGetSymbolSize(&len, table));
    CUDA(cudaGetSymbolAddress(&at, table));
    CHECK(at != NULL);
    float four[4] = {9, 9, 9, 9};
    CUDA(cudaMemcpy((float *)at + 4, four, sizeof(four), cudaMemcpyHostToDevice));
    float all[8];
    CUDA(cudaMemcpyFromSymbolAsync(all, table, sizeof(all), 0, cudaMemcpyDeviceToHost, 0));
    CUDA(cudaDeviceSynchronize());
    printf("table of %zu bytes: %g %g %g %g\n", len, all[2], all[3], all[4], all[7]);

    char hello[6] = {0};
    CUDA(cudaMemcpyFromSymbol(hello, bytes, 5));
    printf("%s\n", hello);

    int *dtarget = NULL, got[4];
    CUDA(cudaGetSymbolAddress((void **)&dtarget, target));
    CUDA(cudaMemcpyToSymbol(link, &dtarget, sizeof(dtarget)));
    through_link<<<1, 4>>>(100);
    LAUNCHED();
    CUDA(cudaMemcpyFromSymbol(got, target, sizeof(got)));
    printf("through a pointer: %d %d %d %d\n", got[0], got[1], got[2], got[3]);
    return 0;
}
