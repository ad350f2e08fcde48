/* The end of a session: its link is closed before anything of its memory is given back, and a
 * transfer that has been settled writes nothing any more.  The transport is the test: it ends no
 * transfer before it is closed. */
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "intercept/bulk.h"
#include "kit.h"

static struct tfr_client_page page;
static struct tfr_xfer under_way;
static _Atomic int arms, closes, unregs, pending;
static int bell;
static useconds_t close_us;

static tfr_status get(struct tfr_link *link, const struct tfr_xfer *xfer)
{
    (void)link;
    under_way = *xfer;
    pending++;
    return TFR_OK;
}

static tfr_status arm(struct tfr_link *link, int *fd_out)
{
    (void)link;
    arms++;
    *fd_out = bell;
    return TFR_OK;
}

static void disarm(struct tfr_link *link)
{
    (void)link;
    cr_assert_eq(closes, 0, "somebody sleeps on a link that is closed");
    arms--;
}

static tfr_status progress(struct tfr_link *link)
{
    (void)link;
    cr_assert_eq(closes, 0, "a closed link is progressed");
    return TFR_OK;
}

static void close_link(struct tfr_link *link)
{
    (void)link;
    cr_assert_eq(arms, 0, "closed while somebody sleeps on it");
    usleep(close_us);
    for (; pending; pending--)
        under_way.done(under_way.arg, TFR_E_PEER);
    closes++;
}

static void count(const struct tfr_link *link, struct tfr_link_count *count_out)
{
    (void)link;
    cr_assert_eq(closes, 0, "a closed link is asked");
    *count_out = (struct tfr_link_count){0};
}

static uint32_t spread(const struct tfr_link *link)
{
    (void)link;
    return 1;
}

static void unreg(struct tfr_mem *mem)
{
    (void)mem;
    cr_assert_eq(closes, 1, "memory goes before the link");
    unregs++;
}

static void release(struct tfr_dev *dev)
{
    (void)dev;
}

static const struct tfr_transport_ops ops = {.name = "none",
                                             .get = get,
                                             .arm = arm,
                                             .disarm = disarm,
                                             .progress = progress,
                                             .count = count,
                                             .spread = spread,
                                             .close = close_link,
                                             .unreg = unreg,
                                             .release = release};
static struct tfr_link fake_link = {.ops = &ops};
static struct tfr_dev fake_dev = {.ops = &ops};
static struct tfr_mem fake_shown = {.ops = &ops}, fake_pinned = {.ops = &ops};
static struct tfr_peer_mem fake_session = {.ops = &ops};

static void set_up(void)
{
    kit_lane(4 * TFR_LANE_CHUNK);
    bell = eventfd(0, EFD_CLOEXEC);
    tfr_client.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    tfr_client.mapped = false;
    tfr_client.gets = true;
    tfr_client.page = &page;
    tfr_client.link = &fake_link;
    tfr_client.dev = &fake_dev;
    tfr_client.shown = &fake_shown;
    tfr_client.session = &fake_session;
    tfr_client.open = true;
    tfr_client.tx.seq = 7;
    tfr_bulk_open();
    atomic_store(&tfr_client.linked, true);
    atomic_store(&tfr_client.attached, true);
}
TestSuite(cut, .init = set_up, .timeout = 120);

static struct tfr_extent get_something(void)
{
    struct tfr_extent extent;
    struct tfr_load load = {.extent = &extent, .len = 4096};
    cr_assert_eq(tfr_lane_take(load.len, &extent), CUDA_SUCCESS);
    cr_assert_eq(tfr_bulk_get(&load), CUDA_SUCCESS);
    return extent;
}

Test(cut, what_is_settled_in_a_lost_session_is_written_no_more)
{
    struct tfr_extent extent = get_something();
    tfr_client_broken(NULL);
    tfr_lane_settle(&extent);
    cr_assert_eq(pending, 0, "the transfer is still under way");
    cr_assert_eq(closes, 1);
    struct tfr_load load = {.extent = &extent, .len = 4096};
    cr_assert_eq(tfr_bulk_get(&load), CUDA_ERROR_DEVICE_UNAVAILABLE);
}

Test(cut, an_extent_of_an_older_session_goes_nowhere)
{
    struct tfr_extent extent;
    struct tfr_load load = {.extent = &extent, .len = 4096};
    cr_assert_eq(tfr_lane_take(load.len, &extent), CUDA_SUCCESS);
    tfr_client.session_at++;
    cr_assert_eq(tfr_bulk_get(&load), CUDA_ERROR_CONTEXT_IS_DESTROYED);
    cr_assert_eq(pending, 0);
}

static void *settle(void *extent)
{
    tfr_lane_settle(extent);
    cr_assert_eq(closes, 1, "settled before the link was closed");
    return NULL;
}

Test(cut, who_comes_while_another_thread_closes_the_link_waits_for_it)
{
    struct tfr_extent extent = get_something();
    pthread_t threads[3];
    close_us = 200000;
    tfr_client_broken(NULL);
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, settle, &extent);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(pending, 0);
}

static void *wait_for_ever(void *arg)
{
    (void)arg;
    return (void *)(uintptr_t)tfr_wait_word(&kit_page.stream[1], 7, TFR_WAIT_STREAM);
}

Test(cut, nobody_sleeps_on_the_link_when_it_is_closed)
{
    struct tfr_extent extent = get_something();
    pthread_t thread;
    void *result;
    pthread_create(&thread, NULL, wait_for_ever, NULL);
    while (!arms)
        usleep(1000);
    tfr_client_broken(NULL);
    tfr_lane_settle(&extent);
    cr_assert_eq(closes, 1);
    pthread_join(thread, &result);
    cr_assert_eq((uintptr_t)result, CUDA_ERROR_DEVICE_UNAVAILABLE);
}

Test(cut, a_session_that_is_well_is_not_cut)
{
    tfr_client_cut();
    cr_assert_eq(closes, 0);
}

Test(cut, a_detach_closes_the_link_before_it_gives_memory_back)
{
    const struct tfr_range range = {
        .base = 0x10000, .len = 4096, .kind = TFR_RANGE_REGISTERED, .mem = &fake_pinned};
    struct tfr_extent extent = get_something();
    cr_assert(tfr_range_add(&range));
    tfr_client_detach();
    cr_assert_eq(closes, 1);
    cr_assert_eq(unregs, 2, "pinned memory, and what the peer was shown");
    tfr_lane_settle(&extent);
    cr_assert_eq(tfr_client.error, CUDA_SUCCESS, "another session may follow");
}

Test(cut, a_detach_of_a_lost_session_that_is_cut_closes_nothing_twice)
{
    struct tfr_extent extent = get_something();
    tfr_client_broken(NULL);
    tfr_lane_settle(&extent);
    tfr_client_detach();
    cr_assert_eq(closes, 1);
    cr_assert_eq(tfr_client.error, CUDA_ERROR_DEVICE_UNAVAILABLE);
}

Test(cut, who_waits_for_what_an_older_session_was_given_is_told)
{
    cr_assert_eq(tfr_wait_word(&kit_page.stream[1], tfr_client.tx.seq + 1, TFR_WAIT_STREAM),
                 CUDA_ERROR_CONTEXT_IS_DESTROYED);
}
