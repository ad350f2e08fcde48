/* Posting and waiting: the hot half of the session (ask.c asks).  Called by every entry; set-up is
 * init.c's. Surprising: a thread that waits looks at three things, in this order: what it waits
 * for, the sticky word, the boot socket (rarely, it costs a system call). */
#define TFR_LOG_PART "intercept"
#include "intercept/client.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "intercept/bulk.h"
#include "intercept/entry.h"
#include "intercept/gate.h"
#include "intercept/gather.h"
#include "intercept/pulse.h"
#include "intercept/stream.h"
#include "transport/boot.h"

enum {
    LOOK_MS = 50,
    LOOK_SLEEP_MS = 100,
    MOVED_MS = 2,
    POLL_NS = 2000,
    HOME_EVERY = 16,
    QUIET_MS = 1000
};

CUresult tfr_client_error(void)
{
    uint32_t error = atomic_load_explicit(&tfr_client.error, memory_order_acquire);
    if (error)
        return (CUresult)error;
    return (CUresult)atomic_load_explicit(&tfr_client.feedback->sticky, memory_order_acquire);
}

CUresult tfr_client_broken(const char *why)
{
    uint32_t none = 0;
    /* pairs with the acquire in tfr_enter */
    if (atomic_compare_exchange_strong_explicit(&tfr_client.error, &none,
                                                CUDA_ERROR_DEVICE_UNAVAILABLE, memory_order_acq_rel,
                                                memory_order_acquire) &&
        why)
        tfr_say("%s: the GPU session is lost, every call fails from here; start the program again",
                why);
    return tfr_client_error();
}

CUresult tfr_client_gone(void)
{
    return tfr_client_broken(tfr_client_away() ? "the executor, or the network to it, is gone"
                                               : "the executor is gone");
}

/* Where nothing arrives by itself; a program that polls gets no slower by more than that. */
static void poll_progress(uint64_t now)
{
    static __thread uint64_t next_ns __attribute__((tls_model("initial-exec")));
    if (tfr_client.mapped)
        return;
    tfr_post_flush();
    if (!tfr_client.polled || now < next_ns)
        return;
    tfr_client_progress();
    next_ns = now + POLL_NS;
}

/* Programs poll events and streams for hours, and a socket that closes rings no bell. */
CUresult tfr_client_look(void)
{
    static __thread uint64_t next_ns __attribute__((tls_model("initial-exec")));
    uint64_t now = tfr_clock_now();
    poll_progress(now);
    tfr_text_take(); /* news may wait behind it */
    if (now >= next_ns) {
        next_ns = now + LOOK_MS * TFR_NS_PER_MS;
        if (tfr_client.boot.fd >= 0 && tfr_boot_gone(&tfr_client.boot))
            tfr_client_gone();
        else
            tfr_pulse_look(TFR_WAIT_STREAM);
    }
    return tfr_client_error();
}

/* ---- sleeping: one thread polls the link's descriptor for all, the others wait for it ---- */

/* What a sleeper waits for: a word, or anything that `over` knows of; or transfers alone. */
struct sleeper {
    const _Atomic uint64_t *word;
    uint64_t want;
    bool (*over)(void);
    const _Atomic uint32_t *left;
    int limit_ms;
    bool aside; /* nobody sleeps behind it */
    bool poked; /* tfr_wait_poke ends it */
};

/* Has anything ended the wait? */
static bool wait_over(const struct sleeper *s)
{
    if (s->word && atomic_load_explicit(s->word, memory_order_acquire) >= s->want)
        return true;
    if (s->left)
        return !atomic_load_explicit(s->left, memory_order_acquire) || tfr_client_error();
    return tfr_client_error() || tfr_text_waiting() || (s->over && s->over());
}

static void leader_set(enum tfr_sleep_leader leader)
{
    pthread_mutex_lock(&tfr_client.sleep_lock);
    tfr_client.sleep_leader = leader;
    if (leader == TFR_SLEEP_NONE)
        pthread_cond_broadcast(&tfr_client.sleep_cond);
    pthread_mutex_unlock(&tfr_client.sleep_lock);
}

