#include "proto/spec/words.h"

/* A typing error. */
TFR_CALL(0x0101, SYNC, NOCTX)
CUresult cuDeviceGetName(
    TFR_OTU(len) char *name, int len,
    CUdevice dev);
