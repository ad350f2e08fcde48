/* GPUDirect RDMA: other devices reach this GPU's memory.  Its memory is the host's, so a NIC may
 * register it by address; memory of cuMemCreate can be had as a dma-buf too, where the kernel makes
 * one of a memfd (/dev/udmabuf).  What arrives is coherent: there is nothing to flush.  Under chaos
 * the device says that there is, as cards without ordered writes do. */
#include "executor/softgpu/soft.h"

#include <fcntl.h>
#include <linux/udmabuf.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PAGE = 1 << SOFT_PAGE_SHIFT };

void soft_direct_attribute(int attribute, int *value_out)
{
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED:
        *value_out = 1;
        break;
    case CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS:
        *value_out = CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST;
        break;
    case CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING:
        *value_out = soft_chaos.on ? CU_GPU_DIRECT_RDMA_WRITES_ORDERING_NONE
                                   : CU_GPU_DIRECT_RDMA_WRITES_ORDERING_ALL_DEVICES;
        break;
    case CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED:
        *value_out = access("/dev/udmabuf", R_OK | W_OK) == 0;
        break;
    default:
        break;
    }
}

CUresult cuFlushGPUDirectRDMAWrites(CUflushGPUDirectRDMAWritesTarget target,
                                    CUflushGPUDirectRDMAWritesScope scope)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (target != CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX ||
        (scope != CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER &&
         scope != CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_ALL_DEVICES))
        return CUDA_ERROR_INVALID_VALUE;
    atomic_thread_fence(memory_order_seq_cst);
    return CUDA_SUCCESS;
}

static int dmabuf_make(int fd, uint64_t at, uint64_t len)
{
    struct udmabuf_create create = {
        .memfd = (uint32_t)fd, .flags = UDMABUF_FLAGS_CLOEXEC, .offset = at, .size = len};
    int dev = open("/dev/udmabuf", O_RDWR | O_CLOEXEC);
    if (dev < 0)
        return -1;
    int made = ioctl(dev, UDMABUF_CREATE, &create);
    close(dev);
    return made;
}

CUresult cuMemGetHandleForAddressRange(void *handle, CUdeviceptr at, size_t len,
                                       CUmemRangeHandleType type, unsigned long long flags)
{
    struct soft_ctx *ctx;
    struct soft_range range;
    uint64_t fd_at;
    int fd;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!handle || !len || ((at | len) & (PAGE - 1)) ||
        type != CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD || !soft_mem_find(at, &range) ||
        len > range.base + range.len - at)
        return CUDA_ERROR_INVALID_VALUE;
    if (flags || !soft_vmm_locate(at, len, &fd, &fd_at))
        return CUDA_ERROR_NOT_SUPPORTED; /* cuMemAlloc's memory is in no file */
    fd = dmabuf_make(fd, fd_at, len);
    if (fd < 0)
        return CUDA_ERROR_NOT_SUPPORTED;
    *(int *)handle = fd;
    return CUDA_SUCCESS;
}
