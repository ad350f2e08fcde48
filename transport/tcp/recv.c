/* The receiving half.  Heads and small payloads are read into a buffer and copied from there; the
 * rest of a large payload is read straight to where it belongs, together with what follows it.  A
 * head is copied before it is looked at, and nothing is written before its span was checked.  Each
 * call looks at channel 0 and at one bulk socket on which something came lately; the others are
 * looked at now and then, and after each sleep. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "base/log.h"
#include "transport/tcp/tcp.h"

enum {
    HEAD = sizeof(struct tcp_head),
    TAKE_MAX = 256 << 10,  /* of a payload, with one call: channel 0 waits no longer */
    BULK_IN_MAX = 4 << 10, /* of what may be payload and would have to be copied */
    ALL_EVERY = 16,
    IDLE_MAX = 64,
    HOST_LOOK_EVERY = 1024,
};
#define HOST_LOOK_NS (250 * TFR_NS_PER_MS)

tfr_status tcp_wish_add(struct tcp_rx *rx, const struct tfr_xfer *xfer)
{
    struct tcp_mem *mem = (struct tcp_mem *)xfer->mem;
    uint32_t last = atomic_load_explicit(&rx->wish_last, memory_order_relaxed);

    /* pairs with the release in wish_done */
    if (last - atomic_load_explicit(&rx->wish_first, memory_order_acquire) == TCP_GET_N)
        return TFR_AGAIN;
    if (mem)
        atomic_fetch_add_explicit(&mem->busy, 1, memory_order_relaxed);
    rx->wishes[last % TCP_GET_N] = (struct tcp_wish){
        .to = xfer->local, .len = xfer->len, .done = {xfer->done, xfer->arg, mem, TFR_OK}};
    atomic_store_explicit(&rx->wish_last, last + 1, memory_order_release); /* see wish_first */
    return TFR_OK;
}

/* The get whose answer is due; NULL: none. */
static struct tcp_wish *wish_first(struct tcp_rx *rx)
{
    uint32_t first = atomic_load_explicit(&rx->wish_first, memory_order_relaxed);

    /* pairs with the release in tcp_wish_add */
    return first == atomic_load_explicit(&rx->wish_last, memory_order_acquire)
               ? NULL
               : &rx->wishes[first % TCP_GET_N];
}

static void wish_done(struct tcp_rx *rx, tfr_status status, struct tcp_dones *dones)
{
    uint32_t first = atomic_load_explicit(&rx->wish_first, memory_order_relaxed);

    dones->at[dones->n] = rx->wishes[first % TCP_GET_N].done;
    dones->at[dones->n++].status =
        status == TFR_OK && rx->wishes[first % TCP_GET_N].gone ? TFR_E_INVAL : status;
    atomic_store_explicit(&rx->wish_first, first + 1, memory_order_release); /* see tcp_wish_add */
}

static __attribute__((cold, noinline)) bool broken(struct tcp_sock *sock, const char *what,
                                                   const struct tcp_head *head)
{
    tcp_link_fail(sock->link, tfr_fail(TFR_E_PROTO, "tcp: %s: head %#llx, memory %#llx at %#llx",
                                       what, (unsigned long long)head->what,
                                       (unsigned long long)head->id, (unsigned long long)head->at));
    return false;
}

/* All frames below: false if the rest has to wait for more bytes, or for ever. */
static bool put_take(struct tcp_sock *sock, const struct tcp_head *head, uint64_t len)
{
    struct tcp_rx *rx = &sock->rx;
    uint64_t here = rx->till - rx->from - HEAD;
    struct tcp_slot *slot;
    uint8_t *to;

    if (here < len && len <= TCP_COPY_MAX)
        return false;
    to = tcp_mem_enter(sock->link->dev, head->id, head->at, len, &slot);
    if (!to)
        return broken(sock, "bytes for memory that was not shown", head);
    here = here < len ? here : len;
    tfr_bytes_store(to, rx->in + rx->from + HEAD, (size_t)here);
    tcp_mem_leave(slot);
    rx->from += HEAD + (uint32_t)here;
    rx->left = len - here;
    rx->id = head->id;
    rx->at = head->at + here;
    return true;
}

static bool get_take(struct tcp_sock *sock, const struct tcp_head *head, uint64_t len)
{
    struct tcp_ask ask = {
        .len = len, .id = head->id, .number = (uint8_t)(head->what >> TCP_LEN_BITS)};
    struct tcp_slot *slot;

    ask.from = tcp_mem_enter(sock->link->dev, head->id, head->at, len, &slot);
    if (!ask.from)
        return broken(sock, "memory asked for that was not shown", head);
    tcp_mem_leave(slot);
    if (!tcp_ask_add(&sock->tx, &ask))
        return broken(sock, "too many gets at once", head);
    sock->rx.from += HEAD;
    return true;
}

