/* Device memory, pinned host memory, pointer queries.
 * Pinned memory that we allocate is a sealed memfd, mapped at the same address by client and
 * executor (the host window), so the GPU's copy engine reads and writes it in place and kernels may
 * follow its pointers.  Registered memory stays the application's: its bytes are staged. */
#define TFR_LOG_PART "intercept"
#include "intercept/memory.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "intercept/stream.h"
#include "transport/boot.h"

/* Far from where kernels place heaps, stacks and libraries; addresses are used once. */
enum { PAGE = 4096 };
static const uint64_t window_len = 1ull << 44;
static _Atomic uint64_t window_used;

/* Descriptors cross the boot socket in the order of their records. */
static pthread_mutex_t boot_lock = PTHREAD_MUTEX_INITIALIZER;

void tfr_window_get(uint64_t *base_out, uint64_t *len_out)
{
    *base_out = tfr_env_u64("TFR_HOST_WINDOW");
    *len_out = window_len;
}

static uint64_t page_up(uint64_t len)
{
    return (len + PAGE - 1) & ~(uint64_t)(PAGE - 1);
}

/* ---- device memory ---- */

static CUresult alloc_ask(uint64_t len, uint64_t height, uint32_t element,
                          struct tfr_alloc_rep *rep_out)
{
    struct tfr_ask ask;
    struct tfr_alloc_req *req = tfr_ask_begin(&ask, TFR_OP_alloc, sizeof *req);
    if (!req)
        return ask.result;
    req->len = len;
    req->height = height;
    req->element = element;
    req->reserved = 0;
    const struct tfr_alloc_rep *rep = tfr_ask_send(&ask, sizeof *rep);
    if (rep)
        *rep_out = *rep;
    return tfr_ask_end(&ask);
}

/* One address goes to the executor and is answered. */
static CUresult ask_addr(uint16_t op, uint64_t addr)
{
    struct tfr_ask ask;
    struct tfr_free_req *req = tfr_ask_begin(&ask, op, sizeof *req);
    if (!req)
        return ask.result;
    req->addr = addr;
    tfr_ask_send(&ask, 0);
    return tfr_ask_end(&ask);
}

static CUresult alloc_known(uint64_t addr, uint64_t len)
{
    struct tfr_range range = {.base = addr,
                              .len = len,
                              .kind = TFR_RANGE_DEVICE,
                              .device = tfr_thread.ctx->device,
                              .ctx = tfr_thread.ctx};
    if (tfr_range_add(&range))
        return CUDA_SUCCESS;
    tfr_warn("device address 0x%llx is taken by other memory of this process",
             (unsigned long long)addr);
    ask_addr(TFR_OP_free, addr);
    return CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuMemAlloc_v2(CUdeviceptr *addr_out, size_t len)
{
    struct tfr_alloc_rep rep = {0};
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!addr_out || !len)
        return CUDA_ERROR_INVALID_VALUE;
    result = alloc_ask(len, 0, 0, &rep);
    if (result == CUDA_SUCCESS)
        result = alloc_known(rep.addr, len);
    if (result == CUDA_SUCCESS)
        *addr_out = rep.addr;
    return result;
}

CUresult cuMemAllocPitch_v2(CUdeviceptr *addr_out, size_t *pitch_out, size_t width, size_t height,
                            unsigned int element)
{
    struct tfr_alloc_rep rep = {0};
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!addr_out || !pitch_out || !width || !height ||
        (element != 4 && element != 8 && element != 16))
        return CUDA_ERROR_INVALID_VALUE;
    result = alloc_ask(width, height, element, &rep);
    if (result == CUDA_SUCCESS)
        result = alloc_known(rep.addr, rep.pitch * height);
    if (result == CUDA_SUCCESS) {
        *addr_out = rep.addr;
        *pitch_out = rep.pitch;
    }
    return result;
}

