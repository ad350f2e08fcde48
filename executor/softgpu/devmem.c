/* Device memory: one reserved range of addresses, the arena.  Called by the driver API and by the
 * interpreter (devmem.h).
 *
 * The arena is dealt out in chunks of 2 MiB.  A chunk belongs to a large allocation, to a heap's
 * small ones (units of 512 bytes), or to a VMM reservation; chunk_of tells which, so that every
 * look-up is one index.  Behind every large allocation at least a page stays unmarked.  Capacity is
 * only accounting: addresses never run out before it does.  What was freed stays readable by the
 * host process and is no longer legal for kernels. */
#include "executor/softgpu/arena.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/env.h"

enum {
    UNIT_SHIFT = 9,
    UNITS = 1 << (SOFT_CHUNK_SHIFT - UNIT_SHIFT),
    PAGES = 1 << (SOFT_CHUNK_SHIFT - SOFT_PAGE_SHIFT),
    UNITS_PER_PAGE = 1 << (SOFT_PAGE_SHIFT - UNIT_SHIFT),
    SMALL_MAX = 1 << 20,
    KEEP_MAX = 16 << 20, /* longer ones give their pages back to the host when freed */
};
#define PAGE (1ull << SOFT_PAGE_SHIFT)

struct unit { /* valid at the first unit of an allocation */
    uint64_t id, pool;
    uint32_t len;
    uint16_t flags;
    bool used, first;
};

struct small {
    uint32_t free_n, longest; /* longest: no free run is longer than this */
    uint8_t page_n[PAGES];    /* units in use */
    struct unit unit[UNITS];
};

struct soft_heap {
    struct soft_dev *dev;
    struct soft_ctx *ctx;
    struct chunk *chunks;
};

struct soft_dev soft_devs[SOFT_DEV_MAX];
int soft_dev_n = 1;

/* Guards everything below, page marks included. */
pthread_mutex_t soft_mem_lock = PTHREAD_MUTEX_INITIALIZER;
static uint64_t used[SOFT_DEV_MAX];
static struct soft_heap first_heap = {.dev = &soft_devs[0]};
static _Thread_local struct soft_heap *my_heap;
static _Atomic uint64_t last_id;

uint64_t soft_next_id(void)
{
    return atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
}

CUresult soft_mem_init(void)
{
    static CUresult result = CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&soft_mem_lock);
    if (result == CUDA_ERROR_NOT_INITIALIZED) {
        uint64_t memory = tfr_env_u64("TFR_SOFT_MEMORY");
        soft_chaos_init();
        for (int i = 0; i < SOFT_DEV_MAX; i++)
            soft_devs[i] = (struct soft_dev){.at = i, .memory = memory};
        result = soft_arena_map();
    }
    pthread_mutex_unlock(&soft_mem_lock);
    return result;
}

/* ---- capacity ---- */

static bool charge(struct soft_dev *dev, uint64_t len)
{
    if (len > dev->memory - used[dev->at])
        return false;
    used[dev->at] += len;
    return true;
}

