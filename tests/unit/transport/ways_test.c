/* How two sides agree on a transport: what each has, what both share, and what happens when one of
 * them cannot open what was chosen. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/backend.h"
#include "transport/ways.h"

static struct tfr_boot boot[2];
static char why[TFR_WAYS_TEXT];

static void sockets_make(void)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    boot[0] = (struct tfr_boot){.fd = pair[0]};
    boot[1] = (struct tfr_boot){.fd = pair[1]};
}

TestSuite(ways, .init = sockets_make, .timeout = 240);

/* As if it came from another machine. */
static struct tfr_ways travelled(const struct tfr_ways *ways)
{
    struct tfr_ways out;
    cr_assert(tfr_ways_take(ways->way, ways->n * sizeof ways->way[0], &out));
    return out;
}

static struct tfr_ways two_ways(const char *first, const char *second)
{
    struct tfr_ways ways = {.n = 2};
    strcpy(ways.way[0].name, first);
    strcpy(ways.way[1].name, second);
    ways.way[0].usable = ways.way[1].usable = 1;
    return ways;
}

Test(ways, on_one_machine_shared_memory_comes_first_and_no_plugin_is_asked)
{
    struct tfr_ways ways;
    cr_assert_eq(tfr_ways_find("auto", &boot[0], &ways, why), TFR_OK);
    cr_assert_eq(ways.n, 2);
    cr_assert_str_eq(ways.way[0].name, "shm");
    cr_assert_str_eq(ways.way[1].name, "tcp");
    uint32_t at = 0;
    ways = travelled(&ways);
    cr_assert_str_eq(tfr_ways_next(&ways, "auto", &boot[1], &at, why)->name, "shm");
    cr_assert_str_eq(tfr_ways_next(&ways, "auto", &boot[1], &at, why)->name, "tcp");
    cr_assert_null(tfr_ways_next(&ways, "auto", &boot[1], &at, why));
    cr_assert_str_empty(why);
}

Test(ways, between_machines_memory_is_not_shared)
{
    struct tfr_ways ways = two_ways("shm", "tcp");
    uint32_t at = 0;
    boot[1].fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_str_eq(tfr_ways_next(&ways, "auto", &boot[1], &at, why)->name, "tcp");
    cr_assert_str_eq(why, "shm: executor: memory is shared over a unix: address alone");
    cr_assert_eq(tfr_ways_find("fault", &boot[1], &ways, why), TFR_E_UNSUP);
    cr_assert_str_eq(why, "fault: memory is shared over a unix: address alone");
}

Test(ways, over_tcp_on_one_machine_it_is_said_what_memory_needs)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    struct tfr_ways ways;
    int door = socket(AF_INET, SOCK_STREAM, 0);
    boot[0].fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(bind(door, (struct sockaddr *)&addr, len) == 0 && listen(door, 1) == 0);
    getsockname(door, (struct sockaddr *)&addr, &len);
    cr_assert_eq(connect(boot[0].fd, (struct sockaddr *)&addr, len), 0);
    cr_assert(tfr_boot_near(&boot[0]));
    cr_assert_eq(tfr_ways_find("shm", &boot[0], &ways, why), TFR_E_UNSUP);
    cr_assert_str_eq(why, "shm: for the memory of one machine the executor needs a unix: address");
}

Test(ways, a_name_that_is_none_is_said)
{
    struct tfr_ways ways;
    cr_assert_eq(tfr_ways_find("nonsense", &boot[0], &ways, why), TFR_E_UNSUP);
    cr_assert_not(tfr_ways_known("nonsense"));
    cr_assert(tfr_ways_known("verbs") && tfr_ways_known("fault:tcp") && tfr_ways_known("auto"));
    cr_assert_not_null(strstr(why, "nonsense: there is none of that name"), "%s", why);
}

Test(ways, the_executor_may_insist)
{
    struct tfr_ways ways = two_ways("shm", "tcp");
    uint32_t at = 0;
    cr_assert_str_eq(tfr_ways_next(&ways, "tcp", &boot[1], &at, why)->name, "tcp");
    at = 0;
    *why = 0;
    cr_assert_null(tfr_ways_next(&ways, "verbs", &boot[1], &at, why));
    cr_assert_not_null(strstr(why, "TFR_TRANSPORT"), "%s", why);
}

Test(ways, what_the_client_lacks_is_passed_on_and_made_printable)
{
    struct tfr_ways ways = two_ways("verbs", "shm");
    uint32_t at = 0;
    ways.way[0].usable = 0;
    strcpy((char *)ways.way[0].offer.body, "no RDMA\33[31m device");
    ways = travelled(&ways);
    cr_assert_str_eq(tfr_ways_next(&ways, "auto", &boot[1], &at, why)->name, "shm");
    cr_assert_str_eq(why, "verbs: client: no RDMA?[31m device");
}

