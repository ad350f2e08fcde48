/* Names of hosts: whoever connects has a limit, whatever the system's name service does. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "transport/address.h"
#include "transport/boot.h"

enum { HANG_S = 40, LIMIT_MS = 300 };

typedef int getaddrinfo_fn(const char *, const char *, const struct addrinfo *, struct addrinfo **);

/* Stands in for the system's: one host is asked for in vain. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hint,
                struct addrinfo **list_out)
{
    getaddrinfo_fn *real;
    bool numeric = hint && hint->ai_flags & AI_NUMERICHOST;

    if (node && !numeric && strcmp(node, "hangs.invalid") == 0)
        sleep(HANG_S);
    if (node && !numeric && strcmp(node, "near.invalid") == 0)
        node = "127.0.0.1";
    *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    return real(node, service, hint, list_out);
}

Test(address, a_name_service_that_hangs_is_not_waited_for, .timeout = HANG_S)
{
    struct tfr_boot boot;
    uint64_t begin = tfr_clock_now();

    cr_assert_eq(tfr_boot_connect("tcp:hangs.invalid:7777", LIMIT_MS, &boot), TFR_E_INVAL);
    cr_assert_lt(tfr_clock_now() - begin, HANG_S / 2 * TFR_NS_PER_S);
}

Test(address, a_name_is_as_good_as_a_number)
{
    struct tfr_boot boot;
    char name[64], near[64];
    int fd;

    cr_assert_eq(tfr_boot_listen("tcp:127.0.0.1:0", &fd), TFR_OK);
    tfr_boot_listen_name("tcp:127.0.0.1:0", fd, name, sizeof name);
    close(fd);
    snprintf(near, sizeof near, "tcp:near.invalid%s", strrchr(name, ':'));
    cr_assert_eq(tfr_boot_connect(near, 20000, &boot), TFR_E_PEER, "nobody listens there");
    cr_assert_eq(tfr_boot_connect("tcp:nowhere.invalid:1", 20000, &boot), TFR_E_INVAL);
}

Test(address, is_written_as_people_write_it)
{
    struct sockaddr_storage addr = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&addr;
    char text[TFR_ADDRESS_TEXT];

    *v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(7070)};
    inet_pton(AF_INET, "10.0.0.2", &v4->sin_addr);
    cr_assert_str_eq(tfr_address_text(&addr, text), "10.0.0.2:7070");
    *v6 = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(7070)};
    inet_pton(AF_INET6, "fd00::2", &v6->sin6_addr);
    cr_assert_str_eq(tfr_address_text(&addr, text), "[fd00::2]:7070");
    inet_pton(AF_INET6, "::ffff:10.0.0.2", &v6->sin6_addr);
    cr_assert_str_eq(tfr_address_text(&addr, text), "10.0.0.2:7070", "by a socket for both");
}
