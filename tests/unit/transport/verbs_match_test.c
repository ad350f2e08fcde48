/* Which ports of two machines go together; no device is needed for that. */
#include <criterion/criterion.h>
#include <string.h>

#include "transport/verbs/match.h"

static struct verbs_port ib(uint8_t nic, uint64_t subnet, uint16_t lid)
{
    struct verbs_port port = {
        .nic = nic, .port = 1, .kind = VERBS_IB, .lid = lid, .pkey = 0xffff, .mtu = 5};

    memcpy(port.gid, &subnet, sizeof(subnet));
    port.gid[15] = (uint8_t)lid;
    return port;
}

static struct verbs_port roce(uint8_t nic, enum verbs_kind kind, const uint8_t v4[4],
                              uint8_t prefix)
{
    struct verbs_port port = {.nic = nic,
                              .port = 1,
                              .kind = (uint8_t)kind,
                              .mtu = 3,
                              .prefix = prefix,
                              .gid = {[10] = 0xff, [11] = 0xff}};

    memcpy(port.gid + 12, v4, 4);
    return port;
}

#define V4(a, b, c, d) ((const uint8_t[4]){a, b, c, d})

static struct verbs_port link_local(uint8_t nic, enum verbs_kind kind, uint8_t last)
{
    return (struct verbs_port){.nic = nic,
                               .port = 1,
                               .kind = (uint8_t)kind,
                               .mtu = 3,
                               .gid = {[0] = 0xfe, [1] = 0x80, [15] = last}};
}

static void add(struct verbs_offer *offer, struct verbs_port port)
{
    offer->version = VERBS_OFFER_VERSION;
    offer->ports[offer->port_n++] = port;
}

/* What both sides find, which must be the same. */
static uint32_t match_but(const struct verbs_offer *a, const struct verbs_offer *b,
                          const struct verbs_tried *tried, struct verbs_rail rails[VERBS_RAIL_MAX],
                          const char **why)
{
    struct verbs_rail others[VERBS_RAIL_MAX];
    struct verbs_tried seen = *tried; /* from the other side */
    uint32_t n, other_n;
    bool good = verbs_match(a, b, true, tried, rails, &n, why);

    for (uint32_t i = 0; i < seen.n; i++)
        seen.rails[i] = (struct verbs_rail){tried->rails[i].peer, tried->rails[i].own};
    cr_assert_eq(verbs_match(b, a, false, &seen, others, &other_n, why), good);
    cr_assert_eq(n, other_n);
    for (uint32_t i = 0; i < n; i++) {
        cr_assert_eq(rails[i].own, others[i].peer);
        cr_assert_eq(rails[i].peer, others[i].own);
    }
    cr_assert_eq(good, n > 0);
    return n;
}

static uint32_t match(const struct verbs_offer *a, const struct verbs_offer *b,
                      struct verbs_rail rails[VERBS_RAIL_MAX], const char **why)
{
    const struct verbs_tried none = {0};

    return match_but(a, b, &none, rails, why);
}

Test(verbs_match, takes_infiniband_ports_of_one_subnet)
{
    struct verbs_offer a = {0}, b = {0};
    struct verbs_rail rails[VERBS_RAIL_MAX];
    const char *why;

    add(&a, ib(0, 111, 4));
    add(&a, ib(1, 222, 5));
    add(&b, ib(0, 222, 9));
    cr_assert_eq(match(&a, &b, rails, &why), 1);
    cr_assert_eq(rails[0].own, 1);
    cr_assert_eq(rails[0].peer, 0);
}

Test(verbs_match, says_that_infiniband_subnets_differ)
{
    struct verbs_offer a = {0}, b = {0};
    struct verbs_rail rails[VERBS_RAIL_MAX];
    const char *why = NULL;

    add(&a, ib(0, 111, 4));
    add(&b, ib(0, 222, 9));
    cr_assert_eq(match(&a, &b, rails, &why), 0);
    cr_assert(strstr(why, "different subnets"), "%s", why);
    b.ports[0] = ib(0, 111, 9);
    b.ports[0].pkey = 0x8001;
    cr_assert_eq(match(&a, &b, rails, &why), 0);
    cr_assert(strstr(why, "partitions"), "%s", why);
}

Test(verbs_match, takes_a_full_and_a_limited_member_of_one_partition)
{
    struct verbs_offer a = {0}, b = {0};
    struct verbs_rail rails[VERBS_RAIL_MAX];
    const char *why;

    add(&a, ib(0, 111, 4));
    add(&b, ib(0, 111, 9));
    b.ports[0].pkey = 0x7fff;
    cr_assert_eq(match(&a, &b, rails, &why), 1);
}

