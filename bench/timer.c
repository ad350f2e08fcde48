/* The clock of all measurements: the time stamp counter where it ticks evenly, calibrated against
 * CLOCK_MONOTONIC, else that clock itself.  What one reading costs is measured and subtracted. */
#include <string.h>

#include "base/clock.h"
#include "bench/bench.h"

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

enum { CALIBRATE_MS = 30, COST_TRIES = 20001 };

static bool by_tsc;
static double ns_per_tick = 1, cost_ns;

uint64_t timer_now(void)
{
#if defined(__x86_64__)
    if (by_tsc) {
        unsigned int core;
        uint64_t ticks = __rdtscp(&core); /* waits for what comes before it */
        __asm__ __volatile__("" ::: "memory");
        return ticks;
    }
#endif
    return tfr_clock_now();
}

static bool tsc_even(void)
{
#if defined(__x86_64__)
    char line[4096];
    FILE *f = fopen("/proc/cpuinfo", "re");
    bool even = false;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "flags", 5) == 0) {
            even = strstr(line, " constant_tsc") && strstr(line, " rdtscp");
            break;
        }
    if (f)
        fclose(f);
    return even;
#else
    return false;
#endif
}

static void calibrate(void)
{
    uint64_t from_ns = tfr_clock_now(), from = timer_now(), now_ns;
    do
        now_ns = tfr_clock_now();
    while (now_ns - from_ns < CALIBRATE_MS * TFR_NS_PER_MS);
    ns_per_tick = (double)(now_ns - from_ns) / (double)(timer_now() - from);
}

/* The median of the distance of two readings. */
static void cost_take(void)
{
    static double tries[COST_TRIES];
    struct series s = {0};
    for (int i = 0; i < COST_TRIES; i++) {
        uint64_t from = timer_now();
        tries[i] = (double)(timer_now() - from) * ns_per_tick;
    }
    series_add(&s, tries, COST_TRIES);
    cost_ns = s.median[0];
    series_fini(&s);
}

void timer_init(void)
{
    by_tsc = tsc_even();
    if (by_tsc)
        calibrate();
    cost_take();
}

double timer_ns(uint64_t from, uint64_t to)
{
    double ns = (double)(to - from) * ns_per_tick - cost_ns;
    return ns > 0 ? ns : 0;
}

double timer_cost_ns(void)
{
    return cost_ns;
}

const char *timer_name(void)
{
    return by_tsc ? "rdtscp" : "clock_gettime";
}
