/* Ends of links: closed, killed, forked. */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/conform/conform.h"

enum { AREA = 1 << 20, WORD_AT = 128, SOON_MS = 15000, LOST_S = 6 /* thrice what is promised */ };

/* Opens one end here and the other in a child that then does nothing but wait for its death. */
static pid_t child_make(struct pair_end *end, const char *name)
{
    int socks[2];
    pid_t child;

    pair_need(socketpair(AF_UNIX, SOCK_STREAM, 0, socks) == 0, "socketpair");
    child = fork();
    pair_need(child >= 0, "fork");
    if (child == 0) {
        alarm(30);
        close(socks[0]);
        pair_open(end, name, socks[1], false, AREA);
        for (;;)
            pause();
    }
    close(socks[1]);
    pair_open(end, name, socks[0], true, AREA);
    return child;
}

static void child_kill(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

CONFORM_TEST(death, of_the_peer_is_an_error_that_stays)
{
    struct pair_end end;
    pid_t child = child_make(&end, param->name);
    tfr_status status = TFR_OK;
    uint64_t since;
    int fd;

    cr_assert_eq(end.ops->progress(end.link), TFR_OK);
    child_kill(child);
    since = tfr_clock_now();
    while (status == TFR_OK && tfr_clock_now() - since < LOST_S * TFR_NS_PER_S)
        status = end.ops->progress(end.link);
    cr_assert_eq(status, TFR_E_PEER);
    cr_assert_eq(end.ops->progress(end.link), TFR_E_PEER);
    cr_assert_eq(end.ops->arm(end.link, &fd), TFR_E_PEER);
    end.ops->ring(end.link);
    pair_close(&end);
}

/* A sleeper may wake without a reason; it sleeps again. */
CONFORM_TEST(death, wakes_a_sleeper)
{
    struct pair_end end;
    pid_t child = child_make(&end, param->name);
    struct pollfd poller = {.events = POLLIN};
    bool killed = false;

    while (end.ops->progress(end.link) == TFR_OK && end.ops->arm(end.link, &poller.fd) == TFR_OK) {
        if (!killed)
            kill(child, SIGKILL);
        killed = true;
        cr_assert_eq(poll(&poller, 1, SOON_MS), 1);
        end.ops->disarm(end.link);
    }
    cr_assert_eq(end.ops->progress(end.link), TFR_E_PEER);
    cr_assert(killed);
    waitpid(child, NULL, 0);
    pair_close(&end);
}

static int done_n;

static void done_count(void *arg, tfr_status status)
{
    (void)arg, (void)status;
    done_n++;
}

/* Until the link is done or many were taken: how many were. */
static int puts_take(struct pair_end *end, int tries)
{
    int accepted = 0;

    for (int i = 0; i < tries; i++) {
        struct tfr_xfer xfer = {.channel = (uint16_t)(i % TFR_CHANNELS),
                                .local = end->area.addr,
                                .mem = end->mem,
                                .peer = end->peer,
                                .len = i % 2 ? 4096 : 64,
                                .done = done_count};
        tfr_status status = end->ops->put(end->link, &xfer);
        if (status == TFR_OK)
            accepted++;
        else if (status != TFR_AGAIN)
            break;
    }
    return accepted;
}

CONFORM_TEST(death, of_the_peer_still_ends_every_put_once)
{
    struct pair_end end;
    pid_t child = child_make(&end, param->name);
    int accepted = puts_take(&end, 50);

    kill(child, SIGKILL);
    accepted += puts_take(&end, 100000);
    waitpid(child, NULL, 0);
    pair_cut(&end);
    cr_assert_eq(done_n, accepted);
    cr_assert_gt(accepted, 0);
    pair_close(&end);
}

CONFORM_TEST(close, ends_every_put_before_it_returns)
{
    struct pair_end ends[2];
    int accepted;

    pair_open_both(ends, param->name, AREA);
    accepted = puts_take(&ends[0], 200);
    cr_assert_gt(accepted, 0);
    pair_cut(&ends[0]);
    cr_assert_eq(done_n, accepted);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(close, is_seen_by_the_other_side)
{
    struct pair_end ends[2];

    pair_open_both(ends, param->name, AREA);
    pair_cut(&ends[0]);
    CONFORM_WAIT(&ends[1], ends[1].ops->progress(ends[1].link) == TFR_E_PEER);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(fork, child_does_not_keep_its_parent_s_link_alive)
{
    struct pair_end end;
    int socks[2], ready[2], over[2];
    char byte;
    pid_t child;

    pair_need(socketpair(AF_UNIX, SOCK_STREAM, 0, socks) == 0 && pipe(ready) == 0 &&
                  pipe(over) == 0,
              "set-up");
    child = fork();
    if (child == 0) {
        close(socks[0]);
        pair_open(&end, param->name, socks[1], false, AREA);
        if (fork() == 0) {
            end.ops->forked(end.link);
            close(socks[1]);
            close(over[1]);
            alarm(30);
            pair_need(write(ready[1], "r", 1) == 1, "ready");
            _exit((int)read(over[0], &byte, 1)); /* outlives its parent, not the test */
        }
        close(over[1]);
        alarm(30);
        for (;;)
            pause();
    }
    close(socks[1]);
    pair_open(&end, param->name, socks[0], true, AREA);
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    child_kill(child);
    CONFORM_WAIT(&end, end.ops->progress(end.link) == TFR_E_PEER);
    pair_close(&end);
}

CONFORM_TEST(open, fails_in_time_when_the_other_side_is_gone)
{
    const struct tfr_transport_ops *ops = tfr_transport_find(param->name);
    const struct tfr_dev_cfg cfg = {.numa_node = -1};
    struct tfr_link *link;
    struct tfr_dev *dev;
    int socks[2];

    pair_need(socketpair(AF_UNIX, SOCK_STREAM, 0, socks) == 0, "socketpair");
    close(socks[1]);
    struct tfr_boot boot = {.fd = socks[0]};
    cr_assert_eq(ops->prepare(&cfg, &dev), TFR_OK);
    cr_assert_eq(ops->open(dev, &boot, true, &link), TFR_E_PEER);
    cr_assert_eq(ops->open(dev, &boot, false, &link), TFR_E_PEER);
    ops->release(dev);
}
