/* The ring: set-up, the writer's rare cases, and the reader.  Where the peer's memory is not
 * mapped, records gather in a shadow and travel in chunks that never cross the wrap, the tail
 * behind them; a piece of shadow is reused when the reader has given credit and its put is done,
 * because a retransmission may read it later than the reader did. The reader trusts nothing: not
 * the tail, not a size, and no field that it has not copied first. */
#define TFR_LOG_PART "transport"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "transport/ring.h"

enum { SIZE_MIN = 4096, CHUNK_N = 64, CHUNK_MAX = 64 << 10 };

struct chunk {
    uint64_t start;
    _Atomic bool done; /* set by whoever progresses the link */
};

struct tfr_ring_shadow {
    struct tfr_mem *mem;
    size_t len;
    uint32_t first, last; /* chunks under way: [first, last), free-running */
    struct chunk chunks[CHUNK_N];
};

static tfr_status shadow_init(struct tfr_ring_tx *tx, struct tfr_dev *dev)
{
    struct tfr_ring_shadow *shadow = calloc(1, sizeof(*shadow));
    struct tfr_area area = {.kind = TFR_AREA_HOST, .len = (size_t)tx->size, .fd = -1};
    tfr_status status;

    if (!shadow)
        return tfr_fail(TFR_E_NOMEM, "ring shadow");
    area.addr = mmap(NULL, area.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area.addr == MAP_FAILED) {
        status = tfr_fail(TFR_E_NOMEM, "ring shadow of %zu bytes", area.len);
        goto shadow_free;
    }
    madvise(area.addr, area.len, MADV_DONTFORK);
    status = dev->ops->reg(dev, &area, &shadow->mem);
    if (status != TFR_OK)
        goto area_unmap;
    shadow->len = area.len;
    tx->data = area.addr;
    tx->shadow = shadow;
    return TFR_OK;

area_unmap:
    munmap(area.addr, area.len);
shadow_free:
    free(shadow);
    return status;
}

/* Records may be assigned up to the end of the credit or of the ring, whichever comes first. */
static void limit_set(struct tfr_ring_tx *tx)
{
    uint64_t credit = tx->freed + tx->size;
    uint64_t wrap = (tx->tail & ~tx->mask) + tx->size;

    tx->limit = credit < wrap ? credit : wrap;
}

tfr_status tfr_ring_tx_init(struct tfr_ring_tx *tx, struct tfr_dev *dev, struct tfr_link *link,
                            struct tfr_peer_mem *peer, uint64_t peer_at, uint64_t size,
                            const _Atomic uint64_t *head)
{
    uint8_t *area = NULL;
    tfr_status status = TFR_OK;

    if (size < SIZE_MIN || size > UINT32_MAX || (size & (size - 1)) || peer_at % 64 ||
        !tfr_span_inside(peer_at, TFR_RING_AREA(size), peer->len))
        return tfr_fail(TFR_E_INVAL, "ring of %llu bytes", (unsigned long long)size);
    *tx = (struct tfr_ring_tx){
        .mask = size - 1,
        .size = size,
        .head = head,
        .link = link,
        .peer = peer,
        .peer_at = peer_at,
    };
    if (link->ops->caps & TFR_CAP_MAPPED)
        area = link->ops->addr(peer);
    if (area) {
        tx->remote_tail = &((struct tfr_ring_ctl *)(void *)(area + peer_at))->tail;
        tx->data = area + peer_at + sizeof(struct tfr_ring_ctl);
    } else {
        status = shadow_init(tx, dev);
    }
    limit_set(tx);
    return status;
}

void tfr_ring_tx_fini(struct tfr_ring_tx *tx)
{
    struct tfr_ring_shadow *shadow = tx->shadow;

    if (!shadow)
        return;
    shadow->mem->ops->unreg(shadow->mem); /* waits for puts that read the shadow */
    munmap(tx->data, shadow->len);
    free(shadow);
    tx->shadow = NULL;
}

