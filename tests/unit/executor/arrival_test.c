/* Stamps: a record whose bytes are on their way waits for them, and nobody else does. */
#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "rogue.h"
#include "tfr_ops.h"

TestSuite(arrival, .init = rogue_executor_start, .fini = rogue_executor_stop, .timeout = 240);

enum { LEN = 1 << 16, LIMIT_S = 30 };

struct scene {
    struct rogue r;
    uint64_t legacy, other, memory;
    uint8_t *lane;
    struct tfr_client_page *page;
};

static void answered(struct scene *s, uint32_t slot)
{
    struct tfr_page_area *area = s->r.page.addr;
    uint64_t until = tfr_clock_now() + LIMIT_S * TFR_NS_PER_S;
    while (atomic_load_explicit(&area->reply[slot].seq, memory_order_acquire) != s->r.tx.seq)
        cr_assert_lt(tfr_clock_now(), until, "an answer");
}

static void scene_make(struct scene *s)
{
    struct tfr_page_area *area;
    rogue_attach(&s->r);
    s->legacy = rogue_context(&s->r);
    area = s->r.page.addr;
    s->other = tfr_id_make(TFR_KIND_STREAM, 1, 1);
    struct tfr_stream_new_req stream = {
        .stream = s->other, .word = 1, .flags = CU_STREAM_NON_BLOCKING};
    rogue_post(&s->r, TFR_OP_stream_new, &stream.stream, sizeof stream - sizeof stream.head);
    struct tfr_alloc_req alloc = {.slot = 1, .len = LEN};
    rogue_post(&s->r, TFR_OP_alloc, &alloc.slot, sizeof alloc - sizeof alloc.head);
    answered(s, 1);
    cr_assert_eq(area->reply[1].result, CUDA_SUCCESS);
    memcpy(&s->memory, area->reply[1].payload, sizeof s->memory);
    uint8_t *base = s->r.link->ops->addr(s->r.session);
    s->lane = base + s->r.welcome.lane_at;
    s->page = (struct tfr_client_page *)(base + s->r.welcome.page_at);
}

/* Lane bytes [0, LEN) to the device, and back to [LEN, 2 * LEN). */
static void there_and_back(struct scene *s, uint64_t stream, uint64_t stamp)
{
    struct tfr_copy_req there = {
        .stream = stream, .dst = s->memory, .len = LEN, .kind = TFR_COPY_PUSH, .stamp = stamp};
    struct tfr_copy_req back = {.stream = stream,
                                .dst = tfr_place_make(0, LEN),
                                .src = s->memory,
                                .len = LEN,
                                .kind = TFR_COPY_PULL,
                                .flags = TFR_COPY_MARK};
    rogue_post(&s->r, TFR_OP_copy, &there.stream, sizeof there - sizeof there.head);
    rogue_post(&s->r, TFR_OP_copy, &back.stream, sizeof back - sizeof back.head);
}

static bool passes(struct scene *s, uint32_t word, uint64_t seq, uint64_t limit_ns)
{
    uint64_t until = tfr_clock_now() + limit_ns;
    while (atomic_load_explicit(&rogue_page(&s->r)->stream[word], memory_order_acquire) < seq)
        if (tfr_clock_now() > until)
            return false;
    return true;
}

static void mark(struct scene *s, uint64_t stream)
{
    struct tfr_mark_req req = {.stream = stream};
    rogue_post(&s->r, TFR_OP_mark, &req.stream, sizeof req - sizeof req.head);
}

Test(arrival, record_before_its_bytes_parks_its_stream_alone)
{
    struct scene s;
    scene_make(&s);
    memset(s.lane, 1, LEN);
    there_and_back(&s, s.other, tfr_stamp_make(2, 1));
    uint64_t held = s.r.tx.seq;
    mark(&s, s.legacy);
    cr_assert(passes(&s, 0, s.r.tx.seq, LIMIT_S * TFR_NS_PER_S), "other streams go on");
    cr_assert_not(passes(&s, 1, held, 50 * TFR_NS_PER_MS), "its own waits");
    memset(s.lane, 7, LEN);
    atomic_store_explicit(&s.page->arrived[2], 1, memory_order_release);
    cr_assert(passes(&s, 1, held, LIMIT_S * TFR_NS_PER_S));
    cr_assert_eq(memcmp(s.lane, s.lane + LEN, LEN), 0, "the bytes that came late");
    rogue_leave(&s.r);
}

