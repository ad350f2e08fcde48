#include "proto/spec/words.h"

/* One. */
TFR_CALL(0x0302, SYNC)
CUresult cuFuncLoad(CUfunction fn);

/* Two. */
TFR_CALL(0x0303, SYNC)
CUresult cuFuncLoad(CUfunction fn);
