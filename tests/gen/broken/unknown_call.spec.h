#include "proto/spec/words.h"

/* No toolkit has it. */
TFR_CALL(0x0302, SYNC)
CUresult cuFuncLoadNow(CUfunction fn);
