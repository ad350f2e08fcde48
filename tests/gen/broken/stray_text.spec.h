#include "proto/spec/words.h"

int stray;

/* Fine. */
TFR_CALL(0x0302, SYNC)
CUresult cuFuncLoad(CUfunction fn);
