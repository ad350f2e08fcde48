/* The arena: one range of addresses, dealt out in chunks of 2 MiB, with a table of page marks
 * beside it.  Only addresses: memory comes with the first touch, capacity is devmem.c's accounting.
 * The first quarter, the zone, is left unmapped for reservations that ask for their address;
 * nothing else is placed there, so that a client and an executor can agree on a window. */
#include "executor/softgpu/arena.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Where neither libraries nor heaps of a client lie. */
#define ARENA_HINT ((void *)0x200000000000)
#define ARENA_MAX  (1ull << 40)
#define ARENA_MIN  (1ull << 33)

struct extent {
    uint32_t at, n;
};

struct soft_mem soft_mem;
struct chunk **soft_chunk_of;
static uint8_t *pages;
static uint8_t *writable;   /* per chunk: the host mapping is already read-write */
static struct extent *gaps; /* free chunks, by address */
static uint32_t gap_n, gap_cap;
static uint32_t zone_n; /* the first chunks are only for reservations that ask for their address */

static void *table_new(size_t len)
{
    void *at =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

CUresult soft_arena_map(void)
{
    uint64_t len = ARENA_MAX;
    void *at = MAP_FAILED;
    /* Chaos: with every fourth seed among the libraries, where a client has its own. */
    void *hint = soft_chaos.on && soft_chaos.seed % 4 == 3 ? NULL : ARENA_HINT;
    for (; at == MAP_FAILED && len >= ARENA_MIN; len /= 2) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        at = mmap(hint, len + SOFT_CHUNK, PROT_NONE, flags, -1, 0);
        if (at != MAP_FAILED)
            break;
    }
    if (at == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    madvise(at, len + SOFT_CHUNK, MADV_DONTDUMP);
    uint64_t base = ((uint64_t)at + SOFT_CHUNK - 1) & ~(SOFT_CHUNK - 1);
    uint64_t n = len >> SOFT_CHUNK_SHIFT;
    pages = table_new(len >> SOFT_PAGE_SHIFT);
    /* Not table_new: leak checkers look inside. */
    soft_chunk_of = calloc(n, sizeof(*soft_chunk_of));
    writable = table_new(n);
    gaps = malloc(64 * sizeof(*gaps));
    if (!pages || !soft_chunk_of || !writable || !gaps)
        return CUDA_ERROR_OUT_OF_MEMORY;
    /* Elsewhere the kernel would fill the hole with stacks and libraries, which are no device
     * memory. */
    if (at == ARENA_HINT)
        zone_n = (uint32_t)(n / 4);
    if (zone_n && munmap((void *)base, (uint64_t)zone_n << SOFT_CHUNK_SHIFT))
        return CUDA_ERROR_OPERATING_SYSTEM;
    gap_cap = 64;
    gap_n = 1;
    gaps[0] = (struct extent){0, (uint32_t)n};
    soft_mem = (struct soft_mem){.base = base, .len = len, .page = pages};
    return CUDA_SUCCESS;
}

static bool gap_insert(uint32_t i, struct extent gap)
{
    if (gap_n == gap_cap) {
        struct extent *more = realloc(gaps, 2 * gap_cap * sizeof(*more));
        if (!more)
            return false;
        gaps = more;
        gap_cap *= 2;
    }
    memmove(&gaps[i + 1], &gaps[i], (gap_n - i) * sizeof(*gaps));
    gaps[i] = gap;
    gap_n++;
    return true;
}

/* Takes [at, at+n) out of gap i. */
static bool gap_cut(uint32_t i, uint32_t at, uint32_t n)
{
    struct extent gap = gaps[i];
    uint32_t before = at - gap.at, after = gap.at + gap.n - at - n;
    if (before && after && !gap_insert(i + 1, (struct extent){at + n, after}))
        return false;
    if (before)
        gaps[i] = (struct extent){gap.at, before};
    else if (after)
        gaps[i] = (struct extent){at + n, after};
    else
        memmove(&gaps[i], &gaps[i + 1], (--gap_n - i) * sizeof(*gaps));
    return true;
}

/* Rounds up to a chunk whose address is a multiple of `align`, a power of two. */
static uint64_t chunk_align(uint64_t at, uint64_t align)
{
    uint64_t addr = soft_mem.base + (at << SOFT_CHUNK_SHIFT);
    return (((addr + align - 1) & ~(align - 1)) - soft_mem.base) >> SOFT_CHUNK_SHIFT;
}

/* The first place at chunk `from` or behind it. */
static bool take_behind(uint32_t from, uint32_t n, uint64_t align, uint32_t *at_out)
{
    for (uint32_t i = 0; i < gap_n; i++) {
        uint64_t at = chunk_align(gaps[i].at < from ? from : gaps[i].at, align);
        if (at + n <= (uint64_t)gaps[i].at + gaps[i].n) {
            *at_out = (uint32_t)at;
            return gap_cut(i, (uint32_t)at, n);
        }
    }
    return false;
}

bool soft_arena_take(uint32_t n, uint64_t align, uint32_t *at_out)
{
    uint32_t all = (uint32_t)(soft_mem.len >> SOFT_CHUNK_SHIFT);
    if (align < SOFT_CHUNK)
        align = SOFT_CHUNK;
    uint32_t anywhere = zone_n;
    if (soft_chaos.on)
        anywhere += (uint32_t)(soft_chaos_next() % (all - zone_n));
    return take_behind(anywhere, n, align, at_out) ||
           (anywhere != zone_n && take_behind(zone_n, n, align, at_out));
}

bool soft_arena_take_at(uint32_t at, uint32_t n)
{
    if (at < zone_n && n > zone_n - at)
        return false;
    for (uint32_t i = 0; i < gap_n && gaps[i].at <= at; i++)
        if ((uint64_t)at + n <= (uint64_t)gaps[i].at + gaps[i].n)
            return gap_cut(i, at, n);
    return false;
}

void soft_arena_give(uint32_t at, uint32_t n)
{
    uint32_t lo = 0, hi = gap_n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (gaps[mid].at < at)
            lo = mid + 1;
        else
            hi = mid;
    }
    bool left = lo > 0 && gaps[lo - 1].at + gaps[lo - 1].n == at;
    bool right = lo < gap_n && at + n == gaps[lo].at;
    if (left && right) {
        gaps[lo - 1].n += n + gaps[lo].n;
        memmove(&gaps[lo], &gaps[lo + 1], (--gap_n - lo) * sizeof(*gaps));
    } else if (left) {
        gaps[lo - 1].n += n;
    } else if (right) {
        gaps[lo] = (struct extent){at, gaps[lo].n + n};
    } else if (!gap_insert(lo, (struct extent){at, n})) {
        return; /* lost address space; there is a terabyte of it */
    }
}

