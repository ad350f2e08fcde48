/* Text of kernels before the news of their end, and how long it is waited for: text_sync.c over a
 * driver of our own. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <unistd.h>

#include "base/clock.h"
#include "executor/session.h"

enum { LIMIT_S = 30 };

static struct tfr_session session;
static _Atomic int synced, stuck, go_on;

/* ---- what text_sync.c needs of the executor ---- */

CUresult tfr_session_enter(struct tfr_session *s, uint16_t ctx)
{
    (void)s;
    return ctx ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

bool tfr_result_is_fatal(CUresult result)
{
    return result != CUDA_SUCCESS;
}

bool tfr_text_bring(struct tfr_session *s)
{
    (void)s;
    return true;
}

/* ---- the driver ---- */

static CUresult event_create(CUevent *event_out, unsigned flags)
{
    (void)flags;
    *event_out = (CUevent)&session;
    return CUDA_SUCCESS;
}

static CUresult event_record(CUevent event, CUstream stream)
{
    (void)event, (void)stream;
    return CUDA_SUCCESS;
}

static CUresult event_sync(CUevent event)
{
    (void)event;
    while (atomic_load(&stuck) && !atomic_load(&go_on))
        usleep(1000);
    atomic_fetch_add(&synced, 1);
    return CUDA_SUCCESS;
}

static const uint32_t word = 1;
static struct tfr_stream stream = {.word = 1};

static void begin(void)
{
    static const struct tfr_cu cu = {.cuEventCreate = event_create,
                                     .cuEventRecord = event_record,
                                     .cuEventSynchronize = event_sync};
    session.cu = &cu;
    session.ctx_life[0] = 1;
    pthread_mutex_init(&session.ctx_lock, NULL);
    tfr_text_expect(&session);
    cr_assert(atomic_load(&session.text_expected));
}

static bool held(uint64_t value)
{
    return tfr_text_hold(1, &word, &value);
}

static void passes(uint64_t value)
{
    uint64_t until = tfr_clock_now() + LIMIT_S * TFR_NS_PER_S;
    while (held(value)) {
        cr_assert_lt(tfr_clock_now(), until, "news is not held for good");
        usleep(1000);
    }
}

TestSuite(text, .init = begin, .timeout = 2 * LIMIT_S);

Test(text, news_waits_for_it)
{
    cr_assert_eq(tfr_text_mark(&session, &stream, 5), CUDA_SUCCESS);
    cr_assert(held(5), "it is asked for first");
    passes(5);
    cr_assert_eq(atomic_load(&synced), 1);
}

Test(text, a_driver_that_is_stuck_is_not_waited_for)
{
    uint64_t until, seq = 6;

    atomic_store(&stuck, 1);
    tfr_text_mark(&session, &stream, seq);
    cr_assert(held(seq));
    passes(seq);
    cr_assert_eq(atomic_load(&synced), 0, "it was given up");
    cr_assert_not(held(++seq), "and so is what comes meanwhile");
    atomic_store(&go_on, 1);
    until = tfr_clock_now() + LIMIT_S * TFR_NS_PER_S;
    while (atomic_load(&synced) < 2) {
        cr_assert_lt(tfr_clock_now(), until, "later text is waited for again");
        tfr_text_mark(&session, &stream, ++seq);
        passes(seq);
    }
}
