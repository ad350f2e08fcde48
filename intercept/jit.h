/* JIT options as they cross the wire: numbers, and the two logs that come back with an answer.  For
 * module.c and linker.c. */
#ifndef TFR_INTERCEPT_JIT_H
#define TFR_INTERCEPT_JIT_H

#include "intercept/entry.h"

struct tfr_jit {
    uint32_t n;
    uint32_t option[TFR_JIT_OPTIONS_MAX];
    uint64_t value[TFR_JIT_OPTIONS_MAX];
    char *info, *error;
    uint64_t info_len, error_len;
    void **info_len_out, **error_len_out;
};

CUresult tfr_jit_read(unsigned int n, const CUjit_option *options, void **values,
                      struct tfr_jit *jit);
/* Bytes of a log that the executor should keep. */
uint32_t tfr_jit_room(const char *buffer, uint64_t len);
/* The answer, which begins with struct tfr_module_load_rep, into rep, and its logs to where the
 * program wants them; false: none came. */
bool tfr_jit_logs(const struct tfr_ask *ask, const struct tfr_jit *jit, void *rep, size_t rep_len);

#endif
