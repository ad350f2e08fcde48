/* Monotonic time in nanoseconds.  tfr_clock_now costs a vDSO call (30-80 ns on virtual machines):
 * not for the issue path of a call. */
#ifndef TFR_BASE_CLOCK_H
#define TFR_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define TFR_NS_PER_US 1000ull
#define TFR_NS_PER_MS 1000000ull
#define TFR_NS_PER_S  1000000000ull

static inline uint64_t tfr_clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * TFR_NS_PER_S + (uint64_t)t.tv_nsec;
}

#endif
