/* The sorted list of address ranges that we know: device allocations, variables, pinned memory.
 * Asked by every copy, changed by allocations. */
#include <stdlib.h>
#include <string.h>

#include "intercept/memory.h"

enum { PAGE_ROOM = 64 };

/* Ranges in order of address, a page at a time: an insertion moves a page, not the list. */
struct page {
    uint32_t n;
    struct tfr_range range[PAGE_ROOM];
};

static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER; /* guards all below */
static struct {
    uint64_t first; /* base of the page's first range */
    struct page *page;
} * pages;
static size_t page_n, page_room;
static uint64_t serial;
static _Atomic uint32_t mapped_n;
/* Bumped after every change; what threads remember is checked against it. */
static _Atomic uint64_t changes;

/* The last answers of this thread: a loop copies between the same few places. */
enum { REMEMBERED = 4 };
static __thread struct remembered {
    uint64_t changes;
    struct tfr_range range;
} remembered[REMEMBERED] __attribute__((tls_model("initial-exec")));
static __thread unsigned int oldest __attribute__((tls_model("initial-exec")));

/* With the write lock held. */
static void changed(void)
{
    atomic_fetch_add_explicit(&changes, 1, memory_order_release);
}

/* Index of the last page that starts at or before addr; 0 if none does. */
static size_t page_of(uint64_t addr)
{
    size_t lo = 0, hi = page_n;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (pages[mid].first <= addr)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* Index in the page of the first range that starts after addr. */
static uint32_t after(const struct page *page, uint64_t addr)
{
    uint32_t lo = 0, hi = page->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (page->range[mid].base <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* An empty page at index `at` of the list. */
static struct page *page_new(size_t at)
{
    if (page_n == page_room) {
        size_t room = page_room ? 2 * page_room : 16;
        void *grown = realloc(pages, room * sizeof *pages);
        if (!grown)
            return NULL;
        pages = grown;
        page_room = room;
    }
    struct page *page = malloc(sizeof *page);
    if (!page)
        return NULL;
    page->n = 0;
    memmove(&pages[at + 1], &pages[at], (page_n - at) * sizeof *pages);
    pages[at].page = page;
    page_n++;
    return page;
}

/* The upper half of a full page becomes a page of its own. */
static bool page_split(size_t at)
{
    struct page *new = page_new(at + 1), *old = pages[at].page;
    if (!new)
        return false;
    old->n = PAGE_ROOM / 2;
    new->n = PAGE_ROOM - old->n;
    memcpy(new->range, &old->range[old->n], new->n * sizeof *new->range);
    pages[at + 1].first = new->range[0].base;
    return true;
}

static bool insert(const struct tfr_range *range)
{
    if (!page_n && !page_new(0))
        return false;
    size_t p = page_of(range->base);
    if (pages[p].page->n == PAGE_ROOM) {
        if (!page_split(p))
            return false;
        p = page_of(range->base);
    }
    struct page *page = pages[p].page;
    uint32_t at = after(page, range->base);
    const struct tfr_range *next = at < page->n     ? &page->range[at]
                                   : p + 1 < page_n ? &pages[p + 1].page->range[0]
                                                    : NULL;
    if ((at > 0 && page->range[at - 1].base + page->range[at - 1].len > range->base) ||
        (next && range->base + range->len > next->base))
        return false;
    memmove(&page->range[at + 1], &page->range[at], (page->n - at) * sizeof *page->range);
    page->range[at] = *range;
    page->range[at].serial = ++serial;
    page->n++;
    pages[p].first = page->range[0].base;
    return true;
}

bool tfr_range_add(const struct tfr_range *range)
{
    pthread_rwlock_wrlock(&lock);
    bool added = insert(range);
    if (added && range->kind == TFR_RANGE_MAPPED)
        atomic_fetch_add_explicit(&mapped_n, 1, memory_order_relaxed);
    changed();
    pthread_rwlock_unlock(&lock);
    return added;
}

static void remove_at(size_t p, uint32_t at, struct tfr_range *range_out)
{
    struct page *page = pages[p].page;
    *range_out = page->range[at];
    memmove(&page->range[at], &page->range[at + 1], (page->n - at - 1) * sizeof *page->range);
    if (--page->n) {
        pages[p].first = page->range[0].base;
    } else {
        free(page);
        memmove(&pages[p], &pages[p + 1], (--page_n - p) * sizeof *pages);
    }
    if (range_out->kind == TFR_RANGE_MAPPED)
        atomic_fetch_sub_explicit(&mapped_n, 1, memory_order_relaxed);
    changed();
}

bool tfr_range_take(uint64_t base, unsigned int kinds, struct tfr_range *range_out)
{
    bool found = false;
    pthread_rwlock_wrlock(&lock);
    size_t p = page_of(base);
    uint32_t at = page_n ? after(pages[p].page, base) : 0;
    if (at > 0) {
        const struct tfr_range *range = &pages[p].page->range[at - 1];
        found = range->base == base && (kinds & 1u << range->kind);
        if (found)
            remove_at(p, at - 1, range_out);
    }
    pthread_rwlock_unlock(&lock);
    return found;
}

bool tfr_range_take_of(const struct tfr_context *ctx, unsigned int kinds,
                       struct tfr_range *range_out)
{
    bool found = false;
    pthread_rwlock_wrlock(&lock);
    /* A page that gets empty goes: it is not looked at after the find. */
    for (size_t p = 0; !found && p < page_n; p++) {
        for (uint32_t at = 0; !found && at < pages[p].page->n; at++) {
            const struct tfr_range *range = &pages[p].page->range[at];
            found = (kinds & 1u << range->kind) && (!ctx || range->ctx == ctx);
            if (found)
                remove_at(p, at, range_out);
        }
    }
    pthread_rwlock_unlock(&lock);
    return found;
}

uint32_t tfr_range_mapped(void)
{
    return atomic_load_explicit(&mapped_n, memory_order_relaxed);
}

/* The range around addr, or the gap, as a range of no kind. */
static struct tfr_range look_up(uint64_t addr)
{
    uint64_t from = 0, to = UINT64_MAX;
    size_t p = page_of(addr);
    if (page_n) {
        const struct page *page = pages[p].page;
        uint32_t at = after(page, addr);
        if (at > 0) {
            const struct tfr_range *range = &page->range[at - 1];
            if (addr - range->base < range->len)
                return *range;
            from = range->base + range->len;
        }
        if (at < page->n)
            to = page->range[at].base;
        else if (p + 1 < page_n)
            to = pages[p + 1].first;
    }
    return (struct tfr_range){.base = from, .len = to - from, .kind = TFR_RANGE_NONE};
}

struct tfr_range tfr_range_find(uint64_t addr)
{
    /* pairs with the release in changed: what was remembered before it is not used after it */
    uint64_t now = atomic_load_explicit(&changes, memory_order_acquire);
    for (int i = 0; i < REMEMBERED; i++)
        if (remembered[i].changes == now && now &&
            addr - remembered[i].range.base < remembered[i].range.len)
            return remembered[i].range;
    pthread_rwlock_rdlock(&lock);
    struct remembered *r = &remembered[oldest++ % REMEMBERED];
    r->range = look_up(addr);
    r->changes = atomic_load_explicit(&changes, memory_order_relaxed);
    pthread_rwlock_unlock(&lock);
    return r->range;
}

void tfr_range_clear(void)
{
    pthread_rwlock_wrlock(&lock);
    while (page_n)
        free(pages[--page_n].page);
    atomic_store_explicit(&mapped_n, 0, memory_order_relaxed);
    changed();
    pthread_rwlock_unlock(&lock);
}
