/* What a machine says of its RDMA ports, and which of two machines' ports go together.  Knows no
 * verbs, so that it is tested without a device.  Used by offer.c and open.c. */
#ifndef TFR_TRANSPORT_VERBS_MATCH_H
#define TFR_TRANSPORT_VERBS_MATCH_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "transport/transport.h"

enum verbs_kind {
    VERBS_IB = 1,
    VERBS_ROCE1, /* Ethernet, one segment */
    VERBS_ROCE2, /* UDP */
    VERBS_IWARP, /* TCP; gid holds the port's IP address where it is known */
};

/* One way to be reached: a port, and one entry of its GID table. */
struct verbs_port {
    uint8_t gid[16];
    uint16_t lid;
    uint16_t pkey;
    uint32_t speed; /* Mbit/s */
    uint8_t nic;    /* of the side's own list */
    uint8_t port;
    uint8_t gid_at;
    uint8_t kind;
    uint8_t mtu;    /* enum ibv_mtu */
    uint8_t prefix; /* length of the IP network's prefix; 0: not known */
    uint8_t cm;     /* the other side must be met by librdmacm */
    uint8_t notify; /* enum verbs_notify, as this side wants it on this port */
};
static_assert(sizeof(struct verbs_port) == 32, "offered port");

enum { VERBS_OFFER_VERSION = 2, VERBS_NIC_MAX = 4, VERBS_PORT_MAX = 14 };
enum { VERBS_RAIL_MAX = TFR_CHANNELS - 1 }; /* more have no channel */

struct verbs_offer {
    uint8_t version, port_n, stripe, reserved[5]; /* stripe: not one NIC but all equals */
    struct verbs_port ports[VERBS_PORT_MAX];
};
static_assert(sizeof(struct verbs_offer) <= TFR_OFFER_MAX, "offer");

/* Adds a port.  Where there is no room, that of the NIC with the most entries goes which is least
 * likely to be needed. */
void verbs_offer_add(struct verbs_offer *offer, const struct verbs_port *port);

/* Entries of the two sides' offers that go together, best first, no NIC twice. */
struct verbs_rail {
    uint8_t own, peer; /* indices of ports */
};

/* Pairs that were tried and do not reach each other, though they look as if they did. */
enum { VERBS_TRIED_MAX = 12 };
struct verbs_tried {
    uint32_t n;
    struct verbs_rail rails[VERBS_TRIED_MAX];
};

/* Both sides find the same rails: `first` says which side we are.  At least one, or false and why
 * there is none.  The peer's offer is not trusted.  tried may be NULL. */
bool verbs_match(const struct verbs_offer *own, const struct verbs_offer *peer, bool first,
                 const struct verbs_tried *tried, struct verbs_rail rails_out[VERBS_RAIL_MAX],
                 uint32_t *rail_n_out, const char **why_out);

/* The body of an offer, checked; false: not one of ours. */
bool verbs_offer_read(const struct tfr_offer *offer, struct verbs_offer *out);

/* An IPv4 address inside an IPv6 one. */
bool verbs_gid_is_v4(const uint8_t gid[16]);

#endif
