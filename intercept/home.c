/* The last step of copies from the device: out of lane extents into the application's memory.
 *
 * Small pieces are sent by the executor ahead of the word that speaks of them; larger ones we read
 * out of its lane ourselves (get), straight to where they belong if the transport can reach that
 * memory.  Copies into registered memory are owed: finished by whoever learns that their stream has
 * passed, because the executor cannot write the application's own pages. */
#define TFR_LOG_PART "intercept"
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "intercept/bulk.h"
#include "intercept/gate.h"
#include "intercept/memory.h"
#include "intercept/pull.h"
#include "intercept/stream.h"

enum {
    FETCH_MIN = (64 << 10) + 1,
    COMING_MAX = 8, /* sent for at once */
};

/* ---- one piece ---- */

uint32_t tfr_home_flags(uint64_t len)
{
    return tfr_client.gets && !tfr_client.mapped && len >= FETCH_MIN ? TFR_COPY_FETCH : 0;
}

CUresult tfr_home_begin(struct tfr_home *home)
{
    struct tfr_load load = {.extent = &home->extent, .len = home->len};
    home->direct = false;
    if (!(home->flags & TFR_COPY_FETCH))
        return CUDA_SUCCESS;
    if (home->dst && tfr_bulk_takes(home->mem)) {
        load.local = home->dst;
        load.awaited = home->awaited;
        load.mem = home->mem;
        home->direct = true;
        TFR_COUNT(bytes_direct, home->len);
    }
    return tfr_bulk_get(&load);
}

CUresult tfr_home_end(const struct tfr_home *home)
{
    CUresult settled = home->flags & TFR_COPY_FETCH ? tfr_lane_settle(&home->extent) : CUDA_SUCCESS;
    /* In a session that is lost the program may have taken its memory away. */
    CUresult result = (CUresult)atomic_load_explicit(&tfr_client.error, memory_order_acquire);
    result = result == CUDA_SUCCESS ? settled : result;
    if (!home->direct)
        TFR_COUNT(bytes_push, home->len);
    if (result == CUDA_SUCCESS && home->dst && !home->direct)
        memcpy(home->dst, tfr_extent_twin(&home->extent), home->len);
    return result;
}

/* ---- owed ---- */

struct owed {
    struct owed *next;
    struct tfr_owed body;
    struct tfr_home home;
};

static pthread_mutex_t owed_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list */
static struct owed *owed_head, **owed_tail = &owed_head;
static _Atomic uint32_t owed_n; /* length of the list, read without the lock as a hint */

bool tfr_copy_owed(void)
{
    return atomic_load_explicit(&owed_n, memory_order_acquire) != 0;
}

/* From its first byte to its last, with what lies between. */
static uint64_t owed_span(const struct tfr_owed *o)
{
    uint64_t rows = (o->depth - 1) * o->dst.rows + o->height;
    return (rows - 1) * o->dst.pitch + o->width;
}

static bool owed_overlaps(const struct tfr_owed *o, uint64_t at, uint64_t len)
{
    return o->dst.at < at + len && at < o->dst.at + owed_span(o);
}

bool tfr_copy_unsettled(uint64_t at, uint64_t len)
{
    /* What kernels see of host memory they may be waiting for: the program fills its buffers after
     * it has posted their copies, and then tells the kernel. */
    bool into = tfr_range_mapped() || tfr_gate_caller_pending() || tfr_pull_brings();
    if (into || !tfr_copy_owed())
        return into;
    pthread_mutex_lock(&owed_lock);
    for (const struct owed *o = owed_head; o && !into; o = o->next)
        into = owed_overlaps(&o->body, at, len);
    pthread_mutex_unlock(&owed_lock);
    return into;
}

static CUresult owed_begin(struct owed *o)
{
    const struct tfr_owed *body = &o->body;
    bool run = body->height == 1 && body->depth == 1;
    o->home = (struct tfr_home){.extent = body->extent,
                                .dst = run ? (void *)body->dst.at : NULL,
                                .mem = body->mem,
                                .len = body->width * body->height * body->depth,
                                .flags = body->flags};
    return tfr_home_begin(&o->home);
}

