/* Memory pools and allocation in stream order: answered out of the leases of device memory. */
#include "proto/spec/words.h"

/* Pool memory in stream order. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuMemAllocAsync(CUdeviceptr *addr, size_t len, CUstream stream);

/* The same from a named pool. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuMemAllocFromPoolAsync(CUdeviceptr *addr, size_t len, CUmemoryPool pool, CUstream stream);

/* Frees memory in stream order. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuMemFreeAsync(CUdeviceptr addr, CUstream stream);

/* Creates a pool. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props);

/* Destroys a pool; its allocations live on until they are freed. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuMemPoolDestroy(CUmemoryPool pool);

/* Gives unused memory of a pool back. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t keep);

/* Sets an attribute of a pool. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value);

/* One attribute of a pool. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value);

/* Which devices may touch a pool's memory: its own. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc *map, size_t n);

/* May a device touch a pool's memory? */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool pool, CUmemLocation *location);

/* The pool that a device begins with. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice dev);

/* The pool that a device allocates from. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice dev);

/* Chooses it. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuDeviceSetMemPool(CUdevice dev, CUmemoryPool pool);

/* The pool that a location begins with. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuMemGetDefaultMemPool(CUmemoryPool *pool, CUmemLocation *location,
                                CUmemAllocationType type);

/* The pool that a location allocates from. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location, CUmemAllocationType type);

/* Chooses it. */
TFR_CALL(0x0000, LOCAL, NOCTX)
CUresult cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool);
