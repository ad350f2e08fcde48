/* When records leave.  Alone they leave at once; once sixteen are under way, more of them leave
 * together, with one doorbell or system call.  Who waits, or polls, sends them first; else the
 * helper thread does within some 20 us.  It is woken once for a burst and looks by naps while the
 * burst lasts. */
#define TFR_LOG_PART "intercept"
#include "intercept/gather.h"

#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/clock.h"
#include "base/env.h"
#include "intercept/client.h"

enum {
    AHEAD = 16,      /* under way before anything gathers */
    GATHER_MAX = 32, /* records */
    NAP_NS = 10000,  /* and some us until a thread that is woken runs */
    IDLE_NAPS = 96,  /* without a record until the helper sleeps for good */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards started and the sleep */
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static bool started, able; /* guarded by the ring lock: the helper is there, records may gather */
static uint32_t kept;      /* guarded by the ring lock */
static _Atomic bool any;
static _Atomic uint32_t asleep;
static _Atomic uint64_t seen;

void tfr_gather_init(void)
{
    kept = 0;
    able = tfr_perf_on("gather");
    atomic_store_explicit(&any, false, memory_order_relaxed);
    atomic_store_explicit(&seen, 0, memory_order_relaxed);
}

bool tfr_gather_any(void)
{
    return atomic_load_explicit(&any, memory_order_relaxed);
}

void tfr_gather_gone(void)
{
    kept = 0;
    atomic_store_explicit(&any, false, memory_order_relaxed);
}

void tfr_gather_urge(void)
{
    kept = GATHER_MAX;
}

void tfr_gather_seen(uint64_t seq)
{
    if (atomic_load_explicit(&seen, memory_order_relaxed) < seq)
        atomic_store_explicit(&seen, seq, memory_order_relaxed);
}

static void sleep_idle(void)
{
    pthread_mutex_lock(&lock);
    atomic_store_explicit(&asleep, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in wake */
    while (!tfr_gather_any())
        pthread_cond_wait(&cond, &lock);
    atomic_store_explicit(&asleep, 0, memory_order_relaxed);
    pthread_mutex_unlock(&lock);
}

static void *gather_main(void *arg)
{
    struct timespec nap = {.tv_nsec = NAP_NS};
    uint32_t idle = 0;
    prctl(PR_SET_NAME, "tfr-gather");
    prctl(PR_SET_TIMERSLACK, 1000);
    for (;;) {
        nanosleep(&nap, NULL);
        if (tfr_gather_any()) {
            tfr_post_flush();
            idle = 0;
        } else if (++idle > IDLE_NAPS) {
            sleep_idle();
            idle = 0;
        }
    }
    return arg;
}

static bool start(void)
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all); /* signals are the application's threads' */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started = pthread_create(&thread, NULL, gather_main, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        pthread_detach(thread);
    return started;
}

static void wake(void)
{
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in sleep_idle */
    if (!atomic_load_explicit(&asleep, memory_order_relaxed))
        return;
    pthread_mutex_lock(&lock);
    pthread_cond_signal(&cond);
    pthread_mutex_unlock(&lock);
}

/* Known to be under way: by the transport, or where that does not know, by what came back. */
static bool many(uint64_t seq)
{
    const struct tfr_link *link = tfr_client.link;
    if (link->ops->busy(link) >= AHEAD)
        return true;
    return tfr_client.polled && seq - atomic_load_explicit(&seen, memory_order_relaxed) > AHEAD;
}

bool tfr_gather_keep(uint64_t seq)
{
    if (!able || kept + 1 >= GATHER_MAX || !many(seq))
        return false;
    if (!started && !start()) {
        able = false;
        return false;
    }
    kept++;
    if (kept == 1) {
        atomic_store_explicit(&any, true, memory_order_relaxed);
        wake();
    }
    return true;
}
