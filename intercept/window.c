/* Windows: which addresses a device's memory has, agreed with the executor once, and which of them
 * are backed.  Called with the lease's lock held.
 *
 * Both sides reserve the same range, so that an address means the same memory in a struct that a
 * kernel reads.  Surprising: a driver takes an address for a hint only, so several are offered;
 * with none of them the driver places each allocation, and each is a round trip. */
#define TFR_LOG_PART "intercept"
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "intercept/lease.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

enum { IDLE_MS = 1000, GROW_TRIES = 3, SIZES = 3 };

static const uint64_t window_align = 1ull << 30;

/* Where neither a program nor a driver places anything by itself, as far as we know. */
static const uint64_t bases[] = {0x200000000000, 0x300000000000, 0x100000000000,
                                 0x400000000000, 0x600000000000, 0x0a0000000000};
enum { BASES = sizeof bases / sizeof bases[0] };
static_assert((int)BASES <= (int)TFR_WINDOW_TRIES, "candidates");

static uint64_t round_up(uint64_t len, uint64_t to)
{
    return (len + to - 1) / to * to;
}

/* ---- agreeing ---- */

/* Addresses are plenty unless the process has a limit: of that at most a quarter is taken. */
static uint64_t room(void)
{
    struct rlimit limit;
    if (TFR_NO_WINDOWS)
        return 0;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    return limit.rlim_cur / 4;
}

