/* Virtual memory management: reserved addresses, physical memory, and mappings between them.
 * Physical memory is a piece of one sparse memfd, so that it can be mapped where the program wants
 * it, more than once; a mapping can be touched (by kernels and by the host) only after
 * cuMemSetAccess. */
#include "executor/softgpu/soft.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct soft_phys {
    uint64_t handle, len, at; /* at: in the memfd */
    uint32_t refs;            /* handles given out, and mappings */
    uint32_t handles;
    struct soft_dev *dev;
    CUmemAllocationProp prop;
};

struct hole {
    struct hole *next;
    uint64_t at, len;
};

static pthread_mutex_t vmm_lock = PTHREAD_MUTEX_INITIALIZER; /* all of this; before devmem's lock */
static int file = -1;
static uint64_t file_len;
static struct hole
    *holes; /* given back pieces of the file, unsorted: reused for equal or smaller ones */

/* ---- the file ---- */

/* Never shrunk: direct.c makes dma-bufs of pieces, and the kernel wants that as a promise. */
static void file_make(void)
{
    file = memfd_create("tf-soft", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (file >= 0)
        (void)fcntl(file, F_ADD_SEALS, F_SEAL_SHRINK);
}

static bool file_take(uint64_t len, uint64_t *at_out)
{
    if (file < 0)
        file_make();
    if (file < 0)
        return false;
    for (struct hole **at = &holes; *at; at = &(*at)->next) {
        struct hole *hole = *at;
        if (hole->len < len)
            continue;
        *at_out = hole->at;
        hole->at += len;
        hole->len -= len;
        if (!hole->len) {
            *at = hole->next;
            free(hole);
        }
        return true;
    }
    if (ftruncate(file, (off_t)(file_len + len)))
        return false;
    *at_out = file_len;
    file_len += len;
    return true;
}

static void file_give(uint64_t at, uint64_t len)
{
    struct hole *hole = malloc(sizeof(*hole));
    fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)len);
    if (hole) {
        *hole = (struct hole){holes, at, len};
        holes = hole;
    }
}

/* ---- physical memory ---- */

static void phys_unref(struct soft_phys *phys)
{
    if (--phys->refs)
        return;
    file_give(phys->at, phys->len);
    soft_mem_credit(phys->dev, phys->len);
    free(phys);
}

static CUresult check_prop(const CUmemAllocationProp *prop, struct soft_dev **dev_out)
{
    if (!prop || prop->type != CU_MEM_ALLOCATION_TYPE_PINNED ||
        prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return CUDA_ERROR_INVALID_VALUE;
    if (prop->requestedHandleTypes != CU_MEM_HANDLE_TYPE_NONE)
        return CUDA_ERROR_NOT_SUPPORTED;
    return soft_dev_get(prop->location.id, dev_out);
}

CUresult cuMemGetAllocationGranularity(size_t *len, const CUmemAllocationProp *prop,
                                       CUmemAllocationGranularity_flags option)
{
    struct soft_dev *dev;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!len || (unsigned int)option > CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = check_prop(prop, &dev);
    if (result == CUDA_SUCCESS)
        *len = SOFT_CHUNK;
    return result;
}

CUresult cuMemCreate(CUmemGenericAllocationHandle *out, size_t len, const CUmemAllocationProp *prop,
                     unsigned long long flags)
{
    struct soft_dev *dev;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    CUresult result = check_prop(prop, &dev);
    if (result)
        return result;
    if (!out || !len || (len & (SOFT_CHUNK - 1)) || flags)
        return CUDA_ERROR_INVALID_VALUE;
    struct soft_phys *phys = calloc(1, sizeof(*phys));
    result = phys ? soft_mem_charge(dev, len) : CUDA_ERROR_OUT_OF_MEMORY;
    if (result) {
        free(phys);
        return result;
    }
    *phys = (struct soft_phys){.len = len, .refs = 1, .handles = 1, .dev = dev, .prop = *prop};
    pthread_mutex_lock(&vmm_lock);
    bool ok = file_take(len, &phys->at);
    pthread_mutex_unlock(&vmm_lock);
    phys->handle = ok ? soft_handle_add(SOFT_PHYS, phys) : 0;
    if (!phys->handle) {
        soft_mem_credit(dev, len);
        free(phys);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = phys->handle;
    return CUDA_SUCCESS;
}

CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&vmm_lock);
    struct soft_phys *phys = soft_handle_get(handle, SOFT_PHYS);
    if (phys) {
        if (--phys->handles == 0)
            soft_handle_del(handle);
        phys_unref(phys);
    }
    pthread_mutex_unlock(&vmm_lock);
    return phys ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
                                                CUmemGenericAllocationHandle handle)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&vmm_lock);
    struct soft_phys *phys = soft_handle_get(handle, SOFT_PHYS);
    if (phys && prop)
        *prop = phys->prop;
    pthread_mutex_unlock(&vmm_lock);
    return phys && prop ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* ---- reservations ---- */

