/* The ring: a stub transport of two kinds (mapped memory, or puts that the test completes by hand),
 * and a reader that is fed every malformed thing. */
#include <criterion/criterion.h>
#include <string.h>

#include "transport/ring.h"

enum { SIZE = 4096, REC_MAX = SIZE / 8, PUT_N = 512 };

static struct {
    struct tfr_ring_ctl ctl;
    uint8_t data[SIZE];
} area;
static _Atomic uint64_t credit;
static struct tfr_ring_tx tx;
static struct tfr_ring_rx rx;
static _Alignas(16) uint8_t buf[REC_MAX];
static int rings;

/* The stub. */
static struct tfr_xfer flights[PUT_N]; /* large ones, not done */
static int put_n, puts_seen, room = PUT_N;
static bool wrapped;

static void *stub_addr(const struct tfr_peer_mem *peer)
{
    (void)peer;
    return &area;
}

static void stub_ring(struct tfr_link *link)
{
    (void)link;
    rings++;
}

static tfr_status stub_put(struct tfr_link *link, const struct tfr_xfer *xfer)
{
    (void)link;
    if (room == 0)
        return TFR_AGAIN;
    room--;
    puts_seen++;
    wrapped |= xfer->peer_at + xfer->len > sizeof(area);
    cr_assert_leq(xfer->peer_at + xfer->len, sizeof(area), "a chunk crosses the wrap");
    memcpy((uint8_t *)&area + xfer->peer_at, xfer->local, xfer->len);
    if (xfer->len > TFR_SMALL_MAX)
        flights[put_n++] = *xfer;
    else if (xfer->done)
        xfer->done(xfer->arg, TFR_OK);
    return TFR_OK;
}

static void puts_finish(int n)
{
    for (int i = 0; i < n; i++)
        flights[i].done(flights[i].arg, TFR_OK);
    memmove(flights, flights + n, sizeof(flights[0]) * (size_t)(put_n - n));
    put_n -= n;
}

static tfr_status stub_reg(struct tfr_dev *dev, const struct tfr_area *mem_area,
                           struct tfr_mem **mem_out)
{
    static struct tfr_mem mem;

    (void)mem_area;
    mem.ops = dev->ops;
    *mem_out = &mem;
    return TFR_OK;
}

static struct tfr_transport_ops mapped_ops = {
    .name = "mapped", .caps = TFR_CAP_MAPPED, .addr = stub_addr, .ring = stub_ring};
static struct tfr_transport_ops far_ops = {.name = "far", .put = stub_put, .reg = stub_reg};

static void ring_make(struct tfr_transport_ops *ops)
{
    static struct tfr_link link;
    static struct tfr_dev dev;
    static struct tfr_peer_mem peer;

    tfr_transport_defaults(ops);
    link.ops = dev.ops = peer.ops = ops;
    peer.len = sizeof(area);
    cr_assert_eq(tfr_ring_tx_init(&tx, &dev, &link, &peer, 0, SIZE, &credit), TFR_OK);
    tfr_ring_rx_init(&rx, &area, SIZE);
}

static void mapped_make(void)
{
    ring_make(&mapped_ops);
}

static void far_make(void)
{
    ring_make(&far_ops);
}

TestSuite(ring, .init = mapped_make, .timeout = 120);
TestSuite(ring_far, .init = far_make, .timeout = 120);
TestSuite(ring_hostile, .init = mapped_make, .timeout = 120);

static bool rec_post(uint32_t size, int fill)
{
    struct tfr_rec *rec = tfr_ring_reserve(&tx, size, 5, 6);

    if (!rec)
        return false;
    memset(rec + 1, fill, rec->size - sizeof(*rec));
    cr_assert_eq(tfr_ring_commit(&tx), TFR_OK);
    return true;
}

static void rec_expect(uint32_t size, int fill)
{
    struct tfr_rec *rec;

    cr_assert_eq(tfr_ring_take(&rx, buf, &rec), TFR_OK);
    cr_assert_eq(rec->size, size);
    cr_assert_eq(rec->op, 5);
    cr_assert_eq(rec->ctx, 6);
    for (uint32_t i = sizeof(*rec); i < size; i++)
        cr_assert_eq(((uint8_t *)rec)[i], (uint8_t)fill);
}

