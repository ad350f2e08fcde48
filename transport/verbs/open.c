/* Joining two processes.  Over the boot socket each side says four things, each with its status, so
 * that both sides give up at the same step: what ports its device has (both then choose the same
 * rails); queue pairs and the keys of its page; that its queue pairs are up; and whether it and the
 * peer could write to each other.  If not, the next rails are tried: fabrics that know nothing of
 * each other often share a prefix.  Addresses of the boot socket play no part. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "base/relax.h"
#include "transport/verbs/cm.h"

enum { OPEN_MS_MIN = 3000, OPEN_MS_MAX = 60000, READS_MAX = 16, TRIES_MAX = 4 };

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
struct msg_reach {
    int32_t status;
    uint32_t lost; /* rails that do not work, by bit */
};
struct msg_place {
    int32_t status;
    struct verbs_cm_place place;
};

/* For one step: three seconds, or more where connecting is said to take long. */
static int step_ms(void)
{
    uint64_t ms = tfr_env_u64("TFR_CONNECT_MS");

    return ms < OPEN_MS_MIN ? OPEN_MS_MIN : ms > OPEN_MS_MAX ? OPEN_MS_MAX : (int)ms;
}

/* Tells our message and takes the peer's. */
static tfr_status swap_only(struct tfr_boot *boot, const void *ours, void *theirs, size_t len)
{
    struct tfr_boot_msg out = {
        .type = TFR_BOOT_LINK, .len = (uint32_t)len, .body = (void *)(uintptr_t)ours};
    struct tfr_boot_msg in;
    tfr_status status = tfr_boot_send(boot, &out, step_ms());

    if (status == TFR_OK)
        status = tfr_boot_recv(boot, &in, step_ms());
    if (status != TFR_OK)
        return tfr_fail(status, "verbs link: %s", tfr_status_str(status));
    if (in.type != TFR_BOOT_LINK || in.len != len)
        status = tfr_fail(TFR_E_PROTO, "verbs link: unexpected boot message %#x", in.type);
    else
        memcpy(theirs, in.body, len);
    tfr_boot_msg_fini(&in);
    return status;
}

/* And goes on only if both can: a message's first word is its side's status. */
static tfr_status swap(struct tfr_boot *boot, const void *ours, void *theirs, size_t len)
{
    tfr_status status = swap_only(boot, ours, theirs, len), own;

    memcpy(&own, ours, sizeof(own));
    if (status != TFR_OK || own != TFR_OK)
        return status != TFR_OK ? status : own;
    memcpy(&status, theirs, sizeof(status));
    if (status != TFR_OK)
        return tfr_fail(TFR_E_UNSUP, "verbs link: the other side could not set it up");
    return TFR_OK;
}

struct opening {
    struct verbs_dev *dev;
    struct verbs_link *link;
    struct tfr_boot *boot;
    struct msg_ports own, peer;
    struct msg_pairs own_pairs, peer_pairs;
    bool first;
    struct verbs_rail rails[VERBS_RAIL_MAX];
    uint32_t rail_n;
    uint32_t lost; /* rails that one of the sides found not to work, by bit */
    int tries;
    struct verbs_tried tried;
};

static uint32_t rail_number(const struct opening *o, int channel)
{
    return channel ? (uint32_t)(channel - 1) % o->rail_n : 0;
}

static const struct verbs_rail *rail_of(const struct opening *o, int channel)
{
    return &o->rails[rail_number(o, channel)];
}

static tfr_status ports_swap(struct opening *o)
{
    struct tfr_offer offer = {.len = sizeof(o->peer.offer)};
    tfr_status status;

    status = swap(o->boot, &o->own, &o->peer, sizeof(o->own));
    if (status != TFR_OK)
        return status;
    memcpy(offer.body, &o->peer.offer, sizeof(o->peer.offer));
    if (!verbs_offer_read(&offer, &o->peer.offer))
        return tfr_fail(TFR_E_PROTO, "verbs link: the other side's ports make no sense");
    return TFR_OK;
}