static bool data_take(struct tcp_sock *sock, const struct tcp_head *head, uint64_t len,
                      struct tcp_dones *dones)
{
    struct tcp_rx *rx = &sock->rx;
    struct tcp_wish *wish = wish_first(rx);
    uint64_t here = rx->till - rx->from - HEAD;

    if (!wish || wish->len != len ||
        (uint8_t)(head->what >> TCP_LEN_BITS) !=
            (uint8_t)atomic_load_explicit(&rx->wish_first, memory_order_relaxed))
        return broken(sock, "an answer to no get of ours", head);
    here = here < len ? here : len;
    memcpy(wish->to, rx->in + rx->from + HEAD, (size_t)here);
    rx->from += HEAD + (uint32_t)here;
    rx->left = len - here;
    rx->id = 0;
    rx->at = here;
    if (!rx->left)
        wish_done(rx, TFR_OK, dones);
    return true;
}

static bool frame_take(struct tcp_sock *sock, struct tcp_dones *dones)
{
    struct tcp_rx *rx = &sock->rx;
    struct tcp_head head;
    uint64_t len;

    if (rx->left || rx->till - rx->from < HEAD)
        return false;
    memcpy(&head, rx->in + rx->from, HEAD);
    len = head.what & ((1ull << TCP_LEN_BITS) - 1);
    switch (head.what >> 56) {
    case TCP_PUT:
        return put_take(sock, &head, len);
    case TCP_GET:
        return get_take(sock, &head, len);
    case TCP_DATA:
        return data_take(sock, &head, len, dones);
    }
    return broken(sock, "unknown frame", &head);
}

static void frames_take(struct tcp_sock *sock, struct tcp_dones *dones)
{
    struct tcp_rx *rx = &sock->rx;

    while (frame_take(sock, dones)) {
        if (dones->n >= TCP_GET_N)
            tcp_dones_run(sock->link, dones);
    }
    if (rx->from) {
        memmove(rx->in, rx->in + rx->from, rx->till - rx->from);
        rx->till -= rx->from;
        rx->from = 0;
    }
}

/* Where the rest of a payload goes; NULL: its memory has gone. */
static uint8_t *rest_enter(struct tcp_sock *sock, size_t len, struct tcp_slot **slot_out)
{
    struct tcp_rx *rx = &sock->rx;

    *slot_out = NULL;
    if (!rx->id)
        return wish_first(rx)->to + rx->at;
    return tcp_mem_enter(sock->link->dev, rx->id, rx->at, len, slot_out);
}

static void rest_taken(struct tcp_rx *rx, size_t len, struct tcp_dones *dones)
{
    rx->left -= len;
    rx->at += len;
    if (len && !rx->left && !rx->id)
        wish_done(rx, TFR_OK, dones);
}

static ssize_t sock_recv(struct tcp_sock *sock, const struct iovec *iov, int n)
{
    if (sock->crypt)
        return tcp_crypt_recv(sock->crypt, sock->fd, iov, n);
    return n == 1 ? recv(sock->fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT)
                  : readv(sock->fd, iov, n);
}

/* The first wish's memory cannot be written: its bytes are read and dropped. */
static ssize_t gone_read(struct tcp_sock *sock, size_t rest, size_t room)
{
    struct tcp_rx *rx = &sock->rx;
    struct iovec iov = {rx->in + rx->till, room - rx->till < rest ? room - rx->till : rest};

    return sock_recv(sock, &iov, 1);
}

/* With one system call; `rest` bytes of it into *slot_out's memory. */
static ssize_t bytes_read(struct tcp_sock *sock, size_t rest)
{
    struct tcp_rx *rx = &sock->rx;
    size_t room = sock == sock->link->socks ? TCP_IN_MAX : BULK_IN_MAX;
    struct iovec iov[2] = {{NULL, rest}, {rx->in + rx->till, room - rx->till}};
    struct tcp_slot *slot;
    ssize_t got;

    if (!rest)
        return sock_recv(sock, &iov[1], 1);
    if (!rx->id && wish_first(rx)->gone)
        return gone_read(sock, rest, room);
    iov[0].iov_base = rest_enter(sock, rest, &slot);
    if (!iov[0].iov_base) {
        broken(sock, "bytes for memory that was unregistered meanwhile", &(struct tcp_head){0});
        return 0;
    }
    got = sock_recv(sock, iov, rest < rx->left ? 1 : 2);
    if (slot)
        tcp_mem_leave(slot);
    if (__builtin_expect(got < 0 && errno == EFAULT && !rx->id, 0)) {
        wish_first(rx)->gone = true;
        errno = EINTR;
    }
    return got;
}

