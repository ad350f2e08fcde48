/* A transport moves bytes between memories and has never heard of CUDA.
 *
 * A device is what a worker prepares once (context, protection domain, registered lanes); a link
 * joins two processes over it.  Each side registers memory (reg), hands its key to the other over
 * the boot socket (key; shm adds a descriptor), and the other imports it (import).  After that
 * either side writes into memory the other has shown (put), and reads it where the transport can
 * (get).
 *
 * prepare, open, reg and import may block and allocate.  put, get, land and progress do neither.
 * put, get and progress of one link are called by one thread at a time (the caller's lock), except
 * that put on different channels may run on different threads.  done() runs outside our locks,
 * exactly once per accepted transfer, also on failure, and always before close() returns.  It runs
 * inside put, get, progress or close of its link, never on a thread of the transport, and must not
 * call into the link. */
#ifndef TFR_TRANSPORT_H
#define TFR_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum tfr_cap {
    TFR_CAP_ONESIDED = 1 << 0, /* a put arrives without the peer calling progress */
    TFR_CAP_GET = 1 << 1,
    TFR_CAP_GPU_MEM = 1 << 2,
    TFR_CAP_MAPPED = 1 << 3, /* imported memory can be addressed by the CPU: tfr_peer_mem_addr */
    TFR_CAP_SLEEP = 1 << 4,  /* arm gives a descriptor; BELL wakes */
};

enum { TFR_CHANNELS = 4, TFR_SMALL_MAX = 256 };

struct tfr_dev_cfg {
    const char *name; /* NIC or NULL */
    int numa_node;    /* or -1 */
};

enum tfr_area_kind { TFR_AREA_HOST, TFR_AREA_MEMFD, TFR_AREA_GPU, TFR_AREA_DMABUF };

/* Where memory is.  MEMFD: addr is the local mapping of [fd_at, fd_at+len) of fd; the descriptor
 * stays the caller's and must carry F_SEAL_SHRINK|F_SEAL_GROW. */
struct tfr_area {
    enum tfr_area_kind kind;
    void *addr;
    size_t len;
    int fd;
    uint64_t fd_at;
};

/* What the peer needs in order to write there.  Opaque; fd is passed beside it (or -1). */
struct tfr_key {
    uint64_t len;
    uint64_t words[3];
    int fd;
};

struct tfr_dev;
struct tfr_mem; /* registered here */
struct tfr_link;
struct tfr_peer_mem; /* registered there, imported here */

enum tfr_xfer_flag {
    TFR_XFER_AFTER = 1 << 0, /* not seen before any earlier put of the same channel */
    TFR_XFER_BELL = 1 << 1,  /* wakes a peer that has armed */
};

/* One transfer.  Up to TFR_SMALL_MAX bytes are copied at the call; beyond, `local` must lie inside
 * `mem` and stays untouched until done(arg, status).  done may be NULL.
 * Eight bytes put to a place aligned to eight are never torn: the peer may read them as one atomic
 * word. */
struct tfr_xfer {
    uint16_t channel; /* 0 ring and pages, 1..TFR_CHANNELS-1 bulk */
    uint16_t flags;
    void *local;
    struct tfr_mem *mem; /* may be NULL for small puts */
    struct tfr_peer_mem *peer;
    uint64_t peer_at;
    size_t len;
    void (*done)(void *arg, tfr_status status);
    void *arg;
};

struct tfr_transport_ops {
    const char *name; /* "shm", "tcp", "verbs", "ucx"; "fault" wraps another */
    uint32_t caps;
    tfr_status (*prepare)(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out);
    void (*release)(struct tfr_dev *dev);
    tfr_status (*reg)(struct tfr_dev *dev, const struct tfr_area *area, struct tfr_mem **mem_out);
    void (*unreg)(struct tfr_mem *mem); /* waits for its transfers */
    void (*key)(const struct tfr_mem *mem, struct tfr_key *key_out);
    /* Joins two processes.  sock is the boot socket, used for set-up only (blocking, 3 s limit);
     * it stays the caller's.  `first` is true on exactly one side. */
    tfr_status (*open)(struct tfr_dev *dev, int sock, bool first, struct tfr_link **link_out);
    void (*close)(struct tfr_link *link); /* safe when the peer is gone */
    /* key->fd (if any) is consumed, also on failure.  The peer is not trusted: shm checks seals and
     * size before mapping. */
    tfr_status (*import)(struct tfr_link *link, const struct tfr_key *key,
                         struct tfr_peer_mem **peer_out);
    void (*forget)(struct tfr_peer_mem *peer);
    void *(*addr)(const struct tfr_peer_mem *peer); /* CAP_MAPPED, else NULL */
    tfr_status (*put)(struct tfr_link *link,
                      const struct tfr_xfer *xfer); /* TFR_AGAIN: nothing was done */
    tfr_status (*get)(struct tfr_link *link, const struct tfr_xfer *xfer);
    tfr_status (*progress)(struct tfr_link *link); /* returns the link's sticky error */
    /* Announces that this side is about to sleep and gives one pollable descriptor.  The caller
     * must look at its memory once more after arm and before poll; disarm when it wakes (drains the
     * descriptor).  A put with BELL after that makes the descriptor readable, and so does the
     * peer's end.  Several threads may be armed at once; each arm is paired with one disarm. */
    tfr_status (*arm)(struct tfr_link *link, int *fd_out);
    void (*disarm)(struct tfr_link *link);
    /* Wakes an armed peer; the caller's earlier stores are visible to it.  No system call when the
     * peer is awake, but for one after a sleep that nobody ended. */
    void (*ring)(struct tfr_link *link);
    /* In a forked child: closes the link's descriptors, so that the child does not keep the link of
     * its parent alive, and touches nothing else.  The link must not be used after it. */
    void (*forked)(struct tfr_link *link);
};

/* Every object's first member, so that a caller holds objects and not op tables. */
struct tfr_dev {
    const struct tfr_transport_ops *ops;
};
struct tfr_mem {
    const struct tfr_transport_ops *ops;
};
struct tfr_link {
    const struct tfr_transport_ops *ops;
};
struct tfr_peer_mem {
    const struct tfr_transport_ops *ops;
    size_t len;
};

/* By name; NULL: unknown.  "fault" is shm under the fault wrapper, seeded by TFR_FAULT_SEED. */
const struct tfr_transport_ops *tfr_transport_find(const char *name);

/* The names of those built in, from 0; NULL behind the last. */
const char *tfr_transport_name(int at);

/* Fills every NULL op with one that answers TFR_E_UNSUP (or does nothing). */
void tfr_transport_defaults(struct tfr_transport_ops *ops);

/* A memfd of len bytes (rounded up to pages), sealed against shrinking and growing, mapped shared
 * at `at` (MAP_FIXED_NOREPLACE) or anywhere if at is NULL.  Ownership of fd and mapping passes to
 * the caller.  Not prefaulted. */
tfr_status tfr_memfd_create(const char *name, size_t len, void *at, struct tfr_area *area_out);

/* Maps a foreign memfd after checking seals and size; at as above.  Does not consume fd.
 * Both answer TFR_AGAIN, in silence, if the place `at` is taken. */
tfr_status tfr_memfd_map(int fd, uint64_t fd_at, size_t len, void *at, void **addr_out);

#endif
