/* UCX for fabrics: UCP over lanes with true RMA.  What plugin.c (settings), device.c (context and
 * memory), open.c (joining), link.c (the life of a link) and path.c (hot) share.
 *
 * Bulk goes by put and get of UCP, whose order and remote completion nobody promises short of a
 * flush.  So every put of up to UCX_EAGER_MAX bytes is one active message with a number of its
 * channel: the receiver applies them in order, which is all that AFTER needs between them.  An
 * AFTER put behind bulk of its channel waits in our queue until a flush of the endpoint is done;
 * nothing blocks.  Messages are applied by the peer's progress, so the transport is not one-sided.
 *
 * A remote key is too long for tfr_key: it goes by a message of its own when the memory is shown,
 * and bulk puts answer TFR_AGAIN until it has come.  UCX itself checks little: after boot the peer
 * is trusted with the memory it was shown (docs/WIRE.md). */
#ifndef TFR_TRANSPORT_UCX_H
#define TFR_TRANSPORT_UCX_H

#include <pthread.h>
#include <stdatomic.h>
#include <ucp/api/ucp.h>

#include "transport/backend.h"

enum {
    UCX_EPS = 2,       /* endpoints: ring and pages, bulk */
    UCX_OPS = 512,     /* transfers under way on a link */
    UCX_OPS_KEPT = 64, /* of these, for messages of our own */
    UCX_EAGER_MAX = 4096,
    UCX_BATCHES = 16,
    UCX_MEMS = 1 << 12, /* registrations that a device shows */
    UCX_AM = 11,
    UCX_TOKEN = 16,
};

enum ucx_msg {
    UCX_MSG_HELLO = 1, /* the token; `channel` is the endpoint */
    UCX_MSG_PUT,       /* numbered, as are the next three */
    UCX_MSG_BATCH,     /* of small puts: struct ucx_part and bytes, each time */
    UCX_MSG_RING,
    UCX_MSG_FENCE, /* asks for an ACK once all before it is applied */
    UCX_MSG_ACK,   /* of the fence `seq` */
    UCX_MSG_ASK,   /* for the remote key of `memory` */
    UCX_MSG_KEY,   /* follows as data; `at` is where the memory begins */
    UCX_MSG_BYE,
    UCX_MSG_PING, /* says nothing: a lost peer lets it fail */
};

/* Header of every active message; the bytes of a put follow as data. */
struct ucx_head {
    uint8_t msg, channel;
    uint16_t flags;
    uint32_t seq;
    uint64_t memory; /* its name: a random number above, the place in the device's table below */
    uint64_t at;
};

/* Second word of a key of ours: "TFR ucx". */
#define UCX_KEY 0x54465220756378ull

/* Before each put of a batch; its bytes follow, filled up to eight. */
struct ucx_part {
    uint64_t memory, at;
    uint64_t len;
};

struct ucx_link;
struct ucx_mem;

/* What MORE has gathered. */
struct ucx_batch {
    struct ucx_batch *next;
    uint8_t data[UCX_EAGER_MAX];
};

struct ucx_dev {
    struct tfr_dev base;
    ucp_context_h context;
    char nics[256];       /* as UCX writes them; "": all */
    bool shm_only;        /* lanes of one machine: no endpoint of these reports a lost peer */
    pthread_mutex_t lock; /* guards mems; taken after a link's */
    struct ucx_mem *mems[UCX_MEMS];
    uint32_t mem_n;             /* mapped by UCX */
    pthread_mutex_t links_lock; /* guards the list; taken before a link's */
    struct ucx_link *links;
};

struct ucx_mem {
    struct tfr_mem base;
    struct ucx_dev *dev;
    struct tfr_area area;
    ucp_mem_h memh;
    void *rkey; /* packed, for the peer */
    size_t rkey_len;
    uint64_t name;
    _Atomic uint32_t busy; /* transfers whose done() has not returned */
    _Atomic bool shown;    /* its key has been given away */
};

struct ucx_peer_mem {
    struct tfr_peer_mem base;
    struct ucx_link *link; /* NULL: closed */
    struct ucx_peer_mem *next;
    uint64_t name;
    uint64_t remote; /* where it lies there */
    ucp_rkey_h rkeys[UCX_EPS];
    bool asked, ready;
    _Atomic uint32_t busy;
};

enum ucx_kind { UCX_OP_PUT, UCX_OP_GET, UCX_OP_MSG /* a put that is a message, or one of ours */ };

struct ucx_op {
    struct ucx_op *next;
    struct ucx_link *link;
    enum ucx_kind kind;
    bool posted; /* UCX has it */
    struct ucx_batch *batch;
    tfr_status status;
    struct tfr_xfer xfer;
    struct ucx_head head;
    uint8_t small[TFR_SMALL_MAX];
};

struct ucx_queue {
    struct ucx_op *first, **last;
};

/* A numbered message that came before its turn, or a key that came before its import. */
struct ucx_early {
    struct ucx_early *next;
    struct ucx_head head;
    size_t len;
    uint8_t data[];
};

struct ucx_channel {
    struct ucx_link *link;
    struct ucx_queue queue; /* puts that wait for a flush, and all behind them */
    struct ucx_op *batch;   /* gathers, or NULL */
    uint32_t put_posted, put_flushed, flush_upto; /* bulk puts, by count */
    bool flushing;
    bool ring_wanted;
    uint32_t tx_seq, acked, fenced; /* of messages */
    uint32_t rx_seq;                /* of the last one applied */
    struct ucx_early *early;
};

