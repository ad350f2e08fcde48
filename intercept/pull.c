/* Pulls: each stream that needs one has a lane extent of its own, filled (or emptied) again and
 * again as the stream arrives at a gate before (or behind) each piece.  So any number of copies may
 * be posted behind a stream that stands still.  The extents come out of a part of the lane that
 * pushes never take. */
#define TFR_LOG_PART "intercept"
#include "intercept/pull.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "intercept/bulk.h"
#include "intercept/gate.h"
#include "intercept/stream.h"

/* A stream that owns an extent. */
struct puller {
    struct puller *next;
    uint64_t stream; /* its id */
    uint32_t word;
    uint64_t last; /* of its last copy out of the extent */
    struct tfr_extent extent;
    uint16_t channel;
    _Atomic uint32_t pieces; /* that have not been run; pairs the release in piece_end with reap */
};

/* One fill of the extent, or one emptying. */
struct pull {
    struct tfr_gate gate;
    struct puller *puller;
    uint8_t *host;
    uint64_t len;
    void *heap; /* that `host` lies in, or NULL */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list, and the order of a
                                                            piece's records in the ring */
static struct puller *pullers;
static _Atomic uint64_t spilled;  /* bytes in our heap */
static _Atomic uint32_t bringing; /* pieces on their way into host memory */

bool tfr_pull_brings(void)
{
    return atomic_load_explicit(&bringing, memory_order_acquire) != 0;
}

/* ---- spill ---- */

/* Before the bytes; each piece that reads them holds a reference. */
struct spill {
    _Alignas(16) uint64_t len;
    _Atomic uint32_t refs;
    _Alignas(16) uint8_t bytes[];
};

static struct spill *spill_of(void *heap)
{
    return (struct spill *)((uint8_t *)heap - offsetof(struct spill, bytes));
}

void *tfr_spill_take(const void *src, uint64_t len)
{
    uint64_t limit = tfr_env_u64("TFR_SPILL_SIZE");
    uint64_t now = atomic_fetch_add_explicit(&spilled, len, memory_order_relaxed) + len;
    struct spill *spill = now <= limit ? malloc(sizeof *spill + len) : NULL;
    if (!spill) {
        atomic_fetch_sub_explicit(&spilled, len, memory_order_relaxed);
        return NULL;
    }
    TFR_COUNT(bytes_spilled, len);
    spill->len = len;
    atomic_init(&spill->refs, 1);
    memcpy(spill->bytes, src, len);
    return spill->bytes;
}

static void spill_keep(void *heap)
{
    if (heap)
        atomic_fetch_add_explicit(&spill_of(heap)->refs, 1, memory_order_relaxed);
}

static void spill_give(void *heap)
{
    if (!heap || atomic_fetch_sub_explicit(&spill_of(heap)->refs, 1, memory_order_acq_rel) != 1)
        return;
    atomic_fetch_sub_explicit(&spilled, spill_of(heap)->len, memory_order_relaxed);
    free(spill_of(heap));
}

/* ---- the bytes, on the thread that opens the gate ---- */

static void piece_end(struct pull *p)
{
    atomic_fetch_sub_explicit(&p->puller->pieces, 1, memory_order_release);
    spill_give(p->heap);
    free(p);
}

/* The word that opens the gate goes behind the bytes, on their channel. */
static void piece_ship(const struct pull *p)
{
    struct tfr_load load = {
        .extent = &p->puller->extent, .len = p->len, .channel = p->puller->channel};
    uint64_t stamp;
    if (tfr_client.any_local && !p->heap) /* it stays until its stream has passed */
        load.local = p->host;
    else
        memcpy(tfr_extent_twin(&p->puller->extent), p->host, p->len);
    tfr_bulk_put(&load, &stamp);
}

static void piece_fill(struct tfr_gate *gate, CUresult status)
{
    struct pull *p = (struct pull *)gate;
    if (status == CUDA_SUCCESS) {
        tfr_copy_deliver(); /* the source may be the target of a copy that has just ended */
        tfr_lane_settle(&p->puller->extent);
        if (tfr_client.mapped)
            memcpy(tfr_extent_twin(&p->puller->extent), p->host, p->len);
        else
            piece_ship(p);
        TFR_COUNT(bytes_pull, p->len);
    }
    piece_end(p);
}

static void piece_bring(struct tfr_gate *gate, CUresult status)
{
    struct pull *p = (struct pull *)gate;
    if (status == CUDA_SUCCESS) {
        tfr_copy_deliver(); /* an older copy to the same place comes first */
        memcpy(p->host, tfr_extent_twin(&p->puller->extent), p->len);
        TFR_COUNT(bytes_pull, p->len);
    }
    atomic_fetch_sub_explicit(&bringing, 1, memory_order_release); /* pairs with tfr_pull_brings */
    piece_end(p);
}

/* ---- extents ---- */

/* With the lock held. */
static void reap(void)
{
    for (struct puller **at = &pullers; *at;) {
        struct puller *p = *at;
        if (atomic_load_explicit(&p->pieces, memory_order_acquire) ||
            !tfr_word_reached(p->word, p->last)) {
            at = &p->next;
            continue;
        }
        *at = p->next;
        tfr_lane_free(p->extent);
        free(p);
    }
}

static struct puller *puller_find(const struct tfr_stream *stream)
{
    struct puller *p = pullers;
    while (p && p->stream != stream->id)
        p = p->next;
    return p;
}

/* The stream's extent; waits if other streams hold all of them.  With the lock held, let go
 * meanwhile. */
static CUresult puller_get(struct tfr_stream *stream, uint64_t len, struct puller **puller_out)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_LANE_SPACE);
    struct puller *made = calloc(1, sizeof *made);
    CUresult result = made ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    while (result == CUDA_SUCCESS) {
        *puller_out = puller_find(stream);
        if (*puller_out)
            break;
        if (tfr_lane_try_pull(len, &made->extent)) {
            made->stream = stream->id;
            made->channel = tfr_bulk_channel_of(stream->word);
            made->word = stream->word;
            made->next = pullers;
            pullers = *puller_out = made;
            return CUDA_SUCCESS;
        }
        reap();
        pthread_mutex_unlock(&lock);
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP) {
            TFR_COUNT(lane_stalls, 1);
            tfr_relax_nap(&relax);
        }
        tfr_client_progress();
        result = tfr_client_look();
        pthread_mutex_lock(&lock);
    }
    free(made);
    return result;
}

