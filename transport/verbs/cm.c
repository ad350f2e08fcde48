/* Connecting by librdmacm: what iWARP needs and what TFR_VERBS_CM=1 asks for.  It brings up our own
 * queue pairs, which live in our device context; its identifiers only carry the handshake.  The
 * worker (not first) listens on the address of each NIC and says where over the boot socket.  A
 * request shows a keyed hash of its channel and queue pair, since anybody in the fabric may ask:
 * one per channel, each once. */
#define TFR_LOG_PART "transport"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "transport/verbs/cm.h"

enum { RESOLVE_MS = 1000, BACKLOG = 8 };
#define CM_LIMIT_NS (3 * TFR_NS_PER_S)

struct private_data {
    uint8_t mac[TFR_MAC_LEN];
    uint32_t channel;
};

static tfr_status cm_fail(const char *what)
{
    return tfr_fail(TFR_E_SYS, "verbs: librdmacm: %s: %s", what, strerror(errno));
}

static bool is_ours(const struct rdma_cm_id *id, const struct verbs_link *link, uint32_t nic,
                    uint8_t port)
{
    return id->verbs && id->port_num == port &&
           strcmp(id->verbs->device->name, link->dev->nics[nic].ctx->device->name) == 0;
}

/* The link's own key: the secret of the boot connection, hashed with what only this link was told.
 * A unix socket has no secret, and nobody else has read the number there. */
static void key_make(struct verbs_cm *cm, const uint8_t nonce[16])
{
    static const uint8_t none[TFR_BOOT_SECRET];
    bool secret = memcmp(cm->secret, none, sizeof(none)) != 0;
    struct {
        char label[16];
        uint8_t secret[TFR_BOOT_SECRET], nonce[16];
    } text = {"tfr verbs cm", {0}, {0}};

    memcpy(text.secret, cm->secret, sizeof(text.secret));
    memcpy(text.nonce, nonce, sizeof(text.nonce));
    tfr_mac(secret ? cm->secret : nonce, &text, sizeof(text), cm->key);
}

/* Of a client's request.  iWARP does not carry the number of the queue pair. */
static void mac_make(const struct verbs_cm *cm, uint32_t channel, uint32_t qpn, bool iwarp,
                     uint8_t mac_out[TFR_MAC_LEN])
{
    uint32_t said[2] = {channel, iwarp ? 0 : qpn};

    tfr_mac(cm->key, said, sizeof(said), mac_out);
}

/* An identifier bound to that address, if it is the port's. */
static struct rdma_cm_id *id_at(struct verbs_cm *cm, const struct verbs_link *link,
                                const struct verbs_port *port, struct sockaddr *addr)
{
    uint8_t tos = (uint8_t)verbs_conf()->traffic_class;
    struct rdma_cm_id *id;

    if (rdma_create_id(cm->events, &id, NULL, RDMA_PS_TCP) != 0)
        return NULL;
    if (tos)
        rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, &tos, sizeof(tos));
    if (rdma_bind_addr(id, addr) == 0 && is_ours(id, link, port->nic, port->port))
        return id;
    rdma_destroy_id(id);
    return NULL;
}

/* An identifier bound to an address of the port, to that of its offer if it says one; librdmacm
 * says whose an address is. */
static struct rdma_cm_id *id_bind(struct verbs_cm *cm, const struct verbs_link *link,
                                  const struct verbs_port *port)
{
    struct sockaddr_in named = {.sin_family = AF_INET};
    struct rdma_cm_id *id = NULL;
    struct ifaddrs *all, *at;

    if (verbs_gid_is_v4(port->gid)) {
        memcpy(&named.sin_addr, port->gid + 12, sizeof(named.sin_addr));
        id = id_at(cm, link, port, (struct sockaddr *)&named);
    }
    if (id || getifaddrs(&all) < 0)
        return id;
    for (at = all; at && !id; at = at->ifa_next) {
        if (at->ifa_addr && at->ifa_addr->sa_family == AF_INET)
            id = id_at(cm, link, port, at->ifa_addr);
    }
    freeifaddrs(all);
    return id;
}

/* The next event within the limit, acknowledged; its private data is copied. */
static tfr_status event_take(struct verbs_cm *cm, uint64_t until, struct rdma_cm_event *event_out,
                             struct private_data *data_out)
{
    struct pollfd poller = {.fd = cm->events->fd, .events = POLLIN};
    struct rdma_cm_event *event;

