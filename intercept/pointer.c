/* What a pointer is: cuPointerGetAttribute and its kin, answered from the ranges that we know. */
#define TFR_LOG_PART "intercept"
#include "intercept/lease.h"
#include "intercept/memory.h"

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr addr)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_range range = tfr_range_find(addr);
    if (!tfr_range_is_device(&range))
        return CUDA_ERROR_NOT_FOUND;
    if (base)
        *base = range.base;
    if (size)
        *size = range.len;
    return CUDA_SUCCESS;
}

/* A value of the size that the attribute has; host memory nobody declared answers zeros. */
static CUresult pointer_attribute(void *data, CUpointer_attribute attribute,
                                  const struct tfr_range *range, uint64_t ptr)
{
    bool device = tfr_range_is_device(range), known = range->kind != TFR_RANGE_NONE;
    const struct tfr_context *ctx = range->ctx;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *(CUcontext *)data = ctx ? tfr_handle_ptr(ctx->id) : NULL;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned int *)data = !known   ? 0
                                : device ? (unsigned int)CU_MEMORYTYPE_DEVICE
                                         : (unsigned int)CU_MEMORYTYPE_HOST;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *(CUdeviceptr *)data = device ? ptr
                               : range->kind == TFR_RANGE_MAPPED
                                   ? range->device_addr + (ptr - range->base)
                                   : 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        *(void **)data = known && !device ? (void *)ptr : NULL;
        return device ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        *(unsigned long long *)data = range->serial;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)data = known ? range->device : -2; /* CU_DEVICE_INVALID */
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(CUdeviceptr *)data = known ? range->base : 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)data = known ? range->len : 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        *(int *)data = known;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
        *(unsigned int *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
        *(unsigned long long *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
        *(unsigned int *)data =
            known ? (unsigned int)CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE : 0u;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        *(CUmemoryPool *)data = tfr_pool_handle(range->block);
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_range range = tfr_range_find(ptr);
    if (!data || range.kind == TFR_RANGE_NONE)
        return CUDA_ERROR_INVALID_VALUE;
    return pointer_attribute(data, attribute, &range, ptr);
}

CUresult cuPointerGetAttributes(unsigned int n, CUpointer_attribute *attributes, void **data,
                                CUdeviceptr ptr)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!n || !attributes || !data)
        return CUDA_ERROR_INVALID_VALUE;
    struct tfr_range range = tfr_range_find(ptr);
    for (unsigned int i = 0; i < n; i++) {
        result = pointer_attribute(data[i], attributes[i], &range, ptr);
        if (result != CUDA_SUCCESS && result != CUDA_ERROR_INVALID_VALUE)
            return result;
    }
    return CUDA_SUCCESS;
}
