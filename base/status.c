/* Texts of tfr_status, and tfr_fail: the one place where a failure of ours becomes a line.
 * errno survives, so that a caller may still look at it. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "base/log.h"
#include "base/status.h"

const char *tfr_status_str(tfr_status status)
{
    switch (status) {
    case TFR_OK:
        return "ok";
    case TFR_AGAIN:
        return "not now";
    case TFR_E_NOMEM:
        return "out of memory";
    case TFR_E_INVAL:
        return "invalid argument";
    case TFR_E_UNSUP:
        return "not supported";
    case TFR_E_PEER:
        return "the peer is gone";
    case TFR_E_PROTO:
        return "protocol broken by the peer";
    case TFR_E_SYS:
        return "system call failed";
    case TFR_E_TIMEOUT:
        return "timed out";
    case TFR_E_ACCESS:
        return "refused";
    case TFR_E_LIMIT:
        return "limit reached";
    }
    return "unknown status";
}

tfr_status(tfr_fail)(tfr_status status, const char *fmt, ...)
{
    int saved = errno;
    char text[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    tfr_log_line(TFR_LOG_ERROR, NULL, "%s", text);
    errno = saved;
    return status;
}
