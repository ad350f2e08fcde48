/* Copies and fills.  All are copy or memset records; which path the bytes take is copy.c's. */
#include "proto/spec/words.h"

/* Copies, direction by address. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE))
CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t len);

/* Copies in stream order, direction by address. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t len, CUstream stream);

/* Host to device; returns when the source may be reused. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE))
CUresult cuMemcpyHtoD_v2(CUdeviceptr dst, TFR_BULK_IN(len) const void *src, size_t len);

/* Host to device in stream order. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dst, TFR_BULK_IN(len) const void *src, size_t len,
                              CUstream stream);

/* Device to host; returns when the bytes are there. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE))
CUresult cuMemcpyDtoH_v2(TFR_BULK_OUT(len) void *dst, CUdeviceptr src, size_t len);

/* Device to host in stream order; into pageable memory it waits, as in CUDA. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuMemcpyDtoHAsync_v2(TFR_BULK_OUT(len) void *dst, CUdeviceptr src, size_t len,
                              CUstream stream);

/* Device to device. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE))
CUresult cuMemcpyDtoD_v2(CUdeviceptr dst, CUdeviceptr src, size_t len);

/* Device to device in stream order. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dst, CUdeviceptr src, size_t len, CUstream stream);

/* Copies a rectangle: rows packed, many to a record. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE, NOT_SUPPORTED))
CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *copy);

/* The same, without demands on the pitch. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE, NOT_SUPPORTED))
CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *copy);

/* Copies a rectangle in stream order; cudart copies from host to host with it. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream);

/* Copies a box. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE, NOT_SUPPORTED))
CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *copy);

/* Copies a box in stream order. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *copy, CUstream stream);

/* Copies a box between devices. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE, NOT_SUPPORTED))
CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *copy);

/* Copies a box between devices in stream order. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *copy, CUstream stream);

/* Copies between devices, after and before all else that their contexts do. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE, INVALID_CONTEXT))
CUresult cuMemcpyPeer(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from, size_t len);

/* Copies between devices in stream order. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_CONTEXT, INVALID_HANDLE))
CUresult cuMemcpyPeerAsync(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from,
                           size_t len, CUstream stream);

/* Several copies by address, one after the other. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuMemcpyBatchAsync_v2(CUdeviceptr *dst, CUdeviceptr *src, size_t *len, size_t n,
                               CUmemcpyAttributes *attributes, size_t *firsts, size_t attribute_n,
                               CUstream stream);

/* The same, and says which one was refused (older name). */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuMemcpyBatchAsync(CUdeviceptr *dst, CUdeviceptr *src, size_t *len, size_t n,
                            CUmemcpyAttributes *attributes, size_t *firsts, size_t attribute_n,
                            size_t *failed, CUstream stream);

/* Several boxes, one after the other. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuMemcpy3DBatchAsync_v2(size_t n, CUDA_MEMCPY3D_BATCH_OP *ops, unsigned long long flags,
                                 CUstream stream);

/* The same, and says which one was refused (older name). */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuMemcpy3DBatchAsync(size_t n, CUDA_MEMCPY3D_BATCH_OP *ops, size_t *failed,
                              unsigned long long flags, CUstream stream);

/* Moves managed memory: there is none. */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuMemPrefetchAsync_v2(CUdeviceptr at, size_t len, CUmemLocation location,
                               unsigned int flags, CUstream stream);

/* Moves managed memory (older name). */
TFR_CALL(0x0000, LOCAL, PTSZ)
CUresult cuMemPrefetchAsync(CUdeviceptr at, size_t len, CUdevice dev, CUstream stream);

/* A hint about managed memory: there is none. */
TFR_CALL(0x0000, LOCAL)
CUresult cuMemAdvise_v2(CUdeviceptr at, size_t len, CUmem_advise advice, CUmemLocation location);

/* A hint about managed memory (older name). */
TFR_CALL(0x0000, LOCAL)
CUresult cuMemAdvise(CUdeviceptr at, size_t len, CUmem_advise advice, CUdevice dev);

/* Where managed memory is: there is none. */
TFR_CALL(0x0000, LOCAL)
CUresult cuMemRangeGetAttribute(void *data, size_t data_len, CUmem_range_attribute attribute,
                                CUdeviceptr at, size_t len);

/* The same, several attributes. */
TFR_CALL(0x0000, LOCAL)
CUresult cuMemRangeGetAttributes(void **data, size_t *data_lens, CUmem_range_attribute *attributes,
                                 size_t n, CUdeviceptr at, size_t len);

/* Fills bytes. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE))
CUresult cuMemsetD8_v2(CUdeviceptr dst, unsigned char value, size_t n);

/* Fills 16-bit words. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE))
CUresult cuMemsetD16_v2(CUdeviceptr dst, unsigned short value, size_t n);

/* Fills 32-bit words. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE))
CUresult cuMemsetD32_v2(CUdeviceptr dst, unsigned int value, size_t n);

/* Fills bytes in stream order. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuMemsetD8Async(CUdeviceptr dst, unsigned char value, size_t n, CUstream stream);

/* Fills 16-bit words in stream order. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuMemsetD16Async(CUdeviceptr dst, unsigned short value, size_t n, CUstream stream);

/* Fills 32-bit words in stream order. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuMemsetD32Async(CUdeviceptr dst, unsigned int value, size_t n, CUstream stream);

/* Fills a rectangle of bytes. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE))
CUresult cuMemsetD2D8_v2(CUdeviceptr dst, size_t pitch, unsigned char value, size_t width,
                         size_t height);

/* Fills a rectangle of 16-bit words. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE))
CUresult cuMemsetD2D16_v2(CUdeviceptr dst, size_t pitch, unsigned short value, size_t width,
                          size_t height);

/* Fills a rectangle of 32-bit words. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE))
CUresult cuMemsetD2D32_v2(CUdeviceptr dst, size_t pitch, unsigned int value, size_t width,
                          size_t height);

/* Fills a rectangle of bytes in stream order. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuMemsetD2D8Async(CUdeviceptr dst, size_t pitch, unsigned char value, size_t width,
                           size_t height, CUstream stream);

/* Fills a rectangle of 16-bit words in stream order. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuMemsetD2D16Async(CUdeviceptr dst, size_t pitch, unsigned short value, size_t width,
                            size_t height, CUstream stream);

/* Fills a rectangle of 32-bit words in stream order. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE))
CUresult cuMemsetD2D32Async(CUdeviceptr dst, size_t pitch, unsigned int value, size_t width,
                            size_t height, CUstream stream);
