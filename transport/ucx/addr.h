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

enum ucx_ip_family { UCX_IP4 = 4, UCX_IP6 = 6 };

/* An address that an RDMA device answers on.  Travels over boot. */
struct ucx_ip {
    uint8_t addr[16]; /* IPv4: the first four */
    uint8_t family;
    uint8_t prefix; /* length, in bits */
    uint8_t reserved[2];
};

/* Those of the devices in `nics` ("mlx5_0:1,..."; "" or "all": of any); how many. */
uint32_t ucx_ips_list(const char *nics, struct ucx_ip ips[UCX_IPS]);

/* Those in a subnet of our own RDMA devices go first. */
void ucx_ips_sort(const char *nics, struct ucx_ip *ips, uint32_t n);

/* Is b in the subnet of a? */
bool ucx_ip_near(const struct ucx_ip *a, const struct ucx_ip *b);

/* 0: of no family that we know. */
socklen_t ucx_ip_sockaddr(const struct ucx_ip *ip, uint16_t port, struct sockaddr_storage *out);
uint16_t ucx_sockaddr_port(const struct sockaddr_storage *addr);
const char *ucx_ip_text(const struct ucx_ip *ip, char *text, size_t len);

/* Is each lane that puts and gets take a true RMA lane?  UCX's software put writes to any address
 * that it is told. */
tfr_status ucx_lanes_check(ucp_ep_h ep);

/* The same of what ucp_ep_print_info prints; *name_out: the lane that is not, or "". */
bool ucx_lanes_good(const char *text, char *name_out, size_t len);

#endif