static void chunk_done(void *arg, tfr_status status)
{
    struct chunk *chunk = arg;

    (void)status; /* the link keeps its error */
    /* pairs with the acquire in shadow_free_to */
    atomic_store_explicit(&chunk->done, true, memory_order_release);
}

/* Up to where the shadow may be overwritten as far as our own puts are concerned. */
static uint64_t shadow_free_to(struct tfr_ring_tx *tx)
{
    struct tfr_ring_shadow *shadow = tx->shadow;

    while (
        shadow->first != shadow->last &&
        atomic_load_explicit(&shadow->chunks[shadow->first % CHUNK_N].done, memory_order_acquire))
        shadow->first++;
    return shadow->first == shadow->last ? tx->sent : shadow->chunks[shadow->first % CHUNK_N].start;
}

/* Takes new credit.  The word is the peer's: it must neither go back nor pass what was published.
 */
static void credit_look(struct tfr_ring_tx *tx)
{
    uint64_t head = atomic_load_explicit(tx->head, memory_order_acquire); /* pairs with the put */

    if (head - tx->head_seen > tx->published - tx->head_seen) {
        tx->error = tfr_fail(TFR_E_PROTO, "ring credit of %llu after %llu of %llu bytes",
                             (unsigned long long)head, (unsigned long long)tx->head_seen,
                             (unsigned long long)tx->published);
        return;
    }
    tx->head_seen = head;
    tx->freed = head;
    if (tx->shadow) {
        uint64_t done = shadow_free_to(tx);
        tx->freed = head < done ? head : done;
    }
}

static tfr_status chunk_put(struct tfr_ring_tx *tx)
{
    struct tfr_ring_shadow *shadow = tx->shadow;
    struct chunk *chunk = &shadow->chunks[shadow->last % CHUNK_N];
    uint64_t at = tx->sent & tx->mask;
    uint64_t len = tx->tail - tx->sent;
    struct tfr_xfer xfer = {.local = tx->data + at, .mem = shadow->mem, .peer = tx->peer};
    tfr_status status;

    len = len < tx->size - at ? len : tx->size - at;
    len = len < CHUNK_MAX ? len : CHUNK_MAX;
    xfer.peer_at = tx->peer_at + sizeof(struct tfr_ring_ctl) + at;
    xfer.len = (size_t)len;
    xfer.flags = TFR_XFER_MORE; /* the tail comes behind it */
    if (len > TFR_SMALL_MAX) {
        shadow_free_to(tx);
        if (shadow->last - shadow->first == CHUNK_N)
            return TFR_AGAIN;
        chunk->start = tx->sent;
        atomic_store_explicit(&chunk->done, false, memory_order_relaxed);
        xfer.done = chunk_done;
        xfer.arg = chunk;
        shadow->last++; /* before put: done may run inside it */
    }
    status = tx->link->ops->put(tx->link, &xfer);
    if (status == TFR_OK)
        tx->sent += len;
    else if (len > TFR_SMALL_MAX)
        shadow->last--;
    return status;
}

tfr_status tfr_ring_flush(struct tfr_ring_tx *tx)
{
    struct tfr_xfer news = {
        .flags = TFR_XFER_AFTER | TFR_XFER_BELL,
        .local = &tx->tail,
        .peer = tx->peer,
        .peer_at = tx->peer_at + offsetof(struct tfr_ring_ctl, tail),
        .len = sizeof(tx->tail),
    };
    tfr_status status = tx->error;

    while (status == TFR_OK && tx->shadow && tx->sent != tx->tail)
        status = chunk_put(tx);
    if (status != TFR_OK || tx->published == tx->tail)
        return status;
    status = tx->link->ops->put(tx->link, &news);
    if (status == TFR_OK)
        tx->published = tx->tail;
    return status;
}

/* The end of the ring is too short for the record: a pad fills it.  Pads have no number. */
static void pad_assign(struct tfr_ring_tx *tx, uint64_t len)
{
    struct tfr_rec *pad = (struct tfr_rec *)(void *)(tx->data + (tx->tail & tx->mask));

    *pad = (struct tfr_rec){.size = (uint32_t)len, .op = TFR_OP_PAD};
    tx->tail += len;
}

