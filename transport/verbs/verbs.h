/* Native verbs: what the files of this folder share.  It is a library of its own
 * (lib/tfr/verbs.so), so that nothing else of ours needs rdma-core.
 *
 * Every channel is a reliable queue pair, and AFTER costs nothing: a queue pair delivers in order.
 * Work requests come from two sorts of threads.  Those of the caller (put, get) are serialised per
 * channel and have numbers; `extras` (bells, questions, liveness) may be posted by anybody, are
 * signalled, and their number is bounded apart.  Completions are selective: one that tells of
 * request n tells of all before it.
 *
 * Sleeping is negotiated (sleep.c opens with how); joining is told in open.c. */
#ifndef TFR_TRANSPORT_VERBS_H
#define TFR_TRANSPORT_VERBS_H

#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdatomic.h>

#include "transport/backend.h"
#include "transport/boot.h"
#include "transport/verbs/match.h"

extern struct tfr_transport_ops verbs_ops;

enum verbs_notify { VERBS_NOTIFY_MEM = 1, VERBS_NOTIFY_IMM, VERBS_NOTIFY_SEND };
enum verbs_land { VERBS_LAND_READ, VERBS_LAND_NONE };

/* The TFR_VERBS_ settings. */
struct verbs_conf {
    const char *devices;
    int port, gid_at, pkey; /* -1: any */
    uint32_t inline_len, depth, mtu, retry, rnr_retry, timeout, lost_ms, sl, traffic_class, spin_us;
    enum verbs_notify notify; /* 0: by the fabric */
    enum verbs_land land;
    bool relaxed, cm;
};
const struct verbs_conf *verbs_conf(void);
enum ibv_mtu verbs_mtu_most(void); /* by TFR_VERBS_MTU */

/* ---- devices: offer.c, dev.c ---- */

struct verbs_nic {
    struct ibv_context *ctx;
    struct ibv_pd *pd;
    struct ibv_device_attr attr;
    bool iwarp;
    uint32_t inline_given; /* of what TFR_VERBS_INLINE asks for, plus 1; 0: not known */
};

struct verbs_link;

struct verbs_dev {
    struct tfr_dev base;
    uint32_t nic_n;
    struct verbs_nic nics[VERBS_NIC_MAX];
    struct verbs_offer offer; /* of these NICs */
    pthread_mutex_t lock;     /* links */
    struct verbs_link *links;
    pthread_mutex_t mems_lock; /* what follows; nothing else is taken inside */
    struct verbs_mem *mems;    /* that are shown */
    uint32_t used;             /* NICs that the link goes by, by bit; 0: there is no link yet */
};

/* The devices to use, in order, open; answers how many.  cfg may be NULL. */
uint32_t verbs_nics_open(const struct tfr_dev_cfg *cfg, struct verbs_nic nics_out[VERBS_NIC_MAX],
                         bool *stripe_out, const char **why_out);
void verbs_nics_close(struct verbs_nic *nics, uint32_t n);
void verbs_nics_offer(const struct verbs_nic *nics, uint32_t n, bool stripe,
                      struct verbs_offer *offer_out);

/* May a link of this machine be one that tells by immediates? */
bool verbs_imm_likely(void);
bool verbs_iwarp_only(void);

tfr_status verbs_offer(struct tfr_offer *offer_out, const char **why_out);
void verbs_tell(char *text, size_t room); /* tell.c */
bool verbs_suits(const struct tfr_offer *own, const struct tfr_offer *peer, const char **why_out);
tfr_status verbs_prepare(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out);
void verbs_release(struct tfr_dev *dev);

/* ---- memory: mem.c ---- */

struct verbs_mem {
    struct tfr_mem base;
    struct verbs_dev *dev;
    struct verbs_mem *next;
    struct tfr_area area;
    bool shown, read_only;
    struct ibv_mr *mrs[VERBS_NIC_MAX]; /* NULL: that NIC is not used */
};

struct verbs_peer_mem {
    struct tfr_peer_mem base;
    struct verbs_dev *dev;
    struct verbs_link *link; /* may be closed: only compared with those of dev */
    uint64_t at;             /* the peer's address */
    uint32_t rkeys[VERBS_NIC_MAX];
};

