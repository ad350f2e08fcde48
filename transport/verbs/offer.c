/* What RDMA this machine has: devices that are named or chosen, their active ports, and how each
 * can be reached.  GID types and network interfaces come from sysfs, which says them with any age
 * of libibverbs. */
#define TFR_LOG_PART "transport"
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "transport/verbs/verbs.h"

enum { CANDIDATES_MAX = 32, GIDS_MAX = 256, LOCK_AMPLE = 1 << 30 };

/* The first line of /sys/class/infiniband/DEVICE/FILE; "" if there is none. */
static void sysfs_read(const char *device, const char *file, char *text, size_t size)
{
    char path[256];
    FILE *in;

    snprintf(path, sizeof(path), "/sys/class/infiniband/%s/%s", device, file);
    text[0] = 0;
    in = fopen(path, "re");
    if (!in)
        return;
    if (!fgets(text, (int)size, in))
        text[0] = 0;
    fclose(in);
    text[strcspn(text, "\n")] = 0;
}

static bool is_named(const char *list, const char *name)
{
    size_t len = strlen(name);

    while (*list) {
        size_t item = strcspn(list, ",");
        if (item == len && strncmp(list, name, len) == 0)
            return true;
        list += item + (list[item] == ',');
    }
    return false;
}

static bool iwarp_only;

static void iwarp_look(void)
{
    const char *names = verbs_conf()->devices;
    int device_n = 0, seen = 0, iwarp = 0;
    struct ibv_device **devices = ibv_get_device_list(&device_n);

    for (int i = 0; i < device_n; i++) {
        if (names && !is_named(names, devices[i]->name))
            continue;
        seen += devices[i]->transport_type == IBV_TRANSPORT_IB ||
                devices[i]->transport_type == IBV_TRANSPORT_IWARP;
        iwarp += devices[i]->transport_type == IBV_TRANSPORT_IWARP;
    }
    if (devices)
        ibv_free_device_list(devices);
    iwarp_only = iwarp && iwarp == seen;
}

/* iWARP is used where there is nothing else: an RDMA read shows its sink to the peer there, who may
 * then write it, so there are no gets, for the whole process. */
bool verbs_iwarp_only(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    pthread_once(&once, iwarp_look);
    return iwarp_only;
}

bool verbs_imm_likely(void)
{
    int device_n = 0;
    struct ibv_device **devices;
    bool found = verbs_conf()->notify == VERBS_NOTIFY_IMM;

    if (verbs_conf()->notify)
        return found;
    devices = ibv_get_device_list(&device_n);
    for (int i = 0; i < device_n * 2; i++) {
        char file[32], text[32];
        snprintf(file, sizeof(file), "ports/%d/link_layer", i % 2 + 1);
        sysfs_read(devices[i / 2]->name, file, text, sizeof(text));
        found |= strcmp(text, "InfiniBand") == 0;
    }
    if (devices)
        ibv_free_device_list(devices);
    return found;
}

static uint32_t speed_of(const struct ibv_port_attr *attr)
{
    static const uint32_t lanes[] = {[1] = 1, [2] = 4, [4] = 8, [8] = 12, [16] = 2};
    static const struct {
        uint8_t code;
        uint32_t mbit;
    } speeds[] = {{1, 2500},   {2, 5000},   {4, 10000},  {8, 10000},
                  {16, 14000}, {32, 25000}, {64, 50000}, {128, 100000}};

    for (size_t i = 0; i < sizeof(speeds) / sizeof(speeds[0]); i++) {
        if (speeds[i].code == attr->active_speed && attr->active_width <= 16)
            return speeds[i].mbit * lanes[attr->active_width];
    }
    return 0;
}

/* The prefix length of the network that the address is in, by the machine's interfaces. */
static uint8_t prefix_find(const uint8_t gid[16])
{
    struct ifaddrs *all, *at;
    uint8_t prefix = 0;

    if (!verbs_gid_is_v4(gid) || getifaddrs(&all) < 0)
        return 0;
    for (at = all; at; at = at->ifa_next) {
        const struct sockaddr_in *addr = (const void *)at->ifa_addr;
        const struct sockaddr_in *mask = (const void *)at->ifa_netmask;
        if (addr && mask && addr->sin_family == AF_INET &&
            memcmp(&addr->sin_addr, gid + 12, 4) == 0)
            prefix = (uint8_t)__builtin_popcount(mask->sin_addr.s_addr);
    }
    freeifaddrs(all);
    return prefix;
}

