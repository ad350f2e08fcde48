/* UCX in our hands: which lanes are taken, and what it may do to the process that loads it. */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/boot.h"
#include "transport/transport.h"
#include "transport/ucx/addr.h"

static bool mapped(const char *name)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[4096];
    bool found = false;

    while (maps && !found && fgets(line, sizeof(line), maps))
        found = strstr(line, name) != NULL;
    if (maps)
        fclose(maps);
    return found;
}

static struct tfr_dev *dev_make(const char *tls, const char *modules)
{
    const struct tfr_dev_cfg cfg = {.numa_node = -1};
    const struct tfr_transport_ops *ops;
    struct tfr_dev *dev;

    setenv("TFR_UCX_TLS", tls, 1);
    setenv("TFR_UCX_MODULES", modules, 1);
    ops = tfr_transport_find("ucx");
    cr_assert_not_null(ops, "%s", tfr_transport_why("ucx"));
    cr_assert_eq(ops->prepare(&cfg, &dev), TFR_OK);
    return dev;
}

Test(ucx, takes_lanes_with_rdma_of_their_own)
{
    char name[32];

    cr_assert(ucx_lanes_good("# lane[0]: cm rdmacm\n"
                             "# lane[1]:  0:rc_verbs/mlx5_0:1.0 md[0] -> md[0]/ib rma_bw#0 am\n"
                             "# lane[2]:  1:ud_verbs/mlx5_0:1.0 md[0] -> md[0]/ib keepalive\n",
                             name, sizeof(name)));
    cr_assert(ucx_lanes_good("lane[0]:  3:dc_mlx5/mlx5_0:1.0 md[0] -> md[0]/ib rma am am_bw#0\n",
                             name, sizeof(name)));
}

Test(ucx, refuses_lanes_that_put_by_software)
{
    char name[32];

    cr_assert_not(ucx_lanes_good("lane[0]:  0:tcp/lo.0 md[0] -> md[0]/tcp rma_bw#0 am am_bw#0\n",
                                 name, sizeof(name)));
    cr_assert_str_eq(name, "tcp");
    cr_assert_not(ucx_lanes_good("lane[0]:  0:posix/memory.0 md[1] -> md[1]/posix am am_bw#0\n"
                                 "lane[1]:  0:tcp/lo.0 md[0] -> md[0]/tcp rma_bw#0\n",
                                 name, sizeof(name)));
    cr_assert_not(ucx_lanes_good("lane[0]:  0:ud_verbs/mlx5_0:1.0 md[0] -> md[0]/ib rma_bw#0 am\n",
                                 name, sizeof(name)));
    cr_assert_str_eq(name, "ud_verbs");
    cr_assert_not(ucx_lanes_good("lane[0]:  0:ud_verbs/mlx5_0:1.0 md[0] -> md[0]/ib am\n", name,
                                 sizeof(name)));
    cr_assert_not(ucx_lanes_good("nothing of the kind\n", name, sizeof(name)));
    cr_assert_str_eq(name, "");
}

static struct ucx_ip ip_make(const char *text, uint8_t prefix)
{
    bool v6 = strchr(text, ':') != NULL;
    struct ucx_ip ip = {.family = v6 ? UCX_IP6 : UCX_IP4, .prefix = prefix};

    cr_assert_eq(inet_pton(v6 ? AF_INET6 : AF_INET, text, ip.addr), 1);
    return ip;
}

static bool is_near(const char *own, uint8_t prefix, const char *other)
{
    struct ucx_ip a = ip_make(own, prefix), b = ip_make(other, 0);

    return ucx_ip_near(&a, &b);
}

Test(ucx, knows_which_addresses_lie_in_a_subnet)
{
    cr_assert(is_near("10.1.2.3", 24, "10.1.2.250"));
    cr_assert_not(is_near("10.1.2.3", 24, "10.1.3.3"));
    cr_assert(is_near("10.1.2.3", 23, "10.1.3.3"));
    cr_assert_not(is_near("10.1.2.3", 32, "10.1.2.4"));
    cr_assert(is_near("10.1.2.3", 0, "192.168.0.1"));
    cr_assert(is_near("fd00::1", 64, "fd00::ffff:2"));
    cr_assert_not(is_near("fd00::1", 64, "fd00:0:0:1::1"));
    cr_assert_not(is_near("fd00::1", 128, "fd00::2"));
    cr_assert(is_near("fd00::1", 255, "fd00::1"), "no prefix is longer than its address");
    cr_assert_not(is_near("10.0.0.1", 0, "fd00::1"));
}

