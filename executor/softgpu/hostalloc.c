/* Entry points of pinned host memory.  Nothing is pinned here; the driver only has to know it,
 * because kernels may reach it and copies from it need no staging. */
#include "executor/softgpu/soft.h"

#include <sys/mman.h>
#include <unistd.h>

static size_t page_up(size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (len + page - 1) & ~(page - 1);
}

CUresult cuMemHostAlloc(void **out, size_t len, unsigned int flags)
{
    const unsigned int known =
        CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!out || !len || (flags & ~known) || page_up(len) < len)
        return CUDA_ERROR_INVALID_VALUE;
    void *at = mmap(NULL, page_up(len), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct soft_range range = {.base = (uint64_t)at,
                               .len = len,
                               .flags = SOFT_MEM_HOST,
                               .host_flags = flags | CU_MEMHOSTALLOC_DEVICEMAP,
                               .ctx = ctx,
                               .dev = ctx->dev};
    result = soft_host_add(&range);
    if (result)
        munmap(at, page_up(len));
    else
        *out = at;
    return result;
}

CUresult cuMemAllocHost_v2(void **out, size_t len)
{
    return cuMemHostAlloc(out, len, 0);
}

void soft_host_unmap(const struct soft_range *range)
{
    if (!range->registered)
        munmap((void *)range->base, page_up(range->len));
}

CUresult cuMemFreeHost(void *at)
{
    struct soft_ctx *ctx;
    struct soft_range range;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!at)
        return CUDA_SUCCESS;
    if (!soft_host_find((uint64_t)at, &range) || range.base != (uint64_t)at || range.registered)
        return CUDA_ERROR_INVALID_VALUE;
    result = soft_ctx_wait(range.ctx);
    if (result == CUDA_SUCCESS)
        result = soft_host_del(range.base, false);
    if (result == CUDA_SUCCESS)
        soft_host_unmap(&range);
    return result;
}

/* True if every page is mapped. */
static bool mapped(uint64_t at, size_t len)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    unsigned char seen[256];
    uint64_t end = (at + len + page - 1) & ~(page - 1);
    for (at &= ~(page - 1); at < end;) {
        uint64_t n = end - at < sizeof(seen) * page ? end - at : sizeof(seen) * page;
        if (mincore((void *)at, n, seen))
            return false;
        at += n;
    }
    return true;
}

CUresult cuMemHostRegister_v2(void *at, size_t len, unsigned int flags)
{
    const unsigned int known =
        CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_READ_ONLY;
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (flags & CU_MEMHOSTREGISTER_IOMEMORY)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!at || !len || (flags & ~known) || (uint64_t)at + len < (uint64_t)at ||
        soft_is_device((uint64_t)at) || !mapped((uint64_t)at, len))
        return CUDA_ERROR_INVALID_VALUE;
    struct soft_range range = {.base = (uint64_t)at,
                               .len = len,
                               .flags = SOFT_MEM_HOST,
                               .host_flags = flags | CU_MEMHOSTREGISTER_DEVICEMAP,
                               .registered = true,
                               .ctx = ctx,
                               .dev = ctx->dev};
    return soft_host_add(&range);
}

CUresult cuMemHostRegister(void *at, size_t len, unsigned int flags)
{
    return cuMemHostRegister_v2(at, len, flags);
}

CUresult cuMemHostUnregister(void *at)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    struct soft_range range;
    if (!at)
        return CUDA_ERROR_INVALID_VALUE;
    /* What is under way may still use it. */
    if (soft_host_find((uint64_t)at, &range) && range.registered)
        result = soft_ctx_wait(range.ctx);
    return result ? result : soft_host_del((uint64_t)at, true);
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *out, void *at, unsigned int flags)
{
    struct soft_ctx *ctx;
    struct soft_range range;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!out || !at || flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (!soft_host_find((uint64_t)at, &range) &&
        !(soft_mem_find((uint64_t)at, &range) && (range.flags & SOFT_MEM_MANAGED)))
        return CUDA_ERROR_INVALID_VALUE;
    *out = (CUdeviceptr)at;
    return CUDA_SUCCESS;
}

CUresult cuMemHostGetFlags(unsigned int *flags, void *at)
{
    struct soft_ctx *ctx;
    struct soft_range range;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!flags || !at || !soft_host_find((uint64_t)at, &range) || range.registered)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = range.host_flags;
    return CUDA_SUCCESS;
}