CUresult soft_mem_charge(struct soft_dev *dev, uint64_t len)
{
    pthread_mutex_lock(&soft_mem_lock);
    bool ok = charge(dev, len);
    pthread_mutex_unlock(&soft_mem_lock);
    return ok ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

void soft_mem_credit(struct soft_dev *dev, uint64_t len)
{
    pthread_mutex_lock(&soft_mem_lock);
    used[dev->at] -= len;
    pthread_mutex_unlock(&soft_mem_lock);
}

uint64_t soft_mem_used(const struct soft_dev *dev)
{
    pthread_mutex_lock(&soft_mem_lock);
    uint64_t n = used[dev->at];
    pthread_mutex_unlock(&soft_mem_lock);
    return n;
}

/* ---- chunks of address space ---- */

void soft_page_set(uint64_t base, uint64_t len, unsigned int access)
{
    pthread_mutex_lock(&soft_mem_lock);
    soft_arena_mark(base, len, access);
    pthread_mutex_unlock(&soft_mem_lock);
}

/* A chunk run of `n`, open for the host, listed in the heap. */
static struct chunk *chunk_new(struct soft_heap *heap, uint32_t n, uint64_t align, int kind)
{
    struct chunk *chunk = calloc(1, sizeof(*chunk));
    uint32_t at;
    if (!chunk || !soft_arena_take(n, align, &at)) {
        free(chunk);
        return NULL;
    }
    if (!soft_arena_open(at, n)) {
        soft_arena_give(at, n);
        free(chunk);
        return NULL;
    }
    chunk->kind = kind;
    chunk->base = soft_mem.base + ((uint64_t)at << SOFT_CHUNK_SHIFT);
    chunk->chunk_n = n;
    chunk->heap = heap;
    chunk->next = heap->chunks;
    chunk->prev = &heap->chunks;
    if (chunk->next)
        chunk->next->prev = &chunk->next;
    heap->chunks = chunk;
    for (uint32_t i = 0; i < n; i++)
        soft_chunk_of[at + i] = chunk;
    return chunk;
}

static void chunk_drop(struct chunk *chunk)
{
    uint32_t at = soft_chunk_at(chunk->base);
    for (uint32_t i = 0; i < chunk->chunk_n; i++)
        soft_chunk_of[at + i] = NULL;
    *chunk->prev = chunk->next;
    if (chunk->next)
        chunk->next->prev = chunk->prev;
    soft_arena_give(at, chunk->chunk_n);
    free(chunk->small);
    free(chunk);
}

/* ---- large ---- */

static uint64_t large_charge(uint64_t len)
{
    return (len + PAGE - 1) & ~(PAGE - 1);
}

static struct chunk *large_alloc(struct soft_heap *heap, uint64_t len, uint64_t align)
{
    uint64_t n = (len + PAGE + SOFT_CHUNK - 1) >> SOFT_CHUNK_SHIFT;
    if (n > UINT32_MAX || !charge(heap->dev, large_charge(len)))
        return NULL;
    struct chunk *chunk = chunk_new(heap, (uint32_t)n, align, CHUNK_LARGE);
    if (!chunk) {
        used[heap->dev->at] -= large_charge(len);
        return NULL;
    }
    chunk->len = len;
    if (len >= 2 * SOFT_CHUNK)
        madvise((void *)chunk->base, n << SOFT_CHUNK_SHIFT, MADV_HUGEPAGE);
    soft_arena_mark(chunk->base, len, SOFT_PAGE_READ | SOFT_PAGE_WRITE);
    return chunk;
}

static void large_free(struct chunk *chunk)
{
    used[chunk->heap->dev->at] -= large_charge(chunk->len);
    soft_arena_mark(chunk->base, chunk->len, 0);
    if (chunk->len > KEEP_MAX)
        madvise((void *)chunk->base, (uint64_t)chunk->chunk_n << SOFT_CHUNK_SHIFT, MADV_DONTNEED);
    chunk_drop(chunk);
}

/* ---- small ---- */

static uint32_t units_of(uint64_t len)
{
    return (uint32_t)((len + (1 << UNIT_SHIFT) - 1) >> UNIT_SHIFT);
}

/* The first run of n free units that starts at a multiple of `step`; UNITS: none. */
static uint32_t small_find(struct small *small, uint32_t n, uint32_t step)
{
    uint32_t longest = 0, run = 0;
    if (small->free_n < n || small->longest < n)
        return UNITS;
    for (uint32_t i = 0; i < UNITS; i++) {
        if (small->unit[i].used) {
            run = 0;
            continue;
        }
        if (++run > longest)
            longest = run;
        uint32_t first = (i + 1 - run + step - 1) / step * step;
        if (first + n <= i + 1)
            return first;
    }
    small->longest = longest;
    return UNITS;
}

static void small_take(struct chunk *chunk, uint32_t first, uint32_t n)
{
    struct small *small = chunk->small;
    for (uint32_t i = first; i < first + n; i++) {
        small->unit[i] = (struct unit){.used = true};
        if (small->page_n[i / UNITS_PER_PAGE]++ == 0)
            soft_arena_mark(chunk->base + (uint64_t)i * (1 << UNIT_SHIFT), 1,
                            SOFT_PAGE_READ | SOFT_PAGE_WRITE);
    }
    small->unit[first].first = true;
    small->free_n -= n;
}

static struct chunk *small_chunk(struct soft_heap *heap)
{
    struct small *small = calloc(1, sizeof(*small));
    struct chunk *chunk = small ? chunk_new(heap, 1, 1, CHUNK_SMALL) : NULL;
    if (!chunk) {
        free(small);
        return NULL;
    }
    small->free_n = small->longest = UNITS;
    chunk->small = small;
    return chunk;
}

static struct chunk *small_alloc(struct soft_heap *heap, uint64_t len, uint64_t align,
                                 uint32_t *first_out)
{
    uint32_t n = units_of(len), step = units_of(align), first = UNITS;
    uint64_t cost = (uint64_t)n << UNIT_SHIFT;
    struct chunk *chunk = heap->chunks;
    if (!charge(heap->dev, cost))
        return NULL;
    for (; chunk; chunk = chunk->next) {
        first = chunk->kind == CHUNK_SMALL ? small_find(chunk->small, n, step) : (uint32_t)UNITS;
        if (first != UNITS)
            break;
    }
    if (!chunk) {
        chunk = small_chunk(heap);
        first = 0;
    }
    if (!chunk) {
        used[heap->dev->at] -= cost;
        return NULL;
    }
    small_take(chunk, first, n);
    chunk->small->unit[first].len = (uint32_t)len;
    *first_out = first;
    return chunk;
}

static void small_free(struct chunk *chunk, uint32_t first)
{
    struct small *small = chunk->small;
    uint32_t n = units_of(small->unit[first].len);
    for (uint32_t i = first; i < first + n; i++) {
        small->unit[i] = (struct unit){0};
        if (--small->page_n[i / UNITS_PER_PAGE] == 0)
            soft_arena_mark(chunk->base + (uint64_t)i * (1 << UNIT_SHIFT), 1, 0);
    }
    small->free_n += n;
    small->longest = UNITS;
    used[chunk->heap->dev->at] -= (uint64_t)n << UNIT_SHIFT;
    if (small->free_n == UNITS)
        chunk_drop(chunk);
}

/* ---- the allocator's face ---- */

CUresult soft_heap_alloc(struct soft_heap *heap, size_t len, size_t align, unsigned int flags,
                         uint64_t pool, CUdeviceptr *addr_out)
{
    if (len == 0 || (align & (align - 1)))
        return CUDA_ERROR_INVALID_VALUE;
    if (align < (1 << UNIT_SHIFT))
        align = 1 << UNIT_SHIFT;
    uint64_t id = soft_next_id();
    struct chunk *chunk;
    pthread_mutex_lock(&soft_mem_lock);
    if (len < SMALL_MAX && align < SMALL_MAX) {
        uint32_t first = 0;
        chunk = small_alloc(heap, len, align, &first);
        if (chunk) {
            struct unit *unit = &chunk->small->unit[first];
            unit->id = id;
            unit->pool = pool;
            unit->flags = (uint16_t)flags;
            *addr_out = chunk->base + ((uint64_t)first << UNIT_SHIFT);
        }
    } else {
        chunk = len > soft_mem.len ? NULL : large_alloc(heap, len, align);
        if (chunk) {
            chunk->id = id;
            chunk->pool = pool;
            chunk->flags = flags;
            *addr_out = chunk->base;
        }
    }
    pthread_mutex_unlock(&soft_mem_lock);
    return chunk ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static uint32_t small_first(const struct chunk *chunk, uint64_t addr)
{
    uint32_t i = (uint32_t)((addr - chunk->base) >> UNIT_SHIFT);
    if (!chunk->small->unit[i].used)
        return UNITS;
    while (!chunk->small->unit[i].first)
        i--;
    return i;
}

static uint64_t unit_addr(const struct chunk *chunk, uint32_t first)
{
    return chunk->base + ((uint64_t)first << UNIT_SHIFT);
}

CUresult soft_heap_free(CUdeviceptr addr)
{
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&soft_mem_lock);
    struct chunk *chunk = soft_chunk_find(addr);
    if (chunk && chunk->kind == CHUNK_LARGE && chunk->base == addr) {
        large_free(chunk);
        result = CUDA_SUCCESS;
    } else if (chunk && chunk->kind == CHUNK_SMALL) {
        uint32_t first = small_first(chunk, addr);
        if (first != UNITS && unit_addr(chunk, first) == addr) {
            small_free(chunk, first);
            result = CUDA_SUCCESS;
        }
    }
    pthread_mutex_unlock(&soft_mem_lock);
    return result;
}

CUresult soft_mem_mark(CUdeviceptr addr, unsigned int flag)
{
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&soft_mem_lock);
    struct chunk *chunk = soft_chunk_find(addr);
    if (chunk && chunk->kind == CHUNK_LARGE && chunk->base == addr && !(chunk->flags & flag)) {
        chunk->flags |= flag;
        result = CUDA_SUCCESS;
    } else if (chunk && chunk->kind == CHUNK_SMALL) {
        uint32_t first = small_first(chunk, addr);
        if (first != UNITS && unit_addr(chunk, first) == addr &&
            !(chunk->small->unit[first].flags & flag)) {
            chunk->small->unit[first].flags |= (uint16_t)flag;
            result = CUDA_SUCCESS;
        }
    }
    pthread_mutex_unlock(&soft_mem_lock);
    return result;
}

