/* Attributes of streams: hints to the driver, kept by it and asked for; the priority is known here
 * too. */
#include <string.h>

#include "intercept/stream.h"

static bool id_known(CUstreamAttrID id)
{
    switch ((int)id) {
    case CU_STREAM_ATTRIBUTE_ACCESS_POLICY_WINDOW:
    case CU_STREAM_ATTRIBUTE_SYNCHRONIZATION_POLICY:
    case CU_STREAM_ATTRIBUTE_PRIORITY:
    case CU_STREAM_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
    case CU_STREAM_ATTRIBUTE_MEM_SYNC_DOMAIN:
        return true;
    default:
        return false;
    }
}

/* `from`: what is copied; `in` and `out`: 64 bytes each.  What an action does not use is NULL. */
static CUresult attr_ask(enum tfr_stream_attr_do what, const struct tfr_stream *stream,
                         const struct tfr_stream *from, CUstreamAttrID id, const void *in,
                         void *out)
{
    struct tfr_ask ask;
    struct tfr_stream_attr_req *req = tfr_ask_begin(&ask, TFR_OP_stream_attr, sizeof *req);
    if (!req)
        return ask.result;
    req->stream = stream->id;
    req->from = from ? from->id : 0;
    req->what = what;
    req->id = (uint32_t)id;
    memset(req->value, 0, sizeof req->value);
    if (in)
        memcpy(req->value, in, sizeof req->value);
    const void *rep = tfr_ask_send(&ask, out ? sizeof req->value : 0);
    if (rep && out)
        memcpy(out, rep, sizeof req->value);
    return tfr_ask_end(&ask);
}

static CUresult attr_enter(CUstream handle, CUstreamAttrID id, const void *value,
                           struct tfr_stream **stream_out)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    *stream_out = tfr_stream_of(handle);
    if (!*stream_out)
        return CUDA_ERROR_INVALID_HANDLE;
    return value && id_known(id) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuStreamGetAttribute(CUstream handle, CUstreamAttrID id, CUstreamAttrValue *value)
{
    struct tfr_stream *stream;
    CUresult result = attr_enter(handle, id, value, &stream);
    return result != CUDA_SUCCESS ? result
                                  : attr_ask(TFR_STREAM_ATTR_GET, stream, NULL, id, NULL, value);
}

CUresult cuStreamSetAttribute(CUstream handle, CUstreamAttrID id, const CUstreamAttrValue *value)
{
    struct tfr_stream *stream;
    CUresult result = attr_enter(handle, id, value, &stream);
    if (result == CUDA_SUCCESS)
        result = attr_ask(TFR_STREAM_ATTR_SET, stream, NULL, id, value, NULL);
    if (result == CUDA_SUCCESS && (int)id == CU_STREAM_ATTRIBUTE_PRIORITY)
        stream->priority = value->priority;
    return result;
}

static CUresult attrs_copy(CUstream dst_handle, CUstream src_handle)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *dst = tfr_stream_of(dst_handle), *src = tfr_stream_of(src_handle);
    if (!dst || !src)
        return CUDA_ERROR_INVALID_HANDLE;
    if (dst->ctx != src->ctx)
        return CUDA_ERROR_INVALID_VALUE;
    return attr_ask(TFR_STREAM_ATTR_COPY, dst, src, CU_LAUNCH_ATTRIBUTE_IGNORE, NULL, NULL);
}

CUresult cuStreamCopyAttributes(CUstream dst, CUstream src)
{
    return attrs_copy(dst, src);
}

CUresult cuStreamCopyAttributes_ptsz(CUstream dst, CUstream src)
{
    return attrs_copy(dst ? dst : CU_STREAM_PER_THREAD, src ? src : CU_STREAM_PER_THREAD);
}
