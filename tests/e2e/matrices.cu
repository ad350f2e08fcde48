/* Products of small matrices by a warp: wmma in its shapes and types, mma.sync with the fragments
 * as documented, ldmatrix; all with small integers, which every order of summation gives exactly.
 */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

#include "check.h"

using namespace nvcuda;

template <typename T, typename Sum, int M, int N, int K>
__global__ void multiply(const T *a, const T *b, Sum *c)
{
    wmma::fragment<wmma::matrix_a, M, N, K, T, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, M, N, K, T, wmma::col_major> fb;
    wmma::fragment<wmma::accumulator, M, N, K, Sum> fc;
    wmma::fill_fragment(fc, (Sum)1);
    wmma::load_matrix_sync(fa, a, K);
    wmma::load_matrix_sync(fb, b, K);
    wmma::mma_sync(fc, fa, fb, fc);
    for (int i = 0; i < fc.num_elements; i++)
        fc.x[i] = fc.x[i] + (Sum)1;
    wmma::store_matrix_sync(c, fc, N, wmma::mem_row_major);
}

template <typename T, typename Sum, int M, int N, int K> static void by_wmma(const char *name)
{
    T a[M * K], b[K * N], *da = (T *)device_alloc(sizeof(a)), *db = (T *)device_alloc(sizeof(b));
    Sum c[M * N], *dc = (Sum *)device_alloc(sizeof(c));
    int bad = 0;
    for (int i = 0; i < M * K; i++)
        a[i] = (T)(float)(i * 7 % 11);
    for (int i = 0; i < K * N; i++)
        b[i] = (T)(float)(i * 5 % 13);
    CUDA(cudaMemcpy(da, a, sizeof(a), cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(db, b, sizeof(b), cudaMemcpyHostToDevice));
    multiply<T, Sum, M, N, K><<<1, 32>>>(da, db, dc);
    LAUNCHED();
    CUDA(cudaMemcpy(c, dc, sizeof(c), cudaMemcpyDeviceToHost));
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float sum = 2;
            for (int k = 0; k < K; k++)
                sum += (float)a[i * K + k] * (float)b[j * K + k];
            bad += (float)c[i * N + j] != sum;
        }
    printf("%s: %d wrong\n", name, bad);
}

/* D[16][8] = A[16][8] * B[8][8] in f16 with f32 sums, fragments as the PTX manual draws them. */
__global__ void by_mma(const __half *a, const __half *b, float *d)
{
    int lane = threadIdx.x, group = lane / 4, in = lane % 4;
    unsigned int ra[2], rb;
    float c[4] = {0, 0, 0, 0};
    for (int r = 0; r < 2; r++)
        ra[r] = *(const unsigned int *)&a[(group + 8 * r) * 8 + in * 2];
    __half2 pair = __halves2half2(b[(in * 2) * 8 + group], b[(in * 2 + 1) * 8 + group]);
    rb = *(unsigned int *)&pair;
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(ra[0]), "r"(ra[1]), "r"(rb));
    for (int i = 0; i < 4; i++)
        d[(group + 8 * (i / 2)) * 8 + in * 2 + i % 2] = c[i];
}

static void mma_fragments(void)
{
    __half a[128], b[64], *da = (__half *)device_alloc(sizeof(a)),
                          *db = (__half *)device_alloc(sizeof(b));
    float d[128], *dd = (float *)device_alloc(sizeof(d));
    int bad = 0;
    for (int i = 0; i < 128; i++)
        a[i] = __float2half((float)(i * 3 % 17 - 8));
    for (int i = 0; i < 64; i++)
        b[i] = __float2half((float)(i * 5 % 7 - 3));
    CUDA(cudaMemcpy(da, a, sizeof(a), cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(db, b, sizeof(b), cudaMemcpyHostToDevice));
    by_mma<<<1, 32>>>(da, db, dd);
    LAUNCHED();
    CUDA(cudaMemcpy(d, dd, sizeof(d), cudaMemcpyDeviceToHost));
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            float sum = 0;
            for (int k = 0; k < 8; k++)
                sum += __half2float(a[i * 8 + k]) * __half2float(b[k * 8 + j]);
            bad += d[i * 8 + j] != sum;
        }
    printf("mma: %d wrong\n", bad);
}

__global__ void rows(unsigned int *out)
{
    __shared__ __align__(16) unsigned short s[256];
    unsigned int r[4], t[2];
    for (int i = threadIdx.x; i < 256; i += 32)
        s[i] = (unsigned short)i;
    __syncwarp();
    unsigned int at = (unsigned int)__cvta_generic_to_shared(&s[threadIdx.x * 8]);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(t[0]), "=r"(t[1])
                 : "r"(at));
    for (int i = 0; i < 4; i++)
        out[threadIdx.x * 4 + i] = r[i];
    for (int i = 0; i < 2; i++)
        out[128 + threadIdx.x * 2 + i] = t[i];
}

static void row_loads(void)
{
    unsigned int out[192], *dev = (unsigned int *)device_alloc(sizeof(out)), bad = 0;
    rows<<<1, 32>>>(dev);
    LAUNCHED();
    CUDA(cudaMemcpy(out, dev, sizeof(out), cudaMemcpyDeviceToHost));
    for (unsigned int l = 0; l < 32; l++) {
        for (unsigned int k = 0; k < 4; k++) {
            unsigned int first = k * 64 + l / 4 * 8 + l % 4 * 2;
            bad += out[l * 4 + k] != (first | (first + 1) << 16);
        }
        for (unsigned int k = 0; k < 2; k++) {
            unsigned int first = k * 64 + l % 4 * 16 + l / 4;
            bad += out[128 + l * 2 + k] != (first | (first + 8) << 16);
        }
    }
    printf("rows: %u wrong\n", bad);
}

int main(void)
{
    by_wmma<__half, float, 16, 16, 16>("f16, f32");
    by_wmma<__half, __half, 16, 16, 16>("f16");
    by_wmma<__half, float, 32, 8, 16>("f16, f32, tall");
    by_wmma<__half, float, 8, 32, 16>("f16, f32, wide");
    by_wmma<signed char, int, 16, 16, 16>("s8");
    by_wmma<unsigned char, int, 8, 32, 16>("u8, wide");
    mma_fragments();
    row_loads();
    return 0;
}
