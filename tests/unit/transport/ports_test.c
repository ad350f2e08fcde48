/* TFR_TCP_PORTS: a worker that finds all its ports in use waits for one, and says so if none comes
 * free. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/tcp/tcp.h"

struct side {
    struct tfr_boot boot;
    bool first;
    tfr_status opened;
    struct tcp_joint joint;
};

static void *open_side(void *arg)
{
    struct side *side = arg;

    side->opened = tcp_connect(&side->boot, side->first, &side->joint);
    return NULL;
}

/* A port that somebody listens on, and the setting that names it alone. */
static int port_taken(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char range[32];

    cr_assert(bind(fd, (struct sockaddr *)&addr, len) == 0 && listen(fd, 1) == 0);
    getsockname(fd, (struct sockaddr *)&addr, &len);
    snprintf(range, sizeof(range), "%u-%u", ntohs(addr.sin_port), ntohs(addr.sin_port));
    setenv("TFR_TCP_PORTS", range, 1);
    return fd;
}

static void both_open(struct side sides[2], int taken, bool free_it)
{
    pthread_t threads[2];
    int socks[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
    for (int i = 0; i < 2; i++) {
        sides[i] = (struct side){.boot = {.fd = socks[i]}, .first = i == 0};
        cr_assert_eq(pthread_create(&threads[i], NULL, open_side, &sides[i]), 0);
    }
    if (free_it) {
        usleep(100000); /* it waits for two seconds */
        close(taken);
    }
    pthread_join(threads[1], NULL); /* the worker's side, which listens */
    if (sides[1].opened != TFR_OK)
        close(socks[1]);
    pthread_join(threads[0], NULL);
}

Test(ports, that_are_all_in_use_are_waited_for, .timeout = 240)
{
    struct side sides[2];
    both_open(sides, port_taken(), true);
    cr_assert_eq(sides[1].opened, TFR_OK);
    cr_assert_eq(sides[0].opened, TFR_OK);
}

Test(ports, that_stay_in_use_end_the_attempt, .timeout = 240)
{
    struct side sides[2];
    both_open(sides, port_taken(), false);
    cr_assert_eq(sides[1].opened, TFR_E_SYS);
    cr_assert_neq(sides[0].opened, TFR_OK);
}
