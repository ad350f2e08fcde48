/* Host memory known to the driver: what cuMemHostAlloc gave out and cuMemHostRegister was shown.
 * Kernels ask for every access outside the arena, so readers take no lock: a sequence count tells
 * them that the table changed under them, and they look again. */
#include "executor/softgpu/soft.h"

#include <stdlib.h>
#include <string.h>

struct bounds {
    _Atomic uint64_t base, end;
};

static pthread_mutex_t host_lock = PTHREAD_MUTEX_INITIALIZER; /* writers; ranges[] */
static struct soft_range *ranges;                             /* sorted by base */
static struct bounds *_Atomic shown; /* the same bounds for readers; outgrown tables are kept */
static _Atomic uint32_t shown_n;
static _Atomic uint32_t
    sequence; /* odd: being changed.  Pairs: writer release/acq_rel, reader acquire */
static uint32_t range_n, range_cap;

static bool lookup(uint64_t addr, uint64_t len)
{
    uint32_t lo = 0, hi = atomic_load_explicit(&shown_n, memory_order_acquire);
    struct bounds *table =
        atomic_load_explicit(&shown, memory_order_acquire); /* after: never shorter than hi */
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (atomic_load_explicit(&table[mid].base, memory_order_acquire) <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0)
        return false;
    uint64_t end = atomic_load_explicit(&table[lo - 1].end, memory_order_acquire);
    return addr < end && len <= end - addr;
}

bool soft_mem_host_ok(uint64_t addr, uint64_t len)
{
    for (;;) {
        uint32_t before = atomic_load_explicit(&sequence, memory_order_acquire);
        bool ok = !(before & 1) && lookup(addr, len);
        if (!(before & 1) && atomic_load_explicit(&sequence, memory_order_acquire) == before)
            return ok;
    }
}

/* Shows ranges[] to the readers. */
static void show(void)
{
    struct bounds *table = atomic_load_explicit(&shown, memory_order_relaxed);
    atomic_fetch_add_explicit(&sequence, 1, memory_order_acq_rel);
    for (uint32_t i = 0; i < range_n; i++) {
        atomic_store_explicit(&table[i].base, ranges[i].base, memory_order_release);
        atomic_store_explicit(&table[i].end, ranges[i].base + ranges[i].len, memory_order_release);
    }
    atomic_store_explicit(&shown_n, range_n, memory_order_release);
    atomic_fetch_add_explicit(&sequence, 1, memory_order_acq_rel);
}

static bool grow(void)
{
    if (range_n < range_cap)
        return true;
    uint32_t cap = range_cap ? 2 * range_cap : 64;
    struct soft_range *more = realloc(ranges, cap * sizeof(*more));
    struct bounds *table = calloc(cap, sizeof(*table));
    if (more)
        ranges = more;
    if (!more || !table) {
        free(table);
        return false;
    }
    struct bounds *old = atomic_load_explicit(&shown, memory_order_relaxed);
    for (uint32_t i = 0; i < range_n; i++) {
        atomic_init(&table[i].base, atomic_load_explicit(&old[i].base, memory_order_relaxed));
        atomic_init(&table[i].end, atomic_load_explicit(&old[i].end, memory_order_relaxed));
    }
    range_cap = cap;
    atomic_store_explicit(&shown, table, memory_order_release);
    return true;
}

/* The first range that ends behind addr. */
static uint32_t first_behind(uint64_t addr)
{
    uint32_t lo = 0, hi = range_n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (ranges[mid].base + ranges[mid].len <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

CUresult soft_host_add(const struct soft_range *range)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&host_lock);
    uint32_t at = first_behind(range->base);
    if (at < range_n && ranges[at].base < range->base + range->len) {
        result = CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    } else if (!grow()) {
        result = CUDA_ERROR_OUT_OF_MEMORY;
    } else {
        memmove(&ranges[at + 1], &ranges[at], (range_n - at) * sizeof(*ranges));
        ranges[at] = *range;
        ranges[at].id = soft_next_id();
        range_n++;
        show();
    }
    pthread_mutex_unlock(&host_lock);
    return result;
}

static void remove_at(uint32_t at)
{
    memmove(&ranges[at], &ranges[at + 1], (range_n - at - 1) * sizeof(*ranges));
    range_n--;
    show();
}

CUresult soft_host_del(uint64_t base, bool registered)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&host_lock);
    uint32_t at = first_behind(base);
    if (at == range_n || ranges[at].base != base)
        result = registered ? CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED : CUDA_ERROR_INVALID_VALUE;
    else if (ranges[at].registered != registered)
        result = CUDA_ERROR_INVALID_VALUE;
    else
        remove_at(at);
    pthread_mutex_unlock(&host_lock);
    return result;
}

bool soft_host_find(uint64_t addr, struct soft_range *range_out)
{
    pthread_mutex_lock(&host_lock);
    uint32_t at = first_behind(addr);
    bool found = at < range_n && ranges[at].base <= addr;
    if (found)
        *range_out = ranges[at];
    pthread_mutex_unlock(&host_lock);
    return found;
}

bool soft_host_pinned(uint64_t addr, uint64_t len)
{
    return soft_mem_host_ok(addr, len);
}

/* The context goes: its ranges too.  Allocated ones are unmapped by their owner (hostalloc.c). */
bool soft_host_take(struct soft_ctx *ctx, struct soft_range *range_out)
{
    bool found = false;
    pthread_mutex_lock(&host_lock);
    for (uint32_t i = 0; i < range_n && !found; i++) {
        if (ranges[i].ctx == ctx) {
            *range_out = ranges[i];
            remove_at(i);
            found = true;
        }
    }
    pthread_mutex_unlock(&host_lock);
    return found;
}
