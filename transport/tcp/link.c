/* Plain networks, set-up and end of a link: sockets that connect.c has joined, buffers, and one
 * epoll descriptor over all of them to sleep on.  It is readable while there is anything to
 * progress, so a sleep needs no announcement. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/counter.h"
#include "base/log.h"
#include "transport/address.h"
#include "transport/tcp/tcp.h"

enum { HOST_LESS_MS = 500 }; /* than TFR_LOST_MS: the host is looked at now and then only */

static tfr_status tcp_prepare(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out)
{
    struct tcp_dev *dev;
    tfr_status status = tcp_dev_make(&dev);

    (void)cfg; /* the kernel's routes choose */
    if (status != TFR_OK)
        return status;
    dev->base.ops = &tfr_tcp_ops;
    *dev_out = &dev->base;
    return TFR_OK;
}

static void tcp_release(struct tfr_dev *dev)
{
    tcp_dev_free((struct tcp_dev *)dev);
}

static void sock_fini(struct tcp_sock *sock)
{
    close(sock->fd);
    pthread_mutex_destroy(&sock->tx.lock);
    free(sock->tx.out);
    free(sock->tx.ops);
    free(sock->rx.in);
    tcp_crypt_free(sock->crypt);
}

/* Takes the descriptor in any case. */
static tfr_status sock_init(struct tcp_sock *sock, struct tcp_link *link,
                            const struct tcp_joint *joint, uint32_t at)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP};

    sock->fd = joint->fds[at];
    sock->link = link;
    pthread_mutex_init(&sock->tx.lock, NULL);
    sock->tx.out = malloc(TCP_OUT_MAX);
    sock->tx.ops = malloc(TCP_OP_N * sizeof(*sock->tx.ops));
    sock->rx.in = malloc(TCP_IN_MAX);
    if (!sock->tx.out || !sock->tx.ops || !sock->rx.in)
        return tfr_fail(TFR_E_NOMEM, "buffers of a tcp link");
    if (epoll_ctl(link->poller, EPOLL_CTL_ADD, sock->fd, &event) < 0)
        return tfr_fail(TFR_E_SYS, "epoll: %s", strerror(errno));
    return joint->encrypt ? tcp_crypt_make(joint, at, &sock->crypt) : TFR_OK;
}

static void link_free(struct tcp_link *link)
{
    for (uint32_t i = 0; i < link->sock_n; i++)
        sock_fini(&link->socks[i]);
    if (link->poller >= 0)
        close(link->poller);
    if (link->news >= 0)
        close(link->news);
    pthread_mutex_destroy(&link->lock);
    free(link);
}

static tfr_status tcp_open(struct tfr_dev *base, struct tfr_boot *boot, bool first,
                           struct tfr_link **link_out)
{
    struct tcp_dev *dev = (struct tcp_dev *)base;
    struct tcp_link *link = calloc(1, sizeof(*link));
    struct epoll_event event = {.events = EPOLLIN};
    struct tcp_joint joint;
    tfr_status status;

    if (!link)
        return tfr_fail(TFR_E_NOMEM, "tcp link");
    link->base.ops = &tfr_tcp_ops;
    link->dev = dev;
    status = tcp_connect(boot, first, &joint);
    if (status != TFR_OK) {
        free(link);
        return status;
    }
    link->sock_n = joint.sock_n;
    link->silent_ms = tfr_address_lost_ms() - HOST_LESS_MS;
    pthread_mutex_init(&link->lock, NULL);
    link->poller = epoll_create1(EPOLL_CLOEXEC);
    link->news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (link->poller < 0 || link->news < 0 ||
        epoll_ctl(link->poller, EPOLL_CTL_ADD, link->news, &event) < 0)
        status = tfr_fail(TFR_E_SYS, "epoll: %s", strerror(errno));
    for (uint32_t i = 0; i < link->sock_n; i++) {
        tfr_status made = sock_init(&link->socks[i], link, &joint, i);
        status = status == TFR_OK ? made : status;
    }
    if (status != TFR_OK) {
        link_free(link);
        return status;
    }
    pthread_mutex_lock(&dev->lock);
    link->next = dev->links;
    dev->links = link;
    pthread_mutex_unlock(&dev->lock);
    tfr_info("tcp link: %u sockets, %s", link->sock_n,
             joint.encrypt ? "encrypted" : "in the clear");
    *link_out = &link->base;
    return TFR_OK;
}

void tcp_link_end(struct tcp_link *link)
{
    struct tcp_dones dones = {.n = 0};

    for (uint32_t i = 0; i < link->sock_n; i++) {
        tcp_tx_end(&link->socks[i], &dones);
        tcp_rx_end(&link->socks[i], &dones);
        tcp_dones_run(link, &dones);
    }
}

