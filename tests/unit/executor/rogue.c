/* A client that need not keep the rules, and the executor that it talks to.  Whoever made a worker
 * die of a signal has failed: the parent's lines are read when it stops. */
#include "rogue.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "tfr_ops.h"

enum { START_MS = 60000 };

char rogue_addr[64];
static pid_t executor;
static FILE *said; /* the stderr of the executor and its workers */

void rogue_executor_start(void)
{
    int ready[2];
    said = tmpfile();
    cr_assert_not_null(said);
    char fd[16], line[256];
    cr_assert_eq(pipe(ready), 0);
    snprintf(rogue_addr, sizeof rogue_addr, "unix:@tfr-rogue-%d", getpid());
    snprintf(fd, sizeof fd, "%d", ready[1]);
    executor = fork();
    if (executor == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        setenv("TFR_LANE_SIZE", "2m", 1);
        setenv("TFR_QUEUE_DEPTH", "8", 0);
        dup2(fileno(said), STDERR_FILENO);
        execl(TFR_EXECUTOR, TFR_EXECUTOR, "--listen", rogue_addr, "--gpu", "soft", "--ready-fd", fd,
              (char *)NULL);
        _exit(127);
    }
    close(ready[1]);
    struct pollfd p = {.fd = ready[0], .events = POLLIN};
    cr_assert_eq(poll(&p, 1, START_MS), 1, "the executor came up");
    cr_assert_gt(read(ready[0], line, sizeof line), 0);
    close(ready[0]);
}

void rogue_executor_stop(void)
{
    char line[512];
    bool broken = false;
    kill(executor, SIGTERM);
    waitpid(executor, NULL, 0);
    rewind(said);
    while (fgets(line, sizeof line, said)) {
        fputs(line, stderr);
        broken |= strstr(line, "died of signal") || strstr(line, "Sanitizer");
    }
    fclose(said);
    if (broken)
        abort(); /* the test has ended: an assertion would be too late */
}

/* ---- a client of our own ---- */

void rogue_send(struct tfr_boot *boot, uint32_t type, void *body, size_t len)
{
    struct tfr_boot_msg msg = {.type = type, .len = (uint32_t)len, .body = body};
    cr_assert_eq(tfr_boot_send(boot, &msg, ROGUE_LIMIT_MS), TFR_OK);
}

struct tfr_way rogue_over_shm = {.name = "shm", .usable = 1};

struct tfr_hello rogue_hello(void)
{
    return (struct tfr_hello){.edition = {.magic = TFR_WIRE_MAGIC,
                                          .version = TFR_WIRE_VERSION,
                                          .spec_hash = TFR_SPEC_HASH,
                                          .core_hash = TFR_CORE_HASH},
                              .pid = (uint32_t)getpid()};
}

/* Connects, says hello; the type of what comes back, 0: the connection was closed. */
uint32_t rogue_greet(struct tfr_hello hello, struct tfr_boot *boot_out)
{
    struct tfr_boot_msg msg;
    cr_assert_eq(tfr_boot_connect(rogue_addr, ROGUE_LIMIT_MS, boot_out), TFR_OK);
    rogue_send(boot_out, TFR_BOOT_HELLO, &hello, sizeof hello);
    if (tfr_boot_recv(boot_out, &msg, ROGUE_LIMIT_MS) != TFR_OK)
        return 0;
    uint32_t type = msg.type;
    tfr_boot_msg_fini(&msg);
    return type;
}

void rogue_attach(struct rogue *r)
{
    rogue_attach_over(r, "shm");
}

static void page_show(struct rogue *r)
{
    struct tfr_mem *mem;
    struct tfr_key key;
    cr_assert_eq(r->dev->ops->reg(r->dev, &r->page, &mem), TFR_OK);
    r->dev->ops->key(mem, &key);
    struct tfr_show show = {.len = sizeof(struct tfr_page_area),
                            .lane_at = sizeof(struct tfr_page_area)};
    memcpy(show.key, key.words, sizeof show.key);
    struct tfr_boot_msg out = {.type = TFR_BOOT_SHOW,
                               .len = sizeof show,
                               .body = &show,
                               .fds = {key.fd},
                               .fd_n = key.fd >= 0};
    cr_assert_eq(tfr_boot_send(&r->boot, &out, ROGUE_LIMIT_MS), TFR_OK);
}

