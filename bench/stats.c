/* Medians, percentiles and the interval of a ratio.  Means are kept for the JSON alone: on a shared
 * machine one preemption outweighs a thousand calls. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"

enum { RESAMPLES = 1000 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Of sorted values; nearest rank. */
static double rank(const double *sorted, size_t n, double share)
{
    size_t at = (size_t)ceil(share * (double)n);
    return sorted[at == 0 ? 0 : at - 1];
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

void series_add(struct series *s, const double *samples, size_t n)
{
    if (!n || s->round_n == ROUNDS_MAX)
        return;
    if (s->all_n + n > s->all_room) {
        size_t room = 2 * (s->all_n + n);
        double *grown = realloc(s->all, room * sizeof *grown);
        if (!grown)
            return;
        s->all = grown;
        s->all_room = room;
    }
    memcpy(s->all + s->all_n, samples, n * sizeof *samples);
    s->median[s->round_n++] = median(s->all + s->all_n, n);
    s->all_n += n;
}

struct summary series_sum(struct series *s)
{
    struct summary sum = {.known = s->all_n > 0, .n = s->all_n};
    double medians[ROUNDS_MAX];
    if (!sum.known)
        return sum;
    qsort(s->all, s->all_n, sizeof *s->all, by_value);
    for (size_t i = 0; i < s->all_n; i++)
        sum.mean += s->all[i] / (double)s->all_n;
    sum.min = s->all[0];
    sum.max = s->all[s->all_n - 1];
    sum.p99 = rank(s->all, s->all_n, 0.99);
    sum.p999 = rank(s->all, s->all_n, 0.999);
    memcpy(medians, s->median, s->round_n * sizeof *medians);
    sum.p50 = median(medians, s->round_n);
    sum.best = medians[0];
    return sum;
}

void series_fini(struct series *s)
{
    free(s->all);
    memset(s, 0, sizeof *s);
}

/* Small and the same on every run. */
static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static double ratio_of(const struct series *a, const struct series *b, const uint32_t *pick,
                       uint32_t n)
{
    double x[ROUNDS_MAX], y[ROUNDS_MAX];
    for (uint32_t i = 0; i < n; i++) {
        x[i] = a->median[pick[i]];
        y[i] = b->median[pick[i]];
    }
    double under = median(y, n);
    return under > 0 ? median(x, n) / under : 0;
}

struct ratio series_ratio(const struct series *a, const struct series *b)
{
    static double tries[RESAMPLES];
    uint32_t n = a->round_n < b->round_n ? a->round_n : b->round_n, state = 2463534242u;
    uint32_t pick[ROUNDS_MAX];
    struct ratio ratio = {.known = false};
    if (!n)
        return ratio;
    for (uint32_t i = 0; i < n; i++)
        pick[i] = i;
    ratio.value = ratio_of(a, b, pick, n);
    ratio.known = ratio.value > 0;
    for (int t = 0; t < RESAMPLES; t++) {
        for (uint32_t i = 0; i < n; i++)
            pick[i] = next_random(&state) % n;
        tries[t] = ratio_of(a, b, pick, n);
    }
    qsort(tries, RESAMPLES, sizeof *tries, by_value);
    ratio.low = rank(tries, RESAMPLES, 0.025);
    ratio.high = rank(tries, RESAMPLES, 0.975);
    return ratio;
}
