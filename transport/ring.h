/* One-way stream of records.  The ring lies in the reader's memory; the writer assigns records in
 * place (over shm the ring itself, else a registered shadow that put() carries over).
 *
 * Layout of the shown area: one cache line of control (tail, written by the writer), one line
 * reserved, then `size` bytes of data (a power of two).  Positions are free-running 64-bit byte
 * counts, masked on use.  The reader's position (head) returns through a word in the writer's
 * memory (the feedback page), stored by quarters of the ring or when the reader goes idle.
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
    /* bytes published; pairs with the acquire in tfr_ring_ready */
    _Alignas(64) _Atomic uint64_t tail;
    _Alignas(64) uint64_t reserved[8];
};
#define TFR_RING_AREA(size) (sizeof(struct tfr_ring_ctl) + (size_t)(size))

/* Where there is no mapping: our copy of the ring, and the puts under way. */
struct tfr_ring_shadow;

struct tfr_ring_tx {
    uint8_t *data; /* where records are assigned: the ring or its shadow */
    uint64_t mask, size;
    uint64_t tail;  /* bytes reserved; all but the newest record are committed */
    uint64_t limit; /* records may be assigned in place up to here: credit and wrap */
    uint64_t seq;   /* of the last record */
    _Atomic uint64_t *remote_tail; /* CAP_MAPPED: stored directly, else NULL */
    struct tfr_link *link;
    uint64_t published;           /* bytes the reader may see */
    uint64_t sent;                /* bytes put, the news of which may still be to come */
    uint64_t head_seen;           /* last credit read */
    uint64_t freed;               /* bytes whose place may be assigned again: credit and done */
    const _Atomic uint64_t *head; /* credit word in our memory, written by the peer */
    struct tfr_peer_mem *peer;    /* the area in the reader's memory */
    uint64_t peer_at;
    struct tfr_ring_shadow *shadow; /* NULL over shm */
    tfr_status error;               /* sticky: the peer broke the protocol of credits */
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

/* The cases that are rare: wrap, credit, a record that is too large. */
struct tfr_rec *tfr_ring_reserve_slow(struct tfr_ring_tx *tx, uint64_t size, uint16_t op,
                                      uint16_t ctx);

static inline struct tfr_rec *tfr_ring_assign(struct tfr_ring_tx *tx, uint64_t size, uint16_t op,
                                              uint16_t ctx)
{
    struct tfr_rec *rec = (struct tfr_rec *)(void *)(tx->data + (tx->tail & tx->mask));

    rec->size = (uint32_t)size;
    rec->op = op;
    rec->ctx = ctx;
    rec->seq = ++tx->seq;
    tx->tail += size;
    return rec;
}

/* Room for a record of `size` bytes (rounded up to 16), with head filled in (size, op, ctx, seq),
 * or NULL: no credit (or the link is done: see tfr_ring_flush); nothing was reserved.  The caller
 * assigns the body and commits before anything else.  A caller that waits for room calls progress
 * between tries; what had gathered is flushed by the try itself. */
static inline struct tfr_rec *tfr_ring_reserve(struct tfr_ring_tx *tx, uint32_t size, uint16_t op,
                                               uint16_t ctx)
{
    uint64_t need = ((uint64_t)size + TFR_REC_ALIGN - 1) & ~(uint64_t)(TFR_REC_ALIGN - 1);

    if (__builtin_expect(tx->tail + need > tx->limit || need > tfr_ring_rec_max(tx), 0))
        return tfr_ring_reserve_slow(tx, need, op, ctx);
    return tfr_ring_assign(tx, need, op, ctx);
}

/* Takes back the record that was reserved last and not committed. */
static inline void tfr_ring_cancel(struct tfr_ring_tx *tx, const struct tfr_rec *rec)
{
    tx->tail -= rec->size;
    tx->seq--;
}

/* Ends the record; over shm it is published at once (release store and bell), else it gathers until
 * flush. */
static inline tfr_status tfr_ring_commit(struct tfr_ring_tx *tx)
{
    if (tx->remote_tail) {
        tx->published = tx->tail;
        /* pairs with the acquire in tfr_ring_ready and tfr_ring_take */
        atomic_store_explicit(tx->remote_tail, tx->tail, memory_order_release);
        tx->link->ops->ring(tx->link);
    }
    return TFR_OK;
}

/* Publishes what has gathered.  TFR_AGAIN: the link has no room now (progress, then again). */
tfr_status tfr_ring_flush(struct tfr_ring_tx *tx);

struct tfr_ring_rx {
    const struct tfr_ring_ctl *ctl;
    const uint8_t *data;
    uint64_t mask, size;
    uint64_t head; /* bytes consumed */
    uint64_t tail_seen;
    uint64_t returned; /* head as last given back */
    uint64_t seq;      /* of the last record taken: the next must be seq + 1 */
    tfr_status error;  /* sticky: TFR_E_PROTO, logged once */
};

/* area: TFR_RING_AREA(size) bytes of our own, zeroed. */
void tfr_ring_rx_init(struct tfr_ring_rx *rx, void *area, uint64_t size);

/* The next record in *rec_out, copied whole into buf (rec_max bytes: size/8) before any field is
 * looked at twice.  TFR_AGAIN: nothing there.  TFR_E_PROTO: malformed (size, alignment, order): the
 * link is done. The record is consumed. */
tfr_status tfr_ring_take(struct tfr_ring_rx *rx, void *buf, struct tfr_rec **rec_out);

/* True if a record is there; no side effect. */
bool tfr_ring_ready(struct tfr_ring_rx *rx);

/* True when head should be returned to the writer now: a quarter was consumed since the last time.
 */
static inline bool tfr_ring_due(const struct tfr_ring_rx *rx)
{
    return rx->head - rx->returned >= rx->size / 4;
}

#endif
