/* The counters of this process, and their dump.  Written with one write(2); no stdio, because it
 * runs while the process exits. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/counter.h"
#include "base/env.h"
#include "base/log.h"

struct tfr_counters tfr_counters;

/* "%p" becomes the process id, so that several processes do not share a file. */
static void path_expand(const char *pattern, char *path, size_t size)
{
    const char *mark = strstr(pattern, "%p");

    if (mark)
        snprintf(path, size, "%.*s%d%s", (int)(mark - pattern), pattern, (int)getpid(), mark + 2);
    else
        snprintf(path, size, "%s", pattern);
}

void tfr_counters_dump(void)
{
    const char *pattern = tfr_env_str("TFR_COUNTERS");
    char path[4096], text[2048];
    size_t len = 0;
    int fd = STDERR_FILENO;

    if (!pattern || !*pattern)
        return;
#define LINE(name, meaning)                                                                        \
    len += (size_t)snprintf(                                                                       \
        text + len, sizeof(text) - len, #name " %llu\n",                                           \
        (unsigned long long)atomic_load_explicit(&tfr_counters.name, memory_order_relaxed));
    TFR_COUNTERS(LINE)
#undef LINE
    path_expand(pattern, path, sizeof(path));
    if (strcmp(path, "-") != 0)
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0 || write(fd, text, len) != (ssize_t)len)
        tfr_log_line(TFR_LOG_WARN, "base", "counters cannot be written to %s", path);
    if (fd >= 0 && fd != STDERR_FILENO)
        close(fd);
}
