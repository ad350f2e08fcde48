/* Addresses of RDMA devices, and what the lanes of an endpoint are.  For open.c. */
#ifndef TFR_TRANSPORT_UCX_ADDR_H
#define TFR_TRANSPORT_UCX_ADDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <ucp/api/ucp.h>

#include "base/status.h"

enum { UCX_IPS = 8 };

/* An IPv4 address that an RDMA device answers on.  Travels over boot. */
struct ucx_ip {
    uint8_t addr[4];
    uint8_t prefix; /* length, in bits */
    uint8_t reserved[3];
};

/* Those of the devices in `nics` ("mlx5_0:1,..."; "" or "all": of any); how many. */
uint32_t ucx_ips_list(const char *nics, struct ucx_ip ips[UCX_IPS]);

/* Those in a subnet of our own RDMA devices go first. */
void ucx_ips_sort(const char *nics, struct ucx_ip *ips, uint32_t n);

socklen_t ucx_ip_sockaddr(const struct ucx_ip *ip, uint16_t port, struct sockaddr_storage *out);
const char *ucx_ip_text(const struct ucx_ip *ip, char *text, size_t len);

/* Is each lane that puts and gets take a true RMA lane?  UCX's software put writes to any address
 * that it is told. */
tfr_status ucx_lanes_check(ucp_ep_h ep);

/* The same of what ucp_ep_print_info prints; *name_out: the lane that is not, or "". */
bool ucx_lanes_good(const char *text, char *name_out, size_t len);

#endif
