/* Address space of reservations (cuMemAddressReserve) and what is mapped there, as far as the rest
 * of memory has to know it: taken from the arena here, filled by vmm.c, asked by every copy.  All
 * under devmem's lock. */
#include "executor/softgpu/arena.h"

#include <stdlib.h>

bool soft_reserve_find(const struct soft_reserve *reserve, uint64_t addr, struct soft_range *out)
{
    const struct soft_piece *piece = &reserve->piece[(addr - reserve->base) >> SOFT_CHUNK_SHIFT];
    if (!piece->phys)
        return false;
    *out = (struct soft_range){
        .base = reserve->base + ((uint64_t)piece->first << SOFT_CHUNK_SHIFT),
        .len = (uint64_t)piece->n << SOFT_CHUNK_SHIFT,
        .id = piece->id,
        .flags = SOFT_MEM_VMM,
        .dev = piece->dev,
    };
    return true;
}

void soft_piece_put(struct soft_piece *first, uint32_t n, const struct soft_piece *like)
{
    pthread_mutex_lock(&soft_mem_lock);
    for (uint32_t i = 0; i < n; i++)
        first[i] = *like;
    pthread_mutex_unlock(&soft_mem_lock);
}

bool soft_pieces_allow(int dev, uint64_t addr, uint64_t len, unsigned int want)
{
    pthread_mutex_lock(&soft_mem_lock);
    struct chunk *chunk = soft_chunk_find(addr);
    const struct soft_reserve *r = chunk && chunk->kind == CHUNK_RESERVED ? chunk->reserve : NULL;
    bool ok = r && len <= r->base + r->len - addr;
    uint64_t i = ok ? (addr - r->base) >> SOFT_CHUNK_SHIFT : 0;
    uint64_t last = ok ? (addr + len - 1 - r->base) >> SOFT_CHUNK_SHIFT : 0;
    for (; ok && i <= last; i++) {
        const struct soft_piece *piece = &r->piece[i];
        unsigned int has = dev < 0 ? soft_piece_any(piece) : soft_piece_access(piece, dev);
        ok = piece->phys && (has & want) == want;
    }
    pthread_mutex_unlock(&soft_mem_lock);
    return ok;
}

static bool hold(uint32_t at, uint32_t n)
{
    if (soft_arena_hold(at, n))
        return true;
    soft_arena_give(at, n);
    return false;
}

static bool space_take(uint32_t n, uint64_t align, uint64_t hint, uint32_t *at_out)
{
    bool refused = soft_chaos.on && soft_chaos_next() & 1;
    if (hint && !refused && soft_is_device(hint) && (hint & (SOFT_CHUNK - 1)) == 0) {
        *at_out = soft_chunk_at(hint);
        if (soft_arena_take_at(*at_out, n) && hold(*at_out, n))
            return true;
    }
    return soft_arena_take(n, align, at_out) && hold(*at_out, n);
}

bool soft_space_take(struct soft_reserve *reserve, uint64_t align, uint64_t hint)
{
    uint32_t at = 0, n = (uint32_t)(reserve->len >> SOFT_CHUNK_SHIFT);
    struct chunk *chunk = calloc(1, sizeof(*chunk));
    if (!chunk)
        return false;
    pthread_mutex_lock(&soft_mem_lock);
    bool ok = space_take(n, align, hint, &at);
    if (ok) {
        reserve->base = soft_mem.base + ((uint64_t)at << SOFT_CHUNK_SHIFT);
        *chunk = (struct chunk){
            .kind = CHUNK_RESERVED, .base = reserve->base, .chunk_n = n, .reserve = reserve};
        for (uint32_t i = 0; i < n; i++)
            soft_chunk_of[at + i] = chunk;
    } else {
        free(chunk);
    }
    pthread_mutex_unlock(&soft_mem_lock);
    return ok;
}

void soft_space_give(struct soft_reserve *reserve)
{
    pthread_mutex_lock(&soft_mem_lock);
    uint32_t at = soft_chunk_at(reserve->base), n = (uint32_t)(reserve->len >> SOFT_CHUNK_SHIFT);
    free(soft_chunk_of[at]);
    for (uint32_t i = 0; i < n; i++) {
        soft_chunk_of[at + i] = NULL;
    }
    soft_arena_let_go(at, n);
    soft_arena_give(at, n);
    pthread_mutex_unlock(&soft_mem_lock);
}

struct soft_reserve *soft_space_owner(uint64_t addr)
{
    pthread_mutex_lock(&soft_mem_lock);
    struct chunk *chunk = soft_chunk_find(addr);
    struct soft_reserve *reserve = chunk && chunk->kind == CHUNK_RESERVED ? chunk->reserve : NULL;
    pthread_mutex_unlock(&soft_mem_lock);
    return reserve;
}