static __attribute__((cold, noinline)) void recv_failed(struct tcp_sock *sock, int cause)
{
    if (cause == EFAULT)
        tfr_fail(TFR_E_INVAL, "registered memory is not mapped: unregister it before it goes");
    tcp_link_fail(sock->link, cause == EBADMSG ? TFR_E_PROTO : TFR_E_PEER);
}

/* Takes what one system call brings: so many bytes. */
static size_t sock_take(struct tcp_sock *sock, struct tcp_dones *dones)
{
    struct tcp_rx *rx = &sock->rx;
    size_t rest = rx->left < TAKE_MAX ? (size_t)rx->left : TAKE_MAX;
    ssize_t got = bytes_read(sock, rest);
    uint64_t taken;

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        rx->idle++;
        return 0;
    }
    if (got <= 0) {
        recv_failed(sock, got < 0 ? errno : 0);
        return 0;
    }
    rx->idle = 0;
    dones->news = true;
    taken = atomic_load_explicit(&sock->link->taken, memory_order_relaxed);
    atomic_store_explicit(&sock->link->taken, taken + (uint64_t)got, memory_order_relaxed);
    rest = (size_t)got < rest ? (size_t)got : rest;
    rest_taken(rx, rest, dones);
    rx->till += (uint32_t)((size_t)got - rest);
    frames_take(sock, dones);
    return (size_t)got;
}

/* And what is left of the boxes that came with it, of which the descriptor does not tell. */
static size_t boxes_take(struct tcp_sock *sock, struct tcp_dones *dones)
{
    size_t all = 0, got;

    do {
        got = sock_take(sock, dones);
        all += got;
    } while (got && sock->crypt && tcp_crypt_unread(sock->crypt));
    return all;
}

/* Bytes under way and nothing heard for long: the host is dead, or the wire.  A limit of the
 * kernel's (TCP_USER_TIMEOUT) would end links whose peer only does not read for a while. */
static void host_look(struct tcp_link *link)
{
    uint64_t now = tfr_clock_now();

    if (now - link->looked_ns < HOST_LOOK_NS)
        return;
    link->looked_ns = now;
    for (uint32_t i = 0; i < link->sock_n; i++) {
        struct tcp_info info;
        socklen_t len = sizeof(info);
        if (getsockopt(link->socks[i].fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
            info.tcpi_unacked && info.tcpi_retransmits &&
            info.tcpi_last_ack_recv > link->silent_ms) {
            tcp_link_fail(link, tfr_fail(TFR_E_PEER,
                                         "the peer's host has not answered for %u ms: is the "
                                         "network between up, and that machine?",
                                         info.tcpi_last_ack_recv));
            return;
        }
    }
}

static void bulk_take(struct tcp_link *link, bool all, struct tcp_dones *dones)
{
    size_t taken = 0;

    for (uint32_t i = 1; i < link->sock_n && taken < TAKE_MAX / 2; i++) {
        struct tcp_sock *sock;
        link->turn = link->turn + 1 < link->sock_n ? link->turn + 1 : 1;
        sock = &link->socks[link->turn];
        if (!all && sock->rx.idle > IDLE_MAX)
            continue;
        taken += boxes_take(sock, dones);
        if (taken && !all)
            return;
    }
}

static void all_take(struct tcp_link *link, struct tcp_dones *dones)
{
    bool slept = atomic_load_explicit(&link->slept, memory_order_relaxed);
    uint32_t polls = link->polls++;

    if (slept)
        atomic_store_explicit(&link->slept, false, memory_order_relaxed);
    boxes_take(&link->socks[0], dones);
    if (link->sock_n > 1)
        bulk_take(link, slept || polls % ALL_EVERY == 0, dones);
    if (slept || polls % HOST_LOOK_EVERY == 0)
        host_look(link);
}

void tcp_rx_end(struct tcp_sock *sock, struct tcp_dones *dones)
{
    while (wish_first(&sock->rx))
        wish_done(&sock->rx, tcp_link_error(sock->link), dones);
    sock->rx.left = 0;
}

tfr_status tcp_progress(struct tfr_link *base)
{
    struct tcp_link *link = tcp_link_of(base);
    struct tcp_dones dones;

    if (atomic_exchange_explicit(&link->receiving, true, memory_order_acquire))
        return tcp_link_error(link); /* an unregistration is at it */
    dones.n = 0;
    dones.news = false;
    if (tcp_link_error(link) == TFR_OK)
        all_take(link, &dones);
    tcp_dones_run(link, &dones);
    for (uint32_t i = 0; i < link->sock_n; i++) {
        tcp_push_more(&link->socks[i], &dones);
        tcp_dones_run(link, &dones);
    }
    if (__builtin_expect(tcp_link_error(link) != TFR_OK, 0))
        tcp_link_end(link);
    atomic_store_explicit(&link->receiving, false, memory_order_release);
    return tcp_link_error(link);
}
