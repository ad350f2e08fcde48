/* Entry points of streams: creation, waiting, queries, host functions and value operations. */
#include "executor/softgpu/soft.h"

#include <string.h>

CUresult soft_stream_find(CUstream handle, struct soft_stream **stream_out)
{
    struct soft_ctx *ctx = soft_current();
    if (__builtin_expect(soft_ready() != CUDA_SUCCESS, 0))
        return CUDA_ERROR_NOT_INITIALIZED;
    if (__builtin_expect(soft_calling, 0))
        return CUDA_ERROR_NOT_PERMITTED;
    if (!ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    struct soft_stream *stream;
    if ((uint64_t)handle > 2) {
        stream = soft_handle_get((uint64_t)handle, SOFT_STREAM);
        if (!stream)
            return CUDA_ERROR_INVALID_HANDLE;
        *stream_out = stream;
        return soft_ctx_usable(stream->ctx);
    }
    CUresult result = soft_ctx_usable(ctx);
    if (result)
        return result;
    stream = handle == CU_STREAM_PER_THREAD ? soft_thread_stream(ctx) : ctx->legacy;
    *stream_out = stream;
    return stream ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult create(CUstream *out, unsigned int flags, int priority)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!out || (flags & ~(unsigned int)CU_STREAM_NON_BLOCKING))
        return CUDA_ERROR_INVALID_VALUE;
    if (priority > 0)
        priority = 0;
    else if (priority < SOFT_PRIORITY_HIGH)
        priority = SOFT_PRIORITY_HIGH;
    struct soft_stream *stream = soft_stream_new(ctx, flags, priority);
    if (!stream)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = (CUstream)stream->handle;
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags)
{
    return create(stream, flags, 0);
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority)
{
    return create(stream, flags, priority);
}

CUresult cuStreamDestroy_v2(CUstream handle)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    struct soft_stream *stream = soft_handle_get((uint64_t)handle, SOFT_STREAM);
    if (!stream || stream == stream->ctx->legacy || stream->per_thread)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult usable = soft_ctx_usable(stream->ctx);
    soft_stream_drop(stream);
    return usable;
}

CUresult cuStreamDestroy(CUstream stream)
{
    return cuStreamDestroy_v2(stream);
}

CUresult cuStreamQuery(CUstream handle)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (!soft_stream_passed(stream, soft_stream_position(stream)))
        return CUDA_ERROR_NOT_READY;
    return soft_ctx_usable(stream->ctx);
}

CUresult cuStreamSynchronize(CUstream handle)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    struct soft_ctx *ctx = stream->ctx;
    soft_stream_ref(stream);
    soft_stream_wait(stream, soft_stream_position(stream));
    soft_stream_unref(stream);
    soft_pool_synced();
    vm_text_flush();
    return soft_ctx_usable(ctx);
}

CUresult cuStreamGetPriority(CUstream handle, int *priority)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (!priority)
        return CUDA_ERROR_INVALID_VALUE;
    *priority = stream->priority;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetFlags(CUstream handle, unsigned int *flags)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = stream->flags;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetId(CUstream handle, unsigned long long *id)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (!id)
        return CUDA_ERROR_INVALID_VALUE;
    *id = stream->id;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext *ctx)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (!ctx)
        return CUDA_ERROR_INVALID_VALUE;
    *ctx = (CUcontext)stream->ctx->handle;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetCtx_v2(CUstream handle, CUcontext *ctx, CUgreenCtx *green)
{
    CUresult result = cuStreamGetCtx(handle, ctx);
    if (result == CUDA_SUCCESS && green)
        *green = NULL;
    return result;
}

