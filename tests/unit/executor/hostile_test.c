/* A client that breaks the rules ends its own session and nothing else: each test talks to a real
 * tf-executor on the software GPU, does one wrong thing, and then asks whether the daemon still
 * serves. */
#include <criterion/criterion.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "rogue.h"
#include "tfr_ops.h"

TestSuite(hostile, .init = rogue_executor_start, .fini = rogue_executor_stop, .timeout = 240);

Test(hostile, hello_of_another_release_is_refused_with_a_reason)
{
    struct tfr_hello hello = rogue_hello();
    struct tfr_boot boot;
    hello.edition.version ^= 1;
    cr_assert_eq(rogue_greet(hello, &boot), TFR_BOOT_REFUSED);
    rogue_daemon_serves();
}

Test(hostile, hello_that_is_none_closes_the_connection)
{
    struct tfr_hello hello = rogue_hello();
    struct tfr_boot boot;
    hello.edition.magic = 0;
    cr_assert_eq(rogue_greet(hello, &boot), 0);
    cr_assert_eq(tfr_boot_connect(rogue_addr, 3000, &boot), TFR_OK);
    cr_assert_eq(send(boot.fd, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL), 18);
    rogue_daemon_serves();
}

Test(hostile, silent_connections_do_not_keep_others_out)
{
    struct tfr_boot boot[40];
    for (int i = 0; i < 40; i++)
        cr_assert_eq(tfr_boot_connect(rogue_addr, 3000, &boot[i]), TFR_OK);
    rogue_daemon_serves();
}

Test(hostile, unknown_op_ends_the_session)
{
    struct rogue r;
    rogue_attach(&r);
    rogue_post(&r, 0x7777, NULL, 0);
    cr_assert(rogue_ends(&r));
    rogue_daemon_serves();
}

Test(hostile, record_shorter_than_its_op_ends_the_session)
{
    struct rogue r;
    rogue_attach(&r);
    rogue_context(&r);
    rogue_post(&r, TFR_OP_launch, NULL, 0);
    cr_assert(rogue_ends(&r));
    rogue_daemon_serves();
}

/* One context record with these; the legacy stream's id and word are sound. */
static void context_wrong(uint32_t device, uint32_t at)
{
    struct rogue r;
    rogue_attach(&r);
    rogue_context(&r);
    struct tfr_context_req req = {
        .legacy = tfr_id_make(TFR_KIND_STREAM, 1, 1), .legacy_word = 1, .device = device, .at = at};
    rogue_post(&r, TFR_OP_context, &req.slot, sizeof req - sizeof req.head);
    cr_assert(rogue_ends(&r), "device %u, slot %u", device, at);
}

Test(hostile, context_in_a_slot_that_is_none_ends_the_session)
{
    context_wrong(0, 0);
    context_wrong(0, 2);
    context_wrong(0, TFR_DEVICES_MAX);
    context_wrong(0, TFR_CONTEXTS_MAX + 1);
    context_wrong(0, UINT32_MAX);
    context_wrong(TFR_DEVICES_MAX, TFR_DEVICES_MAX + 1);
    rogue_daemon_serves();
}

Test(hostile, end_of_a_context_that_is_none_ends_the_session)
{
    static const uint32_t none[] = {0, 2, TFR_DEVICES_MAX + 1, TFR_CONTEXTS_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        struct rogue r;
        rogue_attach(&r);
        rogue_context(&r);
        struct tfr_context_free_req req = {.at = none[i]};
        rogue_post(&r, TFR_OP_context_free, &req.slot, sizeof req - sizeof req.head);
        cr_assert(rogue_ends(&r), "slot %u", none[i]);
    }
    rogue_daemon_serves();
}

Test(hostile, access_to_a_context_that_is_none_ends_the_session)
{
    static const uint32_t none[] = {0, 2, TFR_CONTEXTS_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        struct rogue r;
        rogue_attach(&r);
        rogue_context(&r);
        struct tfr_peer_access_req req = {.peer = none[i], .on = 1};
        rogue_post(&r, TFR_OP_peer_access, &req.slot, sizeof req - sizeof req.head);
        cr_assert(rogue_ends(&r), "slot %u", none[i]);
    }
    rogue_daemon_serves();
}

Test(hostile, attributes_outside_of_their_record_end_the_session)
{
    static const uint32_t many[] = {1, TFR_LAUNCH_ATTRS_MAX, TFR_LAUNCH_ATTRS_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++) {
        struct rogue r;
        rogue_attach(&r);
        rogue_context(&r);
        struct tfr_clusters_req req = {.attr_n = many[i]};
        rogue_post(&r, TFR_OP_clusters, &req.slot, sizeof req - sizeof req.head);
        cr_assert(rogue_ends(&r), "%u attributes", many[i]);
    }
    rogue_daemon_serves();
}

