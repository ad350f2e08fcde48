/* Have the bytes arrived that a record needs?  They travel on other channels than the ring, so a
 * record may be here before them: then its stream is parked, and the pump goes on. */
#ifndef TFR_EXECUTOR_ARRIVAL_H
#define TFR_EXECUTOR_ARRIVAL_H

#include <stdbool.h>

#include "executor/session.h"

/* False: a handler answers TFR_RESULT_PARK before it does anything else, and the record is asked
 * about again by park.c until it is true.  `id`: the stream of the record, 0: it has none.  One
 * load, or none where nothing travels.  The pump's alone. */
bool tfr_arrival_here(struct tfr_session *s, const struct tfr_rec *rec, uint64_t id);

/* The same of a kept record. */
bool tfr_arrival_of_kept(struct tfr_session *s, const struct tfr_rec *rec);

/* The lane that [place, place + len) lies in, and where in there; NULL: none. */
const struct tfr_lane *tfr_lane_find(const struct tfr_session *s, uint64_t place, uint64_t len,
                                     uint64_t *at_out);

/* Counts copy bytes by the kind of lane that they pass through. */
void tfr_lane_count(const struct tfr_session *s, uint64_t place, uint64_t len);

#endif
