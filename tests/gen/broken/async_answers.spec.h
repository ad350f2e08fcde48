#include "proto/spec/words.h"

/* Nobody waits for the answer. */
TFR_CALL(0x0101, ASYNC, TFR_ERRORS(INVALID_VALUE))
CUresult cuDeviceGetUuid_v2(TFR_OUT(1) CUuuid *uuid, CUdevice dev);
