/* Connections, from accept until a worker has them: who is it, hello, snapshot, the queue.  A guest
 * whose words are not ours is closed without a further look; one that says nothing goes after three
 * seconds: honest ones need a few milliseconds, and their machine may have paused.  Surprising:
 * nobody is kept out by those who have proved nothing.  Too many of them, and the oldest goes of
 * the address that most come from. */
#define TFR_LOG_PART "executor"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "executor/parent.h"

enum { HELLO_MS = 3000, HELLO_CROWDED_MS = 10, MUNGE_MS = 10000 };
enum { TELL_MS = 1000, DEAF_MS = 100, ACCEPTS = 64 };

/* ---- who has proved nothing ---- */

static void unproven_add(struct tfr_parent *p, struct tfr_guest *g)
{
    TAILQ_INSERT_TAIL(&p->unproven, g, unproven);
    p->origin_n[g->origin]++;
}

static void unproven_remove(struct tfr_parent *p, struct tfr_guest *g)
{
    TAILQ_REMOVE(&p->unproven, g, unproven);
    p->origin_n[g->origin]--;
}

/* The oldest of where most of them come from. */
static void unproven_evict(struct tfr_parent *p)
{
    int fullest = 0;
    struct tfr_guest *g;
    for (int i = 1; i < TFR_ORIGINS; i++)
        if (p->origin_n[i] > p->origin_n[fullest])
            fullest = i;
    TAILQ_FOREACH(g, &p->unproven, unproven)
    if (g->origin == fullest)
        break;
    if (g)
        tfr_guest_drop(p, g);
}

/* ---- stages ---- */

static void stage_set(struct tfr_parent *p, struct tfr_guest *g, enum tfr_guest_stage stage)
{
    int enters = (stage == GUEST_STRANGER) - (g->stage == GUEST_STRANGER);
    p->stranger_n[g->known] += enters;
    if (enters > 0 && !g->known)
        unproven_add(p, g);
    else if (enters < 0 && !g->known)
        unproven_remove(p, g);
    if (g->stage == GUEST_QUEUED) {
        TAILQ_REMOVE(&p->queue, g, queue);
        p->queue_n--;
    }
    if (stage == GUEST_QUEUED) {
        TAILQ_INSERT_TAIL(&p->queue, g, queue);
        p->queue_n++;
    }
    g->stage = stage;
}

/* The last places are for users who have few. */
static const char *crowd_of(const struct tfr_parent *p, const struct tfr_guest *g)
{
    int places = p->guest_n - p->stranger_n[false], own = 0;
    const struct tfr_guest *other;
    if (places > TFR_GUESTS_MAX)
        return "too many programs are connected to it";
    if (places <= TFR_GUESTS_MAX - TFR_GUESTS_RESERVE)
        return NULL;
    TAILQ_FOREACH(other, &p->guests, all)
    own += other->known && other->stage != GUEST_GONE && other->uid == g->uid;
    return own > TFR_GUESTS_OWN ? "too many programs of this user are connected to it: end some"
                                : NULL;
}

static void place_take(struct tfr_parent *p, struct tfr_guest *g)
{
    const char *crowd = crowd_of(p, g);
    if (crowd)
        tfr_guest_refuse(p, g, crowd);
}

void tfr_guest_known(struct tfr_parent *p, struct tfr_guest *g)
{
    unproven_remove(p, g);
    p->stranger_n[false]--;
    p->stranger_n[true]++;
    g->known = true;
    g->since_ns = tfr_clock_now(); /* it has its time for hello */
    place_take(p, g);
}

void tfr_guest_drop(struct tfr_parent *p, struct tfr_guest *g)
{
    tfr_identity_forget(g);
    tfr_parent_close(p, &g->boot);
    stage_set(p, g, GUEST_GONE);
}

/* No limit: what does not fit into the socket at once is from somebody who does not read. */
static bool guest_send(struct tfr_parent *p, struct tfr_guest *g, uint32_t type, const void *body,
                       size_t len)
{
    struct tfr_boot_msg msg = {.type = type, .len = (uint32_t)len, .body = (void *)(uintptr_t)body};
    if (tfr_boot_send(&g->boot, &msg, 0) == TFR_OK)
        return true;
    tfr_guest_drop(p, g);
    return false;
}

