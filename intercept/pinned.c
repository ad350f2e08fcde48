/* Pinned host memory: allocated by us, or the application's own that it registers.
 *
 * What we allocate is a sealed memfd, mapped at the same address by client and executor (the host
 * window), so the GPU's copy engine reads and writes it in place and kernels may follow its
 * pointers.  Registered memory stays the application's: its bytes are staged.  Surprising: so are
 * those of memory of ours where the executor is no neighbour, or cannot pin it: the allocation
 * succeeds, as natively, and only kernels do not see it. */
#define TFR_LOG_PART "intercept"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "intercept/copy.h"
#include "intercept/gate.h"
#include "intercept/memory.h"
#include "intercept/stream.h"
#include "transport/boot.h"

enum { PAGE = 4096, POINTS = 32 };
static const uint64_t window_len = 1ull << 44;

/* Descriptors cross the boot socket in the order of their records. */
static pthread_mutex_t boot_lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t window_base(void)
{
    return TFR_NO_WINDOWS ? 0 : tfr_env_u64("TFR_HOST_WINDOW");
}

void tfr_window_get(uint64_t *base_out, uint64_t *len_out)
{
    *base_out = window_base();
    *len_out = window_len;
}

static uint64_t page_up(uint64_t len)
{
    return (len + PAGE - 1) & ~(uint64_t)(PAGE - 1);
}

/* ---- places in the window ---- */

/* In use, by address, with a page between each two. */
struct place {
    struct place *next;
    uint64_t at, len;
};
static pthread_mutex_t places_lock = PTHREAD_MUTEX_INITIALIZER; /* guards places */
static struct place *places;

/* Where no window was asked for the kernel knows the places. */
static bool place_take(uint64_t len, uint64_t *at_out)
{
    struct place *new, **at = &places;
    uint64_t from = *at_out = 0;
    if (!window_base())
        return true;
    new = malloc(sizeof *new);
    if (!new)
        return false;
    pthread_mutex_lock(&places_lock);
    while (*at && (*at)->at - from < len + PAGE) {
        from = (*at)->at + (*at)->len + PAGE;
        at = &(*at)->next;
    }
    bool fits = *at || tfr_span_inside(from, len, window_len);
    if (fits) {
        *new = (struct place){*at, from, len};
        *at = new;
        *at_out = from;
    }
    pthread_mutex_unlock(&places_lock);
    if (!fits)
        free(new);
    return fits;
}

static void place_give(uint64_t where)
{
    struct place **at = &places, *found = NULL;
    pthread_mutex_lock(&places_lock);
    while (*at && (*at)->at != where)
        at = &(*at)->next;
    if (*at) {
        found = *at;
        *at = found->next;
    }
    pthread_mutex_unlock(&places_lock);
    free(found);
}

void tfr_pinned_drop(const struct tfr_range *range)
{
    tfr_reg_drop(range->mem, range->len);
    if (range->kind != TFR_RANGE_MAPPED && !range->ours)
        return;
    munmap((void *)range->base, page_up(range->len));
    if (range->kind == TFR_RANGE_MAPPED)
        place_give(range->base - window_base());
}

/* ---- allocation ---- */

