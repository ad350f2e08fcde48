/* Conversions to 8-bit floats and roundings of halves: what the GPU's instructions give is what the
 * host's code in the toolkit's headers gives, for every half. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "check.h"

struct results {
    unsigned char e4m3, e5m2;
    unsigned short from_e4m3, from_e5m2, floor, ceil, trunc, near;
};

static __host__ __device__ unsigned short bits(__half h)
{
    return __half_raw(h).x;
}

static __host__ __device__ __half half_of(unsigned short b)
{
    __half_raw r;
    r.x = b;
    return __half(r);
}

static __host__ __device__ void convert(unsigned int i, results *r)
{
    __half h = half_of((unsigned short)i);
    float f = __half2float(h) * 0.37f;
    r->e4m3 = __nv_cvt_float_to_fp8(f, __NV_SATFINITE, __NV_E4M3);
    r->e5m2 = __nv_cvt_halfraw_to_fp8(__half_raw(h), __NV_SATFINITE, __NV_E5M2);
    r->from_e4m3 = __nv_cvt_fp8_to_halfraw((unsigned char)i, __NV_E4M3).x;
    r->from_e5m2 = __nv_cvt_fp8_to_halfraw((unsigned char)i, __NV_E5M2).x;
#ifdef __CUDA_ARCH__
    r->floor = bits(hfloor(h));
    r->ceil = bits(hceil(h));
    r->trunc = bits(htrunc(h));
    r->near = bits(hrint(h));
#else
    float v = __half2float(h);
    r->floor = bits(__float2half(floorf(v)));
    r->ceil = bits(__float2half(ceilf(v)));
    r->trunc = bits(__float2half(truncf(v)));
    r->near = bits(__float2half(rintf(v)));
#endif
}

__global__ void convert_all(results *out)
{
    unsigned int i = blockIdx.x * blockDim.x + threadIdx.x;
    convert(i, &out[i]);
}

/* NaN is NaN. */
static bool same(unsigned short a, unsigned short b)
{
    return a == b || ((a & 0x7fff) > 0x7c00 && (b & 0x7fff) > 0x7c00);
}

int main(void)
{
    enum { N = 65536 };
    static results host[N];
    results *dev = (results *)device_alloc(sizeof(host)), want;
    int bad[8] = {0};
    convert_all<<<N / 256, 256>>>(dev);
    LAUNCHED();
    CUDA(cudaMemcpy(host, dev, sizeof(host), cudaMemcpyDeviceToHost));
    for (unsigned int i = 0; i < N; i++) {
        convert(i, &want);
        bad[0] += host[i].e4m3 != want.e4m3;
        bad[1] += host[i].e5m2 != want.e5m2;
        bad[2] += !same(host[i].from_e4m3, want.from_e4m3);
        bad[3] += !same(host[i].from_e5m2, want.from_e5m2);
        bad[4] += !same(host[i].floor, want.floor);
        bad[5] += !same(host[i].ceil, want.ceil);
        bad[6] += !same(host[i].trunc, want.trunc);
        bad[7] += !same(host[i].near, want.near);
    }
    for (int i = 0; i < 8; i++)
        printf("%d: %d differ\n", i, bad[i]);
    return 0;
}
