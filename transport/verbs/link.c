/* Joining two processes.  Over the boot socket each side says four things, each with its status, so
 * that both sides give up at the same step: what ports its device has (both then choose the same
 * rails); queue pairs and the keys of its page; that its queue pairs are up; and whether it and the
 * peer could write to each other.  Addresses of the boot socket play no part. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/relax.h"
#include "transport/verbs/cm.h"

enum { OPEN_MS = 3000, READS_MAX = 16, PAGE = 4096 };
#define PROOF_NS  (2 * TFR_NS_PER_S)
#define LINGER_NS (TFR_NS_PER_S / 4)

struct msg_ports {
    int32_t status, reserved;
    struct verbs_offer offer;
};
struct msg_pairs {
    int32_t status;
    uint8_t reads, reserved[3];
    uint64_t ctl;
    uint64_t inbox; /* 0: AFTER goes by memory */
    uint32_t ctl_rkeys[VERBS_NIC_MAX];
    uint32_t inbox_rkeys[VERBS_NIC_MAX];
    struct verbs_qp_attr pairs[TFR_CHANNELS];
};
struct msg_status {
    int32_t status;
};
struct msg_place {
    int32_t status;
    struct verbs_cm_place place;
};

/* Tells our message, whose first word is our status, and takes the peer's. */
static tfr_status swap(struct tfr_boot *boot, const void *ours, void *theirs, size_t len)
{
    struct tfr_boot_msg out = {
        .type = TFR_BOOT_LINK, .len = (uint32_t)len, .body = (void *)(uintptr_t)ours};
    struct tfr_boot_msg in;
    tfr_status status = tfr_boot_send(boot, &out, OPEN_MS), own;

    memcpy(&own, ours, sizeof(own));
    if (status == TFR_OK)
        status = tfr_boot_recv(boot, &in, OPEN_MS);
    if (status != TFR_OK)
        return tfr_fail(status, "verbs link: %s", tfr_status_str(status));
    if (in.type != TFR_BOOT_LINK || in.len != len)
        status = tfr_fail(TFR_E_PROTO, "verbs link: unexpected boot message %#x", in.type);
    else
        memcpy(theirs, in.body, len);
    tfr_boot_msg_fini(&in);
    if (status != TFR_OK || own != TFR_OK)
        return status != TFR_OK ? status : own;
    memcpy(&status, theirs, sizeof(status));
    if (status != TFR_OK)
        return tfr_fail(TFR_E_UNSUP, "verbs link: the other side could not set it up");
    return TFR_OK;
}

/* ---- parts of a link ---- */

static tfr_status pages_make(struct verbs_link *link)
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

