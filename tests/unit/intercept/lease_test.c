/* intercept/lease.c and quarantine.c: blocks, chunks, and when a block may be used again. */
#include "intercept/lease.h"
#include "kit.h"

enum { MB = 1 << 20 };
static const uint64_t base = 0x200000000000;
static struct tfr_lease *lease;

static void begin(void)
{
    lease = tfr_lease_of(0);
    lease->base = base;
    lease->len = 1ull << 34;
    lease->granularity = 2 * MB;
    tfr_client.feedback = &kit_page;
}

TestSuite(lease, .init = begin);

static struct tfr_block *cut(uint64_t len)
{
    struct tfr_block *block = tfr_lease_cut(lease, len);
    if (block)
        cr_assert(block->base % TFR_LEASE_ALIGN == 0 && block->len == len);
    return block;
}

/* Every byte of a chunk belongs to one block, and what is free and what is idle adds up. */
static void is_sound(void)
{
    uint64_t backed = 0, unused = 0, idle = 0;
    for (const struct tfr_chunk *c = lease->chunks; c; c = c->next) {
        uint64_t at = c->base;
        bool was_free = false;
        for (const struct tfr_block *b = c->first; b; b = b->after) {
            bool is_free = b->state == TFR_BLOCK_FREE;
            cr_assert_eq(b->base, at);
            cr_assert(!(was_free && is_free), "free neighbours are one block");
            cr_assert(!b->after || b->after->before == b);
            was_free = is_free;
            unused += is_free ? b->len : 0;
            at += b->len;
        }
        cr_assert_eq(at, c->base + c->len);
        backed += c->len;
        idle += tfr_chunk_idle(c) ? c->len : 0;
    }
    cr_assert_eq(backed, lease->backed);
    cr_assert_eq(unused, lease->free);
    cr_assert_eq(idle, lease->idle);
}

Test(lease, uses_a_chunk_to_the_last_byte)
{
    struct tfr_block *block[4];
    cr_assert_null(cut(512));
    cr_assert(tfr_lease_add(lease, base, 2 * MB));
    for (int i = 0; i < 4; i++)
        cr_assert_not_null(block[i] = cut(MB / 2));
    cr_assert_null(cut(512));
    for (int i = 0; i < 4; i++)
        tfr_lease_join(lease, block[i]);
    is_sound();
    cr_assert_not_null(cut(2 * MB), "the pieces are whole again");
}

Test(lease, finds_the_only_block_that_fits_among_many_that_nearly_do)
{
    struct tfr_block *block[200];
    cr_assert(tfr_lease_add(lease, base, 64 * MB));
    for (int i = 0; i < 200; i++)
        block[i] = cut(i % 2 ? 512 : i == 100 ? 100 * 512 : 97 * 512);
    cr_assert_not_null(cut(lease->chunks->len - 99 * 97 * 512 - 100 * 512 - 100 * 512));
    for (int i = 0; i < 200; i += 2)
        tfr_lease_join(lease, block[i]);
    is_sound();
    cr_assert_eq(cut(100 * 512), block[100]);
    cr_assert_null(cut(98 * 512));
}

Test(lease, does_not_span_chunks)
{
    cr_assert(tfr_lease_add(lease, base, 2 * MB));
    cr_assert(tfr_lease_add(lease, base + 2 * MB, 2 * MB));
    cr_assert_null(cut(3 * MB));
    struct tfr_block *a = cut(2 * MB), *b = cut(2 * MB);
    cr_assert(a && b);
    tfr_lease_join(lease, a);
    tfr_lease_join(lease, b);
    is_sound();
}

Test(lease, places_chunks_in_holes)
{
    cr_assert_eq(tfr_lease_place(lease, 2 * MB), base);
    cr_assert(tfr_lease_add(lease, base, 2 * MB));
    cr_assert(tfr_lease_add(lease, base + 6 * MB, 2 * MB));
    cr_assert_eq(tfr_lease_place(lease, 4 * MB), base + 2 * MB);
    cr_assert_eq(tfr_lease_place(lease, 5 * MB), base + 8 * MB);
    cr_assert_eq(tfr_lease_place(lease, lease->len), 0);
    tfr_lease_remove(lease, lease->chunks);
    cr_assert_eq(tfr_lease_place(lease, 6 * MB), base);
    is_sound();
}

