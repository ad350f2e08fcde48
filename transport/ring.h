/* One-way stream of records.  The ring lies in the reader's memory; the writer assigns records in
 * place (over shm the ring itself, else a registered shadow that put() carries over).
 *
 * Layout of the shown area: one cache line of control (tail, written by the writer), one line
 * reserved, then `size` bytes of data (a power of two).  Positions are free-running 64-bit byte counts, masked
 * on use.  The reader's position (head) returns through a word in the writer's memory (the feedback
 * page), stored by quarters of the ring or when the reader goes idle.
 *
 * Threads: one writer at a time (the caller's lock), one reader at a time. */
#ifndef TFR_TRANSPORT_RING_H
#define TFR_TRANSPORT_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/rec.h"
#include "transport/transport.h"

struct tfr_ring_ctl {
    _Alignas(64) _Atomic uint64_t tail; /* bytes published; pairs with the acquire in tfr_ring_rx_peek */
    _Alignas(64) uint64_t reserved[8];
};
#define TFR_RING_AREA(size) (sizeof(struct tfr_ring_ctl) + (size_t)(size))

struct tfr_ring_tx {
    uint8_t *data;                  /* where records are assigned: the ring or its shadow */
    uint64_t mask, size;
    uint64_t tail;                  /* bytes written (reserved and committed) */
    uint64_t published;             /* bytes the reader may see */
    uint64_t head_seen;             /* last credit read */
    uint64_t seq;                   /* of the last record */
    const _Atomic uint64_t *head;   /* credit word in our memory */
    _Atomic uint64_t *remote_tail;  /* CAP_MAPPED: stored directly, else NULL */
    struct tfr_link *link;
    struct tfr_peer_mem *peer;      /* the area in the reader's memory */
    uint64_t peer_at;
    struct tfr_mem *shadow_mem;     /* NULL over shm */
    void *shadow;
};

/* `peer_at` is the area's offset inside the imported memory.  size: power of two, >= 4096. */
tfr_status tfr_ring_tx_init(struct tfr_ring_tx *tx, struct tfr_dev *dev, struct tfr_link *link,
                            struct tfr_peer_mem *peer, uint64_t peer_at, uint64_t size,
                            const _Atomic uint64_t *head);
void tfr_ring_tx_fini(struct tfr_ring_tx *tx);

/* Largest record: an eighth of the ring. */
static inline uint64_t tfr_ring_rec_max(const struct tfr_ring_tx *tx)
{
    return tx->size / 8;
}

/* Room for a record of `size` bytes (rounded up to 16), with head filled in (size, op, ctx, seq), or
 * NULL: no credit; nothing was reserved.  The caller assigns the body and commits before anything else. */
struct tfr_rec *tfr_ring_reserve(struct tfr_ring_tx *tx, uint32_t size, uint16_t op, uint16_t ctx);

/* Ends the record; over shm it is published at once (release store and bell), else it gathers until flush. */
tfr_status tfr_ring_commit(struct tfr_ring_tx *tx);

/* Publishes what has gathered.  TFR_AGAIN: the link has no room now. */
tfr_status tfr_ring_flush(struct tfr_ring_tx *tx);

struct tfr_ring_rx {
    const struct tfr_ring_ctl *ctl;
    const uint8_t *data;
    uint64_t mask, size;
    uint64_t head;      /* bytes consumed */
    uint64_t tail_seen;
    uint64_t returned;  /* head as last given back */
    uint64_t seq;       /* of the last record taken: the next must be seq + 1 */
};

/* area: TFR_RING_AREA(size) bytes of our own, zeroed. */
void tfr_ring_rx_init(struct tfr_ring_rx *rx, void *area, uint64_t size);

/* The next record in *rec_out, copied whole into buf (rec_max bytes: size/8) before any field is looked
 * at twice.  TFR_AGAIN: nothing there.  TFR_E_PROTO: malformed (size, alignment, order): the link is done.
 * The record is consumed. */
tfr_status tfr_ring_take(struct tfr_ring_rx *rx, void *buf, struct tfr_rec **rec_out);

/* True if a record is there; no side effect. */
bool tfr_ring_ready(struct tfr_ring_rx *rx);

/* True when head should be returned to the writer now: a quarter was consumed since the last time. */
static inline bool tfr_ring_due(const struct tfr_ring_rx *rx)
{
    return rx->head - rx->returned >= rx->size / 4;
}

#endif
