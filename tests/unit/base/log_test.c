/* Log lines: who is heard, and what a line looks like. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/status.h"

Test(log, says_warnings_and_errors_by_default)
{
    unsetenv("TFR_LOG");
    cr_assert(tfr_log_on(TFR_LOG_ERROR, "x"));
    cr_assert(tfr_log_on(TFR_LOG_WARN, NULL));
    cr_assert_not(tfr_log_on(TFR_LOG_INFO, "x"));
}

Test(log, hears_one_part_louder)
{
    setenv("TFR_LOG", "error,transport=debug", 1);
    cr_assert(tfr_log_on(TFR_LOG_DEBUG, "transport"));
    cr_assert_not(tfr_log_on(TFR_LOG_WARN, "trans"));
    cr_assert_not(tfr_log_on(TFR_LOG_WARN, "base"));
    cr_assert(tfr_log_on(TFR_LOG_ERROR, "base"));
}

Test(log, part_first_does_not_matter)
{
    setenv("TFR_LOG", "transport=none,info", 1);
    cr_assert_not(tfr_log_on(TFR_LOG_ERROR, "transport"));
    cr_assert(tfr_log_on(TFR_LOG_INFO, "base"));
}

Test(log, writes_level_part_and_text, .init = cr_redirect_stderr)
{
    tfr_log_line(TFR_LOG_WARN, "ring", "%d is %s", 7, "odd");
    cr_assert_stderr_eq_str("tf: warn: ring: 7 is odd\n");
}

Test(log, keeps_to_one_line_that_no_terminal_obeys, .init = cr_redirect_stderr)
{
    tfr_say("it says %s", "a\nb\033[2Jc\177");
    cr_assert_stderr_eq_str("tf: it says a?b?[2Jc?\n");
}

Test(log, names_what_it_accepts_once, .init = cr_redirect_stderr)
{
    setenv("TFR_LOG", "zzz,trnasport=debug", 1);
    tfr_log_line(TFR_LOG_WARN, "ring", "first");
    tfr_log_line(TFR_LOG_WARN, "ring", "second");
    cr_assert_stderr_eq_str(
        "tf: warn: base: TFR_LOG: \"zzz\" is no level: there are none, error, warn, info, debug\n"
        "tf: warn: base: TFR_LOG: \"trnasport\" is no part: there are base, bench, executor, face, "
        "intercept, softgpu, transport\n"
        "tf: warn: ring: first\n"
        "tf: warn: ring: second\n");
}

Test(log, kills_nobody_whose_stderr_is_read_no_more)
{
    sigset_t waiting;
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    close(ends[0]);
    signal(SIGPIPE, SIG_DFL);
    tfr_log_to(ends[1]);
    tfr_say("unheard");
    tfr_log_to(STDERR_FILENO);
    cr_assert_eq(sigpending(&waiting), 0);
    cr_assert_not(sigismember(&waiting, SIGPIPE));
}

Test(log, tells_the_user_whatever_the_level, .init = cr_redirect_stderr)
{
    setenv("TFR_LOG", "none", 1);
    tfr_fail(TFR_E_SYS, "unheard");
    tfr_say("private executor (%s)", "soft");
    cr_assert_stderr_eq_str("tf: private executor (soft)\n");
}

Test(log, fail_returns_the_status_and_keeps_errno, .init = cr_redirect_stderr)
{
    errno = EXDEV;
    cr_assert_eq(tfr_fail(TFR_E_NOMEM, "lane of %d bytes", 5), TFR_E_NOMEM);
    cr_assert_eq(errno, EXDEV);
    cr_assert_stderr_eq_str("tf: error: lane of 5 bytes\n");
}

Test(log, cuts_a_line_that_is_too_long)
{
    char text[5000], line[6000];
    ssize_t n;
    int ends[2];

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = 0;
    cr_assert_eq(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    tfr_say("%s", text);
    n = read(ends[0], line, sizeof(line));
    cr_assert_gt(n, 500);
    cr_assert_leq(n, 1025);
    cr_assert_eq(line[n - 1], '\n');
    tfr_fail(TFR_E_SYS, "%s", text);
    n = read(ends[0], line, sizeof(line));
    cr_assert_eq(line[n - 1], '\n');
}

Test(status, has_a_text_for_every_value)
{
    for (int i = TFR_E_LIMIT; i <= TFR_AGAIN; i++)
        cr_assert_str_neq(tfr_status_str((tfr_status)i), "unknown status");
    cr_assert_str_eq(tfr_status_str((tfr_status)99), "unknown status");
}
