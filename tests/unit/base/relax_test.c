/* The wait loop: that it comes to an end of spinning, and what it says of waits that last. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <sched.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/counter.h"
#include "base/relax.h"

static uint32_t steps_to_sleep(struct tfr_relax *relax, uint32_t *checks)
{
    uint32_t n = 0;

    for (;; n++) {
        enum tfr_relax_step step = tfr_relax(relax);
        if (step == TFR_RELAX_SLEEP)
            return n;
        if (step == TFR_RELAX_CHECK && checks)
            ++*checks;
        cr_assert_lt(n, 100000000u, "never asks for sleep");
    }
}

Test(relax, asks_for_sleep_when_the_budget_is_spent, .timeout = 60)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_RECORD);
    uint64_t since = tfr_clock_now();

    setenv("TFR_SPIN_US", "20000", 1);
    steps_to_sleep(&relax, NULL);
    cr_assert_geq(tfr_clock_now() - since, 20 * TFR_NS_PER_MS - TFR_NS_PER_MS);
    cr_assert_eq(tfr_relax(&relax), TFR_RELAX_SLEEP, "and goes on asking");
}

Test(relax, looks_at_slow_things_on_the_way, .timeout = 60)
{
    uint32_t checks = 0;

    setenv("TFR_SPIN_US", "20000", 1);
    for (int i = 0; i < 20 && checks <= 2; i++) { /* somebody else may have had the core */
        struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_REPLY);
        checks = 0;
        steps_to_sleep(&relax, &checks);
    }
    cr_assert_gt(checks, 2);
}

Test(relax, spins_anew_after_progress, .timeout = 60)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_REPLY);

    setenv("TFR_SPIN_US", "5000", 1);
    steps_to_sleep(&relax, NULL);
    tfr_relax_again(&relax);
    cr_assert_eq(relax.reason, TFR_WAIT_REPLY);
    cr_assert_neq(tfr_relax(&relax), TFR_RELAX_SLEEP);
}

Test(relax, does_not_spin_when_told_so, .timeout = 60)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_REPLY);

    setenv("TFR_SPIN_US", "0", 1);
    cr_assert_eq(steps_to_sleep(&relax, NULL), 0);
}

Test(relax, hardly_spins_on_a_single_cpu, .timeout = 60)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_REPLY);
    cpu_set_t all, one;
    int cpu = 0;

    cr_assert_eq(sched_getaffinity(0, sizeof(all), &all), 0);
    while (!CPU_ISSET(cpu, &all))
        cpu++;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
    setenv("TFR_SPIN_US", "1000000", 1);
    cr_assert_leq(steps_to_sleep(&relax, NULL), 4);
}

Test(relax, naps_grow_and_are_counted, .timeout = 60)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    uint64_t since = tfr_clock_now();

    for (int i = 0; i < 10; i++)
        tfr_relax_nap(&relax);
    cr_assert_geq(tfr_clock_now() - since, 4 * TFR_NS_PER_MS, "20 us, doubling up to 1 ms");
    cr_assert_eq(tfr_counters.sleeps, 10);
}

static void wait_reported(enum tfr_wait_reason reason)
{
    struct tfr_relax relax = TFR_RELAX_INIT(reason);

    setenv("TFR_SPIN_US", "0", 1);
    tfr_relax(&relax);
    if (relax.warn_at_ns != UINT64_MAX)
        relax.warn_at_ns = 1; /* as if the limit had passed */
    tfr_relax(&relax);
    tfr_relax(&relax);
}

Test(relax, reports_a_wait_past_its_limit_once, .init = cr_redirect_stderr)
{
    wait_reported(TFR_WAIT_REPLY);
    cr_assert_stderr_eq_str("tf: warn: base: waiting for an answer for more than 10 s\n");
}

Test(relax, says_nothing_of_long_kernels_and_idle_pumps)
{
    char text[64];
    FILE *err;

    cr_redirect_stderr();
    wait_reported(TFR_WAIT_STREAM);
    wait_reported(TFR_WAIT_RECORD);
    fputs("end\n", stderr);
    fflush(stderr);
    err = cr_get_redirected_stderr();
    cr_assert_not_null(fgets(text, sizeof(text), err));
    cr_assert_str_eq(text, "end\n");
}

Test(relax, names_every_reason)
{
    for (int i = TFR_WAIT_REPLY; i <= TFR_WAIT_TRANSFER; i++)
        cr_assert_str_neq(tfr_wait_reason_str((enum tfr_wait_reason)i), "something");
}
