#include "proto/spec/words.h"

/* A comment of something else. */
#define SOMETHING_ELSE

TFR_CALL(0x0302, SYNC)
CUresult cuFuncLoad(CUfunction fn);
