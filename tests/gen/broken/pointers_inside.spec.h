#include "proto/spec/words.h"

/* The structure holds a pointer. */
TFR_CALL(0x0304, SYNC)
CUresult cuLaunchKernelEx(TFR_IN(1) const CUlaunchConfig *config, CUfunction fn,
                          TFR_IN(1) void **params, TFR_IN(1) void **extra);