tfr_status verbs_reg(struct tfr_dev *dev, const struct tfr_area *area, struct tfr_mem **mem_out);
void verbs_unreg(struct tfr_mem *mem);
void verbs_key(const struct tfr_mem *mem, struct tfr_key *key_out);
tfr_status verbs_import(struct tfr_link *link, const struct tfr_key *key,
                        struct tfr_peer_mem **peer_out);
void verbs_forget(struct tfr_peer_mem *peer);

/* From here on memory is registered with these NICs alone. */
void verbs_nics_use(struct verbs_dev *dev, uint32_t nics);

/* Says why a registration failed and gives the status for it. */
tfr_status verbs_reg_failed(size_t len, int error);

/* ---- links ---- */

enum {
    EXTRA_MAX = 16,       /* posted and not completed, of one channel */
    CHAIN_MAX = 16,       /* requests that MORE gathers */
    RECV_N = 128,         /* receives that wait for bells, of one channel */
    SIGNAL_EVERY = 8,     /* of small puts */
    SIGNAL_LEN = 4096,    /* puts from here on are always signalled */
    PROTO_MAX = 32,       /* wake-ups that ask, without an answer between */
    LAND_N = 64,          /* landings under way */
    NOTE_N = 64,          /* notes under way, of one channel */
    VERBS_RNR_TIMER = 12, /* 0.64 ms */
};

/* In the id of a work request. */
#define EXTRA_BIT (1ull << 63)
#define LAND_BIT  (1ull << 62)

/* In an immediate: a note; that it goes where the one before it on its channel went; the number of
 * the question that it answers as a bell. 0 is none, and without NOTE_BIT a question itself. */
#define NOTE_BIT    (1u << 31)
#define SAME_BIT    (1u << 30)
#define NUMBER_MASK (SAME_BIT - 1)

struct verbs_place {
    uint64_t at; /* in the receiver's memory */
    uint32_t key, len;
};

/* A put that tells of itself by its completion: note.c. */
struct verbs_note {
    struct verbs_place place; /* not written if it is the same */
    uint8_t bytes[TFR_SMALL_MAX];
};

/* The page of each side that the other writes. */
struct verbs_ctl {
    _Alignas(64) _Atomic uint64_t ask; /* "I am going to sleep", n-th time */
    _Alignas(64) _Atomic uint64_t ok;  /* "... seen": from here on my bells ring */
    _Atomic uint64_t rung;             /* where receives carry no number (iWARP) */
    _Alignas(64) _Atomic uint64_t closed;
    _Atomic uint64_t proof[TFR_CHANNELS];
    _Alignas(64) _Atomic uint64_t taken[TFR_CHANNELS]; /* notes, of each channel */
};

/* Ours alone: sources of what we write into the other's page, target of landing reads. */
struct verbs_own {
    _Alignas(64) uint64_t ask, ok, one, rung, taken[TFR_CHANNELS];
    _Alignas(64) uint64_t landed[VERBS_NIC_MAX];
};

struct verbs_flight {
    void (*done)(void *arg, tfr_status status);
    void *arg;
};

struct verbs_landing {
    void (*done)(void *arg, tfr_status status);
    void *arg;
    tfr_status status;
    _Atomic uint32_t left; /* NICs that still read */
};

/* Requests of the caller have numbers from 0.  [retired, posted) are under way; those from
 * `posted` on up to `filled` are in the chain, not known to the device. */
struct verbs_channel {
    struct verbs_link *link;
    struct ibv_qp *qp;
    uint8_t at, own_nic, peer_nic, port;
    uint32_t depth, inline_max;
    uint64_t len_max;
    struct verbs_flight *flights; /* depth of them */
    uint8_t *bounce; /* depth slots of TFR_SMALL_MAX, if inline_max is less than that */
    struct ibv_mr *bounce_mr;

