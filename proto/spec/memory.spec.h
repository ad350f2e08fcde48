/* Device memory, pinned host memory, what a pointer is. */
#include "proto/spec/words.h"

/* Allocates device memory. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuMemAlloc_v2(CUdeviceptr *addr, size_t len);

/* Allocates rows at a pitch. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuMemAllocPitch_v2(CUdeviceptr *addr, size_t *pitch, size_t width, size_t height,
                            unsigned int element);

/* Frees device memory. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuMemFree_v2(CUdeviceptr addr);

/* Free and total device memory. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total);

/* Base and size of the allocation around an address. */
TFR_CALL(0x0000, LOCAL)
CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr addr);

/* Allocates pinned memory in the host window: shared with the executor, copied in place. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuMemHostAlloc(void **ptr, size_t len, unsigned int flags);

/* Allocates pinned memory. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuMemAllocHost_v2(void **ptr, size_t len);

/* Frees pinned memory after the copies that use it. */
TFR_CALL(0x0000, CUSTOM)
CUresult cuMemFreeHost(void *ptr);

/* Declares application memory pinned: its copies are asynchronous; the bytes are staged. */
TFR_CALL(0x0000, LOCAL)
CUresult cuMemHostRegister_v2(void *ptr, size_t len, unsigned int flags);

/* Ends that. */
TFR_CALL(0x0000, LOCAL)
CUresult cuMemHostUnregister(void *ptr);

/* Device address of pinned memory. */
TFR_CALL(0x0000, LOCAL)
CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *addr, void *ptr, unsigned int flags);

/* Flags of pinned memory. */
TFR_CALL(0x0000, LOCAL)
CUresult cuMemHostGetFlags(unsigned int *flags, void *ptr);

/* One attribute of a pointer. */
TFR_CALL(0x0000, LOCAL)
CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr);

/* Several attributes of a pointer. */
TFR_CALL(0x0000, LOCAL)
CUresult cuPointerGetAttributes(unsigned int n, CUpointer_attribute *attributes, void **data,
                                CUdeviceptr ptr);

/* ---- what backs windows of addresses; the client's own calls are not forwarded ---- */

/* Reserves addresses. */
TFR_CALL(0x0000, NONE)
CUresult cuMemAddressReserve(CUdeviceptr *addr, size_t len, size_t align, CUdeviceptr hint,
                             unsigned long long flags);

/* Gives reserved addresses back. */
TFR_CALL(0x0000, NONE)
CUresult cuMemAddressFree(CUdeviceptr addr, size_t len);

/* Creates physical memory. */
TFR_CALL(0x0000, NONE)
CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t len,
                     const CUmemAllocationProp *prop, unsigned long long flags);

/* Lets go of physical memory. */
TFR_CALL(0x0000, NONE)
CUresult cuMemRelease(CUmemGenericAllocationHandle handle);

/* Maps physical memory at a reserved address. */
TFR_CALL(0x0000, NONE)
CUresult cuMemMap(CUdeviceptr addr, size_t len, size_t at, CUmemGenericAllocationHandle handle,
                  unsigned long long flags);

/* Ends a mapping. */
TFR_CALL(0x0000, NONE)
CUresult cuMemUnmap(CUdeviceptr addr, size_t len);

/* Who may touch mapped memory. */
TFR_CALL(0x0000, NONE)
CUresult cuMemSetAccess(CUdeviceptr addr, size_t len, const CUmemAccessDesc *desc, size_t n);

/* What sizes and addresses of mappings are multiples of. */
TFR_CALL(0x0000, NONE)
CUresult cuMemGetAllocationGranularity(size_t *len, const CUmemAllocationProp *prop,
                                       CUmemAllocationGranularity_flags option);

/* Memory as a dma-buf, for a NIC: what the executor's lanes are made of. */
TFR_CALL(0x0000, NONE)
CUresult cuMemGetHandleForAddressRange(void *handle, CUdeviceptr addr, size_t len,
                                       CUmemRangeHandleType type, unsigned long long flags);

/* What a NIC has written becomes visible to the GPU. */
TFR_CALL(0x0000, NONE)
CUresult cuFlushGPUDirectRDMAWrites(CUflushGPUDirectRDMAWritesTarget target,
                                    CUflushGPUDirectRDMAWritesScope scope);

/* ---- records ---- */

/* A window of addresses for a device's memory. */
TFR_RECORD(0x0020, window, SYNC, HELPER)
/* Backs a part of it. */
TFR_RECORD(0x0021, lease_grow, SYNC, HELPER)
/* Takes that away. */
TFR_RECORD(0x0022, lease_drop, SYNC, HELPER)
/* What the driver says is free. */
TFR_RECORD(0x0023, mem_info, SYNC)
