/* The parent's loop.  One warm worker waits for the next client; a client that finds none is queued
 * and a worker is started for it.  Everything is answered from the snapshot that the first worker
 * took. Surprising: after the hand-over the parent holds no descriptor of the client, so that the
 * worker's death is seen by the client at once. */
#define TFR_LOG_PART "executor"
#include "executor/server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "proto/wire.h"
#include "tfr_ops.h"
#include "transport/boot.h"

enum { CLIENTS = 256, WORKERS = 16, HELLO_MS = 1000, RECV_MS = 20, SPARE_MS = 500 };

enum client_stage { CLIENT_FREE, CLIENT_HELLO, CLIENT_GREETED, CLIENT_IDLE, CLIENT_QUEUED };
struct client {
    enum client_stage stage;
    int fd;
    uint64_t deadline_ns; /* HELLO only */
    struct tfr_attach attach;
};

enum worker_stage { WORKER_FREE, WORKER_STARTING, WORKER_WARM };
struct worker {
    enum worker_stage stage;
    int fd;
    pid_t pid;
};

struct server {
    const struct tfr_server_cfg *cfg;
    int listen_fd, signal_fd, owner_fd;
    struct client client[CLIENTS];
    struct worker worker[WORKERS];
    struct tfr_snapshot *snapshot;
    uint64_t spare_at_ns; /* when to start the next warm worker; 0: not now */
    int status;
    bool over;
};

/* ---- clients ---- */

static void client_drop(struct client *c)
{
    close(c->fd);
    c->stage = CLIENT_FREE;
}

static void client_refuse(struct client *c, const char *why)
{
    struct tfr_boot_msg msg = {
        .type = TFR_BOOT_REFUSED, .len = (uint32_t)strlen(why), .body = (void *)(uintptr_t)why};
    tfr_boot_send(c->fd, &msg, RECV_MS);
    client_drop(c);
}

static void client_accept(struct server *s)
{
    int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    struct client *c = NULL;
    for (int i = 0; i < CLIENTS && !c; i++)
        if (s->client[i].stage == CLIENT_FREE)
            c = &s->client[i];
    if (!c) {
        close(fd);
        return;
    }
    *c = (struct client){
        .stage = CLIENT_HELLO, .fd = fd, .deadline_ns = tfr_clock_now() + HELLO_MS * TFR_NS_PER_MS};
    uid_t uid;
    pid_t pid;
    if (tfr_boot_peer(fd, &uid, &pid) != TFR_OK) {
        client_drop(c);
    } else if (uid != geteuid()) {
        tfr_warn("process %d of user %u refused: this executor serves user %u", (int)pid,
                 (unsigned)uid, (unsigned)geteuid());
        client_refuse(c, "it serves another user: start an executor of your own");
    }
}

static void snapshot_send(const struct server *s, struct client *c)
{
    struct tfr_boot_msg msg = {
        .type = TFR_BOOT_SNAPSHOT, .len = sizeof *s->snapshot, .body = s->snapshot};
    if (tfr_boot_send(c->fd, &msg, RECV_MS) == TFR_OK)
        c->stage = CLIENT_IDLE;
    else
        client_drop(c);
}

static void hello_take(struct server *s, struct client *c, const struct tfr_boot_msg *msg)
{
    const struct tfr_hello *hello = msg->body;
    char why[160];
    if (msg->type != TFR_BOOT_HELLO || msg->len != sizeof *hello ||
        hello->magic != TFR_WIRE_MAGIC) {
        tfr_warn("a connection that does not speak our protocol was closed");
        client_drop(c);
    } else if (hello->version != TFR_WIRE_VERSION || hello->spec_hash != TFR_SPEC_HASH) {
        snprintf(why, sizeof why,
                 "it is of another release (wire %d, spec %016llx; yours: wire %u, spec %016llx)",
                 TFR_WIRE_VERSION, (unsigned long long)TFR_SPEC_HASH, hello->version,
                 (unsigned long long)hello->spec_hash);
        tfr_warn("process %u refused: %s", hello->pid, why);
        client_refuse(c, why);
    } else if (s->snapshot) {
        snapshot_send(s, c);
    } else {
        c->stage = CLIENT_GREETED;
    }
}