    /* whoever puts */
    _Alignas(64) _Atomic uint64_t filled, posted;
    _Atomic uint64_t signalled; /* all below this are told of by requests that were posted */
    _Atomic uint64_t wanted;    /* below this somebody wants to hear of the end */
    _Atomic uint64_t requests, doorbells, bytes, inlined, puts, gets;
    uint32_t silent; /* since the last that was signalled */
    uint32_t chain_n;
    uint16_t gathered; /* BELL, if a put of the chain had it */
    struct ibv_send_wr wrs[CHAIN_MAX];
    struct ibv_sge sges[CHAIN_MAX];
    uint8_t copies[CHAIN_MAX][sizeof(struct verbs_note)];
    uint64_t notes_sent;
    struct verbs_place note_sent; /* where the last one went */

    /* whoever progresses */
    _Alignas(64) _Atomic uint64_t retired;
    uint64_t notes_taken, notes_told;
    struct verbs_place note_taken;
    uint32_t idle;                      /* looks at it without a signalled request under way */
    uint64_t ends, ends_seen, waits_ns; /* completions of sends; look.c */
    _Atomic bool held;                  /* nothing is posted until there is one */
    _Alignas(64) _Atomic uint32_t extras;
    _Atomic bool owed; /* a bell that found no room */
};

struct verbs_rail_cqs {
    struct ibv_comp_channel *events;
    struct ibv_cq *send, *recv;
};

struct verbs_link {
    struct tfr_link base;
    struct verbs_dev *dev;
    struct verbs_link *next;
    _Atomic int32_t error;
    bool imm_ok; /* receives carry numbers */
    bool notes;  /* AFTER goes by notes */
    bool errored;
    bool unsaid;         /* why it failed */
    struct verbs_cm *cm; /* NULL: connected by attributes alone */
    uint32_t rail_n;
    struct verbs_channel channels[TFR_CHANNELS];
    struct verbs_rail_cqs cqs[VERBS_NIC_MAX]; /* by own NIC; events NULL: not used */

    struct verbs_ctl *ctl; /* a page; `own` is the page behind it */
    struct verbs_own *own;
    struct ibv_mr *ctl_mrs[VERBS_NIC_MAX], *own_mrs[VERBS_NIC_MAX];
    uint8_t *inbox;
    struct ibv_mr *inbox_mrs[VERBS_NIC_MAX];
    struct verbs_peer_mem peer_inbox;
    uint64_t peer_ctl;
    uint32_t peer_ctl_rkeys[VERBS_NIC_MAX];

    pthread_mutex_t poll; /* completions, and what they change; never waited for by put and get */
    uint64_t answered;    /* the peer's question */
    uint64_t looked_ns, heard_ns, errored_ns;
    bool heard; /* on channel 0 */
    _Atomic uint32_t looks;

    _Atomic uint64_t rung;      /* the peer's question that was answered by a bell */
    _Atomic uint64_t bell_seen; /* ours that was */
    uint64_t asked;             /* our last question; changed with both locks held */
    pthread_mutex_t lock;       /* going to sleep: all below */
    uint32_t armed, naps, protos;
    bool timer_set;
    int epoll, timer, boot; /* descriptors of ours */
    _Atomic uint64_t bells, sleeps, extra_requests;

    struct ibv_qp *loops[VERBS_NIC_MAX]; /* to themselves, for landing */
    struct verbs_landing landings[LAND_N];
    uint32_t landing_n; /* whoever lands */
};

static inline struct verbs_link *verbs_link_of(struct tfr_link *link)
{
    return (struct verbs_link *)link;
}

static inline tfr_status verbs_error(const struct verbs_link *link)
{
    return (tfr_status)atomic_load_explicit(&link->error, memory_order_relaxed);
}

/* The first error stays; the reason is logged then. */
void verbs_fail(struct verbs_link *link, tfr_status status, const char *why);

/* ---- link.c ---- */

struct verbs_link *verbs_link_new(struct verbs_dev *dev); /* NULL: no memory */
void verbs_link_free(struct verbs_link *link);
tfr_status verbs_pages_make(struct verbs_link *link);
tfr_status verbs_descriptors_make(struct verbs_link *link, const struct tfr_boot *boot);
tfr_status verbs_cqs_make(struct verbs_link *link, uint32_t nic);
bool verbs_watch(const struct verbs_link *link, int fd, uint32_t events);
void verbs_close(struct tfr_link *link);
void verbs_forked(struct tfr_link *link);

/* ---- set-up: open.c, qp.c ---- */