static bool watch(const struct verbs_link *link, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events};

    return epoll_ctl(link->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* The boot socket is watched through a descriptor of our own. */
static tfr_status descriptors_make(struct verbs_link *link, const struct tfr_boot *boot)
{
    link->epoll = epoll_create1(EPOLL_CLOEXEC);
    link->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    link->boot = fcntl(boot->fd, F_DUPFD_CLOEXEC, 0);
    if (link->epoll < 0 || link->timer < 0 || link->boot < 0 ||
        !watch(link, link->timer, EPOLLIN) || !watch(link, link->boot, EPOLLRDHUP))
        return tfr_fail(TFR_E_SYS, "verbs link: descriptors: %s", strerror(errno));
    return TFR_OK;
}

static tfr_status cqs_make(struct verbs_link *link, uint32_t nic)
{
    struct ibv_context *ctx = link->dev->nics[nic].ctx;
    struct verbs_rail_cqs *cqs = &link->cqs[nic];
    int most = link->dev->nics[nic].attr.max_cqe;
    int sends = (int)(verbs_conf()->depth + EXTRA_MAX) * TFR_CHANNELS + LAND_N;

    if (cqs->events)
        return TFR_OK;
    cqs->events = ibv_create_comp_channel(ctx);
    if (!cqs->events)
        return tfr_fail(TFR_E_SYS, "verbs: completion channel: %s", strerror(errno));
    fcntl(cqs->events->fd, F_SETFL, fcntl(cqs->events->fd, F_GETFL) | O_NONBLOCK);
    cqs->send = ibv_create_cq(ctx, sends < most ? sends : most, link, cqs->events, 0);
    cqs->recv = ibv_create_cq(ctx, RECV_N * TFR_CHANNELS, link, cqs->events, 0);
    if (!cqs->send || !cqs->recv)
        return verbs_reg_failed((size_t)sends * 64, errno);
    if (!watch(link, cqs->events->fd, EPOLLIN) || !watch(link, ctx->async_fd, EPOLLIN))
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

static void link_free(struct verbs_link *link)
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

static struct verbs_link *link_new(struct verbs_dev *dev)
{
    struct verbs_link *link = aligned_alloc(64, (sizeof(*link) + 63) & ~(size_t)63);

    if (!link)
        return NULL;
    memset(link, 0, sizeof(*link));
    link->base.ops = &verbs_ops;
    link->dev = dev;
    link->epoll = link->timer = link->boot = -1;
    pthread_mutex_init(&link->poll, NULL);
    pthread_mutex_init(&link->lock, NULL);
    return link;
}

/* ---- the steps ---- */

struct opening {
    struct verbs_link *link;
    struct tfr_boot *boot;
    struct msg_ports own, peer;
    struct msg_pairs own_pairs, peer_pairs;
    struct verbs_rail rails[VERBS_NIC_MAX];
    uint32_t rail_n;
};

static const struct verbs_rail *rail_of(const struct opening *o, int channel)
{
    return &o->rails[channel ? (uint32_t)(channel - 1) % o->rail_n : 0];
}

static tfr_status rails_choose(struct opening *o, bool first)
{
    struct tfr_offer offer = {.len = sizeof(o->peer.offer)};
    const char *why = NULL;
    tfr_status status;

    o->own.offer = o->link->dev->offer;
    status = swap(o->boot, &o->own, &o->peer, sizeof(o->own));
    if (status != TFR_OK)
        return status;
    memcpy(offer.body, &o->peer.offer, sizeof(o->peer.offer));
    if (!verbs_offer_read(&offer, &o->peer.offer))
        return tfr_fail(TFR_E_PROTO, "verbs link: the other side's ports make no sense");
    if (!verbs_match(&o->own.offer, &o->peer.offer, first, o->rails, &o->rail_n, &why))
        return tfr_fail(TFR_E_UNSUP, "verbs link: %s", why);
    return TFR_OK;
}

static uint8_t reads_of(const struct verbs_dev *dev)
{
    int most = READS_MAX;

    for (uint32_t i = 0; i < dev->nic_n; i++) {
        most = dev->nics[i].attr.max_qp_rd_atom < most ? dev->nics[i].attr.max_qp_rd_atom : most;
        most = dev->nics[i].attr.max_qp_init_rd_atom < most ? dev->nics[i].attr.max_qp_init_rd_atom
                                                            : most;
    }
    return most < 1 ? 1 : (uint8_t)most;
}

static tfr_status channel_make(struct opening *o, int i)
{
    struct verbs_link *link = o->link;
    struct verbs_channel *channel = &link->channels[i];
    const struct verbs_rail *rail = rail_of(o, i);
    const struct verbs_port *own = &o->own.offer.ports[rail->own];
    struct ibv_port_attr attr;
    tfr_status status;

    channel->link = link;
    channel->at = (uint8_t)i;
    channel->own_nic = own->nic;
    channel->port = own->port;
    channel->peer_nic = o->peer.offer.ports[rail->peer].nic;
    if (ibv_query_port(link->dev->nics[own->nic].ctx, own->port, &attr) != 0)
        return tfr_fail(TFR_E_SYS, "verbs: port %u: %s", own->port, strerror(errno));
    channel->len_max = attr.max_msg_sz;
    status = cqs_make(link, own->nic);
    if (status == TFR_OK)
        status = verbs_qp_make(channel);
    if (status != TFR_OK)
        return status;
    o->own_pairs.pairs[i].qpn = channel->qp->qp_num;
    if (getrandom(&o->own_pairs.pairs[i].psn, sizeof(uint32_t), GRND_NONBLOCK) < 0)
        o->own_pairs.pairs[i].psn = (uint32_t)tfr_clock_now();
    return TFR_OK;
}

static tfr_status pairs_take(struct opening *o)
{
    struct verbs_link *link = o->link;

    link->peer_ctl = o->peer_pairs.ctl;
    memcpy(link->peer_ctl_rkeys, o->peer_pairs.ctl_rkeys, sizeof(link->peer_ctl_rkeys));
    link->peer_inbox.at = o->peer_pairs.inbox;
    memcpy(link->peer_inbox.rkeys, o->peer_pairs.inbox_rkeys, sizeof(link->peer_inbox.rkeys));
    if (!o->peer_pairs.inbox == !link->inbox)
        return TFR_OK;
    return tfr_fail(TFR_E_UNSUP, "verbs link: TFR_VERBS_NOTIFY is not the same on both sides");
}

static tfr_status pairs_make(struct opening *o)
{
    struct verbs_link *link = o->link;
    const struct verbs_port *port = &o->own.offer.ports[o->rails[0].own];
    tfr_status status = pages_make(link);

    link->imm_ok = port->notify != VERBS_NOTIFY_SEND;
    link->notes = port->notify == VERBS_NOTIFY_IMM;
    if (status == TFR_OK && link->notes)
        status = verbs_inbox_make(link);
    for (int i = 0; i < TFR_CHANNELS && status == TFR_OK; i++)
        status = channel_make(o, i);
    o->own_pairs.status = status;
    o->own_pairs.reads = reads_of(link->dev);
    o->own_pairs.ctl = (uintptr_t)link->ctl;
    o->own_pairs.inbox = (uintptr_t)link->inbox;
    for (int i = 0; i < VERBS_NIC_MAX; i++) {
        o->own_pairs.ctl_rkeys[i] = link->ctl_mrs[i] ? link->ctl_mrs[i]->rkey : 0;
        o->own_pairs.inbox_rkeys[i] = link->inbox_mrs[i] ? link->inbox_mrs[i]->rkey : 0;
    }
    status = swap(o->boot, &o->own_pairs, &o->peer_pairs, sizeof(o->own_pairs));
    return status == TFR_OK ? pairs_take(o) : status;
}

static tfr_status attrs_connect(struct opening *o, uint8_t reads)
{
    tfr_status status = TFR_OK;

    for (int i = 0; i < TFR_CHANNELS && status == TFR_OK; i++) {
        struct verbs_channel *channel = &o->link->channels[i];
        const struct verbs_rail *rail = rail_of(o, i);
        status = verbs_qp_connect(channel->qp, &o->own.offer.ports[rail->own],
                                  &o->peer.offer.ports[rail->peer], &o->own_pairs.pairs[i],
                                  &o->peer_pairs.pairs[i], reads);
        if (status == TFR_OK)
            status = verbs_recvs_post(channel, RECV_N);
    }
    return status;
}

/* The worker's place travels first; the client's message says only whether it is ready. */
static tfr_status cm_connect(struct opening *o, bool first, uint8_t reads)
{
    struct msg_place ours = {0}, theirs;
    tfr_status status;

    ours.status = verbs_cm_make(o->link);
    if (ours.status == TFR_OK && !first)
        ours.status = verbs_cm_listen(o->link, o->rails, o->rail_n, &o->own.offer, &ours.place);
    if (ours.status == TFR_OK && !watch(o->link, verbs_cm_fd(o->link), EPOLLIN))
        ours.status = tfr_fail(TFR_E_SYS, "verbs link: descriptors: %s", strerror(errno));
    status = swap(o->boot, &ours, &theirs, sizeof(ours));
    if (status != TFR_OK)
        return status;
    return first ? verbs_cm_connect(o->link, &theirs.place, o->rail_n, reads)
                 : verbs_cm_accept(o->link, reads);
}

static tfr_status pairs_connect(struct opening *o, bool first)
{
    const struct verbs_port *own = &o->own.offer.ports[o->rails[0].own];
    const struct verbs_port *peer = &o->peer.offer.ports[o->rails[0].peer];
    uint8_t reads =
        o->own_pairs.reads < o->peer_pairs.reads ? o->own_pairs.reads : o->peer_pairs.reads;
    struct msg_status ours, theirs;

    reads = reads ? reads : 1;
    ours.status = own->cm || peer->cm ? cm_connect(o, first, reads) : attrs_connect(o, reads);
    for (uint32_t i = 0; i < o->rail_n && ours.status == TFR_OK; i++)
        verbs_loop_make(o->link, &o->own.offer.ports[o->rails[i].own], 1);
    return swap(o->boot, &ours, &theirs, sizeof(ours));
}

/* Our words have arrived there, as far as we can know, and the peer's here. */
static bool is_proved(struct verbs_link *link)
{
    bool proved = true;

    for (int i = 0; i < TFR_CHANNELS; i++)
        proved = proved && atomic_load_explicit(&link->ctl->proof[i], memory_order_acquire) == 1 &&
                 !atomic_load_explicit(&link->channels[i].extras, memory_order_relaxed);
    return proved;
}

/* The worker answers on the channels where it has heard the client: iWARP wants it so. */
static void proofs_send(struct verbs_link *link, bool first, bool sent[TFR_CHANNELS])
{
    for (size_t i = 0; i < TFR_CHANNELS; i++) {
        if (sent[i] ||
            (!first && !atomic_load_explicit(&link->ctl->proof[i], memory_order_relaxed)))
            continue;
        sent[i] = true;
        verbs_extra(&link->channels[i], &link->own->one,
                    offsetof(struct verbs_ctl, proof) + sizeof(uint64_t) * i, NULL);
    }
}

/* Attributes say nothing about switches, firewalls and routes: a word on each channel does. */
static tfr_status reach_prove(struct opening *o, bool first)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_BOOT);
    struct verbs_link *link = o->link;
    struct msg_status ours = {TFR_OK}, theirs;
    uint64_t until = tfr_clock_now() + PROOF_NS;
    bool sent[TFR_CHANNELS] = {false};

    while (ours.status == TFR_OK) {
        proofs_send(link, first, sent);
        if (is_proved(link))
            break;
        ours.status = verbs_progress(&link->base);
        if (tfr_clock_now() > until)
            ours.status = TFR_E_TIMEOUT;
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
    }
    if (ours.status != TFR_OK)
        tfr_fail(ours.status, "verbs link: %s does not reach the other side within 2 s",
                 link->channels[0].qp->context->device->name);
    return swap(o->boot, &ours, &theirs, sizeof(ours));
}

