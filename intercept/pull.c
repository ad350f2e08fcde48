/* Pulls: each stream that needs one has a lane extent of its own, filled (or emptied) again and
 * again as the stream arrives at gates.  So any number of copies may be posted behind a stream that
 * stands still.  The extents come out of a part of the lane that pushes never take.
 *
 * Pieces take turns in slices of the extent.  To the device a gate stands before each; it is opened
 * once its slice is empty, so that some are on their way while others are copied.  From the device
 * a gate stands before one that needs a slice again, and one behind the last, so that the copy
 * engine fills some while others come home. */
#define TFR_LOG_PART "intercept"
#include "intercept/pull.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "intercept/bulk.h"
#include "intercept/gate.h"
#include "intercept/stream.h"

enum { SLICES = 8, SLICE_MIN = 64 << 10 };

/* A stream that owns an extent. */
struct puller {
    struct puller *next;
    uint64_t stream; /* its id */
    uint32_t word;
    uint64_t last; /* of its last copy out of the extent */
    struct tfr_extent extent;
    _Atomic uint32_t gates; /* that have not been run; pairs the release in gate_end with reap */
};

/* One fill of a slice of the extent. */
struct pull {
    struct tfr_gate gate;
    struct puller *puller;
    struct tfr_extent slice;
    const uint8_t *host;
    uint64_t len;
    void *heap; /* that `host` lies in, or NULL */
};

/* A copy from the device.  After it was posted, of the thread that runs the stream's gates. */
struct bring {
    struct puller *puller;
    uint8_t *dst;
    struct tfr_mem *mem; /* that dst lies in, or NULL */
    uint64_t len, part;  /* of all, of a piece */
    uint32_t slices;
    _Atomic uint32_t refs; /* of gates, and of who posts them */
    uint32_t begun, ended; /* pieces */
    struct tfr_home home[SLICES];
    uint64_t seq[]; /* of the piece's record, which marks the stream */
};

/* It opens, for the piece that needs a slice again, when `wanted` pieces are home; `posted` have
 * been posted before it. */