CUresult cuStreamGetDevice(CUstream handle, CUdevice *dev)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (!dev)
        return CUDA_ERROR_INVALID_VALUE;
    *dev = stream->ctx->dev->at;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetAttribute(CUstream handle, CUstreamAttrID attribute, CUstreamAttrValue *value)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    const struct soft_stream_attrs *attrs = &stream->attrs;
    memset(value, 0, sizeof(*value));
    switch ((int)attribute) {
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
        value->priority = stream->priority;
        return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
        value->syncPolicy = attrs->sync ? attrs->sync : CU_SYNC_POLICY_AUTO;
        return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
        value->memSyncDomainMap.remote = 1;
        if (attrs->has_domains)
            value->memSyncDomainMap = attrs->domains;
        return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
        value->accessPolicyWindow = attrs->window;
        return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
        value->memSyncDomain = attrs->domain;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuStreamSetAttribute(CUstream handle, CUstreamAttrID attribute,
                              const CUstreamAttrValue *value)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (!value)
        return CUDA_ERROR_INVALID_VALUE;
    struct soft_stream_attrs *attrs = &stream->attrs;
    switch ((int)attribute) {
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
        attrs->window = value->accessPolicyWindow;
        return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
        if (value->syncPolicy < CU_SYNC_POLICY_AUTO ||
            value->syncPolicy > CU_SYNC_POLICY_BLOCKING_SYNC)
            return CUDA_ERROR_INVALID_VALUE;
        attrs->sync = value->syncPolicy;
        return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
        stream->priority = value->priority;
        return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
        attrs->domains = value->memSyncDomainMap;
        attrs->has_domains = true;
        return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
        attrs->domain = value->memSyncDomain;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuStreamCopyAttributes(CUstream dst_handle, CUstream src_handle)
{
    struct soft_stream *dst, *src;
    CUresult result = soft_stream_find(dst_handle, &dst);
    if (result == CUDA_SUCCESS)
        result = soft_stream_find(src_handle, &src);
    if (result)
        return result;
    if (dst->ctx != src->ctx)
        return CUDA_ERROR_INVALID_VALUE;
    dst->attrs = src->attrs;
    return CUDA_SUCCESS;
}

CUresult cuStreamAttachMemAsync(CUstream handle, CUdeviceptr ptr, size_t len, unsigned int flags)
{
    struct soft_stream *stream;
    struct soft_range range;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    (void)len;
    if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST &&
        flags != CU_MEM_ATTACH_SINGLE)
        return CUDA_ERROR_INVALID_VALUE;
    return soft_mem_find(ptr, &range) && (range.flags & SOFT_MEM_MANAGED)
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (!status)
        return CUDA_ERROR_INVALID_VALUE;
    *status = CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetCaptureInfo_v2(CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id,
                                   CUgraph *graph, const CUgraphNode **dependencies, size_t *n)
{
    (void)id;
    (void)graph;
    (void)dependencies;
    (void)n;
    return cuStreamIsCapturing(handle, status);
}

CUresult cuStreamGetCaptureInfo_v3(CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id,
                                   CUgraph *graph, const CUgraphNode **dependencies,
                                   const CUgraphEdgeData **edges, size_t *n)
{
    (void)id;
    (void)graph;
    (void)dependencies;
    (void)edges;
    (void)n;
    return cuStreamIsCapturing(handle, status);
}

CUresult cuStreamGetCaptureInfo(CUstream handle, CUstreamCaptureStatus *status, cuuint64_t *id)
{
    (void)id;
    return cuStreamIsCapturing(handle, status);
}

CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    static _Thread_local CUstreamCaptureMode mine = CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (!mode || (unsigned int)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    CUstreamCaptureMode before = mine;
    mine = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

/* ---- host functions ---- */

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn fn, void *arg)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (!fn)
        return CUDA_ERROR_INVALID_VALUE;
    struct soft_op op = {.kind = SOFT_OP_HOST, .host = {.fn = fn, .arg = arg}};
    return soft_submit(stream, &op, NULL, 0, false, NULL);
}

CUresult cuStreamAddCallback(CUstream handle, CUstreamCallback callback, void *arg,
                             unsigned int flags)
{
    struct soft_stream *stream;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (!callback || flags)
        return CUDA_ERROR_INVALID_VALUE;
    struct soft_op op = {.kind = SOFT_OP_CALLBACK,
                         .host = {.callback = callback, .arg = arg, .stream = (uint64_t)handle}};
    return soft_submit(stream, &op, NULL, 0, false, NULL);
}

/* ---- value operations ---- */

static CUresult value_op(struct soft_op *op_out, enum soft_op_kind kind, CUdeviceptr at,
                         uint64_t value, bool wide, unsigned int flags)
{
    unsigned int known = CU_STREAM_WAIT_VALUE_NOR | CU_STREAM_WAIT_VALUE_FLUSH;
    if (kind == SOFT_OP_WRITE)
        known = CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER;
    unsigned int access = kind == SOFT_OP_WRITE ? SOFT_PAGE_WRITE : SOFT_PAGE_READ;
    if ((flags & ~known) || (at & (wide ? 7 : 3)) || !soft_mem_ok(at, wide ? 8 : 4, access))
        return CUDA_ERROR_INVALID_VALUE;
    if (flags & CU_STREAM_WAIT_VALUE_FLUSH && kind == SOFT_OP_WAIT_VALUE)
        return CUDA_ERROR_NOT_SUPPORTED;
    *op_out = (struct soft_op){.kind = kind,
                               .value = {.at = at, .value = value, .wide = wide, .flags = flags}};
    return CUDA_SUCCESS;
}

static CUresult value_submit(CUstream handle, enum soft_op_kind kind, CUdeviceptr at,
                             uint64_t value, bool wide, unsigned int flags)
{
    struct soft_stream *stream;
    struct soft_op op;
    CUresult result = soft_stream_find(handle, &stream);
    if (result == CUDA_SUCCESS)
        result = value_op(&op, kind, at, value, wide, flags);
    return result ? result : soft_submit(stream, &op, NULL, 0, true, NULL);
}

CUresult cuStreamWriteValue32_v2(CUstream stream, CUdeviceptr at, cuuint32_t value,
                                 unsigned int flags)
{
    return value_submit(stream, SOFT_OP_WRITE, at, value, false, flags);
}

CUresult cuStreamWriteValue64_v2(CUstream stream, CUdeviceptr at, cuuint64_t value,
                                 unsigned int flags)
{
    return value_submit(stream, SOFT_OP_WRITE, at, value, true, flags);
}

CUresult cuStreamWaitValue32_v2(CUstream stream, CUdeviceptr at, cuuint32_t value,
                                unsigned int flags)
{
    return value_submit(stream, SOFT_OP_WAIT_VALUE, at, value, false, flags);
}

CUresult cuStreamWaitValue64_v2(CUstream stream, CUdeviceptr at, cuuint64_t value,
                                unsigned int flags)
{
    return value_submit(stream, SOFT_OP_WAIT_VALUE, at, value, true, flags);
}

static CUresult batch_op(const CUstreamBatchMemOpParams *params, struct soft_op *op_out)
{
    const CUstreamBatchMemOpParams *p = params;
    switch (p->operation) {
    case CU_STREAM_MEM_OP_WAIT_VALUE_32:
        return value_op(op_out, SOFT_OP_WAIT_VALUE, p->waitValue.address, p->waitValue.value, false,
                        p->waitValue.flags);
    case CU_STREAM_MEM_OP_WAIT_VALUE_64:
        return value_op(op_out, SOFT_OP_WAIT_VALUE, p->waitValue.address, p->waitValue.value64,
                        true, p->waitValue.flags);
    case CU_STREAM_MEM_OP_WRITE_VALUE_32:
        return value_op(op_out, SOFT_OP_WRITE, p->writeValue.address, p->writeValue.value, false,
                        p->writeValue.flags);
    case CU_STREAM_MEM_OP_WRITE_VALUE_64:
        return value_op(op_out, SOFT_OP_WRITE, p->writeValue.address, p->writeValue.value64, true,
                        p->writeValue.flags);
    case CU_STREAM_MEM_OP_BARRIER:
        *op_out = (struct soft_op){.kind = SOFT_OP_NONE};
        return CUDA_SUCCESS;
    case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuStreamBatchMemOp_v2(CUstream handle, unsigned int n, CUstreamBatchMemOpParams *params,
                               unsigned int flags)
{
    struct soft_stream *stream;
    struct soft_op op;
    CUresult result = soft_stream_find(handle, &stream);
    if (result)
        return result;
    if (flags || n > 256 || (n && !params))
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned int i = 0; i < n && result == CUDA_SUCCESS; i++)
        result = batch_op(&params[i], &op); /* all or nothing */
    for (unsigned int i = 0; i < n && result == CUDA_SUCCESS; i++) {
        batch_op(&params[i], &op);
        op.follows = i > 0;
        result = soft_submit(stream, &op, NULL, 0, true, NULL);
    }
    return result;
}

CUresult cuStreamWriteValue32(CUstream stream, CUdeviceptr at, cuuint32_t value, unsigned int flags)
{
    return cuStreamWriteValue32_v2(stream, at, value, flags);
}

CUresult cuStreamWriteValue64(CUstream stream, CUdeviceptr at, cuuint64_t value, unsigned int flags)
{
    return cuStreamWriteValue64_v2(stream, at, value, flags);
}

CUresult cuStreamWaitValue32(CUstream stream, CUdeviceptr at, cuuint32_t value, unsigned int flags)
{
    return cuStreamWaitValue32_v2(stream, at, value, flags);
}

CUresult cuStreamWaitValue64(CUstream stream, CUdeviceptr at, cuuint64_t value, unsigned int flags)
{
    return cuStreamWaitValue64_v2(stream, at, value, flags);
}

CUresult cuStreamBatchMemOp(CUstream stream, unsigned int n, CUstreamBatchMemOpParams *params,
                            unsigned int flags)
{
    return cuStreamBatchMemOp_v2(stream, n, params, flags);
}