static void client_read(struct server *s, struct client *c)
{
    struct tfr_boot_msg msg;
    if (tfr_boot_recv(c->fd, &msg, RECV_MS) != TFR_OK) {
        client_drop(c);
        return;
    }
    if (c->stage == CLIENT_HELLO)
        hello_take(s, c, &msg);
    else if (c->stage == CLIENT_IDLE && msg.type == TFR_BOOT_ATTACH &&
             msg.len == sizeof c->attach) {
        memcpy(&c->attach, msg.body, sizeof c->attach);
        c->stage = CLIENT_QUEUED;
    } else {
        client_drop(c);
    }
    tfr_boot_msg_fini(&msg);
}

/* ---- workers ---- */

static const char *gpu_word(enum tfr_gpu_choice choice)
{
    switch (choice) {
    case TFR_GPU_AUTO:
        return "auto";
    case TFR_GPU_CUDA:
        return "cuda";
    case TFR_GPU_SOFT:
        return "soft";
    }
    return "auto";
}

/* A new image of our own program: a driver does not bear being forked. */
static void worker_exec(const struct server *s, int fd)
{
    char number[16];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    snprintf(number, sizeof number, "%d", fd);
    execl("/proc/self/exe", "tf-executor", "--worker", number, "--gpu", gpu_word(s->cfg->gpu),
          (char *)NULL);
    _exit(127);
}

static void worker_start(struct server *s)
{
    int pair[2];
    struct worker *w = NULL;
    for (int i = 0; i < WORKERS && !w; i++)
        if (s->worker[i].stage == WORKER_FREE)
            w = &s->worker[i];
    if (!w || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        int fd = dup(pair[1]); /* without close-on-exec */
        worker_exec(s, fd);
    }
    close(pair[1]);
    if (pid < 0) {
        tfr_warn("no worker: fork: %m");
        close(pair[0]);
        return;
    }
    *w = (struct worker){.stage = WORKER_STARTING, .fd = pair[0], .pid = pid};
}

static void worker_drop(struct worker *w)
{
    close(w->fd);
    w->stage = WORKER_FREE;
}

static void ready_say(const struct server *s, const char *gpu)
{
    if (s->cfg->ready_fd >= 0) {
        dprintf(s->cfg->ready_fd, "ready gpu=%s\n", gpu);
        close(s->cfg->ready_fd);
    }
    if (!s->cfg->private)
        tfr_say("executor on %s, listening at %s", gpu, s->cfg->listen);
}

static void worker_failed(struct server *s, struct worker *w, const char *why)
{
    worker_drop(w);
    tfr_say("no worker: %s", why);
    if (!s->snapshot) {
        s->status = 1;
        s->over = true;
    }
    for (int i = 0; i < CLIENTS; i++)
        if (s->client[i].stage == CLIENT_QUEUED)
            client_refuse(&s->client[i], why);
}

static void worker_ready(struct server *s, struct worker *w, const struct tfr_boot_msg *msg)
{
    const struct tfr_worker_ready *ready = msg->body;
    w->stage = WORKER_WARM;
    if (s->snapshot || msg->len != sizeof *ready + sizeof *s->snapshot)
        return;
    s->snapshot = malloc(sizeof *s->snapshot);
    if (!s->snapshot)
        return;
    memcpy(s->snapshot, ready + 1, sizeof *s->snapshot);
    ready_say(s, ready->gpu);
    for (int i = 0; i < CLIENTS; i++)
        if (s->client[i].stage == CLIENT_GREETED)
            snapshot_send(s, &s->client[i]);
}

static void worker_read(struct server *s, struct worker *w)
{
    struct tfr_boot_msg msg;
    if (tfr_boot_recv(w->fd, &msg, 1000) != TFR_OK) {
        if (w->stage == WORKER_STARTING)
            worker_failed(s, w, "it ended before it was ready");
        else
            worker_drop(w);
        return;
    }
    if (msg.type == TFR_WORKER_READY)
        worker_ready(s, w, &msg);
    else
        worker_failed(s, w,
                      msg.type == TFR_WORKER_FAILED && msg.len ? msg.body : "it spoke out of turn");
    tfr_boot_msg_fini(&msg);
}

static bool hand_over(struct server *s, struct worker *w, struct client *c)
{
    struct tfr_boot_msg msg = {.type = TFR_WORKER_CLIENT,
                               .len = sizeof c->attach,
                               .body = &c->attach,
                               .fds = {c->fd},
                               .fd_n = 1};
    bool sent = tfr_boot_send(w->fd, &msg, 1000) == TFR_OK;
    worker_drop(w);
    if (sent) {
        client_drop(c);
        s->spare_at_ns = tfr_clock_now() + SPARE_MS * TFR_NS_PER_MS;
    }
    return sent;
}

