/* Connecting by librdmacm: used by open.c where the fabric or TFR_VERBS_CM asks for it. */
#ifndef TFR_TRANSPORT_VERBS_CM_H
#define TFR_TRANSPORT_VERBS_CM_H

#include <rdma/rdma_cma.h>

#include "transport/mac.h"
#include "transport/verbs/verbs.h"

struct verbs_cm {
    struct rdma_event_channel *events;
    struct rdma_cm_id *ids[TFR_CHANNELS];
    struct rdma_cm_id *listeners[VERBS_NIC_MAX];
    uint8_t secret[TFR_BOOT_SECRET]; /* of the boot connection; zeros: a unix socket */
    uint8_t key[TFR_MAC_LEN];        /* of what requests must show */
};

/* Where the worker listens, for each rail, and a number that is this link's. */
struct verbs_cm_place {
    uint8_t addr[VERBS_NIC_MAX][4];
    uint16_t port[VERBS_NIC_MAX];
    uint8_t nonce[16];
};

tfr_status verbs_cm_make(struct verbs_link *link, const struct tfr_boot *boot);
void verbs_cm_free(struct verbs_link *link); /* safe if there is none */

/* The worker listens, tells the place, accepts; the client connects to the place it was told. */
tfr_status verbs_cm_listen(struct verbs_link *link, const struct verbs_rail *rails, uint32_t rail_n,
                           const struct verbs_offer *own, struct verbs_cm_place *place_out);
tfr_status verbs_cm_accept(struct verbs_link *link, uint8_t reads);
tfr_status verbs_cm_connect(struct verbs_link *link, const struct verbs_cm_place *place,
                            const struct verbs_rail *rails, uint32_t rail_n,
                            const struct verbs_offer *own, uint8_t reads);

/* Has the other side disconnected?  No waiting. */
void verbs_cm_look(struct verbs_link *link);
int verbs_cm_fd(const struct verbs_link *link); /* -1: none */

#endif
