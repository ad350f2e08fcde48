/* Log lines on stderr.  Levels come from TFR_LOG, parsed anew for each line: lines are rare, and so
 * there is no state to initialise, to lock or to inherit over fork.  A line is built on the stack
 * and leaves in one write(2), so that lines of several processes do not mix. */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"

enum { LINE_MAX_LEN = 1024 };

static _Atomic int log_fd = STDERR_FILENO;

void tfr_log_to(int fd)
{
    atomic_store_explicit(&log_fd, fd, memory_order_relaxed);
}

static const char *const level_names[] = {"none", "error", "warn", "info", "debug", NULL};
static const char *const part_names[] = {"base",      "bench",   "executor",  "face",
                                         "intercept", "softgpu", "transport", NULL};

static int name_find(const char *const *names, const char *name, size_t len)
{
    for (int i = 0; names[i]; i++)
        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
            return i;
    return -1;
}

/* The level called `name`, one less than its place; the default for anything else. */
static int level_parse(const char *name, size_t len)
{
    int at = name_find(level_names, name, len);
    return at < 0 ? TFR_LOG_WARN : at - 1;
}

int tfr_log_on(enum tfr_log_level level, const char *part)
{
    const char *at = tfr_env_str("TFR_LOG");
    int limit = TFR_LOG_WARN;
    bool named = false;

    while (at && *at) {
        size_t len = strcspn(at, ",");
        const char *eq = memchr(at, '=', len);
        if (!eq && !named) {
            limit = level_parse(at, len);
        } else if (eq && part && strlen(part) == (size_t)(eq - at) &&
                   memcmp(part, at, (size_t)(eq - at)) == 0) {
            limit = level_parse(eq + 1, len - (size_t)(eq + 1 - at));
            named = true;
        }
        at += len + (at[len] == ',');
    }
    return (int)level <= limit;
}

void tfr_log_check(void)
{
    const char *at = tfr_env_str("TFR_LOG");

    while (at && *at) {
        size_t len = strcspn(at, ",");
        const char *eq = memchr(at, '=', len), *level = eq ? eq + 1 : at;
        size_t level_len = len - (size_t)(level - at);
        if (name_find(level_names, level, level_len) < 0)
            tfr_log_line(TFR_LOG_WARN, "base",
                         "TFR_LOG: \"%.*s\" is no level: there are none, error, warn, info, debug",
                         (int)level_len, level);
        if (eq && name_find(part_names, at, (size_t)(eq - at)) < 0)
            tfr_log_line(TFR_LOG_WARN, "base",
                         "TFR_LOG: \"%.*s\" is no part: there are base, bench, executor, face, "
                         "intercept, softgpu, transport",
                         (int)(eq - at), at);
        at += len + (at[len] == ',');
    }
}

/* Nobody may read stderr any more, and the application must not die of a line of ours.  What a peer
 * said may be in it: one line, and nothing that a terminal obeys. */
static void line_write(char *line, size_t len)
{
    const struct timespec none = {0};
    sigset_t pipe, before, waiting;
    ssize_t done;

    if (len > LINE_MAX_LEN - 1)
        len = LINE_MAX_LEN - 1;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)line[i] < ' ' || line[i] == 127)
            line[i] = '?';
    }
    line[len++] = '\n';
    sigemptyset(&pipe);
    sigaddset(&pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe, &before);
    sigpending(&waiting);
    do {
        done = write(atomic_load_explicit(&log_fd, memory_order_relaxed), line, len);
    } while (done < 0 && errno == EINTR);
    if (done < 0 && errno == EPIPE && !sigismember(&waiting, SIGPIPE))
        sigtimedwait(&pipe, NULL, &none);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void tfr_log_line(enum tfr_log_level level, const char *part, const char *fmt, ...)
{
    int saved = errno;
    char line[LINE_MAX_LEN + 1];
    va_list args;
    int len, more;

    if (!tfr_log_on(level, part)) {
        errno = saved;
        return;
    }
    len = snprintf(line, sizeof(line), "tf: %s: %s%s", level_names[level + 1], part ? part : "",
                   part ? ": " : "");
    va_start(args, fmt);
    more = vsnprintf(line + len, sizeof(line) - (size_t)len, fmt, args);
    va_end(args);
    line_write(line, (size_t)len + (size_t)(more < 0 ? 0 : more));
    errno = saved;
}

void tfr_say(const char *fmt, ...)
{
    int saved = errno;
    char line[LINE_MAX_LEN + 1] = "tf: ";
    va_list args;
    int more;

    va_start(args, fmt);
    more = vsnprintf(line + 4, sizeof(line) - 4, fmt, args);
    va_end(args);
    line_write(line, 4 + (size_t)(more < 0 ? 0 : more));
    errno = saved;
}