/* What slot 0 is answered, once it is. */
static uint32_t answer(struct rogue *r)
{
    struct tfr_page_area *page = r->page.addr;
    uint64_t until = tfr_clock_now() + ROGUE_LIMIT_NS;
    while (atomic_load_explicit(&page->reply[0].seq, memory_order_acquire) != r->tx.seq)
        cr_assert_lt(tfr_clock_now(), until, "it was answered");
    return page->reply[0].result;
}

/* A driver would write there. */
Test(hostile, addresses_among_the_options_of_a_link_are_refused)
{
    static const uint32_t address[] = {CU_JIT_INFO_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER,
                                       CU_JIT_GLOBAL_SYMBOL_ADDRESSES, UINT32_MAX};
    struct rogue r;
    rogue_attach(&r);
    rogue_context(&r);
    for (size_t i = 0; i < sizeof address / sizeof address[0]; i++) {
        struct tfr_link_req req = {.verb = TFR_LINK_CREATE,
                                   .id = tfr_id_make(TFR_KIND_LINK, 1, (uint32_t)i),
                                   .option_n = 1,
                                   .option = {address[i]},
                                   .value = {4096}};
        rogue_post(&r, TFR_OP_link, &req.slot, sizeof req - sizeof req.head);
        cr_assert_eq(answer(&r), CUDA_ERROR_INVALID_VALUE, "option %u", address[i]);
    }
    rogue_daemon_serves();
}

/* A driver would follow them. */
Test(hostile, handles_among_the_attributes_of_a_launch_are_refused)
{
    static const uint32_t handle[] = {CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT,
                                      CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT,
                                      CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE, UINT32_MAX};
    struct rogue r;
    rogue_attach(&r);
    rogue_context(&r);
    for (size_t i = 0; i < sizeof handle / sizeof handle[0]; i++) {
        struct {
            struct tfr_clusters_req req;
            struct tfr_launch_attr attr;
        } body = {.req = {.attr_n = 1}, .attr = {.id = handle[i]}};
        memset(body.attr.value, 0x55, sizeof body.attr.value);
        rogue_post(&r, TFR_OP_clusters, &body.req.slot, sizeof body - sizeof body.req.head);
        cr_assert_eq(answer(&r), CUDA_ERROR_NOT_SUPPORTED, "attribute %u", handle[i]);
    }
    rogue_daemon_serves();
}

/* Each would get a thread that waits for the gate. */
Test(hostile, calls_without_number_that_all_wait_end_the_session)
{
    struct rogue r;
    rogue_attach(&r);
    struct tfr_gate_req gate = {.stream = rogue_context(&r)};
    rogue_post(&r, TFR_OP_gate, &gate.stream, sizeof gate - sizeof gate.head);
    struct tfr_context_free_req end = {.at = 1};
    for (int i = 0; i < 4 * TFR_REPLY_SLOTS; i++)
        rogue_post(&r, TFR_OP_context_free, &end.slot, sizeof end - sizeof end.head);
    cr_assert(rogue_ends(&r));
    rogue_daemon_serves();
}

/* The slot is empty from then on, and what was in it has no name. */
Test(hostile, stream_of_an_ended_context_is_an_error_of_the_session_only)
{
    struct rogue r;
    rogue_attach(&r);
    uint64_t legacy = rogue_context(&r);
    struct tfr_context_free_req end = {.at = 1};
    rogue_post(&r, TFR_OP_context_free, &end.slot, sizeof end - sizeof end.head);
    struct tfr_page_area *page = r.page.addr;
    uint64_t until = tfr_clock_now() + ROGUE_LIMIT_NS;
    while (atomic_load_explicit(&page->reply[0].seq, memory_order_acquire) != r.tx.seq)
        cr_assert_lt(tfr_clock_now(), until, "the end was answered");
    struct tfr_mark_req mark = {.stream = legacy};
    rogue_post(&r, TFR_OP_mark, &mark.stream, sizeof mark - sizeof mark.head);
    while (!atomic_load_explicit(&rogue_page(&r)->sticky, memory_order_acquire))
        cr_assert_lt(tfr_clock_now(), until);
    rogue_daemon_serves();
}

Test(hostile, size_beyond_the_ring_ends_the_session)
{
    struct rogue r;
    rogue_attach(&r);
    struct tfr_rec *rec = tfr_ring_reserve(&r.tx, 64, TFR_OP_mark, 1);
    rec->size = 0xfffffff0u;
    tfr_ring_commit(&r.tx);
    cr_assert(rogue_ends(&r));
    rogue_daemon_serves();
}

