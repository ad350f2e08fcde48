/* The workers: started, kept warm, handed over, counted, reaped.  A worker is a new image of this
 * program, because a driver does not bear being forked.  Surprising: after the hand-over the parent
 * holds no descriptor of the client, so that the worker's death is seen by the client at once; and
 * spares follow demand: one as a rule, two while clients keep coming, of the kind last asked for;
 * none once a private executor has its program. */
#define TFR_LOG_PART "executor"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "executor/parent.h"
#include "executor/spin.h"

enum {
    START_LIMIT_S = 120, /* a driver that has not come up by then never will */
    STARTS_AT_ONCE = 8,
    BUSY_S = 2, /* clients nearer to each other than this keep coming */
    CALM_S = 30,
    SPARE_MS = 500, /* behind a single client, so that its start has the machine to itself */
    AGAIN_S = 2,    /* after a start that failed, and a spare that ended by itself */
    STOP_MS = 900,
};

int tfr_crew_count(const struct tfr_parent *p, enum tfr_worker_stage stage)
{
    int n = 0;
    for (int i = 0; i < p->worker_n; i++)
        n += p->worker[i].stage == stage;
    return n;
}

static bool env_same(const struct tfr_fixed_env *a, const struct tfr_fixed_env *b)
{
    return a->uid == b->uid && a->len == b->len && memcmp(a->text, b->text, a->len) == 0;
}

static int count_like(const struct tfr_parent *p, enum tfr_worker_stage stage,
                      const struct tfr_fixed_env *env)
{
    int n = 0;
    for (int i = 0; i < p->worker_n; i++)
        n += p->worker[i].stage == stage && env_same(&p->worker[i].env, env);
    return n;
}

/* Only root can be somebody else; others work for their guests. */
uid_t tfr_crew_uid(uid_t guest)
{
    return geteuid() == 0 ? guest : geteuid();
}

bool tfr_crew_init(struct tfr_parent *p)
{
    p->worker_n = p->cfg->max_sessions + TFR_SPARES;
    p->worker = calloc((size_t)p->worker_n, sizeof *p->worker);
    if (!p->worker)
        return false;
    p->spin_fd = tfr_spin_create();
    /* Our own settings are what the first workers have. */
    p->spare_env.uid = geteuid();
    p->spare_env.len = tfr_hello_env(p->spare_env.text, sizeof p->spare_env.text);
    p->spare_at_ns = 1;
    return true;
}

/* ---- starting ---- */

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

/* In the child: the driver settings that the session wants, no others of their kind. */
static void env_apply(const struct tfr_fixed_env *env)
{
    static char text[TFR_HELLO_ENV_MAX]; /* putenv keeps it */
    for (const char *const *name = tfr_hello_names; *name; name++)
        unsetenv(*name);
    setenv(TFR_ENV_CHECKED, "1", 1);
    memcpy(text, env->text, env->len);
    for (uint32_t at = 0; at < env->len; at += (uint32_t)strlen(text + at) + 1)
        putenv(text + at);
}

/* Across exec.  A copy would need a descriptor more, and those may be used up. */
static int kept(int fd)
{
    return fcntl(fd, F_SETFD, 0) == 0 ? fd : -1;
}

static void worker_exec(const struct tfr_parent *p, const struct tfr_fixed_env *env, int fd,
                        int stat_fd)
{
    char number[16], stat[16], spin[16], uid[16];
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setrlimit(RLIMIT_NOFILE, &p->files);
    env_apply(env);
    snprintf(number, sizeof number, "%d", kept(fd));
    snprintf(stat, sizeof stat, "%d", kept(stat_fd));
    snprintf(spin, sizeof spin, "%d", kept(p->spin_fd));
    snprintf(uid, sizeof uid, "%u", (unsigned)env->uid);
    execl("/proc/self/exe", "tf-executor", "--worker", number, "--stat-fd", stat, "--spin-fd", spin,
          "--gpu", gpu_word(p->cfg->gpu), "--pin", p->cfg->pin, "--uid", uid, (char *)NULL);
    _exit(127);
}

static struct tfr_worker *worker_room(struct tfr_parent *p)
{
    for (int i = 0; i < p->worker_n; i++)
        if (p->worker[i].stage == WORKER_FREE)
            return &p->worker[i];
    return NULL;
}

