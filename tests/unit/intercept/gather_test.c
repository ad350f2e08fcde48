/* intercept/gather.c: when records leave, over a transport that only counts. */
#include "kit.h"

#include "base/clock.h"
#include "intercept/bulk.h"
#include "intercept/gather.h"
#include "tfr_ops.h"

enum { RING = 1 << 16, BURST = 256, LIMIT_S = 20 };

static struct {
    struct tfr_ring_ctl ctl;
    uint8_t data[RING];
} area;
static _Atomic uint64_t credit;
static _Atomic uint32_t put_n, doorbells, busy;

static tfr_status stub_put(struct tfr_link *link, const struct tfr_xfer *xfer)
{
    (void)link;
    memcpy((uint8_t *)&area + xfer->peer_at, xfer->local, xfer->len);
    atomic_fetch_add(&put_n, 1);
    if (!(xfer->flags & TFR_XFER_MORE))
        atomic_fetch_add(&doorbells, 1);
    if (xfer->done)
        xfer->done(xfer->arg, TFR_OK);
    return TFR_OK;
}

static tfr_status stub_reg(struct tfr_dev *dev, const struct tfr_area *a, struct tfr_mem **mem_out)
{
    static struct tfr_mem mem;
    (void)a;
    mem.ops = dev->ops;
    *mem_out = &mem;
    return TFR_OK;
}

static uint32_t stub_busy(const struct tfr_link *link)
{
    (void)link;
    return atomic_load(&busy);
}

static struct tfr_transport_ops ops = {
    .name = "stub", .caps = TFR_CAP_ONESIDED, .put = stub_put, .reg = stub_reg, .busy = stub_busy};
static struct tfr_dev dev = {.ops = &ops};
static struct tfr_link link = {.ops = &ops};
static struct tfr_peer_mem peer = {.ops = &ops, .len = sizeof area};

static void session_make(bool polled)
{
    static struct tfr_client_page page;
    tfr_transport_defaults(&ops);
    tfr_client.feedback = &kit_page;
    tfr_client.page = &page;
    tfr_client.link = &link;
    tfr_client.mapped = false;
    tfr_client.polled = polled;
    cr_assert_eq(tfr_ring_tx_init(&tfr_client.tx, &dev, &link, &peer, 0, RING, &credit), TFR_OK);
    tfr_client.open = true;
    tfr_bulk_open();
}

static void post(void)
{
    struct tfr_mark_req *req = tfr_post_begin(TFR_OP_mark, sizeof *req);
    cr_assert_not_null(req);
    req->stream = 0;
    cr_assert_eq(tfr_post_end(), CUDA_SUCCESS);
}

static bool all_left(void)
{
    return atomic_load_explicit(&area.ctl.tail, memory_order_acquire) ==
           BURST * sizeof(struct tfr_mark_req);
}

static void leave_by_themselves(void)
{
    uint64_t until = tfr_clock_now() + LIMIT_S * TFR_NS_PER_S;
    while (!all_left())
        cr_assert_lt(tfr_clock_now(), until, "the helper thread sends what is left");
}

/* The helper may have been at it in between, no more often than every 10 us: a burst takes some 50,
 * unless somebody else has the core. */
static uint32_t helped_since(uint64_t begin)
{
    return (uint32_t)((tfr_clock_now() - begin) / (10 * TFR_NS_PER_US));
}

Test(gather, sends_at_once_while_little_is_under_way)
{
    session_make(false);
    for (uint32_t i = 1; i <= BURST; i++) {
        post();
        cr_assert_eq(doorbells, i);
    }
    cr_assert(all_left());
    cr_assert_eq(put_n, 2 * BURST, "a record and the tail");
}

Test(gather, rings_once_for_eight_calls_of_a_burst_at_most)
{
    session_make(false);
    atomic_store(&busy, 16);
    uint64_t begin = tfr_clock_now();
    for (int i = 0; i < BURST; i++)
        post();
    uint32_t by_helper = helped_since(begin);
    leave_by_themselves();
    cr_assert_leq(doorbells, BURST / 8 + by_helper);
}

Test(gather, goes_by_what_came_back_where_the_transport_does_not_know)
{
    session_make(true);
    for (int i = 0; i < 16; i++)
        post();
    cr_assert_eq(doorbells, 16);
    tfr_gather_seen(16);
    for (int i = 0; i < 16; i++)
        post();
    cr_assert_eq(doorbells, 32);
    uint64_t begin = tfr_clock_now();
    for (int i = 32; i < BURST; i++)
        post();
    uint32_t by_helper = helped_since(begin);
    leave_by_themselves();
    cr_assert_leq(doorbells, 32 + (BURST - 32) / 8 + by_helper);
}

Test(gather, sends_first_what_a_thread_waits_for)
{
    session_make(false);
    atomic_store(&busy, 16);
    for (int i = 0; i < BURST; i++)
        post();
    tfr_post_flush();
    cr_assert(all_left());
    cr_assert_not(tfr_gather_any());
}
