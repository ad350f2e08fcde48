/* JIT options: see jit.h. */
#define TFR_LOG_PART "intercept"
#include "intercept/jit.h"

#include <string.h>

#include "base/log.h"
#include "proto/jit.h"

/* Options that carry a number go as they are; the two logs come back with the answer.  Anything
 * that is a pointer otherwise is left out: it cannot mean anything over there. */
CUresult tfr_jit_read(unsigned int n, const CUjit_option *options, void **values,
                      struct tfr_jit *jit)
{
    if (n && (!options || !values))
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned int i = 0; i < n; i++) {
        switch (options[i]) {
        case CU_JIT_INFO_LOG_BUFFER:
            jit->info = values[i];
            break;
        case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
            jit->info_len = (uint64_t)values[i] & 0xffffffff;
            jit->info_len_out = &values[i];
            break;
        case CU_JIT_ERROR_LOG_BUFFER:
            jit->error = values[i];
            break;
        case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
            jit->error_len = (uint64_t)values[i] & 0xffffffff;
            jit->error_len_out = &values[i];
            break;
        default:
            if (tfr_jit_is_number((uint32_t)options[i])) {
                if (jit->n == TFR_JIT_OPTIONS_MAX)
                    return CUDA_ERROR_INVALID_VALUE;
                jit->option[jit->n] = (uint32_t)options[i];
                jit->value[jit->n++] = (uint64_t)values[i];
                break;
            }
            tfr_debug("jit option %d is not forwarded", (int)options[i]);
        }
    }
    return CUDA_SUCCESS;
}

uint32_t tfr_jit_room(const char *buffer, uint64_t len)
{
    return !buffer ? 0 : len > TFR_JIT_LOG_MAX ? TFR_JIT_LOG_MAX : (uint32_t)len;
}

static void log_copy(char *to, uint64_t room, void **len_out, const char *text, uint32_t len)
{
    if (to && room && len) {
        uint64_t n = len < room ? len : room;
        memcpy(to, text, n);
        to[n - 1] = 0;
        if (len_out)
            *(uint32_t *)len_out = (uint32_t)(n - 1);
    }
}

bool tfr_jit_logs(const struct tfr_ask *ask, const struct tfr_jit *jit, void *rep, size_t rep_len)
{
    uint32_t len;
    const void *answer = tfr_ask_payload(ask, &len);
    struct tfr_module_load_rep logs;
    if (!answer || len < rep_len)
        return false;
    memcpy(rep, answer, rep_len);
    memcpy(&logs, rep, sizeof logs);
    if (logs.info_len > len - rep_len || logs.error_len > len - rep_len - logs.info_len)
        return false;
    const char *text = (const char *)answer + rep_len;
    log_copy(jit->info, jit->info_len, jit->info_len_out, text, logs.info_len);
    log_copy(jit->error, jit->error_len, jit->error_len_out, text + logs.info_len, logs.error_len);
    return true;
}
