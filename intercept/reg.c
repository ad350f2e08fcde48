/* The program's pinned memory, registered with the transport, which then moves it without staging.
 * Called by pinned.c once for each allocation or registration; the peer never hears of it.
 * Surprising: failure is none, copies of that memory are staged then. */
#define TFR_LOG_PART "intercept"
#include "base/env.h"
#include "base/fork.h"
#include "base/log.h"
#include "intercept/memory.h"

enum { REGS_MAX = 4096 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below */
static uint32_t regs_n;
static uint64_t regs_bytes;
static uint64_t refused = UINT64_MAX; /* so many bytes more were refused, and no room made since */

static void explain(uint64_t len)
{
    static _Atomic bool said;
    TFR_COUNT(reg_refusals, 1);
    if (!atomic_exchange_explicit(&said, true, memory_order_relaxed))
        tfr_warn("%llu KiB of pinned memory could not be registered with the network: copies of "
                 "such memory are staged; a larger memory lock limit (ulimit -l) or TFR_REG_SIZE "
                 "helps",
                 (unsigned long long)len >> 10);
}

/* Takes a place for so many bytes. */
static bool place_take(uint64_t len)
{
    uint64_t limit = tfr_env_u64("TFR_REG_SIZE");
    pthread_mutex_lock(&lock);
    bool fits =
        regs_n < REGS_MAX && len < refused && regs_bytes <= limit && len <= limit - regs_bytes;
    if (fits) {
        regs_n++;
        regs_bytes += len;
    }
    pthread_mutex_unlock(&lock);
    return fits;
}

static void place_give(uint64_t len, bool failed)
{
    pthread_mutex_lock(&lock);
    regs_n--;
    regs_bytes -= len;
    if (!failed)
        refused = UINT64_MAX;
    else if (len < refused)
        refused = len;
    pthread_mutex_unlock(&lock);
}

struct tfr_mem *tfr_reg_make(void *at, uint64_t len, bool ours)
{
    const struct tfr_area area = {.kind = TFR_AREA_HOST, .addr = at, .len = len, .fd = -1};
    struct tfr_mem *mem = NULL;
    if (tfr_client.mapped || tfr_client.any_local || !tfr_perf_on("reg"))
        return NULL;
    if ((ours || tfr_fork_copies()) && place_take(len) &&
        tfr_client.dev->ops->reg(tfr_client.dev, &area, &mem) != TFR_OK) {
        mem = NULL;
        place_give(len, true);
    }
    if (!mem)
        explain(len);
    return mem;
}

void tfr_reg_drop(struct tfr_mem *mem, uint64_t len)
{
    if (!mem)
        return;
    mem->ops->unreg(mem); /* waits for its transfers */
    place_give(len, false);
}