    while (rdma_get_cm_event(cm->events, &event) != 0) {
        uint64_t now = tfr_clock_now();
        if (errno != EAGAIN && errno != EINTR)
            return cm_fail("event");
        if (now >= until)
            return tfr_fail(TFR_E_TIMEOUT, "verbs: librdmacm: no connection within 3 s");
        poll(&poller, 1, (int)((until - now) / TFR_NS_PER_MS) + 1);
    }
    *event_out = *event;
    memset(data_out, 0, sizeof(*data_out));
    if (event->event == RDMA_CM_EVENT_CONNECT_REQUEST && event->param.conn.private_data &&
        event->param.conn.private_data_len >= sizeof(*data_out))
        memcpy(data_out, event->param.conn.private_data, sizeof(*data_out));
    rdma_ack_cm_event(event);
    return TFR_OK;
}

/* Brings the queue pair to a state with what librdmacm knows of the connection. */
static int qp_move(struct rdma_cm_id *id, struct ibv_qp *qp, enum ibv_qp_state state)
{
    const struct verbs_conf *conf = verbs_conf();
    struct ibv_qp_attr attr = {.qp_state = state};
    int mask = 0;

    if (rdma_init_qp_attr(id, &attr, &mask) != 0)
        return -1;
    if (mask & IBV_QP_ACCESS_FLAGS)
        attr.qp_access_flags =
            IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
    if (mask & IBV_QP_AV && conf->sl)
        attr.ah_attr.sl = (uint8_t)conf->sl;
    if (mask & IBV_QP_AV && attr.ah_attr.is_global && conf->traffic_class)
        attr.ah_attr.grh.traffic_class = (uint8_t)conf->traffic_class;
    if (mask & IBV_QP_PATH_MTU && attr.path_mtu > verbs_mtu_most())
        attr.path_mtu = verbs_mtu_most();
    if (mask & IBV_QP_TIMEOUT)
        attr.timeout = (uint8_t)conf->timeout;
    if (mask & IBV_QP_MIN_RNR_TIMER)
        attr.min_rnr_timer = VERBS_RNR_TIMER; /* librdmacm's 0 is the longest: 655 ms */
    errno = ibv_modify_qp(qp, &attr, mask);
    return errno ? -1 : 0;
}

/* iWARP devices do the rest themselves when they connect. */
static int qp_ready(struct rdma_cm_id *id, struct ibv_qp *qp, bool iwarp)
{
    if (iwarp)
        return 0;
    return qp_move(id, qp, IBV_QPS_RTR) == 0 && qp_move(id, qp, IBV_QPS_RTS) == 0 ? 0 : -1;
}

static struct rdma_conn_param conn_param(const struct verbs_channel *channel, uint8_t reads)
{
    const struct verbs_conf *conf = verbs_conf();

    return (struct rdma_conn_param){
        .responder_resources = reads,
        .initiator_depth = reads,
        .retry_count = (uint8_t)conf->retry,
        .rnr_retry_count = (uint8_t)conf->rnr_retry,
        .qp_num = channel->qp->qp_num,
    };
}

/* ---- the worker ---- */

tfr_status verbs_cm_listen(struct verbs_link *link, const struct verbs_rail *rails, uint32_t rail_n,
                           const struct verbs_offer *own, struct verbs_cm_place *place_out)
{
    struct verbs_cm *cm = link->cm;

    if (getrandom(place_out->nonce, sizeof(place_out->nonce), 0) != sizeof(place_out->nonce))
        return cm_fail("random bytes");
    key_make(cm, place_out->nonce);
    for (uint32_t i = 0; i < rail_n; i++) {
        struct rdma_cm_id *id = id_bind(cm, link, &own->ports[rails[i].own]);
        struct sockaddr_in *addr;
        if (!id)
            return tfr_fail(TFR_E_SYS, "verbs: librdmacm: no IPv4 address of ours belongs to %s",
                            link->dev->nics[own->ports[rails[i].own].nic].ctx->device->name);
        cm->listeners[i] = id;
        if (rdma_listen(id, BACKLOG) != 0)
            return cm_fail("listen");
        addr = (struct sockaddr_in *)rdma_get_local_addr(id);
        memcpy(place_out->addr[i], &addr->sin_addr, sizeof(place_out->addr[i]));
        place_out->port[i] = ntohs(rdma_get_src_port(id));
    }
    return TFR_OK;
}