struct tfr_rec *tfr_ring_reserve_slow(struct tfr_ring_tx *tx, uint64_t size, uint16_t op,
                                      uint16_t ctx)
{
    uint64_t rest = tx->size - (tx->tail & tx->mask);
    uint64_t pad = size > rest ? rest : 0;

    assert(size <= tfr_ring_rec_max(tx));
    if (tx->error != TFR_OK || size > tfr_ring_rec_max(tx))
        return NULL;
    credit_look(tx);
    if (tx->shadow && tx->tail + pad + size - tx->freed > tx->size) {
        tfr_ring_flush(tx); /* else the reader might never see what it is to give credit for */
        credit_look(tx);
    }
    if (tx->error != TFR_OK || tx->tail + pad + size - tx->freed > tx->size)
        return NULL;
    if (pad)
        pad_assign(tx, pad);
    limit_set(tx);
    return tfr_ring_assign(tx, size, op, ctx);
}

void tfr_ring_rx_init(struct tfr_ring_rx *rx, void *area, uint64_t size)
{
    *rx = (struct tfr_ring_rx){
        .ctl = area,
        .data = (const uint8_t *)area + sizeof(struct tfr_ring_ctl),
        .mask = size - 1,
        .size = size,
    };
}

bool tfr_ring_ready(struct tfr_ring_rx *rx)
{
    /* pairs with the release in tfr_ring_commit, or with the put of the tail */
    return rx->head != rx->tail_seen ||
           atomic_load_explicit(&rx->ctl->tail, memory_order_acquire) != rx->head;
}

static __attribute__((cold, noinline)) tfr_status broken(struct tfr_ring_rx *rx, const char *what,
                                                         uint64_t value)
{
    if (rx->error == TFR_OK)
        rx->error = tfr_fail(TFR_E_PROTO, "ring at %llu: %s %llu", (unsigned long long)rx->head,
                             what, (unsigned long long)value);
    return rx->error;
}

static tfr_status tail_look(struct tfr_ring_rx *rx)
{
    uint64_t tail = atomic_load_explicit(&rx->ctl->tail, memory_order_acquire); /* see ready */

    if (tail == rx->head)
        return TFR_AGAIN;
    if (tail - rx->head > rx->size)
        return broken(rx, "impossible tail", tail);
    rx->tail_seen = tail;
    return TFR_OK;
}

/* Copies the record at head into buf; only its size is looked at before, once. */
static tfr_status rec_copy(struct tfr_ring_rx *rx, struct tfr_rec *rec)
{
    uint64_t at = rx->head & rx->mask;
    const struct tfr_rec *shown = (const struct tfr_rec *)(const void *)(rx->data + at);
    uint32_t size = *(const volatile uint32_t *)&shown->size;

    if (size < sizeof(*rec) || size % TFR_REC_ALIGN || size > rx->size / 8 ||
        size > rx->tail_seen - rx->head || size > rx->size - at)
        return broken(rx, "record of impossible size", size);
    memcpy(rec, shown, size);
    rec->size = size; /* the copy may hold another by now */
    return TFR_OK;
}

tfr_status tfr_ring_take(struct tfr_ring_rx *rx, void *buf, struct tfr_rec **rec_out)
{
    struct tfr_rec *rec = buf;

    for (;;) {
        tfr_status status = rx->error;
        if (status == TFR_OK && rx->head == rx->tail_seen)
            status = tail_look(rx);
        if (status == TFR_OK)
            status = rec_copy(rx, rec);
        if (status != TFR_OK)
            return status;
        if (rec->op != TFR_OP_PAD)
            break;
        rx->head += rec->size;
        if (rx->head & rx->mask)
            return broken(rx, "pad inside the ring, bytes", rec->size);
    }
    if (rec->seq != rx->seq + 1)
        return broken(rx, "record out of order, number", rec->seq);
    rx->seq = rec->seq;
    rx->head += rec->size;
    *rec_out = rec;
    return TFR_OK;
}