Test(lease, stays_sound_over_random_traffic)
{
    enum { LIVE = 300 };
    struct tfr_block *live[LIVE] = {NULL};
    uint32_t seed = 7;
    for (int i = 0; i < 4; i++)
        cr_assert(tfr_lease_add(lease, base + (uint64_t)i * 16 * MB, 16 * MB));
    for (int k = 0; k < 20000; k++) {
        seed = seed * 1664525u + 1013904223u;
        struct tfr_block **at = &live[(seed >> 8) % LIVE];
        if (*at) {
            tfr_lease_join(lease, *at);
            *at = NULL;
        } else {
            *at = tfr_lease_cut(lease, ((seed >> 4) % (k % 10 ? 64 : 4096) + 1) * 512ull);
        }
        if (k % 1000 == 0)
            is_sound();
    }
    for (int i = 0; i < LIVE; i++)
        if (live[i])
            tfr_lease_join(lease, live[i]);
    is_sound();
    cr_assert_eq(lease->idle, 64 * (uint64_t)MB);
}

static void quarantine(struct tfr_block *block, uint32_t word, uint64_t seq)
{
    struct tfr_point points[2] = {{word, seq}, {word + 1, seq}};
    block->ticket = tfr_ticket_take(lease, points, 2);
    cr_assert_not_null(block->ticket);
    tfr_quarantine_add(lease, block);
}

Test(lease, frees_a_block_when_every_stream_has_passed)
{
    cr_assert(tfr_lease_add(lease, base, 2 * MB));
    struct tfr_block *block = cut(2 * MB);
    quarantine(block, 3, 10);
    tfr_quarantine_reap(lease, true);
    cr_assert_null(cut(512));
    kit_word(3, 11);
    tfr_quarantine_reap(lease, true);
    cr_assert_null(cut(512), "one of two streams");
    kit_word(4, 10);
    tfr_quarantine_reap(lease, true);
    cr_assert_not_null(cut(2 * MB));
    cr_assert_eq(lease->quarantined, 0);
    is_sound();
}

Test(lease, frees_behind_a_stream_that_stands_still)
{
    cr_assert(tfr_lease_add(lease, base, 2 * MB));
    struct tfr_block *first = cut(MB), *second = cut(MB);
    quarantine(first, 3, 10);
    quarantine(second, 5, 10);
    kit_word(5, 10);
    kit_word(6, 10);
    tfr_quarantine_reap(lease, false);
    cr_assert_null(cut(MB), "the quick look stops at the first");
    tfr_quarantine_reap(lease, true);
    cr_assert_eq(cut(MB), second);
    kit_word(3, 10);
    kit_word(4, 10);
    tfr_quarantine_reap(lease, false);
    cr_assert_eq(cut(MB), first);
    quarantine(first, 3, 9);
    tfr_quarantine_reap(lease, false);
    cr_assert_eq(cut(MB), first, "the list goes on after it was empty");
}

Test(lease, shares_tickets_and_reuses_them)
{
    struct tfr_point points[40] = {{1, 5}, {2, 6}};
    struct tfr_ticket *a = tfr_ticket_take(lease, points, 2);
    cr_assert_eq(tfr_ticket_take(lease, points, 2), a);
    points[1].seq = 7;
    struct tfr_ticket *b = tfr_ticket_take(lease, points, 2), *c;
    cr_assert_neq(b, a);
    tfr_ticket_drop(lease, a);
    tfr_ticket_drop(lease, a);
    points[0].seq = 9;
    cr_assert_eq(c = tfr_ticket_take(lease, points, 3), a, "the struct of one that is gone");
    tfr_ticket_drop(lease, c);
    struct tfr_ticket *wide = tfr_ticket_take(lease, points, 40);
    cr_assert_neq(wide, a, "not one that is too small");
    cr_assert_eq(wide->n, 40);
    tfr_ticket_drop(lease, b);
    tfr_ticket_drop(lease, wide);
}
