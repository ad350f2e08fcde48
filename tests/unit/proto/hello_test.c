/* Hello: what a client says of itself, and what an executor takes. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "proto/hello.h"

static uint8_t body[TFR_HELLO_MAX];
static bool other;

static const char *settings(void)
{
    return (const char *)body + sizeof(struct tfr_hello);
}

/* A hello whose settings are these bytes. */
static const char *check_settings(const char *text, uint32_t len)
{
    struct tfr_hello hello;
    tfr_hello_make(body);
    memcpy(&hello, body, sizeof hello);
    hello.env_len = len;
    memcpy(body, &hello, sizeof hello);
    memcpy(body + sizeof hello, text, len);
    return tfr_hello_check(body, (uint32_t)sizeof hello + len, &other);
}

Test(hello, carries_what_a_driver_fixes_and_nothing_else)
{
    setenv("CUDA_MODULE_LOADING", "EAGER", 1);
    setenv("CUDA_DEVICE_MAX_CONNECTIONS", "8", 1);
    setenv("CUDA_CACHE_PATH", "/tmp", 1);
    setenv("LD_PRELOAD_OF_MINE", "x", 1);
    uint32_t len = tfr_hello_make(body);
    static const char want[] = "CUDA_DEVICE_MAX_CONNECTIONS=8\0CUDA_MODULE_LOADING=EAGER";
    cr_assert_eq(len, sizeof(struct tfr_hello) + sizeof want);
    cr_assert_eq(memcmp(settings(), want, sizeof want), 0);
    cr_assert_null(tfr_hello_check(body, len, &other));
}

Test(hello, leaves_out_what_would_be_refused)
{
    char big[200];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    setenv("CUDA_MODULE_LOADING", "$(reboot)", 1);
    setenv("CUDA_LAUNCH_BLOCKING", big, 1);
    uint32_t len = tfr_hello_make(body);
    cr_assert_eq(len, sizeof(struct tfr_hello));
    cr_assert_null(tfr_hello_check(body, len, &other));
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
    uint32_t len = tfr_hello_make(body);
    struct tfr_hello *hello = (struct tfr_hello *)body;
    cr_assert_not_null(tfr_hello_check(body, 12, &other));
    cr_assert_not(other);
    hello->version++;
    cr_assert_not_null(tfr_hello_check(body, 16, &other), "an old one may be shorter");
    cr_assert(other);
    hello->version--;
    hello->spec_hash++;
    cr_assert_not_null(tfr_hello_check(body, len, &other));
    cr_assert(other);
    hello->spec_hash--;
    hello->env_len = TFR_HELLO_ENV_MAX + 1;
    cr_assert_not_null(tfr_hello_check(body, len, &other));
    cr_assert_not(other);
    hello->env_len = 0;
    hello->magic++;
    cr_assert_not_null(tfr_hello_check(body, len, &other));
}