static void rows_bring(const struct tfr_owed *o)
{
    const uint8_t *from = tfr_extent_twin(&o->extent);
    for (uint64_t z = 0; z < o->depth; z++) {
        uint8_t *row = (uint8_t *)o->dst.at + z * o->dst.rows * o->dst.pitch;
        for (uint64_t y = 0; y < o->height; y++, row += o->dst.pitch, from += o->width)
            memcpy(row, from, o->width);
    }
}

static CUresult owed_end(const struct owed *o)
{
    CUresult result = tfr_home_end(&o->home);
    if (result == CUDA_SUCCESS && !o->home.dst)
        rows_bring(&o->body);
    tfr_lane_free(o->body.extent);
    return result;
}

/* Its stream fills the extent until then. */
static void owed_give_up(const struct tfr_owed *body)
{
    struct tfr_stream stream = {.word = body->word};
    tfr_lane_give(body->extent, &stream, body->seq);
}

/* With the lock held.  Else its program has been told that the copy will not come. */
static bool owed_add(struct owed *o)
{
    const struct tfr_owed *body = &o->body;
    if (!tfr_context_alive(body->ctx) || body->extent.session != (uint16_t)tfr_client.session_at)
        return false;
    *owed_tail = o;
    owed_tail = &o->next;
    atomic_fetch_add_explicit(&owed_n, 1, memory_order_release);
    return true;
}

CUresult tfr_copy_owe(const struct tfr_owed *body)
{
    struct owed *o = malloc(sizeof *o);
    if (!o) {
        struct owed now = {.body = *body};
        CUresult result =
            tfr_wait_word(&tfr_client.feedback->stream[body->word], body->seq, TFR_WAIT_STREAM);
        if (result == CUDA_SUCCESS)
            result = owed_begin(&now);
        if (result == CUDA_SUCCESS)
            return owed_end(&now);
        tfr_lane_free(body->extent);
        return result;
    }
    o->body = *body;
    o->next = NULL;
    pthread_mutex_lock(&owed_lock);
    bool added = owed_add(o);
    pthread_mutex_unlock(&owed_lock);
    if (!added) {
        owed_give_up(body);
        free(o);
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    }
    /* Should nobody ever wait for it.  Without a thread it comes when somebody does. */
    if (tfr_tick_start() == CUDA_SUCCESS)
        tfr_tick_wake(false);
    return CUDA_SUCCESS;
}

/* Stream words are stored in sets that form a consistent cut; while one is being stored, a stream
 * may be seen to have passed an event whose own stream's word is still on its way. */
static void cut_settle(void)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_LOCK);
    while (atomic_load_explicit(&tfr_client.feedback->cut, memory_order_acquire) & 1) {
        if (tfr_relax(&relax) == TFR_RELAX_SPUN)
            continue;
        if (tfr_client_look() != CUDA_SUCCESS)
            return;
        tfr_relax_nap(&relax);
    }
}

/* Transfers that go straight to their place keep no order: an older copy to the same place has to
 * be there first. */
static bool owed_clashes(const struct owed *due, const struct tfr_owed *o)
{
    while (due && !owed_overlaps(&due->body, o->dst.at, owed_span(o)))
        due = due->next;
    return due != NULL;
}

/* Words may have been stored since we passed over an older copy to the same place. */
static bool older_passed(const struct owed *o)
{
    for (const struct owed *older = owed_head; older != o; older = older->next) {
        if (!owed_overlaps(&older->body, o->body.dst.at, owed_span(&o->body)))
            continue;
        cut_settle(); /* then what this one comes after is seen, too */
        if (tfr_word_reached(older->body.word, older->body.seq))
            return true;
    }
    return false;
}

/* Copies that were sent for, oldest first, and have not ended. */
struct coming {
    struct owed *first, **last;
    uint32_t n;
    bool direct; /* any of them goes straight to its place */
};