static void sleep_armed(const struct sleeper *s)
{
    struct tfr_link *link = tfr_client.link;
    int fd;
    if (link->ops->arm(link, &fd) != TFR_OK) {
        tfr_client_gone();
        return;
    }
    if (!s->aside)
        leader_set(TFR_SLEEP_ARMED);
    tfr_client_progress();
    if (!wait_over(s)) {
        struct pollfd p[4] = {{.fd = fd, .events = POLLIN},
                              {.fd = tfr_client.boot.fd, .events = POLLRDHUP},
                              {.fd = tfr_client.wake, .events = POLLIN},
                              {.fd = s->poked ? tfr_client.poke : -1, .events = POLLIN}};
        eventfd_t n;
        if (poll(p, 4, s->limit_ms) > 0 && p[3].revents)
            eventfd_read(tfr_client.poke, &n);
    }
    link->ops->disarm(link);
    tfr_client_progress();
    if (tfr_boot_gone(&tfr_client.boot) && !wait_over(s))
        tfr_client_gone();
}

/* Does the word (NULL: any) belong to the session of now?  Pages of older ones stay mapped. */
static bool word_alive(const _Atomic uint64_t *word)
{
    /* pairs with the release in tfr_client_quiet */
    if (!atomic_load_explicit(&tfr_client.attached, memory_order_acquire))
        return false;
    return !word || (uintptr_t)word - (uintptr_t)tfr_client.feedback < sizeof(struct tfr_page_area);
}

/* With sleep_lock held: until the leader wakes.  Not before it has armed: it looks at its own word
 * alone, and nobody rings for one that changes meanwhile. */
static void sleep_behind(const struct sleeper *s)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_nsec += s->limit_ms * (long)TFR_NS_PER_MS;
    t.tv_sec += t.tv_nsec / (long)TFR_NS_PER_S;
    t.tv_nsec %= (long)TFR_NS_PER_S;
    if (!wait_over(s))
        pthread_cond_timedwait(&tfr_client.sleep_cond, &tfr_client.sleep_lock, &t);
}

/* A link whose session has failed may be closed at any time. */
static bool link_alive(const _Atomic uint64_t *word)
{
    return word_alive(word) && !atomic_load_explicit(&tfr_client.error, memory_order_acquire);
}

/* Others sleep by themselves meanwhile. */
static void sleep_aside(const struct sleeper *s)
{
    pthread_mutex_lock(&tfr_client.sleep_lock);
    bool alive = link_alive(s->word);
    tfr_client.sleep_asides += alive;
    pthread_mutex_unlock(&tfr_client.sleep_lock);
    if (!alive)
        return;
    sleep_armed(s);
    pthread_mutex_lock(&tfr_client.sleep_lock);
    tfr_client.sleep_asides--;
    pthread_cond_broadcast(&tfr_client.sleep_cond);
    pthread_mutex_unlock(&tfr_client.sleep_lock);
}

static void sleep_once(const struct sleeper *s)
{
    if (s->aside) {
        sleep_aside(s);
        return;
    }
    pthread_mutex_lock(&tfr_client.sleep_lock);
    enum tfr_sleep_leader leader = tfr_client.sleep_leader;
    bool alive = link_alive(s->word);
    if (alive && leader == TFR_SLEEP_ARMED)
        sleep_behind(s);
    if (alive && leader == TFR_SLEEP_NONE)
        tfr_client.sleep_leader = TFR_SLEEP_ARMING;
    pthread_mutex_unlock(&tfr_client.sleep_lock);
    if (alive && leader == TFR_SLEEP_NONE) {
        sleep_armed(s);
        leader_set(TFR_SLEEP_NONE);
    } else if (leader == TFR_SLEEP_ARMING) {
        sched_yield();
    }
}

/* The session has failed or ends, so that nobody goes to sleep on the link any more: waits for
 * those who do.  They take no lock that is held by a thread which waits for transfers. */
static void sleepers_out(void)
{
    eventfd_write(tfr_client.wake, 1);
    pthread_mutex_lock(&tfr_client.sleep_lock);
    while (tfr_client.sleep_leader != TFR_SLEEP_NONE || tfr_client.sleep_asides)
        pthread_cond_wait(&tfr_client.sleep_cond, &tfr_client.sleep_lock);
    pthread_mutex_unlock(&tfr_client.sleep_lock);
}

static void wait_news(const struct sleeper *sleeper)
{
    /* as in tfr_wait_word */
    atomic_fetch_add_explicit(&tfr_client.waiters, 1, memory_order_acq_rel);
    sleep_once(sleeper);
    atomic_fetch_sub_explicit(&tfr_client.waiters, 1, memory_order_release);
}

