/* Settings from the environment.  Every setting is a row of one table in env.c (name, default,
 * meaning), so that tf-info can print them and a misspelt TFR_ variable can be reported.
 * Values are read once, at first use; thread-safe. */
#ifndef TFR_BASE_ENV_H
#define TFR_BASE_ENV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tfr_env_row {
    const char *name, *def, *meaning;
};

/* All settings, ended by a row with name NULL. */
const struct tfr_env_row *tfr_env_rows(void);

/* The value, or the row's default; NULL if that is NULL.  `name` must be a row of the table. */
const char *tfr_env_str(const char *name);

/* A number with an optional k, m or g (binary).  Else one warning, and the default is used. */
uint64_t tfr_env_u64(const char *name);

/* 0 or 1.  Else one warning, and it counts as `otherwise`: the careful answer. */
bool tfr_env_bool(const char *name, bool otherwise);

/* Set in the environment of a process of ours whose settings another process has looked through:
 * it gives no warnings about them a second time, nor do libraries that it loads. */
#define TFR_ENV_CHECKED "TFR_SETTINGS_CHECKED"

/* For a library that this process loads and that has a copy of the table: whoever loaded it has
 * given the warnings. */
void tfr_env_quiet(void);

struct tfr_perf_row {
    const char *name, *meaning;
};

/* The optimisations that can be switched off, ended by a row with name NULL.  Each name that is
 * given to tfr_perf_on has its row: a misspelt switch is reported. */
const struct tfr_perf_row *tfr_perf_rows(void);

/* True unless TFR_PERF holds "no_<what>": the off-switch of one optimisation. */
bool tfr_perf_on(const char *what);

#endif
