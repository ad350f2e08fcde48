/* The end of the process, and a forked child, which has no session.  A driver holds threads that
 * are in a call while exit handlers run, so that none of them returns into a runtime that is being
 * taken down; so do we.  Called by init.c and by every wait. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "intercept/entry.h"

enum { HOLD_S = 2, NAP_NS = 1000000 };

static _Atomic uint32_t exiting; /* the thread that runs exit handlers */

/* The nap is for threads that poll: they are between two calls half of the time. */
static void exit_begins(void)
{
    const struct timespec nap = {.tv_nsec = NAP_NS};
    atomic_store_explicit(&exiting, (uint32_t)gettid(), memory_order_release);
    if (atomic_load_explicit(&tfr_client.attached, memory_order_acquire))
        nanosleep(&nap, NULL);
}

static void fork_child(void)
{
    atomic_store_explicit(&exiting, 0, memory_order_relaxed);
    /* The parent's session stays the parent's: nothing here may wake, wait for or keep alive what
     * is its. */
    if (atomic_exchange_explicit(&tfr_client.linked, false, memory_order_acquire))
        tfr_client.link->ops->forked(tfr_client.link);
    tfr_wakers_close();
    tfr_boot_close(&tfr_client.boot);
    atomic_store_explicit(&tfr_client.error, CUDA_ERROR_NOT_INITIALIZED, memory_order_release);
    tfr_client.snapshot = NULL; /* what queries see: cuInit was not for this process */
    tfr_client.feedback = &tfr_page_of_zeros; /* the pages did not come along */
    atomic_store_explicit(&tfr_client.attached, false, memory_order_relaxed);
    tfr_client.open = false;
    /* Whoever held these is a thread of the parent. */
    atomic_store_explicit(&tfr_client.ring_lock, 0, memory_order_relaxed);
    atomic_store_explicit(&tfr_client.waiters, 0, memory_order_relaxed);
    pthread_mutex_init(&tfr_client.set_up_lock, NULL);
    pthread_mutex_init(&tfr_client.sleep_lock, NULL);
}

void tfr_exit_watch(void)
{
    atexit(exit_begins);
    pthread_atfork(NULL, NULL, fork_child);
}

void tfr_exit_hold(void)
{
    uint32_t by = atomic_load_explicit(&exiting, memory_order_acquire);
    if (__builtin_expect(!by, 1) || by == (uint32_t)gettid() || tfr_thread.held)
        return;
    struct timespec t = {.tv_sec = HOLD_S};
    tfr_thread.held = true; /* who runs exit handlers may be waiting for what this one does next */
    nanosleep(&t, NULL);
}
