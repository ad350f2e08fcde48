#include "proto/spec/words.h"

/* A typing error. */
TFR_CALL(0x0302, SINC)
CUresult cuFuncLoad(CUfunction fn);