static void credit_give(void)
{
    rx.returned = rx.head;
    credit = rx.head;
}

Test(ring, rounds_sizes_up_and_numbers_from_one)
{
    struct tfr_rec *rec;

    rec_post(17, 1);
    rec_post(16, 2);
    cr_assert_eq(tfr_ring_take(&rx, buf, &rec), TFR_OK);
    cr_assert_eq(rec->size, 32);
    cr_assert_eq(rec->seq, 1);
    cr_assert_eq(tfr_ring_take(&rx, buf, &rec), TFR_OK);
    cr_assert_eq(rec->seq, 2);
    cr_assert_eq(tfr_ring_take(&rx, buf, &rec), TFR_AGAIN);
    cr_assert_eq(rings, 2);
}

Test(ring, keeps_records_whole_at_the_wrap)
{
    for (int i = 0; i < 5000; i++) {
        uint32_t size = 16 * (1 + (uint32_t)(i * 7) % (REC_MAX / 16));
        cr_assert(rec_post(size, i));
        rec_expect(size, i);
        credit_give();
    }
    cr_assert_gt(tx.tail, 10 * SIZE);
}

Test(ring, gives_no_room_beyond_its_credit)
{
    int n = 0;

    while (rec_post(256, n))
        n++;
    cr_assert_eq(n, SIZE / 256);
    cr_assert_eq(tx.tail, SIZE, "a refusal reserves nothing");
    cr_assert_eq(tx.seq, (uint64_t)n);
    rec_expect(256, 0);
    cr_assert_not(rec_post(256, n), "consumed, but not given back");
    credit_give();
    cr_assert(rec_post(256, n));
    cr_assert_not(rec_post(16, 0));
}

Test(ring, a_record_of_an_eighth_always_fits_when_quarters_come_back)
{
    for (int i = 0; i < 3000; i++) {
        uint32_t size = i % 3 ? REC_MAX : REC_MAX - 16;
        while (!rec_post(size, i)) {
            struct tfr_rec *rec;
            cr_assert_eq(tfr_ring_take(&rx, buf, &rec), TFR_OK, "stuck after %d", i);
            if (tfr_ring_due(&rx))
                credit_give();
        }
    }
}

Test(ring, refuses_a_record_above_an_eighth)
{
    cr_assert_eq(tfr_ring_rec_max(&tx), REC_MAX);
    cr_assert(rec_post(REC_MAX, 1));
#ifdef NDEBUG
    cr_assert_not(rec_post(REC_MAX + 1, 1));
    cr_assert_not(rec_post(UINT32_MAX, 1));
#endif
}

Test(ring, refuses_sizes_and_places_that_do_not_fit)
{
    struct tfr_ring_tx bad;
    struct tfr_dev dev = {&mapped_ops};

    cr_assert_eq(tfr_ring_tx_init(&bad, &dev, tx.link, tx.peer, 0, 2048, &credit), TFR_E_INVAL);
    cr_assert_eq(tfr_ring_tx_init(&bad, &dev, tx.link, tx.peer, 0, 5000, &credit), TFR_E_INVAL);
    cr_assert_eq(tfr_ring_tx_init(&bad, &dev, tx.link, tx.peer, 0, 8192, &credit), TFR_E_INVAL);
    cr_assert_eq(tfr_ring_tx_init(&bad, &dev, tx.link, tx.peer, 8, 4096, &credit), TFR_E_INVAL);
}

Test(ring, is_ready_only_when_a_record_is_there)
{
    struct tfr_rec *rec;

    cr_assert_not(tfr_ring_ready(&rx));
    rec_post(32, 0);
    rec_post(32, 0);
    cr_assert(tfr_ring_ready(&rx));
    tfr_ring_take(&rx, buf, &rec);
    cr_assert(tfr_ring_ready(&rx));
    tfr_ring_take(&rx, buf, &rec);
    cr_assert_not(tfr_ring_ready(&rx));
}

