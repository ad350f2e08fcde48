/* The sorted list of address ranges that we know: device allocations, variables, pinned memory.
 * Asked by every copy, changed by allocations. */
#include <stdlib.h>
#include <string.h>

#include "intercept/memory.h"

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER; /* guards all below */
static struct tfr_range *ranges;
static size_t range_n, range_room;
static uint64_t serial;
static _Atomic uint64_t
    changes; /* bumped after every change; what threads remember is checked against it */

/* The last two answers of this thread: source and target of a copy are often the same. */
static __thread struct remembered {
    uint64_t changes;
    struct tfr_range range;
} remembered[2] __attribute__((tls_model("initial-exec")));
static __thread unsigned int oldest __attribute__((tls_model("initial-exec")));

/* With the write lock held. */
static void changed(void)
{
    atomic_fetch_add_explicit(&changes, 1, memory_order_release);
}

/* Index of the first range that starts after addr. */
static size_t after(uint64_t addr)
{
    size_t lo = 0, hi = range_n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (ranges[mid].base <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static bool insert(const struct tfr_range *range)
{
    size_t at = after(range->base);
    if (at > 0 && ranges[at - 1].base + ranges[at - 1].len > range->base)
        return false;
    if (at < range_n && range->base + range->len > ranges[at].base)
        return false;
    if (range_n == range_room) {
        size_t room = range_room ? 2 * range_room : 64;
        struct tfr_range *grown = realloc(ranges, room * sizeof *grown);
        if (!grown)
            return false;
        ranges = grown;
        range_room = room;
    }
    memmove(&ranges[at + 1], &ranges[at], (range_n - at) * sizeof *ranges);
    ranges[at] = *range;
    ranges[at].serial = ++serial;
    range_n++;
    return true;
}

bool tfr_range_add(const struct tfr_range *range)
{
    pthread_rwlock_wrlock(&lock);
    bool added = insert(range);
    changed();
    pthread_rwlock_unlock(&lock);
    return added;
}

bool tfr_range_take(uint64_t base, unsigned int kinds, struct tfr_range *range_out)
{
    bool found = false;
    pthread_rwlock_wrlock(&lock);
    size_t at = after(base);
    if (at > 0 && ranges[at - 1].base == base && (kinds & 1u << ranges[at - 1].kind)) {
        *range_out = ranges[at - 1];
        memmove(&ranges[at - 1], &ranges[at], (range_n - at) * sizeof *ranges);
        range_n--;
        changed();
        found = true;
    }
    pthread_rwlock_unlock(&lock);
    return found;
}

/* The range around addr, or the gap, as a range of no kind. */
static struct tfr_range look_up(uint64_t addr)
{
    size_t at = after(addr);
    uint64_t from = 0, to = at < range_n ? ranges[at].base : UINT64_MAX;
    if (at > 0) {
        if (addr - ranges[at - 1].base < ranges[at - 1].len)
            return ranges[at - 1];
        from = ranges[at - 1].base + ranges[at - 1].len;
    }
    return (struct tfr_range){.base = from, .len = to - from, .kind = TFR_RANGE_NONE};
}

struct tfr_range tfr_range_find(uint64_t addr)
{
    /* pairs with the release in changed: what was remembered before it is not used after it */
    uint64_t now = atomic_load_explicit(&changes, memory_order_acquire);
    for (int i = 0; i < 2; i++)
        if (remembered[i].changes == now && now &&
            addr - remembered[i].range.base < remembered[i].range.len)
            return remembered[i].range;
    pthread_rwlock_rdlock(&lock);
    struct remembered *r = &remembered[oldest++ % 2];
    r->range = look_up(addr);
    r->changes = atomic_load_explicit(&changes, memory_order_relaxed);
    pthread_rwlock_unlock(&lock);
    return r->range;
}

bool tfr_range_take_of(const struct tfr_context *ctx, unsigned int kinds,
                       struct tfr_range *range_out)
{
    bool found = false;
    pthread_rwlock_wrlock(&lock);
    for (size_t at = range_n; at-- > 0 && !found;) {
        if (ranges[at].ctx != ctx || !(kinds & 1u << ranges[at].kind))
            continue;
        *range_out = ranges[at];
        memmove(&ranges[at], &ranges[at + 1], (range_n - at - 1) * sizeof *ranges);
        range_n--;
        changed();
        found = true;
    }
    pthread_rwlock_unlock(&lock);
    return found;
}

void tfr_range_clear(void)
{
    pthread_rwlock_wrlock(&lock);
    range_n = 0;
    changed();
    pthread_rwlock_unlock(&lock);
}
