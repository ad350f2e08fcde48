/* Device memory without a round trip.  A window is a range of addresses that this process and the
 * executor have both reserved; a lease is those chunks of it that the executor has backed with
 * memory, cut into blocks here.  A block that is freed is in quarantine until the streams that
 * were busy have passed.
 *
 * Everything about a device's lease is guarded by its lock, tfr_lease.lock.  Memory that the driver
 * placed by itself (no window) has no block. */
#ifndef TFR_INTERCEPT_LEASE_H
#define TFR_INTERCEPT_LEASE_H

#include "intercept/memory.h"
#include "intercept/stream.h"

enum {
    TFR_LEASE_ALIGN = 512,
    TFR_LEASE_BINS = 256,
    TFR_LEASE_GROW = 64 << 20, /* growth ahead of need, at most */
};

/* Streams as they were at one moment; passed once each word has reached its seq. */
struct tfr_ticket {
    struct tfr_ticket *next; /* while unused */
    uint32_t refs, n, room;
    struct tfr_point point[];
};

enum tfr_block_state {
    TFR_BLOCK_FREE,
    TFR_BLOCK_USED,
    TFR_BLOCK_QUARANTINED,
    TFR_BLOCK_CACHED, /* of a pool, freed in stream order */
};

struct tfr_block {
    uint64_t base, len;
    struct tfr_chunk *chunk;             /* NULL: the driver placed it */
    struct tfr_block *before, *after;    /* neighbours in the chunk */
    struct tfr_block *next, **prev_next; /* in a bin, the quarantine or a pool's cache */
    struct tfr_ticket *ticket;           /* QUARANTINED, CACHED */
    struct tfr_pool *pool;
    uint64_t stream; /* CACHED: id of the stream it was freed in */
    enum tfr_block_state state;
    int device;
};

struct tfr_chunk {
    struct tfr_chunk *next; /* by address */
    uint64_t base, len;
    uint64_t idle_since_ns;
    struct tfr_block *first;
};

struct tfr_lease {
    pthread_mutex_t lock;
    enum { TFR_WINDOW_UNKNOWN, TFR_WINDOW_NONE, TFR_WINDOW_OPEN } window;
    int device;
    uint64_t base, len, granularity; /* of the window */
    struct tfr_chunk *chunks;
    uint64_t backed;      /* bytes of all chunks */
    uint64_t free;        /* bytes of free blocks */
    uint64_t idle;        /* bytes of chunks that are one free block */
    uint64_t quarantined; /* bytes */
    uint64_t bin_map[TFR_LEASE_BINS / 64];
    struct tfr_block *bin[TFR_LEASE_BINS];
    struct tfr_block *unused; /* structs */
    struct tfr_block *quarantine, **quarantine_end;
    uint64_t unmarked; /* bytes quarantined since marks were last asked for */
    uint32_t unmarked_n;
    struct tfr_ticket *tickets; /* unused */
    struct tfr_ticket *last;    /* the newest; holds no reference */
    struct tfr_pool *pools;
    struct tfr_pool *pool_default, *pool_current;
};

struct tfr_lease *tfr_lease_of(int device);

/* ---- lease.c: blocks and chunks; no wire, no waiting ---- */

/* Makes it empty, with no window. */
void tfr_lease_reset(struct tfr_lease *lease);

/* A used block of len bytes (a multiple of the alignment), or NULL. */
struct tfr_block *tfr_lease_cut(struct tfr_lease *lease, uint64_t len);

/* The block is free: it joins its free neighbours. */
void tfr_lease_join(struct tfr_lease *lease, struct tfr_block *block);

/* Memory was added at an address, or false: no memory for the books. */
bool tfr_lease_add(struct tfr_lease *lease, uint64_t base, uint64_t len);

/* Forgets a chunk that is idle. */
void tfr_lease_remove(struct tfr_lease *lease, struct tfr_chunk *chunk);