static bool is_announced(const struct verbs_link *link, const struct rdma_cm_event *event,
                         const struct private_data *data)
{
    const struct verbs_channel *channel;
    uint8_t mac[TFR_MAC_LEN];

    if (data->channel >= TFR_CHANNELS || link->cm->ids[data->channel])
        return false;
    channel = &link->channels[data->channel];
    mac_make(link->cm, data->channel, event->param.conn.qp_num,
             link->dev->nics[channel->own_nic].iwarp, mac);
    return tfr_mac_same(mac, data->mac) &&
           is_ours(event->id, link, channel->own_nic, channel->port);
}

/* One of the peer's requests. */
static tfr_status request_accept(struct verbs_link *link, const struct rdma_cm_event *event,
                                 const struct private_data *data, uint8_t reads)
{
    struct verbs_cm *cm = link->cm;
    struct verbs_channel *channel;
    struct rdma_conn_param param;

    if (!is_announced(link, event, data)) {
        tfr_warn("verbs: librdmacm: a connection that nobody announced was refused");
        rdma_reject(event->id, NULL, 0);
        rdma_destroy_id(event->id);
        return TFR_OK;
    }
    channel = &link->channels[data->channel];
    cm->ids[data->channel] = event->id;
    param = conn_param(channel, reads);
    if (qp_move(event->id, channel->qp, IBV_QPS_INIT) != 0 ||
        verbs_recvs_post(channel, RECV_N) != TFR_OK ||
        qp_ready(event->id, channel->qp, link->dev->nics[channel->own_nic].iwarp) != 0 ||
        rdma_accept(event->id, &param) != 0)
        return cm_fail("accept");
    return TFR_OK;
}

tfr_status verbs_cm_accept(struct verbs_link *link, uint8_t reads)
{
    uint64_t until = tfr_clock_now() + CM_LIMIT_NS;
    tfr_status status = TFR_OK;
    int up = 0;

    while (up < TFR_CHANNELS && status == TFR_OK) {
        struct private_data data;
        struct rdma_cm_event event;
        status = event_take(link->cm, until, &event, &data);
        if (status != TFR_OK)
            break;
        if (event.event == RDMA_CM_EVENT_CONNECT_REQUEST)
            status = request_accept(link, &event, &data, reads);
        else if (event.event == RDMA_CM_EVENT_ESTABLISHED)
            up++;
        else
            status = tfr_fail(TFR_E_PEER, "verbs: librdmacm: %s", rdma_event_str(event.event));
    }
    return status;
}

/* ---- the client ---- */

static tfr_status request_send(struct verbs_link *link, int i, uint8_t reads)
{
    struct verbs_channel *channel = &link->channels[i];
    struct rdma_cm_id *id = link->cm->ids[i];
    struct rdma_conn_param param = conn_param(channel, reads);
    struct private_data data = {.channel = (uint32_t)i};

    mac_make(link->cm, data.channel, channel->qp->qp_num, link->dev->nics[channel->own_nic].iwarp,
             data.mac);
    param.private_data = &data;
    param.private_data_len = sizeof(data);
    if (!is_ours(id, link, channel->own_nic, channel->port))
        return tfr_fail(TFR_E_UNSUP, "verbs: librdmacm: the way to the peer is not by %s",
                        link->dev->nics[channel->own_nic].ctx->device->name);
    if (qp_move(id, channel->qp, IBV_QPS_INIT) != 0 ||
        verbs_recvs_post(channel, RECV_N) != TFR_OK || rdma_connect(id, &param) != 0)
        return cm_fail("connect");
    return TFR_OK;
}

/* What follows from an event of channel i; *up_out counts those that are connected. */
static tfr_status request_step(struct verbs_link *link, const struct rdma_cm_event *event, int i,
                               uint8_t reads, int *up_out)
{
    struct verbs_channel *channel = &link->channels[i];
    bool iwarp = link->dev->nics[channel->own_nic].iwarp;

    switch (event->event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
        return rdma_resolve_route(event->id, RESOLVE_MS) == 0 ? TFR_OK : cm_fail("route");
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
        return request_send(link, i, reads);
    case RDMA_CM_EVENT_CONNECT_RESPONSE:
        if (qp_ready(event->id, channel->qp, iwarp) != 0 || rdma_establish(event->id) != 0)
            return cm_fail("queue pair");
        ++*up_out;
        return TFR_OK;
    case RDMA_CM_EVENT_ESTABLISHED:
        ++*up_out;
        return TFR_OK;
    default:
        return tfr_fail(TFR_E_PEER, "verbs: librdmacm: %s", rdma_event_str(event->event));
    }
}

