/* Options of a link's sockets.  Called by connect.c once for each.  Surprising: none is necessary,
 * a kernel that refuses one is no error; only what the user named is said. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "base/env.h"
#include "base/log.h"
#include "transport/address.h"
#include "transport/tcp/tcp.h"

enum { PROBES_MAX = 127 }; /* the kernel's */

/* Within a machine there is nothing to be careful with: what paces there (BBR) only costs time. */
static void congestion_set(int fd, bool near)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    const char *name = tfr_env_str("TFR_TCP_CONGESTION");

    if (!name && !near)
        return;
    if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name ? name : "reno",
                   (socklen_t)strlen(name ? name : "reno")) < 0 &&
        name && !atomic_flag_test_and_set_explicit(&said, memory_order_relaxed))
        tfr_warn("TFR_TCP_CONGESTION=%s: %s; see net.ipv4.tcp_allowed_congestion_control", name,
                 strerror(errno));
}

/* One lost host is for the boot connection to tell.  A link's socket that is idle says so a second
 * later: each that ended by as few lost probes would be one more way to lose a sound session. */
void tcp_options_set(int fd, bool near)
{
    const int probes = (int)tfr_address_lost_ms() / 1000;
    const struct {
        int level, name, value;
    } options[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 1},
        {IPPROTO_TCP, TCP_KEEPINTVL, 1},
        {IPPROTO_TCP, TCP_KEEPCNT, probes < PROBES_MAX ? probes : PROBES_MAX},
    };

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(int));
    congestion_set(fd, near);
}
