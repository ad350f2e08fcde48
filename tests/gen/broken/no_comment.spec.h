#include "proto/spec/words.h"

TFR_CALL(0x0302, SYNC)
CUresult cuFuncLoad(CUfunction fn);
