/* intercept/range.c: what an address is. */
#include "kit.h"

static struct tfr_range range(uint64_t base, uint64_t len, enum tfr_range_kind kind)
{
    return (struct tfr_range){.base = base, .len = len, .kind = kind};
}

Test(range, finds_the_allocation_around_an_address)
{
    struct tfr_range a = range(0x1000, 0x100, TFR_RANGE_DEVICE);
    struct tfr_range b = range(0x2000, 0x80, TFR_RANGE_MAPPED);
    cr_assert(tfr_range_add(&b));
    cr_assert(tfr_range_add(&a));
    cr_assert_eq(tfr_range_find(0x1000).base, 0x1000);
    cr_assert_eq(tfr_range_find(0x10ff).base, 0x1000);
    cr_assert_eq(tfr_range_find(0x1100).kind, TFR_RANGE_NONE);
    cr_assert_eq(tfr_range_find(0xfff).kind, TFR_RANGE_NONE);
    cr_assert_eq(tfr_range_find(0x207f).kind, TFR_RANGE_MAPPED);
}

Test(range, refuses_overlap_from_either_side)
{
    struct tfr_range a = range(0x1000, 0x100, TFR_RANGE_DEVICE);
    struct tfr_range before = range(0xf80, 0x81, TFR_RANGE_REGISTERED);
    struct tfr_range inside = range(0x10ff, 1, TFR_RANGE_REGISTERED);
    struct tfr_range beside = range(0x1100, 1, TFR_RANGE_REGISTERED);
    cr_assert(tfr_range_add(&a));
    cr_assert_not(tfr_range_add(&before));
    cr_assert_not(tfr_range_add(&inside));
    cr_assert(tfr_range_add(&beside));
}

Test(range, gives_back_only_what_starts_there_and_is_of_the_kind)
{
    struct tfr_range a = range(0x1000, 0x100, TFR_RANGE_DEVICE), out;
    cr_assert(tfr_range_add(&a));
    cr_assert_not(tfr_range_take(0x1080, 1u << TFR_RANGE_DEVICE, &out), "interior free");
    cr_assert_not(tfr_range_take(0x1000, 1u << TFR_RANGE_GLOBAL, &out), "of another kind");
    cr_assert(tfr_range_take(0x1000, 1u << TFR_RANGE_DEVICE, &out));
    cr_assert_not(tfr_range_take(0x1000, 1u << TFR_RANGE_DEVICE, &out), "double free");
}

Test(range, holds_is_safe_against_overflow)
{
    struct tfr_range a = range(0x1000, 0x100, TFR_RANGE_DEVICE);
    cr_assert(tfr_range_holds(&a, 0x1010, 0xf0));
    cr_assert_not(tfr_range_holds(&a, 0x1010, 0xf1));
    cr_assert_not(tfr_range_holds(&a, 0x1010, UINT64_MAX));
    cr_assert_not(tfr_range_holds(&a, 0xfff, 1));
}

Test(range, keeps_thousands_in_order)
{
    for (uint64_t i = 0; i < 4000; i++) {
        struct tfr_range r = range((i * 7919 % 4000) << 12, 4096, TFR_RANGE_DEVICE);
        cr_assert(tfr_range_add(&r));
    }
    for (uint64_t i = 0; i < 4000; i++)
        cr_assert_eq(tfr_range_find((i << 12) + 4095).base, i << 12);
}

Test(range, takes_what_belongs_to_a_context)
{
    static struct tfr_context one, two;
    struct tfr_range r;
    for (uint64_t i = 0; i < 12; i++) {
        r = range(0x1000 * (i + 1), 0x10, i % 3 ? TFR_RANGE_DEVICE : TFR_RANGE_MAPPED);
        r.ctx = i % 2 ? &one : &two;
        cr_assert(tfr_range_add(&r));
    }
    int n = 0;
    while (tfr_range_take_of(&one, 1u << TFR_RANGE_DEVICE, &r)) {
        cr_assert_eq(r.ctx, &one);
        cr_assert_eq(r.kind, TFR_RANGE_DEVICE);
        cr_assert_eq(tfr_range_find(r.base).kind, TFR_RANGE_NONE);
        n++;
    }
    cr_assert_eq(n, 4);
    cr_assert_eq(tfr_range_find(0x4000).kind, TFR_RANGE_MAPPED, "of the same context");
    cr_assert_eq(tfr_range_find(0x3000).kind, TFR_RANGE_DEVICE, "of the other one");
}

Test(range, survives_random_insertion_and_removal)
{
    enum { SLOTS = 3000 };
    static bool there[SLOTS];
    struct tfr_range out;
    uint32_t seed = 3;
    for (int k = 0; k < 60000; k++) {
        seed = seed * 1664525u + 1013904223u;
        uint64_t slot = (seed >> 8) % SLOTS;
        struct tfr_range r = range(slot << 12, 4096, TFR_RANGE_DEVICE);
        if (there[slot]) {
            cr_assert_not(tfr_range_add(&r), "it is there already");
            cr_assert(tfr_range_take(slot << 12, 1u << TFR_RANGE_DEVICE, &out));
        } else {
            cr_assert_not(tfr_range_take(slot << 12, 1u << TFR_RANGE_DEVICE, &out));
            cr_assert(tfr_range_add(&r));
        }
        there[slot] = !there[slot];
    }
    for (uint64_t i = 0; i < SLOTS; i++)
        cr_assert_eq(tfr_range_find((i << 12) + 7).kind,
                     there[i] ? TFR_RANGE_DEVICE : TFR_RANGE_NONE);
    for (uint64_t i = 0; i < SLOTS; i++)
        if (there[i])
            cr_assert(tfr_range_take(i << 12, 1u << TFR_RANGE_DEVICE, &out));
    cr_assert_eq(tfr_range_find(5000).len, UINT64_MAX, "all is one gap");
}

Test(range, counts_what_is_mapped)
{
    struct tfr_context mine = {0}, other = {0};
    struct tfr_range out;
    for (uint64_t i = 0; i < 200; i++) {
        struct tfr_range r = range(i << 12, 4096, i % 3 ? TFR_RANGE_DEVICE : TFR_RANGE_MAPPED);
        r.ctx = i % 2 ? &mine : &other;
        cr_assert(tfr_range_add(&r));
    }
    int n = 0;
    while (tfr_range_take_of(&mine, 1u << TFR_RANGE_DEVICE, &out)) {
        cr_assert(out.ctx == &mine && out.kind == TFR_RANGE_DEVICE);
        n++;
    }
    cr_assert_eq(n, 67);
    cr_assert_eq(tfr_range_mapped(), 67);
    while (tfr_range_take_of(NULL, 1u << TFR_RANGE_MAPPED, &out))
        ;
    cr_assert_eq(tfr_range_mapped(), 0);
}
