/* What the files of the conformance suite share.  Every test runs once per transport. */
#ifndef TFR_CONFORM_H
#define TFR_CONFORM_H

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/clock.h"
#include "base/counter.h"
#include "base/relax.h"
#include "tests/pair.h"

struct transport_param {
    char name[16];
};

enum { CONFORM_TRANSPORT_MAX = 8 };

/* Those that TFR_TEST_TRANSPORTS names, separated by commas; default: what runs on any machine. */
size_t conform_transports(struct transport_param params[CONFORM_TRANSPORT_MAX]);

#define CONFORM_TEST(category, promise)                                                            \
    ParameterizedTestParameters(category, promise)                                                 \
    {                                                                                              \
        static struct transport_param params[CONFORM_TRANSPORT_MAX];                               \
        size_t n = conform_transports(params);                                                     \
        return cr_make_param_array(struct transport_param, params, n);                             \
    }                                                                                              \
    ParameterizedTest(struct transport_param *param, category, promise, .timeout = 400)

struct conform_wait {
    struct tfr_relax relax;
    uint64_t since_ns;
};

/* One step of a wait that spins for a moment only: in the lab a spinning test starves the device.
 * False after twenty seconds. */
static inline bool conform_drive(struct pair_end *end, struct conform_wait *wait)
{
    if (wait->since_ns == 0)
        wait->since_ns = tfr_clock_now();
    pair_drive(end);
    if (tfr_relax(&wait->relax) == TFR_RELAX_SLEEP)
        tfr_relax_nap(&wait->relax);
    return tfr_clock_now() - wait->since_ns < 20 * TFR_NS_PER_S;
}

/* Waits for a condition, driving `end` (and the other, if it is ours alone). */
#define CONFORM_WAIT(end, condition)                                                               \
    for (struct conform_wait wait_ = {TFR_RELAX_INIT(TFR_WAIT_RECORD), 0}; !(condition);)          \
    cr_assert(conform_drive(end, &wait_), "never: " #condition)

/* Wake-ups that this side has sent. */
static inline uint64_t bells_of(const struct pair_end *end)
{
    struct tfr_link_count count;

    end->ops->count(end->link, &count);
    return count.bells + atomic_load_explicit(&tfr_counters.bells, memory_order_relaxed);
}

static inline uint64_t word_at(const struct pair_end *end, size_t at)
{
    _Atomic uint64_t *word = (void *)((char *)end->area.addr + at);

    return atomic_load_explicit(word, memory_order_acquire); /* pairs with the peer's put */
}

static inline void word_put(struct pair_end *end, uint16_t channel, uint16_t flags, size_t at,
                            uint64_t word)
{
    struct tfr_xfer xfer = {.channel = channel,
                            .flags = flags,
                            .local = &word,
                            .peer = end->peer,
                            .peer_at = at,
                            .len = sizeof(word)};

    pair_put(end, &xfer);
}

/* A thread that drives an end while a call on the other waits for it. */
struct driver {
    struct pair_end *end;
    pthread_t thread;
    _Atomic bool stop;
};
void driver_start(struct driver *driver, struct pair_end *end);
void driver_stop(struct driver *driver);

#endif