void tfr_wait_news(bool (*over)(void), int limit_ms)
{
    const struct sleeper sleeper = {.over = over, .limit_ms = limit_ms};
    wait_news(&sleeper);
}

void tfr_wait_aside(bool (*over)(void), int limit_ms)
{
    const struct sleeper sleeper = {.over = over, .limit_ms = limit_ms, .aside = true};
    wait_news(&sleeper);
}

void tfr_wait_tick(bool (*over)(void), int limit_ms, bool aside)
{
    const struct sleeper sleeper = {
        .over = over, .limit_ms = limit_ms, .aside = aside, .poked = true};
    wait_news(&sleeper);
}

/* With the lock: whoever ends the session takes it before the descriptor is closed. */
void tfr_wait_poke(void)
{
    pthread_mutex_lock(&tfr_client.sleep_lock);
    if (link_alive(NULL)) {
        eventfd_write(tfr_client.poke, 1);
        pthread_cond_broadcast(&tfr_client.sleep_cond);
    }
    pthread_mutex_unlock(&tfr_client.sleep_lock);
}

void tfr_wait_moved(const _Atomic uint32_t *left)
{
    const struct sleeper sleeper = {.left = left, .limit_ms = MOVED_MS, .aside = true};
    wait_news(&sleeper);
}

static bool move_due(void)
{
    return tfr_gate_due(TFR_GATE_MOVE);
}

/* Two who spin for each other should not share a core: the pump steps aside. */
static void cpu_tell(void)
{
    _Atomic uint64_t *word = &tfr_client.page->cpu;
    uint64_t cpu = (uint64_t)sched_getcpu() + 1;
    if (tfr_client.mapped) {
        atomic_store_explicit(word, cpu, memory_order_relaxed);
    } else if (tfr_client.near && atomic_load_explicit(word, memory_order_relaxed) != cpu) {
        atomic_store_explicit(word, cpu, memory_order_relaxed);
        tfr_page_store(word, cpu);
    }
}

/* Nothing was given that number: who waits for it posted in a session that another thread has ended
 * since, and looks at the next one's page. */
static bool is_stale(uint64_t want, enum tfr_wait_reason why)
{
    return why == TFR_WAIT_STREAM && want > tfr_post_last();
}

static CUresult wait_long(const _Atomic uint64_t *word, uint64_t want, enum tfr_wait_reason why)
{
    struct tfr_relax relax = TFR_RELAX_INIT(why);
    const struct sleeper sleeper = {
        .word = word, .want = want, .over = move_due, .limit_ms = LOOK_SLEEP_MS};
    uint32_t turns = 0;
    if (atomic_load_explicit(&tfr_client.movers, memory_order_relaxed) || tfr_copy_owed())
        relax.patience = TFR_MOVE_PATIENCE;
    cpu_tell();
    while (atomic_load_explicit(word, memory_order_acquire) < want) {
        enum tfr_relax_step step = tfr_relax(&relax);
        tfr_gate_help(); /* the stream may wait for our bytes */
        if (tfr_client.polled || step != TFR_RELAX_SPUN)
            tfr_client_progress();
        if (__builtin_expect(!tfr_client.mapped, 0) &&
            (++turns % HOME_EVERY == 0 || step == TFR_RELAX_SLEEP))
            tfr_copy_deliver(); /* pieces come home while others are on their way to the lane */
        if (step == TFR_RELAX_SPUN)
            continue;
        tfr_text_take(); /* news may wait behind it */
        CUresult error = tfr_client_error();
        if (error == CUDA_SUCCESS &&
            (!word_alive(word) || (step == TFR_RELAX_SLEEP && is_stale(want, why))))
            error = CUDA_ERROR_CONTEXT_IS_DESTROYED;
        if (error != CUDA_SUCCESS && atomic_load_explicit(word, memory_order_acquire) < want)
            return error;
        if (step != TFR_RELAX_SLEEP)
            continue;
        sleep_once(&sleeper);
        tfr_pulse_look(why);
    }
    return CUDA_SUCCESS;
}

CUresult tfr_wait_word(const _Atomic uint64_t *word, uint64_t want, enum tfr_wait_reason why)
{
    CUresult result = CUDA_SUCCESS;
    if (atomic_load_explicit(word, memory_order_acquire) < want) {
        tfr_post_flush();
        atomic_fetch_add_explicit(&tfr_client.waiters, 1, memory_order_acq_rel);
        result = wait_long(word, want, why);
        /* pairs with the acquire in tfr_client_quiet */
        atomic_fetch_sub_explicit(&tfr_client.waiters, 1, memory_order_release);
        tfr_exit_hold();
        if (__builtin_expect(!tfr_client.mapped, 0) && result == CUDA_SUCCESS)
            tfr_gather_seen(want);
    }
    tfr_text_take();
    return result;
}