static void link_tell(const struct opening *o)
{
    static const char *const kinds[] = {"?", "InfiniBand", "RoCE v1", "RoCE v2", "iWARP"};
    const struct verbs_port *port = &o->own.offer.ports[o->rails[0].own];
    const struct verbs_channel *channel = &o->link->channels[0];

    tfr_info("verbs link: %s port %u, %s, gid %u, mtu %u, %u rail%s, %u bytes inline, depth %u%s%s",
             channel->qp->context->device->name, port->port, kinds[port->kind], port->gid_at,
             128u << port->mtu, o->rail_n, o->rail_n > 1 ? "s" : "", channel->inline_max,
             channel->depth, o->link->cm ? ", by librdmacm" : "",
             o->link->notes ? ", told by immediates" : "");
}

tfr_status verbs_open(struct tfr_dev *base, struct tfr_boot *boot, bool first,
                      struct tfr_link **link_out)
{
    struct verbs_dev *dev = (struct verbs_dev *)base;
    struct opening o = {.link = link_new(dev), .boot = boot};
    tfr_status status;

    if (!o.link)
        return tfr_fail(TFR_E_NOMEM, "verbs link");
    status = descriptors_make(o.link, boot);
    if (status == TFR_OK)
        status = rails_choose(&o, first);
    if (status == TFR_OK)
        status = pairs_make(&o);
    if (status == TFR_OK)
        status = pairs_connect(&o, first);
    if (status == TFR_OK)
        status = reach_prove(&o, first);
    if (status != TFR_OK) {
        link_free(o.link);
        return status;
    }
    link_tell(&o);
    pthread_mutex_lock(&dev->lock);
    o.link->next = dev->links;
    dev->links = o.link;
    pthread_mutex_unlock(&dev->lock);
    *link_out = &o.link->base;
    return TFR_OK;
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
    link_free(link);
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