Test(arrival, bytes_before_their_record_are_taken_at_once)
{
    struct scene s;
    scene_make(&s);
    memset(s.lane, 9, LEN);
    atomic_store_explicit(&s.page->arrived[1], 5, memory_order_release);
    there_and_back(&s, s.legacy, tfr_stamp_make(1, 5));
    cr_assert(passes(&s, 0, s.r.tx.seq, LIMIT_S * TFR_NS_PER_S));
    cr_assert_eq(memcmp(s.lane, s.lane + LEN, LEN), 0);
    rogue_leave(&s.r);
}

Test(arrival, stamp_that_never_comes_hurts_its_own_streams_only)
{
    struct scene s;
    scene_make(&s);
    for (int i = 0; i < 100; i++)
        there_and_back(&s, s.other, tfr_stamp_make(3, UINT32_MAX));
    mark(&s, s.legacy);
    cr_assert(passes(&s, 0, s.r.tx.seq, LIMIT_S * TFR_NS_PER_S));
    rogue_daemon_serves();
    rogue_leave(&s.r);
    rogue_daemon_serves();
}

Test(arrival, stamp_of_no_channel_ends_the_session)
{
    static const uint64_t wrong[] = {1 << TFR_STAMP_SHIFT, UINT64_MAX,
                                     1 << TFR_STAMP_SHIFT | TFR_STAMPS};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct scene s;
        scene_make(&s);
        there_and_back(&s, s.legacy, wrong[i]);
        cr_assert(rogue_ends(&s.r));
    }
    rogue_daemon_serves();
}

Test(arrival, record_of_no_stream_that_waits_for_bytes_is_an_error_of_the_call)
{
    struct scene s;
    scene_make(&s);
    struct tfr_copy_req copy = {
        .dst = s.memory, .len = LEN, .kind = TFR_COPY_PUSH, .stamp = tfr_stamp_make(1, 1)};
    uint64_t until = tfr_clock_now() + LIMIT_S * TFR_NS_PER_S;
    rogue_post(&s.r, TFR_OP_copy, &copy.stream, sizeof copy - sizeof copy.head);
    usleep(50000); /* so that it is kept */
    atomic_store_explicit(&s.page->arrived[1], 1, memory_order_release);
    while (!atomic_load_explicit(&rogue_page(&s.r)->sticky, memory_order_acquire))
        cr_assert_lt(tfr_clock_now(), until, "an error, and not the worker's end");
    cr_assert_eq(atomic_load(&rogue_page(&s.r)->sticky), CUDA_ERROR_INVALID_HANDLE);
    rogue_leave(&s.r);
}

Test(arrival, place_in_a_lane_that_is_none_ends_the_session)
{
    struct scene s;
    scene_make(&s);
    struct tfr_copy_req req = {.stream = s.legacy,
                               .dst = s.memory,
                               .src = tfr_place_make(1, 0),
                               .len = 16,
                               .kind = TFR_COPY_PUSH};
    rogue_post(&s.r, TFR_OP_copy, &req.stream, sizeof req - sizeof req.head);
    cr_assert(rogue_ends(&s.r));
    rogue_daemon_serves();
}

Test(arrival, piece_of_an_image_is_answered_when_it_has_come)
{
    struct scene s;
    scene_make(&s);
    struct tfr_page_area *area = s.r.page.addr;
    struct tfr_image_put_req req = {.slot = 2,
                                    .image = tfr_id_make(TFR_KIND_IMAGE, 1, 0),
                                    .total = 64,
                                    .len = 64,
                                    .stamp = tfr_stamp_make(1, 1)};
    rogue_post(&s.r, TFR_OP_image_put, &req.slot, sizeof req - sizeof req.head);
    usleep(50000);
    cr_assert_neq(atomic_load(&area->reply[2].seq), s.r.tx.seq);
    atomic_store_explicit(&s.page->arrived[1], 1, memory_order_release);
    answered(&s, 2);
    cr_assert_eq(area->reply[2].result, CUDA_SUCCESS);
    rogue_leave(&s.r);
}
