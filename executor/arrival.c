/* Arrival stamps, and places in lanes.  Called by the handlers that read lanes and by park.c.
 * Surprising: a client that names a stamp which never comes, or takes one back, holds up or spoils
 * its own streams, and nobody else's. */
#define TFR_LOG_PART "executor"
#include "executor/arrival.h"

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
    return atomic_load_explicit(&s->client_page->arrived[channel], memory_order_acquire) >=
           tfr_stamp_count(stamp);
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
