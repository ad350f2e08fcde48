#include "proto/spec/words.h"

/* One. */
TFR_CALL(0x0302, SYNC)
CUresult cuFuncLoad(CUfunction fn);

/* A record of the same op. */
TFR_RECORD(0x0302, mark)
