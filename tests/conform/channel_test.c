/* Channels side by side, and what else the contract gives beyond single puts: stamps, gathering,
 * gets, memory that is not registered, landing, counts. */
#include <sched.h>
#include <stdlib.h>

#include "tests/conform/conform.h"
#include "transport/ring.h"

enum {
    AREA = 8 << 20,
    ROUNDS = 40,
    BULK_N = TFR_CHANNELS - 1,
    BULK_LEN = 150000,
    NEWS_AT = 64,
    STAMP_AT = 128, /* one word per channel */
    BULK_AT = 4096,
};

/* ---- bulk on channels of its own ---- */

struct writer {
    struct pair_end *end;
    uint16_t channel;
    bool failed;
    _Atomic uint64_t written;   /* rounds */
    const _Atomic uint64_t *go; /* the round that may be written */
    _Atomic int done;
};

static size_t bulk_at(uint16_t channel)
{
    return BULK_AT + (size_t)(channel - 1) * BULK_LEN * 2;
}

static void writer_done(void *arg, tfr_status status)
{
    struct writer *writer = arg;

    if (status == TFR_OK)
        atomic_fetch_add(&writer->done, 1);
}

/* The main thread alone calls progress. */
static void writer_put(struct writer *writer, const struct tfr_xfer *xfer)
{
    tfr_status status;

    while ((status = writer->end->ops->put(writer->end->link, xfer)) == TFR_AGAIN)
        sched_yield();
    writer->failed |= status != TFR_OK;
}

static void *writer_main(void *arg)
{
    struct writer *writer = arg;
    struct pair_end *end = writer->end;
    size_t at = bulk_at(writer->channel);

    for (uint64_t round = 1; round <= ROUNDS && !writer->failed; round++) {
        uint8_t *from = (uint8_t *)end->area.addr + at;
        struct tfr_xfer stamp = {.channel = writer->channel,
                                 .flags = TFR_XFER_AFTER,
                                 .local = &round,
                                 .peer = end->peer,
                                 .peer_at = STAMP_AT + 8 * writer->channel,
                                 .len = sizeof(round)};
        while (atomic_load(writer->go) < round)
            sched_yield();
        memset(from, (int)(round + writer->channel), BULK_LEN);
        atomic_store(&writer->done, 0);
        for (size_t half = 0; half < 2; half++) {
            struct tfr_xfer xfer = {.channel = writer->channel,
                                    .local = from + half * BULK_LEN / 2,
                                    .mem = end->mem,
                                    .peer = end->peer,
                                    .peer_at = at + half * BULK_LEN / 2,
                                    .len = BULK_LEN / 2,
                                    .done = writer_done,
                                    .arg = writer};
            writer_put(writer, &xfer);
        }
        writer_put(writer, &stamp);
        atomic_store(&writer->written, round);
        while (atomic_load(&writer->done) < 2 && !writer->failed)
            sched_yield();
    }
    return NULL;
}

static bool all_written(struct writer *writers, uint64_t round)
{
    for (int i = 0; i < BULK_N; i++)
        if (atomic_load(&writers[i].written) < round)
            return false;
    return true;
}

static bool all_stamped(const struct pair_end *end, uint64_t round)
{
    for (size_t channel = 1; channel < TFR_CHANNELS; channel++)
        if (word_at(end, STAMP_AT + 8 * channel) < round)
            return false;
    return true;
}

