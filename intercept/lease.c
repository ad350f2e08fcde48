/* The blocks of a lease: which bytes of its chunks are in use.  Called with the lease's lock held;
 * pure bookkeeping.
 *
 * Free blocks lie in bins by size, eight to a power of two, so that taking one is a few loads.  A
 * block never spans chunks: a chunk goes back to the executor whole.  What an allocation and its
 * free cost is mostly here. */
#define TFR_LOG_PART "intercept"
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "intercept/lease.h"

enum { SCAN_MAX = 16, STRUCTS = 64, UNIT_SHIFT = 9 };
static_assert(1 << UNIT_SHIFT == TFR_LEASE_ALIGN, "unit");

static struct tfr_lease leases[TFR_DEVICES_MAX];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void leases_init(void)
{
    for (int i = 0; i < TFR_DEVICES_MAX; i++) {
        pthread_mutex_init(&leases[i].lock, NULL);
        leases[i].device = i;
        leases[i].quarantine_end = &leases[i].quarantine;
    }
}

struct tfr_lease *tfr_lease_of(int device)
{
    pthread_once(&once, leases_init);
    return &leases[device];
}

/* ---- lists ---- */

void tfr_block_list(struct tfr_block **head, struct tfr_block *block)
{
    block->next = *head;
    block->prev_next = head;
    if (block->next)
        block->next->prev_next = &block->next;
    *head = block;
}

void tfr_block_unlist(struct tfr_block *block)
{
    *block->prev_next = block->next;
    if (block->next)
        block->next->prev_next = block->prev_next;
}

/* Bins 0 to 15 hold blocks of that many units, later ones an eighth of a power of two each. */
static uint32_t bin_of(uint64_t len)
{
    uint64_t units = len >> UNIT_SHIFT;
    if (units < 16)
        return (uint32_t)units;
    uint32_t log = 63 - (uint32_t)__builtin_clzll(units);
    uint32_t bin = (log - 2) * 8 + (uint32_t)(units >> (log - 3) & 7);
    return bin < TFR_LEASE_BINS ? bin : TFR_LEASE_BINS - 1;
}

static void bin_add(struct tfr_lease *lease, struct tfr_block *block)
{
    uint32_t bin = bin_of(block->len);
    tfr_block_list(&lease->bin[bin], block);
    lease->bin_map[bin / 64] |= 1ull << (bin % 64);
    lease->free += block->len;
    if (tfr_chunk_idle(block->chunk))
        lease->idle += block->len;
}

static void bin_remove(struct tfr_lease *lease, struct tfr_block *block)
{
    uint32_t bin = bin_of(block->len);
    tfr_block_unlist(block);
    if (!lease->bin[bin])
        lease->bin_map[bin / 64] &= ~(1ull << (bin % 64));
    lease->free -= block->len;
    if (tfr_chunk_idle(block->chunk))
        lease->idle -= block->len;
}

/* ---- blocks ---- */

static struct tfr_block *struct_take(struct tfr_lease *lease)
{
    if (!lease->unused) {
        struct tfr_block *more = malloc(STRUCTS * sizeof *more);
        for (int i = 0; more && i < STRUCTS; i++) {
            more[i].next = lease->unused;
            lease->unused = &more[i];
        }
    }
    struct tfr_block *block = lease->unused;
    if (block) {
        lease->unused = block->next;
        memset(block, 0, sizeof *block);
    }
    return block;
}

static void struct_give(struct tfr_lease *lease, struct tfr_block *block)
{
    block->next = lease->unused;
    lease->unused = block;
}

struct tfr_block *tfr_block_loose(struct tfr_lease *lease, uint64_t base, uint64_t len)
{
    struct tfr_block *block = struct_take(lease);
    if (block)
        *block = (struct tfr_block){
            .base = base, .len = len, .state = TFR_BLOCK_USED, .device = lease->device};
    return block;
}

void tfr_block_forget(struct tfr_lease *lease, struct tfr_block *block)
{
    struct_give(lease, block);
}

static struct tfr_block *fit_in(struct tfr_block *head, uint64_t len, int limit)
{
    for (struct tfr_block *b = head; b && limit--; b = b->next)
        if (b->len >= len)
            return b;
    return NULL;
}

/* The next bin with anything in it, from `bin` on. */
static uint32_t bin_next(const struct tfr_lease *lease, uint32_t bin)
{
    for (uint32_t i = bin / 64; i < TFR_LEASE_BINS / 64; i++) {
        uint64_t bits = lease->bin_map[i];
        if (i == bin / 64)
            bits &= ~0ull << (bin % 64);
        if (bits)
            return i * 64 + (uint32_t)__builtin_ctzll(bits);
    }
    return TFR_LEASE_BINS;
}

