/* The keyed table: MD2 as in RFC 1319, HMAC as in RFC 2104, and what goes into the value. */
#include "face/keyed.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <time.h>

#include "tests/unit/face/host.h"

static const char *hex(const uint8_t digest[16])
{
    static char text[33];

    for (int n = 0; n < 16; n++)
        snprintf(text + 2 * n, 3, "%02x", digest[n]);
    return text;
}

static const char *md2(const char *text, size_t cut)
{
    struct tfr_md2 state;
    uint8_t digest[16];
    size_t len = strlen(text);

    cut = cut < len ? cut : len;
    tfr_md2_init(&state);
    tfr_md2_add(&state, text, cut);
    tfr_md2_add(&state, text + cut, len - cut);
    tfr_md2_end(&state, digest);
    return hex(digest);
}

Test(keyed, md2_yields_the_digests_of_its_rfc)
{
    const char *const rows[][2] = {
        {"", "8350e5a3e24c153df2275c9f80692773"},
        {"a", "32ec01ec4a6dac72c0ab96fb34c0b5d1"},
        {"abc", "da853b0d3f88d99b30283a69e6ded6bb"},
        {"message digest", "ab4f496bfb2a530b219ff33031fe06b0"},
        {"abcdefghijklmnopqrstuvwxyz", "4e8ddff3650292ab5a4108c3aa47940b"},
        {"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
         "da33def2a42df13975352846c30338cd"},
        {"12345678901234567890123456789012345678901234567890123456789012345678901234567890",
         "d5976f79d83d3a0dc9806c3c66f3efd8"},
    };

    for (size_t n = 0; n < sizeof rows / sizeof rows[0]; n++) {
        for (size_t cut = 0; cut < 33; cut += 8)
            cr_assert_str_eq(md2(rows[n][0], cut), rows[n][1]);
    }
}

Test(keyed, hmac_nests_two_hashes)
{
    struct tfr_hmac_md2 hmac;
    uint8_t key[16], digest[16];

    memset(key, 0x0b, sizeof key);
    tfr_hmac_md2_init(&hmac, key);
    tfr_md2_add(&hmac.inner, "Hi There", 8);
    tfr_hmac_md2_end(&hmac, digest);
    cr_assert_str_eq(hex(digest), "b524be0196e491ed44823746cd8923af");
}

typedef CUresult value_fn(uint32_t version, uint64_t unix_seconds, uint64_t value_out[2]);

Test(keyed, value_depends_on_version_and_time)
{
    value_fn *value_of = (value_fn *)host_table("d4082055 bde6704b 8d34ba12 3c66e1f2")[1];
    uint64_t a[2], b[2];

    cr_assert_eq(value_of(13000, 1, a), CUDA_SUCCESS);
    cr_assert_eq(a[0], 0x3341181c03cb675c);
    cr_assert_eq(a[1], 0x8ed383aa1f4cd1e8);
    value_of(13001, 1, a);
    cr_assert_eq(a[0], 0x1841181c03cb675c);
    value_of(13002, 1, a);
    value_of(13002, 1, b);
    cr_assert_arr_eq(a, b, sizeof a);
    value_of(13002, 2, b);
    cr_assert_arr_neq(a, b, sizeof a);
    value_of(13012, 1, b);
    cr_assert_arr_neq(a, b, sizeof a);
}