void tfr_pull_forget_all(void)
{
    pthread_mutex_lock(&lock);
    while (pullers) {
        struct puller *p = pullers;
        pullers = p->next;
        free(p);
    }
    pthread_mutex_unlock(&lock);
}

/* ---- posting ---- */

struct piece {
    struct puller *puller;
    void *host;
    uint64_t len;
    void *heap;
    void (*run)(struct tfr_gate *gate, CUresult status);
};

static CUresult piece_post(struct tfr_stream *stream, const struct piece *piece)
{
    struct pull *p = calloc(1, sizeof *p);
    if (!p)
        return CUDA_ERROR_OUT_OF_MEMORY;
    p->gate.run = piece->run;
    p->gate.channel = piece->puller->channel;
    p->puller = piece->puller;
    p->host = piece->host;
    p->len = piece->len;
    p->heap = piece->heap;
    spill_keep(p->heap);
    atomic_fetch_add_explicit(&p->puller->pieces, 1, memory_order_relaxed);
    CUresult result = tfr_gate_post(stream, TFR_GATE_MOVE, &p->gate);
    if (result != CUDA_SUCCESS)
        piece_end(p);
    return result;
}

static uint64_t piece_len(const struct puller *puller, uint64_t left)
{
    uint64_t room = (uint64_t)puller->extent.units * TFR_LANE_UNIT;
    return left < room ? left : room;
}

CUresult tfr_pull_to_device(struct tfr_stream *stream, uint64_t dst, const void *src, uint64_t len,
                            void *heap)
{
    struct puller *puller;
    pthread_mutex_lock(&lock);
    CUresult result = puller_get(stream, len, &puller);
    for (uint64_t at = 0, n; result == CUDA_SUCCESS && at < len; at += n) {
        n = piece_len(puller, len - at);
        struct piece piece = {.puller = puller,
                              .host = (uint8_t *)(uintptr_t)src + at,
                              .len = n,
                              .heap = heap,
                              .run = piece_fill};
        result = piece_post(stream, &piece);
        struct tfr_copy_req req = {.kind = TFR_COPY_PUSH,
                                   .dst = dst + at,
                                   .src = tfr_extent_place(&puller->extent),
                                   .len = n,
                                   .flags = TFR_COPY_MARK};
        if (result == CUDA_SUCCESS)
            result = tfr_copy_post(stream, &req, &puller->last);
    }
    pthread_mutex_unlock(&lock);
    spill_give(heap);
    return result;
}

CUresult tfr_pull_from_device(struct tfr_stream *stream, void *dst, uint64_t src, uint64_t len)
{
    struct puller *puller;
    pthread_mutex_lock(&lock);
    CUresult result = puller_get(stream, len, &puller);
    for (uint64_t at = 0, n; result == CUDA_SUCCESS && at < len; at += n) {
        n = piece_len(puller, len - at);
        struct piece piece = {
            .puller = puller, .host = (uint8_t *)dst + at, .len = n, .run = piece_bring};
        atomic_fetch_add_explicit(&bringing, 1, memory_order_relaxed);
        struct tfr_copy_req req = {.kind = TFR_COPY_PULL,
                                   .dst = tfr_extent_place(&puller->extent),
                                   .src = src + at,
                                   .len = n};
        result = tfr_copy_post(stream, &req, NULL);
        if (result == CUDA_SUCCESS)
            result = piece_post(stream, &piece);
        if (result != CUDA_SUCCESS)
            atomic_fetch_sub_explicit(&bringing, 1, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
    return result;
}
