/* Plain networks: what the files of this folder share.  link.c sets up and tears down, connect.c
 * joins the sockets, mem.c keeps the registrations, send.c and recv.c are the hot halves.
 *
 * Channels travel on sockets of their own.  A socket carries a stream of frames, each a head and
 * its payload, in both directions; whatever is put on a channel is written by the peer's progress
 * in the order of the calls, so AFTER costs nothing.  A bell costs nothing either: bytes that
 * arrive make the descriptor readable.  A memory's name on the wire is a random number behind its
 * place in the table, so that a peer can name only what it was shown. */
#ifndef TFR_TRANSPORT_TCP_H
#define TFR_TRANSPORT_TCP_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#include "transport/backend.h"
#include "transport/boot.h"

enum {
    TCP_COPY_MAX = 2048, /* larger payloads are sent from where they lie */
    TCP_OUT_MAX = 64 << 10,
    TCP_PUT_N = 64, /* payloads of puts under way per socket; more: TFR_AGAIN */
    TCP_GET_N = 32, /* gets under way per socket and direction: the peer answers from a reserve */
    TCP_OP_N = 128, /* a power of two, TCP_PUT_N + TCP_GET_N fit */
    TCP_IN_MAX = 16 << 10,
};

enum tcp_kind { TCP_PUT = 1, TCP_GET, TCP_DATA };

/* Head of every frame.  what: kind, number of the get (for GET and DATA), length of the payload,
 * which follows a PUT and a DATA. */
struct tcp_head {
    uint64_t what, id, at;
};
enum { TCP_LEN_BITS = 48 };

static inline uint64_t tcp_what(enum tcp_kind kind, uint8_t number, uint64_t len)
{
    return (uint64_t)kind << 56 | (uint64_t)number << TCP_LEN_BITS | len;
}

/* A registration as the peer may name it; lives in the device's table, never freed before it. */
struct tcp_slot {
    _Atomic uint64_t id;    /* 0: free */
    _Atomic uint32_t users; /* threads that move bytes this moment */
    uint8_t *addr;
    uint64_t len;
};

enum {
    TCP_SLOT_BITS = 18,
    TCP_CHUNK_BITS = 9,
    TCP_CHUNK_N = 1 << (TCP_SLOT_BITS - TCP_CHUNK_BITS)
};

struct tcp_link;

struct tcp_dev {
    struct tfr_dev base;
    pthread_mutex_t lock; /* guards slot_n, spare, links and their users */
    uint32_t slot_n, spare_n;
    uint32_t *spare; /* slots given back */
    _Atomic(struct tcp_slot *) chunks[TCP_CHUNK_N];
    struct tcp_link *links;
};

struct tcp_mem {
    struct tfr_mem base;
    struct tcp_dev *dev;
    uint64_t len;
    struct tcp_slot *slot; /* NULL: the peer cannot name it, and id is 0 */
    uint32_t at;           /* of the slot */
    uint64_t id;
    _Atomic uint32_t busy; /* transfers that are not done */
};

struct tcp_peer_mem {
    struct tfr_peer_mem base;
    uint64_t id;
};

/* What done() needs to be called with, outside of the locks. */
struct tcp_done {
    void (*done)(void *arg, tfr_status status);
    void *arg;
    struct tcp_mem *mem;
    tfr_status status;
};
struct tcp_dones {
    uint32_t n;
    bool news; /* a thread that sleeps may wait for one of these */
    struct tcp_done at[TCP_OP_N];
};

/* A payload that is sent from where it lies, behind its head. */
struct tcp_op {
    struct tcp_head head;
    uint8_t *from;
    uint64_t len;
    uint64_t sent;   /* head included */
    uint64_t behind; /* bytes of `out` that go before it */
    uint64_t id;     /* answers: the registration that it is read from; else 0 */
    bool gone;       /* its memory cannot be read: zeros go in its place */
    struct tcp_done done;
};

/* A get of the peer that waits to be taken up by the sending half. */
struct tcp_ask {
    uint8_t *from;
    uint64_t len, id;
    uint8_t number;
};

