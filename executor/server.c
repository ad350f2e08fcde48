/* The parent's loop: one epoll set, no call that waits.  Everything that a client may ask before it
 * has a worker is answered from the snapshot that the first worker took. */
#define TFR_LOG_PART "executor"
#include "executor/server.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "executor/parent.h"

enum { EVENTS = 64, CROWDED_MS = 10, TICK_MS = 50, IDLE_MS = 1000 };
enum { WORKER_FILES = 16 }; /* kept free for starting workers: three at a time, one each then */

static enum tfr_poll_kind signal_kind = TFR_POLL_SIGNAL, owner_kind = TFR_POLL_OWNER;

bool tfr_parent_watch(struct tfr_parent *p, int fd, void *what)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = what};
    return epoll_ctl(p->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* Taken out by name: a descriptor that has gone to a worker stays in the set when ours is closed.
 */
void tfr_parent_close(struct tfr_parent *p, struct tfr_boot *boot)
{
    epoll_ctl(p->epoll, EPOLL_CTL_DEL, boot->fd, NULL);
    tfr_boot_close(boot);
}

void tfr_parent_ready(struct tfr_parent *p, const char *gpu)
{
    char list[TFR_LISTEN_MAX * sizeof p->door[0].name];
    if (p->cfg->ready_fd >= 0) {
        tfr_doors_list(p, "listening ", "\n", list, sizeof list);
        dprintf(p->cfg->ready_fd, "ready gpu=%s\n%s", gpu, list);
        close(p->cfg->ready_fd);
    }
    tfr_doors_list(p, "", ", ", list, sizeof list);
    if (!p->cfg->private)
        tfr_say("executor on %s, listening at %s", gpu, list);
}

static void signal_take(struct tfr_parent *p)
{
    struct signalfd_siginfo info;
    while (read(p->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
        p->over |= info.ssi_signo != SIGCHLD;
    tfr_crew_reap(p);
}

static void event_take(struct tfr_parent *p, enum tfr_poll_kind *what)
{
    switch (*what) {
    case TFR_POLL_LISTEN:
        tfr_guest_accept(p, (struct tfr_door *)what);
        break;
    case TFR_POLL_SIGNAL:
        signal_take(p);
        break;
    case TFR_POLL_OWNER:
        p->over = true;
        break;
    case TFR_POLL_GUEST:
        tfr_guest_read(p, (struct tfr_guest *)what);
        break;
    case TFR_POLL_WORKER:
        tfr_crew_read(p, (struct tfr_worker *)what);
        break;
    case TFR_POLL_PROOF:
        tfr_identity_done(p);
        break;
    }
}

static void turn(struct tfr_parent *p)
{
    struct epoll_event event[EVENTS];
    bool busy =
        p->stranger_n[0] || p->stranger_n[1] || p->queue_n || !p->snapshot || p->spare_at_ns;
    int n = epoll_wait(p->epoll, event, EVENTS,
                       !p->listening ? CROWDED_MS
                       : busy        ? TICK_MS
                                     : IDLE_MS);
    if (n < 0 && errno != EINTR)
        p->over = true;
    for (int i = 0; i < n; i++)
        event_take(p, event[i].data.ptr);
    tfr_crew_tick(p);
    tfr_guest_tick(p);
    tfr_doors_tend(p);
}

/* As many descriptors as we may have: programs that wait hold one each, and not the last ones. */
static void files_raise(struct tfr_parent *p)
{
    getrlimit(RLIMIT_NOFILE, &p->files);
    struct rlimit more = {.rlim_cur = p->files.rlim_max, .rlim_max = p->files.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &more) != 0)
        more = p->files;
    int all = more.rlim_cur < INT_MAX ? (int)more.rlim_cur : INT_MAX;
    p->guest_files = all - (all / 4 < WORKER_FILES ? all / 4 : WORKER_FILES);
}

static bool watch_start(struct tfr_parent *p)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    p->epoll = epoll_create1(EPOLL_CLOEXEC);
    p->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    p->owner_fd = -1;
    if (p->cfg->owner) {
        p->owner_fd = (int)syscall(SYS_pidfd_open, p->cfg->owner, 0);
        if (p->owner_fd < 0 || !tfr_parent_watch(p, p->owner_fd, &owner_kind))
            return false; /* it is gone already */
    }
    if (p->epoll >= 0 && tfr_parent_watch(p, p->signal_fd, &signal_kind))
        return true;
    tfr_fail(TFR_E_SYS, "the executor cannot start: %m: see the limit on open files (ulimit -n)");
    return false;
}

int tfr_server_run(const struct tfr_server_cfg *cfg)
{
    static struct tfr_parent parent;
    struct tfr_parent *p = &parent;
    p->cfg = cfg;
    p->began_ns = tfr_clock_now();
    TAILQ_INIT(&p->guests);
    TAILQ_INIT(&p->queue);
    TAILQ_INIT(&p->unproven);
    files_raise(p);
    if (cfg->ready_fd >= 0)
        fcntl(cfg->ready_fd, F_SETFD, FD_CLOEXEC);
    if (!watch_start(p) || !tfr_crew_init(p))
        return 1;
    if (!tfr_doors_open(p)) {
        tfr_doors_close(p); /* those before the one that failed */
        return 1;
    }
    p->listening = true;
    while (!p->over)
        turn(p);
    tfr_doors_close(p);
    tfr_crew_stop(p);
    return p->status;
}
