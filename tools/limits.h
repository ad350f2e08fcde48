/* What of this machine and process limits TFR: a line each, for tf-info. */
#ifndef TFR_TOOLS_LIMITS_H
#define TFR_TOOLS_LIMITS_H

void tfr_limits_print(void);

/* "64 MiB", "1.5 GiB": rounded to what a person wants to know. */
const char *tfr_size_text(unsigned long long bytes, char *text, unsigned len);

#endif
