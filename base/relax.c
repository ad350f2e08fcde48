/* The only wait loop: pause, then yield, then ask for sleep.  Time is read every few spins only, as
 * a clock read costs as much as several pauses.  A process that may use one CPU only does not spin
 * at all: whoever it waits for needs that CPU. */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <time.h>

#include "base/clock.h"
#include "base/counter.h"
#include "base/env.h"
#include "base/log.h"
#include "base/relax.h"

enum {
    CLOCK_EVERY = 32,   /* spins between clock reads */
    CHECK_EVERY = 1024, /* spins between looks at the slow things */
    NAP_MIN_NS = 20000,
    NAP_DOUBLINGS = 6,
    SPIN_SHARE = 16, /* of the budget that is spent without letting others have the core */
};
#define NAP_MAX_NS    TFR_NS_PER_MS
#define SPIN_US_MAX   1000000u
#define WARN_NEVER    UINT64_MAX
#define WARN_AFTER_NS (10 * TFR_NS_PER_S)

static pthread_once_t once = PTHREAD_ONCE_INIT;
static uint64_t budget_ns;
static bool alone; /* one CPU */

static void budget_init(void)
{
    uint64_t us = tfr_env_u64("TFR_SPIN_US");
    cpu_set_t cpus;

    /* fails where the kernel knows more CPUs than the set holds: then we are not alone */
    alone = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) == 1;
    budget_ns = (us < SPIN_US_MAX ? us : SPIN_US_MAX) * TFR_NS_PER_US;
}

static uint64_t warn_after(enum tfr_wait_reason reason)
{
    switch (reason) {
    case TFR_WAIT_STREAM:
    case TFR_WAIT_RECORD:
        return WARN_NEVER;
    case TFR_WAIT_REPLY:
    case TFR_WAIT_RING_SPACE:
    case TFR_WAIT_LANE_SPACE:
    case TFR_WAIT_LOCK:
    case TFR_WAIT_BOOT:
    case TFR_WAIT_TRANSFER:
        break;
    }
    return WARN_AFTER_NS;
}

/* The first clock read of this wait, or a later one that may find it too long. */
static uint64_t time_spent(struct tfr_relax *relax)
{
    uint64_t now = tfr_clock_now();

    if (!relax->since_ns) {
        uint64_t after = warn_after(relax->reason);
        relax->since_ns = now;
        relax->warn_at_ns = after == WARN_NEVER ? WARN_NEVER : now + after;
    } else if (now >= relax->warn_at_ns) {
        relax->warn_at_ns = WARN_NEVER;
        tfr_log_line(TFR_LOG_WARN, "base", "waiting for %s for more than %llu s",
                     tfr_wait_reason_str(relax->reason),
                     (unsigned long long)(WARN_AFTER_NS / TFR_NS_PER_S));
    }
    return now - relax->since_ns;
}

/* After the first moments somebody else may have the core: often that is whom we wait for. */
static enum tfr_relax_step yield_step(struct tfr_relax *relax)
{
    sched_yield();
    relax->spins += CLOCK_EVERY;
    return relax->spins % CHECK_EVERY ? TFR_RELAX_SPUN : TFR_RELAX_CHECK;
}

enum tfr_relax_step tfr_relax(struct tfr_relax *relax)
{
    uint32_t spins = relax->spins;
    uint64_t spent;

    if (spins % CLOCK_EVERY != 0) {
        tfr_pause();
        relax->spins = spins + 1;
        return relax->spins % CHECK_EVERY ? TFR_RELAX_SPUN : TFR_RELAX_CHECK;
    }
    pthread_once(&once, budget_init);
    spent = time_spent(relax);
    if (spent >= budget_ns * (1 + relax->patience) || (alone && spins >= 2 * CLOCK_EVERY))
        return TFR_RELAX_SLEEP;
    if (alone || spent >= budget_ns / SPIN_SHARE)
        return yield_step(relax);
    tfr_pause();
    relax->spins = spins + 1;
    return relax->spins % CHECK_EVERY ? TFR_RELAX_SPUN : TFR_RELAX_CHECK;
}

void tfr_relax_nap(struct tfr_relax *relax)
{
    uint32_t doublings = relax->naps < NAP_DOUBLINGS ? relax->naps : NAP_DOUBLINGS;
    uint64_t ns = (uint64_t)NAP_MIN_NS << doublings;
    struct timespec nap = {.tv_nsec = (long)(ns < NAP_MAX_NS ? ns : NAP_MAX_NS)};

    relax->naps++;
    TFR_COUNT(sleeps, 1);
    nanosleep(&nap, NULL);
}

void tfr_relax_again(struct tfr_relax *relax)
{
    *relax = (struct tfr_relax){.reason = relax->reason, .patience = relax->patience};
}

const char *tfr_wait_reason_str(enum tfr_wait_reason reason)
{
    switch (reason) {
    case TFR_WAIT_REPLY:
        return "an answer";
    case TFR_WAIT_STREAM:
        return "a stream";
    case TFR_WAIT_RING_SPACE:
        return "ring space";
    case TFR_WAIT_LANE_SPACE:
        return "lane space";
    case TFR_WAIT_LOCK:
        return "a lock";
    case TFR_WAIT_BOOT:
        return "a message of the peer";
    case TFR_WAIT_RECORD:
        return "a record";
    case TFR_WAIT_TRANSFER:
        return "a transfer";
    }
    return "something";
}
