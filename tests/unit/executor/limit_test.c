/* What a client may hold, and for how long: beyond that it hurts itself alone. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "rogue.h"
#include "tfr_ops.h"

enum { IMAGE_LEN = 600 << 10, ROUNDS = 20 };

static void start(void)
{
    setenv("TFR_IMAGE_LIMIT", "1m", 1);
    rogue_executor_start();
}

static void start_impatient(void)
{
    setenv("TFR_JOIN_MS", "300", 1);
    rogue_executor_start();
}

TestSuite(limit, .init = start, .fini = rogue_executor_stop, .timeout = 240);
TestSuite(join, .init = start_impatient, .fini = rogue_executor_stop, .timeout = 240);

static CUresult answer(struct rogue *r, uint32_t slot)
{
    struct tfr_page_area *page = r->page.addr;
    uint64_t until = tfr_clock_now() + ROGUE_LIMIT_NS;
    while (atomic_load_explicit(&page->reply[slot].seq, memory_order_acquire) != r->tx.seq)
        cr_assert_lt(tfr_clock_now(), until);
    return (CUresult)page->reply[slot].result;
}

static uint64_t image_id(uint32_t at)
{
    return tfr_id_make(TFR_KIND_IMAGE, 1, at);
}

static CUresult image_put(struct rogue *r, uint32_t at)
{
    struct tfr_image_put_req req = {
        .slot = 1, .image = image_id(at), .total = IMAGE_LEN, .len = IMAGE_LEN};
    rogue_post(r, TFR_OP_image_put, &req.slot, sizeof req - sizeof req.head);
    return answer(r, 1);
}

static CUresult image_free(struct rogue *r, uint32_t at)
{
    struct tfr_image_free_req req = {.slot = 1, .image = image_id(at)};
    rogue_post(r, TFR_OP_image_free, &req.slot, sizeof req - sizeof req.head);
    return answer(r, 1);
}

Test(limit, images_beyond_it_are_refused_until_others_are_freed)
{
    struct rogue r;
    rogue_attach(&r);
    rogue_context(&r);
    cr_assert_eq(image_put(&r, 0), CUDA_SUCCESS);
    cr_assert_eq(image_put(&r, 1), CUDA_ERROR_OUT_OF_MEMORY);
    cr_assert_eq(image_free(&r, 7), CUDA_ERROR_INVALID_HANDLE);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint64_t until = tfr_clock_now() + ROGUE_LIMIT_NS;
        cr_assert_eq(image_free(&r, i), CUDA_SUCCESS);
        while (image_put(&r, i + 1) != CUDA_SUCCESS) { /* it goes when nobody can be reading it */
            cr_assert_lt(tfr_clock_now(), until);
            usleep(1000);
        }
    }
    rogue_daemon_serves();
}

Test(limit, an_image_that_was_freed_is_none)
{
    struct rogue r;
    rogue_attach(&r);
    rogue_context(&r);
    cr_assert_eq(image_put(&r, 0), CUDA_SUCCESS);
    cr_assert_eq(image_free(&r, 0), CUDA_SUCCESS);
    struct tfr_module_load_req req = {
        .slot = 1, .image = image_id(0), .id = tfr_id_make(TFR_KIND_MODULE, 1, 0)};
    rogue_post(&r, TFR_OP_module_load, &req.slot, sizeof req - sizeof req.head);
    cr_assert(rogue_ends(&r));
    rogue_daemon_serves();
}

Test(join, who_shows_no_memory_in_time_loses_the_worker)
{
    struct tfr_boot boot;
    struct tfr_boot_msg msg = {.type = TFR_BOOT_QUEUED};
    cr_assert_eq(rogue_greet(rogue_hello(), &boot), TFR_BOOT_SNAPSHOT);
    rogue_send(&boot, TFR_BOOT_ATTACH, &rogue_over_shm, sizeof rogue_over_shm);
    while (msg.type != TFR_BOOT_WELCOME) {
        cr_assert_eq(tfr_boot_recv(&boot, &msg, ROGUE_LIMIT_MS), TFR_OK);
        tfr_boot_msg_fini(&msg);
    }
    cr_assert_eq(tfr_boot_recv(&boot, &msg, ROGUE_LIMIT_MS), TFR_E_PEER);
    tfr_boot_close(&boot);
    rogue_daemon_serves();
}