/* iWARP has no IP address in its GIDs: that of the interface. */
static void iwarp_address(const char *device, uint8_t gid_out[16])
{
    struct ifaddrs *all, *at;
    char name[64];

    sysfs_read(device, "ports/1/gid_attrs/ndevs/0", name, sizeof(name));
    if (!name[0] || getifaddrs(&all) < 0)
        return;
    for (at = all; at; at = at->ifa_next) {
        const struct sockaddr_in *addr = (const void *)at->ifa_addr;
        if (!addr || addr->sin_family != AF_INET || strcmp(at->ifa_name, name) != 0)
            continue;
        memset(gid_out, 0, 16);
        gid_out[10] = gid_out[11] = 0xff;
        memcpy(gid_out + 12, &addr->sin_addr, 4);
    }
    freeifaddrs(all);
}

static enum verbs_kind kind_of(const struct verbs_nic *nic, const struct ibv_port_attr *attr,
                               int port, int gid_at)
{
    char file[64], type[64];

    if (nic->iwarp)
        return VERBS_IWARP;
    if (attr->link_layer == IBV_LINK_LAYER_INFINIBAND)
        return VERBS_IB;
    snprintf(file, sizeof(file), "ports/%d/gid_attrs/types/%d", port, gid_at);
    sysfs_read(nic->ctx->device->name, file, type, sizeof(type));
    return strstr(type, "v2") ? VERBS_ROCE2 : VERBS_ROCE1;
}

/* The entry of the port's table that was asked for, else the first. */
static bool pkey_find(const struct verbs_nic *nic, uint8_t port, int entries, uint16_t *pkey_out)
{
    int wanted = verbs_conf()->pkey;
    __be16 pkey = 0xffff;

    if (wanted < 0 && ibv_query_pkey(nic->ctx, port, 0, &pkey) != 0)
        pkey = 0xffff;
    *pkey_out = ntohs(pkey);
    for (int i = 0; wanted >= 0 && i < entries; i++) {
        if (ibv_query_pkey(nic->ctx, port, i, &pkey) == 0 &&
            ((ntohs(pkey) ^ wanted) & 0x7fff) == 0) {
            *pkey_out = ntohs(pkey);
            return true;
        }
    }
    return wanted < 0;
}

static uint8_t notify_of(enum verbs_kind kind)
{
    if (kind == VERBS_IWARP)
        return VERBS_NOTIFY_SEND;
    if (verbs_conf()->notify)
        return (uint8_t)verbs_conf()->notify;
    return kind == VERBS_IB ? VERBS_NOTIFY_IMM : VERBS_NOTIFY_MEM;
}

static void gids_add(const struct verbs_nic *nic, struct verbs_port *port,
                     const struct ibv_port_attr *attr, struct verbs_offer *offer)
{
    static const union ibv_gid none;
    const struct verbs_conf *conf = verbs_conf();

    for (int i = 0; i < attr->gid_tbl_len && i < GIDS_MAX; i++) {
        union ibv_gid gid;
        if ((conf->gid_at >= 0 && i != conf->gid_at) ||
            ibv_query_gid(nic->ctx, port->port, i, &gid) != 0 ||
            memcmp(&gid, &none, sizeof(gid)) == 0)
            continue;
        port->gid_at = (uint8_t)i;
        memcpy(port->gid, gid.raw, sizeof(port->gid));
        port->kind = (uint8_t)kind_of(nic, attr, port->port, i);
        if (port->kind == VERBS_IWARP)
            iwarp_address(nic->ctx->device->name, port->gid);
        port->prefix = prefix_find(port->gid);
        port->cm = conf->cm || port->kind == VERBS_IWARP;
        port->notify = notify_of((enum verbs_kind)port->kind);
        verbs_offer_add(offer, port);
        if (port->kind == VERBS_IB || port->kind == VERBS_IWARP)
            return; /* the others say the same */
    }
}

static uint8_t mtu_of(const struct ibv_port_attr *attr)
{
    enum ibv_mtu most = verbs_mtu_most();

    return (uint8_t)(attr->active_mtu < most ? attr->active_mtu : most);
}

void verbs_nics_offer(const struct verbs_nic *nics, uint32_t n, bool stripe,
                      struct verbs_offer *offer_out)
{
    const struct verbs_conf *conf = verbs_conf();

