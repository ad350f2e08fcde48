/* The sorted list of address ranges that we know: device allocations, variables, pinned memory.
 * Asked by every copy, changed by allocations. */
#include <stdlib.h>
#include <string.h>

#include "intercept/memory.h"

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER; /* guards all below */
static struct tfr_range *ranges;
static size_t range_n, range_room;
static uint64_t serial;

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
        found = true;
    }
    pthread_rwlock_unlock(&lock);
    return found;
}

struct tfr_range tfr_range_find(uint64_t addr)
{
    struct tfr_range range = {.kind = TFR_RANGE_NONE};
    pthread_rwlock_rdlock(&lock);
    size_t at = after(addr);
    if (at > 0 && addr - ranges[at - 1].base < ranges[at - 1].len)
        range = ranges[at - 1];
    pthread_rwlock_unlock(&lock);
    return range;
}

void tfr_range_clear(void)
{
    pthread_rwlock_wrlock(&lock);
    range_n = 0;
    pthread_rwlock_unlock(&lock);
}
