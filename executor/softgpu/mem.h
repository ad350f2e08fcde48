/* The driver's side of memory: allocations by heap, host memory, reservations (devmem.c, hostmem.c,
 * vmm.c, mempool.c).  devmem.h is the interpreter's side.  Included through soft.h. */
#ifndef TFR_SOFTGPU_MEM_H
#define TFR_SOFTGPU_MEM_H

#include "executor/softgpu/soft.h"

enum {
    SOFT_MEM_MANAGED = 1,
    SOFT_MEM_ASYNC = 2,
    SOFT_MEM_FREEING = 4,
    SOFT_MEM_VMM = 8,
    SOFT_MEM_HOST = 16,
    SOFT_MEM_MODULE = 32, /* a variable of a module: not the program's to free */
};

struct soft_range {
    uint64_t base, len, id;
    unsigned int flags; /* SOFT_MEM_*, for host memory also host_flags */
    unsigned int host_flags;
    bool registered; /* host memory by cuMemHostRegister */
    struct soft_ctx *ctx;
    struct soft_dev *dev;
    uint64_t pool; /* mempool.c's, for SOFT_MEM_ASYNC */
};

struct soft_heap *soft_heap_new(struct soft_dev *dev, struct soft_ctx *ctx);
/* An allocation in it that has the flag; false: none. */
bool soft_heap_find(struct soft_heap *heap, unsigned int flag, uint64_t *at_out);
void soft_heap_clear(struct soft_heap *heap); /* frees every allocation in it */
/* The heap that soft_mem_alloc uses on this thread from now on; NULL: device 0's own. */
void soft_heap_use(struct soft_heap *heap);
CUresult soft_heap_alloc(struct soft_heap *heap, size_t len, size_t align, unsigned int flags,
                         uint64_t pool, CUdeviceptr *addr_out);
/* Both take base addresses only; a flag that is set already is CUDA_ERROR_INVALID_VALUE too. */
CUresult soft_heap_free(CUdeviceptr addr);
CUresult soft_mem_mark(CUdeviceptr addr, unsigned int flag);
/* Device memory that holds addr: an allocation or a VMM mapping. */
bool soft_mem_find(uint64_t addr, struct soft_range *range_out);
bool soft_any_find(uint64_t addr, struct soft_range *range_out); /* device or known host memory */
/* May a call name [addr, addr+len)?  For device memory: inside one allocation or mappings that some
 * device may access; true for host memory (pageable too).  Chaos leaves access to the operation. */
CUresult soft_mem_check(uint64_t addr, uint64_t len, unsigned int want);
/* May an operation touch it?  For mappings chaos wants `dev` (NULL: any) to have access. */
bool soft_mem_reach(const struct soft_dev *dev, uint64_t addr, uint64_t len, unsigned int want);
static inline bool soft_is_device(uint64_t addr)
{
    return addr - soft_mem.base < soft_mem.len;
}
uint64_t soft_mem_used(const struct soft_dev *dev);
CUresult soft_mem_charge(struct soft_dev *dev, uint64_t len);
void soft_mem_credit(struct soft_dev *dev, uint64_t len);

/* devmem.c for vmm.c: address space in units of 2 MiB, the granularity of mappings too. */
enum { SOFT_CHUNK_SHIFT = 21 };
#define SOFT_CHUNK (1ull << SOFT_CHUNK_SHIFT)

struct soft_phys;

struct soft_reserve { /* cuMemAddressReserve; written under vmm.c's lock, by soft_piece_put */
    uint64_t base, len;
    struct soft_piece {         /* per 2 MiB */
        struct soft_phys *phys; /* NULL: nothing mapped */
        uint32_t first, n;      /* the whole mapping, in pieces of the reservation */
        uint64_t at;            /* in phys */
        uint64_t id;
        uint32_t access; /* SOFT_PAGE_*, two bits per device */
        struct soft_dev *dev;
    } piece[];
};
/* The n pieces from `first` become what `like` is: under devmem's lock, which guards readers. */
void soft_piece_put(struct soft_piece *first, uint32_t n, const struct soft_piece *like);
static inline unsigned int soft_piece_access(const struct soft_piece *piece, int dev)
{
    return piece->access >> (2 * dev) & (SOFT_PAGE_READ | SOFT_PAGE_WRITE);
}
/* What any device may do. */
static inline unsigned int soft_piece_any(const struct soft_piece *piece)
{
    unsigned int any = 0;
    for (int dev = 0; dev < SOFT_DEV_MAX; dev++)
        any |= soft_piece_access(piece, dev);
    return any;
}

/* Address space for a reservation; a hint is honoured if it is free.  False: none left. */
bool soft_space_take(struct soft_reserve *reserve, uint64_t align, uint64_t hint);
void soft_space_give(struct soft_reserve *reserve);
struct soft_reserve *soft_space_owner(uint64_t addr); /* NULL: not reserved */
void soft_page_set(uint64_t base, uint64_t len, unsigned int access);
uint64_t soft_next_id(void);

/* vmm.c: where mapped memory lies in the file that backs it; false: not inside one mapping. */
bool soft_vmm_locate(uint64_t at, uint64_t len, int *fd_out, uint64_t *fd_at_out);

/* direct.c: what the device says of GPUDirect; other attributes are left alone. */
void soft_direct_attribute(int attribute, int *value_out);

/* mempool.c: a stream of ctx reached a cuMemFreeAsync (ctx NULL: a plain free of such memory). */
void soft_pool_free(struct soft_ctx *ctx, uint64_t at);
void soft_pool_forget(struct soft_ctx *ctx);
/* A stream, an event or a context was waited for: pools shrink to their release threshold. */
void soft_pool_synced(void);
uint64_t soft_pool_handle(uint64_t pool); /* of soft_range.pool */

bool soft_host_find(uint64_t addr, struct soft_range *range_out);
bool soft_host_pinned(uint64_t addr, uint64_t len);
CUresult soft_host_add(const struct soft_range *range);
CUresult soft_host_del(uint64_t base, bool registered);
/* Takes one of the context's ranges out. */
bool soft_host_take(struct soft_ctx *ctx, struct soft_range *range_out);
void soft_host_unmap(const struct soft_range *range); /* hostalloc.c: gives allocated pages back */

#endif
