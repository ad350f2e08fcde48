/* Parking: a real driver blocks whoever launches into a stream that has about a thousand unfinished
 * launches, and the pump must never be blocked.  Near TFR_QUEUE_DEPTH the records of a stream are
 * kept in a side queue of ours, and the other streams go on.  So they are behind a record whose
 * bytes have not arrived yet (arrival.h).
 *
 * What a record depends on by order of submission stays before it: records of its stream, earlier
 * uses of its event, the legacy stream and the streams that join it, the session fence.  The pump's
 * alone, but for what is said otherwise. */
#ifndef TFR_EXECUTOR_PARK_H
#define TFR_EXECUTOR_PARK_H

#include <stdbool.h>
#include <stdint.h>

#include "executor/dispatch.h"

struct tfr_stream;
struct tfr_event;
struct tfr_parked;

/* What a handler answers for a record whose turn has not come: passed up, never to the client. */
#define TFR_RESULT_PARK ((CUresult)0x7ffffffe)

struct tfr_park {
    uint32_t n;     /* records kept: while 0, nothing below matters but depth and seq */
    uint32_t depth; /* unfinished submissions that a stream may have */
    uint64_t bytes;
    uint64_t seq;               /* of the record in hand */
    struct tfr_event *event;    /* that it names, */
    struct tfr_stream *stream;  /* and the stream, if that was looked at; NULL: it has none */
    struct tfr_parked *replay;  /* the record in hand, if it comes from a queue */
    struct tfr_stream *streams; /* those with a queue */
    struct tfr_parked *fences, **fences_last;
    struct tfr_parked *barriers; /* take away what earlier records use */
    struct tfr_parked *late;     /* of no stream; their bytes are on their way */
};

void tfr_park_init(struct tfr_session *s);

/* The slow half of tfr_stream_get: TFR_RESULT_PARK if the record in hand must wait. */
CUresult tfr_park_look(struct tfr_session *s, struct tfr_stream *stream);

/* Objects that a kept record named stay its own though the client has given the id away. */
struct tfr_stream *tfr_park_stream(struct tfr_session *s, uint64_t id);
struct tfr_event *tfr_park_event(struct tfr_session *s, uint64_t id);

/* Keeps the record in hand, after a handler answered TFR_RESULT_PARK. */
void tfr_park_keep(struct tfr_session *s, const struct tfr_op_info *info,
                   const struct tfr_rec *rec);

/* True: the record, meant for a helper, takes away what kept records use, and is kept too. */
bool tfr_park_barrier(struct tfr_session *s, const struct tfr_op_info *info,
                      const struct tfr_rec *rec);

/* Plays what may go on; true: something did. */
bool tfr_park_run(struct tfr_session *s);

/* So much is kept that the ring must wait. */
bool tfr_park_full(const struct tfr_session *s);

#endif
