/* Hello: what a client says of itself, and what an executor takes; which releases go together. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/hello.h"
#include "tfr_ops.h"

static _Alignas(8) uint8_t body[TFR_HELLO_MAX];
static struct tfr_edition its;
static char cause[TFR_EDITION_WHY_MAX];
static struct tfr_hello *const hello = (struct tfr_hello *)body;

static const char *settings(void)
{
    return tfr_hello_settings(hello);
}

static const char *check(uint32_t len)
{
    return tfr_hello_check(body, len, &its, cause);
}

/* A hello whose settings are these bytes. */
static const char *check_settings(const char *text, uint32_t len)
{
    uint32_t before = tfr_hello_make("1.0", body) - hello->env_len;
    hello->env_len = len;
    memcpy(body + before, text, len);
    return check(before + len);
}

Test(hello, carries_what_a_driver_fixes_and_nothing_else)
{
    setenv("CUDA_MODULE_LOADING", "EAGER", 1);
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "8", 1);
    setenv("CUDA_CACHE_PATH", "/tmp", 1);
    setenv("LD_PRELOAD_OF_MINE", "x", 1);
    uint32_t len = tfr_hello_make("1.0", body);
    static const char want[] = "CUDA_DEVICE_MAX_CONNECTIONS=8\0CUDA_MODULE_LOADING=EAGER";
    cr_assert_eq(hello->env_len, sizeof want);
    cr_assert_eq(memcmp(settings(), want, sizeof want), 0);
    cr_assert_null(check(len));
}

Test(hello, leaves_out_what_would_be_refused)
{
    char big[200];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    setenv("CUDA_MODULE_LOADING", "$(reboot)", 1);
    setenv("CUDA_LAUNCH_BLOCKING", big, 1);
    uint32_t len = tfr_hello_make("1.0", body);
    cr_assert_eq(hello->env_len, 0);
    cr_assert_null(check(len));
}

#define SETTINGS(text) check_settings(text, sizeof(text))

Test(hello, settings_are_known_names_in_order_once)
{
    cr_assert_null(SETTINGS("CUDA_LAUNCH_BLOCKING=1\0CUDA_MODULE_LOADING=LAZY"));
    cr_assert_null(SETTINGS("CUDA_MODULE_LOADING="));
    cr_assert_not_null(SETTINGS("CUDA_MODULE_LOADING=LAZY\0CUDA_LAUNCH_BLOCKING=1"));
    cr_assert_not_null(SETTINGS("CUDA_LAUNCH_BLOCKING=1\0CUDA_LAUNCH_BLOCKING=1"));
    cr_assert_not_null(SETTINGS("CUDA_LAUNCH=1"));
    cr_assert_not_null(SETTINGS("CUDA_LAUNCH_BLOCKING_=1"));
    cr_assert_not_null(SETTINGS("LD_PRELOAD=x"));
    cr_assert_not_null(SETTINGS("CUDA_LAUNCH_BLOCKING"));
    cr_assert_not_null(SETTINGS("=1"));
    cr_assert_not_null(SETTINGS(""));
    cr_assert_not_null(SETTINGS("CUDA_MODULE_LOADING=a/b"));
    cr_assert_not_null(check_settings("CUDA_LAUNCH_BLOCKING=1", 22), "no zero at the end");
}

Test(hello, another_release_is_told_from_nonsense)
{
    uint32_t len = tfr_hello_make("1.0", body);
    cr_assert_not_null(check(12));
    cr_assert_eq(its.magic, 0);
    hello->edition.version++;
    cr_assert_not_null(check(16), "an old one may be shorter");
    cr_assert_eq(its.magic, TFR_WIRE_MAGIC);
    cr_assert_eq(its.version, TFR_WIRE_VERSION + 1);
    hello->edition.version--;
    hello->edition.spec_hash++;
    cr_assert_null(check(len), "the numbers of all its calls are ours");
    hello->edition.core_hash++;
    cr_assert_not_null(check(len));
    cr_assert_eq(its.magic, TFR_WIRE_MAGIC);
    hello->edition.core_hash--;
    hello->env_len = TFR_HELLO_ENV_MAX + 1;
    cr_assert_not_null(check(len));
    cr_assert_eq(its.magic, 0);
    hello->env_len = 0;
    hello->edition.call_n = TFR_CALLS_MAX + 1;
    cr_assert_not_null(check(len));
    hello->edition.call_n = TFR_CALL_N;
    hello->edition.magic++;
    cr_assert_not_null(check(len));
    cr_assert_eq(its.magic, 0);
}

/* ---- editions ---- */

static struct tfr_edition edition;
static struct tfr_edition_call calls[TFR_CALLS_MAX];

/* A peer whose spec is another than ours. */
static void peer_make(const char *release)
{
    tfr_edition_make(release, &edition, calls);
    edition.spec_hash ^= 1;
}

Test(edition, added_calls_are_no_reason_to_refuse)
{
    peer_make("2.0");
    calls[edition.call_n++] = (struct tfr_edition_call){.op = 0xfffe, .hash = 77};
    calls[edition.call_n++] = (struct tfr_edition_call){.op = 0x0ffe, .hash = 78};
    cr_assert(tfr_edition_suits(&edition, calls, cause));
    cr_assert(tfr_edition_knows(&edition, calls, 0xfffe));
    cr_assert_not(tfr_edition_knows(&edition, calls, 0xfffd));
}

Test(edition, calls_that_a_side_lacks_are_known_as_such)
{
    peer_make("0.9");
    uint16_t gone = calls[--edition.call_n].op;
    cr_assert(tfr_edition_suits(&edition, calls, cause));
    cr_assert_not(tfr_edition_knows(&edition, calls, gone));
    cr_assert(tfr_edition_knows(&edition, calls, calls[0].op));
}

Test(edition, a_call_that_looks_otherwise_is_refused_by_name)
{
    char why[TFR_EDITION_WHY_MAX];
    struct tfr_edition own;
    static struct tfr_edition_call own_calls[TFR_CALLS_MAX];
    peer_make("2.0\n");
    calls[3].hash ^= 1;
    cr_assert_not(tfr_edition_suits(&edition, calls, cause));
    tfr_edition_make("1.0 (abc)", &own, own_calls);
    tfr_edition_refusal(&own, &edition, cause, why);
    char want[TFR_EDITION_WHY_MAX];
    snprintf(want, sizeof want,
             "the executor's TFR is 1.0 (abc) (wire %d), the program's is 2.0? (wire %d), and they "
             "disagree on %s: install the same release on both sides",
             TFR_WIRE_VERSION, TFR_WIRE_VERSION, tfr_op_name(calls[3].op));
    cr_assert_str_eq(why, want);
}

Test(edition, another_wire_or_core_is_refused)
{
    peer_make("2.0");
    edition.version++;
    cr_assert_not(tfr_edition_suits(&edition, calls, cause));
    peer_make("2.0");
    edition.core_hash++;
    cr_assert_not(tfr_edition_suits(&edition, calls, cause));
}