    *offer_out = (struct verbs_offer){.version = VERBS_OFFER_VERSION, .stripe = stripe};
    for (uint32_t i = 0; i < n; i++) {
        for (uint8_t p = 1; p <= nics[i].attr.phys_port_cnt; p++) {
            struct ibv_port_attr attr;
            struct verbs_port port = {.nic = (uint8_t)i, .port = p};
            if ((conf->port >= 0 && p != conf->port) ||
                ibv_query_port(nics[i].ctx, p, &attr) != 0 || attr.state != IBV_PORT_ACTIVE ||
                !pkey_find(&nics[i], p, attr.pkey_tbl_len, &port.pkey))
                continue;
            port.lid = attr.lid;
            port.mtu = mtu_of(&attr);
            port.speed = speed_of(&attr);
            gids_add(&nics[i], &port, &attr, offer_out);
        }
    }
}

/* ---- which devices ---- */

struct candidate {
    struct verbs_nic nic;
    struct verbs_offer offer;
    int near; /* 1: on the memory node that is asked for */
};

/* Is there too little for lanes with several NICs? */
static bool is_lock_limited(void)
{
    struct rlimit limit;

    return geteuid() != 0 && getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur < LOCK_AMPLE;
}

/* Why a device could not be opened, which libibverbs tells only by and by. */
static int open_error(const struct ibv_device *device)
{
    char path[96];

    snprintf(path, sizeof(path), "/dev/infiniband/%.64s", device->dev_name);
    return access(path, R_OK | W_OK) != 0 ? errno : EIO;
}

/* Others (EFA, usNIC) have no reliable connections. */
static bool nic_open(struct ibv_device *device, struct verbs_nic *nic_out, int *error_out)
{
    if (device->transport_type != (verbs_iwarp_only() ? IBV_TRANSPORT_IWARP : IBV_TRANSPORT_IB))
        return false;
    *nic_out = (struct verbs_nic){.iwarp = device->transport_type == IBV_TRANSPORT_IWARP};
    nic_out->ctx = ibv_open_device(device);
    if (!nic_out->ctx) {
        *error_out = open_error(device);
        return false;
    }
    if (ibv_query_device(nic_out->ctx, &nic_out->attr) == 0)
        return true;
    ibv_close_device(nic_out->ctx);
    return false;
}

static bool candidate_open(struct ibv_device *device, int node, struct candidate *out,
                           int *error_out)
{
    char text[32];

    if (!nic_open(device, &out->nic, error_out))
        return false;
    sysfs_read(device->name, "device/numa_node", text, sizeof(text));
    out->near = node >= 0 && text[0] && atoi(text) == node;
    verbs_nics_offer(&out->nic, 1, false, &out->offer);
    if (out->offer.port_n)
        return true;
    ibv_close_device(out->nic.ctx);
    return false;
}

/* Nearer, then faster, then in the order of the system. */
static bool better(const struct candidate *a, const struct candidate *b)
{
    if (a->near != b->near)
        return a->near > b->near;
    return a->offer.ports[0].speed > b->offer.ports[0].speed;
}

static bool kind_same(const struct candidate *a, const struct candidate *b)
{
    const struct verbs_port *x = a->offer.ports, *y = b->offer.ports;

    return (x->kind == VERBS_IB) == (y->kind == VERBS_IB);
}

/* Is one of a fabric that none of the first `taken` is of? */
static bool is_new(const struct candidate *all, uint32_t taken, uint32_t at)
{
    for (uint32_t i = 0; i < taken; i++) {
        if (kind_same(&all[i], &all[at]))
            return false;
    }
    return true;
}

static void candidate_move(struct candidate *all, uint32_t from, uint32_t to)
{
    struct candidate one = all[from];

    memmove(&all[to + 1], &all[to], sizeof(one) * (from - to));
    all[to] = one;
}

/* The best of each fabric, then the best of the rest, come first; how many of them are used.
 * Each NIC takes locked memory of its own: where that is short, one of a fabric must do. */
static uint32_t candidates_choose(struct candidate *all, uint32_t n)
{
    uint32_t taken = 0;

    while (taken < n && taken < VERBS_NIC_MAX) {
        uint32_t best = taken;
        bool best_new = is_new(all, taken, best);
        for (uint32_t i = taken + 1; i < n; i++) {
            bool new = is_new(all, taken, i);
            if (new != best_new ? new : better(&all[i], &all[best])) {
                best = i;
                best_new = new;
            }
        }
        if (!best_new && is_lock_limited())
            break;
        candidate_move(all, best, taken++);
    }
    return taken;
}

