/* Sleeping: no wake-up is lost, none is sent in vain. */
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include "base/counter.h"
#include "tests/conform/conform.h"

enum { AREA = 64 << 10, WORD_AT = 128, BELL_MS = 15000 };

/* Progress is one thread's at a time; who finds another at it need not wait for that one. */
static void drive(struct pair_end *end)
{
    static pthread_mutex_t locks[2] = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER};
    static _Atomic(struct pair_end *) first;
    struct pair_end *none = NULL;
    pthread_mutex_t *lock;

    atomic_compare_exchange_strong(&first, &none, end);
    lock = &locks[atomic_load(&first) != end];
    if (pthread_mutex_trylock(lock) != 0)
        return;
    end->ops->progress(end->link);
    pthread_mutex_unlock(lock);
}

/* Sleeps until the word is at least `value`; false if a bell was lost. */
static bool word_sleep(struct pair_end *end, size_t at, uint64_t value)
{
    while (drive(end), word_at(end, at) < value) {
        struct pollfd poller = {.events = POLLIN};
        int n = 1;
        if (end->ops->arm(end->link, &poller.fd) != TFR_OK)
            return false;
        if (word_at(end, at) < value)
            n = poll(&poller, 1, BELL_MS);
        end->ops->disarm(end->link);
        if (n == 0)
            return false;
    }
    return true;
}

struct echo {
    struct pair_end *end;
    uint64_t rounds;
    bool lost;
};

static void *echo_main(void *arg)
{
    struct echo *echo = arg;

    for (uint64_t i = 1; i <= echo->rounds && !echo->lost; i++) {
        echo->lost = !word_sleep(echo->end, WORD_AT, i);
        word_put(echo->end, 0, TFR_XFER_AFTER | TFR_XFER_BELL, WORD_AT, i);
    }
    return NULL;
}