CUresult cuMemAddressReserve(CUdeviceptr *out, size_t len, size_t align, CUdeviceptr hint,
                             unsigned long long flags)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!out || !len || (len & (SOFT_CHUNK - 1)) || (align & (align - 1)) || flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (len > soft_mem.len)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct soft_reserve *reserve =
        calloc(1, sizeof(*reserve) + (len >> SOFT_CHUNK_SHIFT) * sizeof(struct soft_piece));
    if (!reserve)
        return CUDA_ERROR_OUT_OF_MEMORY;
    reserve->len = len;
    pthread_mutex_lock(&vmm_lock);
    bool ok = soft_space_take(reserve, align, hint);
    pthread_mutex_unlock(&vmm_lock);
    if (!ok) {
        free(reserve);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = reserve->base;
    return CUDA_SUCCESS;
}

static struct soft_piece *piece_at(struct soft_reserve *reserve, uint64_t addr)
{
    return &reserve->piece[(addr - reserve->base) >> SOFT_CHUNK_SHIFT];
}

CUresult cuMemAddressFree(CUdeviceptr at, size_t len)
{
    CUresult result = CUDA_SUCCESS;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&vmm_lock);
    struct soft_reserve *reserve = soft_space_owner(at);
    if (!reserve || reserve->base != at || reserve->len != len)
        result = CUDA_ERROR_INVALID_VALUE;
    for (uint64_t i = 0; result == CUDA_SUCCESS && i < len >> SOFT_CHUNK_SHIFT; i++)
        if (reserve->piece[i].phys)
            result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS) {
        soft_space_give(reserve);
        free(reserve);
    }
    pthread_mutex_unlock(&vmm_lock);
    return result;
}

/* The reservation that holds all of [at, at+len), in whole pieces. */
static struct soft_reserve *cover(uint64_t at, uint64_t len)
{
    struct soft_reserve *reserve = soft_space_owner(at);
    if (!reserve || !len || ((at | len) & (SOFT_CHUNK - 1)) ||
        len > reserve->base + reserve->len - at)
        return NULL;
    return reserve;
}

