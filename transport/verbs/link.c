/* A link's parts, what they are made of and how they end; joining is open.c's. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/relax.h"
#include "transport/verbs/cm.h"

enum { PAGE = 4096 };
#define LINGER_NS (TFR_NS_PER_S / 4)

tfr_status verbs_pages_make(struct verbs_link *link)
{
    struct verbs_dev *dev = link->dev;
    void *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (pages == MAP_FAILED)
        return tfr_fail(TFR_E_NOMEM, "verbs link");
    madvise(pages, 2 * PAGE, MADV_DONTFORK);
    link->ctl = pages;
    link->own = (void *)((char *)pages + PAGE);
    link->own->one = 1;
    for (uint32_t i = 0; i < dev->nic_n; i++) {
        link->ctl_mrs[i] =
            ibv_reg_mr(dev->nics[i].pd, link->ctl, PAGE,
                       IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ);
        link->own_mrs[i] = ibv_reg_mr(dev->nics[i].pd, link->own, PAGE, IBV_ACCESS_LOCAL_WRITE);
        if (!link->ctl_mrs[i] || !link->own_mrs[i])
            return verbs_reg_failed(PAGE, errno);
    }
    return TFR_OK;
}

bool verbs_watch(const struct verbs_link *link, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events};

    return epoll_ctl(link->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* The boot socket is watched through a descriptor of our own. */
tfr_status verbs_descriptors_make(struct verbs_link *link, const struct tfr_boot *boot)
{
    link->epoll = epoll_create1(EPOLL_CLOEXEC);
    link->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    link->boot = fcntl(boot->fd, F_DUPFD_CLOEXEC, 0);
    if (link->epoll < 0 || link->timer < 0 || link->boot < 0 ||
        !verbs_watch(link, link->timer, EPOLLIN) || !verbs_watch(link, link->boot, EPOLLRDHUP))
        return tfr_fail(TFR_E_SYS, "verbs link: descriptors: %s", strerror(errno));
    return TFR_OK;
}

tfr_status verbs_cqs_make(struct verbs_link *link, uint32_t nic)
{
    struct ibv_context *ctx = link->dev->nics[nic].ctx;
    struct verbs_rail_cqs *cqs = &link->cqs[nic];
    int most = link->dev->nics[nic].attr.max_cqe;
    int vector = ctx->num_comp_vectors > 0 ? getpid() % ctx->num_comp_vectors : 0; /* of many */
    int sends = (int)(verbs_conf()->depth + EXTRA_MAX) * TFR_CHANNELS + LAND_N;

    if (cqs->events)
        return TFR_OK;
    cqs->events = ibv_create_comp_channel(ctx);
    if (!cqs->events)
        return tfr_fail(TFR_E_SYS, "verbs: completion channel: %s", strerror(errno));
    fcntl(cqs->events->fd, F_SETFL, fcntl(cqs->events->fd, F_GETFL) | O_NONBLOCK);
    cqs->send = ibv_create_cq(ctx, sends < most ? sends : most, link, cqs->events, vector);
    cqs->recv = ibv_create_cq(ctx, RECV_N * TFR_CHANNELS, link, cqs->events, vector);
    if (!cqs->send || !cqs->recv)
        return verbs_reg_failed((size_t)sends * 64, errno);
    if (!verbs_watch(link, cqs->events->fd, EPOLLIN) || !verbs_watch(link, ctx->async_fd, EPOLLIN))
        return tfr_fail(TFR_E_SYS, "verbs link: descriptors: %s", strerror(errno));
    return TFR_OK;
}

static void channel_free(struct verbs_channel *channel)
{
    if (channel->qp)
        ibv_destroy_qp(channel->qp);
    if (channel->bounce_mr)
        ibv_dereg_mr(channel->bounce_mr);
    if (channel->bounce)
        munmap(channel->bounce, (size_t)channel->depth * sizeof(struct verbs_note));
    free(channel->flights);
}