void tfr_guest_refuse(struct tfr_parent *p, struct tfr_guest *g, const char *why)
{
    if (guest_send(p, g, TFR_BOOT_REFUSED, why, strlen(why)))
        tfr_guest_drop(p, g);
}

/* At most one line a second, however many come. */
void tfr_unknown_say(struct tfr_parent *p)
{
    uint64_t now = tfr_clock_now();
    p->unknown_n++;
    if (p->unknown_said_ns && now - p->unknown_said_ns < TFR_NS_PER_S)
        return;
    tfr_warn("%llu connections that do not speak our protocol were closed",
             (unsigned long long)p->unknown_n);
    p->unknown_said_ns = now;
    p->unknown_n = 0;
}

/* ---- accept ---- */

static void guest_admit(struct tfr_parent *p, int fd, bool tcp)
{
    struct tfr_guest *g = calloc(1, sizeof *g);
    if (!g || !tfr_parent_watch(p, fd, g)) {
        close(fd);
        free(g);
        return;
    }
    *g = (struct tfr_guest){.kind = TFR_POLL_GUEST,
                            .stage = GUEST_IDLE,
                            .boot = {.fd = fd},
                            .tcp = tcp,
                            .known = !tcp,
                            .origin = tcp ? tfr_identity_origin(fd) : 0,
                            .since_ns = tfr_clock_now()};
    TAILQ_INSERT_TAIL(&p->guests, g, all);
    p->guest_n++;
    stage_set(p, g, GUEST_STRANGER);
    tfr_identity_meet(p, g);
    if (p->stranger_n[false] > TFR_STRANGERS_MAX)
        unproven_evict(p);
    if (g->stage != GUEST_GONE && g->known)
        place_take(p, g);
}

/* Whoever comes would get a descriptor of those that guests may have.  The others are for workers:
 * if programs that wait held them all, no worker could be started, and they would wait forever. */
static bool file_free(const struct tfr_parent *p)
{
    int fd = fcntl(p->epoll, F_DUPFD_CLOEXEC, 0); /* the lowest that is free */
    if (fd >= 0)
        close(fd);
    return fd >= 0 && fd < p->guest_files;
}

static void deaf_be(struct tfr_parent *p)
{
    p->deaf_to_ns = tfr_clock_now() + DEAF_MS * TFR_NS_PER_MS;
}

void tfr_guest_accept(struct tfr_parent *p, struct tfr_door *door)
{
    for (int i = 0; i < ACCEPTS && !tfr_door_crowded(p, door); i++) {
        if (!file_free(p)) {
            deaf_be(p);
            return;
        }
        int fd = accept4(door->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            guest_admit(p, fd, door->tcp);
        } else {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                deaf_be(p);
            return;
        }
    }
}

/* ---- messages ---- */

static void snapshot_send(struct tfr_parent *p, struct tfr_guest *g)
{
    if (guest_send(p, g, TFR_BOOT_SNAPSHOT, p->snapshot, p->snapshot_len))
        stage_set(p, g, GUEST_IDLE);
}

void tfr_guest_snapshot_all(struct tfr_parent *p)
{
    struct tfr_guest *g;
    TAILQ_FOREACH(g, &p->guests, all)
    if (g->stage == GUEST_GREETED)
        snapshot_send(p, g);
}

/* Printable ASCII alone: it ends on somebody's terminal. */
static void program_take(struct tfr_guest *g, const struct tfr_hello *hello)
{
    for (size_t i = 0; i < sizeof g->program - 1 && hello->program[i]; i++) {
        char c = hello->program[i];
        g->program[i] = c > ' ' && c < 127 ? c : '?';
    }
}