void soft_arena_mark(uint64_t base, uint64_t len, unsigned int access)
{
    uint64_t first = (base - soft_mem.base) >> SOFT_PAGE_SHIFT;
    uint64_t last = (base + len - 1 - soft_mem.base) >> SOFT_PAGE_SHIFT;
    for (uint64_t i = first; i <= last; i++)
        if (pages[i] != access)
            pages[i] = (uint8_t)access;
}

bool soft_arena_open(uint32_t at, uint32_t n)
{
    uint32_t i = 0;
    while (i < n && writable[at + i])
        i++;
    if (i == n)
        return true;
    if (mprotect((void *)(soft_mem.base + ((uint64_t)at << SOFT_CHUNK_SHIFT)),
                 (uint64_t)n << SOFT_CHUNK_SHIFT, PROT_READ | PROT_WRITE))
        return false;
    memset(&writable[at], 1, n);
    return true;
}

/* In the zone a reservation is a mapping of its own, and never over somebody else's. */
bool soft_arena_hold(uint32_t at, uint32_t n)
{
    void *base = (void *)(soft_mem.base + ((uint64_t)at << SOFT_CHUNK_SHIFT));
    uint64_t len = (uint64_t)n << SOFT_CHUNK_SHIFT;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    flags |= at < zone_n ? MAP_FIXED_NOREPLACE : MAP_FIXED;
    void *got = mmap(base, len, PROT_NONE, flags, -1, 0);
    if (got != base && got != MAP_FAILED)
        munmap(got, len); /* kernels before 4.17 take the address for a hint */
    return got == base;
}

void soft_arena_let_go(uint32_t at, uint32_t n)
{
    if (at < zone_n)
        munmap((void *)(soft_mem.base + ((uint64_t)at << SOFT_CHUNK_SHIFT)),
               (uint64_t)n << SOFT_CHUNK_SHIFT);
    memset(&writable[at], 0, n);
}