/* For want of descriptors, processes or memory: that passes, or somebody reads the line. */
static bool start_failed(struct tfr_parent *p)
{
    tfr_warn("no worker can be started: %m: trying again in %d s", AGAIN_S);
    p->start_at_ns = tfr_clock_now() + AGAIN_S * TFR_NS_PER_S;
    return false;
}

static bool worker_start(struct tfr_parent *p, const struct tfr_fixed_env *env)
{
    struct tfr_worker *w = worker_room(p);
    struct tfr_area stat = {.fd = -1};
    int pair[2];
    if (!w || tfr_clock_now() < p->start_at_ns)
        return false;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return start_failed(p);
    tfr_memfd_create("tfr-stat", sizeof *w->stat, NULL, &stat); /* without: no numbers */
    pid_t pid = fork();
    if (pid == 0)
        worker_exec(p, env, pair[1], stat.fd);
    bool started = pid > 0 || start_failed(p);
    close(pair[1]);
    if (stat.fd >= 0)
        close(stat.fd);
    *w = (struct tfr_worker){.kind = TFR_POLL_WORKER,
                             .stage = WORKER_STARTING,
                             .boot = {.fd = pair[0]},
                             .pid = pid,
                             .env = *env,
                             .stat = stat.addr,
                             .since_ns = tfr_clock_now()};
    if (started && tfr_parent_watch(p, pair[0], w))
        return true;
    tfr_boot_close(&w->boot); /* it ends with that */
    w->stage = started ? WORKER_ENDING : WORKER_FREE;
    if (!started && w->stat)
        munmap(w->stat, sizeof *w->stat);
    return started && start_failed(p);
}

/* ---- ending ---- */

/* Of a fault of ours or the driver's, or by somebody's hand. */
static void death_say(const struct tfr_parent *p, const struct tfr_worker *w, int status)
{
    if (WIFSIGNALED(status) && w->stage == WORKER_SERVING && !p->over)
        tfr_say("the worker of process %d (%s) died of signal %d", (int)w->client, w->program,
                WTERMSIG(status));
}

static void worker_leave(struct tfr_parent *p, struct tfr_worker *w)
{
    if (w->boot.fd >= 0)
        tfr_parent_close(p, &w->boot);
    w->stage = WORKER_ENDING;
}

/* By a fault of the driver's, for want of memory, by somebody's hand. */
static void spare_lost(struct tfr_parent *p, struct tfr_worker *w)
{
    if (w->stage != WORKER_WARM)
        return;
    tfr_warn("worker %d has ended while it waited for a program: there will be another",
             (int)w->pid);
    p->spare_at_ns = tfr_clock_now() + AGAIN_S * TFR_NS_PER_S;
}

/* One that is warm or starting goes by itself when its socket is closed; a stuck one does not. */
static void worker_retire(struct tfr_parent *p, struct tfr_worker *w)
{
    if (w->pid > 0)
        kill(w->pid, SIGKILL);
    worker_leave(p, w);
}

void tfr_crew_reap(struct tfr_parent *p)
{
    pid_t pid;
    int status;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (int i = 0; i < p->worker_n; i++) {
            struct tfr_worker *w = &p->worker[i];
            if (w->stage == WORKER_FREE || w->pid != pid)
                continue;
            death_say(p, w, status);
            spare_lost(p, w);
            w->pid = 0;
            if (w->stage == WORKER_STARTING)
                tfr_crew_read(p, w); /* what it said last */
            worker_leave(p, w);
            if (w->stat)
                munmap(w->stat, sizeof *w->stat);
            w->stage = WORKER_FREE;
        }
    }
}

/* Whom it was started for hears why; the others wait on.  Without a snapshot no worker has ever
 * come up: none will. */
static void worker_failed(struct tfr_parent *p, struct tfr_worker *w, const char *why)
{
    struct tfr_guest *g;
    tfr_say("no worker: %s", why);
    worker_retire(p, w);
    p->spare_at_ns = 0;
    if (!p->snapshot) {
        p->status = 1;
        p->over = true;
        return;
    }
    TAILQ_FOREACH(g, &p->queue, queue)
    if (env_same(&g->env, &w->env))
        break;
    if (g)
        tfr_guest_refuse(p, g, why);
}

/* ---- what workers say ---- */