struct ucx_link {
    struct tfr_link base;
    struct ucx_dev *dev;
    struct ucx_link *next; /* of the device */
    _Atomic int32_t error; /* sticky */
    _Atomic uint32_t busy; /* puts on channel 0 that are not done */
    _Atomic uint32_t polls;
    int sock; /* our own descriptor of the boot socket: its end is the peer's */

    pthread_mutex_t lock; /* guards all below, and every call into the worker */
    ucp_worker_h worker;  /* NULL: the link is dead and UCX has given back all */
    ucp_listener_h listener;
    ucp_ep_h eps[UCX_EPS];
    bool failed;   /* the endpoints of a dead link are closed */
    bool err_peer; /* endpoints report a lost peer */
    struct ucx_channel channels[TFR_CHANNELS];
    struct ucx_queue finished; /* done() to be called */
    struct ucx_op *spare;
    uint32_t spare_n;
    uint32_t posted; /* ops that UCX has */
    struct ucx_batch *batches;
    struct ucx_peer_mem *peers;
    struct ucx_early *keys; /* of memory that is not imported yet */
    uint32_t key_n;
    struct tfr_link_count count;

    int epoll, event;
    uint32_t armed; /* threads between arm and disarm */
    bool told;      /* event is readable */
    bool heard;     /* a message came since heard_ns */
    uint64_t heard_ns;

    /* While the link is opened. */
    uint8_t token[UCX_TOKEN];
    uint64_t own_id, peer_id; /* of connection requests: others get no endpoint */
    ucp_ep_h guests[UCX_EPS]; /* accepted, not proven */
    uint32_t greeted;         /* endpoints that the peer has proven, by bit */
    ucs_status_t refused;
    struct ucx_op ops[UCX_OPS];
    struct ucx_batch batch_pool[UCX_BATCHES];
};

extern struct tfr_transport_ops tfr_ucx_ops;

static inline struct ucx_link *ucx_link_of(struct tfr_link *link)
{
    return (struct ucx_link *)link;
}

/* Endpoint of a channel. */
static inline unsigned ucx_ep_of(unsigned channel)
{
    return channel != 0;
}

/* device.c */
tfr_status ucx_prepare(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out);
void ucx_release(struct tfr_dev *dev);
tfr_status ucx_reg(struct tfr_dev *dev, const struct tfr_area *area, struct tfr_mem **mem_out);
void ucx_unreg(struct tfr_mem *mem);
void ucx_key(const struct tfr_mem *mem, struct tfr_key *key_out);

/* The registration of that name; the caller holds the device's lock. */
struct ucx_mem *ucx_mem_find(struct ucx_dev *dev, uint64_t name);

/* open.c: joins the workers of both sides; the link is otherwise ready. */
tfr_status ucx_join(struct ucx_link *link, struct tfr_boot *boot, bool first);

/* link.c */
tfr_status ucx_open(struct tfr_dev *dev, struct tfr_boot *boot, bool first,
                    struct tfr_link **link_out);
void ucx_close(struct tfr_link *link);
void ucx_forked(struct tfr_link *link);
tfr_status ucx_import(struct tfr_link *link, const struct tfr_key *key,
                      struct tfr_peer_mem **peer_out);
void ucx_forget(struct tfr_peer_mem *peer);
tfr_status ucx_arm(struct tfr_link *link, int *fd_out);
void ucx_disarm(struct tfr_link *link);
void ucx_eps_close(struct ucx_link *link, uint64_t limit_ns);

/* Ends what a dead link has under way, with the lock held; does not wait. */
void ucx_link_fail(struct ucx_link *link);

/* Waits until *busy is 0 or nothing of the link is under way. */
void ucx_settle(struct ucx_link *link, const _Atomic uint32_t *busy);

/* path.c; with the lock held unless they are ops of the transport. */
void ucx_queue_init(struct ucx_queue *queue);
void ucx_error_note(struct ucx_link *link, tfr_status status);
void ucx_peer_lost(struct ucx_link *link, const char *what, ucs_status_t status); /* says it */
tfr_status ucx_error_of(struct ucx_link *link);
void ucx_msg_send(struct ucx_link *link, const struct ucx_head *head, struct tfr_mem *mem,
                  void *data, size_t len, bool reply);
void ucx_key_ask(struct ucx_link *link, struct ucx_peer_mem *peer);
void ucx_channels_advance(struct ucx_link *link);
void ucx_life_look(struct ucx_link *link);
void ucx_done_run(struct ucx_link *link); /* takes the lock itself */
void ucx_op_finish(struct ucx_op *op, tfr_status status);
void ucx_busy_drop(const struct tfr_xfer *xfer);
tfr_status ucx_put(struct tfr_link *link, const struct tfr_xfer *xfer);
tfr_status ucx_get(struct tfr_link *link, const struct tfr_xfer *xfer);
tfr_status ucx_progress(struct tfr_link *link);
void ucx_ring(struct tfr_link *link);
uint32_t ucx_busy(const struct tfr_link *link);
void ucx_count(const struct tfr_link *link, struct tfr_link_count *count_out);

/* recv.c: the handler of active messages. */
ucs_status_t ucx_am_recv(void *arg, const void *header, size_t header_len, void *data, size_t len,
                         const ucp_am_recv_param_t *param);
void ucx_early_free(struct ucx_link *link);

/* Sends the key of a registration; the caller holds the device's lock, too. */
void ucx_key_send(struct ucx_link *link, struct ucx_mem *mem);

/* Takes a key that has come already. */
void ucx_key_find(struct ucx_link *link, struct ucx_peer_mem *peer);

#endif
