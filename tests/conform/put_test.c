/* Bytes: whole, in the promised order, and done() once. */
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/conform/conform.h"

enum { AREA = 4 << 20, FLAG_AT = 0, DATA_AT = 4096 };

static void done_count(void *arg, tfr_status status)
{
    (void)status;
    ++*(volatile int *)arg;
}

static int sum_of(const int *numbers, int n)
{
    int sum = 0;

    for (int i = 0; i < n; i++)
        sum += numbers[i];
    return sum;
}

CONFORM_TEST(put, arrives_whole_at_any_size)
{
    static const size_t sizes[] = {1, 7, 8, 9, 64, 255, 256, 257, 4096, 65536 + 3, 2 << 20};
    struct pair_end ends[2];

    pair_open_both(ends, param->name, AREA);
    for (uint64_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint8_t *local = (uint8_t *)ends[0].area.addr + DATA_AT, *to;
        size_t at = DATA_AT + i;
        volatile int done = 0;
        struct tfr_xfer xfer = {.local = local,
                                .mem = ends[0].mem,
                                .peer = ends[0].peer,
                                .peer_at = at,
                                .len = sizes[i],
                                .done = done_count,
                                .arg = (void *)&done};
        for (size_t k = 0; k < sizes[i]; k++)
            local[k] = (uint8_t)(k * 31 + (k >> 8) + i);
        pair_put(&ends[0], &xfer);
        word_put(&ends[0], 0, TFR_XFER_AFTER, FLAG_AT, i + 1);
        CONFORM_WAIT(&ends[0], word_at(&ends[1], FLAG_AT) == i + 1);
        to = (uint8_t *)ends[1].area.addr + at;
        cr_assert_eq(memcmp(to, local, sizes[i]), 0, "%zu bytes", sizes[i]);
        CONFORM_WAIT(&ends[0], done == 1);
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(put, after_is_not_seen_before_earlier_puts_of_its_channel)
{
    enum { ROUNDS = 400, PIECES = 5, PIECE = 640 };
    struct pair_end ends[2];

    pair_open_both(ends, param->name, AREA);
    for (uint16_t channel = 0; channel < TFR_CHANNELS; channel++) {
        for (uint64_t round = 1; round <= ROUNDS; round++) {
            uint8_t *from = (uint8_t *)ends[0].area.addr + DATA_AT;
            uint8_t *to = (uint8_t *)ends[1].area.addr + DATA_AT;
            volatile int done = 0;
            memset(from, (int)round, PIECES * PIECE);
            for (size_t k = 0; k < PIECES; k++) {
                struct tfr_xfer xfer = {.channel = channel,
                                        .local = from + k * PIECE,
                                        .mem = ends[0].mem,
                                        .peer = ends[0].peer,
                                        .peer_at = DATA_AT + k * PIECE,
                                        .len = PIECE,
                                        .done = done_count,
                                        .arg = (void *)&done};
                pair_put(&ends[0], &xfer);
            }
            word_put(&ends[0], channel, TFR_XFER_AFTER, FLAG_AT, round << 8 | channel);
            CONFORM_WAIT(&ends[0], word_at(&ends[1], FLAG_AT) == (round << 8 | channel));
            for (size_t k = 0; k < PIECES * PIECE; k++)
                cr_assert_eq(to[k], (uint8_t)round, "channel %u byte %zu", channel, k);
            CONFORM_WAIT(&ends[0], done == PIECES);
        }
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(put, words_of_a_channel_never_go_back)
{
    struct pair_end ends[2];
    uint64_t seen = 0;

    pair_open_both(ends, param->name, AREA);
    for (uint64_t i = 1; i <= 3000; i++) {
        uint64_t now;
        word_put(&ends[0], 0, TFR_XFER_AFTER, FLAG_AT, i << 32 | i);
        now = word_at(&ends[1], FLAG_AT);
        cr_assert_eq(now >> 32, now & UINT32_MAX, "torn");
        cr_assert_geq(now, seen);
        seen = now;
    }
    CONFORM_WAIT(&ends[0], word_at(&ends[1], FLAG_AT) == (3000ull << 32 | 3000));
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(put, copies_small_ones_at_the_call)
{
    struct pair_end ends[2];
    uint8_t local[TFR_SMALL_MAX];

    pair_open_both(ends, param->name, AREA);
    for (int i = 1; i <= 200; i++) {
        struct tfr_xfer xfer = {
            .local = local, .peer = ends[0].peer, .peer_at = DATA_AT, .len = sizeof(local)};
        memset(local, i, sizeof(local));
        pair_put(&ends[0], &xfer);
        memset(local, 0xee, sizeof(local));
        word_put(&ends[0], 0, TFR_XFER_AFTER, FLAG_AT, (uint64_t)i);
        CONFORM_WAIT(&ends[0], word_at(&ends[1], FLAG_AT) == (uint64_t)i);
        for (size_t k = 0; k < sizeof(local); k++)
            cr_assert_eq(((uint8_t *)ends[1].area.addr)[DATA_AT + k], (uint8_t)i);
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(put, source_may_change_after_done)
{
    struct pair_end ends[2];

    pair_open_both(ends, param->name, AREA);
    for (int i = 1; i <= 100; i++) {
        uint8_t *local = (uint8_t *)ends[0].area.addr + DATA_AT;
        volatile int done = 0;
        struct tfr_xfer xfer = {.channel = 1,
                                .local = local,
                                .mem = ends[0].mem,
                                .peer = ends[0].peer,
                                .peer_at = DATA_AT,
                                .len = 5000,
                                .done = done_count,
                                .arg = (void *)&done};
        memset(local, i, 5000);
        pair_put(&ends[0], &xfer);
        CONFORM_WAIT(&ends[0], done == 1);
        memset(local, 0xee, 5000);
        word_put(&ends[0], 1, TFR_XFER_AFTER, FLAG_AT, (uint64_t)i);
        CONFORM_WAIT(&ends[0], word_at(&ends[1], FLAG_AT) == (uint64_t)i);
        for (size_t k = 0; k < 5000; k++)
            cr_assert_eq(((uint8_t *)ends[1].area.addr)[DATA_AT + k], (uint8_t)i);
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(put, is_done_exactly_once)
{
    enum { N = 500 };
    static int done[N];
    struct pair_end ends[2];

    pair_open_both(ends, param->name, AREA);
    for (int i = 0; i < N; i++) {
        struct tfr_xfer xfer = {.channel = (uint16_t)(i % TFR_CHANNELS),
                                .flags = i % 3 ? 0 : TFR_XFER_AFTER,
                                .local = ends[0].area.addr,
                                .mem = ends[0].mem,
                                .peer = ends[0].peer,
                                .peer_at = DATA_AT,
                                .len = i % 2 ? 100 : 3000,
                                .done = done_count,
                                .arg = &done[i]};
        pair_put(&ends[0], &xfer);
    }
    CONFORM_WAIT(&ends[0], sum_of(done, N) >= N);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
    for (int i = 0; i < N; i++)
        cr_assert_eq(done[i], 1);
}

CONFORM_TEST(put, outside_of_the_memory_is_refused)
{
    struct pair_end ends[2];
    uint8_t local[256] = {0};
    struct tfr_xfer xfer = {.local = local, .len = sizeof(local)};

    pair_open_both(ends, param->name, AREA);
    xfer.peer = ends[0].peer;
    xfer.peer_at = AREA - 255;
    cr_assert_eq(ends[0].ops->put(ends[0].link, &xfer), TFR_E_INVAL);
    xfer.peer_at = UINT64_MAX - 10;
    cr_assert_eq(ends[0].ops->put(ends[0].link, &xfer), TFR_E_INVAL);
    xfer.peer_at = 0;
    xfer.channel = TFR_CHANNELS;
    cr_assert_eq(ends[0].ops->put(ends[0].link, &xfer), TFR_E_INVAL);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(put, unreg_and_forget_wait_for_what_is_under_way)
{
    struct pair_end ends[2];
    struct driver driver;
    int accepted = 0;
    volatile int done = 0;

    pair_open_both(ends, param->name, AREA);
    for (int i = 0; i < 30; i++) {
        struct tfr_xfer xfer = {.local = ends[0].area.addr,
                                .mem = ends[0].mem,
                                .peer = ends[0].peer,
                                .peer_at = DATA_AT,
                                .len = 100000,
                                .done = done_count,
                                .arg = (void *)&done};
        accepted += ends[0].ops->put(ends[0].link, &xfer) == TFR_OK;
    }
    driver_start(&driver, &ends[1]);
    ends[0].ops->unreg(ends[0].mem);
    driver_stop(&driver);
    ends[0].mem = NULL;
    cr_assert_eq(done, accepted);
    cr_assert_gt(accepted, 0);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(get, reads_the_peer_s_memory_where_offered)
{
    struct pair_end ends[2];
    struct tfr_xfer xfer = {.peer_at = DATA_AT, .len = 10000};
    volatile int done = 0;
    tfr_status status;

    pair_open_both(ends, param->name, AREA);
    xfer.local = ends[0].area.addr;
    xfer.mem = ends[0].mem;
    xfer.peer = ends[0].peer;
    xfer.done = done_count;
    xfer.arg = (void *)&done;
    memset((char *)ends[1].area.addr + DATA_AT, 'g', 10000);
    if (ends[0].ops->caps & TFR_CAP_GET) {
        CONFORM_WAIT(&ends[0], (status = ends[0].ops->get(ends[0].link, &xfer)) != TFR_AGAIN);
        cr_assert_eq(status, TFR_OK);
        CONFORM_WAIT(&ends[0], done == 1);
        cr_assert_eq(((char *)ends[0].area.addr)[9999], 'g');
        xfer.peer_at = AREA - 1;
        cr_assert_eq(ends[0].ops->get(ends[0].link, &xfer), TFR_E_INVAL);
    } else {
        cr_assert_eq(ends[0].ops->get(ends[0].link, &xfer), TFR_E_UNSUP);
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

static void status_keep(void *arg, tfr_status status)
{
    *(volatile int *)arg = (int)status;
}

/* Of a NIC: where the CPU copies it ends as any wild store of the program's. */
CONFORM_TEST(get, into_memory_that_may_only_be_read_harms_nothing_else)
{
    enum { LEN = 8192, NOT_YET = 1 };
    struct tfr_area area = {.kind = TFR_AREA_HOST, .len = LEN, .fd = -1};
    struct tfr_mem *mem = NULL;
    struct pair_end ends[2];
    volatile int done = NOT_YET;

    pair_open_both(ends, param->name, AREA);
    area.addr = mmap(NULL, LEN, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(area.addr, MAP_FAILED);
    if (strcmp(param->name, "verbs") == 0 && ends[0].ops->caps & TFR_CAP_GET &&
        ends[0].ops->reg(ends[0].dev, &area, &mem) == TFR_OK) {
        struct tfr_xfer xfer = {.local = area.addr,
                                .mem = mem,
                                .peer = ends[0].peer,
                                .peer_at = DATA_AT,
                                .len = LEN,
                                .done = status_keep,
                                .arg = (void *)&done};
        tfr_status status;
        CONFORM_WAIT(&ends[0], (status = ends[0].ops->get(ends[0].link, &xfer)) != TFR_AGAIN);
        cr_assert_eq(status, TFR_OK);
        CONFORM_WAIT(&ends[0], done != NOT_YET);
        cr_assert_eq(done, TFR_E_INVAL);
        ends[0].ops->unreg(mem);
    }
    word_put(&ends[0], 0, TFR_XFER_AFTER, FLAG_AT, 7);
    CONFORM_WAIT(&ends[0], word_at(&ends[1], FLAG_AT) == 7);
    munmap(area.addr, LEN);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}