/* Which of the names it is. */
static uint32_t name_order(const char *names, const char *name)
{
    uint32_t at = 0;
    size_t len = strlen(name);

    for (; *names; at++) {
        size_t n = strcspn(names, ",");
        if (n == len && memcmp(names, name, n) == 0)
            break;
        names += n + (names[n] == ',');
    }
    return at;
}

/* As they were named: the first one carries the records. */
static uint32_t candidates_sort(const char *names, struct candidate *all, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        uint32_t order = name_order(names, all[i].nic.ctx->device->name), at = i;
        while (at > 0 && name_order(names, all[at - 1].nic.ctx->device->name) > order)
            at--;
        candidate_move(all, i, at);
    }
    return n < VERBS_NIC_MAX ? n : VERBS_NIC_MAX;
}

static const char *why_none(int device_n, bool named, int error)
{
    if (device_n == 0)
        return "this machine has no RDMA device";
    if (error == EACCES || error == EPERM)
        return "its RDMA devices may not be opened: this user needs rights to /dev/infiniband/*";
    if (error == ENOENT)
        return "its RDMA devices have no files here: modprobe ib_uverbs, or give the container "
               "/dev/infiniband";
    if (verbs_conf()->pkey >= 0)
        return "no active RDMA port has the partition key of TFR_VERBS_PKEY: see "
               "/sys/class/infiniband/*/ports/*/pkeys";
    return named ? "no RDMA device of the names given has an active port: see TFR_VERBS_DEVICE, "
                   "TFR_VERBS_PORT, TFR_VERBS_GID"
                 : "no RDMA device has an active port";
}

/* All that could be used; *error_out: why one could not be opened. */
static uint32_t candidates_open(struct ibv_device **devices, int device_n, const char *names,
                                int node, struct candidate *all, int *error_out)
{
    uint32_t n = 0;

    *error_out = 0;
    for (int i = 0; i < device_n && n < CANDIDATES_MAX; i++) {
        if (!names || is_named(names, devices[i]->name))
            n += candidate_open(devices[i], node, &all[n], error_out);
    }
    return n;
}

uint32_t verbs_nics_open(const struct tfr_dev_cfg *cfg, struct verbs_nic nics_out[VERBS_NIC_MAX],
                         bool *stripe_out, const char **why_out)
{
    const char *set = verbs_conf()->devices, *names = set ? set : cfg ? cfg->name : NULL;
    struct candidate *all = calloc(CANDIDATES_MAX, sizeof(*all));
    int device_n = 0, error;
    struct ibv_device **devices = all ? ibv_get_device_list(&device_n) : NULL;
    uint32_t n, used;

    n = candidates_open(devices, device_n, names, cfg ? cfg->numa_node : -1, all, &error);
    if (devices)
        ibv_free_device_list(devices);
    used = names ? candidates_sort(names, all, n) : candidates_choose(all, n);
    for (uint32_t i = 0; i < n; i++) {
        if (i < used)
            nics_out[i] = all[i].nic;
        else
            ibv_close_device(all[i].nic.ctx);
    }
    free(all);
    *stripe_out = names && used > 1;
    if (used == 0)
        *why_out = why_none(device_n, names != NULL, error);
    return used;
}

void verbs_nics_close(struct verbs_nic *nics, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (nics[i].pd)
            ibv_dealloc_pd(nics[i].pd);
        ibv_close_device(nics[i].ctx);
    }
}

tfr_status verbs_offer(struct tfr_offer *offer_out, const char **why_out)
{
    struct verbs_nic nics[VERBS_NIC_MAX];
    struct verbs_offer body;
    bool stripe;
    uint32_t n = verbs_nics_open(NULL, nics, &stripe, why_out);

    if (n == 0)
        return TFR_E_UNSUP;
    verbs_nics_offer(nics, n, stripe, &body);
    verbs_nics_close(nics, n);
    *offer_out = (struct tfr_offer){.len = sizeof(body)};
    memcpy(offer_out->body, &body, sizeof(body));
    return TFR_OK;
}

bool verbs_suits(const struct tfr_offer *own, const struct tfr_offer *peer, const char **why_out)
{
    struct verbs_rail rails[VERBS_RAIL_MAX];
    struct verbs_offer a, b;
    uint32_t n;

    if (!verbs_offer_read(own, &a) || !verbs_offer_read(peer, &b)) {
        *why_out = "the other machine's offer is not one that this release knows";
        return false;
    }
    return verbs_match(&a, &b, true, NULL, rails, &n, why_out);
}