struct tcp_tx {
    pthread_mutex_t lock; /* guards all that is not atomic */
    uint8_t *out; /* heads and small payloads: bytes [head, tail) of the stream's own count */
    uint64_t base, head, tail; /* base: count of out[0] */
    uint32_t first, last;      /* ops, free-running */
    uint32_t put_n;            /* of these, puts */
    struct tcp_op *ops;
    _Atomic bool blocked;     /* the kernel takes no more: progress goes on when it does */
    _Atomic uint32_t pending; /* puts that are not done, for busy() */
    _Atomic uint32_t turn;    /* puts in order who leaves the lock and who finds it taken */
    /* From the receiving half (it alone moves ask_last) to whoever holds the lock. */
    _Atomic uint32_t ask_first, ask_last;
    struct tcp_ask asks[TCP_GET_N];
    _Atomic uint64_t puts, gets, frames, sends, bytes, inlined;
};

/* A get of ours whose answer is to come: answers come in order. */
struct tcp_wish {
    uint8_t *to;
    uint64_t len;
    bool gone; /* nothing can be written there: the bytes are dropped */
    struct tcp_done done;
};

struct tcp_rx {
    uint8_t *in; /* bytes [from, till) are not looked at */
    uint32_t from, till;
    uint32_t idle; /* looks in a row that found nothing */
    uint64_t left; /* bytes of a payload that are still to come */
    uint64_t id;   /* of the registration they go to; 0: to the first wish */
    uint64_t at;
    /* From whoever holds the sending half's lock (wish_last) to the receiving half (wish_first). */
    _Atomic uint32_t wish_first, wish_last;
    struct tcp_wish wishes[TCP_GET_N];
};

struct tcp_crypt;

struct tcp_sock {
    int fd;
    struct tcp_crypt *crypt; /* NULL: in the clear */
    struct tcp_link *link;
    struct tcp_tx tx;
    struct tcp_rx rx;
};

struct tcp_link {
    struct tfr_link base;
    struct tcp_dev *dev;
    struct tcp_link *next; /* of the device */
    uint32_t users;        /* unregistrations that drive it */
    int poller;            /* epoll over all sockets and `news` */
    uint32_t sock_n;
    _Atomic int32_t error;  /* tfr_status, sticky */
    _Atomic bool receiving; /* a lock that nobody waits for */
    _Atomic bool slept;     /* look at all sockets */
    pthread_mutex_t lock;   /* guards changes of armed, and the four below */
    _Atomic uint32_t armed; /* threads between arm and disarm */
    int news;               /* an eventfd: another thread has taken what they wait for */
    bool told;              /* it is readable */
    uint32_t tells;         /* so often */
    uint32_t owed;          /* of those who were armed at the last one, who still are */
    uint32_t polls, turn;   /* under `receiving` */
    uint64_t looked_ns;     /* likewise: the last look at the peer's host */
    uint32_t silent_ms;     /* so long it may be silent while bytes are under way */
    _Atomic uint64_t taken; /* bytes; written under `receiving` */
    struct tcp_sock socks[TFR_CHANNELS];
};

/* connect.c: the joined sockets of a link, and what both sides share. */
struct tcp_joint {
    int fds[TFR_CHANNELS];
    uint32_t sock_n;
    bool first, encrypt;
    uint8_t secret[TFR_BOOT_SECRET], nonce[16];
};
tfr_status tcp_connect(struct tfr_boot *boot, bool first, struct tcp_joint *joint_out);

/* options.c.  near: both ends lie on one machine. */
void tcp_options_set(int fd, bool near);

/* crypt.c: sends and receives as the system calls do, without waiting.  send answers how much of
 * the plain bytes it has taken; what it could not send of them is `unsent` and goes with the next
 * call. unread: there is more that no descriptor tells of.  EBADMSG: not the peer's; said. */
tfr_status tcp_crypt_make(const struct tcp_joint *joint, uint32_t channel,
                          struct tcp_crypt **crypt_out);