/* As it goes to clients: with our edition, and the calls that we know. */
static void snapshot_keep(struct tfr_parent *p, const void *from)
{
    const size_t calls = TFR_CALLS_MAX * sizeof(struct tfr_edition_call);
    p->snapshot = malloc(sizeof *p->snapshot + calls);
    if (!p->snapshot)
        return;
    memcpy(p->snapshot, from, sizeof *p->snapshot);
    tfr_edition_make(tfr_release, &p->snapshot->edition, p->snapshot + 1);
    strncpy(p->snapshot->transport, tfr_env_str("TFR_TRANSPORT"),
            sizeof p->snapshot->transport - 1);
    p->snapshot_len =
        sizeof *p->snapshot + p->snapshot->edition.call_n * sizeof(struct tfr_edition_call);
}

static void worker_ready(struct tfr_parent *p, struct tfr_worker *w, const struct tfr_boot_msg *msg)
{
    const struct tfr_worker_ready *ready = msg->body;
    w->stage = WORKER_WARM;
    if (p->snapshot || msg->len != sizeof *ready + sizeof *p->snapshot)
        return;
    snapshot_keep(p, ready + 1);
    if (!p->snapshot)
        return;
    memcpy(p->place, ready->place, sizeof p->place - 1);
    tfr_parent_ready(p, ready->gpu);
    tfr_guest_snapshot_all(p);
}

void tfr_crew_read(struct tfr_parent *p, struct tfr_worker *w)
{
    struct tfr_boot_msg msg;
    if (w->boot.fd < 0)
        return;
    tfr_status status = tfr_boot_recv(&w->boot, &msg, 1000);
    if (status != TFR_OK) {
        spare_lost(p, w);
        if (w->stage == WORKER_STARTING)
            worker_failed(p, w, "it ended before it was ready");
        else
            worker_leave(p, w);
        return;
    }
    if (msg.type == TFR_WORKER_READY && w->stage == WORKER_STARTING)
        worker_ready(p, w, &msg);
    else
        worker_failed(p, w,
                      msg.type == TFR_WORKER_FAILED && msg.len ? msg.body : "it spoke out of turn");
    tfr_boot_msg_fini(&msg);
}

/* ---- matching ---- */

static bool client_send(struct tfr_worker *w, const struct tfr_guest *g)
{
    struct tfr_worker_client client = {.sealed = g->boot.seal != NULL, .attach_len = g->attach_len};
    struct tfr_boot_msg msg = {.type = TFR_WORKER_CLIENT,
                               .len = sizeof client,
                               .body = &client,
                               .fds = {g->boot.fd},
                               .fd_n = 1};
    memcpy(client.attach, g->attach, g->attach_len);
    if (g->boot.seal)
        client.seal = *g->boot.seal;
    bool sent = tfr_boot_send(&w->boot, &msg, 100) == TFR_OK;
    explicit_bzero(&client, sizeof client);
    return sent;
}

static bool hand_over(struct tfr_parent *p, struct tfr_worker *w, struct tfr_guest *g)
{
    uint64_t now = tfr_clock_now();
    bool sent = client_send(w, g);
    worker_leave(p, w);
    if (!sent)
        return false;
    w->stage = WORKER_SERVING;
    w->since_ns = now;
    w->client = g->pid;
    w->uid = g->uid;
    memcpy(w->program, g->program, sizeof w->program);
    p->spare_env = g->env;
    tfr_guest_drop(p, g);
    p->served++;
    p->handed_before_ns = p->handed_ns;
    p->handed_ns = now;
    bool busy = now - p->handed_before_ns < BUSY_S * TFR_NS_PER_S;
    p->spare_at_ns = now + (busy ? 0 : SPARE_MS * TFR_NS_PER_MS);
    return true;
}

static bool match(struct tfr_parent *p, struct tfr_guest *g)
{
    if (tfr_crew_count(p, WORKER_SERVING) >= p->cfg->max_sessions)
        return false;
    for (int i = 0; i < p->worker_n; i++) {
        struct tfr_worker *w = &p->worker[i];
        if (w->stage == WORKER_WARM && env_same(&w->env, &g->env) && hand_over(p, w, g))
            return true;
    }
    return false;
}

static struct tfr_worker *warm_unlike(struct tfr_parent *p, const struct tfr_fixed_env *env)
{
    for (int i = 0; i < p->worker_n; i++)
        if (p->worker[i].stage == WORKER_WARM && !env_same(&p->worker[i].env, env))
            return &p->worker[i];
    return NULL;
}

/* A worker for somebody who waits, within the number of sessions; a warm one of another kind makes
 * room. */