/* In its own bin some are too small; in every later one all fit. */
static struct tfr_block *find(const struct tfr_lease *lease, uint64_t len)
{
    uint32_t bin = bin_of(len), later = TFR_LEASE_BINS;
    struct tfr_block *block = fit_in(lease->bin[bin], len, SCAN_MAX);
    if (!block && bin + 1 < TFR_LEASE_BINS)
        later = bin_next(lease, bin + 1);
    if (!block && later < TFR_LEASE_BINS)
        block = lease->bin[later];
    return block ? block : fit_in(lease->bin[bin], len, -1);
}

struct tfr_block *tfr_lease_cut(struct tfr_lease *lease, uint64_t len)
{
    struct tfr_block *block = find(lease, len), *rest = NULL;
    if (!block || (block->len > len && !(rest = struct_take(lease))))
        return NULL;
    bin_remove(lease, block);
    block->state = TFR_BLOCK_USED;
    if (!rest)
        return block;
    *rest = (struct tfr_block){.base = block->base + len,
                               .len = block->len - len,
                               .chunk = block->chunk,
                               .before = block,
                               .after = block->after,
                               .device = lease->device};
    if (rest->after)
        rest->after->before = rest;
    block->after = rest;
    block->len = len;
    bin_add(lease, rest);
    return block;
}

/* `block` takes its neighbour behind it in. */
static void swallow(struct tfr_lease *lease, struct tfr_block *block)
{
    struct tfr_block *after = block->after;
    block->len += after->len;
    block->after = after->after;
    if (block->after)
        block->after->before = block;
    struct_give(lease, after);
}

void tfr_lease_join(struct tfr_lease *lease, struct tfr_block *block)
{
    block->state = TFR_BLOCK_FREE;
    block->pool = NULL;
    if (block->after && block->after->state == TFR_BLOCK_FREE) {
        bin_remove(lease, block->after);
        swallow(lease, block);
    }
    if (block->before && block->before->state == TFR_BLOCK_FREE) {
        block = block->before;
        bin_remove(lease, block);
        swallow(lease, block);
    }
    bin_add(lease, block);
    if (tfr_chunk_idle(block->chunk) && lease->idle > TFR_LEASE_GROW)
        block->chunk->idle_since_ns = tfr_clock_now();
}

/* ---- chunks ---- */

bool tfr_lease_add(struct tfr_lease *lease, uint64_t base, uint64_t len)
{
    struct tfr_chunk *chunk = calloc(1, sizeof *chunk), **at = &lease->chunks;
    struct tfr_block *block = struct_take(lease);
    if (!chunk || !block) {
        free(chunk);
        if (block)
            struct_give(lease, block);
        return false;
    }
    *block = (struct tfr_block){.base = base, .len = len, .chunk = chunk, .device = lease->device};
    chunk->base = base;
    chunk->len = len;
    chunk->first = block;
    while (*at && (*at)->base < base)
        at = &(*at)->next;
    chunk->next = *at;
    *at = chunk;
    lease->backed += len;
    bin_add(lease, block);
    return true;
}

void tfr_lease_remove(struct tfr_lease *lease, struct tfr_chunk *chunk)
{
    struct tfr_chunk **at = &lease->chunks;
    while (*at != chunk)
        at = &(*at)->next;
    *at = chunk->next;
    bin_remove(lease, chunk->first);
    struct_give(lease, chunk->first);
    lease->backed -= chunk->len;
    free(chunk);
}

uint64_t tfr_lease_place(const struct tfr_lease *lease, uint64_t len)
{
    uint64_t from = lease->base;
    for (const struct tfr_chunk *c = lease->chunks; c; c = c->next) {
        if (c->base - from >= len)
            return from;
        from = c->base + c->len;
    }
    return lease->base + lease->len - from >= len ? from : 0;
}

void tfr_lease_reset(struct tfr_lease *lease)
{
    while (lease->chunks) {
        struct tfr_chunk *chunk = lease->chunks;
        lease->chunks = chunk->next;
        for (struct tfr_block *b = chunk->first, *after; b; b = after) {
            after = b->after;
            if (b->ticket)
                tfr_ticket_drop(lease, b->ticket);
            struct_give(lease, b);
        }
        free(chunk);
    }
    memset(lease->bin, 0, sizeof lease->bin);
    memset(lease->bin_map, 0, sizeof lease->bin_map);
    lease->quarantine = NULL;
    lease->quarantine_end = &lease->quarantine;
    lease->backed = lease->free = lease->idle = lease->quarantined = 0;
    lease->unmarked = lease->unmarked_n = 0;
    lease->base = lease->len = lease->granularity = 0;
    lease->window = TFR_WINDOW_UNKNOWN;
}
