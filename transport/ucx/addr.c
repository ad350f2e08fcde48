/* See addr.h.  Which network interface belongs to an RDMA device is read in /sys: the entries of a
 * RoCE port's address table name it, and an IPoIB interface is a child of the device. */
#define TFR_LOG_PART "transport"
#include <arpa/inet.h>
#include <dirent.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "transport/ucx/addr.h"

enum { GIDS = 32 /* entries of a port's address table that are looked at */ };

/* Does an entry of the port's address table name the interface? */
static bool port_names(const char *port_path, const char *name)
{
    bool found = false;

    for (int i = 0; i < GIDS && !found; i++) {
        char path[320], line[IF_NAMESIZE + 2] = "";
        FILE *file;
        snprintf(path, sizeof(path), "%.240s/gid_attrs/ndevs/%d", port_path, i);
        file = fopen(path, "re");
        if (!file)
            break;
        if (fgets(line, sizeof(line), file)) { /* an unused entry answers EINVAL */
            line[strcspn(line, "\n")] = 0;
            found = strcmp(line, name) == 0;
        }
        fclose(file);
    }
    return found;
}

/* IPoIB: the interface is the device's, with no entry in the table. */
static bool is_ipoib(const char *name, const char *device)
{
    char path[192];

    snprintf(path, sizeof(path), "/sys/class/net/%.32s/device/infiniband/%.64s", name, device);
    return access(path, F_OK) == 0;
}

static bool nic_listed(const char *nics, const char *device)
{
    size_t len = strlen(device);

    if (!*nics || strcmp(nics, "all") == 0)
        return true;
    for (const char *at = nics; (at = strstr(at, device)); at += len) {
        bool begins = at == nics || at[-1] == ',';
        if (begins && (at[len] == ':' || at[len] == ',' || at[len] == 0))
            return true;
    }
    return false;
}

/* Is the interface that of a device in the list? */
static bool is_rdma(const char *nics, const char *name)
{
    DIR *dir = opendir("/sys/class/infiniband");
    const struct dirent *entry;
    bool found = false;

    while (dir && !found && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.' || !nic_listed(nics, entry->d_name))
            continue;
        found = is_ipoib(name, entry->d_name);
        for (int port = 1; port <= 2 && !found; port++) {
            char path[240];
            snprintf(path, sizeof(path), "/sys/class/infiniband/%.64s/ports/%d", entry->d_name,
                     port);
            found = port_names(path, name);
        }
    }
    if (dir)
        closedir(dir);
    return found;
}

static uint8_t ones(const uint8_t *bytes, size_t n)
{
    int sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += __builtin_popcount(bytes[i]);
    return (uint8_t)sum;
}

/* False: no address that another machine could name. */
static bool ip_of(const struct ifaddrs *at, struct ucx_ip *ip_out)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(void *)at->ifa_addr;
    const struct sockaddr_in *mask4 = (const struct sockaddr_in *)(void *)at->ifa_netmask;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(void *)at->ifa_addr;
    const struct sockaddr_in6 *mask6 = (const struct sockaddr_in6 *)(void *)at->ifa_netmask;

    if (!v4 || !mask4)
        return false;
    if (v4->sin_family == AF_INET) {
        *ip_out = (struct ucx_ip){.family = UCX_IP4};
        memcpy(ip_out->addr, &v4->sin_addr, 4);
        ip_out->prefix = ones((const uint8_t *)&mask4->sin_addr, 4);
        return true;
    }
    if (v4->sin_family != AF_INET6 || IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr))
        return false;
    *ip_out = (struct ucx_ip){.family = UCX_IP6};
    memcpy(ip_out->addr, &v6->sin6_addr, 16);
    ip_out->prefix = ones((const uint8_t *)&mask6->sin6_addr, 16);
    return true;
}

uint32_t ucx_ips_list(const char *nics, struct ucx_ip ips[UCX_IPS])
{
    struct ifaddrs *list = NULL;
    uint32_t n = 0;

    if (getifaddrs(&list) != 0)
        return 0;
    for (const struct ifaddrs *at = list; at && n < UCX_IPS; at = at->ifa_next) {
        if (!(at->ifa_flags & IFF_UP) || at->ifa_flags & IFF_LOOPBACK || !ip_of(at, &ips[n]) ||
            !is_rdma(nics, at->ifa_name))
            continue;
        n++;
    }
    freeifaddrs(list);
    return n;
}

