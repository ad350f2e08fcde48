/* Who is it?  A unix socket says whose the other end is; over TCP client and executor prove
 * themselves to each other (transport/auth.h) in this loop, a message at a time.  MUNGE's daemon is
 * asked on a thread of its own, the only one that the parent has: it may take seconds, and the loop
 * never waits.  Whoever is refused makes at most one line a second here, and one there. */
#define TFR_LOG_PART "executor"
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "executor/parent.h"

enum { SEND_ROOM = 256 << 10 }; /* what is answered at once must fit into the socket */

/* One step of a proof, on its way to the thread or back. */
struct tfr_proof_job {
    STAILQ_ENTRY(tfr_proof_job) next;
    struct tfr_guest *guest; /* the loop's; NULL: it is gone */
    struct tfr_auth *auth;
    struct tfr_boot_msg in, out;
    tfr_status status;
    bool begun; /* guarded by lock */
};
STAILQ_HEAD(jobs, tfr_proof_job);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards both queues */
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static struct jobs todo = STAILQ_HEAD_INITIALIZER(todo), done = STAILQ_HEAD_INITIALIZER(done);
static int done_fd = -1;
static enum tfr_poll_kind proof_kind = TFR_POLL_PROOF;

void tfr_refused_say(struct tfr_parent *p, const struct tfr_guest *g, const char *why)
{
    uint64_t now = tfr_clock_now();
    p->refused_n++;
    if (p->refused_said_ns && now - p->refused_said_ns < TFR_NS_PER_S)
        return;
    p->refused_said_ns = now;
    if (p->refused_n > 1)
        tfr_warn("%s was refused: %s (and %llu others since the last such line)", g->from, why,
                 (unsigned long long)p->refused_n - 1);
    else
        tfr_warn("%s was refused: %s", g->from, why);
    p->refused_n = 0;
}

/* ---- the thread that talks to munged ---- */

static void *proof_main(void *arg)
{
    const uint64_t one = 1;
    (void)arg;
    for (;;) {
        pthread_mutex_lock(&lock);
        while (STAILQ_EMPTY(&todo))
            pthread_cond_wait(&work, &lock);
        struct tfr_proof_job *job = STAILQ_FIRST(&todo);
        STAILQ_REMOVE_HEAD(&todo, next);
        job->begun = true;
        pthread_mutex_unlock(&lock);
        job->status = tfr_auth_step(job->auth, &job->in, &job->out);
        pthread_mutex_lock(&lock);
        STAILQ_INSERT_TAIL(&done, job, next);
        pthread_mutex_unlock(&lock);
        if (write(done_fd, &one, sizeof one) != sizeof one)
            tfr_debug("a proof is done: %m");
    }
    return NULL;
}

bool tfr_identity_start(struct tfr_parent *p)
{
    pthread_t thread;
    done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (done_fd >= 0 && tfr_parent_watch(p, done_fd, &proof_kind) &&
        pthread_create(&thread, NULL, proof_main, NULL) == 0)
        return true;
    tfr_fail(TFR_E_SYS, "thread for MUNGE: %m");
    return false;
}

/* While the thread has it, the guest's socket is looked at for its end alone. */
static void listen_to(struct tfr_parent *p, struct tfr_guest *g, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = g};
    epoll_ctl(p->epoll, EPOLL_CTL_MOD, g->boot.fd, &event);
}

static void job_free(struct tfr_proof_job *job)
{
    tfr_auth_free(job->auth);
    tfr_boot_msg_fini(&job->in);
    free(job);
}

static void job_give(struct tfr_parent *p, struct tfr_guest *g, struct tfr_boot_msg *in)
{
    struct tfr_proof_job *job = calloc(1, sizeof *job);
    if (!job) {
        tfr_guest_drop(p, g);
        return;
    }
    *job = (struct tfr_proof_job){.guest = g, .auth = g->auth, .in = *in};
    in->body = NULL;
    g->auth = NULL;
    g->job = job;
    listen_to(p, g, EPOLLRDHUP);
    pthread_mutex_lock(&lock);
    STAILQ_INSERT_TAIL(&todo, job, next);
    pthread_cond_signal(&work);
    pthread_mutex_unlock(&lock);
}

/* ---- proofs ---- */

static void step_end(struct tfr_parent *p, struct tfr_guest *g, tfr_status status,
                     const struct tfr_boot_msg *out)
{
    tfr_status sent = out->type ? tfr_boot_send(&g->boot, out, 0) : TFR_OK;
    if (status == TFR_AGAIN && sent == TFR_OK)
        return;
    if (status == TFR_OK && sent == TFR_OK) {
        g->boot.seal = tfr_auth_seal(g->auth);
        g->uid = tfr_auth_uid(g->auth);
        tfr_auth_free(g->auth);
        g->auth = NULL;
        tfr_guest_known(p, g);
        return;
    }
    if (status == TFR_E_ACCESS)
        tfr_refused_say(p, g, tfr_auth_why(g->auth));
    else if (status == TFR_E_PROTO)
        tfr_unknown_say(p);
    tfr_guest_drop(p, g);
}

