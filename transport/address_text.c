/* How addresses of TCP are written: in lines that say who came, or where somebody listens. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>

#include "transport/address.h"

const char *tfr_address_text(const struct sockaddr_storage *addr, char text[TFR_ADDRESS_TEXT])
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
    bool six = addr->ss_family == AF_INET6, mapped = six && IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
    const void *bytes = six ? (const void *)&in6->sin6_addr : &in->sin_addr;
    char host[INET6_ADDRSTRLEN] = "?";

    if (mapped)
        bytes = in6->sin6_addr.s6_addr + 12;
    inet_ntop(six && !mapped ? AF_INET6 : AF_INET, bytes, host, sizeof(host));
    snprintf(text, TFR_ADDRESS_TEXT, six && !mapped ? "[%s]:%u" : "%s:%u", host,
             ntohs(six ? in6->sin6_port : in->sin_port));
    return text;
}
