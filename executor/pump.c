/* The pump: ring -> dispatch -> driver, and while the ring is empty the feedback role, all on one
 * thread, because each hop between spinning threads costs as much as a call. It never waits for the
 * GPU; calls that may block go to helpers. */
#define TFR_LOG_PART "executor"
#include "executor/pump.h"

#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "base/relax.h"
#include "executor/out.h"
#include "executor/place.h"
#include "executor/spin.h"
#include "executor/stat.h"
#include "tfr_ops.h"
#include "transport/boot.h"

enum {
    ASIDE_EVERY = 64,    /* records between looks at the core that the client waits on */
    NEWS_EVERY = 16,     /* records between looks at the mirror while records keep coming */
    BULK_MIN = 64 << 10, /* bytes of a copy that is worth a look by itself */
    GRAVE_MAX = 1024,    /* structs to be freed; else that is done when there is nothing else */
    /* Between looks at the mirror once the spin budget is spent, as no GPU rings a bell: short at
     * first, then a share of what the wait has lasted. */
    MARK_NAP_NS = 20000,
    MARK_NAP_MAX_NS = 500000,
    PARK_NAP_MAX_NS = 100000,
    MARK_NAP_SHARE = 32,
    IDLE_NAP_NS = 100000000,
    BULK_MOVED = 4 << 10,
    BULK_PATIENCE = 5, /* between pieces a sleep costs more than a piece */
    PATIENCE =
        3, /* who was woken spins four times as long: the client may have gone to sleep meanwhile,
              and two sides whose wake-up takes longer than either spins never meet awake */
};

/* What takes its time, or has others wait for news of it? */
static bool is_bulk(const struct tfr_rec *rec)
{
    return rec->op == TFR_OP_copy && rec->size >= sizeof(struct tfr_copy_req) &&
           ((const struct tfr_copy_req *)rec)->len >= BULK_MIN;
}

static void record_run(struct tfr_session *s, const struct tfr_rec *rec)
{
    const struct tfr_op_info *info = rec->op < TFR_OP_LIMIT ? &tfr_op_table[rec->op] : NULL;
    if (!info || !info->run) {
        tfr_session_bad(s, rec, "unknown op");
        return;
    }
    TFR_STAT_ADD(records, 1);
    TFR_STAT_ADD(asked, info->wants_reply);
    TFR_STAT_SET(op, rec->op);
    s->park.seq = rec->seq;
    s->park.event = NULL;
    if (!info->helper)
        tfr_session_run(s, info, rec);
    else if (!s->park.n || !tfr_park_barrier(s, info, rec))
        tfr_helper_run(s, info, rec);
    TFR_STAT_SET(op, 0);
}

/* On the client's own machine the scheduler may put both on one core, where each waits for the
 * other's time slice though another core is idle.  Moves to any other core; the set of cores stays
 * what it was. */
static void step_aside(const struct tfr_session *s)
{
    cpu_set_t all, others;
    uint32_t cpu = (uint32_t)atomic_load_explicit(&s->client_page->cpu, memory_order_relaxed) - 1;
    if (cpu != (uint32_t)sched_getcpu() || sched_getaffinity(0, sizeof all, &all) != 0)
        return;
    others = all;
    CPU_CLR(cpu, &others);
    if (CPU_COUNT(&others) && sched_setaffinity(0, sizeof others, &others) == 0)
        sched_setaffinity(0, sizeof all, &all);
}

static void nap(long ns)
{
    struct timespec t = {.tv_sec = 0, .tv_nsec = ns};
    nanosleep(&t, NULL);
}

/* How long to sleep, `since_ns` having been the start of the wait. */
static long nap_length(const struct tfr_session *s, bool marks, uint64_t since_ns)
{
    if (!marks)
        return IDLE_NAP_NS;
    uint64_t ns = (tfr_clock_now() - since_ns) / MARK_NAP_SHARE;
    uint64_t max = s->park.n ? PARK_NAP_MAX_NS : MARK_NAP_MAX_NS;
    ns = ns < max ? ns : max;
    return (long)(ns > MARK_NAP_NS ? ns : MARK_NAP_NS);
}

