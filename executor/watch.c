/* The two threads that keep news coming when the pump cannot: the relief (feedback role, heartbeat)
 * and the watch (asks the driver for faults, because a mark never comes from a dead context). */
#define TFR_LOG_PART "executor"
#include <poll.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "executor/out.h"
#include "executor/stat.h"
#include "transport/boot.h"

static void nap_us(long us)
{
    struct timespec t = {.tv_sec = 0, .tv_nsec = us * 1000};
    nanosleep(&t, NULL);
}

/* Takes the feedback role while the pump is away in a driver call.  Makes no driver call itself, so
 * it can be the heartbeat too. */
static void *relief_main(void *arg)
{
    struct tfr_session *s = arg;
    uint32_t seen = 0;
    prctl(PR_SET_NAME, "tfr-relief");
    while (!atomic_load_explicit(&s->ended, memory_order_acquire)) {
        uint64_t now_ms = tfr_clock_now() / TFR_NS_PER_MS;
        tfr_out_word(s, &s->feedback->heartbeat, now_ms, false);
        TFR_STAT_SET(heartbeat_ms, now_ms);
        if (!tfr_news_expected(s)) {
            nap_us(5000);
            continue;
        }
        uint32_t made = atomic_load_explicit(&s->news_pass, memory_order_relaxed);
        if (made == seen)
            tfr_news_bring(s);
        seen = atomic_load_explicit(&s->news_pass, memory_order_relaxed);
        nap_us(200);
    }
    return NULL;
}

/* Is the context of this index alive?  A stream goes with the life it was made in. */
static void context_ask(struct tfr_session *s, int i)
{
    static CUstream stream[TFR_CONTEXTS_MAX];
    static uint64_t life[TFR_CONTEXTS_MAX];
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&s->ctx_lock); /* it is not destroyed meanwhile */
    if (tfr_session_enter(s, (uint16_t)(i + 1)) == CUDA_SUCCESS) {
        if (life[i] != s->ctx_life[i])
            stream[i] = NULL;
        life[i] = s->ctx_life[i];
        result = stream[i] ? s->cu->cuStreamQuery(stream[i])
                           : s->cu->cuStreamCreate(&stream[i], CU_STREAM_NON_BLOCKING);
    }
    pthread_mutex_unlock(&s->ctx_lock);
    if (result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_READY)
        tfr_session_sticky(s, result, NULL);
}

/* Asks the driver whether a context has died: a mark never comes from a dead one.  May block. */
static void *watch_main(void *arg)
{
    struct tfr_session *s = arg;
    prctl(PR_SET_NAME, "tfr-watch");
    while (!atomic_load_explicit(&s->ended, memory_order_acquire)) {
        struct pollfd p = {.fd = s->boot, .events = POLLRDHUP};
        bool expected = tfr_news_expected(s);
        if (poll(&p, 1, expected ? 1 : 20) > 0 && tfr_boot_gone(s->boot)) {
            atomic_store_explicit(&s->ended, 1, memory_order_release);
            break;
        }
        for (int i = 0; expected && i < TFR_CONTEXTS_MAX; i++)
            if (s->ctx[i])
                context_ask(s, i);
    }
    return NULL;
}

tfr_status tfr_news_start(struct tfr_session *s)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, relief_main, s) != 0 ||
        pthread_create(&thread, NULL, watch_main, s) != 0)
        return tfr_fail(TFR_E_SYS, "no thread for the session: %m");
    return TFR_OK;
}
