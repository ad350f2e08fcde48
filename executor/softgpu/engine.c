/* The engine: workers that carry streams forward.  stream.c hands it streams that have something to
 * do; a worker keeps one until it is empty or parked.
 *
 * Workers are made on demand: one more whenever a stream is runnable and nobody is free, because a
 * running kernel or host function may wait for another one.  At most one idle worker spins; the
 * others sleep on the bell.  A stream that waits for a value is parked in `polls` and occupies
 * nobody: an idle worker looks at it.  The value may come from another process, which rings no
 * bell, so the looks are at most 50 us apart; they get rarer once nothing was parked for a second.
 */
#include "executor/softgpu/soft.h"

#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/relax.h"

enum {
    WORKER_MAX = 128,
    SPIN_NS = 30000,
    NAP_MIN_NS = 5000,
    NAP_MAX_NS = 50000,
    NAP_LATE_NS = 1000000,
};

static pthread_mutex_t lock =
    PTHREAD_MUTEX_INITIALIZER; /* everything here but the atomics' reads */
static struct soft_stream *run_head, *run_tail;
static struct soft_stream *polls;
static _Atomic uint32_t run_n, poll_n; /* written under lock, read anywhere as a hint */
static _Atomic uint32_t bell;
static int worker_n, spinning, sleeping, polling;
static uint64_t parked_ns; /* when a stream was parked last */

static void *worker(void *arg);

static void spawn(void)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, before;
    if (worker_n >= WORKER_MAX)
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the application's threads' */
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    if (pthread_create(&thread, &attr, worker, NULL) == 0) {
        worker_n++;
        spinning++;
    } else if (worker_n == 0) {
        tfr_warn("softgpu: no thread to run streams");
    }
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Somebody is needed; called under lock. */
static void call_one(void)
{
    if (spinning)
        return;
    if (sleeping) {
        atomic_fetch_add_explicit(&bell, 1, memory_order_release);
        syscall(SYS_futex, &bell, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    } else {
        spawn();
    }
}

static void push(struct soft_stream *stream)
{
    stream->run_next = NULL;
    if (run_tail)
        run_tail->run_next = stream;
    else
        run_head = stream;
    run_tail = stream;
    atomic_fetch_add_explicit(&run_n, 1, memory_order_relaxed);
}

void soft_engine_run(struct soft_stream *stream)
{
    pthread_mutex_lock(&lock);
    push(stream);
    call_one();
    pthread_mutex_unlock(&lock);
}

/* Makes parked streams runnable whose value is there.  Under lock; true if there was one. */
static bool poll_all(void)
{
    bool any = false;
    for (struct soft_stream **at = &polls; *at;) {
        struct soft_stream *stream = *at;
        if (soft_value_there(stream->parked) || soft_ctx_usable(stream->ctx)) {
            *at = stream->run_next;
            atomic_fetch_sub_explicit(&poll_n, 1, memory_order_relaxed);
            stream->parked->value.passed = true;
            push(stream);
            any = true;
        } else {
            at = &stream->run_next;
        }
    }
    return any;
}

void soft_engine_poll(void)
{
    if (atomic_load_explicit(&poll_n, memory_order_relaxed) == 0)
        return;
    pthread_mutex_lock(&lock);
    if (poll_all())
        call_one();
    pthread_mutex_unlock(&lock);
}

bool soft_engine_park(struct soft_stream *stream, struct soft_op *op)
{
    pthread_mutex_lock(&lock);
    bool there = soft_value_there(op);
    if (!there) {
        stream->parked = op;
        stream->run_next = polls;
        polls = stream;
        atomic_fetch_add_explicit(&poll_n, 1, memory_order_relaxed);
        parked_ns = tfr_clock_now();
        if (!polling)
            call_one();
    }
    pthread_mutex_unlock(&lock);
    return !there;
}

/* Under lock. */
static struct soft_stream *take(void)
{
    struct soft_stream *stream = run_head;
    if (stream) {
        run_head = stream->run_next;
        if (!run_head)
            run_tail = NULL;
        atomic_fetch_sub_explicit(&run_n, 1, memory_order_relaxed);
    }
    return stream;
}

/* Spins for a stream to run; false: the time is up. */
static bool spin(void)
{
    uint64_t until = tfr_clock_now() + SPIN_NS;
    do {
        for (int i = 0; i < 64; i++) {
            if (atomic_load_explicit(&run_n, memory_order_relaxed))
                return true;
            tfr_pause();
        }
        soft_engine_poll();
        sched_yield(); /* on a small machine somebody else may need this core to make work for us */
    } while (tfr_clock_now() < until);
    return false;
}

/* Looks get rarer with the time that nothing has changed.  Under lock. */
static long nap_ns(void)
{
    uint64_t idle = tfr_clock_now() - parked_ns;
    long nap = (long)(idle / 16);
    if (idle > TFR_NS_PER_S) /* a core is not to be worn out by a program that has stopped */
        return idle / 10000 > NAP_LATE_NS ? NAP_LATE_NS : (long)(idle / 10000);
    return nap < NAP_MIN_NS ? NAP_MIN_NS : nap > NAP_MAX_NS ? NAP_MAX_NS : nap;
}

/* Sleeps until called; the one that polls wakes up by itself, and is told so.  Under lock, left and
 * taken again. */
static bool sleep_locked(void)
{
    uint32_t seen = atomic_load_explicit(&bell, memory_order_relaxed);
    bool poller = polls && !polling;
    struct timespec nap = {0, poller ? nap_ns() : 0};
    spinning--;
    sleeping++;
    polling += poller;
    pthread_mutex_unlock(&lock);
    syscall(SYS_futex, &bell, FUTEX_WAIT_PRIVATE, seen, poller ? &nap : NULL, NULL, 0);
    pthread_mutex_lock(&lock);
    polling -= poller;
    sleeping--;
    spinning++;
    poll_all();
    return poller;
}

/* The next stream; waits without end.  A worker counts as spinning from when it is made until it
 * has one, and again from when it asks for another. */
static struct soft_stream *next(bool again)
{
    bool napped = false;
    pthread_mutex_lock(&lock);
    spinning += again;
    struct soft_stream *stream = take();
    while (!stream) {
        if (!napped && spinning == 1) {
            pthread_mutex_unlock(&lock);
            spin();
            pthread_mutex_lock(&lock);
            stream = take();
            if (stream)
                break;
        }
        napped = sleep_locked();
        stream = take();
    }
    spinning--;
    if (run_head || (polls && !polling))
        call_one();
    pthread_mutex_unlock(&lock);
    return stream;
}

static void *worker(void *arg)
{
    prctl(PR_SET_TIMERSLACK, 1000);
    pthread_setname_np(pthread_self(), "tf-soft");
    for (bool again = false;; again = true)
        soft_stream_work(next(again));
    return arg;
}