static bool hello_check(struct tfr_parent *p, struct tfr_guest *g, const struct tfr_boot_msg *msg)
{
    char cause[TFR_EDITION_WHY_MAX], why[TFR_EDITION_WHY_MAX];
    uint8_t calls[TFR_CALLS_MAX * sizeof(struct tfr_edition_call)];
    struct tfr_edition own, its;
    const char *wrong = tfr_hello_check(msg->body, msg->len, &its, cause);
    if (!wrong)
        return true;
    if (!its.magic) {
        tfr_unknown_say(p);
        tfr_guest_drop(p, g);
        return false;
    }
    tfr_edition_make(tfr_release, &own, calls);
    tfr_edition_refusal(&own, &its, cause, why);
    tfr_refused_say(p, g, why);
    tfr_guest_refuse(p, g, why);
    return false;
}

static void hello_take(struct tfr_parent *p, struct tfr_guest *g, const struct tfr_boot_msg *msg)
{
    const struct tfr_hello *hello = msg->body;
    if (!hello_check(p, g, msg))
        return;
    program_take(g, hello);
    if (g->tcp)
        g->pid = (pid_t)hello->pid; /* of another machine, for people */
    g->env.uid = tfr_crew_uid(g->uid);
    g->env.len = hello->env_len;
    memcpy(g->env.text, tfr_hello_settings(hello), hello->env_len);
    stage_set(p, g, GUEST_GREETED);
    if (p->snapshot)
        snapshot_send(p, g);
}

static void attach_take(struct tfr_parent *p, struct tfr_guest *g, struct tfr_boot_msg *msg)
{
    struct tfr_ways ways;
    if (!tfr_ways_take(msg->body, msg->len, &ways)) {
        tfr_unknown_say(p);
        tfr_guest_drop(p, g);
        return;
    }
    if (p->queue_n >= TFR_QUEUE_MAX) {
        tfr_guest_refuse(p, g, "1024 programs wait for it already");
        return;
    }
    g->attach = msg->body;
    g->attach_len = msg->len;
    msg->body = NULL;
    g->since_ns = tfr_clock_now();
    stage_set(p, g, GUEST_QUEUED);
}

/* ---- numbers for tf-stat ---- */

static void stat_row(const struct tfr_worker *w, struct tfr_stat_row *row)
{
    *row = (struct tfr_stat_row){.pid = w->client,
                                 .worker = w->pid,
                                 .uid = w->uid,
                                 .age_ms = (tfr_clock_now() - w->since_ns) / TFR_NS_PER_MS};
    memcpy(row->program, w->program, sizeof row->program);
    const _Atomic uint64_t *from = (const _Atomic uint64_t *)w->stat;
    for (int i = 0; from && i < TFR_STAT_N; i++)
        row->value[i] = atomic_load_explicit(&from[i], memory_order_relaxed);
}

static void stats_send(struct tfr_parent *p, struct tfr_guest *g)
{
    uint64_t now = tfr_clock_now();
    struct tfr_stat_head head = {.queued = (uint32_t)p->queue_n,
                                 .warm = (uint32_t)tfr_crew_count(p, WORKER_WARM),
                                 .max = (uint32_t)p->cfg->max_sessions,
                                 .served = p->served,
                                 .uptime_ms = (now - p->began_ns) / TFR_NS_PER_MS,
                                 .now_ms = now / TFR_NS_PER_MS};
    size_t room = sizeof head + (size_t)p->worker_n * sizeof(struct tfr_stat_row);
    uint8_t *body = malloc(room);
    if (!body) {
        tfr_guest_drop(p, g);
        return;
    }
    struct tfr_stat_row *row = (struct tfr_stat_row *)(body + sizeof head);
    for (int i = 0; i < p->worker_n; i++)
        if (p->worker[i].stage == WORKER_SERVING)
            stat_row(&p->worker[i], &row[head.n++]);
    memcpy(body, &head, sizeof head);
    guest_send(p, g, TFR_BOOT_STATS, body, sizeof head + head.n * sizeof *row);
    free(body);
}

static void tool_take(struct tfr_parent *p, struct tfr_guest *g, const struct tfr_boot_msg *msg)
{
    if (!hello_check(p, g, msg))
        return;
    stage_set(p, g, GUEST_TOOL);
    if (msg->type == TFR_BOOT_STAT)
        stats_send(p, g);
    else
        guest_send(p, g, TFR_BOOT_PLACED, p->place, strlen(p->place));
}