/* Queued clients to warm workers; what is missing is started. */
static void match(struct server *s)
{
    int starting = 0;
    for (int i = 0; i < WORKERS; i++)
        starting += s->worker[i].stage == WORKER_STARTING;
    for (int i = 0; i < CLIENTS; i++) {
        struct client *c = &s->client[i];
        if (c->stage != CLIENT_QUEUED)
            continue;
        for (int k = 0; k < WORKERS && c->stage == CLIENT_QUEUED; k++)
            if (s->worker[k].stage == WORKER_WARM)
                hand_over(s, &s->worker[k], c);
        if (c->stage == CLIENT_QUEUED && starting-- <= 0)
            worker_start(s);
    }
}

/* One spare, started a little after the last hand-over so that it does not compete with that
 * client. */
static void spare(struct server *s)
{
    if (!s->spare_at_ns || tfr_clock_now() < s->spare_at_ns)
        return;
    s->spare_at_ns = 0;
    for (int i = 0; i < WORKERS; i++)
        if (s->worker[i].stage != WORKER_FREE)
            return;
    worker_start(s);
}

/* ---- the loop ---- */

static void signal_take(struct server *s)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            while (waitpid(-1, NULL, WNOHANG) > 0)
                ;
        else
            s->over = true;
    }
}

static int fds_fill(struct server *s, struct pollfd *p, struct client **client_of,
                    struct worker **worker_of)
{
    int n = 0;
    p[n++] = (struct pollfd){.fd = s->listen_fd, .events = POLLIN};
    p[n++] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
    p[n++] = (struct pollfd){.fd = s->owner_fd, .events = POLLIN};
    for (int i = 0; i < CLIENTS; i++) {
        if (s->client[i].stage == CLIENT_FREE)
            continue;
        client_of[n] = &s->client[i];
        p[n++] = (struct pollfd){.fd = s->client[i].fd, .events = POLLIN | POLLRDHUP};
    }
    for (int i = 0; i < WORKERS; i++) {
        if (s->worker[i].stage == WORKER_FREE)
            continue;
        worker_of[n] = &s->worker[i];
        p[n++] = (struct pollfd){.fd = s->worker[i].fd, .events = POLLIN};
    }
    return n;
}

static void expire(struct server *s)
{
    uint64_t now = tfr_clock_now();
    for (int i = 0; i < CLIENTS; i++)
        if (s->client[i].stage == CLIENT_HELLO && now > s->client[i].deadline_ns)
            client_drop(&s->client[i]);
}

static void turn(struct server *s)
{
    struct pollfd p[3 + CLIENTS + WORKERS];
    struct client *client_of[3 + CLIENTS + WORKERS] = {0};
    struct worker *worker_of[3 + CLIENTS + WORKERS] = {0};
    int n = fds_fill(s, p, client_of, worker_of);
    if (poll(p, (nfds_t)n, s->spare_at_ns ? 100 : 1000) < 0 && errno != EINTR)
        s->over = true;
    for (int i = 3; i < n; i++) {
        if (!p[i].revents)
            continue;
        if (client_of[i])
            client_read(s, client_of[i]);
        else
            worker_read(s, worker_of[i]);
    }
    if (p[1].revents)
        signal_take(s);
    if (p[2].revents)
        s->over = true;
    if (p[0].revents)
        client_accept(s);
    expire(s);
    match(s);
    spare(s);
}

static bool watch_start(struct server *s)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    s->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    s->owner_fd = -1;
    if (s->cfg->owner) {
        s->owner_fd = (int)syscall(SYS_pidfd_open, s->cfg->owner, 0);
        if (s->owner_fd < 0)
            return false; /* it is gone already */
    }
    return s->signal_fd >= 0;
}

int tfr_server_run(const struct tfr_server_cfg *cfg)
{
    static struct server s;
    s.cfg = cfg;
    if (!watch_start(&s) || tfr_boot_listen(cfg->listen, &s.listen_fd) != TFR_OK)
        return 1;
    worker_start(&s);
    while (!s.over)
        turn(&s);
    /* Workers die with us (PR_SET_PDEATHSIG), and with them their sessions. */
    tfr_boot_unlink(cfg->listen);
    return s.status;
}
