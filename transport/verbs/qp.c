/* Queue pairs: made with what the device grants, and brought up by attributes that travelled over
 * the boot socket.  librdmacm's way is in cm.c. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/log.h"
#include "transport/verbs/verbs.h"

enum { HOP_LIMIT = 64 };

static struct ibv_qp *inline_try(struct verbs_nic *nic, struct ibv_qp_init_attr *attr, uint32_t ask)
{
    struct ibv_qp_init_attr granted = *attr;
    struct ibv_qp *qp;

    granted.cap.max_inline_data = ask;
    qp = ibv_create_qp(nic->pd, &granted);
    if (qp)
        attr->cap = granted.cap;
    return qp;
}

/* The most that the device takes, which refuses a queue pair that asks for more. */
static uint32_t inline_find(struct verbs_nic *nic, const struct ibv_qp_init_attr *attr,
                            uint32_t most)
{
    uint32_t least = 0;

    while (least < most) {
        uint32_t ask = (least + most + 1) / 2;
        struct ibv_qp_init_attr copy = *attr;
        struct ibv_qp *qp = inline_try(nic, &copy, ask);
        if (qp)
            ibv_destroy_qp(qp);
        least = qp ? ask : least;
        most = qp ? most : ask - 1;
    }
    return least;
}

struct ibv_qp *verbs_qp_create(struct verbs_nic *nic, struct ibv_qp_init_attr *attr)
{
    uint32_t ask = nic->inline_given ? nic->inline_given - 1 : verbs_conf()->inline_len;
    struct ibv_qp *qp = inline_try(nic, attr, ask);

    if (!qp && !nic->inline_given && ask) {
        ask = inline_find(nic, attr, ask - 1);
        qp = inline_try(nic, attr, ask);
    }
    if (qp)
        nic->inline_given = ask + 1;
    return qp;
}

/* Slots for small puts that do not fit into a request. */
static tfr_status bounce_make(struct verbs_channel *channel)
{
    struct verbs_nic *nic = &channel->link->dev->nics[channel->own_nic];
    size_t len = (size_t)channel->depth * sizeof(struct verbs_note);

    channel->bounce = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (channel->bounce == MAP_FAILED) {
        channel->bounce = NULL;
        return tfr_fail(TFR_E_NOMEM, "verbs: slots for small puts");
    }
    madvise(channel->bounce, len, MADV_DONTFORK);
    channel->bounce_mr = ibv_reg_mr(nic->pd, channel->bounce, len, 0);
    return channel->bounce_mr ? TFR_OK : verbs_reg_failed(len, errno);
}

uint32_t verbs_depth_of(const struct verbs_nic *nic)
{
    uint32_t most = (uint32_t)nic->attr.max_qp_wr, depth = verbs_conf()->depth;

    return depth + EXTRA_MAX > most ? most - EXTRA_MAX : depth;
}

void verbs_cap_ask(const struct verbs_nic *nic, struct ibv_qp_cap *cap_out)
{
    *cap_out = (struct ibv_qp_cap){
        .max_send_wr = verbs_depth_of(nic) + EXTRA_MAX,
        .max_recv_wr = RECV_N,
        .max_send_sge = 1,
        .max_recv_sge = 1,
    };
}

tfr_status verbs_qp_make(struct verbs_channel *channel)
{
    struct verbs_link *link = channel->link;
    struct verbs_nic *nic = &link->dev->nics[channel->own_nic];
    uint32_t depth = verbs_depth_of(nic);
    struct ibv_qp_init_attr attr = {
        .qp_context = channel,
        .send_cq = link->cqs[channel->own_nic].send,
        .recv_cq = link->cqs[channel->own_nic].recv,
        .qp_type = IBV_QPT_RC,
    };

    verbs_cap_ask(nic, &attr.cap);
    channel->qp = verbs_qp_create(nic, &attr);
    if (!channel->qp)
        return errno == ENOMEM ? verbs_reg_failed((size_t)depth * 256, errno)
                               : tfr_fail(TFR_E_SYS, "verbs: queue pair: %s", strerror(errno));
    channel->depth = depth;
    channel->inline_max = attr.cap.max_inline_data;
    channel->flights = calloc(depth, sizeof(*channel->flights));
    if (!channel->flights)
        return tfr_fail(TFR_E_NOMEM, "verbs channel");
    return channel->inline_max < sizeof(struct verbs_note) ? bounce_make(channel) : TFR_OK;
}