/* An address in the window where len more bytes fit, or 0. */
uint64_t tfr_lease_place(const struct tfr_lease *lease, uint64_t len);

/* A used block at an address that the driver chose: in no chunk.  NULL: no memory. */
struct tfr_block *tfr_block_loose(struct tfr_lease *lease, uint64_t base, uint64_t len);
void tfr_block_forget(struct tfr_lease *lease, struct tfr_block *block);

static inline bool tfr_chunk_idle(const struct tfr_chunk *chunk)
{
    return chunk->first->state == TFR_BLOCK_FREE && chunk->first->len == chunk->len;
}

void tfr_block_list(struct tfr_block **head, struct tfr_block *block);
void tfr_block_unlist(struct tfr_block *block);

/* ---- quarantine.c ---- */

/* A reference to a ticket with these points; NULL: no memory. */
struct tfr_ticket *tfr_ticket_take(struct tfr_lease *lease, const struct tfr_point *points,
                                   uint32_t n);
void tfr_ticket_drop(struct tfr_lease *lease, struct tfr_ticket *ticket);
bool tfr_ticket_passed(const struct tfr_ticket *ticket);

/* The block keeps its ticket and becomes free some time after that has passed. */
void tfr_quarantine_add(struct tfr_lease *lease, struct tfr_block *block);

/* Frees what has passed: the oldest ones, or all of them. */
void tfr_quarantine_reap(struct tfr_lease *lease, bool all);

/* Lets go of the lock, waits until the ticket has passed, takes it again.  CUDA_SUCCESS, or the
 * session's error. */
CUresult tfr_ticket_wait(struct tfr_lease *lease, struct tfr_ticket *ticket);

/* Waits for the block that has been there longest and reaps; CUDA_ERROR_NOT_FOUND: it is empty. */
CUresult tfr_quarantine_wait(struct tfr_lease *lease);

/* ---- window.c ---- */

/* Agrees on a window with the executor, once per session. */
void tfr_window_open(struct tfr_lease *lease);

/* Bytes that a lease grows by at least, where there is memory. */
uint64_t tfr_lease_step(const struct tfr_lease *lease);

/* Backs at least len more bytes.  Asks the executor. */
CUresult tfr_lease_grow(struct tfr_lease *lease, uint64_t len, bool ahead);

/* Gives idle chunks back: all, or those long idle beyond the low-water mark. */
void tfr_lease_shrink(struct tfr_lease *lease, bool all);

/* Gives the addresses back on this side. */
void tfr_window_close(struct tfr_lease *lease);

/* ---- memory.c ---- */

/* A used block for len bytes.  The lock is held, and may be let go for a while. */
CUresult tfr_memory_take(struct tfr_lease *lease, uint64_t len, struct tfr_block **block_out);

/* Makes an allocation known: a block, or (NULL) an address that the driver chose. */
CUresult tfr_memory_known(struct tfr_context *ctx, uint64_t addr, struct tfr_block *block,
                          uint64_t len);

/* Without a window: the driver places it; then block is NULL or in no chunk. */
CUresult tfr_memory_ask_alloc(uint64_t len, uint64_t *addr_out);

/* Frees what the driver placed, after `waited`, the result of waiting for whoever uses it. */
CUresult tfr_memory_ask_free(const struct tfr_range *range, CUresult waited);

/* Gives back a block that is known no more: it may be used again after the points. */
void tfr_memory_give(struct tfr_block *block, const struct tfr_point *points, uint32_t n);

/* ---- pool.c ---- */

/* The block is none of the pool's any more: it was freed. */
void tfr_pool_leave(struct tfr_block *block);

/* What pools keep goes into quarantine: all of it, or what is above their thresholds. */
void tfr_pool_empty(struct tfr_lease *lease, bool all);

void tfr_pool_forget_all(struct tfr_lease *lease);

/* The pool's handle, for pointer queries. */
CUmemoryPool tfr_pool_handle(const struct tfr_block *block);

#endif