static void msg_take(struct tfr_parent *p, struct tfr_guest *g, struct tfr_boot_msg *msg)
{
    bool fresh = g->stage == GUEST_STRANGER;
    if (fresh && msg->type == TFR_BOOT_HELLO) {
        hello_take(p, g, msg);
    } else if ((msg->type == TFR_BOOT_STAT || msg->type == TFR_BOOT_PLACE) &&
               (fresh || g->stage == GUEST_TOOL)) {
        tool_take(p, g, msg);
    } else if (g->stage == GUEST_IDLE && msg->type == TFR_BOOT_ATTACH) {
        attach_take(p, g, msg);
    } else {
        tfr_unknown_say(p);
        tfr_guest_drop(p, g);
    }
}

bool tfr_guest_take(struct tfr_parent *p, struct tfr_guest *g, uint32_t max,
                    struct tfr_boot_msg *msg_out)
{
    tfr_status status = tfr_boot_recv_part(&g->boot, &g->in, max, msg_out);
    if (status == TFR_OK || status == TFR_AGAIN)
        return status == TFR_OK;
    if (status == TFR_E_PROTO)
        tfr_unknown_say(p);
    tfr_guest_drop(p, g);
    return false;
}

void tfr_guest_read(struct tfr_parent *p, struct tfr_guest *g)
{
    struct tfr_boot_msg msg;
    if (g->stage == GUEST_GONE)
        return;
    if (g->auth || g->job) {
        tfr_identity_read(p, g);
        return;
    }
    if (!tfr_guest_take(p, g, g->stage == GUEST_IDLE ? TFR_ATTACH_MAX : TFR_HELLO_MAX, &msg))
        return;
    msg_take(p, g, &msg);
    tfr_boot_msg_fini(&msg);
}

/* ---- time ---- */

static void queued_tell(struct tfr_parent *p, struct tfr_guest *g, uint32_t position, uint64_t now)
{
    struct tfr_queued queued = {.position = position,
                                .running = (uint32_t)tfr_crew_count(p, WORKER_SERVING)};
    if (g->told_ns && now - g->told_ns < TELL_MS * TFR_NS_PER_MS)
        return;
    g->told_ns = now;
    guest_send(p, g, TFR_BOOT_QUEUED, &queued, sizeof queued);
}

/* When many users of this machine are at the door, what an honest one says has come before it is
 * let in. */
static uint64_t hello_limit_ms(const struct tfr_parent *p, const struct tfr_guest *g)
{
    if (g->job)
        return MUNGE_MS;
    return !g->tcp && p->stranger_n[true] >= TFR_KNOWN_MAX ? HELLO_CROWDED_MS : HELLO_MS;
}

static void guest_tick(struct tfr_parent *p, struct tfr_guest *g, uint64_t now)
{
    uint64_t limit_ms = hello_limit_ms(p, g);
    if (g->stage == GUEST_STRANGER && now - g->since_ns > limit_ms * TFR_NS_PER_MS)
        tfr_guest_drop(p, g);
    else if (g->stage == GUEST_GREETED)
        queued_tell(p, g, 0, now);
}

void tfr_guest_tick(struct tfr_parent *p)
{
    uint64_t now = tfr_clock_now();
    uint32_t position = 0;
    struct tfr_guest *g, *next;
    for (g = TAILQ_FIRST(&p->queue); g; g = next) {
        next = TAILQ_NEXT(g, queue);
        queued_tell(p, g, ++position, now);
    }
    for (g = TAILQ_FIRST(&p->guests); g; g = next) {
        next = TAILQ_NEXT(g, all);
        guest_tick(p, g, now);
        if (g->stage != GUEST_GONE)
            continue;
        TAILQ_REMOVE(&p->guests, g, all);
        p->guest_n--;
        tfr_boot_in_fini(&g->in);
        free(g->attach);
        free(g);
    }
}