Test(ring, gives_credit_back_by_quarters)
{
    for (int i = 0; i < 4; i++)
        rec_post(256, i);
    for (int i = 0; i < 4; i++) {
        cr_assert_not(tfr_ring_due(&rx));
        rec_expect(256, i);
    }
    cr_assert(tfr_ring_due(&rx));
}

static void credit_is_refused(uint64_t word)
{
    while (rec_post(256, 0))
        ;
    credit = word;
    cr_assert_not(rec_post(16, 0));
    cr_assert_eq(tx.error, TFR_E_PROTO);
    cr_assert_eq(tfr_ring_flush(&tx), TFR_E_PROTO);
    credit = SIZE;
    cr_assert_not(rec_post(16, 0), "and it stays so");
}

Test(ring, refuses_credit_for_what_was_never_published)
{
    credit_is_refused(SIZE + 16);
}

Test(ring, refuses_credit_that_goes_back)
{
    while (rec_post(256, 0))
        ;
    credit = 512;
    cr_assert(rec_post(256, 0));
    credit_is_refused(256);
}

/* Puts raw records in front of the reader. */
static void shown(uint64_t at, uint32_t size, uint16_t op, uint64_t seq)
{
    struct tfr_rec rec = {.size = size, .op = op, .seq = seq};

    memcpy(area.data + (at & (SIZE - 1)), &rec, sizeof(rec));
}

static void take_fails(void)
{
    struct tfr_rec *rec;

    cr_assert_eq(tfr_ring_take(&rx, buf, &rec), TFR_E_PROTO);
    area.ctl.tail = rx.head;
    cr_assert_eq(tfr_ring_take(&rx, buf, &rec), TFR_E_PROTO, "and it stays so");
}

Test(ring_hostile, size_of_nothing)
{
    shown(0, 0, 1, 1);
    area.ctl.tail = 64;
    take_fails();
}

Test(ring_hostile, size_that_is_not_aligned)
{
    shown(0, 24, 1, 1);
    area.ctl.tail = 64;
    take_fails();
}

Test(ring_hostile, size_above_the_reader_s_buffer)
{
    shown(0, REC_MAX + 16, 1, 1);
    area.ctl.tail = SIZE;
    take_fails();
}

Test(ring_hostile, size_beyond_what_was_published)
{
    shown(0, 64, 1, 1);
    area.ctl.tail = 48;
    take_fails();
}

Test(ring_hostile, size_of_four_gigabytes)
{
    shown(0, 0xfffffff0u, 1, 1);
    area.ctl.tail = SIZE;
    take_fails();
}

Test(ring_hostile, record_across_the_wrap)
{
    rx.head = rx.tail_seen = SIZE - 32;
    shown(SIZE - 32, 64, 1, 1);
    area.ctl.tail = SIZE + 32;
    take_fails();
}

Test(ring_hostile, tail_beyond_the_ring)
{
    shown(0, 16, 1, 1);
    area.ctl.tail = SIZE + 16;
    take_fails();
}

Test(ring_hostile, tail_that_goes_back)
{
    struct tfr_rec *rec;

    shown(0, 16, 1, 1);
    area.ctl.tail = 16;
    cr_assert_eq(tfr_ring_take(&rx, buf, &rec), TFR_OK);
    area.ctl.tail = 0;
    take_fails();
}

Test(ring_hostile, tail_inside_a_record_head)
{
    shown(0, 16, 1, 1);
    area.ctl.tail = 8;
    take_fails();
}

Test(ring_hostile, number_that_skips)
{
    shown(0, 16, 1, 2);
    area.ctl.tail = 16;
    take_fails();
}

Test(ring_hostile, number_that_repeats)
{
    struct tfr_rec *rec;

    shown(0, 16, 1, 1);
    shown(16, 16, 1, 1);
    area.ctl.tail = 32;
    cr_assert_eq(tfr_ring_take(&rx, buf, &rec), TFR_OK);
    take_fails();
}

Test(ring_hostile, pad_inside_the_ring)
{
    shown(0, 64, TFR_OP_PAD, 0);
    shown(64, 16, 1, 1);
    area.ctl.tail = 80;
    take_fails();
}

