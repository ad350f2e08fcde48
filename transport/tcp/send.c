/* The sending half.  Heads and small payloads gather in a buffer, large payloads are sent from
 * where they lie; both leave with one system call, in the order of the calls.  What the kernel does
 * not take at once stays here, and progress goes on with it: its callers are put, get and progress,
 * on any thread, under the socket's lock.  Answers to the peer's gets slip in between whole frames.
 */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/rec.h"
#include "transport/tcp/tcp.h"

enum {
    IOV_N = 16,
    HEAD = sizeof(struct tcp_head),
    MORE_MAX = 256 << 10, /* of one progress call and socket: others have their turn, too */
};

void tcp_link_fail(struct tcp_link *link, tfr_status status)
{
    int32_t ok = TFR_OK;

    if (!atomic_compare_exchange_strong_explicit(&link->error, &ok, (int32_t)status,
                                                 memory_order_acq_rel, memory_order_relaxed))
        return;
    for (uint32_t i = 0; i < link->sock_n; i++)
        shutdown(link->socks[i].fd, SHUT_RDWR);
}

void tcp_dones_run(struct tcp_link *link, struct tcp_dones *dones)
{
    for (uint32_t i = 0; i < dones->n; i++) {
        struct tcp_done *at = &dones->at[i];
        if (at->done)
            at->done(at->arg, at->status);
        if (at->mem) /* pairs with the load in tcp_unreg */
            atomic_fetch_sub_explicit(&at->mem->busy, 1, memory_order_release);
    }
    dones->n = 0;
    if (dones->news)
        tcp_news(link);
    dones->news = false;
}

static void count_add(_Atomic uint64_t *count, uint64_t n)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static void blocked_set(struct tcp_sock *sock, bool blocked)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | (blocked ? EPOLLOUT : 0)};

    if (atomic_load_explicit(&sock->tx.blocked, memory_order_relaxed) == blocked)
        return;
    atomic_store_explicit(&sock->tx.blocked, blocked, memory_order_relaxed);
    epoll_ctl(sock->link->poller, EPOLL_CTL_MOD, sock->fd, &event);
}

static uint8_t zeros[64 << 10];

/* What one system call is to send. */
struct batch {
    struct iovec iov[IOV_N];
    struct tcp_slot *slots[IOV_N]; /* registrations that answers are read from */
    int n, slot_n;
    size_t len, room;
};

static void batch_add(struct batch *batch, const void *from, uint64_t len)
{
    if (len > batch->room)
        len = batch->room;
    if (!len)
        return;
    batch->iov[batch->n++] = (struct iovec){(void *)(uintptr_t)from, (size_t)len};
    batch->len += (size_t)len;
    batch->room -= (size_t)len;
}

/* false: the memory that was asked for has gone since. */
static bool op_add(struct tcp_sock *sock, struct tcp_op *op, struct batch *batch)
{
    uint64_t behind_head = op->sent > HEAD ? op->sent - HEAD : 0, left;

    if (op->id && op->len) {
        struct tcp_slot **slot = &batch->slots[batch->slot_n];
        if (!tcp_mem_enter(sock->link->dev, op->id, 0, 0, slot))
            return false;
        batch->slot_n++;
    }
    if (op->sent < HEAD)
        batch_add(batch, (const char *)&op->head + op->sent, HEAD - op->sent);
    if (!op->gone) {
        batch_add(batch, op->from + behind_head, op->len - behind_head);
        return true;
    }
    left = op->len - behind_head;
    batch_add(batch, zeros, left < sizeof(zeros) ? left : sizeof(zeros));
    if (left > sizeof(zeros))
        batch->room = 0; /* nothing may follow before the rest */
    return true;
}

