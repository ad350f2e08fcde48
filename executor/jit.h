/* JIT options off the wire, and the two logs that go back.  For do_module.c and do_link.c. */
#ifndef TFR_EXECUTOR_JIT_H
#define TFR_EXECUTOR_JIT_H

#include "executor/session.h"

/* The client's options and, where it wants them, the two log buffers. */
struct tfr_jit {
    unsigned int n;
    CUjit_option option[TFR_JIT_OPTIONS_MAX + 4];
    void *value[TFR_JIT_OPTIONS_MAX + 4];
    char info[TFR_JIT_LOG_MAX + 1], error[TFR_JIT_LOG_MAX + 1];
};

/* False: counts or options that no client of ours sends. */
bool tfr_jit_fill(struct tfr_jit *jit, uint32_t n, const uint32_t *option, const uint64_t *value,
                  uint32_t info_len, uint32_t error_len);
/* Answers `rep`, which begins with struct tfr_module_load_rep, and the texts behind it. */
void tfr_jit_answer(const struct tfr_jit *jit, struct tfr_reply *reply, void *rep, size_t rep_len);

#endif
