/* Log lines on stderr, prefix "tf:", never from a hot path.  TFR_LOG=warn,transport=debug sets a
 * level for all and one per component (the folder's name).  Default: warn.  A file names its
 * component by defining TFR_LOG_PART before including this header. */
#ifndef TFR_BASE_LOG_H
#define TFR_BASE_LOG_H

enum tfr_log_level {
    TFR_LOG_ERROR, /* something was refused or lost */
    TFR_LOG_WARN,  /* it works, but not as asked */
    TFR_LOG_INFO,  /* once per session or choice: what was chosen and why */
    TFR_LOG_DEBUG, /* once per slow call */
};

#ifndef TFR_LOG_PART
#define TFR_LOG_PART "tfr"
#endif

/* True if a line of this level and part would be printed. */
int tfr_log_on(enum tfr_log_level level, const char *part);

/* Warns about what TFR_LOG holds and should not. */
void tfr_log_check(void);

/* Prints one line (newline added) with one write(2).  Lowercase, no full stop, the cause. */
void tfr_log_line(enum tfr_log_level level, const char *part, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), cold));

/* From here on lines go to this descriptor instead of stderr. */
void tfr_log_to(int fd);

/* A line the user always sees ("tf: ..."), whatever TFR_LOG says. */
void tfr_say(const char *fmt, ...) __attribute__((format(printf, 1, 2), cold));

#define tfr_warn(...)  tfr_log_line(TFR_LOG_WARN, TFR_LOG_PART, __VA_ARGS__)
#define tfr_info(...)  tfr_log_line(TFR_LOG_INFO, TFR_LOG_PART, __VA_ARGS__)
#define tfr_debug(...) tfr_log_line(TFR_LOG_DEBUG, TFR_LOG_PART, __VA_ARGS__)

#endif
