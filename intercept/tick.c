/* The client's helper threads, there from the first gate or owed copy on.  One thread (tick) sees
 * to what is due while nobody waits for the session: gates that need bytes, copies owed to
 * registered memory, text.  Host functions run on threads of their own (call): one, and one more
 * whenever all have been busy for a millisecond, since a host function may wait for another one.
 *
 * Surprising: what can wait is looked at by naps, because a thread that sleeps armed costs the
 * executor a system call for each piece of news, and whoever waits for a stream does the work
 * anyway.  Nothing pending: both kinds sleep for good. */
#define TFR_LOG_PART "intercept"
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "intercept/copy.h"
#include "intercept/gate.h"

enum {
    CALLS_MAX = 8,
    LONG_MS = 100,
    NAP_FIRST_MS = 1,
    NAP_LAST_MS = 16,
    ATTEND_NAP_US = 500, /* news that nobody waits for is taken in so often at most */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below but the atomics */
static pthread_cond_t tick_cond; /* by the monotonic clock, since tick naps on it */
static pthread_cond_t call_cond = PTHREAD_COND_INITIALIZER;
static _Atomic bool started;
static _Atomic uint32_t rest; /* of tick */
enum { AWAKE, NAPS, ASLEEP /* it has nothing to look at */ };
static int calls_n, calls_idle;

/* ---- threads ---- */

static bool spawn(void *(*run)(void *))
{
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all); /* signals are the application's threads' */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool made = pthread_create(&thread, NULL, run, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (made)
        pthread_detach(thread);
    return made;
}

/* ---- host functions ---- */

static void *call_main(void *arg)
{
    prctl(PR_SET_NAME, "tfr-call");
    for (;;) {
        pthread_mutex_lock(&lock);
        calls_idle++;
        while (!tfr_gate_due(TFR_GATE_CALL))
            pthread_cond_wait(&call_cond, &lock);
        calls_idle--;
        pthread_mutex_unlock(&lock);
        while (tfr_gate_serve(TFR_GATE_CALL, 1))
            tfr_gate_help(); /* bytes that the stream needs next: nothing else tells of that */
    }
    return arg;
}

/* Hands host functions that are due to threads.  True: some are left, and a thread may have to be
 * added when they still are a millisecond later. */
static bool calls_see(uint64_t *stalled_ns)
{
    if (!tfr_gate_due(TFR_GATE_CALL)) {
        *stalled_ns = 0;
        return false;
    }
    uint64_t now = tfr_clock_now();
    if (!*stalled_ns)
        *stalled_ns = now;
    pthread_mutex_lock(&lock);
    if (calls_idle) {
        pthread_cond_signal(&call_cond);
    } else if (!calls_n || (calls_n < CALLS_MAX && now - *stalled_ns >= TFR_NS_PER_MS)) {
        if (spawn(call_main))
            calls_n++;
        else
            tfr_warn("no further thread for host functions");
        *stalled_ns = now;
    }
    bool more = calls_n < CALLS_MAX || calls_idle;
    pthread_mutex_unlock(&lock);
    return more;
}

/* ---- tick ---- */

static uint32_t gates(enum tfr_gate_who who)
{
    return atomic_load_explicit(&tfr_gate_pending[who], memory_order_seq_cst);
}

/* What is owed by a session that has failed never comes. */
static bool copies(void)
{
    return tfr_copy_owed() && tfr_client_error() == CUDA_SUCCESS;
}

/* Nothing arrives unless somebody progresses the link, and the program may be computing. */
static bool attends(void)
{
    return atomic_load_explicit(&tfr_client.attached, memory_order_acquire) && tfr_client.polled &&
           !atomic_load_explicit(&tfr_client.error, memory_order_acquire);
}

static bool idle(void)
{
    return !gates(TFR_GATE_MOVE) && !gates(TFR_GATE_CALL) && !copies() && !attends();
}

/* Dekker's handshake with tfr_tick_wake: either it sees us at rest or we see its work. */
static void rest_begin(uint32_t how)
{
    pthread_mutex_lock(&lock);
    atomic_store_explicit(&rest, how, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the one in tfr_tick_wake */
}

static void rest_end(void)
{
    atomic_store_explicit(&rest, AWAKE, memory_order_relaxed);
    pthread_mutex_unlock(&lock);
}

static void sleep_idle(void)
{
    rest_begin(ASLEEP);
    while (idle())
        pthread_cond_wait(&tick_cond, &lock);
    rest_end();
}

static void nap_on(int ms, bool for_calls)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += ms * (long)TFR_NS_PER_MS; /* less than a second */
    t.tv_sec += t.tv_nsec / (long)TFR_NS_PER_S;
    t.tv_nsec %= (long)TFR_NS_PER_S;
    rest_begin(NAPS);
    if (!for_calls || !gates(TFR_GATE_CALL))
        pthread_cond_timedwait(&tick_cond, &lock, &t);
    rest_end();
}

static bool move_due(void)
{
    return tfr_gate_due(TFR_GATE_MOVE);
}

static bool any_due(void)
{
    return tfr_gate_due(TFR_GATE_MOVE) || tfr_gate_due(TFR_GATE_CALL);
}

/* Does another thread take in what comes? */
static bool waited_for(void)
{
    return atomic_load_explicit(&tfr_client.waiters, memory_order_relaxed) ||
           atomic_load_explicit(&tfr_client.movers, memory_order_relaxed);
}

/* Does another thread bring home what is owed?  Two would take turns at the link. */
static bool brought(void)
{
    return !tfr_client.mapped && waited_for();
}

/* For news, or for a millisecond more each time.  Threads that wait for the session serve what
 * needs bytes. */
static void sleep_pending(bool stalled, int *nap_ms)
{
    bool arm = gates(TFR_GATE_CALL) || (gates(TFR_GATE_MOVE) && !waited_for());
    if (arm && tfr_client_error() == CUDA_SUCCESS) {
        /* Functions that are due but find all threads busy are those threads' to see to. */
        bool calls_wait = stalled || tfr_gate_due(TFR_GATE_CALL);
        tfr_wait_tick(calls_wait ? move_due : any_due, stalled ? 1 : LONG_MS, false);
        return;
    }
    nap_on(*nap_ms, !arm);
    if (*nap_ms < NAP_LAST_MS && !gates(TFR_GATE_MOVE))
        *nap_ms *= 2;
}

/* While nobody else is at it. */
static void attend(void)
{
    struct timespec nap = {.tv_nsec = ATTEND_NAP_US * (long)TFR_NS_PER_US};
    if (!waited_for())
        tfr_wait_tick(any_due, LONG_MS, true);
    nanosleep(&nap, NULL);
}

static void *tick_main(void *arg)
{
    uint64_t stalled_ns = 0;
    int nap_ms = NAP_FIRST_MS;
    prctl(PR_SET_NAME, "tfr-tick");
    for (;;) {
        if (idle()) {
            sleep_idle();
            nap_ms = NAP_FIRST_MS;
        }
        tfr_text_take();
        tfr_client_progress();
        bool moved = tfr_gate_serve(TFR_GATE_MOVE, UINT32_MAX) != 0;
        if (!brought() && tfr_copy_due()) {
            tfr_copy_deliver();
            moved = true;
        }
        bool stalled = calls_see(&stalled_ns);
        if (moved)
            nap_ms = NAP_FIRST_MS;
        else if (attends() && !gates(TFR_GATE_CALL) && !gates(TFR_GATE_MOVE))
            attend();
        else
            sleep_pending(stalled, &nap_ms);
    }
    return arg;
}

CUresult tfr_tick_start(void)
{
    CUresult result = CUDA_SUCCESS;
    if (__builtin_expect(atomic_load_explicit(&started, memory_order_acquire), 1))
        return CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    if (!atomic_load_explicit(&started, memory_order_relaxed)) {
        pthread_condattr_t monotonic;
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_cond_init(&tick_cond, &monotonic);
        if (spawn(tick_main))
            atomic_store_explicit(&started, true, memory_order_release);
        else
            result = CUDA_ERROR_OPERATING_SYSTEM;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

void tfr_tick_wake(bool soon)
{
    /* pairs with the fence in rest_begin */
    atomic_thread_fence(memory_order_seq_cst);
    uint32_t how = atomic_load_explicit(&rest, memory_order_relaxed);
    if (how == AWAKE || (how == NAPS && !soon))
        return;
    pthread_mutex_lock(&lock);
    pthread_cond_signal(&tick_cond);
    pthread_mutex_unlock(&lock);
}

/* Without a thread for it tick has to see, which may sleep on the link. */
void tfr_tick_call(void)
{
    pthread_mutex_lock(&lock);
    bool found = calls_idle != 0;
    if (found)
        pthread_cond_signal(&call_cond);
    pthread_mutex_unlock(&lock);
    if (!found)
        tfr_wait_poke();
}
