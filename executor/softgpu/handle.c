/* The handle table.  A handle is 16 * slot + generation and kind above it, never an address: a
 * program that keeps a destroyed handle or invents one gets CUDA_ERROR_INVALID_HANDLE and no crash.
 * Look-ups take no lock: slots live in blocks that are never freed. */
#include "executor/softgpu/soft.h"

#include <stdlib.h>

enum { BLOCK_SHIFT = 12, BLOCK = 1 << BLOCK_SHIFT, BLOCKS = 4096, GEN_MASK = 0xffff };

struct slot {
    _Atomic uint64_t
        handle; /* 0: free; release after obj, pairs with the acquire in soft_handle_get */
    void *_Atomic obj;
    uint32_t gen, next_free;
};

static struct slot *_Atomic blocks[BLOCKS];
static pthread_mutex_t table_lock =
    PTHREAD_MUTEX_INITIALIZER; /* slot_n, free_head, gen, next_free */
static uint32_t slot_n = 1, free_head;

static struct slot *slot_at(uint32_t at)
{
    struct slot *block = atomic_load_explicit(&blocks[at >> BLOCK_SHIFT], memory_order_acquire);
    return block ? &block[at & (BLOCK - 1)] : NULL;
}

static uint32_t slot_new(void)
{
    if (free_head) {
        uint32_t at = free_head;
        free_head = slot_at(at)->next_free;
        return at;
    }
    if (slot_n == (uint32_t)BLOCKS * BLOCK)
        return 0;
    if (!slot_at(slot_n)) {
        struct slot *block = calloc(BLOCK, sizeof(*block));
        if (!block)
            return 0;
        atomic_store_explicit(&blocks[slot_n >> BLOCK_SHIFT], block, memory_order_release);
    }
    return slot_n++;
}

uint64_t soft_handle_add(enum soft_kind kind, void *obj)
{
    uint64_t handle = 0;
    pthread_mutex_lock(&table_lock);
    uint32_t at = slot_new();
    if (at) {
        struct slot *slot = slot_at(at);
        slot->gen = (slot->gen + 1) & GEN_MASK;
        handle = (uint64_t)kind << 44 | (uint64_t)slot->gen << 28 | (uint64_t)at << 4;
        atomic_store_explicit(&slot->obj, obj, memory_order_relaxed);
        atomic_store_explicit(&slot->handle, handle, memory_order_release);
    }
    pthread_mutex_unlock(&table_lock);
    return handle;
}

void soft_handle_del(uint64_t handle)
{
    uint32_t at = (uint32_t)(handle >> 4) & 0xffffff;
    pthread_mutex_lock(&table_lock);
    struct slot *slot = slot_at(at);
    if (slot && atomic_load_explicit(&slot->handle, memory_order_relaxed) == handle && handle) {
        atomic_store_explicit(&slot->handle, 0, memory_order_release);
        slot->next_free = free_head;
        free_head = at;
    }
    pthread_mutex_unlock(&table_lock);
}

void *soft_handle_get(uint64_t handle, enum soft_kind kind)
{
    if (handle >> 44 != (uint64_t)kind || (handle & 15))
        return NULL;
    struct slot *slot = slot_at((uint32_t)(handle >> 4) & 0xffffff);
    if (!slot || atomic_load_explicit(&slot->handle, memory_order_acquire) != handle)
        return NULL;
    return atomic_load_explicit(&slot->obj, memory_order_relaxed);
}