static tfr_status rails_choose(struct opening *o)
{
    const char *why = NULL;

    if (!verbs_match(&o->own.offer, &o->peer.offer, o->first, &o->tried, o->rails, &o->rail_n,
                     &why))
        return tfr_fail(TFR_E_UNSUP, "verbs link: %s", why);
    return TFR_OK;
}

/* Leaves out the rails that do not work.  Both sides know the same and find the same. */
static bool rails_next(struct opening *o)
{
    const char *why;

    if (!o->lost || ++o->tries == TRIES_MAX)
        return false;
    for (uint32_t i = 0; i < o->rail_n && o->tried.n < VERBS_TRIED_MAX; i++) {
        if (o->lost >> i & 1)
            o->tried.rails[o->tried.n++] = o->rails[i];
    }
    return verbs_match(&o->own.offer, &o->peer.offer, o->first, &o->tried, o->rails, &o->rail_n,
                       &why);
}

/* Are the rails up on both sides?  Else o->lost says which are not. */
static tfr_status reach_swap(struct opening *o, const struct msg_reach *ours)
{
    struct msg_reach theirs = {0};
    tfr_status status = swap_only(o->boot, ours, &theirs, sizeof(theirs));

    if (status != TFR_OK)
        return status;
    o->lost = (ours->lost | theirs.lost) & ((1u << o->rail_n) - 1);
    if (ours->status == TFR_OK && theirs.status != TFR_OK)
        tfr_info("verbs link: the other side says that this one does not reach it");
    return ours->status != TFR_OK ? ours->status : theirs.status != TFR_OK ? TFR_E_UNSUP : TFR_OK;
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
    status = verbs_cqs_make(link, own->nic);
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
    tfr_status status = verbs_pages_make(link);

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

static tfr_status attrs_connect(struct opening *o, uint8_t reads, uint32_t *lost_out)
{
    tfr_status status = TFR_OK;

    for (int i = 0; i < TFR_CHANNELS && status == TFR_OK; i++) {
        struct verbs_channel *channel = &o->link->channels[i];
        const struct verbs_rail *rail = rail_of(o, i);
        status = verbs_qp_connect(channel->qp, &o->own.offer.ports[rail->own],
                                  &o->peer.offer.ports[rail->peer], &o->own_pairs.pairs[i],
                                  &o->peer_pairs.pairs[i], reads);
        *lost_out = status != TFR_OK ? 1u << rail_number(o, i) : 0;
        if (status == TFR_OK)
            status = verbs_recvs_post(channel, RECV_N);
    }
    return status;
}

/* The worker's place travels first; the client's message says only whether it is ready. */
static tfr_status cm_connect(struct opening *o, uint8_t reads)
{
    struct msg_place ours = {0}, theirs;
    tfr_status status;

    ours.status = verbs_cm_make(o->link, o->boot);
    if (ours.status == TFR_OK && !o->first)
        ours.status = verbs_cm_listen(o->link, o->rails, o->rail_n, &o->own.offer, &ours.place);
    if (ours.status == TFR_OK && !verbs_watch(o->link, verbs_cm_fd(o->link), EPOLLIN))
        ours.status = tfr_fail(TFR_E_SYS, "verbs link: descriptors: %s", strerror(errno));
    status = swap(o->boot, &ours, &theirs, sizeof(ours));
    if (status != TFR_OK)
        return status;
    return o->first
               ? verbs_cm_connect(o->link, &theirs.place, o->rails, o->rail_n, &o->own.offer, reads)
               : verbs_cm_accept(o->link, reads);
}

static tfr_status pairs_connect(struct opening *o)
{
    const struct verbs_port *own = &o->own.offer.ports[o->rails[0].own];
    const struct verbs_port *peer = &o->peer.offer.ports[o->rails[0].peer];
    uint8_t reads =
        o->own_pairs.reads < o->peer_pairs.reads ? o->own_pairs.reads : o->peer_pairs.reads;
    struct msg_reach ours = {0};

    reads = reads ? reads : 1;
    ours.status = own->cm || peer->cm ? cm_connect(o, reads) : attrs_connect(o, reads, &ours.lost);
    for (uint32_t i = 0; i < o->rail_n && ours.status == TFR_OK; i++)
        verbs_loop_make(o->link, &o->own.offer.ports[o->rails[i].own], 1);
    return reach_swap(o, &ours);
}

/* The rails on which our words have not arrived there, as far as we can know, or the peer's here.
 */
static uint32_t unproved(const struct opening *o)
{
    uint32_t rails = 0;

    for (int i = 0; i < TFR_CHANNELS; i++) {
        if (atomic_load_explicit(&o->link->ctl->proof[i], memory_order_acquire) != 1 ||
            atomic_load_explicit(&o->link->channels[i].extras, memory_order_relaxed))
            rails |= 1u << rail_number(o, i);
    }
    return rails;
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
static tfr_status reach_prove(struct opening *o)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_BOOT);
    struct verbs_link *link = o->link;
    struct msg_reach ours = {TFR_OK, 0};
    uint64_t until = tfr_clock_now() + (uint64_t)step_ms() * TFR_NS_PER_MS * 2 / 3;
    bool sent[TFR_CHANNELS] = {false};

    while (ours.status == TFR_OK) {
        proofs_send(link, o->first, sent);
        ours.lost = unproved(o);
        if (!ours.lost)
            break;
        ours.status = verbs_progress(&link->base);
        if (tfr_clock_now() > until)
            ours.status = TFR_E_TIMEOUT;
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
    }
    if (ours.status != TFR_OK)
        tfr_warn("verbs link: %s does not reach the other side",
                 o->dev->nics[o->own.offer.ports[o->rails[0].own].nic].ctx->device->name);
    return reach_swap(o, &ours);
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

static uint32_t nics_of(const struct opening *o)
{
    uint32_t nics = 0;

    for (uint32_t i = 0; i < o->rail_n; i++)
        nics |= 1u << o->own.offer.ports[o->rails[i].own].nic;
    return nics;
}

/* A device that has had a link has no memory but with that link's NICs. */
static void offer_make(const struct verbs_dev *dev, struct verbs_offer *offer_out)
{
    *offer_out = dev->offer;
    offer_out->port_n = 0;
    for (int i = 0; i < dev->offer.port_n; i++) {
        if (!dev->used || dev->used >> dev->offer.ports[i].nic & 1)
            offer_out->ports[offer_out->port_n++] = dev->offer.ports[i];
    }
}

static tfr_status link_try(struct opening *o)
{
    tfr_status status;

    o->lost = 0;
    memset(&o->own_pairs, 0, sizeof(o->own_pairs));
    o->link = verbs_link_new(o->dev);
    if (!o->link)
        return tfr_fail(TFR_E_NOMEM, "verbs link");
    status = verbs_descriptors_make(o->link, o->boot);
    if (status == TFR_OK)
        status = pairs_make(o);
    if (status == TFR_OK)
        status = pairs_connect(o);
    if (status == TFR_OK)
        status = reach_prove(o);
    if (status == TFR_OK)
        return TFR_OK;
    verbs_link_free(o->link);
    return status;
}

tfr_status verbs_open(struct tfr_dev *base, struct tfr_boot *boot, bool first,
                      struct tfr_link **link_out)
{
    struct verbs_dev *dev = (struct verbs_dev *)base;
    struct opening o = {.dev = dev, .boot = boot, .first = first};
    tfr_status status;

    offer_make(dev, &o.own.offer);
    status = ports_swap(&o);

    if (status == TFR_OK)
        status = rails_choose(&o);
    if (status == TFR_OK)
        status = link_try(&o);
    while (status != TFR_OK && rails_next(&o)) {
        tfr_info("verbs link: another pair of ports is tried");
        status = link_try(&o);
    }
    if (status != TFR_OK)
        return o.lost ? tfr_fail(status, "verbs link: no two ports reach each other") : status;
    link_tell(&o);
    o.link->rail_n = o.rail_n;
    verbs_nics_use(dev, nics_of(&o));
    pthread_mutex_lock(&dev->lock);
    o.link->next = dev->links;
    dev->links = o.link;
    pthread_mutex_unlock(&dev->lock);
    *link_out = &o.link->base;
    return TFR_OK;
}
