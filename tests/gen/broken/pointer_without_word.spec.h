#include "proto/spec/words.h"

/* A name. */
TFR_CALL(0x0101, SYNC, NOCTX)
CUresult cuDeviceGetName(char *name, TFR_OUT(1) int *len,
                         CUdevice dev);
