#include "proto/spec/words.h"

/* Decimal. */
TFR_CALL(302, SYNC)
CUresult cuFuncLoad(CUfunction fn);
