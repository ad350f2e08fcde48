/* Which devices a list lets a program see. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "base/visible.h"

/* Four devices; the UUIDs of the last two begin alike. */
static const struct tfr_visible_device devices[4] = {
    {{0x11, 0x22, 0x33, 0x44, 0x55}}, {{0xab, 0xcd}}, {{0xee, 0x01}}, {{0xee, 0x02}}};

/* The list's devices as text, "2 0"; "-": none. */
static void expect(const char *list, const char *want)
{
    int at[4];
    char got[64] = "";
    int n = tfr_visible_read(list, devices, 4, at);
    for (int i = 0; i < n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i ? " " : "", at[i]);
    cr_expect_str_eq(n ? got : "-", want, "%s: %s, wanted %s", list ? list : "NULL", got, want);
}

Test(visible, without_a_list_all_are_seen)
{
    expect(NULL, "0 1 2 3");
}

Test(visible, list_gives_the_order)
{
    expect("2", "2");
    expect("3,0,1", "3 0 1");
    expect(" 1 , 2", "1 2");
    expect("+1", "1");
}

Test(visible, list_ends_before_what_is_no_device)
{
    expect("0,4,1", "0");
    expect("0,2,-1,1", "0 2");
    expect("1,,2", "1");
    expect("1,", "1");
    expect("0,all", "0");
    expect("99999999999999999999", "-");
}

Test(visible, empty_list_hides_all)
{
    expect("", "-");
    expect("-1", "-");
    expect("none", "-");
    expect("NoDevFiles", "-");
}

Test(visible, device_named_twice_hides_all)
{
    expect("0,0", "-");
    expect("1,2,1", "-");
    expect("1,GPU-abcd", "-");
}

Test(visible, beginning_of_a_uuid_is_enough)
{
    expect("GPU-11223344-5500-0000-0000-000000000000", "0");
    expect("GPU-1122", "0");
    expect("GPU-AB,GPU-ee02", "1 3");
    expect("MIG-ab", "1");
}

Test(visible, uuid_that_is_none_or_many_ends_the_list)
{
    expect("GPU-ee", "-");
    expect("0,GPU-77,1", "0");
    expect("GPU-11223344-5500-0000-0000-0000000000000", "-");
    expect("gpu-11", "-");
}

Test(visible, what_follows_the_digits_does_not_matter)
{
    expect("1:0,2", "1 2");
}
