/* What our own functions answer.  CUresult is the GPU's answer and travels as data; the two meet in
 * intercept/entry.h alone.  Who first knows of an error says so once, with tfr_fail(); callers pass
 * the status up in silence.  Outputs are set only on TFR_OK. */
#ifndef TFR_BASE_STATUS_H
#define TFR_BASE_STATUS_H

typedef enum tfr_status {
    TFR_OK = 0,
    TFR_AGAIN = 1, /* not now: nothing was done, try again after progress */
    TFR_E_NOMEM = -1,
    TFR_E_INVAL = -2, /* the caller's argument */
    TFR_E_UNSUP = -3, /* not offered by this build, transport or peer */
    TFR_E_PEER = -4,  /* the other side is gone */
    TFR_E_PROTO = -5, /* the other side broke the protocol */
    TFR_E_SYS = -6,   /* a system call failed; errno was logged */
    TFR_E_TIMEOUT = -7,
    TFR_E_ACCESS = -8, /* refused: identity, permission */
    TFR_E_LIMIT = -9,  /* a configured or built-in limit */
} tfr_status;

/* A short constant text, never NULL. */
const char *tfr_status_str(tfr_status status);

/* Logs the message at level error and returns `status`, so that a failure is one line.
 * Thread-safe; not for hot paths. */
tfr_status tfr_fail(tfr_status status, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), cold));
#ifdef __clang_analyzer__ /* so that it knows: what comes back is what went in, not TFR_OK */
#define tfr_fail(status, ...) (status)
#endif

#endif