CUresult cuMemFree_v2(CUdeviceptr addr)
{
    struct tfr_range range;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS || !addr)
        return result;
    /* Native free waits for the device's work; programs rely on it. */
    result = tfr_context_wait(tfr_thread.ctx);
    if (result != CUDA_SUCCESS)
        return result;
    if (!tfr_range_take(addr, 1u << TFR_RANGE_DEVICE, &range))
        return CUDA_ERROR_INVALID_VALUE;
    return ask_addr(TFR_OP_free, addr);
}

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

/* ---- pinned host memory ---- */

/* Hands the memory to the executor: the descriptor over the boot socket, then the record. */
static CUresult host_map(const struct tfr_area *area, unsigned int flags, uint64_t *device_addr_out)
{
    struct tfr_host_msg body = {.addr = (uint64_t)area->addr, .len = area->len};
    struct tfr_boot_msg msg = {
        .type = TFR_BOOT_HOST, .len = sizeof body, .body = &body, .fds = {area->fd}, .fd_n = 1};
    struct tfr_ask ask;
    struct tfr_host_map_req *req = NULL;
    pthread_mutex_lock(&boot_lock);
    CUresult result = tfr_boot_send(tfr_client.boot, &msg, 3000) == TFR_OK
                          ? CUDA_SUCCESS
                          : tfr_client_broken("the executor takes no descriptor");
    if (result == CUDA_SUCCESS) {
        req = tfr_ask_begin(&ask, TFR_OP_host_map, sizeof *req);
        result = req ? CUDA_SUCCESS : ask.result;
    }
    if (req) {
        req->addr = body.addr;
        req->len = body.len;
        req->flags = flags;
        req->reserved = 0;
        const struct tfr_host_map_rep *rep = tfr_ask_send(&ask, sizeof *rep);
        if (rep)
            *device_addr_out = rep->device_addr;
        result = tfr_ask_end(&ask);
    }
    pthread_mutex_unlock(&boot_lock);
    return result;
}

static CUresult host_alloc(void **ptr, size_t len, unsigned int flags)
{
    /* Every page is populated: more than there is would not fail but have us killed. */
    uint64_t most = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t bytes = page_up(len);
    if (bytes < len || bytes > window_len || bytes > most)
        return CUDA_ERROR_OUT_OF_MEMORY;
    uint64_t at = atomic_fetch_add_explicit(&window_used, bytes + PAGE, memory_order_relaxed);
    if (at + bytes > window_len)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct tfr_area area;
    uint64_t base = tfr_env_u64("TFR_HOST_WINDOW");
    void *want = base ? (void *)(base + at) : NULL;
    if (tfr_memfd_create("tfr-pinned", bytes, want, &area) != TFR_OK)
        return CUDA_ERROR_OUT_OF_MEMORY;
    /* Children would share the pages; pinned memory is populated at once, as natively. */
    madvise(area.addr, bytes, MADV_DONTFORK);
    madvise(area.addr, bytes, MADV_POPULATE_WRITE);
    struct tfr_range range = {.base = (uint64_t)area.addr,
                              .len = len,
                              .kind = TFR_RANGE_MAPPED,
                              .flags = flags,
                              .device = tfr_thread.ctx->device,
                              .ctx = tfr_thread.ctx};
    CUresult result = host_map(&area, flags, &range.device_addr);
    close(area.fd);
    if (result == CUDA_SUCCESS && !tfr_range_add(&range))
        result = CUDA_ERROR_OUT_OF_MEMORY;
    if (result != CUDA_SUCCESS) {
        munmap(area.addr, bytes);
        return result;
    }
    *ptr = area.addr;
    return CUDA_SUCCESS;
}

CUresult cuMemHostAlloc(void **ptr, size_t len, unsigned int flags)
{
    const unsigned int known =
        CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!ptr || !len || (flags & ~known))
        return CUDA_ERROR_INVALID_VALUE;
    return host_alloc(ptr, len, flags);
}