static void start_wanted(struct tfr_parent *p, const struct tfr_fixed_env *env)
{
    int starting = tfr_crew_count(p, WORKER_STARTING);
    int busy = starting + tfr_crew_count(p, WORKER_SERVING);
    if (starting >= STARTS_AT_ONCE || busy >= p->cfg->max_sessions)
        return;
    struct tfr_worker *other = warm_unlike(p, env);
    if (other && busy + tfr_crew_count(p, WORKER_WARM) >= p->cfg->max_sessions)
        worker_retire(p, other);
    worker_start(p, env);
}

/* Each in turn; whoever finds no warm worker is counted against those that are starting. */
static void match_all(struct tfr_parent *p)
{
    struct tfr_guest *g, *next, *before;
    for (g = TAILQ_FIRST(&p->queue); g; g = next) {
        next = TAILQ_NEXT(g, queue);
        if (match(p, g))
            continue;
        int ahead = 0;
        TAILQ_FOREACH(before, &p->queue, queue)
        {
            ahead += env_same(&before->env, &g->env);
            if (before == g || ahead > STARTS_AT_ONCE)
                break;
        }
        if (ahead > STARTS_AT_ONCE)
            break; /* those behind have their turn when these are served */
        if (ahead > count_like(p, WORKER_STARTING, &g->env))
            start_wanted(p, &g->env);
    }
}

/* ---- spares ---- */

static void spares(struct tfr_parent *p, uint64_t now)
{
    if (!p->spare_at_ns || now < p->spare_at_ns || p->queue_n)
        return;
    bool busy = p->handed_before_ns && p->handed_ns - p->handed_before_ns < BUSY_S * TFR_NS_PER_S;
    bool calm = now - p->handed_ns > CALM_S * TFR_NS_PER_S;
    int want = p->cfg->private && p->served ? 0 : busy && !calm ? TFR_SPARES : 1;
    int warm = tfr_crew_count(p, WORKER_WARM), starting = tfr_crew_count(p, WORKER_STARTING);
    int like =
        count_like(p, WORKER_WARM, &p->spare_env) + count_like(p, WORKER_STARTING, &p->spare_env);
    p->spare_at_ns = want > 1 ? now + TFR_NS_PER_S : 0; /* until it is calm */
    if (like < want && warm + starting >= want) {
        struct tfr_worker *other = warm_unlike(p, &p->spare_env);
        if (other)
            worker_retire(p, other);
    }
    if (like < want) {
        if (!worker_start(p, &p->spare_env))
            p->spare_at_ns = now + TFR_NS_PER_S;
        return;
    }
    for (int i = 0; i < p->worker_n && warm > want; i++)
        if (p->worker[i].stage == WORKER_WARM) {
            worker_retire(p, &p->worker[i]);
            warm--;
        }
}

void tfr_crew_tick(struct tfr_parent *p)
{
    uint64_t now = tfr_clock_now();
    for (int i = 0; i < p->worker_n; i++) {
        struct tfr_worker *w = &p->worker[i];
        if (w->stage == WORKER_STARTING && now - w->since_ns > START_LIMIT_S * TFR_NS_PER_S)
            worker_failed(p, w, "the driver did not come up within two minutes");
    }
    match_all(p);
    spares(p, now);
}

/* ---- the end ---- */

static int alive(struct tfr_parent *p)
{
    tfr_crew_reap(p);
    return p->worker_n - tfr_crew_count(p, WORKER_FREE);
}

static void signal_all(struct tfr_parent *p, int number)
{
    for (int i = 0; i < p->worker_n; i++)
        if (p->worker[i].stage != WORKER_FREE)
            kill(p->worker[i].pid, number);
}

void tfr_crew_stop(struct tfr_parent *p)
{
    uint64_t until = tfr_clock_now() + STOP_MS * TFR_NS_PER_MS;
    int running = tfr_crew_count(p, WORKER_SERVING);
    if (running && !p->cfg->private)
        tfr_say("executor stops, and running sessions with it: %d", running);
    for (int i = 0; i < p->worker_n; i++)
        if (p->worker[i].stage == WORKER_STARTING || p->worker[i].stage == WORKER_WARM)
            p->worker[i].stage = WORKER_ENDING; /* its end is no news */
    signal_all(p, SIGTERM);
    while (alive(p) && tfr_clock_now() < until)
        poll(NULL, 0, 5);
    signal_all(p, SIGKILL); /* and PR_SET_PDEATHSIG for who sits in the kernel */
}