bool soft_mem_find(uint64_t addr, struct soft_range *out)
{
    bool found = false;
    pthread_mutex_lock(&soft_mem_lock);
    struct chunk *chunk = soft_chunk_find(addr);
    if (chunk && chunk->kind == CHUNK_RESERVED) {
        found = soft_reserve_find(chunk->reserve, addr, out);
    } else if (chunk && chunk->kind == CHUNK_LARGE && addr - chunk->base < chunk->len) {
        *out = (struct soft_range){.base = chunk->base,
                                   .len = chunk->len,
                                   .id = chunk->id,
                                   .flags = chunk->flags,
                                   .pool = chunk->pool,
                                   .ctx = chunk->heap->ctx,
                                   .dev = chunk->heap->dev};
        found = true;
    } else if (chunk && chunk->kind == CHUNK_SMALL) {
        uint32_t first = small_first(chunk, addr);
        if (first != UNITS && addr - unit_addr(chunk, first) < chunk->small->unit[first].len) {
            const struct unit *unit = &chunk->small->unit[first];
            *out = (struct soft_range){.base = unit_addr(chunk, first),
                                       .len = unit->len,
                                       .id = unit->id,
                                       .flags = unit->flags,
                                       .pool = unit->pool,
                                       .ctx = chunk->heap->ctx,
                                       .dev = chunk->heap->dev};
            found = true;
        }
    }
    pthread_mutex_unlock(&soft_mem_lock);
    return found;
}

