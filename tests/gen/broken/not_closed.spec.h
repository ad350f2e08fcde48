#include "proto/spec/words.h"

/* No end. */
TFR_CALL(0x0302, SYNC)
CUresult cuFuncLoad(CUfunction fn;