static bool batch_make(struct tcp_sock *sock, uint64_t most, struct batch *batch)
{
    struct tcp_tx *tx = &sock->tx;
    uint64_t head = tx->head;
    uint32_t at = tx->first;

    batch->n = batch->slot_n = 0;
    batch->len = 0;
    batch->room = most < SIZE_MAX ? (size_t)most : SIZE_MAX;
    for (; at != tx->last && batch->n + 4 <= IOV_N && batch->room; at++) {
        struct tcp_op *op = &tx->ops[at % TCP_OP_N];
        batch_add(batch, tx->out + (head - tx->base), op->behind - head);
        head = op->behind;
        if (!op_add(sock, op, batch))
            return false;
    }
    if (at == tx->last)
        batch_add(batch, tx->out + (head - tx->base), tx->tail - head);
    return true;
}

static void op_done(struct tcp_tx *tx, struct tcp_op *op, tfr_status status,
                    struct tcp_dones *dones)
{
    if (op->id)
        return;
    op->done.status = op->gone && status == TFR_OK ? TFR_E_INVAL : status;
    dones->at[dones->n++] = op->done;
    dones->news |= atomic_load_explicit(&tx->blocked, memory_order_relaxed);
    tx->put_n--;
    atomic_store_explicit(&tx->pending, tx->put_n, memory_order_relaxed);
}

/* The kernel has taken so many bytes. */
static void batch_taken(struct tcp_tx *tx, uint64_t n, struct tcp_dones *dones)
{
    while (tx->first != tx->last) {
        struct tcp_op *op = &tx->ops[tx->first % TCP_OP_N];
        uint64_t part = op->behind - tx->head < n ? op->behind - tx->head : n;
        tx->head += part;
        n -= part;
        part = HEAD + op->len - op->sent < n ? HEAD + op->len - op->sent : n;
        op->sent += part;
        n -= part;
        if (tx->head != op->behind || op->sent != HEAD + op->len)
            return;
        op_done(tx, op, TFR_OK, dones);
        tx->first++;
    }
    tx->head += n;
    if (tx->head == tx->tail)
        tx->base = tx->head;
}

/* Turns what the peer has asked for into frames of ours. */
static void asks_take(struct tcp_tx *tx)
{
    uint32_t first = atomic_load_explicit(&tx->ask_first, memory_order_relaxed);

    /* pairs with the release in tcp_ask_add */
    while (first != atomic_load_explicit(&tx->ask_last, memory_order_acquire) &&
           tx->last - tx->first - tx->put_n < TCP_GET_N) {
        const struct tcp_ask *ask = &tx->asks[first++ % TCP_GET_N];
        tx->ops[tx->last++ % TCP_OP_N] = (struct tcp_op){
            .head = {.what = tcp_what(TCP_DATA, ask->number, ask->len)},
            .from = ask->from,
            .len = ask->len,
            .behind = tx->tail,
            .id = ask->id,
        };
        count_add(&tx->frames, 1);
        /* pairs with the acquire in tcp_ask_add */
        atomic_store_explicit(&tx->ask_first, first, memory_order_release);
    }
}

static bool has_asks(struct tcp_tx *tx)
{
    return atomic_load_explicit(&tx->ask_first, memory_order_relaxed) !=
           atomic_load_explicit(&tx->ask_last, memory_order_relaxed);
}

bool tcp_ask_add(struct tcp_tx *tx, const struct tcp_ask *ask)
{
    uint32_t last = atomic_load_explicit(&tx->ask_last, memory_order_relaxed);

    /* pairs with the release in asks_take */
    if (last - atomic_load_explicit(&tx->ask_first, memory_order_acquire) == TCP_GET_N)
        return false;
    tx->asks[last % TCP_GET_N] = *ask;
    atomic_store_explicit(&tx->ask_last, last + 1, memory_order_release); /* see asks_take */
    return true;
}

