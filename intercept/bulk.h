/* The link where nothing is mapped: progress, puts that wait for room, and bytes between our memory
 * and the executor's lanes.
 *
 * Bulk bytes travel on channels of their own, each under its own lock, so that a thread which sends
 * much holds up no other thread's records.  Behind each put goes a stamp on its channel; the record
 * that needs the bytes names it (proto/wire_lane.h). */
#ifndef TFR_INTERCEPT_BULK_H
#define TFR_INTERCEPT_BULK_H

#include "intercept/copy.h"

/* A session begins, its link is open; or ends, and nothing of ours touches the link any more. */
void tfr_bulk_open(void);
void tfr_bulk_close(void);

/* One put, once the link has room; with the lock of its channel. */
CUresult tfr_bulk_send(const struct tfr_xfer *xfer);

/* One channel for whoever needs the order of several puts; never 0. */
uint16_t tfr_bulk_channel(void);

/* That of all that opens gates of a stream: their word only grows, so no store of it may overtake
 * another one. */
static inline uint16_t tfr_bulk_channel_of(uint32_t word)
{
    return (uint16_t)(1 + word % (TFR_CHANNELS - 1));
}

struct tfr_load {
    const struct tfr_extent *extent; /* from its first byte on */
    void *local;                     /* NULL: the extent's bytes in our twin of the lane */
    struct tfr_mem *mem;             /* that `local` lies in; NULL: see tfr_bulk_takes */
    uint64_t len;
    uint16_t channel; /* 0: any */
    bool awaited;     /* the caller settles, and is told if there is no memory at `local`; else the
                         session is lost then */
};

/* Could bytes there be moved without staging? */
static inline bool tfr_bulk_takes(const struct tfr_mem *mem)
{
    return !tfr_client.mapped && (mem || tfr_client.any_local);
}

/* To the executor's lane; *stamp_out is what the record has to name.  tfr_lane_settle tells when
 * the local bytes may be touched again, of this and of get. */
CUresult tfr_bulk_put(const struct tfr_load *load, uint64_t *stamp_out);

/* From the executor's lane; only where tfr_client.gets. */
CUresult tfr_bulk_get(const struct tfr_load *load);

/* Stores a word of the client page on this channel, behind all that was put there before.  session:
 * of tfr_client.session_at; nothing happens if that one is over. */
void tfr_bulk_word(_Atomic uint64_t *word, uint64_t value, uint16_t channel, uint32_t session);

/* Waits until *left is 0; an error: the session is lost. */
CUresult tfr_bulk_wait(const _Atomic uint32_t *left);

/* Waits for room on the link a little; an error: the session is lost. */
CUresult tfr_bulk_room_wait(struct tfr_relax *relax);

#endif