/* Out of the device's list, once no unregistration is at work with it. */
static void link_unlist(struct tcp_link *link)
{
    struct tcp_dev *dev = link->dev;
    struct tcp_link **at;

    pthread_mutex_lock(&dev->lock);
    while (link->users) {
        pthread_mutex_unlock(&dev->lock);
        sched_yield();
        pthread_mutex_lock(&dev->lock);
    }
    for (at = &dev->links; *at != link; at = &(*at)->next)
        continue;
    *at = link->next;
    pthread_mutex_unlock(&dev->lock);
}

/* What the kernel has by now still goes out, unless the peer's bytes lie here unread. */
static void tcp_close(struct tfr_link *base)
{
    struct tcp_link *link = tcp_link_of(base);
    struct tcp_dones dones = {.n = 0};

    link_unlist(link);
    for (uint32_t i = 0; i < link->sock_n; i++) {
        pthread_mutex_lock(&link->socks[i].tx.lock);
        tcp_push(&link->socks[i], UINT64_MAX, &dones);
        pthread_mutex_unlock(&link->socks[i].tx.lock);
        tcp_dones_run(link, &dones);
    }
    tcp_link_fail(link, TFR_E_PEER);
    tcp_link_end(link);
    link_free(link);
}

/* Bytes that wait in a socket wake everybody, but those that one thread has taken may be what
 * another sleeps for.  Each of that one's stores and this one's arm comes before the look at the
 * other's. */
void tcp_news(struct tcp_link *link)
{
    uint64_t one = 1;

    /* one of this and the same in tcp_arm comes first, and is seen by the other */
    if (!atomic_fetch_add_explicit(&link->armed, 0, memory_order_acq_rel))
        return;
    pthread_mutex_lock(&link->lock);
    link->owed = atomic_load_explicit(&link->armed, memory_order_relaxed);
    link->tells++;
    if (link->owed && !link->told)
        link->told = write(link->news, &one, sizeof(one)) == sizeof(one);
    pthread_mutex_unlock(&link->lock);
}

/* Of this thread, while it is armed: which tell it has not missed. */
static __thread uint32_t armed_at __attribute__((tls_model("initial-exec")));

static tfr_status tcp_arm(struct tfr_link *base, int *fd_out)
{
    struct tcp_link *link = tcp_link_of(base);
    tfr_status status = tcp_link_error(link);

    if (status != TFR_OK)
        return status;
    pthread_mutex_lock(&link->lock);
    atomic_fetch_add_explicit(&link->armed, 1, memory_order_acq_rel); /* see tcp_news */
    armed_at = link->tells;
    pthread_mutex_unlock(&link->lock);
    TFR_COUNT(sleeps, 1);
    *fd_out = link->poller;
    return TFR_OK;
}

/* The last one of those who were told drains: whoever came later has looked by himself, and would
 * not get any sleep.  The next progress looks at all sockets. */
static void tcp_disarm(struct tfr_link *base)
{
    struct tcp_link *link = tcp_link_of(base);
    uint64_t n;

    pthread_mutex_lock(&link->lock);
    atomic_fetch_sub_explicit(&link->armed, 1, memory_order_relaxed);
    if (armed_at != link->tells)
        link->owed--;
    if (!link->owed && link->told)
        link->told = read(link->news, &n, sizeof(n)) < 0;
    pthread_mutex_unlock(&link->lock);
    atomic_store_explicit(&link->slept, true, memory_order_relaxed);
}

static void tcp_forked(struct tfr_link *base)
{
    struct tcp_link *link = tcp_link_of(base);

    for (uint32_t i = 0; i < link->sock_n; i++)
        close(link->socks[i].fd);
    close(link->poller);
    close(link->news);
}

struct tfr_transport_ops tfr_tcp_ops = {
    .name = "tcp",
    .caps = TFR_CAP_GET | TFR_CAP_SLEEP | TFR_CAP_ANY_LOCAL,
    .prepare = tcp_prepare,
    .release = tcp_release,
    .reg = tcp_reg,
    .unreg = tcp_unreg,
    .key = tcp_key,
    .offer = tcp_offer,
    .open = tcp_open,
    .close = tcp_close,
    .import = tcp_import,
    .forget = tcp_forget,
    .put = tcp_put,
    .get = tcp_get,
    .progress = tcp_progress,
    .busy = tcp_busy,
    .count = tcp_count,
    .arm = tcp_arm,
    .disarm = tcp_disarm,
    .forked = tcp_forked,
};
