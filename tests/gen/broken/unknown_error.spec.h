#include "proto/spec/words.h"

/* A typing error. */
TFR_CALL(0x0402, ASYNC, TFR_ERRORS(INVALID_HANDLE, INVALID_VALEU))
CUresult cuStreamDestroy_v2(TFR_FREE CUstream stream);