Test(hostile, copy_outside_of_the_lane_ends_the_session)
{
    struct rogue r;
    rogue_attach(&r);
    struct tfr_copy_req req = {.stream = rogue_context(&r),
                               .dst = 4096,
                               .src = UINT64_MAX - 10,
                               .len = 64,
                               .kind = TFR_COPY_PUSH};
    rogue_post(&r, TFR_OP_copy, &req.stream, sizeof req - sizeof req.head);
    cr_assert(rogue_ends(&r));
    rogue_daemon_serves();
}

/* Each of them reaches beyond the lane, or is none. */
static void rect_refused(const struct tfr_rect_req *wrong)
{
    struct rogue r;
    rogue_attach(&r);
    struct tfr_rect_req req = *wrong;
    req.stream = rogue_context(&r);
    rogue_post(&r, TFR_OP_rect, &req.stream, sizeof req - sizeof req.head);
    cr_assert(rogue_ends(&r));
}

/* Of 2 MiB of lane, so many copies that no two of 4 KiB are apart. */
Test(hostile, copies_home_without_an_end_end_the_session)
{
    struct rogue r;
    rogue_attach_over(&r, "fault");
    struct tfr_copy_req copy = {.stream = rogue_context(&r), .kind = TFR_COPY_PULL, .len = 8};
    copy.src = rogue_memory(&r, 4096);
    for (int i = 0; i < 600 && !tfr_boot_gone(&r.boot); i++)
        rogue_post(&r, TFR_OP_copy, &copy.stream, sizeof copy - sizeof copy.head);
    cr_assert(rogue_ends(&r));
    rogue_daemon_serves();
}

Test(hostile, copies_home_that_are_waited_for_may_be_many)
{
    struct rogue r;
    rogue_attach_over(&r, "fault");
    struct tfr_copy_req copy = {
        .stream = rogue_context(&r), .kind = TFR_COPY_PULL, .len = 8, .flags = TFR_COPY_MARK};
    copy.src = rogue_memory(&r, 4096);
    for (int i = 0; i < 1200; i++) {
        rogue_post(&r, TFR_OP_copy, &copy.stream, sizeof copy - sizeof copy.head);
        uint64_t until = tfr_clock_now() + ROGUE_LIMIT_NS;
        while (i % 100 == 0 &&
               atomic_load_explicit(&rogue_page(&r)->stream[0], memory_order_acquire) < r.tx.seq)
            cr_assert_lt(tfr_clock_now(), until, "the copies arrive");
    }
    cr_assert_not(tfr_boot_gone(&r.boot));
    rogue_leave(&r);
}

Test(hostile, rectangle_outside_of_the_lane_ends_the_session)
{
    const struct tfr_box_side small = {0, 64, 4};
    const struct tfr_rect_req wrong[] = {
        /* pitch, rows and slices that overflow when they are multiplied */
        {.dst = small, .src = {0, UINT64_MAX / 2, 4}, .width = 64, .height = 4, .depth = 1},
        {.dst = small, .src = {0, 64, UINT64_MAX / 2}, .width = 64, .height = 4, .depth = 4},
        {.dst = small, .src = {UINT64_MAX - 64, 64, 4}, .width = 64, .height = 4, .depth = 1},
        /* the last row only */
        {.dst = small, .src = {0, 1 << 30, 4}, .width = 64, .height = 2, .depth = 1},
        /* the packed bytes of a pull */
        {.dst = {1ull << 40, 64, 4},
         .src = small,
         .width = 64,
         .height = 4,
         .depth = 1,
         .kind = TFR_COPY_PULL},
        /* memory that was never mapped */
        {.dst = small,
         .src = {4096, 64, 4},
         .width = 64,
         .height = 4,
         .depth = 1,
         .kind = TFR_COPY_TO_DEVICE},
        /* nothing, rows closer than they are wide, a kind that is none */
        {.dst = small, .src = small, .width = 0, .height = 4, .depth = 1},
        {.dst = small, .src = small, .width = 65, .height = 4, .depth = 1},
        {.dst = small, .src = small, .width = 64, .height = 4, .depth = 1, .kind = 77},
        {.dst = small,
         .src = small,
         .width = 64,
         .height = 4,
         .depth = 1,
         .kind = TFR_COPY_INLINE + UINT32_MAX / 2},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct tfr_rect_req req = wrong[i];
        if (!req.kind)
            req.kind = TFR_COPY_PUSH;
        rect_refused(&req);
    }
    rogue_daemon_serves();
}

