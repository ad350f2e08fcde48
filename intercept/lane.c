/* Extents of the lane: first fit over a bitmap, so that a steady stream of copies keeps reusing the
 * same cache-warm bytes.  The client alone allocates; an extent comes back when its stream's word
 * says so. */
#define TFR_LOG_PART "intercept"
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "intercept/bulk.h"
#include "intercept/gate.h"
#include "intercept/memory.h"
#include "intercept/stream.h"

enum {
    UNITS_MAX = 16384,
    WORD_BITS = 64,
    PULL_SHARE = 4,   /* a quarter of the lane is for pulls */
    PULL_STREAMS = 4, /* a quarter of what is left of that is for one stream, */
    PULL_LAST = 4,    /* but a quarter of all goes by single units */
    LOOK_MS = 20,     /* what no news tells of */
    WAIT_SHARE = 3,   /* a third of the rest is for those who wait */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static uint64_t used[UNITS_MAX / WORD_BITS];
/* Copies that stand still behind a blocked stream must not take everything: [push_n, unit_n) is for
 * pulls alone, and [ahead_n, push_n) for callers who wait, whatever lies in the rest. */
static uint32_t unit_n, push_n, ahead_n;
/* Of the session whose lane it is: tfr_client has those of the next one a little earlier. */
static uint16_t session;
static uint8_t *twin;
/* Extents that a stream still holds, oldest first. */
static struct held {
    struct tfr_extent extent;
    uint32_t word;
    uint64_t seq;
} held[UNITS_MAX];
static uint32_t held_head, held_n;
/* Puts that still read the extent which starts at a unit (where the lane is not mapped). */
static _Atomic uint32_t shipping[UNITS_MAX];

void tfr_lane_init(void)
{
    pthread_mutex_lock(&lock);
    uint64_t units = tfr_client.lanes[0].len / TFR_LANE_UNIT;
    unit_n = units > UNITS_MAX ? UNITS_MAX : (uint32_t)units;
    push_n = unit_n - unit_n / PULL_SHARE;
    ahead_n = push_n - push_n / WAIT_SHARE;
    session = (uint16_t)tfr_client.session_at;
    twin = tfr_client.lanes[0].twin;
    memset(used, 0, sizeof used);
    held_head = held_n = 0;
    pthread_mutex_unlock(&lock);
}

uint64_t tfr_lane_fit(uint64_t want, uint64_t ring)
{
    const uint64_t queues = 1 << 20, least = TFR_LANE_CHUNK;
    uint64_t other = sizeof(struct tfr_page_area) + ring + queues;
    struct rlimit limit;
    if (geteuid() == 0 || getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur >= want + other)
        return want;
    uint64_t fits = limit.rlim_cur > other + least ? limit.rlim_cur - other : least;
    tfr_warn("a memory lock limit of %llu KiB leaves %llu of %llu KiB for copies under way: ulimit "
             "-l unlimited makes large ones faster",
             (unsigned long long)limit.rlim_cur >> 10, (unsigned long long)fits >> 10,
             (unsigned long long)want >> 10);
    return fits & ~(uint64_t)(TFR_LANE_UNIT - 1);
}

static _Atomic uint64_t moves;

uint64_t tfr_lane_moves(void)
{
    return atomic_load_explicit(&moves, memory_order_relaxed);
}

static void units_set(uint32_t at, uint32_t n, bool on)
{
    if (!on)
        atomic_fetch_add_explicit(&moves, 1, memory_order_relaxed);
    for (uint32_t i = at; i < at + n; i++) {
        uint64_t bit = 1ull << (i % WORD_BITS);
        used[i / WORD_BITS] = on ? used[i / WORD_BITS] | bit : used[i / WORD_BITS] & ~bit;
    }
}

_Atomic uint32_t *tfr_lane_shipping(const struct tfr_extent *extent)
{
    return &shipping[extent->at / TFR_LANE_UNIT];
}

/* pairs with the release in landed (bulk.c) */
static bool is_shipping(const struct tfr_extent *extent)
{
    return atomic_load_explicit(tfr_lane_shipping(extent), memory_order_acquire) != 0;
}

/* Of the extent that starts at a unit: a transfer of it had no memory, and nobody knows yet. */
static _Atomic bool faults[UNITS_MAX];
/* Of the same: how often it was handed out.  Who settles may have had it before somebody else. */
static uint16_t turns[UNITS_MAX];

void tfr_lane_fault(const _Atomic uint32_t *shipping_of_it)
{
    atomic_store_explicit(&faults[shipping_of_it - shipping], true, memory_order_relaxed);
}

/* Other threads may still have extents of a session that has ended. */
static bool is_ours(const struct tfr_extent *extent)
{
    return extent->session == session;
}

static CUresult fault_take(const struct tfr_extent *extent)
{
    uint64_t unit = extent->at / TFR_LANE_UNIT;
    if (__builtin_expect(!atomic_load_explicit(&faults[unit], memory_order_relaxed), 1))
        return CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    bool ours = is_ours(extent) && extent->turn == turns[unit];
    if (ours)
        atomic_store_explicit(&faults[unit], false, memory_order_relaxed);
    pthread_mutex_unlock(&lock);
    return ours ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static bool has_passed(const struct held *h)
{
    return tfr_word_reached(h->word, h->seq) && !is_shipping(&h->extent) &&
           !atomic_load_explicit(&faults[h->extent.at / TFR_LANE_UNIT], memory_order_relaxed);
}

static void reap(void)
{
    while (held_n) {
        struct held *h = &held[held_head];
        if (!has_passed(h))
            break;
        units_set((uint32_t)(h->extent.at / TFR_LANE_UNIT), h->extent.units, false);
        held_head = (held_head + 1) % UNITS_MAX;
        held_n--;
    }
}

/* What has passed somewhere behind a stream that stands still. */
static void reap_all(void)
{
    uint32_t n = held_n, at = held_head;
    held_n = 0;
    for (uint32_t i = 0; i < n; i++) {
        struct held h = held[(at + i) % UNITS_MAX];
        if (has_passed(&h))
            units_set((uint32_t)(h.extent.at / TFR_LANE_UNIT), h.extent.units, false);
        else
            held[(held_head + held_n++) % UNITS_MAX] = h;
    }
}

/* Extents below the length of lane 1, which is GPU memory, lie there.  Those for pulls do not: the
 * GPU reads and writes them while the stream stands still, and may not see what arrives then. */
static uint16_t lane_of(const struct tfr_extent *extent, uint32_t from)
{
    uint64_t end = extent->at + (uint64_t)extent->units * TFR_LANE_UNIT;
    return tfr_client.lane_n > 1 && from < push_n && end <= tfr_client.lanes[1].len;
}

/* First fit among the units [from, to). */
static bool find(uint32_t from, uint32_t to, uint32_t want, struct tfr_extent *extent_out)
{
    uint32_t run = 0;
    for (uint32_t i = from; i < to; i++) {
        if (i % WORD_BITS == 0 && used[i / WORD_BITS] == ~0ull) {
            run = 0;
            i += WORD_BITS - 1;
            continue;
        }
        run = used[i / WORD_BITS] >> (i % WORD_BITS) & 1 ? 0 : run + 1;
        if (run == want) {
            uint64_t at = (uint64_t)(i + 1 - want) * TFR_LANE_UNIT;
            *extent_out = (struct tfr_extent){.at = at,
                                              .units = (uint16_t)want,
                                              .session = session,
                                              .turn = ++turns[i + 1 - want],
                                              .twin = twin + at};
            extent_out->lane = lane_of(extent_out, from);
            atomic_store_explicit(&faults[i + 1 - want], false, memory_order_relaxed);
            units_set(i + 1 - want, want, true);
            return true;
        }
    }
    return false;
}

static uint32_t units_of(uint64_t len)
{
    return (uint32_t)((len + TFR_LANE_UNIT - 1) / TFR_LANE_UNIT);
}

/* An extent below unit *limit. */
static bool push_try(uint64_t len, const uint32_t *limit, struct tfr_extent *extent_out)
{
    uint32_t want = units_of(len);
    pthread_mutex_lock(&lock);
    reap();
    bool found = find(0, *limit, want, extent_out);
    if (!found) {
        reap_all();
        found = find(0, *limit, want, extent_out);
    }
    pthread_mutex_unlock(&lock);
    return found;
}

bool tfr_lane_try(uint64_t len, struct tfr_extent *extent_out)
{
    return push_try(len, &push_n, extent_out);
}

bool tfr_lane_try_ahead(uint64_t len, struct tfr_extent *extent_out)
{
    return push_try(len, &ahead_n, extent_out);
}

static uint32_t pull_free(void)
{
    uint32_t n = 0;
    for (uint32_t i = push_n; i < unit_n; i++)
        n += !(used[i / WORD_BITS] >> (i % WORD_BITS) & 1);
    return n;
}

/* The more streams pull the less each new one gets: they may all stand still until the program goes
 * on, and it does not while it waits here because nothing is left.  The last ones share the room of
 * asynchronous copies. */
bool tfr_lane_try_pull(uint64_t len, struct tfr_extent *extent_out)
{
    uint32_t most = TFR_PULL_MAX / TFR_LANE_UNIT, want = units_of(len);
    bool found = false;
    pthread_mutex_lock(&lock);
    reap();
    uint32_t left = pull_free(), last = (unit_n - push_n) / PULL_LAST;
    uint32_t share = left > last ? (left - last + PULL_STREAMS - 1) / PULL_STREAMS : 1;
    most = share < most ? share : most;
    for (want = want < most ? want : most; want && !found; want /= 2)
        found = find(push_n, unit_n, want, extent_out);
    if (!found && (found = find(0, ahead_n, 1, extent_out)))
        extent_out->lane = 0; /* as all of them */
    pthread_mutex_unlock(&lock);
    return found;
}

bool tfr_lane_freed(void)
{
    bool made = false;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < held_n && !made; i++)
        made = has_passed(&held[(held_head + i) % UNITS_MAX]);
    pthread_mutex_unlock(&lock);
    return made || tfr_copy_due();
}

static bool worth_a_look(void)
{
    return tfr_lane_freed() || tfr_gate_due(TFR_GATE_MOVE);
}

/* Until something may have come free: any of the extents that streams hold, since one of those may
 * stand still, or what copies into registered memory have left there.  Extents that other threads
 * have in hand come back without news; none of them waits here while it has some. */
static CUresult room_wait(struct tfr_relax *relax)
{
    while (!tfr_lane_freed()) {
        enum tfr_relax_step step = tfr_relax(relax);
        tfr_gate_help();
        if (step == TFR_RELAX_SPUN)
            continue;
        tfr_client_progress();
        CUresult result = tfr_client_look();
        if (result != CUDA_SUCCESS)
            return result;
        if (step == TFR_RELAX_SLEEP) {
            tfr_wait_news(worth_a_look, LOOK_MS);
            break;
        }
    }
    return CUDA_SUCCESS;
}

CUresult tfr_lane_take(uint64_t len, struct tfr_extent *extent_out)
{
    if (tfr_lane_try(len, extent_out))
        return CUDA_SUCCESS;
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_LANE_SPACE);
    TFR_COUNT(lane_stalls, 1);
    for (;;) {
        tfr_copy_deliver();
        if (tfr_lane_try(len, extent_out))
            return CUDA_SUCCESS;
        CUresult result = room_wait(&relax);
        if (result != CUDA_SUCCESS)
            return result;
    }
}

