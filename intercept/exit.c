/* The end of the process.  A driver holds threads that are in a call while exit handlers run, so
 * that none of them returns into a runtime that is being taken down; so do we. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "intercept/client.h"

enum { HOLD_S = 2 };

static _Atomic uint32_t exiting; /* the thread that runs exit handlers */

static void exit_begins(void)
{
    atomic_store_explicit(&exiting, (uint32_t)gettid(), memory_order_release);
}

void tfr_exit_watch(void)
{
    atexit(exit_begins);
}

void tfr_exit_forget(void)
{
    atomic_store_explicit(&exiting, 0, memory_order_relaxed);
}

void tfr_exit_hold(void)
{
    uint32_t by = atomic_load_explicit(&exiting, memory_order_acquire);
    if (__builtin_expect(!by, 1) || by == (uint32_t)gettid())
        return;
    struct timespec t = {.tv_sec = HOLD_S};
    nanosleep(&t, NULL);
}
