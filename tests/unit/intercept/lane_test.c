/* intercept/lane.c: extents come back when their stream has passed. */
#include "kit.h"

static struct tfr_stream one = {.word = 3}, two = {.word = 4};

Test(lane, reuses_the_first_bytes_when_they_are_free_again, .timeout = 60)
{
    struct tfr_extent a, b;
    kit_lane(4 * TFR_LANE_CHUNK);
    cr_assert_eq(tfr_lane_take(100, &a), CUDA_SUCCESS);
    tfr_lane_give(a, &one, 7);
    cr_assert_eq(tfr_lane_take(100, &b), CUDA_SUCCESS);
    cr_assert_neq(a.at, b.at, "the stream still holds it");
    tfr_lane_free(b);
    kit_word(one.word, 7);
    cr_assert_eq(tfr_lane_take(100, &b), CUDA_SUCCESS);
    cr_assert_eq(a.at, b.at);
}

Test(lane, never_hands_out_overlapping_extents, .timeout = 60)
{
    struct tfr_extent e[64];
    int n = 0;
    kit_lane(8 * TFR_LANE_CHUNK);
    for (uint64_t len = 1; n < 24; len = len * 5 % (TFR_LANE_CHUNK / 4) + 1)
        cr_assert_eq(tfr_lane_take(len, &e[n++]), CUDA_SUCCESS);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < i; k++)
            cr_assert(e[i].at + e[i].units * (uint64_t)TFR_LANE_UNIT <= e[k].at ||
                      e[k].at + e[k].units * (uint64_t)TFR_LANE_UNIT <= e[i].at);
}

Test(lane, takes_what_has_passed_behind_a_stream_that_stands_still, .timeout = 60)
{
    struct tfr_extent stuck, done, again;
    kit_lane(2 * TFR_LANE_CHUNK);
    cr_assert_eq(tfr_lane_take(TFR_LANE_CHUNK, &stuck), CUDA_SUCCESS);
    cr_assert_eq(tfr_lane_take(TFR_LANE_CHUNK, &done), CUDA_SUCCESS);
    tfr_lane_give(stuck, &one, 5);
    tfr_lane_give(done, &two, 6);
    kit_word(two.word, 6);
    cr_assert_eq(tfr_lane_take(TFR_LANE_CHUNK, &again), CUDA_SUCCESS);
    cr_assert_eq(again.at, done.at);
}

Test(lane, says_at_once_that_it_is_full_to_who_only_tries, .timeout = 60)
{
    struct tfr_extent all, more;
    kit_lane(TFR_LANE_CHUNK);
    cr_assert(tfr_lane_try(TFR_LANE_CHUNK, &all));
    cr_assert(!tfr_lane_try(1, &more));
    tfr_lane_give(all, &one, 9);
    cr_assert(!tfr_lane_try(1, &more), "its stream has not passed");
    kit_word(one.word, 9);
    cr_assert(tfr_lane_try(1, &more));
}

Test(lane, leaves_room_to_who_waits_and_gives_him_less_rather_than_nothing, .timeout = 60)
{
    struct tfr_extent e;
    uint64_t len = TFR_LANE_CHUNK, n = 0;
    kit_lane(2 * TFR_LANE_CHUNK);
    while (tfr_lane_try_ahead(TFR_LANE_UNIT, &e))
        tfr_lane_give(e, &one, ++n);
    cr_assert_eq(tfr_lane_take_some(&len, &e), CUDA_SUCCESS);
    cr_assert(len > 4 * TFR_LANE_UNIT && len < TFR_LANE_CHUNK, "%llu bytes",
              (unsigned long long)len);
    cr_assert_geq(e.units * (uint64_t)TFR_LANE_UNIT, len);
}

Test(lane, keeps_what_another_session_left_in_hand_out_of_the_next_one, .timeout = 60)
{
    struct tfr_extent old, mine, other;
    kit_lane(4 * TFR_LANE_CHUNK);
    tfr_client.session_at++; /* the next session has begun, its lane not yet */
    cr_assert_eq(tfr_lane_take(100, &old), CUDA_SUCCESS);
    uint8_t *before = tfr_client.lanes[0].twin;
    tfr_client.lanes[0].twin = calloc(1, tfr_client.lanes[0].len);
    tfr_lane_init();
    cr_assert_eq(tfr_lane_take(100, &mine), CUDA_SUCCESS);
    cr_assert_eq(mine.at, old.at);
    cr_assert_neq(tfr_extent_twin(&mine), tfr_extent_twin(&old), "bytes of two sessions mix");
    tfr_lane_free(old);
    cr_assert_eq(tfr_lane_take(100, &other), CUDA_SUCCESS);
    cr_assert_neq(other.at, mine.at, "the old session's extent freed ours");
    free(before);
}

Test(lane, lets_many_streams_pull_at_once, .timeout = 60)
{
    struct tfr_extent e[16];
    kit_lane(16 * TFR_LANE_CHUNK); /* what is for pulls would be four large ones */
    for (int i = 0; i < 16; i++)
        cr_assert(tfr_lane_try_pull(TFR_PULL_MAX, &e[i]), "stream %d", i);
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < i; k++)
            cr_assert(e[i].at + e[i].units * (uint64_t)TFR_LANE_UNIT <= e[k].at ||
                      e[k].at + e[k].units * (uint64_t)TFR_LANE_UNIT <= e[i].at);
    cr_assert_gt(e[0].units, 16 * e[15].units, "%u and %u units", e[0].units, e[15].units);
}

Test(lane, lets_so_many_streams_pull_that_no_program_waits_for_itself, .timeout = 60)
{
    struct tfr_extent e;
    int n = 0;
    kit_lane(48 * TFR_LANE_CHUNK); /* the default: 64 MiB */
    tfr_client.lane_n = 2;         /* and GPU memory, which is not for pulls */
    tfr_client.lanes[1].len = tfr_client.lanes[0].len;
    for (; tfr_lane_try_pull(TFR_PULL_MAX, &e); n++)
        cr_assert_eq(e.lane, 0, "stream %d", n);
    cr_assert_geq(n, 2000, "%d", n);
    cr_assert(tfr_lane_try(TFR_LANE_CHUNK, &e), "nothing is left to who waits");
}

Test(lane, tells_of_missing_memory_whose_transfer_it_was_alone, .timeout = 60)
{
    struct tfr_extent before, now;
    kit_lane(4 * TFR_LANE_CHUNK);
    cr_assert_eq(tfr_lane_take(100, &before), CUDA_SUCCESS);
    tfr_lane_give(before, &one, 7);
    kit_word(one.word, 7);
    cr_assert_eq(tfr_lane_take(100, &now), CUDA_SUCCESS);
    cr_assert_eq(now.at, before.at);
    tfr_lane_fault(tfr_lane_shipping(&now));
    cr_assert_eq(tfr_lane_settle(&before), CUDA_SUCCESS);
    cr_assert_eq(tfr_lane_settle(&now), CUDA_ERROR_INVALID_VALUE);
    cr_assert_eq(tfr_lane_settle(&now), CUDA_SUCCESS, "told twice");
}