void verbs_link_free(struct verbs_link *link)
{
    verbs_cm_free(link);
    for (int i = 0; i < TFR_CHANNELS; i++)
        channel_free(&link->channels[i]);
    for (int i = 0; i < VERBS_NIC_MAX; i++) {
        struct verbs_rail_cqs *cqs = &link->cqs[i];
        if (link->loops[i])
            ibv_destroy_qp(link->loops[i]);
        if (cqs->send)
            ibv_destroy_cq(cqs->send);
        if (cqs->recv)
            ibv_destroy_cq(cqs->recv);
        if (cqs->events)
            ibv_destroy_comp_channel(cqs->events);
        if (link->ctl_mrs[i])
            ibv_dereg_mr(link->ctl_mrs[i]);
        if (link->own_mrs[i])
            ibv_dereg_mr(link->own_mrs[i]);
    }
    verbs_inbox_free(link);
    if (link->ctl)
        munmap(link->ctl, 2 * PAGE);
    for (int i = 0; i < 3; i++) {
        int fd = i == 0 ? link->epoll : i == 1 ? link->timer : link->boot;
        if (fd >= 0)
            close(fd);
    }
    pthread_mutex_destroy(&link->poll);
    pthread_mutex_destroy(&link->lock);
    free(link);
}

struct verbs_link *verbs_link_new(struct verbs_dev *dev)
{
    struct verbs_link *link = aligned_alloc(64, (sizeof(*link) + 63) & ~(size_t)63);

    if (!link)
        return NULL;
    memset(link, 0, sizeof(*link));
    link->base.ops = &verbs_ops;
    link->dev = dev;
    link->epoll = link->timer = link->boot = -1;
    link->looked_ns = tfr_clock_now();
    pthread_mutex_init(&link->poll, NULL);
    pthread_mutex_init(&link->lock, NULL);
    return link;
}

/* ---- the end ---- */

static bool is_quiet(const struct verbs_link *link)
{
    if (verbs_landings_busy(link))
        return false;
    for (int i = 0; i < TFR_CHANNELS; i++) {
        const struct verbs_channel *channel = &link->channels[i];
        if (atomic_load_explicit(&channel->filled, memory_order_relaxed) !=
                atomic_load_explicit(&channel->retired, memory_order_relaxed) ||
            atomic_load_explicit(&channel->extras, memory_order_relaxed))
            return false;
    }
    return true;
}

/* With link->poll held. */
static void quiet_wait(struct verbs_link *link, uint64_t limit_ns)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    uint64_t until = tfr_clock_now() + limit_ns;

    while (!is_quiet(link) && tfr_clock_now() < until) {
        verbs_poll_locked(link);
        for (int i = 0; i < TFR_CHANNELS && verbs_error(link) == TFR_OK; i++)
            verbs_end_ask(&link->channels[i], true, true);
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
    }
}

/* What was put gets a moment to arrive, and behind it the peer is told; then nothing moves. */
void verbs_close(struct tfr_link *base)
{
    struct verbs_link *link = verbs_link_of(base);
    struct verbs_link **at = &link->dev->links;
    const uint32_t wake = 0;

    pthread_mutex_lock(&link->dev->lock);
    while (*at && *at != link)
        at = &(*at)->next;
    if (*at)
        *at = link->next;
    pthread_mutex_unlock(&link->dev->lock);
    pthread_mutex_lock(&link->poll);
    if (verbs_error(link) == TFR_OK) {
        quiet_wait(link, LINGER_NS);
        verbs_extra(&link->channels[0], &link->own->one, offsetof(struct verbs_ctl, closed), &wake);
        if (!link->imm_ok)
            verbs_extra(&link->channels[0], NULL, 0, &wake);
        quiet_wait(link, LINGER_NS);
    }
    verbs_fail(link, TFR_E_PEER, NULL);
    quiet_wait(link, TFR_NS_PER_S);
    verbs_abandon(link);
    pthread_mutex_unlock(&link->poll);
    verbs_link_free(link);
}

/* Verbs objects live as long as any process has their descriptor. */
void verbs_forked(struct tfr_link *base)
{
    struct verbs_link *link = verbs_link_of(base);

    close(link->epoll);
    close(link->timer);
    close(link->boot);
    if (link->cm)
        close(verbs_cm_fd(link));
    for (uint32_t i = 0; i < link->dev->nic_n; i++) {
        if (link->cqs[i].events)
            close(link->cqs[i].events->fd);
        close(link->dev->nics[i].ctx->async_fd);
        close(link->dev->nics[i].ctx->cmd_fd);
    }
}
