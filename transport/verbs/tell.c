/* What tf-info says of this machine's RDMA: ports that can be used, and what their devices were
 * found to give.  How many bytes a device takes inline is known only once a queue pair was made. */
#define TFR_LOG_PART "transport"
#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "transport/verbs/verbs.h"

struct out {
    char *text;
    size_t room, len;
};

__attribute__((format(printf, 2, 3))) static void add(struct out *out, const char *format, ...)
{
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(out->text + out->len, out->room - out->len, format, args);
    va_end(args);
    if (n > 0)
        out->len = out->len + (size_t)n < out->room ? out->len + (size_t)n : out->room - 1;
}

static void port_tell(const struct verbs_nic *nics, const struct verbs_port *port, struct out *out)
{
    static const char *const kinds[] = {"?", "InfiniBand", "RoCE v1", "RoCE v2", "iWARP"};
    static const char *const notifies[] = {"?", "mem", "imm", "send"};
    char gid[INET6_ADDRSTRLEN] = "?";

    inet_ntop(AF_INET6, port->gid, gid, sizeof(gid));
    add(out, "  %s port %u: %s, gid %u %s, lid %u, pkey %#x, mtu %u, %u Gbit/s, notify %s%s\n",
        nics[port->nic].ctx->device->name, port->port, kinds[port->kind], port->gid_at, gid,
        port->lid, port->pkey, 128u << port->mtu, port->speed / 1000, notifies[port->notify],
        port->cm ? ", librdmacm" : "");
}

/* Makes a queue pair as a link's, to see what is granted; false: it cannot be made. */
static bool qp_probe(struct verbs_nic *nic, struct ibv_qp_cap *cap_out)
{
    struct ibv_qp_init_attr attr = {.qp_type = IBV_QPT_RC};
    struct ibv_qp *qp = NULL;

    nic->pd = ibv_alloc_pd(nic->ctx);
    attr.send_cq = attr.recv_cq = nic->pd ? ibv_create_cq(nic->ctx, 1, NULL, NULL, 0) : NULL;
    if (attr.send_cq) {
        verbs_cap_ask(nic, &attr.cap);
        qp = verbs_qp_create(nic, &attr);
        *cap_out = attr.cap;
        if (qp)
            ibv_destroy_qp(qp);
        ibv_destroy_cq(attr.send_cq);
    }
    return qp != NULL;
}

static void nic_tell(struct verbs_nic *nic, struct out *out)
{
    const struct verbs_conf *conf = verbs_conf();
    const struct ibv_device_attr *attr = &nic->attr;
    const char *name = nic->ctx->device->name;
    struct ibv_qp_cap cap;

    add(out, "  %s: %d requests, %d reads under way, firmware %s\n", name, attr->max_qp_wr,
        attr->max_qp_rd_atom, attr->fw_ver);
    if (qp_probe(nic, &cap))
        add(out, "  %s: inline %u bytes, depth %u", name, cap.max_inline_data, verbs_depth_of(nic));
    else
        add(out, "  %s: no queue pair (%s)", name, strerror(errno));
    add(out, ", service level %u, traffic class %u, relaxed ordering %s\n", conf->sl,
        conf->traffic_class, conf->relaxed ? "on" : "off");
}

void verbs_tell(char *text, size_t room)
{
    struct out out = {.text = text, .room = room};
    struct verbs_nic nics[VERBS_NIC_MAX];
    struct verbs_offer offer;
    const char *why;
    bool stripe;
    uint32_t n = verbs_nics_open(NULL, nics, &stripe, &why);

    text[0] = 0;
    if (n == 0) {
        add(&out, "  %s\n", why);
        return;
    }
    verbs_nics_offer(nics, n, stripe, &offer);
    for (int i = 0; i < offer.port_n; i++)
        port_tell(nics, &offer.ports[i], &out);
    for (uint32_t i = 0; i < n; i++)
        nic_tell(&nics[i], &out);
    verbs_nics_close(nics, n);
}
