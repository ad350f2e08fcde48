/* One call of every class and every word: what gen.py makes of it is in expect/. */
#include "proto/spec/words.h"

/* Answered in the client. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuInit(unsigned int flags);

/* Asked without a context; the answer's length is a parameter. */
TFR_CALL(0x0101, SYNC, NOCTX)
CUresult cuDeviceGetName(TFR_OUT(len) char *name, int len, CUdevice dev);

/* A structure comes out. */
TFR_CALL(0x0102, SYNC, NOCTX)
CUresult cuDeviceGetUuid_v2(TFR_OUT(1) CUuuid *uuid, CUdevice dev);

/* Arrays in and out. */
TFR_CALL(0x0103, SYNC)
CUresult cuDeviceGetHostAtomicCapabilities(TFR_OUT(count) unsigned int *capabilities,
                                           TFR_IN(count) const CUatomicOperation *operations,
                                           unsigned int count, CUdevice dev);

/* May block; nothing comes out. */
TFR_CALL(0x0104, SYNC, HELPER)
CUresult cuCtxSetLimit(CUlimit limit, size_t value);

/* Read off the page. */
TFR_CALL(0x0000, POLL)
CUresult cuCtxSynchronize(void);

/* Outputs that the caller may not want. */
TFR_CALL(0x0201, SYNC)
CUresult cuMemGetAddressRange_v2(TFR_OPT TFR_OUT(1) CUdeviceptr *base,
                                 TFR_OPT TFR_OUT(1) size_t *size, CUdeviceptr addr);

/* Structures go in; the caller may have none. */
TFR_CALL(0x0202, SYNC)
CUresult cuMemSetAccess(CUdeviceptr addr, size_t size, TFR_OPT TFR_IN(count) const CUmemAccessDesc *desc,
                        size_t count);

/* A structure by value, and a twin. */
TFR_CALL(0x0203, SYNC, PTSZ)
CUresult cuMemPrefetchAsync_v2(CUdeviceptr addr, size_t len, CUmemLocation location,
                               unsigned int flags, TFR_OPT CUstream stream);

/* A layout only: both ends are written by hand. */
TFR_CALL(0x0204, CUSTOM, PTSZ)
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dst, TFR_BULK_IN(len) const void *src, size_t len,
                              CUstream stream);

/* Travels as a record of ours; its twin has no stream and is written by hand. */
TFR_CALL(0x0000, CUSTOM, PTSZ)
CUresult cuMemcpyHtoD_v2(CUdeviceptr dst, const void *src, size_t len);

/* A string goes in, a handle comes out. */
TFR_CALL(0x0301, SYNC)
CUresult cuModuleGetFunction(TFR_NEW CUfunction *fn, CUmodule module, TFR_STR const char *name);

/* One handle. */
TFR_CALL(0x0302, SYNC)
CUresult cuFuncLoad(CUfunction fn);

/* Single elements go in, one of them a byte of no type. */
TFR_CALL(0x0303, SYNC)
CUresult cuCoredumpSetAttribute(CUcoredumpSettings which, TFR_IN(1) void *value,
                                TFR_OPT TFR_IN(1) size_t *size);

/* Posted: the client names the stream. */
TFR_CALL(0x0401, ASYNC, TFR_ERRORS(INVALID_VALUE))
CUresult cuStreamCreate(TFR_NEW CUstream *stream, unsigned int flags);

/* Posted: the handle dies. */
TFR_CALL(0x0402, ASYNC, TFR_ERRORS(INVALID_HANDLE))
CUresult cuStreamDestroy_v2(TFR_FREE CUstream stream);

/* Posted. */
TFR_CALL(0x0403, ASYNC, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags);

/* Not forwarded. */
TFR_CALL(0x0000, NONE)
CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction fn, void **params, void **extra);

/* A record of ours, posted. */
TFR_RECORD(0x0001, mark)

/* A record of ours, asked, that may block. */
TFR_RECORD(0x0002, alloc, SYNC, HELPER)
