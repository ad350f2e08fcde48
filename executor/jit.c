/* JIT options: see jit.h. */
#include "executor/jit.h"

#include <string.h>

#include "proto/jit.h"

static void add(struct tfr_jit *jit, CUjit_option option, void *value)
{
    jit->option[jit->n] = option;
    jit->value[jit->n++] = value;
}

bool tfr_jit_fill(struct tfr_jit *jit, uint32_t n, const uint32_t *option, const uint64_t *value,
                  uint32_t info_len, uint32_t error_len)
{
    if (n > TFR_JIT_OPTIONS_MAX || info_len > TFR_JIT_LOG_MAX || error_len > TFR_JIT_LOG_MAX)
        return false;
    for (uint32_t i = 0; i < n; i++) {
        if (!tfr_jit_is_number(option[i]))
            return false;
        add(jit, (CUjit_option)option[i], (void *)value[i]);
    }
    if (info_len) {
        add(jit, CU_JIT_INFO_LOG_BUFFER, jit->info);
        add(jit, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES, (void *)(uintptr_t)info_len);
    }
    if (error_len) {
        add(jit, CU_JIT_ERROR_LOG_BUFFER, jit->error);
        add(jit, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES, (void *)(uintptr_t)error_len);
    }
    return true;
}

void tfr_jit_answer(const struct tfr_jit *jit, struct tfr_reply *reply, void *rep, size_t rep_len)
{
    struct tfr_module_load_rep logs = {.info_len = (uint32_t)strlen(jit->info),
                                       .error_len = (uint32_t)strlen(jit->error)};
    logs.info_len += logs.info_len ? 1 : 0;
    logs.error_len += logs.error_len ? 1 : 0;
    memcpy(rep, &logs, sizeof logs);
    uint8_t *at = tfr_reply_room(reply, (uint32_t)rep_len + logs.info_len + logs.error_len);
    if (!at)
        return;
    memcpy(at, rep, rep_len);
    memcpy(at + rep_len, jit->info, logs.info_len);
    memcpy(at + rep_len + logs.info_len, jit->error, logs.error_len);
}
