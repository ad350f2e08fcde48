#include "proto/spec/words.h"

/* Counts what is no parameter. */
TFR_CALL(0x0202, SYNC)
CUresult cuMemSetAccess(CUdeviceptr addr, size_t size,
                        TFR_IN(n) const CUmemAccessDesc *desc, size_t count);
