#include "proto/spec/words.h"

/* Asked, but under which op? */
TFR_CALL(0x0000, SYNC)
CUresult cuFuncLoad(CUfunction fn);
