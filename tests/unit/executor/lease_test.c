/* A client that asks for windows and chunks of memory as it may not. */
#include <criterion/criterion.h>

#include "base/clock.h"
#include "rogue.h"
#include "tfr_ops.h"

TestSuite(hostile_lease, .init = rogue_executor_start, .fini = rogue_executor_stop, .timeout = 240);

enum { CHUNK = 2 << 20, WINDOW_LEN = 1 << 30 };
static const uint64_t window_at = 0x200000000000;

/* Posts an asked record and waits for its answer in slot 2. */
static CUresult asked(struct rogue *r, uint16_t op, void *body, size_t len)
{
    struct tfr_page_area *page = r->page.addr;
    ((uint32_t *)body)[0] = 2;
    rogue_post(r, op, body, (uint32_t)len);
    uint64_t until = tfr_clock_now() + ROGUE_LIMIT_NS;
    while (atomic_load_explicit(&page->reply[2].seq, memory_order_acquire) != r->tx.seq)
        cr_assert_lt(tfr_clock_now(), until, "it was answered");
    return (CUresult)page->reply[2].result;
}

static CUresult window(struct rogue *r, uint64_t base, uint64_t *base_out)
{
    struct tfr_window_req req = {.base_n = 1, .len = WINDOW_LEN, .base = {base}};
    const struct tfr_page_area *page = r->page.addr;
    CUresult result = asked(r, TFR_OP_window, &req.slot, sizeof req - sizeof req.head);
    *base_out = ((const struct tfr_window_rep *)page->reply[2].payload)->base;
    return result;
}

static CUresult grow(struct rogue *r, uint64_t at, uint64_t len)
{
    struct tfr_lease_grow_req req = {.at = at, .len = len};
    return asked(r, TFR_OP_lease_grow, &req.slot, sizeof req - sizeof req.head);
}

static void with_window(struct rogue *r)
{
    uint64_t base;
    rogue_attach(r);
    rogue_context(r);
    cr_assert_eq(window(r, window_at, &base), CUDA_SUCCESS);
    cr_assert_eq(base, window_at);
}

static void grow_ends_it(struct rogue *r, uint64_t at, uint64_t len)
{
    struct tfr_lease_grow_req req = {.slot = 2, .at = at, .len = len};
    rogue_post(r, TFR_OP_lease_grow, &req.slot, sizeof req - sizeof req.head);
    cr_assert(rogue_ends(r));
    rogue_daemon_serves();
}

Test(hostile_lease, window_that_the_driver_does_not_give_is_none)
{
    struct rogue r;
    uint64_t base;
    rogue_attach(&r);
    rogue_context(&r);
    cr_assert_eq(window(&r, 0x123456789, &base), CUDA_SUCCESS);
    cr_assert_eq(base, 0);
    cr_assert_eq(window(&r, window_at, &base), CUDA_SUCCESS);
    cr_assert_eq(base, window_at);
    cr_assert_eq(window(&r, window_at, &base), CUDA_ERROR_INVALID_VALUE, "a second window");
}

Test(hostile_lease, chunk_outside_of_the_window_ends_the_session)
{
    struct rogue r;
    with_window(&r);
    grow_ends_it(&r, window_at + WINDOW_LEN - CHUNK, 2 * CHUNK);
}

Test(hostile_lease, chunk_before_the_window_ends_the_session)
{
    struct rogue r;
    with_window(&r);
    grow_ends_it(&r, window_at - CHUNK, CHUNK);
}

Test(hostile_lease, chunk_over_another_ends_the_session)
{
    struct rogue r;
    with_window(&r);
    cr_assert_eq(grow(&r, window_at + 2 * CHUNK, 2 * CHUNK), CUDA_SUCCESS);
    cr_assert_eq(grow(&r, window_at, 2 * CHUNK), CUDA_SUCCESS, "beside it");
    grow_ends_it(&r, window_at + 3 * CHUNK, CHUNK);
}

Test(hostile_lease, chunk_of_no_bytes_ends_the_session)
{
    struct rogue r;
    with_window(&r);
    grow_ends_it(&r, window_at, 0);
}

Test(hostile_lease, chunk_without_a_window_ends_the_session)
{
    struct rogue r;
    rogue_attach(&r);
    rogue_context(&r);
    grow_ends_it(&r, window_at, CHUNK);
}

Test(hostile_lease, chunk_that_is_dropped_is_free_again)
{
    struct rogue r;
    with_window(&r);
    cr_assert_eq(grow(&r, window_at, CHUNK), CUDA_SUCCESS);
    struct tfr_mem_info_req info = {0};
    const struct tfr_page_area *page = r.page.addr;
    cr_assert_eq(asked(&r, TFR_OP_mem_info, &info.slot, 8), CUDA_SUCCESS);
    uint64_t left = ((const struct tfr_mem_info_rep *)page->reply[2].payload)->free;
    struct tfr_lease_drop_req drop = {.at = window_at};
    cr_assert_eq(asked(&r, TFR_OP_lease_drop, &drop.slot, sizeof drop - sizeof drop.head),
                 CUDA_SUCCESS);
    cr_assert_eq(asked(&r, TFR_OP_mem_info, &info.slot, 8), CUDA_SUCCESS);
    cr_assert_eq(((const struct tfr_mem_info_rep *)page->reply[2].payload)->free, left + CHUNK);
}

Test(hostile_lease, drop_of_what_is_no_chunk_ends_the_session)
{
    struct rogue r;
    with_window(&r);
    cr_assert_eq(grow(&r, window_at, 2 * CHUNK), CUDA_SUCCESS);
    struct tfr_lease_drop_req req = {.slot = 2, .at = window_at + CHUNK};
    rogue_post(&r, TFR_OP_lease_drop, &req.slot, sizeof req - sizeof req.head);
    cr_assert(rogue_ends(&r));
    rogue_daemon_serves();
}
