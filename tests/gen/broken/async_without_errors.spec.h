#include "proto/spec/words.h"

/* Posted. */
TFR_CALL(0x0403, ASYNC, PTSZ)
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags);