tfr_status verbs_recvs_post(struct verbs_channel *channel, int n)
{
    for (; n > 0; n--) {
        struct ibv_recv_wr wr = {.wr_id = channel->at}, *bad;
        int error = ibv_post_recv(channel->qp, &wr, &bad);
        if (error)
            return tfr_fail(TFR_E_SYS, "verbs: receive: %s", strerror(error));
    }
    return TFR_OK;
}

void verbs_qp_error(struct ibv_qp *qp)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

    if (qp)
        ibv_modify_qp(qp, &attr, IBV_QP_STATE);
}

/* -1: it went since the port was offered.  Some fabrics have no partitions. */
static int pkey_index(struct ibv_context *ctx, const struct verbs_port *own)
{
    struct ibv_port_attr attr;

    if (ibv_query_port(ctx, own->port, &attr) != 0)
        return -1;
    for (int i = 0; i < attr.pkey_tbl_len; i++) {
        __be16 pkey;
        if (ibv_query_pkey(ctx, own->port, i, &pkey) != 0)
            return i == 0 ? 0 : -1;
        if (be16toh(pkey) == own->pkey)
            return i;
    }
    return attr.pkey_tbl_len ? -1 : 0;
}

static int to_init(struct ibv_qp *qp, const struct verbs_port *own)
{
    int pkey_at = pkey_index(qp->context, own);
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_INIT,
        .pkey_index = (uint16_t)pkey_at,
        .port_num = own->port,
        .qp_access_flags =
            IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
    };

    return pkey_at < 0 ? EINVAL
                       : ibv_modify_qp(qp, &attr,
                                       IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
                                           IBV_QP_ACCESS_FLAGS);
}

/* InfiniBand within a subnet goes without, unless the port says that it must not. */
static bool needs_grh(struct ibv_context *ctx, const struct verbs_port *own)
{
    struct ibv_port_attr attr;

    return own->kind != VERBS_IB ||
           (ibv_query_port(ctx, own->port, &attr) == 0 && attr.flags & IBV_QPF_GRH_REQUIRED);
}

static int to_rtr(struct ibv_qp *qp, const struct verbs_port *own, const struct verbs_port *peer,
                  const struct verbs_qp_attr *theirs, uint8_t reads)
{
    const struct verbs_conf *conf = verbs_conf();
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_RTR,
        .path_mtu = (enum ibv_mtu)(own->mtu < peer->mtu ? own->mtu : peer->mtu),
        .dest_qp_num = theirs->qpn,
        .rq_psn = theirs->psn & 0xffffff,
        .max_dest_rd_atomic = reads,
        .min_rnr_timer = VERBS_RNR_TIMER,
        .ah_attr = {.dlid = peer->lid, .sl = (uint8_t)conf->sl, .port_num = own->port},
    };

    if (needs_grh(qp->context, own)) {
        attr.ah_attr.is_global = 1;
        memcpy(attr.ah_attr.grh.dgid.raw, peer->gid, sizeof(peer->gid));
        attr.ah_attr.grh.sgid_index = own->gid_at;
        attr.ah_attr.grh.hop_limit = HOP_LIMIT;
        attr.ah_attr.grh.traffic_class = (uint8_t)conf->traffic_class;
    }
    return ibv_modify_qp(qp, &attr,
                         IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                             IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
}

static int to_rts(struct ibv_qp *qp, const struct verbs_qp_attr *ours, uint8_t reads)
{
    const struct verbs_conf *conf = verbs_conf();
    struct ibv_qp_attr attr = {
        .qp_state = IBV_QPS_RTS,
        .timeout = (uint8_t)conf->timeout,
        .retry_cnt = (uint8_t)conf->retry,
        .rnr_retry = (uint8_t)conf->rnr_retry,
        .sq_psn = ours->psn & 0xffffff,
        .max_rd_atomic = reads,
    };

    return ibv_modify_qp(qp, &attr,
                         IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
                             IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

tfr_status verbs_qp_connect(struct ibv_qp *qp, const struct verbs_port *own,
                            const struct verbs_port *peer, const struct verbs_qp_attr *ours,
                            const struct verbs_qp_attr *theirs, uint8_t reads)
{
    static const char *const states[] = {"INIT", "RTR", "RTS"};
    int to = 0, error = to_init(qp, own);

    if (!error && ++to)
        error = to_rtr(qp, own, peer, theirs, reads);
    if (!error && ++to)
        error = to_rts(qp, ours, reads);
    if (error)
        return tfr_fail(TFR_E_SYS, "verbs: queue pair of %s to %s: %s", qp->context->device->name,
                        states[to], strerror(error));
    return TFR_OK;
}
