/* TFR_TCP_PORTS: which ports the executor's workers listen on for the sockets of a link.  Looked at
 * when the executor starts (offer), so that a setting nobody understands is no surprise of the
 * first client's. */
#define TFR_LOG_PART "transport"
#include <stdio.h>

#include "base/env.h"
#include "transport/tcp/tcp.h"

bool tcp_ports_get(unsigned *lo_out, unsigned *hi_out)
{
    const char *text = tfr_env_str("TFR_TCP_PORTS");
    char rest;

    *lo_out = *hi_out = 0;
    if (!text || !*text)
        return true;
    return sscanf(text, "%u-%u%c", lo_out, hi_out, &rest) == 2 && *lo_out && *lo_out <= *hi_out &&
           *hi_out <= UINT16_MAX;
}

tfr_status tcp_offer(struct tfr_offer *offer_out, const char **why_out)
{
    unsigned lo, hi;

    (void)offer_out; /* what there is to know the boot connection knows */
    *why_out = "TFR_TCP_PORTS: two ports are expected, as 5000-5100";
    return tcp_ports_get(&lo, &hi) ? TFR_OK : TFR_E_UNSUP;
}