Test(verbs_match, refuses_two_limited_members_of_a_partition)
{
    struct verbs_offer a = {0}, b = {0};
    struct verbs_rail rails[VERBS_RAIL_MAX];
    const char *why;

    add(&a, ib(0, 111, 4));
    add(&b, ib(0, 111, 9));
    a.ports[0].pkey = b.ports[0].pkey = 0x7fff;
    cr_assert_eq(match(&a, &b, rails, &why), 0);
}

/* Two fabrics that have both kept the default prefix. */
Test(verbs_match, goes_on_to_the_next_pair_when_one_was_tried)
{
    struct verbs_offer a = {.stripe = 1}, b = {.stripe = 1};
    struct verbs_tried tried = {0};
    struct verbs_rail rails[VERBS_RAIL_MAX];
    const char *why = NULL;

    for (uint8_t nic = 0; nic < 2; nic++) {
        add(&a, ib(nic, 111, 4 + nic));
        add(&b, ib(nic, 111, 9 + nic));
    }
    cr_assert_eq(match_but(&a, &b, &tried, rails, &why), 2);
    cr_assert_eq(rails[0].peer, 0);
    tried.rails[tried.n++] = rails[0];
    tried.rails[tried.n++] = rails[1];
    cr_assert_eq(match_but(&a, &b, &tried, rails, &why), 2);
    cr_assert(rails[0].own == 0 && rails[0].peer == 1);
    cr_assert(rails[1].own == 1 && rails[1].peer == 0);
    tried.rails[tried.n++] = rails[0];
    tried.rails[tried.n++] = rails[1];
    cr_assert_eq(match_but(&a, &b, &tried, rails, &why), 0);
    cr_assert(strstr(why, "reach"), "%s", why);
}

Test(verbs_match, prefers_roce_v2_addresses_of_one_network)
{
    struct verbs_offer a = {0}, b = {0};
    struct verbs_rail rails[VERBS_RAIL_MAX];
    const char *why;

    add(&a, link_local(0, VERBS_ROCE2, 1));
    add(&a, roce(0, VERBS_ROCE2, V4(10, 1, 0, 1), 16));
    add(&a, roce(1, VERBS_ROCE2, V4(10, 2, 0, 1), 16));
    add(&b, link_local(0, VERBS_ROCE2, 2));
    add(&b, roce(0, VERBS_ROCE2, V4(10, 2, 9, 7), 16));
    cr_assert_eq(match(&a, &b, rails, &why), 1);
    cr_assert_eq(rails[0].own, 2);
    cr_assert_eq(rails[0].peer, 1);
}

Test(verbs_match, tries_a_router_between_roce_v2_networks)
{
    struct verbs_offer a = {0}, b = {0};
    struct verbs_rail rails[VERBS_RAIL_MAX];
    const char *why;

    add(&a, roce(0, VERBS_ROCE2, V4(10, 1, 0, 1), 24));
    add(&b, link_local(0, VERBS_ROCE2, 2));
    add(&b, roce(0, VERBS_ROCE2, V4(192, 168, 0, 2), 24));
    cr_assert_eq(match(&a, &b, rails, &why), 1);
    cr_assert_eq(rails[0].peer, 1);
}

Test(verbs_match, never_mixes_kinds)
{
    struct verbs_offer a = {0}, b = {0};
    struct verbs_rail rails[VERBS_RAIL_MAX];
    const char *why = NULL;

    add(&a, roce(0, VERBS_ROCE1, V4(10, 1, 0, 1), 24));
    add(&a, ib(1, 111, 4));
    add(&b, roce(0, VERBS_ROCE2, V4(10, 1, 0, 2), 24));
    add(&b, roce(0, VERBS_IWARP, V4(10, 1, 0, 2), 24));
    cr_assert_eq(match(&a, &b, rails, &why), 0);
    cr_assert(strstr(why, "different kinds"), "%s", why);
    cr_assert_eq(match(&a, &(struct verbs_offer){0}, rails, &why), 0);
}

Test(verbs_match, stripes_over_equals_only_where_asked)
{
    struct verbs_offer a = {.stripe = 1}, b = {0};
    struct verbs_rail rails[VERBS_RAIL_MAX];
    const char *why;

    for (uint8_t nic = 0; nic < 3; nic++)
        add(&a, roce(nic, VERBS_ROCE2, V4(10, nic, 0, 1), 24));
    for (uint8_t nic = 0; nic < 2; nic++)
        add(&b, roce(nic, VERBS_ROCE2, V4(10, (uint8_t)(1 - nic), 0, 2), 24));
    cr_assert_eq(match(&a, &b, rails, &why), 2);
    cr_assert_eq(rails[0].own, 0);
    cr_assert_eq(rails[0].peer, 1);
    cr_assert_eq(rails[1].own, 1);
    cr_assert_eq(rails[1].peer, 0);
    a.stripe = 0;
    cr_assert_eq(match(&a, &b, rails, &why), 1);
}