CONFORM_TEST(sleep, never_loses_a_bell)
{
    struct pair_end ends[2];
    struct echo echo = {&ends[1], 1500, false};
    uint32_t seed = 1;
    pthread_t thread;

    pair_open_both(ends, param->name, AREA);
    pair_part(ends);
    cr_assert_eq(pthread_create(&thread, NULL, echo_main, &echo), 0);
    for (uint64_t i = 1; i <= echo.rounds; i++) {
        seed = seed * 1664525u + 1013904223u;
        for (uint32_t spin = seed >> 20; spin;
             spin--) /* 0..4095: around the moment of falling asleep */
            tfr_pause();
        word_put(&ends[0], 0, TFR_XFER_AFTER | TFR_XFER_BELL, WORD_AT, i);
        cr_assert(word_sleep(&ends[0], WORD_AT, i), "round %llu", (unsigned long long)i);
    }
    pthread_join(thread, NULL);
    cr_assert_not(echo.lost);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

static void *sleeper_main(void *arg)
{
    return (void *)(intptr_t)word_sleep(arg, WORD_AT, 1);
}

CONFORM_TEST(sleep, ring_shows_what_was_put_before)
{
    struct pair_end ends[2];
    struct driver driver;
    pthread_t thread;
    void *woken;

    pair_open_both(ends, param->name, AREA);
    pair_part(ends);
    cr_assert_eq(pthread_create(&thread, NULL, sleeper_main, &ends[1]), 0);
    usleep(20000);
    word_put(&ends[0], 2, 0, WORD_AT, 1);
    ends[0].ops->ring(ends[0].link);
    driver_start(&driver, &ends[0]);
    pthread_join(thread, &woken);
    driver_stop(&driver);
    cr_assert((bool)(intptr_t)woken);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

struct waiter {
    struct pair_end *end;
    size_t at;
    bool lost;
};

static void *waiter_main(void *arg)
{
    struct waiter *waiter = arg;

    for (uint64_t i = 1; i <= 300 && !waiter->lost; i++)
        waiter->lost = !word_sleep(waiter->end, waiter->at, i);
    return NULL;
}

CONFORM_TEST(sleep, one_bell_wakes_every_thread_that_is_armed)
{
    enum { THREADS = 3 };
    struct pair_end ends[2];
    struct waiter waiters[THREADS];
    struct driver driver;
    pthread_t threads[THREADS];

    pair_open_both(ends, param->name, AREA);
    pair_part(ends);
    for (size_t t = 0; t < THREADS; t++) {
        waiters[t] = (struct waiter){&ends[1], WORD_AT + 8 * t, false};
        cr_assert_eq(pthread_create(&threads[t], NULL, waiter_main, &waiters[t]), 0);
    }
    for (uint64_t i = 1; i <= 300; i++) {
        for (size_t t = 0; t < THREADS; t++)
            word_put(&ends[0], 0, TFR_XFER_AFTER | TFR_XFER_BELL, WORD_AT + 8 * t, i);
        usleep(i % 3 * 100);
    }
    driver_start(&driver, &ends[0]); /* a put may have to be helped on its way */
    for (size_t t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    driver_stop(&driver);
    for (size_t t = 0; t < THREADS; t++)
        cr_assert_not(waiters[t].lost, "thread %zu", t);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

/* A thousand puts with a bell; returns when the last is seen. */
static void words_put(struct pair_end ends[2], uint64_t base)
{
    for (uint64_t i = base + 1; i <= base + 1000; i++)
        word_put(&ends[0], 0, TFR_XFER_AFTER | TFR_XFER_BELL, WORD_AT, i);
    CONFORM_WAIT(&ends[0], word_at(&ends[1], WORD_AT) == base + 1000);
}

/* Where bytes have to be fetched, they wake by themselves. */
CONFORM_TEST(sleep, nobody_is_rung_who_is_awake)
{
    struct pair_end ends[2];
    uint64_t bells;
    int fd;

    pair_open_both(ends, param->name, AREA);
    bells = ends[0].ops->caps & TFR_CAP_ONESIDED ? 1 : 0;
    words_put(ends, 0);
    usleep(5000);
    cr_assert_eq(bells_of(&ends[0]), 0);
    cr_assert_eq(ends[1].ops->arm(ends[1].link, &fd), TFR_OK);
    words_put(ends, 1000);
    CONFORM_WAIT(&ends[0], bells_of(&ends[0]) == bells);
    usleep(5000);
    cr_assert_eq(bells_of(&ends[0]), bells, "one bell for one sleep");
    ends[1].ops->disarm(ends[1].link);
    words_put(ends, 2000);
    usleep(5000);
    cr_assert_eq(bells_of(&ends[0]), bells, "awake again");
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(sleep, naps_that_nobody_ends_cost_one_bell_at_most)
{
    struct pair_end ends[2];
    int fd;

    pair_open_both(ends, param->name, AREA);
    for (int i = 0; i < 100; i++) {
        cr_assert_eq(ends[1].ops->arm(ends[1].link, &fd), TFR_OK);
        ends[1].ops->disarm(ends[1].link);
    }
    words_put(ends, 0);
    usleep(5000);
    cr_assert_leq(bells_of(&ends[0]), 1);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

static bool sleeps_undisturbed(struct pair_end *end)
{
    struct pollfd poller = {.events = POLLIN};
    int n;

    cr_assert_eq(end->ops->arm(end->link, &poller.fd), TFR_OK);
    n = poll(&poller, 1, 50);
    end->ops->disarm(end->link);
    return n == 0;
}

CONFORM_TEST(sleep, an_old_bell_does_not_disturb_for_ever)
{
    struct pair_end ends[2];
    struct pollfd poller = {.events = POLLIN};

    pair_open_both(ends, param->name, AREA);
    cr_assert_eq(ends[1].ops->arm(ends[1].link, &poller.fd), TFR_OK);
    word_put(&ends[0], 0, TFR_XFER_AFTER | TFR_XFER_BELL, WORD_AT, 1);
    cr_assert_eq(poll(&poller, 1, BELL_MS), 1);
    ends[1].ops->disarm(ends[1].link);
    CONFORM_WAIT(&ends[1], word_at(&ends[1], WORD_AT) == 1);
    CONFORM_WAIT(&ends[0], sleeps_undisturbed(&ends[1])); /* who sleeps by consent asks for it */
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}