/* ---- the ring ---- */

void tfr_spin_lock_slow(_Atomic uint32_t *lock)
{
    do {
        struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_LOCK);
        while (atomic_load_explicit(lock, memory_order_relaxed))
            if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
                tfr_relax_nap(&relax);
        /* pairs with the release in tfr_spin_unlock */
    } while (atomic_exchange_explicit(lock, 1, memory_order_acquire));
}

static void ring_lock(void)
{
    tfr_spin_lock(&tfr_client.ring_lock);
}

static void ring_unlock(void)
{
    tfr_spin_unlock(&tfr_client.ring_lock);
}

/* ---- where nothing is mapped ---- */

/* With the ring lock held. */
static CUresult flush(void)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    CUresult result = CUDA_SUCCESS;
    TFR_COUNT(flushes, 1);
    tfr_gather_gone();
    while (result == CUDA_SUCCESS) {
        tfr_status status = tfr_ring_flush(&tfr_client.tx);
        if (status == TFR_OK)
            return CUDA_SUCCESS;
        result = status == TFR_AGAIN ? tfr_bulk_room_wait(&relax) : tfr_client_gone();
    }
    return result;
}

void tfr_post_flush(void)
{
    /* pairs with the release in tfr_spin_unlock */
    if (__builtin_expect(!tfr_gather_any(), 1) ||
        atomic_exchange_explicit(&tfr_client.ring_lock, 1, memory_order_acquire))
        return;
    if (tfr_client.open && tfr_gather_any())
        flush();
    ring_unlock();
}

void tfr_page_store(_Atomic uint64_t *word, uint64_t value)
{
    if (tfr_client.mapped) {
        atomic_store_explicit(word, value, memory_order_release);
        return;
    }
    struct tfr_xfer xfer = {.flags = TFR_XFER_AFTER,
                            .local = &value,
                            .peer = tfr_client.session,
                            .peer_at = tfr_client.page_at +
                                       (uint64_t)((uint8_t *)word - (uint8_t *)tfr_client.page),
                            .len = sizeof value};
    ring_lock();
    if (tfr_client.open)
        tfr_bulk_send(&xfer);
    ring_unlock();
}

void tfr_post_hold(void)
{
    ring_lock();
}

void tfr_post_release(void)
{
    ring_unlock();
}

uint64_t tfr_post_last(void)
{
    ring_lock();
    uint64_t seq = tfr_client.tx.seq;
    ring_unlock();
    return seq;
}

void tfr_client_quiet(void)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_LOCK);
    uint64_t until = tfr_clock_now() + QUIET_MS * TFR_NS_PER_MS;
    /* pairs with the acquire in word_alive */
    atomic_store_explicit(&tfr_client.attached, false, memory_order_release);
    eventfd_write(tfr_client.wake, 1);
    while (atomic_load_explicit(&tfr_client.waiters, memory_order_acquire) &&
           tfr_clock_now() < until) {
        pthread_cond_broadcast(&tfr_client.sleep_cond);
        tfr_relax_nap(&relax);
    }
    sleepers_out(); /* one that began to wait while we looked */
}

static pthread_mutex_t cut_lock = PTHREAD_MUTEX_INITIALIZER;

static void link_count(void)
{
    struct tfr_link_count count;
    tfr_client.link->ops->count(tfr_client.link, &count);
    TFR_COUNT(link_requests, count.requests);
    TFR_COUNT(link_doorbells, count.doorbells);
    TFR_COUNT(link_inlined, count.inlined);
    TFR_COUNT(link_extras, count.extras);
}

void tfr_client_cut(void)
{
    pthread_mutex_lock(&cut_lock); /* also if there is no link: another thread may be closing it */
    /* With the lock: no error means that the session which failed has ended and another is here. */
    if (atomic_load_explicit(&tfr_client.error, memory_order_acquire) &&
        atomic_exchange_explicit(&tfr_client.linked, false, memory_order_acq_rel)) {
        sleepers_out();
        ring_lock();
        tfr_client.open = false;
        tfr_gather_gone(); /* else its helper would look for ever */
        ring_unlock();
        tfr_bulk_close();
        link_count();
        tfr_client.link->ops->close(tfr_client.link);
    }
    pthread_mutex_unlock(&cut_lock);
}