/* Hands the memory to the executor: the descriptor over the boot socket, then the record. */
static CUresult host_map(const struct tfr_area *area, unsigned int flags, uint64_t *device_addr_out)
{
    struct tfr_host_msg body = {.addr = (uint64_t)area->addr, .len = area->len};
    struct tfr_boot_msg msg = {
        .type = TFR_BOOT_HOST, .len = sizeof body, .body = &body, .fds = {area->fd}, .fd_n = 1};
    struct tfr_ask ask;
    struct tfr_host_map_req *req = NULL;
    pthread_mutex_lock(&boot_lock);
    CUresult result = CUDA_SUCCESS;
    if (!atomic_load_explicit(&tfr_client.attached, memory_order_acquire))
        result = tfr_client_ended();
    else if (tfr_boot_send(&tfr_client.boot, &msg, 3000) != TFR_OK)
        result = tfr_client_broken("the executor takes no descriptor");
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

void tfr_pinned_boot_close(void)
{
    pthread_mutex_lock(&boot_lock);
    tfr_boot_close(&tfr_client.boot);
    pthread_mutex_unlock(&boot_lock);
}

/* Shared with the executor; any failure leaves nothing behind. */
static CUresult map_new(struct tfr_range *range)
{
    uint64_t bytes = page_up(range->len), at, base = window_base();
    struct tfr_area area;
    if (!place_take(bytes, &at))
        return CUDA_ERROR_OUT_OF_MEMORY;
    void *want = base ? (void *)(base + at) : NULL;
    if (tfr_memfd_create("tfr-pinned", bytes, want, &area) != TFR_OK) {
        place_give(at);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    /* Children would share the pages; pinned memory is populated at once, as natively. */
    madvise(area.addr, bytes, MADV_DONTFORK);
    madvise(area.addr, bytes, MADV_POPULATE_WRITE);
    range->kind = TFR_RANGE_MAPPED;
    range->base = (uint64_t)area.addr;
    CUresult result = host_map(&area, range->flags, &range->device_addr);
    close(area.fd);
    if (result != CUDA_SUCCESS) {
        munmap(area.addr, bytes);
        place_give(at);
    }
    return result;
}

/* The client's alone: copies of it are staged. */
static CUresult staged_new(struct tfr_range *range)
{
    uint64_t bytes = page_up(range->len);
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
                    -1, 0);
    if (at == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    madvise(at, bytes, MADV_DONTFORK); /* as for memory that is shared */
    range->mem = tfr_reg_make(at, range->len, true);
    if (!tfr_client.any_local && !range->mem)
        TFR_COUNT(pinned_staged, 1);
    range->kind = TFR_RANGE_REGISTERED;
    range->ours = true;
    range->base = (uint64_t)at;
    return CUDA_SUCCESS;
}

static void staged_explain(CUresult result)
{
    static _Atomic bool said;
    if (!atomic_exchange_explicit(&said, true, memory_order_relaxed))
        tfr_warn("the executor does not pin our memory (error %d): copies of it are staged, and "
                 "kernels do not see it",
                 (int)result);
}

static CUresult host_alloc(void **ptr, size_t len, unsigned int flags)
{
    /* Every page is populated: more than there is would not fail but have us killed. */
    uint64_t most = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    if (page_up(len) < len || page_up(len) > most)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct tfr_range range = {
        .len = len, .flags = flags, .ctx = tfr_thread.ctx, .device = tfr_thread.ctx->device};
    bool mapped = atomic_load_explicit(&tfr_client.sees, memory_order_relaxed);
    CUresult result = mapped ? map_new(&range) : CUDA_ERROR_NOT_SUPPORTED;
    if (result != CUDA_SUCCESS) {
        if (tfr_client_error() != CUDA_SUCCESS)
            return tfr_client_error();
        if (mapped)
            staged_explain(result);
        result = staged_new(&range);
    }
    if (result == CUDA_SUCCESS && !tfr_range_add(&range)) {
        if (range.kind == TFR_RANGE_MAPPED)
            tfr_memory_ask(TFR_OP_host_unmap, range.base);
        tfr_pinned_drop(&range);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result == CUDA_SUCCESS)
        *ptr = (void *)range.base;
    return result;
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

/* What cuMemFreeHost may free: memory of ours, however it is reached. */
static bool take_ours(uint64_t base, struct tfr_range *range_out)
{
    struct tfr_range range = tfr_range_find(base);
    unsigned int kind = range.kind == TFR_RANGE_MAPPED ? TFR_RANGE_MAPPED
                        : range.ours                   ? TFR_RANGE_REGISTERED
                                                       : TFR_RANGE_NONE;
    return kind != TFR_RANGE_NONE && tfr_range_take(base, 1u << kind, range_out);
}

/* All that was posted so far is done with host memory: any stream, of any context, may be using it.
 */
static CUresult quiesce(void)
{
    struct tfr_point points[POINTS];
    uint64_t until = tfr_post_last();
    CUresult result = CUDA_SUCCESS;
    uint32_t n;
    while (result == CUDA_SUCCESS && (n = tfr_points_take(points, POINTS, until)))
        result = tfr_points_wait(points, n < POINTS ? n : POINTS);
    if (result == CUDA_SUCCESS)
        tfr_copy_deliver();
    return result;
}

/* Before pinned memory goes.  In a session that has failed, or with a context that another thread
 * has ended, the call fails, and yet the program may take the memory away next: nothing may be
 * written there any more. */
static CUresult enter_last(void)
{
    CUresult result = tfr_enter();
    if (result == CUDA_ERROR_DEVICE_UNAVAILABLE)
        tfr_client_cut();
    /* A forked child has neither, and locks that nobody there lets go. */
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_NOT_INITIALIZED)
        return result;
    if (result == tfr_client_error()) {
        tfr_copy_forget_owed();
        tfr_gate_moves_end();
    } else if (result == CUDA_ERROR_CONTEXT_IS_DESTROYED) {
        tfr_copy_forget_context(tfr_thread.ctx);
    }
    return result;
}

CUresult cuMemFreeHost(void *ptr)
{
    struct tfr_range range;
    CUresult result = enter_last();
    if (result != CUDA_SUCCESS || !ptr)
        return result;
    result = quiesce();
    if (result != CUDA_SUCCESS)
        return result;
    if (!take_ours((uint64_t)ptr, &range))
        return CUDA_ERROR_INVALID_VALUE;
    if (range.kind == TFR_RANGE_MAPPED)
        result = tfr_memory_ask(TFR_OP_host_unmap, range.base);
    tfr_pinned_drop(&range);
    return result;
}

/* ---- registration ---- */

/* Is memory that the GPU must not write there at all?  Staged memory can be had in any way. */
static bool read_only_known(void)
{
    int known = 0;
    cuDeviceGetAttribute(&known, CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED,
                         tfr_thread.ctx->device);
    return known;
}

/* Is all of it mapped? */
static bool is_there(void *ptr, size_t len)
{
    enum { LOOK = 4096 };
    unsigned char in_core[LOOK];
    uint64_t from = (uint64_t)ptr & ~(uint64_t)(PAGE - 1), to = page_up((uint64_t)ptr + len);
    for (uint64_t at = from; at < to; at += LOOK * (uint64_t)PAGE) {
        uint64_t n = to - at < LOOK * (uint64_t)PAGE ? to - at : LOOK * (uint64_t)PAGE;
        if (mincore((void *)at, n, in_core) != 0 && errno == ENOMEM)
            return false;
    }
    return true;
}

CUresult cuMemHostRegister_v2(void *ptr, size_t len, unsigned int flags)
{
    const unsigned int all = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP |
                             CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!ptr || !len || (uint64_t)ptr + len < (uint64_t)ptr || (flags & ~all))
        return CUDA_ERROR_INVALID_VALUE;
    if ((flags & CU_MEMHOSTREGISTER_IOMEMORY) ||
        ((flags & CU_MEMHOSTREGISTER_READ_ONLY) && !read_only_known()))
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!is_there(ptr, len))
        return CUDA_ERROR_INVALID_VALUE;
    struct tfr_range range = {.base = (uint64_t)ptr,
                              .len = len,
                              .kind = TFR_RANGE_REGISTERED,
                              .flags = flags,
                              .ctx = tfr_thread.ctx,
                              .device = tfr_thread.ctx->device};
    if (tfr_range_find(range.base).kind == TFR_RANGE_NONE)
        range.mem = tfr_reg_make(ptr, len, false);
    if (tfr_range_add(&range))
        return CUDA_SUCCESS;
    tfr_reg_drop(range.mem, len);
    return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

CUresult cuMemHostUnregister(void *ptr)
{
    struct tfr_range range;
    CUresult result = enter_last();
    if (result != CUDA_SUCCESS)
        return result;
    if (!ptr)
        return CUDA_ERROR_INVALID_VALUE;
    result = quiesce();
    if (result != CUDA_SUCCESS)
        return result;
    if (tfr_range_find((uint64_t)ptr).ours ||
        !tfr_range_take((uint64_t)ptr, 1u << TFR_RANGE_REGISTERED, &range))
        return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    tfr_pinned_drop(&range);
    return CUDA_SUCCESS;
}

/* ---- queries ---- */

static void unseen_explain(void)
{
    static _Atomic bool said;
    if (atomic_exchange_explicit(&said, true, memory_order_relaxed))
        return;
    if (atomic_load_explicit(&tfr_client.sees, memory_order_relaxed))
        tfr_warn("kernels do not see memory that was registered: its bytes are staged for copies; "
                 "cudaHostAlloc gives memory that they do see");
    else
        tfr_warn("kernels do not see pinned memory of this program, only copies reach it: for that "
                 "program and executor have to share memory (one machine, a unix: address)");
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
        unseen_explain();
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