/* Takes off the list what has arrived, and sends for it, several at once, up to the first that
 * clashes.  With the lock held. */
static void coming_begin(struct coming *c)
{
    cut_settle();
    for (struct owed **at = &owed_head; *at && c->n < COMING_MAX;) {
        struct owed *o = *at;
        if (!tfr_word_reached(o->body.word, o->body.seq)) {
            at = &o->next;
            continue;
        }
        if (at != &owed_head && older_passed(o)) {
            at = &owed_head;
            continue;
        }
        if ((c->direct || o->body.flags & TFR_COPY_FETCH) && owed_clashes(c->first, &o->body))
            break;
        *at = o->next;
        if (!o->next)
            owed_tail = at;
        owed_begin(o); /* fails with the session alone */
        c->direct |= o->home.direct;
        o->next = NULL;
        *c->last = o;
        c->last = &o->next;
        c->n++;
    }
}

/* With the lock held. */
static void coming_end_first(struct coming *c)
{
    struct owed *o = c->first;
    c->first = o->next;
    if (!c->first) {
        c->last = &c->first;
        c->direct = false;
    }
    c->n--;
    owed_end(o);
    free(o);
    /* Only now: who finds nothing owed does not take the lock, and the bytes must be there. */
    atomic_fetch_sub_explicit(&owed_n, 1, memory_order_release);
}

void tfr_copy_deliver(void)
{
    /* Whose wait is over may read what was brought home at a gate: the news went through the
     * executor, which is no order that this process could rely on. */
    (void)tfr_pull_brings();
    if (__builtin_expect(!tfr_copy_owed(), 1))
        return;
    pthread_mutex_lock(&owed_lock);
    struct coming coming = {.last = &coming.first};
    for (coming_begin(&coming); coming.first; coming_begin(&coming))
        coming_end_first(&coming);
    pthread_mutex_unlock(&owed_lock);
}

bool tfr_copy_due(void)
{
    bool due = false;
    /* Who has the lock delivers, and may be waiting for us to leave the link. */
    if (!tfr_copy_owed() || pthread_mutex_trylock(&owed_lock) != 0)
        return false;
    for (struct owed *o = owed_head; o && !due; o = o->next)
        due = tfr_word_reached(o->body.word, o->body.seq);
    pthread_mutex_unlock(&owed_lock);
    return due;
}

void tfr_copy_deliver_into(uint64_t at, uint64_t len)
{
    CUresult result = CUDA_SUCCESS;
    while (tfr_copy_owed() && result == CUDA_SUCCESS) {
        struct tfr_point point = {0};
        pthread_mutex_lock(&owed_lock);
        for (struct owed *o = owed_head; o && !point.seq; o = o->next)
            if (owed_overlaps(&o->body, at, len))
                point = (struct tfr_point){o->body.word, o->body.seq};
        pthread_mutex_unlock(&owed_lock);
        if (!point.seq)
            break;
        result =
            tfr_wait_word(&tfr_client.feedback->stream[point.word], point.seq, TFR_WAIT_STREAM);
        tfr_copy_deliver();
    }
}

void tfr_copy_forget_owed(void)
{
    pthread_mutex_lock(&owed_lock);
    while (owed_head) {
        struct owed *o = owed_head;
        owed_head = o->next;
        free(o);
    }
    owed_tail = &owed_head;
    atomic_store_explicit(&owed_n, 0, memory_order_release);
    pthread_mutex_unlock(&owed_lock);
}

void tfr_copy_forget_context(const struct tfr_context *ctx)
{
    pthread_mutex_lock(&owed_lock);
    for (struct owed **at = &owed_head; *at;) {
        struct owed *o = *at;
        if (o->body.ctx != ctx) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        if (!o->next)
            owed_tail = at;
        owed_give_up(&o->body);
        free(o);
        atomic_fetch_sub_explicit(&owed_n, 1, memory_order_release);
    }
    pthread_mutex_unlock(&owed_lock);
}

void tfr_copy_forget_all(void)
{
    tfr_pull_forget_all();
    tfr_copy_forget_owed();
}
