/* UCX, the life of a link: worker, memory of the peer, sleeping, and the end.  Endpoints are closed
 * in order, ours first flushed of what it carries, because a lost peer costs UCX more care than one
 * that said goodbye. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/counter.h"
#include "base/log.h"
#include "transport/boot.h"
#include "transport/ucx/ucx.h"

enum { ARM_TRIES = 1000 };

#define NAP_NS   (20 * TFR_NS_PER_US)
#define DEAD_NS  TFR_NS_PER_S /* a dead link gives back what it took by then */
#define BYE_NS   TFR_NS_PER_S /* for what is under way when a link is closed */
#define CLOSE_NS (TFR_NS_PER_S / 2)

static void nap(void)
{
    const struct timespec time = {.tv_nsec = (long)NAP_NS};

    clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL);
}

static bool settled(struct ucx_link *link)
{
    bool idle;

    pthread_mutex_lock(&link->lock);
    idle = link->spare_n == UCX_OPS;
    pthread_mutex_unlock(&link->lock);
    return idle;
}

/* Closes an endpoint; NULL: done, or it cannot be waited for. */
static ucs_status_ptr_t ep_close(struct ucx_link *link, ucp_ep_h ep)
{
    ucp_request_param_t param = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
        .flags = link->err_peer ? UCP_EP_CLOSE_FLAG_FORCE : 0,
    };
    ucs_status_ptr_t request = ucp_ep_close_nbx(ep, &param);

    return UCS_PTR_IS_PTR(request) ? request : NULL;
}

void ucx_eps_close(struct ucx_link *link, uint64_t limit_ns)
{
    uint64_t until = tfr_clock_now() + limit_ns;

    for (int i = 0; i < UCX_EPS; i++) {
        ucs_status_ptr_t request = link->eps[i] ? ep_close(link, link->eps[i]) : NULL;
        link->eps[i] = NULL;
        if (!request)
            continue;
        while (ucp_request_check_status(request) == UCS_INPROGRESS && tfr_clock_now() < until)
            if (!ucp_worker_progress(link->worker))
                nap();
        ucp_request_free(request);
    }
}

static void peers_drop(struct ucx_link *link)
{
    for (struct ucx_peer_mem *peer = link->peers; peer; peer = peer->next) {
        for (int i = 0; i < UCX_EPS && peer->ready; i++)
            ucp_rkey_destroy(peer->rkeys[i]);
        peer->ready = false;
    }
}

/* Takes from UCX what it has.  Without a worker nothing moves any more. */
static void worker_end(struct ucx_link *link)
{
    ucp_worker_destroy(link->worker);
    link->worker = NULL;
    for (int i = 0; i < UCX_OPS; i++) {
        if (link->ops[i].posted)
            ucx_op_finish(&link->ops[i], TFR_E_PEER);
        link->ops[i].posted = false;
    }
    link->posted = 0;
}

void ucx_link_fail(struct ucx_link *link)
{
    ucx_channels_advance(link); /* fails what waits */
    if (!link->worker || link->failed)
        return;
    link->failed = true;
    peers_drop(link);
    if (link->err_peer)
        ucx_eps_close(link, 0); /* what UCX has ends as cancelled, by and by */
    else
        worker_end(link);
}

void ucx_settle(struct ucx_link *link, const _Atomic uint32_t *busy)
{
    uint64_t dead_ns = 0;

    while (atomic_load_explicit(busy, memory_order_acquire) && !settled(link)) {
        nap();
        if (ucx_progress(&link->base) == TFR_OK)
            continue;
        dead_ns = dead_ns ? dead_ns : tfr_clock_now() + DEAD_NS;
        if (tfr_clock_now() < dead_ns)
            continue;
        pthread_mutex_lock(&link->lock);
        if (link->worker)
            worker_end(link);
        pthread_mutex_unlock(&link->lock);
        ucx_done_run(link);
    }
}

static tfr_status worker_make(struct ucx_link *link)
{
    const ucp_worker_params_t params = {
        .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE | UCP_WORKER_PARAM_FIELD_CLIENT_ID,
        .thread_mode = UCS_THREAD_MODE_SERIALIZED,
        .client_id = link->own_id,
    };
    const ucp_am_handler_param_t handler = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                      UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = UCX_AM,
        .cb = ucx_am_recv,
        .arg = link,
    };
    ucs_status_t status = ucp_worker_create(link->dev->context, &params, &link->worker);

    if (status != UCS_OK)
        return tfr_fail(TFR_E_SYS, "ucx worker: %s", ucs_status_string(status));
    status = ucp_worker_set_am_recv_handler(link->worker, &handler);
    if (status == UCS_OK)
        return TFR_OK;
    ucp_worker_destroy(link->worker);
    return tfr_fail(TFR_E_SYS, "ucx active messages: %s", ucs_status_string(status));
}

