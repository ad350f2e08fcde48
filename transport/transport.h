/* A transport moves bytes between memories and has never heard of CUDA.
 *
 * A device is what a worker prepares once (context, protection domain, registered lanes); a link
 * joins two processes over it.  Each side registers memory (reg), hands its key to the other over
 * the boot socket (key; shm adds a descriptor), and the other imports it (import).  After that
 * either side writes into memory the other has shown (put), and reads it where the transport can
 * (get).
 *
 * Order.  A link has TFR_CHANNELS channels, which may be queue pairs or sockets of their own. Order
 * holds inside a channel and only where AFTER asks for it; nothing is ordered across channels.  Who
 * sends bytes on a bulk channel and speaks of them on another ends them with an *arrival stamp*, a
 * word put with AFTER on the channel of the bytes: the peer acts on the bytes once it has seen the
 * stamps of all channels that they took.
 *
 * Threads.  prepare, open, reg and import may block and allocate.  put, get, land and progress do
 * neither.  put and get of one channel are called by one thread at a time, land and progress of one
 * link by one thread at a time (the caller's locks); different channels, and progress, may run at
 * the same time on different threads.  done() runs outside our locks, exactly once per accepted
 * transfer, also on failure, and always before close() returns; with TFR_E_INVAL the transfer's
 * own memory was none that could be read or written, and the link goes on.  It runs inside put,
 * get, land, progress or close of its link, on whatever thread calls those, never on a thread of
 * the transport, and must not call into the link.
 *
 * Without TFR_CAP_ONESIDED progress moves bytes, on both sides: those of a put that has not left
 * yet, and those that have come. */
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
    TFR_CAP_MAPPED = 1 << 3,    /* imported memory can be addressed by the CPU: tfr_peer_mem_addr */
    TFR_CAP_SLEEP = 1 << 4,     /* arm gives a descriptor; BELL wakes */
    TFR_CAP_ANY_LOCAL = 1 << 5, /* put and get take local memory that is not registered (mem NULL)
                                 */
};

enum { TFR_CHANNELS = 4, TFR_SMALL_MAX = 256 };

struct tfr_boot; /* boot.h */

struct tfr_dev_cfg {
    const char *name; /* NICs (verbs device names, separated by commas), or NULL: choose */
    int numa_node;    /* or -1 */
};

enum tfr_area_kind { TFR_AREA_HOST, TFR_AREA_MEMFD, TFR_AREA_GPU, TFR_AREA_DMABUF };

/* Where memory is.  HOST memory may be named to the peer only if it is `shown`; without that it is
 * local memory of transfers and nobody else's business; the other kinds are always shown.  MEMFD:
 * addr is the local mapping of [fd_at, fd_at+len) of fd; the descriptor stays the caller's and must
 * carry F_SEAL_SHRINK|F_SEAL_GROW. */
struct tfr_area {
    enum tfr_area_kind kind;
    void *addr;
    size_t len;
    int fd;
    uint64_t fd_at;
    bool shown;
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
    TFR_XFER_MORE = 1 << 2, /* the caller puts again on this channel at once, and without MORE then:
                               until that put the bytes may stay here (one doorbell, one segment) */
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

/* Arrived bytes of [at, at + len) of our own registered memory become visible to the GPU: what is
 * submitted to it after done() reads them.  Host memory needs nothing: done runs at once. */
struct tfr_landing {
    struct tfr_mem *mem;
    uint64_t at;
    size_t len;
    void (*done)(void *arg, tfr_status status);
    void *arg;
};

/* What a machine has for a transport (ports and their fabrics): travels with the first message to
 * the other side, where suits() looks at it.  Opaque. */
enum { TFR_OFFER_MAX = 480 };
struct tfr_offer {
    uint32_t len, reserved;
    uint8_t body[TFR_OFFER_MAX];
};

/* What a link has done so far; counts of this side alone. */
struct tfr_link_count {
    uint64_t puts, gets;
    uint64_t requests;      /* work requests, frames */
    uint64_t doorbells;     /* times that hardware or kernel was told of them */
    uint64_t bytes;         /* on the wire as far as we know it, our framing included */
    uint64_t inlined;       /* of these, bytes copied into a work request */
    uint64_t taken;         /* bytes that progress took in; 0 where they arrive by themselves */
    uint64_t extras;        /* of the requests, the transport's own: bells, signs of life */
    uint64_t bells, sleeps; /* of a transport that is a library of its own: not in tfr_counters */
};

struct tfr_transport_ops {
    const char *name; /* "shm", "tcp", "verbs", "ucx"; "fault:NAME" wraps another */
    uint32_t caps;
    tfr_status (*prepare)(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out);
    void (*release)(struct tfr_dev *dev);
    tfr_status (*reg)(struct tfr_dev *dev, const struct tfr_area *area, struct tfr_mem **mem_out);
    void (*unreg)(struct tfr_mem *mem); /* waits for its transfers */
    void (*key)(const struct tfr_mem *mem, struct tfr_key *key_out);
    /* Can this machine use the transport at all?  Says what it has; *why_out (a string that stays)
     * says why not.  Default: an empty offer. */
    tfr_status (*offer)(struct tfr_offer *offer_out, const char **why_out);
    /* Does the peer's offer go with ours?  Default: yes. */
    bool (*suits)(const struct tfr_offer *own, const struct tfr_offer *peer, const char **why_out);
    /* Lines for tf-info: devices and what was detected.  Default: none. */
    void (*tell)(char *text, size_t room);
    /* Joins two processes.  The boot connection is used for set-up only (blocking, 3 s limit) and
     * stays the caller's.  `first` is true on exactly one side. */
    tfr_status (*open)(struct tfr_dev *dev, struct tfr_boot *boot, bool first,
                       struct tfr_link **link_out);
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
    tfr_status (*land)(struct tfr_link *link, const struct tfr_landing *landing);
    tfr_status (*progress)(struct tfr_link *link); /* returns the link's sticky error */
    /* Puts on channel 0 that are not done: who posts small puts gathers them behind sixteen. */
    uint32_t (*busy)(const struct tfr_link *link);
    /* So many bulk channels, from the first on, take the same part of what the link can carry.
     * Default: all. */
    uint32_t (*spread)(const struct tfr_link *link);
    void (*count)(const struct tfr_link *link, struct tfr_link_count *count_out);
    /* Announces that this side is about to sleep and gives one pollable descriptor.  The caller
     * must look at its memory once more after arm and before poll; disarm when it wakes (drains the
     * descriptor).  A put with BELL after that makes the descriptor readable, and so does the
     * peer's end, and whatever progress has to be called for.  Several threads may be armed at
     * once; each arm is paired with one disarm.  No sleep should last longer than 100 ms. */
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

/* By name; NULL: unknown, or not on this machine (tfr_transport_why says what is missing).
 * "fault:NAME" is NAME under the fault wrapper, seeded by TFR_FAULT_SEED; "fault" is fault:shm.
 * verbs and ucx are libraries of their own (lib/tfr/NAME.so beside ours), loaded at the first
 * question, so that nothing else of ours needs rdma-core or UCX. */
const struct tfr_transport_ops *tfr_transport_find(const char *name);

/* Why find answered NULL for the name; a string that stays. */
const char *tfr_transport_why(const char *name);

/* The names there are, best first, from 0; NULL behind the last.  The fault wrapper is not among
 * them. */
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