CUresult tfr_lane_take_some(uint64_t *len, struct tfr_extent *extent_out)
{
    for (; *len > TFR_LANE_UNIT; *len = (*len + 1) / 2)
        if (tfr_lane_try(*len, extent_out))
            return CUDA_SUCCESS;
    return tfr_lane_take(*len, extent_out);
}

void tfr_lane_give(struct tfr_extent extent, struct tfr_stream *stream, uint64_t seq)
{
    pthread_mutex_lock(&lock);
    if (is_ours(&extent))
        held[(held_head + held_n++) % UNITS_MAX] = (struct held){extent, stream->word, seq};
    pthread_mutex_unlock(&lock);
}

CUresult tfr_lane_ship(const struct tfr_extent *extent, uint64_t len, uint64_t *stamp_out)
{
    const struct tfr_load load = {.extent = extent, .len = len};
    *stamp_out = 0;
    return __builtin_expect(tfr_client.mapped, 1) ? CUDA_SUCCESS : tfr_bulk_put(&load, stamp_out);
}

CUresult tfr_lane_settle(const struct tfr_extent *extent)
{
    if (is_shipping(extent) && tfr_bulk_wait(tfr_lane_shipping(extent)) != CUDA_SUCCESS)
        tfr_client_cut(); /* what a NIC was told may go on else */
    return fault_take(extent);
}

void tfr_lane_free(struct tfr_extent extent)
{
    pthread_mutex_lock(&lock);
    bool ours = is_ours(&extent);
    if (ours && is_shipping(&extent)) /* nobody waits for it but its last put */
        held[(held_head + held_n++) % UNITS_MAX] = (struct held){.extent = extent};
    else if (ours)
        units_set((uint32_t)(extent.at / TFR_LANE_UNIT), extent.units, false);
    pthread_mutex_unlock(&lock);
}
