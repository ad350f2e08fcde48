/* Which JIT options cross the wire: the client forwards these, the executor takes no others. */
#ifndef TFR_PROTO_JIT_H
#define TFR_PROTO_JIT_H

#include <cuda.h>
#include <stdbool.h>
#include <stdint.h>

/* Those whose value is no address: a driver would write where it points to. */
static inline bool tfr_jit_is_number(uint32_t option)
{
    switch (option) {
    case CU_JIT_MAX_REGISTERS:
    case CU_JIT_OPTIMIZATION_LEVEL:
    case CU_JIT_TARGET_FROM_CUCONTEXT:
    case CU_JIT_TARGET:
    case CU_JIT_FALLBACK_STRATEGY:
    case CU_JIT_GENERATE_DEBUG_INFO:
    case CU_JIT_LOG_VERBOSE:
    case CU_JIT_GENERATE_LINE_INFO:
    case CU_JIT_CACHE_MODE:
    case CU_JIT_POSITION_INDEPENDENT_CODE:
        return true;
    default:
        return false;
    }
}

#endif