static bool watch(struct ucx_link *link, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events};

    return fd >= 0 && epoll_ctl(link->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

static void sleep_fini(struct ucx_link *link)
{
    if (link->sock >= 0)
        close(link->sock);
    if (link->event >= 0)
        close(link->event);
    if (link->epoll >= 0)
        close(link->epoll);
}

static tfr_status sleep_init(struct ucx_link *link, const struct tfr_boot *boot)
{
    int fd = -1;

    link->sock = fcntl(boot->fd, F_DUPFD_CLOEXEC, 3);
    link->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    link->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (link->epoll >= 0 && ucp_worker_get_efd(link->worker, &fd) == UCS_OK &&
        watch(link, fd, EPOLLIN) && watch(link, link->event, EPOLLIN) &&
        watch(link, link->sock, EPOLLRDHUP))
        return TFR_OK;
    tfr_fail(TFR_E_SYS, "descriptors of the ucx link: %s", strerror(errno));
    sleep_fini(link);
    return TFR_E_SYS;
}

static void link_init(struct ucx_link *link, struct ucx_dev *dev)
{
    link->base.ops = &tfr_ucx_ops;
    link->dev = dev;
    link->err_peer = !dev->shm_only;
    pthread_mutex_init(&link->lock, NULL);
    ucx_queue_init(&link->finished);
    for (int i = 0; i < TFR_CHANNELS; i++) {
        link->channels[i].link = link;
        ucx_queue_init(&link->channels[i].queue);
    }
    for (int i = 0; i < UCX_OPS; i++) {
        link->ops[i].next = link->spare;
        link->spare = &link->ops[i];
    }
    link->spare_n = UCX_OPS;
    for (int i = 0; i < UCX_BATCHES; i++) {
        link->batch_pool[i].next = link->batches;
        link->batches = &link->batch_pool[i];
    }
}

/* What was shown before there was a link. */
static void keys_push(struct ucx_link *link)
{
    pthread_mutex_lock(&link->lock);
    pthread_mutex_lock(&link->dev->lock);
    for (int i = 0; i < UCX_MEMS; i++) {
        struct ucx_mem *mem = link->dev->mems[i];
        if (mem && atomic_load_explicit(&mem->shown, memory_order_relaxed))
            ucx_key_send(link, mem);
    }
    pthread_mutex_unlock(&link->dev->lock);
    pthread_mutex_unlock(&link->lock);
}

static void dev_add(struct ucx_link *link)
{
    pthread_mutex_lock(&link->dev->links_lock);
    link->next = link->dev->links;
    link->dev->links = link;
    keys_push(link);
    pthread_mutex_unlock(&link->dev->links_lock);
}

static void dev_remove(struct ucx_link *link)
{
    struct ucx_link **at = &link->dev->links;

    pthread_mutex_lock(&link->dev->links_lock);
    while (*at != link)
        at = &(*at)->next;
    *at = link->next;
    pthread_mutex_unlock(&link->dev->links_lock);
}

/* UCX starts threads for the worker's events; signals are the application's. */
static tfr_status worker_join(struct ucx_link *link, struct tfr_boot *boot, bool first)
{
    sigset_t all, old;
    tfr_status status;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    status = worker_make(link);
    if (status != TFR_OK)
        goto unmask;
    status = sleep_init(link, boot);
    if (status != TFR_OK)
        goto destroy;
    status = ucx_join(link, boot, first);
    if (status == TFR_OK)
        goto unmask;
    sleep_fini(link);
destroy:
    ucp_worker_destroy(link->worker);
unmask:
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return status;
}

tfr_status ucx_open(struct tfr_dev *dev, struct tfr_boot *boot, bool first,
                    struct tfr_link **link_out)
{
    struct ucx_link *link = calloc(1, sizeof(*link));
    tfr_status status;

    if (!link)
        return tfr_fail(TFR_E_NOMEM, "ucx link");
    link_init(link, (struct ucx_dev *)dev);
    if (getrandom(&link->own_id, sizeof(link->own_id), 0) != sizeof(link->own_id))
        tfr_warn("getrandom: %s", strerror(errno));
    status = worker_join(link, boot, first);
    if (status != TFR_OK) {
        ucx_early_free(link);
        pthread_mutex_destroy(&link->lock);
        free(link);
        return status;
    }
    dev_add(link);
    *link_out = &link->base;
    return TFR_OK;
}

/* Tells the peer, and lets what UCX has leave. */
static void goodbye(struct ucx_link *link)
{
    const struct ucx_head bye = {.msg = UCX_MSG_BYE};
    uint64_t until = tfr_clock_now() + BYE_NS;

    if (ucx_error_of(link) != TFR_OK)
        return;
    ucx_msg_send(link, &bye, NULL, NULL, 0, false);
    while (link->posted && ucx_error_of(link) == TFR_OK && tfr_clock_now() < until)
        if (!ucp_worker_progress(link->worker))
            nap();
    if (link->posted)
        tfr_info("ucx: closed with %u transfers under way", link->posted);
}

void ucx_close(struct tfr_link *base)
{
    struct ucx_link *link = ucx_link_of(base);

    dev_remove(link);
    pthread_mutex_lock(&link->lock);
    goodbye(link);
    ucx_error_note(link, TFR_E_PEER);
    ucx_channels_advance(link); /* fails what waits */
    if (link->worker && !link->failed) {
        peers_drop(link);
        ucx_eps_close(link, CLOSE_NS);
    }
    if (link->worker)
        worker_end(link);
    for (struct ucx_peer_mem *peer = link->peers; peer; peer = peer->next)
        peer->link = NULL;
    pthread_mutex_unlock(&link->lock);
    ucx_done_run(link);
    ucx_early_free(link);
    sleep_fini(link);
    pthread_mutex_destroy(&link->lock);
    free(link);
}

/* UCX does not tell what else it has open; the boot socket and BYE speak for the parent. */
void ucx_forked(struct tfr_link *base)
{
    sleep_fini(ucx_link_of(base));
}

tfr_status ucx_import(struct tfr_link *base, const struct tfr_key *key,
                      struct tfr_peer_mem **peer_out)
{
    struct ucx_link *link = ucx_link_of(base);
    struct ucx_peer_mem *peer;

    if (key->fd >= 0)
        close(key->fd);
    if (key->len == 0 || key->fd >= 0 || key->words[1] != UCX_KEY)
        return tfr_fail(TFR_E_PROTO, "the peer's key for %llu bytes is not one of ucx",
                        (unsigned long long)key->len);
    peer = calloc(1, sizeof(*peer));
    if (!peer)
        return tfr_fail(TFR_E_NOMEM, "imported memory");
    peer->base.ops = &tfr_ucx_ops;
    peer->base.len = key->len;
    peer->link = link;
    peer->name = key->words[0];
    pthread_mutex_lock(&link->lock);
    while (link->worker && ucp_worker_progress(link->worker))
        ;
    peer->next = link->peers;
    link->peers = peer;
    if (link->worker)
        ucx_key_find(link, peer);
    pthread_mutex_unlock(&link->lock);
    *peer_out = &peer->base;
    return TFR_OK;
}

void ucx_forget(struct tfr_peer_mem *base)
{
    struct ucx_peer_mem *peer = (struct ucx_peer_mem *)base;
    struct ucx_link *link = peer->link;
    struct ucx_peer_mem **at;

    while (link && atomic_load_explicit(&peer->busy, memory_order_acquire)) {
        ucx_settle(link, &peer->busy);
    }
    if (link) {
        pthread_mutex_lock(&link->lock);
        for (at = &link->peers; *at != peer;)
            at = &(*at)->next;
        *at = peer->next;
        for (int i = 0; i < UCX_EPS && peer->ready; i++)
            ucp_rkey_destroy(peer->rkeys[i]);
        pthread_mutex_unlock(&link->lock);
    }
    free(peer);
}

/* With the lock held.  UCX arms only when there is nothing to progress; what comes while it arms a
 * completion queue rings for nobody, so we look once more. */
static void worker_arm(struct ucx_link *link)
{
    const uint64_t one = 1;

    for (int i = 0; i < ARM_TRIES; i++) {
        while (ucp_worker_progress(link->worker))
            ;
        ucx_channels_advance(link);
        if (ucp_worker_arm(link->worker) != UCS_ERR_BUSY && !ucp_worker_progress(link->worker))
            return;
    }
    if (!link->told)
        link->told = write(link->event, &one, sizeof(one)) == sizeof(one);
}

tfr_status ucx_arm(struct tfr_link *base, int *fd_out)
{
    struct ucx_link *link = ucx_link_of(base);
    tfr_status status = ucx_progress(base);

    if (status != TFR_OK)
        return status;
    pthread_mutex_lock(&link->lock);
    link->armed++;
    ucx_life_look(link);
    if (link->worker)
        worker_arm(link);
    pthread_mutex_unlock(&link->lock);
    ucx_done_run(link);
    TFR_COUNT(sleeps, 1);
    *fd_out = link->epoll;
    return TFR_OK;
}

void ucx_disarm(struct tfr_link *base)
{
    struct ucx_link *link = ucx_link_of(base);
    const struct tfr_boot boot = {.fd = link->sock};
    uint64_t told;

    pthread_mutex_lock(&link->lock);
    if (tfr_boot_gone(&boot))
        ucx_peer_lost(link, "the boot connection has ended", UCS_ERR_CONNECTION_RESET);
    if (--link->armed == 0 && link->told)
        link->told = read(link->event, &told, sizeof(told)) != sizeof(told);
    pthread_mutex_unlock(&link->lock);
}