Test(verbs_match, takes_the_fastest_of_those_that_suit_alike)
{
    struct verbs_offer a = {0}, b = {0};
    struct verbs_rail rails[VERBS_RAIL_MAX];
    const char *why;

    for (uint8_t nic = 0; nic < 3; nic++) {
        add(&a, ib(nic, 111, 4 + nic));
        add(&b, ib(nic, 111, 9 + nic));
        a.ports[nic].speed = b.ports[2 - nic].speed = nic == 1 ? 400000 : 100000;
    }
    cr_assert_eq(match(&a, &b, rails, &why), 1);
    cr_assert_eq(rails[0].own, 1);
    cr_assert_eq(rails[0].peer, 1);
}

Test(verbs_match, does_not_stripe_over_a_slower_one)
{
    struct verbs_offer a = {.stripe = 1}, b = {.stripe = 1};
    struct verbs_rail rails[VERBS_RAIL_MAX];
    const char *why;

    for (uint8_t nic = 0; nic < 3; nic++) {
        add(&a, ib(nic, 111, 4 + nic));
        add(&b, ib(nic, 111, 9 + nic));
        a.ports[nic].speed = b.ports[nic].speed = nic == 1 ? 25000 : 200000;
    }
    cr_assert_eq(match(&a, &b, rails, &why), 2);
    cr_assert_eq(rails[0].own, 0);
    cr_assert_eq(rails[1].own, 2);
}

Test(verbs_match, stripes_over_no_more_than_have_a_channel)
{
    struct verbs_offer a = {.stripe = 1}, b = {.stripe = 1};
    struct verbs_rail rails[VERBS_RAIL_MAX];
    const char *why;

    for (uint8_t nic = 0; nic < VERBS_NIC_MAX; nic++) {
        add(&a, ib(nic, 111, 4 + nic));
        add(&b, ib(nic, 111, 9 + nic));
    }
    cr_assert_eq(match(&a, &b, rails, &why), TFR_CHANNELS - 1);
}

/* Four NICs with the addresses that RoCE ports have: link-local and IPv4, of either version, and
 * those of some VLANs. */
Test(verbs_match, offers_the_address_that_counts_of_every_nic)
{
    struct verbs_offer offer = {.version = VERBS_OFFER_VERSION};

    for (uint8_t nic = 0; nic < VERBS_NIC_MAX; nic++) {
        for (uint8_t vlan = 0; vlan < 3; vlan++) {
            struct verbs_port of[] = {link_local(nic, VERBS_ROCE1, nic),
                                      link_local(nic, VERBS_ROCE2, nic),
                                      roce(nic, VERBS_ROCE1, V4(10, nic, vlan, 1), 24),
                                      roce(nic, VERBS_ROCE2, V4(10, nic, vlan, 1), 24)};
            for (int i = 0; i < 4; i++)
                verbs_offer_add(&offer, &of[i]);
        }
    }
    cr_assert_eq(offer.port_n, VERBS_PORT_MAX);
    for (uint8_t nic = 0; nic < VERBS_NIC_MAX; nic++) {
        int v4 = 0, n = 0;
        for (int i = 0; i < offer.port_n; i++) {
            const struct verbs_port *port = &offer.ports[i];
            n += port->nic == nic;
            v4 += port->nic == nic && port->kind == VERBS_ROCE2 && verbs_gid_is_v4(port->gid);
        }
        cr_assert_eq(v4, 3, "NIC %u: %d", nic, v4);
        cr_assert_geq(n, 3);
    }
}

Test(verbs_match, refuses_offers_that_make_no_sense)
{
    struct verbs_offer body = {.version = VERBS_OFFER_VERSION}, out;
    struct tfr_offer offer = {.len = sizeof(body)};

    add(&body, ib(0, 1, 2));
    memcpy(offer.body, &body, sizeof(body));
    cr_assert(verbs_offer_read(&offer, &out));
    offer.len--;
    cr_assert_not(verbs_offer_read(&offer, &out), "length");
    offer.len++;
    body.port_n = VERBS_PORT_MAX + 1;
    memcpy(offer.body, &body, sizeof(body));
    cr_assert_not(verbs_offer_read(&offer, &out), "too many ports");
    body.port_n = 1;
    body.ports[0].nic = VERBS_NIC_MAX;
    memcpy(offer.body, &body, sizeof(body));
    cr_assert_not(verbs_offer_read(&offer, &out), "a NIC that cannot be");
    body.ports[0] = ib(0, 1, 2);
    body.ports[0].mtu = 9;
    memcpy(offer.body, &body, sizeof(body));
    cr_assert_not(verbs_offer_read(&offer, &out), "an MTU that cannot be");
}
