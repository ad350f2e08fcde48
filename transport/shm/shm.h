/* Shared memory between processes of one machine: what link.c (set-up) and path.c (hot) share.
 *
 * Sleeping is Dekker's handshake.  Each side owns a control page whose `asleep` it sets in arm and
 * the other side looks at after every publication; whoever finds it set clears it and sends one
 * byte over a socket pair.  The store-load fence that the publisher would need is replaced by
 * membarrier(2) on the side that goes to sleep, where both kernels have it: a fence per record
 * waits for the reader's cache line and costs more than the record.  The socket also tells of the
 * peer's end. */
#ifndef TFR_TRANSPORT_SHM_H
#define TFR_TRANSPORT_SHM_H

#include <pthread.h>
#include <stdatomic.h>

#include "transport/backend.h"

/* One page of each side, shown to the other, which may write anything into it. */
struct shm_ctl {
    _Alignas(64) _Atomic uint32_t asleep; /* set by the owner, cleared by whoever rings */
    _Alignas(64) _Atomic uint32_t closed; /* set by the owner */
};

struct shm_link {
    struct tfr_link base;
    bool barrier;          /* both sides registered with membarrier: ring needs no fence */
    struct shm_ctl *peer;  /* in the other's memory */
    _Atomic int32_t error; /* tfr_status, sticky */
    _Atomic uint32_t polls;
    struct shm_ctl *own;
    int bell; /* our end of the socket pair */
    struct tfr_area own_area;
    pthread_mutex_t lock; /* armed; bytes in the socket are drained under it */
    uint32_t armed;       /* threads between arm and disarm */
};

struct shm_mem {
    struct tfr_mem base;
    struct tfr_area area;
};

struct shm_peer_mem {
    struct tfr_peer_mem base;
    uint8_t *addr;
};

tfr_status shm_put(struct tfr_link *link, const struct tfr_xfer *xfer);
tfr_status shm_get(struct tfr_link *link, const struct tfr_xfer *xfer);
tfr_status shm_progress(struct tfr_link *link);
tfr_status shm_arm(struct tfr_link *link, int *fd_out);
void shm_disarm(struct tfr_link *link);
void shm_ring(struct tfr_link *link);

/* Makes the processes' store buffers as empty as a fence in every thread would; false: not
 * possible. */
bool shm_barrier(void);

#endif