CUresult cuMemAllocHost_v2(void **ptr, size_t len)
{
    return cuMemHostAlloc(ptr, len, 0);
}

CUresult cuMemFreeHost(void *ptr)
{
    struct tfr_range range;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS || !ptr)
        return result;
    result = tfr_context_wait(tfr_thread.ctx);
    if (result != CUDA_SUCCESS)
        return result;
    if (!tfr_range_take((uint64_t)ptr, 1u << TFR_RANGE_MAPPED, &range))
        return CUDA_ERROR_INVALID_VALUE;
    result = ask_addr(TFR_OP_host_unmap, range.base);
    munmap(ptr, page_up(range.len));
    return result;
}

CUresult cuMemHostRegister_v2(void *ptr, size_t len, unsigned int flags)
{
    const unsigned int known = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!ptr || !len || (uint64_t)ptr + len < (uint64_t)ptr)
        return CUDA_ERROR_INVALID_VALUE;
    if (flags & ~known)
        return flags & ~(known | CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY)
                   ? CUDA_ERROR_INVALID_VALUE
                   : CUDA_ERROR_NOT_SUPPORTED;
    struct tfr_range range = {.base = (uint64_t)ptr,
                              .len = len,
                              .kind = TFR_RANGE_REGISTERED,
                              .flags = flags,
                              .device = tfr_thread.ctx->device,
                              .ctx = tfr_thread.ctx};
    return tfr_range_add(&range) ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

CUresult cuMemHostUnregister(void *ptr)
{
    struct tfr_range range;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!ptr)
        return CUDA_ERROR_INVALID_VALUE;
    tfr_copy_deliver_before(NULL);
    if (!tfr_range_take((uint64_t)ptr, 1u << TFR_RANGE_REGISTERED, &range))
        return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    return CUDA_SUCCESS;
}

static void registered_explain(void)
{
    static _Atomic bool said;
    if (!atomic_exchange_explicit(&said, true, memory_order_relaxed))
        tfr_warn("kernels do not see memory that was registered: its bytes are staged for copies; "
                 "cudaHostAlloc gives memory that they do see");
}

CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *addr, void *ptr, unsigned int flags)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!addr || flags)
        return CUDA_ERROR_INVALID_VALUE;
    struct tfr_range range = tfr_range_find((uint64_t)ptr);
    if (range.kind == TFR_RANGE_REGISTERED) {
        registered_explain();
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    if (range.kind != TFR_RANGE_MAPPED)
        return CUDA_ERROR_INVALID_VALUE;
    *addr = range.device_addr + ((uint64_t)ptr - range.base);
    return CUDA_SUCCESS;
}

CUresult cuMemHostGetFlags(unsigned int *flags, void *ptr)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_range range = tfr_range_find((uint64_t)ptr);
    if (!flags || (range.kind != TFR_RANGE_MAPPED && range.kind != TFR_RANGE_REGISTERED))
        return CUDA_ERROR_INVALID_VALUE;
    *flags = range.flags;
    if (range.kind == TFR_RANGE_MAPPED)
        *flags |= CU_MEMHOSTALLOC_DEVICEMAP; /* under unified addressing all of it is mapped */
    return CUDA_SUCCESS;
}

void tfr_memory_forget_all(void)
{
    tfr_range_clear();
}

void tfr_memory_forget_context(struct tfr_context *ctx)
{
    struct tfr_range range;
    while (tfr_range_take_of(ctx, 1u << TFR_RANGE_DEVICE, &range))
        ask_addr(TFR_OP_free, range.base);
    while (tfr_range_take_of(ctx, 1u << TFR_RANGE_MAPPED, &range)) {
        ask_addr(TFR_OP_host_unmap, range.base);
        munmap((void *)range.base, page_up(range.len));
    }
    while (tfr_range_take_of(ctx, 1u << TFR_RANGE_REGISTERED, &range))
        ;
}

/* ---- what a pointer is ---- */

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
        *(CUmemoryPool *)data = NULL;
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