void tfr_identity_done(struct tfr_parent *p)
{
    struct jobs came = STAILQ_HEAD_INITIALIZER(came);
    struct tfr_proof_job *job;
    uint64_t count;
    if (read(done_fd, &count, sizeof count) != sizeof count)
        return;
    pthread_mutex_lock(&lock);
    STAILQ_CONCAT(&came, &done);
    pthread_mutex_unlock(&lock);
    while ((job = STAILQ_FIRST(&came))) {
        struct tfr_guest *g = job->guest;
        STAILQ_REMOVE_HEAD(&came, next);
        if (g) {
            g->job = NULL;
            g->auth = job->auth;
            g->since_ns = tfr_clock_now(); /* what munged took is not its fault */
            listen_to(p, g, EPOLLIN | EPOLLRDHUP);
            job->auth = NULL;
            step_end(p, g, job->status, &job->out);
        }
        job_free(job);
    }
}

void tfr_identity_read(struct tfr_parent *p, struct tfr_guest *g)
{
    struct tfr_boot_msg in, out;
    if (g->job) { /* nothing but its end is looked for */
        tfr_guest_drop(p, g);
        return;
    }
    if (!tfr_guest_take(p, g, TFR_AUTH_MAX, &in))
        return;
    if (p->auth.method == TFR_AUTH_MUNGE)
        job_give(p, g, &in);
    else
        step_end(p, g, tfr_auth_step(g->auth, &in, &out), &out);
    tfr_boot_msg_fini(&in);
}

/* What the thread has not begun it need not do: who comes and goes leaves no work behind. */
static void job_forget(struct tfr_proof_job *job)
{
    pthread_mutex_lock(&lock);
    bool begun = job->begun;
    if (!begun)
        STAILQ_REMOVE(&todo, job, tfr_proof_job, next);
    pthread_mutex_unlock(&lock);
    job->guest = NULL;
    if (!begun)
        job_free(job);
}

void tfr_identity_forget(struct tfr_guest *g)
{
    if (g->job)
        job_forget(g->job);
    g->job = NULL;
    tfr_auth_free(g->auth);
    g->auth = NULL;
}

/* ---- at the door ---- */

/* Hashed with a secret of ours, so that nobody can choose whom he is taken for.  Of IPv6 the
 * network: a host has any number of addresses. */
uint8_t tfr_identity_origin(int fd)
{
    static uint64_t secret;
    struct sockaddr_storage at = {0};
    socklen_t len = sizeof at;
    uint64_t word = 0;
    if (!secret && getrandom(&secret, sizeof secret, GRND_NONBLOCK) != sizeof secret)
        secret = tfr_clock_now();
    getpeername(fd, (struct sockaddr *)&at, &len);
    if (at.ss_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *)&at)->sin6_addr;
        memcpy(&word, v6->s6_addr + (IN6_IS_ADDR_V4MAPPED(v6) ? 8 : 0), sizeof word);
    } else {
        word = ((const struct sockaddr_in *)&at)->sin_addr.s_addr;
    }
    word = (word ^ secret) * 0x9e3779b97f4a7c15ull;
    word = (word ^ word >> 32) * (secret | 1);
    return (uint8_t)(word >> 56);
}

static void tcp_meet(struct tfr_parent *p, struct tfr_guest *g)
{
    const int room = SEND_ROOM;
    struct sockaddr_storage from = {0};
    socklen_t len = sizeof from;
    getpeername(g->boot.fd, (struct sockaddr *)&from, &len);
    tfr_address_text(&from, g->from);
    tfr_address_tune(g->boot.fd);
    setsockopt(g->boot.fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    g->auth = tfr_auth_new(&p->auth, false);
    if (!g->auth)
        tfr_guest_drop(p, g);
}

void tfr_identity_meet(struct tfr_parent *p, struct tfr_guest *g)
{
    char why[128];
    if (g->tcp) {
        tcp_meet(p, g);
        return;
    }
    if (tfr_boot_peer(&g->boot, &g->uid, &g->pid) != TFR_OK) {
        tfr_guest_drop(p, g);
        return;
    }
    snprintf(g->from, sizeof g->from, "process %d", (int)g->pid);
    if (tfr_auth_admits(&p->auth, g->uid))
        return;
    snprintf(why, sizeof why, "user %u is not admitted: --allow-uid %u would do that",
             (unsigned)g->uid, (unsigned)g->uid);
    tfr_refused_say(p, g, why);
    tfr_guest_refuse(p, g,
                     "it serves another user: start an executor of your own, or have it "
                     "started with --allow-uid");
}
