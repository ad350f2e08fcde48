/* Batches of copies: each one as the plain call would do it, in stream order.  What the attributes
 * say of the source's lifetime is weaker than what the plain copy promises. */
#include "executor/softgpu/soft.h"

static CUresult batch(CUdeviceptr *dst, CUdeviceptr *src, size_t *len, size_t n,
                      const size_t *firsts, size_t attribute_n, size_t *failed, CUstream stream)
{
    CUresult result = CUDA_SUCCESS;
    size_t i = 0;
    if (failed)
        *failed = SIZE_MAX;
    if (!dst || !src || !len || !n || (attribute_n && !firsts) || attribute_n > n)
        return soft_ready() ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_INVALID_VALUE;
    for (; i < n && result == CUDA_SUCCESS; i++)
        result = cuMemcpyAsync(dst[i], src[i], len[i], stream);
    if (result && failed)
        *failed = i - 1;
    return result;
}

CUresult cuMemcpyBatchAsync_v2(CUdeviceptr *dst, CUdeviceptr *src, size_t *len, size_t n,
                               CUmemcpyAttributes *attributes, size_t *firsts, size_t attribute_n,
                               CUstream stream)
{
    (void)attributes;
    return batch(dst, src, len, n, firsts, attribute_n, NULL, stream);
}

CUresult cuMemcpyBatchAsync(CUdeviceptr *dst, CUdeviceptr *src, size_t *len, size_t n,
                            CUmemcpyAttributes *attributes, size_t *firsts, size_t attribute_n,
                            size_t *failed, CUstream stream)
{
    (void)attributes;
    return batch(dst, src, len, n, firsts, attribute_n, failed, stream);
}