void tfr_client_count(void)
{
    if (pthread_mutex_trylock(&cut_lock) != 0)
        return;
    if (atomic_load_explicit(&tfr_client.linked, memory_order_acquire))
        link_count();
    pthread_mutex_unlock(&cut_lock);
}

/* With the ring lock held: the session's error while the ring takes no records. */
static CUresult ring_error(void)
{
    if (!tfr_client.open)
        return tfr_client_ended();
    if (tfr_ring_flush(&tfr_client.tx) < 0 || tfr_boot_gone(&tfr_client.boot))
        tfr_client_gone();
    return (CUresult)atomic_load_explicit(&tfr_client.error, memory_order_acquire);
}

/* The ring is full: waits for credit.  The lock is free meanwhile, for those who carry bytes and
 * open gates: what empties the ring may be waiting for them.  With the lock on success alone. */
static void *reserve_slow(uint16_t op, uint32_t len, uint16_t ctx)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_RING_SPACE);
    void *rec = NULL;
    CUresult error = CUDA_SUCCESS;
    if (len > tfr_ring_rec_max(&tfr_client.tx))
        error = CUDA_ERROR_INVALID_VALUE;
    TFR_COUNT(ring_stalls, 1);
    while (!error && !rec) {
        ring_unlock();
        enum tfr_relax_step step = tfr_relax(&relax);
        if (step == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
        tfr_client_progress();
        ring_lock();
        if (step != TFR_RELAX_SPUN) {
            tfr_pulse_look(TFR_WAIT_RING_SPACE);
            error = ring_error();
        }
        if (!error && tfr_client.open)
            rec = tfr_ring_reserve(&tfr_client.tx, len, op, ctx);
    }
    if (!rec) {
        ring_unlock();
        tfr_thread.post_error = error;
    }
    return rec;
}

void *tfr_post_begin(uint16_t op, uint32_t len)
{
    const struct tfr_context *ctx = tfr_thread.ctx;
    if (__builtin_expect(tfr_client.lacks_any, 0)) {
        tfr_thread.post_error = tfr_edition_check(op);
        if (tfr_thread.post_error != CUDA_SUCCESS)
            return NULL;
    }
    ring_lock();
    /* With the lock held: another thread may be destroying the context. */
    bool known = ctx && atomic_load_explicit(&ctx->active, memory_order_relaxed);
    uint16_t ctx_at = known ? ctx->slot : 0;
    if (__builtin_expect(!tfr_client.open, 0)) {
        ring_unlock();
        tfr_thread.post_error = tfr_client_ended();
        return NULL;
    }
    struct tfr_rec *rec = tfr_ring_reserve(&tfr_client.tx, len, op, ctx_at);
    if (__builtin_expect(!rec, 0)) {
        rec = reserve_slow(op, len, ctx_at);
        if (!rec)
            return NULL;
        /* The lock was free meanwhile. */
        if (ctx && !atomic_load_explicit(&ctx->active, memory_order_relaxed))
            rec->ctx = 0;
    }
    tfr_client.rec = rec;
    return rec;
}

CUresult tfr_post_failed(void)
{
    return tfr_thread.post_error;
}

CUresult tfr_post_cancel(CUresult why)
{
    tfr_ring_cancel(&tfr_client.tx, tfr_client.rec);
    ring_unlock();
    return why;
}

CUresult tfr_post_end(void)
{
    return tfr_post_end_on(NULL, NULL);
}

CUresult tfr_post_end_on(struct tfr_stream *stream, uint64_t *seq_out)
{
    uint64_t seq = tfr_client.tx.seq;
    if (stream) {
        if (__builtin_expect(stream->dead, 0))
            return tfr_post_cancel(CUDA_ERROR_INVALID_HANDLE);
        atomic_store_explicit(&stream->last, seq, memory_order_release);
        if (stream->blocking)
            atomic_store_explicit(&stream->ctx->blocking_last, seq, memory_order_release);
    }
    TFR_COUNT(records, 1);
    CUresult result = CUDA_SUCCESS;
    tfr_ring_commit(&tfr_client.tx);
    if (__builtin_expect(!tfr_client.mapped, 0) && !tfr_gather_keep(seq))
        result = flush();
    ring_unlock();
    if (seq_out)
        *seq_out = seq;
    return result;
}
