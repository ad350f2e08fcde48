/* Handlers of questions that the generated ones cannot put: attributes of streams, clusters. */
#define TFR_LOG_PART "executor"
#include <string.h>

#include "executor/session.h"
#include "tfr_dispatch_decl.h"

static CUresult attr_do(struct tfr_session *s, const struct tfr_stream_attr_req *req,
                        CUstream stream, CUstream from, struct tfr_reply *reply)
{
    CUstreamAttrValue value;
    CUstreamAttrID id = (CUstreamAttrID)req->id;
    static_assert(sizeof value == sizeof req->value, "64 bytes");
    if (req->what == TFR_STREAM_ATTR_COPY)
        return s->cu->cuStreamCopyAttributes(stream, from);
    memcpy(&value, req->value, sizeof value);
    if (req->what == TFR_STREAM_ATTR_SET)
        return s->cu->cuStreamSetAttribute(stream, id, &value);
    CUresult result = s->cu->cuStreamGetAttribute(stream, id, &value);
    memcpy(tfr_reply_room(reply, sizeof value), &value, sizeof value);
    return result;
}

CUresult do_stream_attr(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    const struct tfr_stream_attr_req *req = (const struct tfr_stream_attr_req *)rec;
    struct tfr_stream *stream, *from = NULL;
    if (req->what > TFR_STREAM_ATTR_COPY)
        return tfr_session_bad(s, rec, "nothing that is done with attributes");
    if (!s->cu->cuStreamGetAttribute || !s->cu->cuStreamSetAttribute ||
        !s->cu->cuStreamCopyAttributes)
        return CUDA_ERROR_NOT_SUPPORTED;
    CUresult result = CUDA_SUCCESS;
    if (req->what == TFR_STREAM_ATTR_COPY)
        result = tfr_stream_get(s, req->from, &from);
    if (result == CUDA_SUCCESS)
        result = tfr_stream_get(s, req->stream, &stream);
    return result != CUDA_SUCCESS ? result
                                  : attr_do(s, req, stream->real, from ? from->real : NULL, reply);
}

/* The record's attributes, or an error: they do not lie in it. */
static bool attrs_read(const struct tfr_clusters_req *req, CUlaunchAttribute *to)
{
    const struct tfr_launch_attr *from = (const struct tfr_launch_attr *)(req + 1);
    if (req->attr_n > TFR_LAUNCH_ATTRS_MAX ||
        !tfr_span_inside(sizeof *req, req->attr_n * sizeof *from, req->head.size))
        return false;
    memset(to, 0, TFR_LAUNCH_ATTRS_MAX * sizeof *to);
    for (uint32_t i = 0; i < req->attr_n; i++) {
        to[i].id = (CUlaunchAttributeID)from[i].id;
        memcpy(&to[i].value, from[i].value, sizeof from[i].value);
    }
    return true;
}

CUresult do_clusters(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    const struct tfr_clusters_req *req = (const struct tfr_clusters_req *)rec;
    CUlaunchAttribute attrs[TFR_LAUNCH_ATTRS_MAX];
    struct tfr_clusters_rep *rep = tfr_reply_room(reply, sizeof *rep);
    void *fn;
    int n = 0;
    if (!attrs_read(req, attrs))
        return tfr_session_bad(s, rec, "attributes that do not fit the record");
    for (uint32_t i = 0; i < req->attr_n; i++)
        if (!tfr_attr_is_value(attrs[i].id))
            return CUDA_ERROR_NOT_SUPPORTED;
    CUresult result = tfr_object_get(s, TFR_KIND_FUNCTION, req->fn, &fn);
    if (result != CUDA_SUCCESS)
        return result;
    CUlaunchConfig config = {.gridDimX = req->grid[0],
                             .gridDimY = req->grid[1],
                             .gridDimZ = req->grid[2],
                             .blockDimX = req->block[0],
                             .blockDimY = req->block[1],
                             .blockDimZ = req->block[2],
                             .sharedMemBytes = req->shared,
                             .attrs = attrs,
                             .numAttrs = req->attr_n};
    if (req->most)
        result = s->cu->cuOccupancyMaxPotentialClusterSize
                     ? s->cu->cuOccupancyMaxPotentialClusterSize(&n, fn, &config)
                     : CUDA_ERROR_NOT_SUPPORTED;
    else
        result = s->cu->cuOccupancyMaxActiveClusters
                     ? s->cu->cuOccupancyMaxActiveClusters(&n, fn, &config)
                     : CUDA_ERROR_NOT_SUPPORTED;
    rep->n = n;
    return result;
}