/* What one side tells the other of a queue pair. */
struct verbs_qp_attr {
    uint32_t qpn, psn;
};

tfr_status verbs_open(struct tfr_dev *dev, struct tfr_boot *boot, bool first,
                      struct tfr_link **link_out);

tfr_status verbs_qp_make(struct verbs_channel *channel);

/* Requests of the caller that are under way at most, and what a queue pair is asked for. */
uint32_t verbs_depth_of(const struct verbs_nic *nic);
void verbs_cap_ask(const struct verbs_nic *nic, struct ibv_qp_cap *cap_out);

/* What attr asks for, with as many bytes inline as the device gives, at most inline_len. */
struct ibv_qp *verbs_qp_create(struct verbs_nic *nic, struct ibv_qp_init_attr *attr);
tfr_status verbs_qp_connect(struct ibv_qp *qp, const struct verbs_port *own,
                            const struct verbs_port *peer, const struct verbs_qp_attr *own_attr,
                            const struct verbs_qp_attr *peer_attr, uint8_t reads);
tfr_status verbs_recvs_post(struct verbs_channel *channel, int n);
void verbs_qp_error(struct ibv_qp *qp);

/* ---- hot: path.c ---- */

tfr_status verbs_put(struct tfr_link *link, const struct tfr_xfer *xfer);
tfr_status verbs_get(struct tfr_link *link, const struct tfr_xfer *xfer);
tfr_status verbs_progress(struct tfr_link *link);
uint32_t verbs_busy(const struct tfr_link *link);
uint32_t verbs_spread(const struct tfr_link *link);
void verbs_count(const struct tfr_link *link, struct tfr_link_count *count_out);

/* A request that anybody may post: a word of ours into the peer's page (from NULL: none), with a
 * number for its receive queue if `bell`.  TFR_AGAIN: too many are under way. */
tfr_status verbs_extra(struct verbs_channel *channel, const uint64_t *from, uint64_t ctl_at,
                       const uint32_t *bell);

/* ---- poll.c ---- */

/* With link->poll held: takes what the device has to say, runs done(). */
void verbs_poll_locked(struct verbs_link *link);

/* Asks for the end of requests that will not tell by themselves: of those that somebody wants to
 * hear of, after some patience, or of all of them `now`. */
void verbs_end_ask(struct verbs_channel *channel, bool all, bool now);

/* Returns when all that was put before is done (also by the link's end). */
void verbs_drain(struct verbs_link *link);

/* Posted requests that nobody will hear of end with an error. */
void verbs_abandon(struct verbs_link *link);

/* ---- sleep.c ---- */

tfr_status verbs_arm(struct tfr_link *link, int *fd_out);
void verbs_disarm(struct tfr_link *link);
void verbs_ring(struct tfr_link *link);

/* The peer asked, and this put is the answer: claims it. */
bool verbs_bell_take(struct verbs_link *link, uint32_t *number_out);
static inline void verbs_bell_count(struct verbs_link *link)
{
    atomic_fetch_add_explicit(&link->bells, 1, memory_order_relaxed);
}
void verbs_bell_send(struct verbs_channel *channel, uint32_t number);
void verbs_bell_came(struct verbs_channel *channel, const struct ibv_wc *wc);
void verbs_answer(struct verbs_link *link);

/* ---- look.c ---- */

void verbs_look(struct verbs_link *link);

/* ---- note.c ---- */

tfr_status verbs_inbox_make(struct verbs_link *link);
void verbs_inbox_free(struct verbs_link *link);
bool verbs_note_make(struct verbs_channel *channel, const struct tfr_xfer *xfer,
                     struct verbs_note *note, struct tfr_xfer *out, uint32_t *imm_out);
void verbs_note_came(struct verbs_channel *channel, bool same);
void verbs_notes_return(struct verbs_link *link, bool all);

/* ---- land.c ---- */

void verbs_loop_make(struct verbs_link *link, const struct verbs_port *port, uint8_t reads);
tfr_status verbs_land_op(struct tfr_link *link, const struct tfr_landing *landing);
void verbs_landed(struct verbs_link *link, uint32_t at, tfr_status status);
void verbs_landings_abandon(struct verbs_link *link);
bool verbs_landings_busy(const struct verbs_link *link);

#endif
