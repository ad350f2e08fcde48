/* Per-thread twins of calls that the spec does not list as having one: stream NULL means the
 * thread's own stream.  Weak, so that a generated twin takes over as soon as there is one. */
#include "executor/softgpu/soft.h"

#define TWIN __attribute__((weak))

static CUstream own(CUstream stream)
{
    return stream ? stream : CU_STREAM_PER_THREAD;
}

TWIN CUresult cuLaunchHostFunc_ptsz(CUstream stream, CUhostFn fn, void *arg)
{
    return cuLaunchHostFunc(own(stream), fn, arg);
}

TWIN CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *config, CUfunction f, void **params,
                                    void **extra)
{
    if (!config)
        return cuLaunchKernelEx(config, f, params, extra);
    CUlaunchConfig mine = *config;
    mine.hStream = own(mine.hStream);
    return cuLaunchKernelEx(&mine, f, params, extra);
}

TWIN CUresult cuMemAllocFromPoolAsync_ptsz(CUdeviceptr *out, size_t len, CUmemoryPool pool,
                                           CUstream stream)
{
    return cuMemAllocFromPoolAsync(out, len, pool, own(stream));
}

TWIN CUresult cuMemPrefetchAsync_ptsz(CUdeviceptr at, size_t len, CUdevice dev, CUstream stream)
{
    return cuMemPrefetchAsync(at, len, dev, own(stream));
}

TWIN CUresult cuMemPrefetchAsync_v2_ptsz(CUdeviceptr at, size_t len, CUmemLocation location,
                                         unsigned int flags, CUstream stream)
{
    return cuMemPrefetchAsync_v2(at, len, location, flags, own(stream));
}

TWIN CUresult cuMemcpy2DAsync_v2_ptsz(const CUDA_MEMCPY2D *c, CUstream stream)
{
    return cuMemcpy2DAsync_v2(c, own(stream));
}

TWIN CUresult cuMemcpy3DAsync_v2_ptsz(const CUDA_MEMCPY3D *c, CUstream stream)
{
    return cuMemcpy3DAsync_v2(c, own(stream));
}

TWIN CUresult cuMemcpy3DPeerAsync_ptsz(const CUDA_MEMCPY3D_PEER *c, CUstream stream)
{
    return cuMemcpy3DPeerAsync(c, own(stream));
}

TWIN CUresult cuMemcpyPeerAsync_ptsz(CUdeviceptr dst, CUcontext to, CUdeviceptr src, CUcontext from,
                                     size_t len, CUstream stream)
{
    return cuMemcpyPeerAsync(dst, to, src, from, len, own(stream));
}

TWIN CUresult cuStreamAddCallback_ptsz(CUstream stream, CUstreamCallback callback, void *arg,
                                       unsigned int flags)
{
    return cuStreamAddCallback(own(stream), callback, arg, flags);
}

TWIN CUresult cuStreamAttachMemAsync_ptsz(CUstream stream, CUdeviceptr at, size_t len,
                                          unsigned int flags)
{
    return cuStreamAttachMemAsync(own(stream), at, len, flags);
}

TWIN CUresult cuStreamCopyAttributes_ptsz(CUstream dst, CUstream src)
{
    return cuStreamCopyAttributes(own(dst), own(src));
}

TWIN CUresult cuStreamGetAttribute_ptsz(CUstream stream, CUstreamAttrID attribute,
                                        CUstreamAttrValue *value)
{
    return cuStreamGetAttribute(own(stream), attribute, value);
}

TWIN CUresult cuStreamSetAttribute_ptsz(CUstream stream, CUstreamAttrID attribute,
                                        const CUstreamAttrValue *value)
{
    return cuStreamSetAttribute(own(stream), attribute, value);
}

TWIN CUresult cuStreamGetCaptureInfo_ptsz(CUstream stream, CUstreamCaptureStatus *status,
                                          cuuint64_t *id)
{
    return cuStreamGetCaptureInfo(own(stream), status, id);
}

TWIN CUresult cuStreamGetCaptureInfo_v2_ptsz(CUstream stream, CUstreamCaptureStatus *status,
                                             cuuint64_t *id, CUgraph *graph,
                                             const CUgraphNode **dependencies, size_t *n)
{
    return cuStreamGetCaptureInfo_v2(own(stream), status, id, graph, dependencies, n);
}