struct turn {
    struct tfr_gate gate;
    struct bring *bring;
    uint32_t posted, wanted;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list, and the order of a
                                                            piece's records in the ring */
static struct puller *pullers;
static _Atomic uint64_t spilled;  /* bytes in our heap */
static _Atomic uint32_t bringing; /* copies on their way into host memory */

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

/* ---- pieces ---- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t extent_len(const struct tfr_extent *extent)
{
    return (uint64_t)extent->units * TFR_LANE_UNIT;
}

static uint64_t piece_max(const struct tfr_extent *extent)
{
    uint64_t len = extent_len(extent), part = len / SLICES & ~(uint64_t)(TFR_LANE_UNIT - 1);
    return part > SLICE_MIN ? part : least(len, SLICE_MIN);
}

/* An extent that does not divide by eight has room for one more. */
static uint32_t slices_of(const struct tfr_extent *extent, uint64_t part)
{
    return (uint32_t)least(extent_len(extent) / part, SLICES);
}

/* Where piece n of a copy in pieces of `part` bytes is for its turn. */
static struct tfr_extent slice_at(const struct tfr_extent *extent, uint64_t part, uint32_t n)
{
    struct tfr_extent slice = *extent;
    uint64_t at = n % slices_of(extent, part) * part;
    slice.at += at;
    slice.twin += at;
    slice.units = (uint16_t)(part / TFR_LANE_UNIT);
    return slice;
}

static struct tfr_extent slice_of(const struct bring *b, uint32_t n)
{
    return slice_at(&b->puller->extent, b->part, n);
}

/* ---- the bytes, on the thread that opens the gate ---- */

static void gate_end(struct puller *puller)
{
    atomic_fetch_sub_explicit(&puller->gates, 1, memory_order_release);
}

static void piece_end(struct pull *p)
{
    gate_end(p->puller);
    spill_give(p->heap);
    free(p);
}

/* The word that opens the gate goes behind the bytes, on their channel. */
static void piece_ship(const struct pull *p)
{
    struct tfr_load load = {
        .extent = &p->slice, .len = p->len, .channel = tfr_bulk_channel_of(p->puller->word)};
    uint64_t stamp;
    if (tfr_client.any_local && !p->heap) /* it stays until its stream has passed */
        load.local = (void *)(uintptr_t)p->host;
    else
        memcpy(tfr_extent_twin(&p->slice), p->host, p->len);
    tfr_bulk_put(&load, &stamp);
}

static void piece_fill(struct tfr_gate *gate, CUresult status)
{
    struct pull *p = (struct pull *)gate;
    if (status == CUDA_SUCCESS) {
        tfr_copy_deliver(); /* the source may be the target of a copy that has just ended */
        tfr_lane_settle(&p->slice);
        if (tfr_client.mapped)
            memcpy(tfr_extent_twin(&p->slice), p->host, p->len);
        else
            piece_ship(p);
        TFR_COUNT(bytes_pull, p->len);
    }
    piece_end(p);
}

/* A piece is sent for. */
static void bring_begin(struct bring *b)
{
    struct tfr_home *home = &b->home[b->begun % b->slices];
    uint64_t at = b->begun * b->part;
    home->extent = slice_of(b, b->begun++);
    home->dst = b->dst + at;
    home->mem = b->mem;
    home->len = least(b->part, b->len - at);
    home->flags = tfr_home_flags(home->len);
    tfr_home_begin(home); /* fails with the session alone */
}

static CUresult bring_end(struct bring *b)
{
    const struct tfr_home *home = &b->home[b->ended++ % b->slices];
    TFR_COUNT(bytes_pull, home->len);
    return tfr_home_end(home);
}

/* After a failure some are on their way still. */
static void bring_give(struct bring *b)
{
    if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (; b->ended != b->begun; b->ended++)
        tfr_lane_settle(&b->home[b->ended % b->slices].extent);
    atomic_fetch_sub_explicit(&bringing, 1, memory_order_release); /* pairs with tfr_pull_brings */
    free(b);
}

static void turn_run(struct tfr_gate *gate, CUresult status)
{
    struct turn *turn = (struct turn *)gate;
    struct bring *b = turn->bring;
    if (status == CUDA_SUCCESS)
        tfr_copy_deliver(); /* an older copy to the same place comes first */
    while (status == CUDA_SUCCESS && b->ended < turn->wanted) {
        while (b->begun < turn->posted && tfr_word_reached(b->puller->word, b->seq[b->begun]))
            bring_begin(b);
        status = bring_end(b);
    }
    gate_end(b->puller);
    bring_give(b);
    free(turn);
}

/* ---- extents ---- */

/* With the lock held. */
static void reap(void)
{
    for (struct puller **at = &pullers; *at;) {
        struct puller *p = *at;
        if (atomic_load_explicit(&p->gates, memory_order_acquire) ||
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
        reap(); /* its own may have been for less */
        *puller_out = puller_find(stream);
        if (*puller_out)
            break;
        if (tfr_lane_try_pull(len, &made->extent)) {
            made->stream = stream->id;
            made->word = stream->word;
            made->next = pullers;
            pullers = *puller_out = made;
            return CUDA_SUCCESS;
        }
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

/* With the lock held: the puller's, and maybe the last. */
static CUresult gate_post(struct tfr_stream *stream, struct puller *puller, struct tfr_gate *gate)
{
    atomic_fetch_add_explicit(&puller->gates, 1, memory_order_relaxed);
    return tfr_gate_post(stream, TFR_GATE_MOVE, gate);
}

/* what: all but the gate. */
static CUresult piece_post(struct tfr_stream *stream, const struct pull *what, uint64_t due)
{
    struct pull *p = malloc(sizeof *p);
    if (!p)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *p = *what;
    p->gate = (struct tfr_gate){.run = piece_fill, .due = due};
    spill_keep(p->heap);
    CUresult result = gate_post(stream, p->puller, &p->gate);
    if (result != CUDA_SUCCESS)
        piece_end(p);
    return result;
}

/* With the lock held.  The source is read from the moment on that the stream gets to the first
 * gate, and into each slice again once that has been emptied. */
static CUresult pieces_post(struct tfr_stream *stream, struct puller *puller, uint64_t dst,
                            const uint8_t *src, uint64_t len, void *heap)
{
    uint64_t part = piece_max(&puller->extent), begun = 0, emptied[SLICES];
    uint32_t slices = slices_of(&puller->extent, part), n = 0;
    CUresult result = CUDA_SUCCESS;
    for (uint64_t at = 0; result == CUDA_SUCCESS && at < len; at += part, n++) {
        struct pull p = {.puller = puller,
                         .slice = slice_at(&puller->extent, part, n),
                         .host = src + at,
                         .len = least(part, len - at),
                         .heap = heap};
        struct tfr_copy_req req = {.kind = TFR_COPY_PUSH,
                                   .dst = dst + at,
                                   .src = tfr_extent_place(&p.slice),
                                   .len = p.len,
                                   .flags = TFR_COPY_MARK};
        result = piece_post(stream, &p, n < slices ? begun : emptied[n % slices]);
        if (n == 0) /* what precedes the gate, or more if another thread posts here, too */
            begun = atomic_load_explicit(&stream->last, memory_order_relaxed) - 1;
        if (result == CUDA_SUCCESS)
            result = tfr_copy_post(stream, &req, &puller->last);
        emptied[n % slices] = puller->last;
    }
    return result;
}

CUresult tfr_pull_to_device(struct tfr_stream *stream, uint64_t dst, const void *src, uint64_t len,
                            void *heap)
{
    struct puller *puller;
    pthread_mutex_lock(&lock);
    CUresult result = puller_get(stream, len, &puller);
    if (result == CUDA_SUCCESS)
        result = pieces_post(stream, puller, dst, src, len, heap);
    pthread_mutex_unlock(&lock);
    spill_give(heap);
    return result;
}

static CUresult turn_post(struct tfr_stream *stream, struct bring *b, uint32_t posted,
                          uint32_t wanted)
{
    struct turn *turn = calloc(1, sizeof *turn);
    if (!turn)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *turn = (struct turn){.gate = {.run = turn_run, .due = b->seq[wanted - 1]},
                          .bring = b,
                          .posted = posted,
                          .wanted = wanted};
    atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed);
    CUresult result = gate_post(stream, b->puller, &turn->gate);
    if (result != CUDA_SUCCESS) {
        gate_end(b->puller);
        atomic_fetch_sub_explicit(&b->refs, 1, memory_order_relaxed); /* never the last */
        free(turn);
    }
    return result;
}

static struct bring *bring_make(struct puller *puller, uint64_t len)
{
    uint64_t part = piece_max(&puller->extent);
    struct bring *b = calloc(1, sizeof *b + (len + part - 1) / part * sizeof b->seq[0]);
    if (!b)
        return NULL;
    b->puller = puller;
    b->len = len;
    b->part = part;
    b->slices = slices_of(&puller->extent, part);
    atomic_init(&b->refs, 1);
    atomic_fetch_add_explicit(&bringing, 1, memory_order_relaxed);
    return b;
}

/* With the lock held. */
static CUresult bring_post(struct tfr_stream *stream, struct bring *b, uint64_t src)
{
    CUresult result = CUDA_SUCCESS;
    uint32_t n = 0;
    for (uint64_t at = 0; result == CUDA_SUCCESS && at < b->len; at += b->part, n++) {
        struct tfr_extent slice = slice_of(b, n);
        struct tfr_copy_req req = {.kind = TFR_COPY_PULL,
                                   .dst = tfr_extent_place(&slice),
                                   .src = src + at,
                                   .len = least(b->part, b->len - at)};
        req.flags = TFR_COPY_MARK | tfr_home_flags(req.len);
        if (n >= b->slices)
            result = turn_post(stream, b, n, n - b->slices + 1);
        if (result == CUDA_SUCCESS)
            result = tfr_copy_post(stream, &req, &b->seq[n]);
        if (result == CUDA_SUCCESS)
            b->puller->last = b->seq[n];
    }
    return result == CUDA_SUCCESS ? turn_post(stream, b, n, n) : result;
}

CUresult tfr_pull_from_device(struct tfr_stream *stream, void *dst, struct tfr_mem *mem,
                              uint64_t src, uint64_t len)
{
    struct puller *puller;
    pthread_mutex_lock(&lock);
    CUresult result = puller_get(stream, len, &puller);
    struct bring *b = result == CUDA_SUCCESS ? bring_make(puller, len) : NULL;
    if (b) {
        b->dst = dst;
        b->mem = mem;
        result = bring_post(stream, b, src);
    }
    pthread_mutex_unlock(&lock);
    if (b)
        bring_give(b);
    else if (result == CUDA_SUCCESS)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    return result;
}
