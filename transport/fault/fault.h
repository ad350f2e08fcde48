/* The weakest legal transport: another one under a wire that delays, reorders and tears.  What
 * link.c (set-up), path.c (the caller's side) and wire.c (the thread that delivers) share.
 *
 * A put becomes visible by and by, in pieces and in any order, until a later AFTER put of its
 * channel forces it out; with MORE it stays until the put that was announced; nothing is mapped;
 * done() comes late, and so do bells; put answers TFR_AGAIN now and then; what is under way at
 * close is lost.  A get reads late.  What the caller chose follows from TFR_FAULT_SEED alone; what
 * the wire does depends on timing too.  Speed is no concern. */
#ifndef TFR_TRANSPORT_FAULT_H
#define TFR_TRANSPORT_FAULT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "transport/backend.h"

enum {
    FAULT_FLIGHTS = 64, /* transfers under way; more: TFR_AGAIN */
    FAULT_PIECES = 4,   /* a transfer is torn into so many at most */
};

struct fault_link;

struct fault_dev {
    struct tfr_dev base;
    struct tfr_dev *inner;
    pthread_mutex_t lock;     /* guards the list */
    struct fault_link *links; /* open ones */
};

struct fault_mem {
    struct tfr_mem base;
    struct tfr_mem *inner;
    struct fault_dev *dev;
    _Atomic uint32_t busy; /* transfers whose done() has not returned */
};

struct fault_peer_mem {
    struct tfr_peer_mem base;
    struct tfr_peer_mem *inner;
    struct fault_link *link;
    _Atomic uint32_t busy;
};

struct fault_flight {
    struct fault_flight *next;
    struct fault_link *link;
    struct tfr_xfer xfer; /* local points to `small` if the put was small */
    uint64_t number;
    uint64_t due_ns;  /* of delivery, then of done */
    uint32_t pending; /* pieces that the inner link has not done, and one while they are sent */
    tfr_status status;
    bool get;
    bool held; /* MORE: not due until the next put of the channel */
    uint8_t small[TFR_SMALL_MAX];
};

struct fault_queue {
    struct fault_flight *first, **last;
};

struct fault_link {
    struct tfr_link base;
    struct tfr_link *inner;
    struct fault_dev *dev;
    struct fault_link *next; /* of the device */
    pthread_t wire;
    /* Held for each call into the inner link but open, import and close.  Taken before `lock`. */
    pthread_mutex_t inner_lock;
    _Atomic bool wire_wants; /* callers that poll leave the inner lock to the wire */
    _Atomic int32_t error;   /* the inner link's, sticky */
    _Atomic uint32_t busy;   /* puts on channel 0 that are not done */

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t work;  /* something to deliver or to tell, or stop */
    uint64_t put_seed[TFR_CHANNELS];
    uint64_t wire_seed;
    struct fault_queue channels[TFR_CHANNELS];
    struct fault_queue delivered; /* done() to be called */
    struct fault_flight *spare;
    uint32_t flying;      /* flights that are not spare */
    uint64_t number;      /* of the last transfer */
    uint64_t bell_after;  /* ring the peer when all puts up to this one are visible */
    uint64_t bell_due_ns; /* 0: no bell asked for */
    uint64_t puts, gets;
    uint32_t hurry; /* threads that wait until nothing is under way */
    bool stop;

    int epoll;      /* what callers sleep on: the inner link's descriptor and `event` */
    int event;      /* readable: a done() is due and nobody has called progress */
    int inner_fd;   /* in epoll, or -1 */
    uint32_t armed; /* threads between arm and disarm */
    bool told;      /* event is readable */
    struct fault_flight flights[FAULT_FLIGHTS];
};

static inline struct fault_link *fault_link_of(struct tfr_link *link)
{
    return (struct fault_link *)link;
}

void fault_queue_init(struct fault_queue *queue);
void fault_queue_push(struct fault_queue *queue, struct fault_flight *flight);
struct fault_flight *fault_queue_pop(struct fault_queue *queue);

uint64_t fault_draw(uint64_t *seed);

/* A time from now; what is forced or rings is mostly prompt. */
uint64_t fault_due(uint64_t *seed, uint16_t flags);

void fault_inner_enter(struct fault_link *link);
void fault_inner_leave(struct fault_link *link);
void fault_error_note(struct fault_link *link, tfr_status status);

/* Takes a flight to those whose done() is to be called; with the lock held. */
void fault_flight_end(struct fault_flight *flight);

void *fault_wire_main(void *link);

/* Calls done() for what was delivered long enough ago (all: for everything). */
void fault_done_run(struct fault_link *link, bool all);

/* Returns when *busy is 0, or nothing is under way and every done() has run; false: the link is
 * dead and the inner one does not give back what it took. */
bool fault_settle(struct fault_link *link, const _Atomic uint32_t *busy);

tfr_status fault_put(struct tfr_link *link, const struct tfr_xfer *xfer);
tfr_status fault_get(struct tfr_link *link, const struct tfr_xfer *xfer);
tfr_status fault_land(struct tfr_link *link, const struct tfr_landing *landing);
tfr_status fault_progress(struct tfr_link *link);
uint32_t fault_busy(const struct tfr_link *link);
uint32_t fault_spread(const struct tfr_link *link);
void fault_count(const struct tfr_link *link, struct tfr_link_count *count_out);
tfr_status fault_arm(struct tfr_link *link, int *fd_out);
void fault_disarm(struct tfr_link *link);
void fault_ring(struct tfr_link *link);

#endif
