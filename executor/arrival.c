/* Arrival stamps, and places in lanes.  Called by the handlers that read lanes and by park.c.
 * Surprising: a client that names a stamp which never comes, or takes one back, holds up or spoils
 * its own streams, and nobody else's. */
#define TFR_LOG_PART "executor"
#include "executor/arrival.h"

#include "executor/stat.h"

#include "tfr_ops.h"

/* 0: nothing that would have to arrive. */
static uint64_t stamp_of(const struct tfr_rec *rec)
{
    switch (rec->op) {
    case TFR_OP_copy:
        return ((const struct tfr_copy_req *)rec)->stamp;
    case TFR_OP_rect:
        return ((const struct tfr_rect_req *)rec)->stamp;
    case TFR_OP_image_put:
        return ((const struct tfr_image_put_req *)rec)->stamp;
    }
    return 0;
}

/* ---- landing: what has arrived in GPU memory becomes visible to the GPU ---- */

static void landing_done(void *arg, tfr_status status)
{
    struct tfr_session *s = arg;
    for (int i = 0; status == TFR_OK && i < TFR_STAMPS; i++)
        atomic_store_explicit(&s->landed[i], s->landing_to[i], memory_order_relaxed);
    /* pairs with the acquire in landing_start */
    atomic_store_explicit(&s->landing, 0, memory_order_release);
}

/* One for all that has arrived so far, wherever in the lane: many records wait for one. */
static void landing_start(struct tfr_session *s)
{
    struct tfr_landing landing = {
        .mem = s->lane[1].mem, .len = s->lane[1].len, .done = landing_done, .arg = s};
    /* pairs with the release in tfr_out_progress */
    if (atomic_load_explicit(&s->landing, memory_order_acquire) ||
        atomic_exchange_explicit(&s->progress_lock, 1, memory_order_acquire))
        return;
    for (int i = 0; i < TFR_STAMPS; i++)
        s->landing_to[i] = atomic_load_explicit(&s->client_page->arrived[i], memory_order_acquire);
    atomic_store_explicit(&s->landing, 1, memory_order_relaxed);
    TFR_STAT_ADD(landings, 1);
    tfr_status status = s->link->ops->land(s->link, &landing);
    if (status != TFR_OK)
        atomic_store_explicit(&s->landing, 0, memory_order_relaxed);
    if (status != TFR_OK && status != TFR_AGAIN)
        atomic_store_explicit(&s->ended, 1, memory_order_release);
    atomic_store_explicit(&s->progress_lock, 0, memory_order_release);
}

static bool has_landed(struct tfr_session *s, uint32_t channel, uint64_t count)
{
    if (atomic_load_explicit(&s->landed[channel], memory_order_relaxed) >= count)
        return true;
    landing_start(s);
    return atomic_load_explicit(&s->landed[channel], memory_order_relaxed) >= count;
}

/* Does the record read a lane in GPU memory? */
static bool reads_gpu(const struct tfr_session *s, const struct tfr_rec *rec)
{
    uint64_t place = rec->op == TFR_OP_copy   ? ((const struct tfr_copy_req *)rec)->src
                     : rec->op == TFR_OP_rect ? ((const struct tfr_rect_req *)rec)->src.at
                                              : 0;
    return s->lane_n > 1 && tfr_place_lane(place) == 1;
}

/* ---- stamps ---- */

bool tfr_arrival_of_kept(struct tfr_session *s, const struct tfr_rec *rec)
{
    uint64_t stamp = stamp_of(rec);
    uint32_t channel = tfr_stamp_channel(stamp);
    if (__builtin_expect(!stamp, 1))
        return true;
    if (channel == 0 || channel >= TFR_STAMPS) {
        tfr_session_bad(s, rec, "no such stamp");
        return true;
    }
    /* pairs with the client's put of the stamp, which comes after the bytes */
    if (atomic_load_explicit(&s->client_page->arrived[channel], memory_order_acquire) <
        tfr_stamp_count(stamp))
        return false;
    return !reads_gpu(s, rec) || has_landed(s, channel, tfr_stamp_count(stamp));
}

bool tfr_arrival_here(struct tfr_session *s, const struct tfr_rec *rec, uint64_t id)
{
    /* From a queue it comes when it is here, or when nothing matters any more. */
    if (s->park.replay || tfr_arrival_of_kept(s, rec))
        return true;
    s->park.stream = id ? tfr_park_stream(s, id) : NULL;
    return id && !s->park.stream; /* the handler will find no such stream either */
}

const struct tfr_lane *tfr_lane_find(const struct tfr_session *s, uint64_t place, uint64_t len,
                                     uint64_t *at_out)
{
    uint32_t lane = tfr_place_lane(place);
    *at_out = tfr_place_at(place);
    if (lane >= s->lane_n || !tfr_span_inside(*at_out, len, s->lane[lane].len))
        return NULL;
    return &s->lane[lane];
}

void tfr_lane_count(const struct tfr_session *s, uint64_t place, uint64_t len)
{
    uint32_t lane = tfr_place_lane(place);
    if (lane < s->lane_n && !s->lane[lane].host)
        TFR_STAT_ADD(bytes_direct, len);
    else
        TFR_STAT_ADD(bytes_bounced, len);
}