Test(hostile, copy_to_a_context_that_is_none_ends_the_session)
{
    struct rogue r;
    rogue_attach(&r);
    struct tfr_peer_req req = {.stream = rogue_context(&r), .dst = 4096, .src = 4096, .len = 1};
    memset((char *)&req + offsetof(struct tfr_peer_req, len) + sizeof req.len, 0xff, 8);
    rogue_post(&r, TFR_OP_peer, &req.stream, sizeof req - sizeof req.head);
    cr_assert(rogue_ends(&r));
    rogue_daemon_serves();
}

Test(hostile, reply_slot_beyond_the_page_ends_the_session)
{
    struct rogue r;
    rogue_attach(&r);
    uint32_t body[4] = {TFR_REPLY_SLOTS, 0, 0, 0};
    rogue_post(&r, TFR_OP_mem_info, body, sizeof body);
    cr_assert(rogue_ends(&r));
    rogue_daemon_serves();
}

Test(hostile, stale_handle_is_an_error_of_the_session_only)
{
    struct rogue r;
    rogue_attach(&r);
    rogue_context(&r);
    struct tfr_mark_req req = {.stream = tfr_id_make(TFR_KIND_STREAM, 9, 77)};
    rogue_post(&r, TFR_OP_mark, &req.stream, sizeof req - sizeof req.head);
    uint64_t until = tfr_clock_now() + ROGUE_LIMIT_NS;
    while (!atomic_load_explicit(&rogue_page(&r)->sticky, memory_order_acquire))
        cr_assert_lt(tfr_clock_now(), until);
    cr_assert_eq(rogue_page(&r)->sticky, CUDA_ERROR_INVALID_HANDLE);
    rogue_daemon_serves();
}

Test(hostile, absurd_image_is_refused_without_memory)
{
    struct rogue r;
    rogue_attach(&r);
    rogue_context(&r);
    struct tfr_image_put_req req = {
        .slot = 1, .image = tfr_id_make(TFR_KIND_IMAGE, 1, 0), .total = UINT64_MAX, .len = 16};
    struct tfr_page_area *page = r.page.addr;
    rogue_post(&r, TFR_OP_image_put, &req.slot, sizeof req - sizeof req.head);
    uint64_t until = tfr_clock_now() + ROGUE_LIMIT_NS;
    while (atomic_load_explicit(&page->reply[1].seq, memory_order_acquire) != r.tx.seq)
        cr_assert_lt(tfr_clock_now(), until);
    cr_assert_eq(page->reply[1].result, CUDA_ERROR_OUT_OF_MEMORY);
    rogue_daemon_serves();
}

Test(hostile, page_that_can_be_truncated_is_not_mapped)
{
    struct rogue r = {0};
    struct tfr_boot_msg msg;
    cr_assert_eq(rogue_greet(rogue_hello(), &r.boot), TFR_BOOT_SNAPSHOT);
    rogue_send(&r.boot, TFR_BOOT_ATTACH, &rogue_over_shm, sizeof rogue_over_shm);
    do {
        cr_assert_eq(tfr_boot_recv(&r.boot, &msg, ROGUE_LIMIT_MS), TFR_OK);
        tfr_boot_msg_fini(&msg);
    } while (msg.type != TFR_BOOT_CHOSEN);
    cr_assert_eq(tfr_boot_recv(&r.boot, &msg, ROGUE_LIMIT_MS), TFR_OK);
    cr_assert_eq(msg.type, TFR_BOOT_WELCOME);
    memcpy(&r.welcome, msg.body, sizeof r.welcome);
    struct tfr_key key = {.len = r.welcome.len, .words = {r.welcome.key[0]}, .fd = msg.fds[0]};
    msg.fd_n = 0;
    tfr_boot_msg_fini(&msg);
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    struct tfr_show show = {.len = sizeof(struct tfr_page_area)};
    struct tfr_boot_msg out = {
        .type = TFR_BOOT_SHOW, .len = sizeof show, .body = &show, .fds = {fileno(file)}, .fd_n = 1};
    cr_assert_eq(tfr_boot_send(&r.boot, &out, ROGUE_LIMIT_MS), TFR_OK);
    const struct tfr_transport_ops *ops = tfr_transport_find("shm");
    struct tfr_dev_cfg cfg = {.numa_node = -1};
    struct tfr_dev *dev;
    cr_assert_eq(ops->prepare(&cfg, &dev), TFR_OK);
    char why[TFR_WAYS_TEXT];
    cr_assert_eq(tfr_ways_open(dev, &r.boot, true, &key, &r.link, &r.session, why), TFR_E_UNSUP);
    cr_assert_eq(tfr_boot_recv(&r.boot, &msg, ROGUE_LIMIT_MS), TFR_OK);
    cr_assert_eq(msg.type, TFR_BOOT_REFUSED);
    tfr_boot_msg_fini(&msg);
    ops->release(dev);
    fclose(file);
    cr_assert(rogue_ends(&r));
    rogue_daemon_serves();
}
