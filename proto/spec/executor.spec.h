/* Driver calls that the executor makes on its own account and that are not forwarded yet. */
#include "proto/spec/words.h"

/* Pool memory in stream order. */
TFR_CALL(0x0000, NONE, PTSZ)
CUresult cuMemAllocAsync(CUdeviceptr *addr, size_t len, CUstream stream);

/* Frees pool memory in stream order. */
TFR_CALL(0x0000, NONE, PTSZ)
CUresult cuMemFreeAsync(CUdeviceptr addr, CUstream stream);