/* Sleeps until the client rings, its socket closes, or it is time to look at the mirror again. */
static void pump_sleep(struct tfr_session *s, uint64_t since_ns)
{
    int fd;
    if (tfr_park_full(s)) {
        nap(MARK_NAP_NS); /* a bell would not help */
        return;
    }
    if (s->link->ops->arm(s->link, &fd) != TFR_OK) {
        atomic_store_explicit(&s->ended, 1, memory_order_release);
        return;
    }
    bool marks = tfr_news_expected(s);
    atomic_store_explicit(&s->pump_sleeps, 1, memory_order_relaxed);
    if (!s->mapped)
        tfr_out_progress(s);
    if (!tfr_ring_ready(&s->rx)) {
        struct pollfd p[2] = {{.fd = fd, .events = POLLIN},
                              {.fd = s->boot.fd, .events = POLLRDHUP}};
        struct timespec t = {.tv_nsec = nap_length(s, marks, since_ns)};
        TFR_STAT_ADD(sleeps, 1);
        TFR_STAT_SET(waiting, 1 + (marks ? TFR_WAIT_STREAM : TFR_WAIT_RECORD));
        ppoll(p, 2, &t, NULL);
        TFR_STAT_SET(waiting, 0);
    }
    atomic_store_explicit(&s->pump_sleeps, 0, memory_order_relaxed);
    s->link->ops->disarm(s->link);
    if (!marks && tfr_boot_gone(&s->boot))
        atomic_store_explicit(&s->ended, 1, memory_order_release);
}

/* The next record, unless so much is kept that the ring must wait. */
static tfr_status record_take(struct tfr_session *s, struct tfr_rec **rec_out)
{
    if (__builtin_expect(s->park.n && tfr_park_full(s), 0)) {
        TFR_STAT_ADD(stalls, 1);
        return TFR_AGAIN;
    }
    return tfr_ring_take(&s->rx, s->record, rec_out);
}

/* Takes in what has arrived, and sends on.  How many bytes moved, as far as the link knows. */
static uint64_t link_drive(struct tfr_session *s)
{
    static uint64_t moves; /* of the pump, and a process has one session */
    struct tfr_link_count count;
    tfr_out_progress(s);
    if (s->mapped || s->link->ops->caps & TFR_CAP_ONESIDED)
        return 0;
    s->link->ops->count(s->link, &count);
    uint64_t moved = count.bytes + count.taken - moves;
    moves += moved;
    return moved;
}

/* News for the client, and records whose turn has come.  True: something moved. */
static bool look_around(struct tfr_session *s, struct tfr_relax *relax)
{
    uint64_t n = link_drive(s);
    if (n >= BULK_MOVED)
        relax->patience = BULK_PATIENCE;
    bool moved = tfr_news_bring(s) || n;
    if (__builtin_expect(s->park.n != 0, 0))
        moved |= tfr_park_run(s);
    if (__builtin_expect(atomic_load_explicit(&s->grave_n, memory_order_relaxed) > GRAVE_MAX, 0))
        tfr_object_reap(s);
    return moved;
}

void tfr_pump_run(struct tfr_session *s)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_RECORD);
    uint32_t since_news = 0, since_aside = 0;
    uint64_t since_ns = 0; /* when it first slept with nothing to do */
    bool spins = false, aside = tfr_perf_on("aside");
    prctl(PR_SET_TIMERSLACK, 1000);
    tfr_place_pump(s->mapped);
    while (!atomic_load_explicit(&s->ended, memory_order_acquire)) {
        struct tfr_rec *rec;
        tfr_status status = record_take(s, &rec);
        if (status == TFR_OK) {
            record_run(s, rec);
            since_ns = 0;
            tfr_relax_again(&relax);
            if (tfr_ring_due(&s->rx))
                tfr_news_credit(s);
            if (aside && ++since_aside >= ASIDE_EVERY) {
                since_aside = 0;
                step_aside(s);
            }
            if (++since_news < NEWS_EVERY && !is_bulk(rec))
                continue;
        } else if (status != TFR_AGAIN) {
            return; /* said by the ring */
        }
        since_news = 0;
        if (look_around(s, &relax)) {
            since_ns = 0;
            tfr_relax_again(&relax);
            continue;
        }
        if (status == TFR_OK)
            continue;
        if (s->mapped && s->rx.returned != s->rx.head)
            tfr_news_credit(s);
        spins = spins || tfr_spin_begin();
        if (!spins || tfr_relax(&relax) == TFR_RELAX_SLEEP) {
            tfr_spin_end();
            spins = false;
            tfr_object_reap(s);
            since_ns = since_ns ? since_ns : tfr_clock_now();
            pump_sleep(s, since_ns);
            relax.patience = tfr_ring_ready(&s->rx) ? PATIENCE : 0;
        }
    }
}
