/* Driver calls that the executor makes on its own account and that are not forwarded yet. */
#include "proto/spec/words.h"

/* A stream writes a value: how the executor learns where a stream is. */
TFR_CALL(0x0000, NONE)
CUresult cuStreamWriteValue64_v2(CUstream stream, CUdeviceptr addr, cuuint64_t value,
                                 unsigned int flags);

/* A stream waits for a value. */
TFR_CALL(0x0000, NONE)
CUresult cuStreamWaitValue64_v2(CUstream stream, CUdeviceptr addr, cuuint64_t value,
                                unsigned int flags);

/* Pool memory in stream order. */
TFR_CALL(0x0000, NONE, PTSZ)
CUresult cuMemAllocAsync(CUdeviceptr *addr, size_t len, CUstream stream);

/* Frees pool memory in stream order. */
TFR_CALL(0x0000, NONE, PTSZ)
CUresult cuMemFreeAsync(CUdeviceptr addr, CUstream stream);
