/* See match.h.  A pair of ports has a score; both sides compute the same ones from the same two
 * offers and break ties alike, so they need not negotiate. */
#include <string.h>

#include "transport/verbs/match.h"

enum { PREFIX_UNKNOWN = 24 };

bool verbs_gid_is_v4(const uint8_t gid[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

    return memcmp(gid, mapped, sizeof(mapped)) == 0;
}

static bool is_link_local(const uint8_t gid[16])
{
    return gid[0] == 0xfe && (gid[1] & 0xc0) == 0x80;
}

/* Are the first `bits` the same? */
static bool prefix_same(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    uint8_t mask = (uint8_t)(0xff00 >> bits % 8);

    return memcmp(a, b, bits / 8) == 0 &&
           (bits % 8 == 0 || (a[bits / 8] & mask) == (b[bits / 8] & mask));
}

static unsigned prefix_of(const struct verbs_port *a, const struct verbs_port *b)
{
    unsigned prefix = a->prefix > b->prefix ? a->prefix : b->prefix;

    if (prefix == 0 || prefix > 32)
        prefix = PREFIX_UNKNOWN;
    return prefix;
}

/* By IP address: the same network before one that a router may reach. */
static int ip_score(const struct verbs_port *a, const struct verbs_port *b)
{
    bool v4 = verbs_gid_is_v4(a->gid);

    if (v4 != verbs_gid_is_v4(b->gid) || is_link_local(a->gid) != is_link_local(b->gid))
        return 0;
    if (is_link_local(a->gid))
        return 20; /* may be another segment: open() tries */
    if (v4)
        return prefix_same(a->gid + 12, b->gid + 12, prefix_of(a, b)) ? 90 : 40;
    return prefix_same(a->gid, b->gid, 64) ? 85 : 35;
}

/* The highest bit says how a port is a member: a limited one talks to full ones alone. */
static bool pkey_same(const struct verbs_port *a, const struct verbs_port *b)
{
    return ((a->pkey ^ b->pkey) & 0x7fff) == 0 && (a->pkey | b->pkey) & 0x8000;
}

static int score(const struct verbs_port *a, const struct verbs_port *b)
{
    if (a->kind != b->kind)
        return 0;
    switch (a->kind) {
    case VERBS_IB:
        return prefix_same(a->gid, b->gid, 64) && a->lid && b->lid && pkey_same(a, b) ? 100 : 0;
    case VERBS_ROCE2:
        return ip_score(a, b);
    case VERBS_ROCE1:
        return is_link_local(a->gid) == is_link_local(b->gid) ? 15 : 0;
    case VERBS_IWARP:
        return ip_score(a, b) ? ip_score(a, b) - 5 : 0;
    }
    return 0;
}

/* What both ends of a rail can do; 0: not known. */
static uint32_t speed_of(const struct verbs_port *a, const struct verbs_port *b)
{
    return a->speed < b->speed ? a->speed : b->speed;
}

struct search {
    const struct verbs_offer *a, *b;
    uint32_t a_used, b_used; /* NICs */
    bool first;              /* a is ours */
    const struct verbs_tried *tried;
};

static bool is_tried(const struct search *s, uint8_t i, uint8_t k)
{
    struct verbs_rail rail = s->first ? (struct verbs_rail){i, k} : (struct verbs_rail){k, i};

    for (uint32_t at = 0; s->tried && at < s->tried->n; at++) {
        if (s->tried->rails[at].own == rail.own && s->tried->rails[at].peer == rail.peer)
            return true;
    }
    return false;
}

/* The best pair of NICs that are free, the fastest of those; 0: none. */
static int best_find(const struct search *s, struct verbs_rail *rail_out)
{
    uint32_t speed = 0;
    int best = 0;

    for (uint8_t i = 0; i < s->a->port_n; i++) {
        for (uint8_t k = 0; k < s->b->port_n; k++) {
            const struct verbs_port *x = &s->a->ports[i], *y = &s->b->ports[k];
            int points = score(x, y);
            bool better = points > best || (points && points == best && speed_of(x, y) > speed);
            if (!better || s->a_used >> x->nic & 1 || s->b_used >> y->nic & 1 || is_tried(s, i, k))
                continue;
            best = points;
            speed = speed_of(x, y);
            *rail_out = (struct verbs_rail){i, k};
        }
    }
    return best;
}

static const char *why_none(const struct verbs_offer *own, const struct verbs_offer *peer)
{
    bool kind = false, ib = false;

    if (own->port_n == 0)
        return "this machine has no active RDMA port";
    if (peer->port_n == 0)
        return "the other machine has no active RDMA port";
    for (int i = 0; i < own->port_n; i++) {
        for (int k = 0; k < peer->port_n; k++) {
            bool same = own->ports[i].kind == peer->ports[k].kind;
            kind |= same;
            ib |= same && own->ports[i].kind == VERBS_IB;
        }
    }
    if (!kind)
        return "the machines' RDMA ports are of different kinds (InfiniBand, RoCE v1, RoCE v2, "
               "iWARP): TFR_VERBS_DEVICE and TFR_VERBS_GID choose others";
    return ib ? "the machines' InfiniBand ports are in different subnets or partitions: "
                "TFR_VERBS_DEVICE and TFR_VERBS_PKEY choose others"
              : "the machines' RDMA ports have addresses that cannot reach each other: "
                "TFR_VERBS_DEVICE and TFR_VERBS_GID choose others";
}

bool verbs_match(const struct verbs_offer *own, const struct verbs_offer *peer, bool first,
                 const struct verbs_tried *tried, struct verbs_rail rails_out[VERBS_RAIL_MAX],
                 uint32_t *rail_n_out, const char **why_out)
{
    struct search s = {
        .a = first ? own : peer, .b = first ? peer : own, .first = first, .tried = tried};
    uint32_t n = 0, max = s.a->stripe || s.b->stripe ? VERBS_RAIL_MAX : 1, speed = 0;
    int least = 1, points;
    struct verbs_rail rail;

    while (n < max && (points = best_find(&s, &rail)) >= least) {
        const struct verbs_port *x = &s.a->ports[rail.own], *y = &s.b->ports[rail.peer];
        if (n && speed_of(x, y) != speed)
            break;
        least = points; /* only equals share the bytes */
        speed = speed_of(x, y);
        s.a_used |= 1u << x->nic;
        s.b_used |= 1u << y->nic;
        rails_out[n++] = first ? rail : (struct verbs_rail){rail.peer, rail.own};
    }
    *rail_n_out = n;
    if (n == 0)
        *why_out = tried && tried->n ? "no two ports of the machines reach each other"
                                     : why_none(own, peer);
    return n > 0;
}

/* How likely the entry is to be the one that is needed. */
static int worth(const struct verbs_port *port)
{
    if (port->kind != VERBS_ROCE2)
        return port->kind == VERBS_ROCE1 ? 0 : 4;
    return verbs_gid_is_v4(port->gid) ? 3 : is_link_local(port->gid) ? 1 : 2;
}

static uint32_t entries_of(const struct verbs_offer *offer, uint8_t nic)
{
    uint32_t n = 0;

    for (int i = 0; i < offer->port_n; i++)
        n += offer->ports[i].nic == nic;
    return n;
}

/* The entry that is to go for one of `nic`; -1: that one itself. */
static int least_find(const struct verbs_offer *offer, const struct verbs_port *port)
{
    uint32_t most = entries_of(offer, port->nic) + 1;
    int least = -1, least_worth = worth(port);

    for (int i = offer->port_n - 1; i >= 0; i--) {
        const struct verbs_port *at = &offer->ports[i];
        uint32_t n = entries_of(offer, at->nic) + (at->nic == port->nic);
        if (n < most || (n == most && worth(at) >= least_worth))
            continue;
        most = n;
        least = i;
        least_worth = worth(at);
    }
    return least;
}

void verbs_offer_add(struct verbs_offer *offer, const struct verbs_port *port)
{
    int least;

    if (offer->port_n < VERBS_PORT_MAX) {
        offer->ports[offer->port_n++] = *port;
        return;
    }
    least = least_find(offer, port);
    if (least < 0)
        return;
    memmove(&offer->ports[least], &offer->ports[least + 1],
            sizeof(*port) * (size_t)(VERBS_PORT_MAX - 1 - least));
    offer->ports[VERBS_PORT_MAX - 1] = *port;
}

bool verbs_offer_read(const struct tfr_offer *offer, struct verbs_offer *out)
{
    if (offer->len != sizeof(*out))
        return false;
    memcpy(out, offer->body, sizeof(*out));
    if (out->version != VERBS_OFFER_VERSION || out->port_n > VERBS_PORT_MAX)
        return false;
    for (int i = 0; i < out->port_n; i++) {
        const struct verbs_port *port = &out->ports[i];
        if (port->nic >= VERBS_NIC_MAX || port->mtu < 1 || port->mtu > 5 || port->kind < VERBS_IB ||
            port->kind > VERBS_IWARP)
            return false;
    }
    return true;
}
