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

/* Copies a rectangle, row by row. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE, NOT_SUPPORTED))
CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *copy);

/* The same, without demands on the pitch. */
TFR_CALL(0x0000, CUSTOM, TFR_ERRORS(INVALID_VALUE, NOT_SUPPORTED))
CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *copy);

/* Copies a rectangle in stream order, row by row; cudart copies from host to host with it. */
TFR_CALL(0x0000, CUSTOM, PTSZ, TFR_ERRORS(INVALID_VALUE, INVALID_HANDLE, NOT_SUPPORTED))
CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream);

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