CONFORM_TEST(channels, bytes_are_there_when_their_stamp_is)
{
    struct pair_end ends[2];
    struct writer writers[BULK_N] = {0};
    pthread_t threads[BULK_N];
    _Atomic uint64_t go = 0;

    pair_open_both(ends, param->name, AREA);
    for (uint16_t i = 0; i < BULK_N; i++) {
        writers[i].end = &ends[0];
        writers[i].channel = i + 1;
        writers[i].go = &go;
        cr_assert_eq(pthread_create(&threads[i], NULL, writer_main, &writers[i]), 0);
    }
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        atomic_store(&go, round);
        CONFORM_WAIT(&ends[0], all_written(writers, round));
        word_put(&ends[0], 0, TFR_XFER_AFTER | TFR_XFER_BELL, NEWS_AT, round);
        CONFORM_WAIT(&ends[0], word_at(&ends[1], NEWS_AT) == round && all_stamped(&ends[1], round));
        for (uint16_t channel = 1; channel < TFR_CHANNELS; channel++) {
            const uint8_t *to = (const uint8_t *)ends[1].area.addr + bulk_at(channel);
            for (size_t k = 0; k < BULK_LEN; k++)
                cr_assert_eq(to[k], (uint8_t)(round + channel), "channel %u byte %zu", channel, k);
        }
        CONFORM_WAIT(&ends[0], atomic_load(&writers[0].done) == 2 &&
                                   atomic_load(&writers[1].done) == 2 &&
                                   atomic_load(&writers[2].done) == 2);
    }
    for (int i = 0; i < BULK_N; i++) {
        pthread_join(threads[i], NULL);
        cr_assert_not(writers[i].failed);
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

/* ---- one channel ---- */

static void done_count(void *arg, tfr_status status)
{
    if (status == TFR_OK)
        ++*(volatile int *)arg;
}

CONFORM_TEST(more, comes_with_the_put_that_it_announces)
{
    static const size_t lens[] = {8, 200, 5000, 40, 70000, 256};
    enum { N = sizeof(lens) / sizeof(lens[0]) };
    struct pair_end ends[2];

    pair_open_both(ends, param->name, AREA);
    for (uint64_t round = 1; round <= 100; round++) {
        uint16_t channel = (uint16_t)(round % TFR_CHANNELS);
        uint8_t *from = (uint8_t *)ends[0].area.addr + BULK_AT;
        size_t at = 0;
        volatile int done = 0;

        memset(from, (int)round, 100000);
        for (size_t i = 0; i < N; at += lens[i++]) {
            struct tfr_xfer xfer = {.channel = channel,
                                    .flags = TFR_XFER_MORE,
                                    .local = from + at,
                                    .mem = ends[0].mem,
                                    .peer = ends[0].peer,
                                    .peer_at = BULK_AT + at,
                                    .len = lens[i],
                                    .done = done_count,
                                    .arg = (void *)&done};
            pair_put(&ends[0], &xfer);
        }
        word_put(&ends[0], channel, TFR_XFER_AFTER | TFR_XFER_BELL, NEWS_AT, round);
        CONFORM_WAIT(&ends[0], word_at(&ends[1], NEWS_AT) == round);
        for (size_t k = 0; k < at; k++)
            cr_assert_eq(((uint8_t *)ends[1].area.addr)[BULK_AT + k], (uint8_t)round);
        CONFORM_WAIT(&ends[0], done == N);
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

/* A transport may shorten what goes where the last one went; gathered or not, on any channel. */
CONFORM_TEST(after, words_of_one_place_and_of_others_stay_apart)
{
    enum { PLACES = 3, WORDS = 400 };
    struct pair_end ends[2];
    uint64_t last[TFR_CHANNELS][PLACES] = {{0}};
    uint32_t dice = 1;

    pair_open_both(ends, param->name, AREA);
    for (uint64_t i = 1; i <= WORDS; i++) {
        uint16_t channel = (dice = dice * 1103515245 + 12345) >> 16 & (TFR_CHANNELS - 1);
        uint32_t place = (dice >> 20) % 8 % PLACES;
        uint16_t more = dice >> 24 & 1 ? TFR_XFER_MORE : 0;
        last[channel][place] = i;
        word_put(&ends[0], channel, TFR_XFER_AFTER | more,
                 NEWS_AT + (channel * PLACES + place) * 8u, i);
    }
    for (uint16_t channel = 0; channel < TFR_CHANNELS; channel++) {
        size_t end_at = NEWS_AT + (TFR_CHANNELS * PLACES + channel) * sizeof(uint64_t);
        word_put(&ends[0], channel, TFR_XFER_AFTER, end_at, 1);
        CONFORM_WAIT(&ends[0], word_at(&ends[1], end_at) == 1);
        for (uint32_t place = 0; place < PLACES; place++)
            cr_assert_eq(word_at(&ends[1], NEWS_AT + (channel * PLACES + place) * 8u),
                         last[channel][place]);
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(more, does_not_tell_of_each)
{
    struct pair_end ends[2];
    struct tfr_link_count before, after;
    uint64_t puts;

    pair_open_both(ends, param->name, AREA);
    ends[0].ops->count(ends[0].link, &before);
    for (uint64_t i = 1; i <= 320; i++)
        word_put(&ends[0], 0, i % 16 ? TFR_XFER_MORE : TFR_XFER_AFTER, NEWS_AT, i);
    CONFORM_WAIT(&ends[0], word_at(&ends[1], NEWS_AT) == 320);
    ends[0].ops->count(ends[0].link, &after);
    puts = after.puts - before.puts;
    if (after.doorbells) { /* nothing is told over shm */
        cr_assert_geq(puts, 320);
        cr_assert_geq(after.bytes - before.bytes, 320 * 8);
        if (strncmp(param->name, "fault", 5) != 0) /* which is free to tear, and tells of each */
            cr_assert_leq(after.doorbells - before.doorbells, 320 / 4);
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

/* ---- gets, and memory of any kind ---- */

static tfr_status get_start(struct pair_end *end, const struct tfr_xfer *xfer)
{
    tfr_status status;

    for (uint64_t since_ns = tfr_clock_now();
         (status = end->ops->get(end->link, xfer)) == TFR_AGAIN;) {
        pair_drive(end);
        cr_assert_lt(tfr_clock_now() - since_ns, 20 * TFR_NS_PER_S, "no get is taken");
    }
    return status;
}

static int sum_of(const volatile int *numbers, int n)
{
    int sum = 0;

    for (int i = 0; i < n; i++)
        sum += numbers[i];
    return sum;
}

CONFORM_TEST(get, many_at_once_each_is_done_once)
{
    enum { N = 400, LEN_MAX = 9000 };
    static int done[N];
    struct pair_end ends[2];
    uint8_t *to, *from;

    pair_open_both(ends, param->name, AREA);
    if (!(ends[0].ops->caps & TFR_CAP_GET))
        cr_skip("not offered");
    to = ends[0].area.addr;
    from = ends[1].area.addr;
    for (size_t k = 0; k < AREA; k++)
        from[k] = (uint8_t)(k * 7 + (k >> 9));
    for (size_t i = 0; i < N; i++) {
        struct tfr_xfer xfer = {.channel = (uint16_t)(i % TFR_CHANNELS),
                                .local = to + i * LEN_MAX,
                                .mem = ends[0].mem,
                                .peer = ends[0].peer,
                                .peer_at = i * LEN_MAX,
                                .len = 1 + i * 37 % LEN_MAX,
                                .done = done_count,
                                .arg = &done[i]};
        cr_assert_eq(get_start(&ends[0], &xfer), TFR_OK);
        if (i % 8 == 0) /* puts go on between them */
            word_put(&ends[1], (uint16_t)(i % TFR_CHANNELS), 0, AREA - 64, i);
    }
    CONFORM_WAIT(&ends[0], sum_of(done, N) >= N);
    for (size_t i = 0; i < N; i++) {
        cr_assert_eq(done[i], 1);
        cr_assert_eq(memcmp(to + i * LEN_MAX, from + i * LEN_MAX, 1 + i * 37 % LEN_MAX), 0);
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(get, large_ones_side_by_side)
{
    enum { N = 30, LEN = 260000 };
    static int done[N];
    struct pair_end ends[2];

    pair_open_both(ends, param->name, AREA);
    if (!(ends[0].ops->caps & TFR_CAP_GET))
        cr_skip("not offered");
    for (size_t k = 0; k < AREA; k++)
        ((uint8_t *)ends[1].area.addr)[k] = (uint8_t)(k * 11 + (k >> 10));
    for (size_t i = 0; i < N; i++) {
        struct tfr_xfer xfer = {.channel = 1,
                                .local = (uint8_t *)ends[0].area.addr + i * LEN,
                                .mem = ends[0].mem,
                                .peer = ends[0].peer,
                                .peer_at = i * LEN,
                                .len = LEN,
                                .done = done_count,
                                .arg = &done[i]};
        cr_assert_eq(get_start(&ends[0], &xfer), TFR_OK);
    }
    CONFORM_WAIT(&ends[0], sum_of(done, N) >= N);
    cr_assert_eq(memcmp(ends[0].area.addr, ends[1].area.addr, (size_t)N * LEN), 0);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(get, of_a_dead_peer_ends)
{
    struct pair_end ends[2];
    volatile int done = 0;
    struct tfr_xfer xfer = {.len = 100000, .done = done_count, .arg = (void *)&done};

    pair_open_both(ends, param->name, AREA);
    if (!(ends[0].ops->caps & TFR_CAP_GET) || (ends[0].ops->caps & TFR_CAP_MAPPED))
        cr_skip("not offered, or done at once");
    xfer.local = ends[0].area.addr;
    xfer.mem = ends[0].mem;
    xfer.peer = ends[0].peer;
    cr_assert_eq(get_start(&ends[0], &xfer), TFR_OK);
    pair_cut(&ends[1]);
    CONFORM_WAIT(&ends[0], ends[0].ops->progress(ends[0].link) != TFR_OK);
    ends[0].ops->unreg(ends[0].mem); /* waits for the get */
    ends[0].mem = NULL;
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(local, may_be_any_memory_where_offered)
{
    enum { LEN = 300000 };
    struct pair_end ends[2];
    uint8_t *bytes = malloc(LEN);
    volatile int done = 0;
    struct tfr_xfer xfer = {.channel = 1,
                            .local = bytes,
                            .peer_at = BULK_AT,
                            .len = LEN,
                            .done = done_count,
                            .arg = (void *)&done};

    pair_open_both(ends, param->name, AREA);
    xfer.peer = ends[0].peer;
    if (!(ends[0].ops->caps & TFR_CAP_ANY_LOCAL))
        cr_skip("not offered");
    memset(bytes, 'm', LEN);
    pair_put(&ends[0], &xfer);
    word_put(&ends[0], 1, TFR_XFER_AFTER, NEWS_AT, 1);
    CONFORM_WAIT(&ends[0], word_at(&ends[1], NEWS_AT) == 1 && done == 1);
    cr_assert_eq(memcmp((char *)ends[1].area.addr + BULK_AT, bytes, LEN), 0);
    memset(bytes, 0, LEN);
    if (ends[0].ops->caps & TFR_CAP_GET) {
        cr_assert_eq(get_start(&ends[0], &xfer), TFR_OK);
        CONFORM_WAIT(&ends[0], done == 2);
        cr_assert_eq(memcmp((char *)ends[1].area.addr + BULK_AT, bytes, LEN), 0);
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
    free(bytes);
}

/* A launch with 128 bytes of parameters, posted alone, by what verbs count. */
CONFORM_TEST(ring, a_record_is_two_requests_and_one_doorbell)
{
    enum { RECORD = 208, LAUNCHES = 60, RING = 64 << 10, HEAD_AT = 256, SPARE = 4 };
    struct tfr_link_count before, after;
    struct pair_end ends[2];
    struct tfr_ring_tx tx;

    pair_open_both(ends, param->name, AREA);
    if (strcmp(ends[0].ops->name, "verbs") != 0)
        cr_skip("verbs alone count so");
    cr_assert_eq(tfr_ring_tx_init(&tx, ends[0].dev, ends[0].link, ends[0].peer, 0, RING,
                                  (void *)((char *)ends[0].area.addr + HEAD_AT)),
                 TFR_OK);
    ends[0].ops->count(ends[0].link, &before);
    for (int i = 0; i < LAUNCHES; i++) {
        cr_assert(tfr_ring_reserve(&tx, RECORD, 1, 0));
        tfr_ring_commit(&tx);
        while (tfr_ring_flush(&tx) == TFR_AGAIN)
            pair_drive(&ends[0]);
        CONFORM_WAIT(&ends[0], word_at(&ends[1], 0) == tx.tail);
    }
    ends[0].ops->count(ends[0].link, &after);
    cr_assert_leq(after.requests - before.requests, 2 * LAUNCHES + SPARE); /* liveness */
    cr_assert_leq(after.doorbells - before.doorbells, LAUNCHES + SPARE);
    cr_assert_gt(after.inlined, before.inlined);
    /* the first word says where it goes */
    cr_assert_leq(after.inlined - before.inlined, 220 * LAUNCHES + SPARE * 8);
    tfr_ring_tx_fini(&tx);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

/* Any memory may be called a GPU's where that is registered by its address. */
CONFORM_TEST(land, of_gpu_memory_is_done_once)
{
    enum { LANDINGS = 150 };
    static _Alignas(4096) char gpu[1 << 16];
    struct pair_end ends[2];
    struct tfr_area area = {.kind = TFR_AREA_GPU, .addr = gpu, .len = sizeof(gpu), .fd = -1};
    struct tfr_landing landing = {.at = 4090, .done = done_count};
    static volatile int done[LANDINGS];
    tfr_status status;

    pair_open_both(ends, param->name, AREA);
    if (ends[1].ops->caps & TFR_CAP_GPU_MEM) {
        cr_assert_eq(ends[1].ops->reg(ends[1].dev, &area, &landing.mem), TFR_OK);
        for (size_t i = 0; i < LANDINGS; i++) {
            landing.len = 1 + i * 7;
            landing.arg = (void *)&done[i];
            while ((status = ends[1].ops->land(ends[1].link, &landing)) == TFR_AGAIN)
                pair_drive(&ends[1]);
            cr_assert_eq(status, TFR_OK);
        }
        landing.at = sizeof(gpu);
        while ((status = ends[1].ops->land(ends[1].link, &landing)) == TFR_AGAIN)
            pair_drive(&ends[1]);
        cr_assert_eq(status, TFR_E_INVAL);
        ends[1].ops->unreg(landing.mem);
        for (size_t i = 0; i < LANDINGS; i++)
            cr_assert_eq(done[i], 1);
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}

CONFORM_TEST(land, of_host_memory_is_done)
{
    struct pair_end ends[2];
    volatile int done = 0;
    struct tfr_landing landing = {
        .at = 4096, .len = 8192, .done = done_count, .arg = (void *)&done};

    pair_open_both(ends, param->name, AREA);
    landing.mem = ends[1].mem;
    for (int i = 1; i <= 50; i++) {
        tfr_status status;
        while ((status = ends[1].ops->land(ends[1].link, &landing)) == TFR_AGAIN)
            pair_drive(&ends[1]);
        cr_assert_eq(status, TFR_OK);
        CONFORM_WAIT(&ends[1], done == i);
    }
    pair_close(&ends[0]);
    pair_close(&ends[1]);
}