Test(ucx, writes_addresses_of_both_families_and_no_other)
{
    static const char *const texts[] = {"10.1.2.3", "fd00::1:2"};
    struct sockaddr_storage addr;
    char text[64];

    for (size_t i = 0; i < 2; i++) {
        struct ucx_ip ip = ip_make(texts[i], 0);
        cr_assert_gt(ucx_ip_sockaddr(&ip, 4711, &addr), 0);
        cr_assert_eq(addr.ss_family, i ? AF_INET6 : AF_INET);
        cr_assert_eq(ucx_sockaddr_port(&addr), 4711);
        cr_assert_str_eq(ucx_ip_text(&ip, text, sizeof(text)), texts[i]);
    }
    cr_assert_eq(ucx_ip_sockaddr(&(struct ucx_ip){.family = 9}, 4711, &addr), 0);
}

Test(ucx, loads_no_module_that_is_left_out)
{
    struct tfr_dev *dev = dev_make("posix,self", "^cma,cuda,rocm,ze");

    cr_assert(mapped("libucp"));
    cr_assert_not(mapped("libuct_cma"));
    cr_assert_not(mapped("libuct_cuda"));
    cr_assert_not(mapped("libcuda.so"));
    dev->ops->release(dev);
}

Test(ucx, loads_the_other_modules)
{
    struct tfr_dev *dev = dev_make("posix,self", "^cuda,rocm,ze");

    cr_assert(mapped("libuct_cma"), "or the test above shows nothing");
    dev->ops->release(dev);
}

static void crash(int signo)
{
    (void)signo;
}

Test(ucx, leaves_the_signals_of_a_crash_alone)
{
    const struct sigaction ours = {.sa_handler = crash};
    struct sigaction bus, found;
    struct tfr_dev *dev;

    cr_assert_eq(sigaction(SIGSEGV, &ours, NULL), 0);
    cr_assert_eq(sigaction(SIGBUS, NULL, &bus), 0);
    dev = dev_make("posix,self", "^cuda,rocm,ze");
    cr_assert_eq(sigaction(SIGSEGV, NULL, &found), 0);
    cr_assert_eq(found.sa_handler, crash);
    cr_assert_eq(sigaction(SIGBUS, NULL, &found), 0);
    cr_assert_eq(found.sa_handler, bus.sa_handler);
    dev->ops->release(dev);
}

struct opening {
    struct tfr_dev *dev;
    struct tfr_boot boot;
    tfr_status status;
};

static void *open_main(void *arg)
{
    struct opening *opening = arg;
    struct tfr_link *link;

    opening->status = opening->dev->ops->open(opening->dev, &opening->boot, false, &link);
    return NULL;
}

/* Both sides say so, and neither waits for the other for long. */
Test(ucx, refuses_to_open_over_tcp, .timeout = 180)
{
    struct tfr_dev *dev = dev_make("tcp", "^cuda,rocm,ze");
    struct opening other = {.dev = dev_make("tcp", "^cuda,rocm,ze")};
    struct tfr_boot boot = {0};
    struct tfr_link *link;
    pthread_t thread;
    int socks[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
    boot.fd = socks[0];
    other.boot.fd = socks[1];
    cr_assert_eq(pthread_create(&thread, NULL, open_main, &other), 0);
    cr_assert_eq(dev->ops->open(dev, &boot, true, &link), TFR_E_UNSUP);
    pthread_join(thread, NULL);
    cr_assert_eq(other.status, TFR_E_UNSUP);
    close(socks[0]);
    close(socks[1]);
    dev->ops->release(dev);
    other.dev->ops->release(other.dev);
}
