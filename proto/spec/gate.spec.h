/* Where a stream and its client meet: host functions, callbacks, and values in memory that streams
 * write or wait for. */
#include "proto/spec/words.h"

/* The stream waits here for its client. */
TFR_RECORD(0x0030, gate)
/* Waits for values and writes of values, in stream order. */
TFR_RECORD(0x0031, values)

/* Calls a function of the client in stream order. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuLaunchHostFunc(CUstream stream, CUhostFn fn, void *arg);

/* The same with the stream's status, and also after an error. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void *arg,
                             unsigned int flags);

/* Waits for and writes several values. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuStreamBatchMemOp_v2(CUstream stream, unsigned int n, CUstreamBatchMemOpParams *ops,
                               unsigned int flags);

/* A stream waits for a 32-bit value. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuStreamWaitValue32_v2(CUstream stream, CUdeviceptr addr, cuuint32_t value,
                                unsigned int flags);

/* A stream waits for a value: also how a gate waits for its client. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuStreamWaitValue64_v2(CUstream stream, CUdeviceptr addr, cuuint64_t value,
                                unsigned int flags);

/* A stream writes a 32-bit value. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuStreamWriteValue32_v2(CUstream stream, CUdeviceptr addr, cuuint32_t value,
                                 unsigned int flags);

/* A stream writes a value: also how the executor learns where a stream is. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuStreamWriteValue64_v2(CUstream stream, CUdeviceptr addr, cuuint64_t value,
                                 unsigned int flags);

/* As _v2, of drivers before 11.7: devices that can do it say so by attribute 92. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuStreamBatchMemOp(CUstream stream, unsigned int n, CUstreamBatchMemOpParams *ops,
                            unsigned int flags);

/* As _v2, of drivers before 11.7. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuStreamWaitValue32(CUstream stream, CUdeviceptr addr, cuuint32_t value,
                             unsigned int flags);

/* As _v2, of drivers before 11.7. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuStreamWaitValue64(CUstream stream, CUdeviceptr addr, cuuint64_t value,
                             unsigned int flags);

/* As _v2, of drivers before 11.7. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuStreamWriteValue32(CUstream stream, CUdeviceptr addr, cuuint32_t value,
                              unsigned int flags);

/* As _v2, of drivers before 11.7. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuStreamWriteValue64(CUstream stream, CUdeviceptr addr, cuuint64_t value,
                              unsigned int flags);
