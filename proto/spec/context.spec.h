/* Contexts: primary and created ones; which one is current is each thread's own affair. */
#include "proto/spec/words.h"

/* Retains the primary context; the first one attaches the session to a worker. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDevicePrimaryCtxRetain(CUcontext *ctx, CUdevice dev);

/* Releases it; the last one ends the session. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev);

/* Releases it (the name cudart uses). */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDevicePrimaryCtxRelease(CUdevice dev);

/* Destroys everything in it: the session ends, a new one starts at the next use. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev);

/* The same (the name cudart uses). */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDevicePrimaryCtxReset(CUdevice dev);

/* Scheduling flags. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned int flags);

/* Scheduling flags (older name). */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned int flags);

/* Flags, and whether the context is retained. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags, int *active);

/* Creates a context and pushes it (the name for programs built before CUDA 11.4). */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuCtxCreate_v2(CUcontext *ctx, unsigned int flags, CUdevice dev);

/* The same with execution affinity, which no device has. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuCtxCreate_v3(CUcontext *ctx, CUexecAffinityParam *affinity, int n, unsigned int flags,
                        CUdevice dev);

/* The same with parameters for affinity and graphics: neither is there. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuCtxCreate_v4(CUcontext *ctx, CUctxCreateParams *params, unsigned int flags,
                        CUdevice dev);

/* Destroys a created context with all that is in it. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuCtxDestroy_v2(CUcontext ctx);

/* One more use of the current context. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxAttach(CUcontext *ctx, unsigned int flags);

/* One less; the last destroys. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxDetach(CUcontext ctx);

/* The calling thread's current context. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuCtxGetCurrent(CUcontext *ctx);

/* Makes a context current. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuCtxSetCurrent(CUcontext ctx);

/* Pushes a context. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuCtxPushCurrent_v2(CUcontext ctx);

/* Pops the current context. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxPopCurrent_v2(CUcontext *ctx);

/* Device of the current context. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxGetDevice(CUdevice *dev);

/* Device of a context. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxGetDevice_v2(CUdevice *dev, CUcontext ctx);

/* Flags of the current context. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxGetFlags(unsigned int *flags);

/* Sets flags of the current context. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxSetFlags(unsigned int flags);

/* Bank size of shared memory: the one that devices have. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxGetSharedMemConfig(CUsharedconfig *config);

/* A hint that no device takes any more. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxSetSharedMemConfig(CUsharedconfig config);

/* No context has an affinity. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxGetExecAffinity(CUexecAffinityParam *affinity, CUexecAffinityType type);

/* A number that no other context of the process has. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxGetId(CUcontext ctx, unsigned long long *id);

/* API version of a context. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxGetApiVersion(CUcontext ctx, unsigned int *version);

/* Range of stream priorities. */
TFR_CALL(0x0000, LOCAL)
CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest);

/* Waits for every stream of the current context: marks on the dirty ones. */
TFR_CALL(0x0000, POLL)
CUresult cuCtxSynchronize(void);

/* Waits for every stream of a context. */
TFR_CALL(0x0000, POLL)
CUresult cuCtxSynchronize_v2(CUcontext ctx);

/* A limit of the context. */
TFR_CALL(0x0201, SYNC)
CUresult cuCtxGetLimit(TFR_OUT(1) size_t *value, CUlimit limit);

/* Sets a limit of the context. */
TFR_CALL(0x0202, SYNC, HELPER)
CUresult cuCtxSetLimit(CUlimit limit, size_t value);

/* Cache preference of the context. */
TFR_CALL(0x0203, SYNC)
CUresult cuCtxGetCacheConfig(TFR_OUT(1) CUfunc_cache *config);

/* Sets the cache preference of the context. */
TFR_CALL(0x0204, SYNC)
CUresult cuCtxSetCacheConfig(CUfunc_cache config);

/* Resets lines of L2 that were marked persisting. */
TFR_CALL(0x0205, SYNC, HELPER)
CUresult cuCtxResetPersistingL2Cache(void);

/* Gives the current context access to the memory of another device's. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags);

/* Takes it away. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuCtxDisablePeerAccess(CUcontext peer);
