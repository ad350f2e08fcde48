/* The arena's address space, for devmem.c and space.c alone, which call everything here under
 * soft_mem_lock. */
#ifndef TFR_SOFTGPU_ARENA_H
#define TFR_SOFTGPU_ARENA_H

#include "executor/softgpu/soft.h"

struct small;

struct chunk {
    enum { CHUNK_LARGE, CHUNK_SMALL, CHUNK_RESERVED } kind;
    uint64_t base, len; /* len: as asked for (large) */
    uint32_t chunk_n;
    uint64_t id, pool;
    unsigned int flags;
    struct soft_heap *heap;
    struct soft_reserve *reserve;
    struct small *small;
    struct chunk *next, **prev; /* in the heap */
};

extern struct chunk **soft_chunk_of; /* per 2 MiB: devmem.c's; NULL: free */
extern pthread_mutex_t soft_mem_lock;

static inline uint32_t soft_chunk_at(uint64_t addr)
{
    return (uint32_t)((addr - soft_mem.base) >> SOFT_CHUNK_SHIFT);
}

static inline struct chunk *soft_chunk_find(uint64_t addr)
{
    return soft_is_device(addr) ? soft_chunk_of[soft_chunk_at(addr)] : NULL;
}

CUresult soft_arena_map(void);
/* n chunks at a multiple of `align`, or at a given place.  False: none free. */
bool soft_arena_take(uint32_t n, uint64_t align, uint32_t *at_out);
bool soft_arena_take_at(uint32_t at, uint32_t n);
void soft_arena_give(uint32_t at, uint32_t n);
/* Chunks can be written by the host from now on. */
bool soft_arena_open(uint32_t at, uint32_t n);
/* Addresses taken for a reservation are mapped without access.  False: somebody else is there. */
bool soft_arena_hold(uint32_t at, uint32_t n);
void soft_arena_let_go(uint32_t at, uint32_t n);
/* Page marks: what kernels may do with [base, base+len). */
void soft_arena_mark(uint64_t base, uint64_t len, unsigned int access);

/* space.c: the mapping at addr; false: nothing is mapped there. */
bool soft_reserve_find(const struct soft_reserve *reserve, uint64_t addr, struct soft_range *out);
/* True if mappings cover [addr, addr+len) and dev (-1: any) may do all of `want` there.  Takes the
 * lock. */
bool soft_pieces_allow(int dev, uint64_t addr, uint64_t len, unsigned int want);

#endif
