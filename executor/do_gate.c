/* Handlers of gates and of values in memory.  A gate's wait is satisfied by a word that the client
 * stores into its page: neither ring nor pump has a part in it, so whatever is submitted behind a
 * gate may block the pump without harm. */
#define TFR_LOG_PART "executor"
#include "executor/session.h"
#include "tfr_dispatch_decl.h"

CUresult do_gate(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_gate_req *req = (const struct tfr_gate_req *)rec;
    struct tfr_stream *stream;
    CUresult result = tfr_stream_get(s, req->stream, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    if (!s->cu->cuStreamWaitValue64_v2)
        return CUDA_ERROR_NOT_SUPPORTED;
    /* The record before may have marked the stream with this very number. */
    uint64_t reached = rec->seq - 1;
    if (atomic_load_explicit(&s->asked[stream->word], memory_order_relaxed) < reached)
        result = tfr_news_ask(s, stream, reached);
    if (result != CUDA_SUCCESS)
        return result;
    CUdeviceptr at = s->gate_gpu + stream->word * sizeof(uint64_t);
    return s->cu->cuStreamWaitValue64_v2(stream->real, at, rec->seq, CU_STREAM_WAIT_VALUE_GEQ);
}

/* ---- values ---- */

/* As one submission, as the client gave it: a driver may do a batch faster. */
static CUresult values_submit(struct tfr_session *s, const struct tfr_values_req *req,
                              CUstream stream)
{
    CUstreamBatchMemOpParams params[TFR_VALUES_MAX] = {0};
    const struct tfr_value_op *op = (const struct tfr_value_op *)(req + 1);
    for (uint32_t i = 0; i < req->n; i++, op++) {
        params[i].operation = (CUstreamBatchMemOpType)op->op;
        switch (op->op) {
        case CU_STREAM_MEM_OP_WAIT_VALUE_32:
        case CU_STREAM_MEM_OP_WAIT_VALUE_64:
            params[i].waitValue.address = op->addr;
            params[i].waitValue.value64 = op->value;
            params[i].waitValue.flags = op->flags;
            break;
        case CU_STREAM_MEM_OP_WRITE_VALUE_32:
        case CU_STREAM_MEM_OP_WRITE_VALUE_64:
            params[i].writeValue.address = op->addr;
            params[i].writeValue.value64 = op->value;
            params[i].writeValue.flags = op->flags;
            break;
        case CU_STREAM_MEM_OP_BARRIER:
            params[i].memoryBarrier.flags = op->flags;
            break;
        case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
            params[i].flushRemoteWrites.flags = op->flags;
            break;
        default:
            return CUDA_ERROR_INVALID_VALUE;
        }
    }
    return s->cu->cuStreamBatchMemOp_v2(stream, req->n, params, 0);
}

CUresult do_values(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_values_req *req = (const struct tfr_values_req *)rec;
    struct tfr_stream *stream;
    if (req->n > TFR_VALUES_MAX || req->n * sizeof(struct tfr_value_op) > rec->size - sizeof *req)
        return tfr_session_bad(s, rec, "more values than the record holds");
    CUresult result = tfr_stream_get(s, req->stream, &stream);
    if (result == CUDA_SUCCESS && !s->cu->cuStreamBatchMemOp_v2)
        result = CUDA_ERROR_NOT_SUPPORTED;
    if (result == CUDA_SUCCESS)
        result = values_submit(s, req, stream->real);
    if (result == CUDA_SUCCESS && (req->flags & TFR_VALUES_MARK))
        result = tfr_news_ask(s, stream, rec->seq);
    return result;
}