static bool reserve(uint64_t base, uint64_t len)
{
    void *at = mmap((void *)base, len, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (at == MAP_FAILED)
        return false;
    if ((uint64_t)at == base) {
        madvise(at, len, MADV_DONTFORK);
        madvise(at, len, MADV_DONTDUMP);
        return true;
    }
    munmap(at, len); /* kernels before 4.17 take the address for a hint */
    return false;
}

static CUresult window_ask(struct tfr_lease *lease, const uint64_t *base, uint32_t n, uint64_t len,
                           struct tfr_window_rep *rep_out)
{
    struct tfr_ask ask;
    struct tfr_window_req *req = tfr_ask_begin(&ask, TFR_OP_window, sizeof *req);
    if (!req)
        return ask.result;
    req->device = tfr_client.real[lease->device];
    req->base_n = n;
    req->len = len;
    memset(req->base, 0, sizeof req->base);
    memcpy(req->base, base, n * sizeof *base);
    const struct tfr_window_rep *rep = tfr_ask_send(&ask, sizeof *rep);
    if (rep)
        *rep_out = *rep;
    return tfr_ask_end(&ask);
}

/* One size of window; true: agreed. */
static bool window_try(struct tfr_lease *lease, uint64_t at, uint64_t len)
{
    uint64_t held[TFR_WINDOW_TRIES];
    uint32_t n = 0;
    struct tfr_window_rep rep = {0};
    for (int i = 0; i < BASES; i++)
        if (reserve(bases[i] + at, len))
            held[n++] = bases[i] + at;
    if (n && window_ask(lease, held, n, len, &rep) != CUDA_SUCCESS)
        rep.base = 0;
    bool agreed = false;
    for (uint32_t i = 0; i < n; i++) {
        if (held[i] == rep.base && rep.granularity && rep.granularity <= window_align &&
            rep.granularity % TFR_LEASE_ALIGN == 0)
            agreed = true;
        else
            munmap((void *)held[i], len);
    }
    if (agreed) {
        lease->base = rep.base;
        lease->len = len;
        lease->granularity = rep.granularity;
    }
    return agreed;
}

/* Said once per process: every device has the same reason. */
static void say_none(const char *why)
{
    static _Atomic bool said;
    if (!atomic_exchange_explicit(&said, true, memory_order_relaxed))
        tfr_info("device memory has no window (%s): each allocation is a round trip", why);
}

/* Four times the memory, so that holes between chunks never matter; less where that is refused. */
void tfr_window_open(struct tfr_lease *lease)
{
    const struct tfr_snapshot *snapshot = tfr_client.snapshot;
    uint64_t at = 0;
    if (lease->window != TFR_WINDOW_UNKNOWN)
        return;
    lease->window = TFR_WINDOW_NONE;
    if (!tfr_perf_on("lease")) {
        say_none("TFR_PERF=no_lease");
        return;
    }
    for (int i = 0; i < lease->device; i++)
        at += 4 * round_up(snapshot->device[i].total_mem, window_align);
    uint64_t total = round_up(snapshot->device[lease->device].total_mem, window_align);
    if (!total || total > UINT64_MAX / 64 || total > room()) {
        say_none("the limit of this process's addresses is too low");
        return;
    }
    for (uint64_t times = 4; times; times /= 2) {
        if (4 * total > room() && times == 4)
            continue;
        if (window_try(lease, at, times * total)) {
            lease->window = TFR_WINDOW_OPEN;
            return;
        }
        if (tfr_client_error() != CUDA_SUCCESS)
            break;
    }
    say_none("no address range is free here and at the executor");
}

void tfr_window_close(struct tfr_lease *lease)
{
    if (lease->window == TFR_WINDOW_OPEN)
        munmap((void *)lease->base, lease->len);
}

/* ---- backing ---- */

static CUresult grow_ask(struct tfr_lease *lease, uint64_t at, uint64_t len, uint64_t *free_out)
{
    struct tfr_ask ask;
    struct tfr_lease_grow_req *req = tfr_ask_begin(&ask, TFR_OP_lease_grow, sizeof *req);
    uint32_t rep_len;
    if (!req)
        return ask.result;
    req->at = at;
    req->len = len;
    req->device = tfr_client.real[lease->device];
    req->reserved = 0;
    tfr_ask_send(&ask, 0);
    const struct tfr_lease_grow_rep *rep = tfr_ask_payload(&ask, &rep_len);
    *free_out = rep && rep_len >= sizeof *rep ? rep->free : 0;
    return tfr_ask_end(&ask);
}

static CUresult drop_ask(struct tfr_lease *lease, uint64_t at)
{
    struct tfr_ask ask;
    struct tfr_lease_drop_req *req = tfr_ask_begin(&ask, TFR_OP_lease_drop, sizeof *req);
    if (!req)
        return ask.result;
    req->at = at;
    req->device = tfr_client.real[lease->device];
    req->reserved = 0;
    tfr_ask_send(&ask, 0);
    return tfr_ask_end(&ask);
}

uint64_t tfr_lease_step(const struct tfr_lease *lease)
{
    uint64_t step = tfr_client.snapshot->device[lease->device].total_mem / 64;
    return step < TFR_LEASE_GROW / 4 ? step : TFR_LEASE_GROW / 4;
}

/* Ahead of need by as much as is in use, so that a growing program asks seldom, and never by so
 * little that a program which allocates and frees small blocks outruns it. */
static uint64_t ahead_len(const struct tfr_lease *lease, uint64_t need)
{
    uint64_t ahead = lease->backed - lease->free;
    uint64_t least = tfr_lease_step(lease);
    if (ahead > TFR_LEASE_GROW)
        ahead = TFR_LEASE_GROW;
    if (ahead < least)
        ahead = least;
    return ahead > need ? ahead : need;
}

CUresult tfr_lease_grow(struct tfr_lease *lease, uint64_t len, bool ahead)
{
    if (len > lease->len)
        return CUDA_ERROR_OUT_OF_MEMORY;
    uint64_t need = round_up(len, lease->granularity), left = 0;
    uint64_t want = round_up(ahead ? ahead_len(lease, need) : need, lease->granularity);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    for (int i = 0; i < GROW_TRIES && result == CUDA_ERROR_OUT_OF_MEMORY; i++) {
        uint64_t at = tfr_lease_place(lease, want);
        if (at)
            result = grow_ask(lease, at, want, &left);
        if (at && result == CUDA_SUCCESS) {
            TFR_COUNT(lease_grows, 1);
            if (tfr_lease_add(lease, at, want))
                return CUDA_SUCCESS;
            drop_ask(lease, at);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        if (want == need)
            break;
        left = left / lease->granularity * lease->granularity;
        want = i == 0 && left > need && left < want ? left : need;
    }
    return result;
}

void tfr_lease_shrink(struct tfr_lease *lease, bool all)
{
    uint64_t keep = all ? 0 : TFR_LEASE_GROW + (lease->backed - lease->free) / 4;
    uint64_t now = lease->idle > keep ? tfr_clock_now() : 0;
    for (struct tfr_chunk *c = lease->chunks, *next; c && lease->idle > keep; c = next) {
        next = c->next;
        if (!tfr_chunk_idle(c) || lease->idle - c->len < keep ||
            (!all && now - c->idle_since_ns < IDLE_MS * TFR_NS_PER_MS))
            continue;
        if (drop_ask(lease, c->base) != CUDA_SUCCESS)
            return;
        tfr_lease_remove(lease, c);
    }
}