Test(ways, nonsense_is_no_list)
{
    struct tfr_ways ways = two_ways("shm", "tcp"), out;
    cr_assert_not(tfr_ways_take(ways.way, 0, &out));
    cr_assert_not(tfr_ways_take(ways.way, sizeof ways.way[0] - 1, &out));
    cr_assert_not(tfr_ways_take(&ways, (TFR_WAYS_MAX + 1) * sizeof ways.way[0], &out));
    ways.way[1].offer.len = TFR_OFFER_MAX + 1;
    cr_assert_not(tfr_ways_take(ways.way, 2 * sizeof ways.way[0], &out));
}

/* ---- opening ---- */

enum bad { BAD_NOT, BAD_AT_ONCE, BAD_AFTER_SENDING };

struct side {
    int at; /* 0: the client */
    enum bad bad;
    tfr_status status;
    struct tfr_dev *dev;
    struct tfr_mem *mem;
    struct tfr_area area;
    struct tfr_link *link;
    struct tfr_peer_mem *peer;
    char why[TFR_WAYS_TEXT];
};

static __thread enum bad bad_now;
static struct tfr_transport_ops ops;

static tfr_status bad_open(struct tfr_dev *dev, struct tfr_boot *sock, bool first,
                           struct tfr_link **link_out)
{
    struct tfr_boot_msg msg = {.type = TFR_BOOT_LINK, .len = 4, .body = "half"};
    if (bad_now == BAD_AFTER_SENDING)
        cr_assert_eq(tfr_boot_send(sock, &msg, 20000), TFR_OK);
    return bad_now ? TFR_E_SYS : tfr_transport_find("shm")->open(dev, sock, first, link_out);
}

/* Shows a page, then opens: as both sides do after welcome and show. */
static void *side_run(void *arg)
{
    struct side *s = arg;
    struct tfr_dev_cfg cfg = {.numa_node = -1};
    struct tfr_key key;
    bad_now = s->bad;
    cr_assert_eq(tfr_memfd_create("side", 4096, NULL, &s->area), TFR_OK);
    cr_assert_eq(ops.prepare(&cfg, &s->dev), TFR_OK);
    cr_assert_eq(ops.reg(s->dev, &s->area, &s->mem), TFR_OK);
    ops.key(s->mem, &key);
    key.fd = dup(key.fd); /* what travels is a copy */
    s->dev->ops = &ops;
    s->status = tfr_ways_open(s->dev, &boot[s->at], s->at == 0, &key, &s->link, &s->peer, s->why);
    return NULL;
}

static void side_end(struct side *s)
{
    if (s->status == TFR_OK) {
        ops.forget(s->peer);
        ops.close(s->link);
    }
    ops.unreg(s->mem);
    ops.release(s->dev);
    munmap(s->area.addr, s->area.len);
    close(s->area.fd);
}

static void both_run(struct side *client, struct side *worker)
{
    pthread_t thread;
    ops = *tfr_transport_find("shm");
    ops.open = bad_open;
    *client = (struct side){.at = 0, .bad = client->bad};
    *worker = (struct side){.at = 1, .bad = worker->bad};
    cr_assert_eq(pthread_create(&thread, NULL, side_run, client), 0);
    side_run(worker);
    pthread_join(thread, NULL);
}

Test(ways, both_open_or_neither_and_the_next_try_starts_clean)
{
    static const enum bad cases[][2] = {
        {BAD_AT_ONCE, BAD_NOT},       {BAD_NOT, BAD_AT_ONCE},
        {BAD_AFTER_SENDING, BAD_NOT}, {BAD_NOT, BAD_AFTER_SENDING},
        {BAD_AT_ONCE, BAD_AT_ONCE},   {BAD_AFTER_SENDING, BAD_AFTER_SENDING}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct side client = {.bad = cases[i][0]}, worker = {.bad = cases[i][1]};
        both_run(&client, &worker);
        cr_assert_eq(client.status, TFR_E_UNSUP, "case %zu: %d", i, client.status);
        cr_assert_eq(worker.status, TFR_E_UNSUP, "case %zu: %d", i, worker.status);
        cr_assert_not_null(strstr(worker.why, "could not open it"));
        side_end(&client);
        side_end(&worker);
        client.bad = worker.bad = BAD_NOT;
        both_run(&client, &worker);
        cr_assert_eq(client.status, TFR_OK, "case %zu", i);
        cr_assert_eq(worker.status, TFR_OK, "case %zu", i);
        side_end(&client);
        side_end(&worker);
    }
}

Test(ways, a_peer_that_dies_meanwhile_ends_it)
{
    struct side worker = {.at = 1};
    ops = *tfr_transport_find("shm");
    ops.open = bad_open;
    tfr_boot_close(&boot[0]);
    side_run(&worker);
    cr_assert_neq(worker.status, TFR_OK);
    cr_assert_neq(worker.status, TFR_E_UNSUP);
    side_end(&worker);
}