static CUresult map(uint64_t at, uint64_t len, uint64_t offset, struct soft_phys *phys)
{
    struct soft_reserve *reserve = cover(at, len);
    if (!reserve || (offset & (SOFT_CHUNK - 1)) || offset > phys->len || len > phys->len - offset)
        return CUDA_ERROR_INVALID_VALUE;
    uint32_t n = (uint32_t)(len >> SOFT_CHUNK_SHIFT);
    struct soft_piece *piece = piece_at(reserve, at);
    for (uint32_t i = 0; i < n; i++)
        if (piece[i].phys)
            return CUDA_ERROR_INVALID_VALUE;
    if (mmap((void *)at, len, PROT_NONE, MAP_SHARED | MAP_FIXED, file,
             (off_t)(phys->at + offset)) == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    const struct soft_piece like = {.phys = phys,
                                    .first = (uint32_t)(piece - reserve->piece),
                                    .n = n,
                                    .at = offset,
                                    .id = soft_next_id(),
                                    .dev = phys->dev};
    soft_piece_put(piece, n, &like);
    phys->refs++;
    return CUDA_SUCCESS;
}

CUresult cuMemMap(CUdeviceptr at, size_t len, size_t offset, CUmemGenericAllocationHandle handle,
                  unsigned long long flags)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (flags || offset) /* cuda.h: the offset must be zero for now */
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&vmm_lock);
    struct soft_phys *phys = soft_handle_get(handle, SOFT_PHYS);
    CUresult result = phys ? map(at, len, offset, phys) : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_unlock(&vmm_lock);
    return result;
}

bool soft_vmm_locate(uint64_t at, uint64_t len, int *fd_out, uint64_t *fd_at_out)
{
    pthread_mutex_lock(&vmm_lock);
    struct soft_reserve *reserve = soft_space_owner(at);
    const struct soft_piece *piece = reserve ? piece_at(reserve, at) : NULL;
    bool ok = piece && piece->phys;
    if (ok) {
        uint64_t into = at - reserve->base - ((uint64_t)piece->first << SOFT_CHUNK_SHIFT);
        ok = len <= ((uint64_t)piece->n << SOFT_CHUNK_SHIFT) - into;
        *fd_out = file;
        *fd_at_out = piece->phys->at + piece->at + into;
    }
    pthread_mutex_unlock(&vmm_lock);
    return ok;
}

/* True if [at, at+len) is made of whole mappings. */
static bool whole(const struct soft_reserve *reserve, uint64_t at, uint64_t len)
{
    uint32_t i = (uint32_t)((at - reserve->base) >> SOFT_CHUNK_SHIFT);
    uint32_t end = i + (uint32_t)(len >> SOFT_CHUNK_SHIFT);
    while (i < end) {
        const struct soft_piece *piece = &reserve->piece[i];
        if (!piece->phys || piece->first != i || piece->n > end - i)
            return false;
        i += piece->n;
    }
    return true;
}

/* What is left can be read and written by the process, with no effect: work that is under way, an
 * error of the program's, is to meet a fault at its next access and not to end us. */
static CUresult unmap(uint64_t at, uint64_t len)
{
    const struct soft_piece none = {0};
    struct soft_reserve *reserve = cover(at, len);
    uint32_t n = (uint32_t)(len >> SOFT_CHUNK_SHIFT);
    if (!reserve || !whole(reserve, at, len))
        return CUDA_ERROR_INVALID_VALUE;
    struct soft_piece *piece = piece_at(reserve, at);
    soft_page_set(at, len, 0);
    (void)mmap((void *)at, len, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    for (uint32_t i = 0; i < n; i++) {
        struct soft_phys *phys = piece[i].phys;
        bool first = piece[i].first == (uint32_t)(&piece[i] - reserve->piece);
        soft_piece_put(&piece[i], 1, &none);
        if (first)
            phys_unref(phys);
    }
    return CUDA_SUCCESS;
}

CUresult cuMemUnmap(CUdeviceptr at, size_t len)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (soft_chaos.on)
        soft_chaos_unmap(at, len);
    pthread_mutex_lock(&vmm_lock);
    CUresult result = unmap(at, len);
    pthread_mutex_unlock(&vmm_lock);
    return result;
}