void tcp_crypt_free(struct tcp_crypt *crypt);
ssize_t tcp_crypt_send(struct tcp_crypt *crypt, int fd, const struct iovec *iov, int n);
ssize_t tcp_crypt_recv(struct tcp_crypt *crypt, int fd, const struct iovec *iov, int n);
bool tcp_crypt_unsent(const struct tcp_crypt *crypt);
bool tcp_crypt_unread(const struct tcp_crypt *crypt);

/* ports.c: the ports of TFR_TCP_PORTS, or zeros; false: it makes no sense. */
bool tcp_ports_get(unsigned *lo_out, unsigned *hi_out);
tfr_status tcp_offer(struct tfr_offer *offer_out, const char **why_out);

/* mem.c.  enter: the place of [at, at + len) in the registration, which stays until leave; NULL:
 * there is none.  *slot_out is for leave. */
uint8_t *tcp_mem_enter(struct tcp_dev *dev, uint64_t id, uint64_t at, uint64_t len,
                       struct tcp_slot **slot_out);
void tcp_mem_leave(struct tcp_slot *slot);
tfr_status tcp_dev_make(struct tcp_dev **dev_out);
void tcp_dev_free(struct tcp_dev *dev);
tfr_status tcp_reg(struct tfr_dev *dev, const struct tfr_area *area, struct tfr_mem **mem_out);
void tcp_unreg(struct tfr_mem *mem);
void tcp_key(const struct tfr_mem *mem, struct tfr_key *key_out);
tfr_status tcp_import(struct tfr_link *link, const struct tfr_key *key,
                      struct tfr_peer_mem **peer_out);
void tcp_forget(struct tfr_peer_mem *peer);

/* send.c */
tfr_status tcp_put(struct tfr_link *link, const struct tfr_xfer *xfer);
tfr_status tcp_get(struct tfr_link *link, const struct tfr_xfer *xfer);
uint32_t tcp_busy(const struct tfr_link *link);
void tcp_count(const struct tfr_link *link, struct tfr_link_count *count_out);
/* Goes on with what waits to be sent, up to some `most` bytes; with the lock held.  Failures are
 * the link's. */
void tcp_push(struct tcp_sock *sock, uint64_t most, struct tcp_dones *dones);
/* The same where something waits and nobody else is at it. */
void tcp_push_more(struct tcp_sock *sock, struct tcp_dones *dones);
/* Ends with the link's error whatever is under way; only once the link has failed. */
void tcp_tx_end(struct tcp_sock *sock, struct tcp_dones *dones);
void tcp_dones_run(struct tcp_link *link, struct tcp_dones *dones);
/* Takes note of a get of the peer; called by the receiving half.  false: it has no room. */
bool tcp_ask_add(struct tcp_tx *tx, const struct tcp_ask *ask);
/* Makes the error stick and tells the peer.  No line is written. */
void tcp_link_fail(struct tcp_link *link, tfr_status status);

/* recv.c */
tfr_status tcp_progress(struct tfr_link *link);
void tcp_rx_end(struct tcp_sock *sock, struct tcp_dones *dones);
/* Takes note of a get of ours, with the sending half's lock. */
tfr_status tcp_wish_add(struct tcp_rx *rx, const struct tfr_xfer *xfer);

/* link.c.  news: something came, or was done, that a sleeping thread may wait for; what the caller
 * stored before is visible to it.  end: ends what is under way on a link that has failed; by
 * whoever has set `receiving`. */
void tcp_link_end(struct tcp_link *link);
void tcp_news(struct tcp_link *link);

static inline struct tcp_link *tcp_link_of(struct tfr_link *link)
{
    return (struct tcp_link *)link;
}

static inline tfr_status tcp_link_error(const struct tcp_link *link)
{
    return (tfr_status)atomic_load_explicit(&link->error, memory_order_acquire);
}

static inline struct tcp_sock *tcp_sock_of(struct tcp_link *link, uint16_t channel)
{
    if (channel < link->sock_n)
        return &link->socks[channel];
    return &link->socks[link->sock_n == 1 ? 0 : 1 + (channel - 1) % (link->sock_n - 1)];
}

#endif