TWIN CUresult cuStreamGetCaptureInfo_v3_ptsz(CUstream stream, CUstreamCaptureStatus *status,
                                             cuuint64_t *id, CUgraph *graph,
                                             const CUgraphNode **dependencies,
                                             const CUgraphEdgeData **edges, size_t *n)
{
    return cuStreamGetCaptureInfo_v3(own(stream), status, id, graph, dependencies, edges, n);
}

TWIN CUresult cuStreamGetCtx_v2_ptsz(CUstream stream, CUcontext *ctx, CUgreenCtx *green)
{
    return cuStreamGetCtx_v2(own(stream), ctx, green);
}

TWIN CUresult cuStreamWaitValue32_ptsz(CUstream stream, CUdeviceptr at, cuuint32_t value,
                                       unsigned int flags)
{
    return cuStreamWaitValue32(own(stream), at, value, flags);
}

TWIN CUresult cuStreamWaitValue64_ptsz(CUstream stream, CUdeviceptr at, cuuint64_t value,
                                       unsigned int flags)
{
    return cuStreamWaitValue64(own(stream), at, value, flags);
}

TWIN CUresult cuStreamWriteValue32_ptsz(CUstream stream, CUdeviceptr at, cuuint32_t value,
                                        unsigned int flags)
{
    return cuStreamWriteValue32(own(stream), at, value, flags);
}

TWIN CUresult cuStreamWriteValue64_ptsz(CUstream stream, CUdeviceptr at, cuuint64_t value,
                                        unsigned int flags)
{
    return cuStreamWriteValue64(own(stream), at, value, flags);
}

TWIN CUresult cuStreamBatchMemOp_ptsz(CUstream stream, unsigned int n,
                                      CUstreamBatchMemOpParams *params, unsigned int flags)
{
    return cuStreamBatchMemOp(own(stream), n, params, flags);
}

TWIN CUresult cuStreamWaitValue32_v2_ptsz(CUstream stream, CUdeviceptr at, cuuint32_t value,
                                          unsigned int flags)
{
    return cuStreamWaitValue32_v2(own(stream), at, value, flags);
}

TWIN CUresult cuStreamWaitValue64_v2_ptsz(CUstream stream, CUdeviceptr at, cuuint64_t value,
                                          unsigned int flags)
{
    return cuStreamWaitValue64_v2(own(stream), at, value, flags);
}

TWIN CUresult cuStreamWriteValue32_v2_ptsz(CUstream stream, CUdeviceptr at, cuuint32_t value,
                                           unsigned int flags)
{
    return cuStreamWriteValue32_v2(own(stream), at, value, flags);
}

TWIN CUresult cuStreamWriteValue64_v2_ptsz(CUstream stream, CUdeviceptr at, cuuint64_t value,
                                           unsigned int flags)
{
    return cuStreamWriteValue64_v2(own(stream), at, value, flags);
}

TWIN CUresult cuStreamBatchMemOp_v2_ptsz(CUstream stream, unsigned int n,
                                         CUstreamBatchMemOpParams *params, unsigned int flags)
{
    return cuStreamBatchMemOp_v2(own(stream), n, params, flags);
}

TWIN CUresult cuMemcpyBatchAsync_v2_ptsz(CUdeviceptr *dst, CUdeviceptr *src, size_t *len, size_t n,
                                         CUmemcpyAttributes *attributes, size_t *firsts,
                                         size_t attribute_n, CUstream stream)
{
    return cuMemcpyBatchAsync_v2(dst, src, len, n, attributes, firsts, attribute_n, own(stream));
}

TWIN CUresult cuMemcpyBatchAsync_ptsz(CUdeviceptr *dst, CUdeviceptr *src, size_t *len, size_t n,
                                      CUmemcpyAttributes *attributes, size_t *firsts,
                                      size_t attribute_n, size_t *failed, CUstream stream)
{
    return cuMemcpyBatchAsync(dst, src, len, n, attributes, firsts, attribute_n, failed,
                              own(stream));
}