/* Which bits of soft_piece.access change, and to what. */
static CUresult access_of(const CUmemAccessDesc *desc, size_t n, uint32_t *mask_out,
                          uint32_t *access_out)
{
    struct soft_dev *dev;
    *mask_out = *access_out = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t access = 0;
        if (desc[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE)
            return CUDA_ERROR_INVALID_VALUE;
        if (soft_dev_get(desc[i].location.id, &dev))
            return CUDA_ERROR_INVALID_DEVICE;
        if (desc[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
            access = SOFT_PAGE_READ | SOFT_PAGE_WRITE;
        else if (desc[i].flags == CU_MEM_ACCESS_FLAGS_PROT_READ)
            access = SOFT_PAGE_READ;
        else if (desc[i].flags != CU_MEM_ACCESS_FLAGS_PROT_NONE)
            return CUDA_ERROR_INVALID_VALUE;
        uint32_t both = SOFT_PAGE_READ | SOFT_PAGE_WRITE;
        *mask_out |= both << (2 * dev->at);
        *access_out = (*access_out & ~(both << (2 * dev->at))) | access << (2 * dev->at);
    }
    return CUDA_SUCCESS;
}

/* The host may do what some device may: copies run on the host. */
static CUresult show_access(const struct soft_piece *piece, uint64_t at, uint64_t len)
{
    unsigned int any = soft_piece_any(piece);
    int prot = (any & SOFT_PAGE_READ ? PROT_READ : 0) | (any & SOFT_PAGE_WRITE ? PROT_WRITE : 0);
    if (mprotect((void *)at, len, prot))
        return CUDA_ERROR_OUT_OF_MEMORY;
    soft_page_set(at, len, any);
    return CUDA_SUCCESS;
}

/* By whole mappings, as cuda.h wants it. */
static CUresult set_access(uint64_t at, uint64_t len, uint32_t mask, uint32_t access)
{
    CUresult result = CUDA_SUCCESS;
    struct soft_reserve *reserve = cover(at, len);
    if (!reserve || !whole(reserve, at, len))
        return CUDA_ERROR_INVALID_VALUE;
    struct soft_piece *piece = piece_at(reserve, at), *end = piece + (len >> SOFT_CHUNK_SHIFT);
    while (piece < end && result == CUDA_SUCCESS) {
        struct soft_piece like = *piece;
        uint64_t base = reserve->base + ((uint64_t)like.first << SOFT_CHUNK_SHIFT);
        like.access = (like.access & ~mask) | access;
        soft_piece_put(piece, like.n, &like);
        result = show_access(&like, base, (uint64_t)like.n << SOFT_CHUNK_SHIFT);
        piece += like.n;
    }
    return result;
}

CUresult cuMemSetAccess(CUdeviceptr at, size_t len, const CUmemAccessDesc *desc, size_t n)
{
    uint32_t mask, access;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!desc || !n)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = access_of(desc, n, &mask, &access);
    if (result)
        return result;
    pthread_mutex_lock(&vmm_lock);
    result = set_access(at, len, mask, access);
    pthread_mutex_unlock(&vmm_lock);
    return result;
}

CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr at)
{
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    struct soft_dev *dev;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!flags || !location || location->type != CU_MEM_LOCATION_TYPE_DEVICE ||
        soft_dev_get(location->id, &dev))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&vmm_lock);
    struct soft_reserve *reserve = soft_space_owner(at);
    if (reserve && piece_at(reserve, at)->phys) {
        /* the same bits: 1 read, 3 read and write */
        *flags = soft_piece_access(piece_at(reserve, at), dev->at);
        result = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&vmm_lock);
    return result;
}

CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *out, void *addr)
{
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&vmm_lock);
    struct soft_reserve *reserve = soft_space_owner((uint64_t)addr);
    struct soft_phys *phys = reserve ? piece_at(reserve, (uint64_t)addr)->phys : NULL;
    if (out && phys) {
        if (!phys->handles)
            phys->handle = soft_handle_add(SOFT_PHYS, phys);
        if (phys->handle) {
            phys->handles++;
            phys->refs++;
            *out = phys->handle;
            result = CUDA_SUCCESS;
        }
    }
    pthread_mutex_unlock(&vmm_lock);
    return result;
}