static ssize_t batch_send(struct tcp_sock *sock, struct batch *batch)
{
    struct msghdr msg = {.msg_iov = batch->iov, .msg_iovlen = (size_t)batch->n};
    ssize_t sent;

    if (sock->crypt)
        sent = tcp_crypt_send(sock->crypt, sock->fd, batch->iov, batch->n);
    else if (batch->n == 1)
        sent = send(sock->fd, batch->iov[0].iov_base, batch->len, MSG_DONTWAIT | MSG_NOSIGNAL);
    else
        sent = sendmsg(sock->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    count_add(&sock->tx.sends, 1);
    if (sent > 0)
        count_add(&sock->tx.bytes, (uint64_t)sent);
    return sent;
}

static bool has_bytes(const struct tcp_sock *sock)
{
    const struct tcp_tx *tx = &sock->tx;

    return tx->head != tx->tail || tx->first != tx->last ||
           (sock->crypt && tcp_crypt_unsent(sock->crypt));
}

/* Memory of a payload cannot be read (EFAULT): the kernel has taken nothing and does not say whose.
 * Its first piece goes alone; if that is the one, zeros go from here on, since the peer has been
 * told how much comes. */
static ssize_t batch_mend(struct tcp_sock *sock, struct batch *batch)
{
    struct tcp_tx *tx = &sock->tx;
    struct tcp_op *op = &tx->ops[tx->first % TCP_OP_N];
    ssize_t sent;

    batch->n = 1;
    batch->len = batch->iov[0].iov_len;
    sent = batch_send(sock, batch);
    if (sent >= 0 || errno != EFAULT || tx->first == tx->last || tx->head != op->behind ||
        op->sent < HEAD || op->id || op->gone)
        return sent;
    op->gone = true;
    errno = EINTR;
    return -1;
}

/* One system call.  How many bytes went, or -1: no more now. */
static ssize_t push_once(struct tcp_sock *sock, uint64_t most, struct tcp_dones *dones)
{
    struct batch batch;
    ssize_t sent = -1;
    bool full;

    if (batch_make(sock, most, &batch))
        sent = batch_send(sock, &batch);
    else
        tcp_link_fail(sock->link, tfr_fail(TFR_E_PROTO, "tcp: the peer reads memory that was "
                                                        "unregistered meanwhile"));
    if (__builtin_expect(sent < 0 && batch.n && errno == EFAULT, 0))
        sent = batch_mend(sock, &batch);
    full = sent < 0 && (errno == EAGAIN || errno == EINTR);
    for (int i = 0; i < batch.slot_n; i++)
        tcp_mem_leave(batch.slots[i]);
    if (sent < 0 && !full)
        tcp_link_fail(sock->link, TFR_E_PEER);
    if (sent > 0)
        batch_taken(&sock->tx, (uint64_t)sent, dones);
    if (!sock->crypt && sent >= 0 && (size_t)sent < batch.len)
        return -1;
    return sent;
}

void tcp_push(struct tcp_sock *sock, uint64_t most, struct tcp_dones *dones)
{
    struct tcp_tx *tx = &sock->tx;

    asks_take(tx);
    while (has_bytes(sock) && tcp_link_error(sock->link) == TFR_OK) {
        ssize_t sent = most ? push_once(sock, most, dones) : -1;
        if (sent < 0) {
            blocked_set(sock, true);
            return;
        }
        most -= (uint64_t)sent;
        asks_take(tx);
    }
    blocked_set(sock, false);
}

void tcp_push_more(struct tcp_sock *sock, struct tcp_dones *dones)
{
    struct tcp_tx *tx = &sock->tx;

    if (!atomic_load_explicit(&tx->blocked, memory_order_relaxed) && !has_asks(tx))
        return;
    atomic_fetch_add_explicit(&tx->turn, 0, memory_order_acq_rel); /* see tx_leave */
    if (pthread_mutex_trylock(&tx->lock) != 0)
        return; /* whoever has it looks at the asks once more when it leaves */
    tcp_push(sock, MORE_MAX, dones);
    pthread_mutex_unlock(&tx->lock);
}

/* Leaves the lock; nobody else may have been able to take up what the peer asked for meanwhile. One
 * of the two turns comes first: either the asks are seen here, or the lock is free there. */
static void tx_leave(struct tcp_sock *sock, struct tcp_dones *dones)
{
    pthread_mutex_unlock(&sock->tx.lock);
    tcp_dones_run(sock->link, dones);
    atomic_fetch_add_explicit(&sock->tx.turn, 0, memory_order_acq_rel);
    if (has_asks(&sock->tx)) {
        tcp_push_more(sock, dones); /* may end as many puts again, of other channels */
        tcp_dones_run(sock->link, dones);
    }
}

/* Room for so many bytes more; sends what waits if that is what it takes. */
static bool out_room(struct tcp_sock *sock, uint64_t need, struct tcp_dones *dones)
{
    struct tcp_tx *tx = &sock->tx;

    if (TCP_OUT_MAX - (tx->tail - tx->base) >= need)
        return true;
    tcp_push(sock, UINT64_MAX, dones);
    if (tx->head != tx->base) {
        memmove(tx->out, tx->out + (tx->head - tx->base), (size_t)(tx->tail - tx->head));
        tx->base = tx->head;
    }
    return TCP_OUT_MAX - (tx->tail - tx->base) >= need;
}

static void out_add(struct tcp_tx *tx, const void *bytes, size_t len)
{
    memcpy(tx->out + (tx->tail - tx->base), bytes, len);
    tx->tail += len;
}

static tfr_status put_small(struct tcp_sock *sock, const struct tfr_xfer *xfer,
                            const struct tcp_head *head, struct tcp_dones *dones)
{
    struct tcp_tx *tx = &sock->tx;

    if (!out_room(sock, HEAD + xfer->len, dones))
        return TFR_AGAIN;
    out_add(tx, head, HEAD);
    out_add(tx, xfer->local, xfer->len);
    count_add(&tx->inlined, xfer->len);
    dones->at[dones->n++] = (struct tcp_done){xfer->done, xfer->arg, NULL, TFR_OK};
    return TFR_OK;
}

static tfr_status put_large(struct tcp_sock *sock, const struct tfr_xfer *xfer,
                            const struct tcp_head *head, struct tcp_dones *dones)
{
    struct tcp_mem *mem = (struct tcp_mem *)xfer->mem;
    struct tcp_tx *tx = &sock->tx;

    if (tx->put_n == TCP_PUT_N)
        tcp_push(sock, UINT64_MAX, dones);
    if (tx->put_n == TCP_PUT_N)
        return TFR_AGAIN;
    if (mem)
        atomic_fetch_add_explicit(&mem->busy, 1, memory_order_relaxed);
    tx->ops[tx->last++ % TCP_OP_N] = (struct tcp_op){
        .head = *head,
        .from = xfer->local,
        .len = xfer->len,
        .behind = tx->tail,
        .done = {xfer->done, xfer->arg, mem, TFR_OK},
    };
    tx->put_n++;
    atomic_store_explicit(&tx->pending, tx->put_n, memory_order_relaxed);
    return TFR_OK;
}

static tfr_status xfer_check(const struct tfr_xfer *xfer)
{
    if (xfer->channel >= TFR_CHANNELS || xfer->len >> TCP_LEN_BITS ||
        !tfr_span_inside(xfer->peer_at, xfer->len, xfer->peer->len))
        return tfr_fail(TFR_E_INVAL, "transfer of %zu bytes at %llu on channel %u", xfer->len,
                        (unsigned long long)xfer->peer_at, xfer->channel);
    return TFR_OK;
}

static struct tcp_head head_of(const struct tfr_xfer *xfer, enum tcp_kind kind, uint8_t number)
{
    return (struct tcp_head){
        .what = tcp_what(kind, number, xfer->len),
        .id = ((const struct tcp_peer_mem *)xfer->peer)->id,
        .at = xfer->peer_at,
    };
}

tfr_status tcp_put(struct tfr_link *base, const struct tfr_xfer *xfer)
{
    struct tcp_link *link = tcp_link_of(base);
    struct tcp_head head = head_of(xfer, TCP_PUT, 0);
    tfr_status status = xfer_check(xfer);
    struct tcp_dones dones;
    struct tcp_sock *sock;

    if (status != TFR_OK)
        return status;
    dones.n = 0;
    dones.news = false;
    sock = tcp_sock_of(link, xfer->channel);
    pthread_mutex_lock(&sock->tx.lock);
    status = tcp_link_error(link);
    if (status == TFR_OK)
        status = xfer->len <= TCP_COPY_MAX ? put_small(sock, xfer, &head, &dones)
                                           : put_large(sock, xfer, &head, &dones);
    if (status == TFR_OK) {
        count_add(&sock->tx.puts, 1);
        count_add(&sock->tx.frames, 1);
        if (!(xfer->flags & TFR_XFER_MORE))
            tcp_push(sock, UINT64_MAX, &dones);
    }
    tx_leave(sock, &dones);
    return status;
}

tfr_status tcp_get(struct tfr_link *base, const struct tfr_xfer *xfer)
{
    struct tcp_link *link = tcp_link_of(base);
    tfr_status status = xfer_check(xfer);
    struct tcp_dones dones;
    struct tcp_sock *sock;

    if (status != TFR_OK)
        return status;
    dones.n = 0;
    dones.news = false;
    sock = tcp_sock_of(link, xfer->channel);
    pthread_mutex_lock(&sock->tx.lock);
    status = tcp_link_error(link);
    if (status == TFR_OK && !out_room(sock, HEAD, &dones))
        status = TFR_AGAIN;
    if (status == TFR_OK)
        status = tcp_wish_add(&sock->rx, xfer);
    if (status == TFR_OK) {
        uint32_t last = atomic_load_explicit(&sock->rx.wish_last, memory_order_relaxed);
        struct tcp_head head = head_of(xfer, TCP_GET, (uint8_t)(last - 1));
        out_add(&sock->tx, &head, HEAD);
        count_add(&sock->tx.gets, 1);
        count_add(&sock->tx.frames, 1);
        if (!(xfer->flags & TFR_XFER_MORE))
            tcp_push(sock, UINT64_MAX, &dones);
    }
    tx_leave(sock, &dones);
    return status;
}

void tcp_tx_end(struct tcp_sock *sock, struct tcp_dones *dones)
{
    struct tcp_tx *tx = &sock->tx;

    pthread_mutex_lock(&tx->lock);
    while (tx->first != tx->last)
        op_done(tx, &tx->ops[tx->first++ % TCP_OP_N], tcp_link_error(sock->link), dones);
    tx->base = tx->head = tx->tail;
    atomic_store_explicit(&tx->blocked, false, memory_order_relaxed);
    pthread_mutex_unlock(&tx->lock);
}

/* What the kernel has taken is no longer ours. */
uint32_t tcp_busy(const struct tfr_link *base)
{
    const struct tcp_link *link = (const struct tcp_link *)base;

    return atomic_load_explicit(&link->socks[0].tx.pending, memory_order_relaxed);
}

void tcp_count(const struct tfr_link *base, struct tfr_link_count *count_out)
{
    const struct tcp_link *link = (const struct tcp_link *)base;
    struct tfr_link_count count = {0};

    for (uint32_t i = 0; i < link->sock_n; i++) {
        const struct tcp_tx *tx = &link->socks[i].tx;
        count.puts += atomic_load_explicit(&tx->puts, memory_order_relaxed);
        count.gets += atomic_load_explicit(&tx->gets, memory_order_relaxed);
        count.requests += atomic_load_explicit(&tx->frames, memory_order_relaxed);
        count.doorbells += atomic_load_explicit(&tx->sends, memory_order_relaxed);
        count.bytes += atomic_load_explicit(&tx->bytes, memory_order_relaxed);
        count.inlined += atomic_load_explicit(&tx->inlined, memory_order_relaxed);
    }
    count.taken = atomic_load_explicit(&link->taken, memory_order_relaxed);
    *count_out = count;
}