void rogue_attach_over(struct rogue *r, const char *transport)
{
    const struct tfr_transport_ops *ops = tfr_transport_find(transport);
    struct tfr_dev_cfg cfg = {.numa_node = -1};
    struct tfr_boot_msg msg;
    char why[TFR_WAYS_TEXT];
    cr_assert_eq(rogue_greet(rogue_hello(), &r->boot), TFR_BOOT_SNAPSHOT);
    struct tfr_way way = {.usable = 1};
    strncpy(way.name, transport, sizeof way.name - 1);
    rogue_send(&r->boot, TFR_BOOT_ATTACH, &way, sizeof way);
    /* A test may be faster than the next worker. */
    cr_assert_eq(tfr_boot_recv(&r->boot, &msg, ROGUE_LIMIT_MS), TFR_OK);
    while (msg.type == TFR_BOOT_QUEUED) {
        tfr_boot_msg_fini(&msg);
        cr_assert_eq(tfr_boot_recv(&r->boot, &msg, ROGUE_LIMIT_MS), TFR_OK);
    }
    cr_assert_eq(msg.type, TFR_BOOT_CHOSEN);
    tfr_boot_msg_fini(&msg);
    cr_assert_eq(tfr_boot_recv(&r->boot, &msg, ROGUE_LIMIT_MS), TFR_OK);
    cr_assert_eq(msg.type, TFR_BOOT_WELCOME);
    memcpy(&r->welcome, msg.body, sizeof r->welcome);
    struct tfr_key key = {.len = r->welcome.len, .fd = msg.fd_n ? msg.fds[0] : -1};
    memcpy(key.words, r->welcome.key, sizeof key.words);
    msg.fd_n = 0;
    tfr_boot_msg_fini(&msg);
    cr_assert_eq(tfr_memfd_create("rogue", sizeof(struct tfr_page_area), NULL, &r->page), TFR_OK);
    cr_assert_eq(ops->prepare(&cfg, &r->dev), TFR_OK);
    page_show(r);
    cr_assert_eq(tfr_ways_open(r->dev, &r->boot, true, &key, &r->link, &r->session, why), TFR_OK);
    cr_assert_eq(tfr_boot_recv(&r->boot, &msg, ROGUE_LIMIT_MS), TFR_OK);
    cr_assert_eq(msg.type, TFR_BOOT_READY);
    tfr_boot_msg_fini(&msg);
    struct tfr_page_area *page = r->page.addr;
    cr_assert_eq(tfr_ring_tx_init(&r->tx, r->dev, r->link, r->session, r->welcome.ring_at,
                                  r->welcome.ring_size, &page->feedback.ring_head),
                 TFR_OK);
}

void rogue_leave(struct rogue *r)
{
    const struct tfr_transport_ops *ops = r->link->ops;
    tfr_boot_close(&r->boot);
    ops->forget(r->session);
    ops->close(r->link);
    ops->release(r->dev);
    munmap(r->page.addr, r->page.len);
    close(r->page.fd);
}

struct tfr_feedback *rogue_page(struct rogue *r)
{
    return &((struct tfr_page_area *)r->page.addr)->feedback;
}

/* Posts one record with this body behind the head. */
void rogue_post(struct rogue *r, uint16_t op, const void *body, uint32_t len)
{
    struct tfr_rec *rec = tfr_ring_reserve(&r->tx, (uint32_t)sizeof *rec + len, op, 1);
    cr_assert_not_null(rec);
    if (len)
        memcpy(rec + 1, body, len);
    tfr_ring_commit(&r->tx);
    while (tfr_ring_flush(&r->tx) == TFR_AGAIN && !tfr_boot_gone(&r->boot))
        r->link->ops->progress(r->link);
}

static void answered(struct rogue *r, uint32_t slot)
{
    struct tfr_page_area *page = r->page.addr;
    uint64_t until = tfr_clock_now() + ROGUE_LIMIT_NS;
    while (atomic_load_explicit(&page->reply[slot].seq, memory_order_acquire) != r->tx.seq)
        cr_assert_lt(tfr_clock_now(), until, "the call was answered");
    cr_assert_eq(page->reply[slot].result, CUDA_SUCCESS);
}

/* A context, so that streams exist; returns the legacy stream's id. */
uint64_t rogue_context(struct rogue *r)
{
    struct tfr_context_req req = {.legacy = tfr_id_make(TFR_KIND_STREAM, 1, 0), .at = 1};
    rogue_post(r, TFR_OP_context, &req.slot, sizeof req - sizeof req.head);
    answered(r, 0);
    return req.legacy;
}

uint64_t rogue_memory(struct rogue *r, uint64_t len)
{
    struct tfr_alloc_req req = {.slot = 1, .len = len};
    uint64_t at;
    rogue_post(r, TFR_OP_alloc, &req.slot, sizeof req - sizeof req.head);
    answered(r, 1);
    memcpy(&at, ((struct tfr_page_area *)r->page.addr)->reply[1].payload, sizeof at);
    return at;
}

/* The worker hangs up on us. */
bool rogue_ends(struct rogue *r)
{
    uint64_t until = tfr_clock_now() + ROGUE_LIMIT_NS;
    while (!tfr_boot_gone(&r->boot) && tfr_clock_now() < until)
        usleep(1000);
    return tfr_boot_gone(&r->boot);
}

void rogue_daemon_serves(void)
{
    struct tfr_boot boot;
    cr_assert_eq(rogue_greet(rogue_hello(), &boot), TFR_BOOT_SNAPSHOT);
    tfr_boot_close(&boot);
}
