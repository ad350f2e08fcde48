/* Landing: bytes that a NIC wrote into GPU memory are visible to the GPU once the same NIC has read
 * the last of them back, since its read cannot pass its writes.  A queue pair to itself on each NIC
 * does the reading.  Host memory needs nothing of the kind. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/rec.h"
#include "transport/verbs/verbs.h"

/* Connected to itself.  Without one (iWARP) GPU memory cannot be landed. */
void verbs_loop_make(struct verbs_link *link, const struct verbs_port *port, uint8_t reads)
{
    struct verbs_nic *nic = &link->dev->nics[port->nic];
    struct ibv_qp_init_attr attr = {
        .send_cq = link->cqs[port->nic].send,
        .recv_cq = link->cqs[port->nic].recv,
        .qp_type = IBV_QPT_RC,
        .cap = {.max_send_wr = LAND_N, .max_recv_wr = 1, .max_send_sge = 1, .max_recv_sge = 1},
    };
    struct verbs_qp_attr self = {.psn = 1};
    struct ibv_qp *qp;

    if (link->loops[port->nic] || nic->iwarp || verbs_conf()->land != VERBS_LAND_READ)
        return;
    qp = ibv_create_qp(nic->pd, &attr);
    if (!qp) {
        tfr_info("verbs: no queue pair for landing: %s", strerror(errno));
        return;
    }
    self.qpn = qp->qp_num;
    if (verbs_qp_connect(qp, port, port, &self, &self, reads) == TFR_OK)
        link->loops[port->nic] = qp;
    else
        ibv_destroy_qp(qp);
}

static tfr_status read_back(struct verbs_link *link, uint32_t nic,
                            const struct tfr_landing *landing, uint32_t slot)
{
    const struct verbs_mem *mem = (const struct verbs_mem *)landing->mem;
    uint32_t len = landing->len < sizeof(uint64_t) ? (uint32_t)landing->len : sizeof(uint64_t);
    struct ibv_sge sge = {(uintptr_t)&link->own->landed[nic], len, link->own_mrs[nic]->lkey};
    struct ibv_send_wr *bad, wr = {
                                 .wr_id = LAND_BIT | slot,
                                 .sg_list = &sge,
                                 .num_sge = 1,
                                 .opcode = IBV_WR_RDMA_READ,
                                 .send_flags = IBV_SEND_SIGNALED,
                                 .wr.rdma.rkey = mem->mrs[nic]->rkey,
                             };

    wr.wr.rdma.remote_addr = (uintptr_t)mem->area.addr + landing->at + landing->len - len;
    atomic_fetch_add_explicit(&link->extra_requests, 1, memory_order_relaxed);
    return ibv_post_send(link->loops[nic], &wr, &bad) == 0 ? TFR_OK : TFR_E_PEER;
}

/* One of the reads of a landing has ended.  With link->poll held. */
void verbs_landed(struct verbs_link *link, uint32_t at, tfr_status status)
{
    struct verbs_landing *slot = &link->landings[at % LAND_N];

    if (status != TFR_OK)
        slot->status = status;
    if (atomic_load_explicit(&slot->left, memory_order_relaxed) == 1 && slot->done)
        slot->done(slot->arg, slot->status);
    /* pairs with the acquire in verbs_land_op: the slot may be filled again */
    atomic_fetch_sub_explicit(&slot->left, 1, memory_order_release);
}

/* Where no bytes came by a NIC nothing needs to be read there, but which did is not known here. */
tfr_status verbs_land_op(struct tfr_link *base, const struct tfr_landing *landing)
{
    struct verbs_link *link = verbs_link_of(base);
    const struct verbs_mem *mem = (const struct verbs_mem *)landing->mem;
    struct verbs_landing *slot = &link->landings[link->landing_n % LAND_N];
    uint32_t nics = 0;

    if (!tfr_span_inside(landing->at, landing->len, mem->area.len))
        return tfr_fail(TFR_E_INVAL, "landing of %zu bytes at %llu", landing->len,
                        (unsigned long long)landing->at);
    if (verbs_error(link) != TFR_OK)
        return verbs_error(link);
    if (mem->area.kind < TFR_AREA_GPU || landing->len == 0 ||
        verbs_conf()->land != VERBS_LAND_READ) {
        if (landing->done)
            landing->done(landing->arg, TFR_OK);
        return TFR_OK;
    }
    for (uint32_t i = 0; i < link->dev->nic_n; i++) {
        if (link->cqs[i].events && !link->loops[i])
            return tfr_fail(TFR_E_UNSUP, "verbs: this device cannot land bytes in GPU memory");
        nics += link->cqs[i].events != NULL;
    }
    /* pairs with the release in verbs_landed */
    if (atomic_load_explicit(&slot->left, memory_order_acquire))
        return TFR_AGAIN;
    slot->done = landing->done;
    slot->arg = landing->arg;
    slot->status = TFR_OK;
    atomic_store_explicit(&slot->left, nics, memory_order_release);
    for (uint32_t i = 0; i < link->dev->nic_n; i++) {
        if (link->cqs[i].events && read_back(link, i, landing, link->landing_n % LAND_N) != TFR_OK)
            verbs_fail(link, TFR_E_PEER, "a read for landing was refused");
    }
    link->landing_n++;
    return TFR_OK;
}

void verbs_landings_abandon(struct verbs_link *link)
{
    for (uint32_t i = 0; i < LAND_N; i++)
        while (atomic_load_explicit(&link->landings[i].left, memory_order_relaxed))
            verbs_landed(link, i, TFR_E_PEER);
}

bool verbs_landings_busy(const struct verbs_link *link)
{
    for (uint32_t i = 0; i < LAND_N; i++)
        if (atomic_load_explicit(&link->landings[i].left, memory_order_relaxed))
            return true;
    return false;
}