Test(ring_far, gathers_until_flush)
{
    struct tfr_rec *rec;

    rec_post(64, 1);
    rec_post(64, 2);
    cr_assert_eq(puts_seen, 0);
    cr_assert_eq(tfr_ring_take(&rx, buf, &rec), TFR_AGAIN);
    cr_assert_eq(tfr_ring_flush(&tx), TFR_OK);
    cr_assert_eq(puts_seen, 2, "one put of records, one of the tail");
    rec_expect(64, 1);
    rec_expect(64, 2);
    cr_assert_eq(tfr_ring_flush(&tx), TFR_OK);
    cr_assert_eq(puts_seen, 2, "nothing more to say");
}

Test(ring_far, goes_on_where_the_link_had_no_room)
{
    struct tfr_rec *rec;

    rec_post(512, 1);
    room = 0;
    cr_assert_eq(tfr_ring_flush(&tx), TFR_AGAIN);
    room = 1;
    cr_assert_eq(tfr_ring_flush(&tx), TFR_AGAIN);
    cr_assert_eq(tfr_ring_take(&rx, buf, &rec), TFR_AGAIN, "no tail yet");
    room = 1;
    cr_assert_eq(tfr_ring_flush(&tx), TFR_OK);
    cr_assert_eq(puts_seen, 2, "no byte is put twice");
    rec_expect(512, 1);
}

Test(ring_far, does_not_reuse_the_shadow_before_its_put_is_done)
{
    for (int i = 0; i < 8; i++)
        cr_assert(rec_post(512, i));
    cr_assert_eq(tfr_ring_flush(&tx), TFR_OK);
    cr_assert_eq(put_n, 1);
    for (int i = 0; i < 8; i++)
        rec_expect(512, i);
    credit_give();
    cr_assert_not(rec_post(16, 9), "credit alone is not enough");
    puts_finish(1);
    cr_assert(rec_post(16, 9));
}

Test(ring_far, does_not_reuse_the_shadow_before_credit)
{
    for (int i = 0; i < 8; i++)
        cr_assert(rec_post(512, i));
    cr_assert_eq(tfr_ring_flush(&tx), TFR_OK);
    puts_finish(put_n);
    cr_assert_not(rec_post(16, 9));
    for (int i = 0; i < 8; i++)
        rec_expect(512, i);
    credit_give();
    cr_assert(rec_post(16, 9));
}

Test(ring_far, an_old_put_holds_the_shadow_though_a_newer_one_is_done)
{
    for (int i = 0; i < 8; i++) {
        cr_assert(rec_post(512, i));
        cr_assert_eq(tfr_ring_flush(&tx), TFR_OK);
        rec_expect(512, i);
    }
    credit_give();
    cr_assert_eq(put_n, 8);
    flights[1].done(flights[1].arg, TFR_OK);
    cr_assert_not(rec_post(512, 8));
    flights[0].done(flights[0].arg, TFR_OK);
    cr_assert(rec_post(512, 8));
    cr_assert(rec_post(512, 9));
    cr_assert_not(rec_post(512, 10));
}

Test(ring_far, flushes_by_itself_when_the_reader_must_see_records_to_give_credit)
{
    int n = 0;

    while (rec_post(256, n))
        n++;
    cr_assert_eq(n, SIZE / 256);
    cr_assert_eq(tx.published, SIZE);
}

Test(ring_far, chunks_never_cross_the_wrap)
{
    for (int i = 0; i < 2000; i++) {
        uint32_t size = 16 * (1 + (uint32_t)(i * 11) % (REC_MAX / 16));
        cr_assert(rec_post(size, i));
        if (i % 3 == 2) {
            room = PUT_N;
            cr_assert_eq(tfr_ring_flush(&tx), TFR_OK);
            for (int k = i - 2; k <= i; k++)
                rec_expect(16 * (1 + (uint32_t)(k * 11) % (REC_MAX / 16)), k);
            puts_finish(put_n);
            credit_give();
        }
    }
    cr_assert_not(wrapped);
}
