#include "proto/spec/words.h"

/* Not of cuda.h. */
TFR_CALL(0x0104, SYNC)
CUresult cuCtxSetLimit(CUlimits limit,
                       size_t value);