bool soft_any_find(uint64_t addr, struct soft_range *out)
{
    return soft_is_device(addr) ? soft_mem_find(addr, out) : soft_host_find(addr, out);
}

CUresult soft_mem_check(uint64_t addr, uint64_t len, unsigned int want)
{
    struct soft_range range;
    if (!soft_is_device(addr))
        return addr + len < addr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    if (!soft_mem_find(addr, &range))
        return CUDA_ERROR_INVALID_VALUE;
    if (!(range.flags & SOFT_MEM_VMM))
        return len > range.base + range.len - addr ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    return soft_pieces_allow(-1, addr, len, soft_chaos.on ? 0 : want) ? CUDA_SUCCESS
                                                                      : CUDA_ERROR_INVALID_VALUE;
}

bool soft_mem_reach(const struct soft_dev *dev, uint64_t addr, uint64_t len, unsigned int want)
{
    struct soft_range range;
    if (!soft_is_device(addr))
        return true;
    if (!soft_mem_find(addr, &range))
        return false;
    if (!(range.flags & SOFT_MEM_VMM))
        return len <= range.base + range.len - addr;
    return soft_pieces_allow(soft_chaos.on && dev ? dev->at : -1, addr, len, want);
}

CUresult soft_mem_alloc(size_t len, size_t align, CUdeviceptr *addr_out)
{
    return soft_heap_alloc(my_heap ? my_heap : &first_heap, len, align, SOFT_MEM_MODULE, 0,
                           addr_out);
}

CUresult soft_mem_free(CUdeviceptr addr)
{
    return soft_heap_free(addr);
}

void soft_heap_use(struct soft_heap *heap)
{
    my_heap = heap;
}

struct soft_heap *soft_heap_new(struct soft_dev *dev, struct soft_ctx *ctx)
{
    struct soft_heap *heap = calloc(1, sizeof(*heap));
    if (heap)
        *heap = (struct soft_heap){.dev = dev, .ctx = ctx};
    return heap;
}

static bool chunk_find_flag(struct chunk *chunk, unsigned int flag, uint64_t *at_out)
{
    *at_out = chunk->base;
    if (chunk->kind == CHUNK_LARGE)
        return chunk->flags & flag;
    for (uint32_t i = 0; i < UNITS; i++) {
        if (!chunk->small->unit[i].first || !(chunk->small->unit[i].flags & flag))
            continue;
        *at_out = unit_addr(chunk, i);
        return true;
    }
    return false;
}

bool soft_heap_find(struct soft_heap *heap, unsigned int flag, uint64_t *at_out)
{
    bool found = false;
    pthread_mutex_lock(&soft_mem_lock);
    for (struct chunk *chunk = heap->chunks; chunk && !found; chunk = chunk->next)
        found = chunk_find_flag(chunk, flag, at_out);
    pthread_mutex_unlock(&soft_mem_lock);
    return found;
}

static void small_clear(struct chunk *chunk)
{
    for (uint32_t i = 0; i < UNITS; i++) {
        bool last = chunk->small->unit[i].first &&
                    chunk->small->free_n + units_of(chunk->small->unit[i].len) == UNITS;
        if (chunk->small->unit[i].first)
            small_free(chunk, i);
        if (last)
            return;
    }
}

void soft_heap_clear(struct soft_heap *heap)
{
    pthread_mutex_lock(&soft_mem_lock);
    while (heap->chunks) {
        if (heap->chunks->kind == CHUNK_LARGE)
            large_free(heap->chunks);
        else
            small_clear(heap->chunks);
    }
    pthread_mutex_unlock(&soft_mem_lock);
}