static tfr_status request_begin(struct verbs_link *link, int i, const struct verbs_cm_place *place,
                                uint32_t rail, const struct verbs_port *own)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(place->port[rail])};
    struct verbs_cm *cm = link->cm;

    memcpy(&to.sin_addr, place->addr[rail], sizeof(to.sin_addr));
    cm->ids[i] = id_bind(cm, link, own);
    if (!cm->ids[i] || rdma_resolve_addr(cm->ids[i], NULL, (struct sockaddr *)&to, RESOLVE_MS) != 0)
        return cm_fail("address");
    return TFR_OK;
}

tfr_status verbs_cm_connect(struct verbs_link *link, const struct verbs_cm_place *place,
                            const struct verbs_rail *rails, uint32_t rail_n,
                            const struct verbs_offer *own, uint8_t reads)
{
    uint64_t until = tfr_clock_now() + CM_LIMIT_NS;
    tfr_status status = TFR_OK;
    int up = 0;

    key_make(link->cm, place->nonce);
    for (int i = 0; i < TFR_CHANNELS && status == TFR_OK; i++) {
        uint32_t rail = i ? (uint32_t)(i - 1) % rail_n : 0;
        status = request_begin(link, i, place, rail, &own->ports[rails[rail].own]);
    }
    while (up < TFR_CHANNELS && status == TFR_OK) {
        struct private_data none;
        struct rdma_cm_event event;
        int i = 0;
        status = event_take(link->cm, until, &event, &none);
        while (status == TFR_OK && i < TFR_CHANNELS && link->cm->ids[i] != event.id)
            i++;
        if (status == TFR_OK && i < TFR_CHANNELS)
            status = request_step(link, &event, i, reads, &up);
    }
    return status;
}

/* ---- both ---- */

tfr_status verbs_cm_make(struct verbs_link *link, const struct tfr_boot *boot)
{
    struct verbs_cm *cm = calloc(1, sizeof(*cm));

    if (!cm)
        return tfr_fail(TFR_E_NOMEM, "verbs link");
    link->cm = cm;
    if (tfr_boot_secret(boot))
        memcpy(cm->secret, tfr_boot_secret(boot), sizeof(cm->secret));
    cm->events = rdma_create_event_channel();
    if (!cm->events && (errno == ENODEV || errno == ENOENT))
        return tfr_fail(TFR_E_SYS, "verbs: librdmacm: no /dev/infiniband/rdma_cm here: modprobe "
                                   "rdma_ucm, or give it to the container");
    if (!cm->events)
        return cm_fail("event channel");
    fcntl(cm->events->fd, F_SETFL, fcntl(cm->events->fd, F_GETFL) | O_NONBLOCK);
    return TFR_OK;
}

void verbs_cm_look(struct verbs_link *link)
{
    struct rdma_cm_event *event;

    if (!link->cm)
        return;
    while (rdma_get_cm_event(link->cm->events, &event) == 0) {
        if (event->event == RDMA_CM_EVENT_DISCONNECTED ||
            event->event == RDMA_CM_EVENT_DEVICE_REMOVAL)
            verbs_fail(link, TFR_E_PEER, NULL);
        rdma_ack_cm_event(event);
    }
}

int verbs_cm_fd(const struct verbs_link *link)
{
    return link->cm ? link->cm->events->fd : -1;
}

void verbs_cm_free(struct verbs_link *link)
{
    struct verbs_cm *cm = link->cm;

    if (!cm)
        return;
    for (int i = 0; i < TFR_CHANNELS; i++) {
        if (cm->ids[i]) {
            rdma_disconnect(cm->ids[i]);
            rdma_destroy_id(cm->ids[i]);
        }
    }
    for (int i = 0; i < VERBS_NIC_MAX; i++)
        if (cm->listeners[i])
            rdma_destroy_id(cm->listeners[i]);
    if (cm->events)
        rdma_destroy_event_channel(cm->events);
    explicit_bzero(cm, sizeof(*cm));
    free(cm);
    link->cm = NULL;
}
