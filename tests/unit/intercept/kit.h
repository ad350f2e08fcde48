/* A client without an executor: a feedback page and a lane of the test's own. */
#ifndef TFR_TESTS_UNIT_INTERCEPT_KIT_H
#define TFR_TESTS_UNIT_INTERCEPT_KIT_H

#include <criterion/criterion.h>
#include <stdlib.h>

#include "intercept/memory.h"
#include "intercept/stream.h"

static struct tfr_feedback kit_page;

/* A lane with `len` bytes for pushes; a quarter of the whole is for pulls. */
static inline void kit_lane(uint64_t len)
{
    uint64_t all = len / TFR_LANE_UNIT * 4 / 3 * TFR_LANE_UNIT;
    tfr_client.feedback = &kit_page;
    tfr_client.mapped = true;
    tfr_client.lanes[0] = (struct tfr_client_lane){.twin = calloc(1, all), .len = all};
    tfr_lane_init();
}

/* The executor says: this word has passed seq. */
static inline void kit_word(uint32_t word, uint64_t seq)
{
    atomic_store_explicit(&kit_page.stream[word], seq, memory_order_release);
}

#endif
