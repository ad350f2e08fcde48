/* The seed of TFR_SOFT_CHAOS and what is drawn from it.  Called by whoever has a choice that
 * hardware would make in its own way. */
#include "executor/softgpu/chaos.h"

#include <stdatomic.h>

#include "base/env.h"
#include "base/log.h"

struct soft_chaos soft_chaos;
static _Atomic uint64_t drawn;

/* Spreads neighbouring numbers over all 64 bits (a finaliser in the manner of SplitMix). */
static uint64_t spread(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

void soft_chaos_init(void)
{
    soft_chaos.seed = tfr_env_u64("TFR_SOFT_CHAOS");
    soft_chaos.on = soft_chaos.seed != 0;
    if (soft_chaos.on)
        tfr_log_line(TFR_LOG_INFO, "softgpu", "chaos with seed %llu",
                     (unsigned long long)soft_chaos.seed);
}

uint64_t soft_chaos_draw(uint64_t *series)
{
    *series += 0x9e3779b97f4a7c15u;
    return spread(*series ^ spread(soft_chaos.seed));
}

uint64_t soft_chaos_next(void)
{
    uint64_t series = atomic_fetch_add_explicit(&drawn, 1, memory_order_relaxed);
    return soft_chaos_draw(&series);
}