bool ucx_ip_near(const struct ucx_ip *a, const struct ucx_ip *b)
{
    uint32_t most = a->family == UCX_IP4 ? 32 : 128;
    uint32_t bits = a->prefix < most ? a->prefix : most;
    uint8_t mask = (uint8_t)(0xff00 >> bits % 8);

    return a->family == b->family && memcmp(a->addr, b->addr, bits / 8) == 0 &&
           (bits % 8 == 0 || ((a->addr[bits / 8] ^ b->addr[bits / 8]) & mask) == 0);
}

void ucx_ips_sort(const char *nics, struct ucx_ip *ips, uint32_t n)
{
    struct ucx_ip own[UCX_IPS];
    uint32_t own_n = ucx_ips_list(nics, own), front = 0;

    for (uint32_t i = 0; i < n; i++) {
        bool near = false;
        struct ucx_ip ip = ips[i];
        for (uint32_t k = 0; k < own_n; k++)
            near |= ucx_ip_near(&own[k], &ip);
        if (!near)
            continue;
        memmove(&ips[front + 1], &ips[front], (i - front) * sizeof(*ips));
        ips[front++] = ip;
    }
}

socklen_t ucx_ip_sockaddr(const struct ucx_ip *ip, uint16_t port, struct sockaddr_storage *out)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};

    memset(out, 0, sizeof(*out));
    memcpy(&v4.sin_addr, ip->addr, sizeof(v4.sin_addr));
    memcpy(&v6.sin6_addr, ip->addr, sizeof(v6.sin6_addr));
    if (ip->family == UCX_IP4) {
        memcpy(out, &v4, sizeof(v4));
        return sizeof(v4);
    }
    if (ip->family != UCX_IP6)
        return 0;
    memcpy(out, &v6, sizeof(v6));
    return sizeof(v6);
}

uint16_t ucx_sockaddr_port(const struct sockaddr_storage *addr)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)addr;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)addr;

    return ntohs(addr->ss_family == AF_INET6 ? v6->sin6_port : v4->sin_port);
}

const char *ucx_ip_text(const struct ucx_ip *ip, char *text, size_t len)
{
    int family = ip->family == UCX_IP6 ? AF_INET6 : AF_INET;

    return inet_ntop(family, ip->addr, text, (socklen_t)len) ? text : "?";
}

static bool tl_has_rma(const char *name)
{
    static const char *const good[] = {"rc_",  "dc_",   "gga_", "ugni_", "posix",
                                       "sysv", "xpmem", "knem", "cma",   "self"};

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        if (strncmp(name, good[i], strlen(good[i])) == 0)
            return true;
    }
    return false;
}

/* May the lane be there?  A datagram lane keeps the connection alive, but must not put. */
static bool lane_good(const char *tl, const char *line)
{
    size_t len = strcspn(line, "\n");
    const char *rma = strstr(line, " rma");

    if (tl_has_rma(tl))
        return true;
    return strncmp(tl, "ud_", 3) == 0 && !(rma && rma < line + len);
}

/* Lines of lanes read "lane[N]:  R:TRANSPORT/DEVICE ... WHAT IT IS FOR". */
bool ucx_lanes_good(const char *text, char *name_out, size_t len)
{
    const char *at = text;
    int lanes = 0; /* with RMA */

    *name_out = 0;
    while ((at = strstr(at, "lane["))) {
        char tl[32] = "";
        at += strlen("lane[");
        if (sscanf(at, "%*d]: %*d:%31[^/ ]", tl) != 1)
            continue;
        lanes += tl_has_rma(tl);
        if (lane_good(tl, at))
            continue;
        snprintf(name_out, len, "%s", tl);
        return false;
    }
    return lanes > 0;
}

tfr_status ucx_lanes_check(ucp_ep_h ep)
{
    char *text = NULL, name[32];
    size_t len = 0;
    FILE *stream = open_memstream(&text, &len);
    bool good;

    if (!stream)
        return tfr_fail(TFR_E_NOMEM, "ucx lanes");
    ucp_ep_print_info(ep, stream);
    fclose(stream);
    good = ucx_lanes_good(text, name, sizeof(name));
    tfr_debug("ucx endpoint:\n%s", text);
    free(text);
    if (good)
        return TFR_OK;
    return tfr_fail(
        TFR_E_UNSUP,
        "ucx: the lane %s has no RDMA of its own, and UCX's software put is not for us: "
        "set TFR_UCX_TLS to rc,dc or use tcp of TFR",
        *name ? name : "that UCX chose");
}
