/* The heartbeat, as seen from the waiting side. */
#define TFR_LOG_PART "intercept"
#include "intercept/pulse.h"

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "intercept/client.h"

enum {
    LOOK_MS = 20, /* between looks */
    STEP_MS =
        250, /* the most that the time since the last look counts for: we may have been stopped */
    WARN_MS = 1000,
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below; never waited for */
static uint64_t beat, looked_ns, still_ns;
static bool warned;

static void beats_again(uint64_t now_beat)
{
    if (warned)
        tfr_say("the executor (process %d) goes on after %llu s", tfr_client.executor,
                (unsigned long long)(still_ns / TFR_NS_PER_S));
    warned = false;
    beat = now_beat;
    still_ns = 0;
}

static void stands_still(enum tfr_wait_reason why)
{
    uint64_t limit_ms = tfr_env_u64("TFR_WAIT_LIMIT");
    if (!warned && still_ns >= WARN_MS * TFR_NS_PER_MS) {
        warned = true;
        tfr_say("no sign of life from the executor (process %d) for %d s, while waiting for %s: is "
                "it stopped%s?",
                tfr_client.executor, WARN_MS / 1000, tfr_wait_reason_str(why),
                tfr_client_away() ? ", or the network between down" : "");
    }
    if (limit_ms && still_ns >= limit_ms * TFR_NS_PER_MS)
        tfr_client_broken(tfr_client_away()
                              ? "the executor, or the network between, gave no sign of life for "
                                "TFR_WAIT_LIMIT"
                              : "the executor gave no sign of life for TFR_WAIT_LIMIT");
}

void tfr_pulse_look(enum tfr_wait_reason why)
{
    uint64_t now = tfr_clock_now(), past;
    if (pthread_mutex_trylock(&lock) != 0)
        return;
    past = now - looked_ns;
    if (past >= LOOK_MS * TFR_NS_PER_MS &&
        atomic_load_explicit(&tfr_client.attached, memory_order_acquire)) {
        uint64_t seen = atomic_load_explicit(&tfr_client.feedback->heartbeat, memory_order_relaxed);
        looked_ns = now;
        if (seen != beat) {
            beats_again(seen);
        } else {
            still_ns += past < STEP_MS * TFR_NS_PER_MS ? past : STEP_MS * TFR_NS_PER_MS;
            stands_still(why);
        }
    }
    pthread_mutex_unlock(&lock);
}
