/* The budget of spinning workers: a page with a place for each.  Counting the places that say
 * "spinning" needs no lock: two who take the last one at once both see it and both step back. */
#define TFR_LOG_PART "executor"
#include "executor/spin.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>
#include <unistd.h>

#include "transport/transport.h"

enum { PLACES = 510, CLEAN_EVERY = 64 /* refusals between looks for the dead */ };

struct place {
    _Atomic int32_t pid; /* 0: free */
    _Atomic uint32_t spinning;
};
struct page {
    _Atomic uint32_t used; /* places ever taken are below this */
    struct place place[PLACES];
};

static struct page *page;
static struct place *own;
static uint32_t limit = 1, refused;

int tfr_spin_create(void)
{
    struct tfr_area area;
    if (tfr_memfd_create("tfr-spin", sizeof *page, NULL, &area) != TFR_OK)
        return -1;
    return area.fd;
}

static bool place_take(uint32_t at)
{
    int32_t was = atomic_load_explicit(&page->place[at].pid, memory_order_relaxed);
    if (was && (kill(was, 0) == 0 || errno != ESRCH))
        return false;
    if (!atomic_compare_exchange_strong_explicit(&page->place[at].pid, &was, getpid(),
                                                 memory_order_relaxed, memory_order_relaxed))
        return false;
    own = &page->place[at];
    atomic_store_explicit(&own->spinning, 0, memory_order_relaxed);
    uint32_t used = atomic_load_explicit(&page->used, memory_order_relaxed);
    while (used <= at &&
           !atomic_compare_exchange_weak_explicit(&page->used, &used, at + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
        continue;
    return true;
}

void tfr_spin_open(int fd)
{
    cpu_set_t cores;
    void *at;
    if (fd < 0)
        return;
    if (tfr_memfd_map(fd, 0, sizeof *page, NULL, &at) == TFR_OK)
        page = at;
    close(fd);
    if (sched_getaffinity(0, sizeof cores, &cores) == 0 && CPU_COUNT(&cores) > 3)
        limit = (uint32_t)CPU_COUNT(&cores) / 2;
    for (uint32_t i = 0; page && i < PLACES && !place_take(i); i++)
        continue;
}

static uint32_t spinning(bool clean)
{
    uint32_t n = 0, used = atomic_load_explicit(&page->used, memory_order_relaxed);
    for (uint32_t i = 0; i < used && i < PLACES; i++) {
        struct place *p = &page->place[i];
        if (!atomic_load_explicit(&p->spinning, memory_order_seq_cst))
            continue;
        if (clean && kill(atomic_load_explicit(&p->pid, memory_order_relaxed), 0) != 0 &&
            errno == ESRCH)
            atomic_store_explicit(&p->spinning, 0, memory_order_relaxed);
        n++;
    }
    return n;
}

bool tfr_spin_begin(void)
{
    if (!own)
        return true;
    atomic_store_explicit(&own->spinning, 1, memory_order_seq_cst);
    if (spinning(refused % CLEAN_EVERY == CLEAN_EVERY - 1) <= limit)
        return true;
    refused++;
    tfr_spin_end();
    return false;
}

void tfr_spin_end(void)
{
    if (own)
        atomic_store_explicit(&own->spinning, 0, memory_order_relaxed);
}
