#include "proto/spec/words.h"

/* The toolkit has no cuFuncLoad_ptsz. */
TFR_CALL(0x0302, SYNC, PTSZ)
CUresult cuFuncLoad(CUfunction fn);
