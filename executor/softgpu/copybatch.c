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

/* ---- boxes ---- */

static CUresult operand(const CUmemcpy3DOperand *o, const CUextent3D *extent, CUdeviceptr *at,
                        size_t *pitch, size_t *rows)
{
    if (o->type != CU_MEMCPY_OPERAND_TYPE_POINTER)
        return o->type == CU_MEMCPY_OPERAND_TYPE_ARRAY ? CUDA_ERROR_NOT_SUPPORTED
                                                       : CUDA_ERROR_INVALID_VALUE;
    *at = o->op.ptr.ptr;
    *pitch = o->op.ptr.rowLength ? o->op.ptr.rowLength : extent->width;
    *rows = o->op.ptr.layerHeight ? o->op.ptr.layerHeight : extent->height;
    return CUDA_SUCCESS;
}

static CUresult box(const CUDA_MEMCPY3D_BATCH_OP *op, CUstream stream)
{
    CUDA_MEMCPY3D copy = {.srcMemoryType = CU_MEMORYTYPE_UNIFIED,
                          .dstMemoryType = CU_MEMORYTYPE_UNIFIED,
                          .WidthInBytes = op->extent.width,
                          .Height = op->extent.height,
                          .Depth = op->extent.depth};
    if (!copy.WidthInBytes || !copy.Height || !copy.Depth)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result =
        operand(&op->dst, &op->extent, &copy.dstDevice, &copy.dstPitch, &copy.dstHeight);
    if (result == CUDA_SUCCESS)
        result = operand(&op->src, &op->extent, &copy.srcDevice, &copy.srcPitch, &copy.srcHeight);
    return result ? result : cuMemcpy3DAsync_v2(&copy, stream);
}

static CUresult boxes(size_t n, const CUDA_MEMCPY3D_BATCH_OP *ops, size_t *failed,
                      unsigned long long flags, CUstream stream)
{
    CUresult result = CUDA_SUCCESS;
    size_t i = 0;
    if (failed)
        *failed = SIZE_MAX;
    if (!n || !ops || flags)
        return soft_ready() ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_INVALID_VALUE;
    for (; i < n && result == CUDA_SUCCESS; i++)
        result = box(&ops[i], stream);
    if (result && failed)
        *failed = i - 1;
    return result;
}

CUresult cuMemcpy3DBatchAsync_v2(size_t n, CUDA_MEMCPY3D_BATCH_OP *ops, unsigned long long flags,
                                 CUstream stream)
{
    return boxes(n, ops, NULL, flags, stream);
}

CUresult cuMemcpy3DBatchAsync(size_t n, CUDA_MEMCPY3D_BATCH_OP *ops, size_t *failed,
                              unsigned long long flags, CUstream stream)
{
    return boxes(n, ops, failed, flags, stream);
}
