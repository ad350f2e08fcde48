/* The arena's address space, for devmem.c alone, which calls everything here under its lock. */
#ifndef TFR_SOFTGPU_ARENA_H
#define TFR_SOFTGPU_ARENA_H

#include "executor/softgpu/soft.h"

struct chunk;
extern struct chunk **soft_chunk_of; /* per 2 MiB: devmem.c's; NULL: free */

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

#endif
