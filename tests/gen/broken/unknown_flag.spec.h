#include "proto/spec/words.h"

/* A typing error. */
TFR_CALL(0x0302, SYNC, HELPFUL)
CUresult cuFuncLoad(CUfunction fn);
