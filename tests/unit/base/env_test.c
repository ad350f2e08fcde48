/* Settings and counters.  Each test is a process of its own, so the environment is still unread. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/counter.h"
#include "base/env.h"
#include "base/log.h"
#include "base/rec.h"

Test(env, answers_the_default_of_what_is_not_set)
{
    unsetenv("TFR_RING_SIZE");
    unsetenv("TFR_EXECUTORS");
    cr_assert_eq(tfr_env_u64("TFR_RING_SIZE"), 1u << 20);
    cr_assert_str_eq(tfr_env_str("TFR_TRANSPORT"), "auto");
    cr_assert_null(tfr_env_str("TFR_EXECUTORS"));
}

Test(env, reads_binary_suffixes)
{
    setenv("TFR_RING_SIZE", "3k", 1);
    setenv("TFR_LANE_SIZE", "2G", 1);
    setenv("TFR_SPIN_US", "0x10", 1);
    cr_assert_eq(tfr_env_u64("TFR_RING_SIZE"), 3072);
    cr_assert_eq(tfr_env_u64("TFR_LANE_SIZE"), 2ull << 30);
    cr_assert_eq(tfr_env_u64("TFR_SPIN_US"), 16);
}

Test(env, uses_the_default_for_a_number_that_is_none)
{
    static const char *const bad[] = {"", "1x", "-1", "k", "99999999999999999999", "20000000000g"};
    static const char *const rows[] = {"TFR_RING_SIZE",  "TFR_LANE_SIZE",    "TFR_SPIN_US",
                                       "TFR_CONNECT_MS", "TFR_SOFT_DEVICES", "TFR_FAULT_SEED"};
    static const uint64_t defaults[] = {1 << 20, 64 << 20, 50, 3000, 1, 1};

    for (int i = 0; i < 6; i++)
        setenv(rows[i], bad[i], 1);
    for (int i = 0; i < 6; i++)
        cr_assert_eq(tfr_env_u64(rows[i]), defaults[i], "%s=%s", rows[i], bad[i]);
}

Test(env, reports_a_bad_number_once, .init = cr_redirect_stderr)
{
    setenv("TFR_SPIN_US", "many", 1);
    tfr_env_u64("TFR_SPIN_US");
    tfr_env_u64("TFR_SPIN_US");
    cr_assert_stderr_eq_str("tf: warn: base: TFR_SPIN_US=many is not a number, 50 is used\n");
}

Test(env, reports_a_switch_that_is_neither_0_nor_1_and_takes_the_careful_answer,
     .init = cr_redirect_stderr)
{
    setenv("TFR_TCP_ENCRYPT", "yes", 1);
    setenv("TFR_VERBS_RELAXED", "2", 1);
    setenv("TFR_VERBS_CM", "1", 1);
    unsetenv("TFR_SOFT_LATE_TEXT");
    cr_assert(tfr_env_bool("TFR_TCP_ENCRYPT", true));
    cr_assert(tfr_env_bool("TFR_TCP_ENCRYPT", true));
    cr_assert_not(tfr_env_bool("TFR_VERBS_RELAXED", false));
    cr_assert(tfr_env_bool("TFR_VERBS_CM", false));
    cr_assert_not(tfr_env_bool("TFR_SOFT_LATE_TEXT", true));
    cr_assert_stderr_eq_str("tf: warn: base: TFR_TCP_ENCRYPT=yes is neither 0 nor 1, 1 is used\n"
                            "tf: warn: base: TFR_VERBS_RELAXED=2 is neither 0 nor 1, 0 is used\n");
}

Test(env, reports_a_misspelt_setting_once, .init = cr_redirect_stderr)
{
    setenv("TFR_EXECUTOR", "unix:/x", 1);
    setenv("TFR_UCX_TLS", "rc", 1);
    setenv("TFR_TEST_X", "1", 1);
    tfr_env_str("TFR_EXECUTORS");
    tfr_env_str("TFR_LOG");
    cr_assert_stderr_eq_str("tf: warn: base: unknown setting TFR_EXECUTOR is ignored\n");
}

Test(env, keeps_what_it_read_first)
{
    setenv("TFR_TRANSPORT", "fault", 1);
    cr_assert_str_eq(tfr_env_str("TFR_TRANSPORT"), "fault");
    setenv("TFR_TRANSPORT", "shm", 1);
    cr_assert_str_eq(tfr_env_str("TFR_TRANSPORT"), "fault");
}

Test(env, switches_one_optimisation_off)
{
    setenv("TFR_PERF", "no_push,no_lease", 1);
    cr_assert_not(tfr_perf_on("push"));
    cr_assert_not(tfr_perf_on("lease"));
    cr_assert(tfr_perf_on("pus"));
    cr_assert(tfr_perf_on("pushes"));
    cr_assert(tfr_perf_on("feedback"));
}

Test(env, reports_a_misspelt_switch_once, .init = cr_redirect_stderr)
{
    setenv("TFR_PERF", "no_membarrier,no_foo,membarrier", 1);
    cr_assert_not(tfr_perf_on("membarrier"));
    cr_assert(tfr_perf_on("push"));
    cr_assert_stderr_eq_str(
        "tf: warn: base: TFR_PERF: there is no no_foo: tf-info lists them\n"
        "tf: warn: base: TFR_PERF: there is no membarrier: tf-info lists them\n");
}

Test(env, says_nothing_where_another_process_has, .init = cr_redirect_stderr)
{
    setenv("TFR_SETTINGS_CHECKED", "1", 1);
    setenv("TFR_PERF", "no_foo", 1);
    setenv("TFR_LOG", "zzz", 1);
    tfr_env_str("TFR_LOG");
    fprintf(stderr, "nothing else\n");
    cr_assert_stderr_eq_str("nothing else\n");
}

Test(env, lists_every_setting_with_a_meaning)
{
    int n = 0;

    for (const struct tfr_env_row *row = tfr_env_rows(); row->name; row++, n++) {
        cr_assert_eq(strncmp(row->name, "TFR_", 4), 0);
        cr_assert_not_null(row->meaning);
    }
    cr_assert_gt(n, 5);
}

Test(counter, dumps_names_and_values_to_the_file)
{
    char pattern[] = "/tmp/tfr_counter_XXXXXX", path[64], setting[64], text[2048] = "";
    int fd = mkstemp(pattern);
    FILE *file;

    cr_assert_geq(fd, 0);
    snprintf(setting, sizeof(setting), "%s.%%p", pattern);
    snprintf(path, sizeof(path), "%s.%d", pattern, (int)getpid());
    setenv("TFR_COUNTERS", setting, 1);
    TFR_COUNT(marks, 2);
    TFR_COUNT(marks, 3);
    tfr_counters_dump();
    file = fopen(path, "r");
    cr_assert_not_null(file);
    cr_assert_gt(fread(text, 1, sizeof(text) - 1, file), 0);
    fclose(file);
    unlink(path);
    unlink(pattern);
    close(fd);
    cr_assert_not_null(strstr(text, "\nmarks 5\n"));
    cr_assert_not_null(strstr(text, "records 0\n"));
    cr_assert_not_null(strstr(text, "\nlane_stalls 0\n"), "the last one is there too");
}

Test(rec, span_check_does_not_overflow)
{
    cr_assert(tfr_span_inside(0, 10, 10));
    cr_assert(tfr_span_inside(10, 0, 10));
    cr_assert_not(tfr_span_inside(1, 10, 10));
    cr_assert_not(tfr_span_inside(11, 0, 10));
    cr_assert_not(tfr_span_inside(8, UINT64_MAX - 4, 10));
    cr_assert_not(tfr_span_inside(UINT64_MAX, 2, 10));
}
