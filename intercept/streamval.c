/* Stream memory operations: a stream waits for values in memory or writes them.  One record for a
 * batch.  Addresses are device memory, or pinned memory of ours, which the executor's GPU sees at
 * the same bytes; application memory that was only registered has no device address. */
#define TFR_LOG_PART "intercept"
#include <string.h>

#include "intercept/gate.h"
#include "intercept/memory.h"

static int able(const struct tfr_stream *stream, CUdevice_attribute attribute)
{
    return tfr_client.snapshot->device[stream->ctx->device].attribute[attribute];
}

/* Where the GPU sees the bytes; 0: nowhere.  *host_out: so does the application. */
static uint64_t seen_at(uint64_t addr, uint64_t len, bool *host_out)
{
    struct tfr_range range = tfr_range_find(addr);
    if (addr % len || !tfr_range_holds(&range, addr, len))
        return 0;
    if (tfr_range_is_device(&range))
        return addr;
    *host_out = true;
    return range.kind == TFR_RANGE_MAPPED ? range.device_addr + (addr - range.base) : 0;
}

static CUresult wait_check(const struct tfr_stream *stream, unsigned int flags)
{
    unsigned int flush = CU_STREAM_WAIT_VALUE_FLUSH;
    if (flags & ~(flush | CU_STREAM_WAIT_VALUE_NOR))
        return CUDA_ERROR_INVALID_VALUE;
    bool nor = (flags & CU_STREAM_WAIT_VALUE_NOR) == CU_STREAM_WAIT_VALUE_NOR;
    if ((flags & flush && !able(stream, CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES)) ||
        (nor && !able(stream, CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR)))
        return CUDA_ERROR_NOT_SUPPORTED;
    return CUDA_SUCCESS;
}

/* One operation, checked, with its address as the GPU sees it. */
static CUresult op_take(const struct tfr_stream *stream, const CUstreamBatchMemOpParams *from,
                        struct tfr_value_op *to, bool *seen_out)
{
    bool wide = from->operation == CU_STREAM_MEM_OP_WAIT_VALUE_64 ||
                from->operation == CU_STREAM_MEM_OP_WRITE_VALUE_64;
    CUresult result = CUDA_SUCCESS;
    *to = (struct tfr_value_op){.op = from->operation};
    switch (from->operation) {
    case CU_STREAM_MEM_OP_WAIT_VALUE_32:
    case CU_STREAM_MEM_OP_WAIT_VALUE_64:
        to->addr = from->waitValue.address;
        to->value = wide ? from->waitValue.value64 : from->waitValue.value;
        to->flags = from->waitValue.flags;
        result = wait_check(stream, to->flags);
        break;
    case CU_STREAM_MEM_OP_WRITE_VALUE_32:
    case CU_STREAM_MEM_OP_WRITE_VALUE_64:
        to->addr = from->writeValue.address;
        to->value = wide ? from->writeValue.value64 : from->writeValue.value;
        to->flags = from->writeValue.flags;
        if (to->flags & ~(unsigned int)CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER)
            result = CUDA_ERROR_INVALID_VALUE;
        break;
    case CU_STREAM_MEM_OP_BARRIER:
        to->flags = from->memoryBarrier.flags;
        return to->flags > CU_STREAM_MEMORY_BARRIER_TYPE_GPU ? CUDA_ERROR_INVALID_VALUE
                                                             : CUDA_SUCCESS;
    case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
        return able(stream, CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES) ? CUDA_SUCCESS
                                                                         : CUDA_ERROR_NOT_SUPPORTED;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (result != CUDA_SUCCESS)
        return result;
    if (wide && !able(stream, CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS))
        return CUDA_ERROR_NOT_SUPPORTED;
    to->addr = seen_at(to->addr, wide ? 8 : 4, seen_out);
    return to->addr ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static bool is_wait(const struct tfr_value_op *op)
{
    return op->op == CU_STREAM_MEM_OP_WAIT_VALUE_32 || op->op == CU_STREAM_MEM_OP_WAIT_VALUE_64;
}

/* The mark of a batch that waits tells when the wait is over: see tfr_gate_writer_pending. */
static CUresult post(struct tfr_stream *stream, const struct tfr_value_op *op, uint32_t n)
{
    bool waits = false;
    for (uint32_t i = 0; i < n; i++)
        waits |= is_wait(&op[i]);
    struct tfr_values_req *req =
        tfr_post_begin(TFR_OP_values, (uint32_t)(sizeof *req + n * sizeof *op));
    if (!req)
        return tfr_post_failed();
    if (stream->dead)
        return tfr_post_cancel(CUDA_ERROR_INVALID_HANDLE);
    req->stream = stream->id;
    req->n = n;
    req->flags = waits ? TFR_VALUES_MARK : 0;
    memcpy(req + 1, op, n * sizeof *op);
    if (waits) {
        atomic_store_explicit(&stream->mark, req->head.seq, memory_order_relaxed);
        /* Before anybody can post behind it and ask. */
        tfr_gate_value_waits(stream, req->head.seq);
    }
    return tfr_post_end_on(stream, NULL);
}

CUresult cuStreamBatchMemOp_v2(CUstream handle, unsigned int n, CUstreamBatchMemOpParams *params,
                               unsigned int flags)
{
    struct tfr_value_op op[TFR_VALUES_MAX];
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *stream = tfr_stream_of(handle);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    if (flags || n > TFR_VALUES_MAX || (n && !params))
        return CUDA_ERROR_INVALID_VALUE;
    bool seen = false;
    for (unsigned int i = 0; i < n && result == CUDA_SUCCESS; i++)
        result = op_take(stream, &params[i], &op[i], &seen); /* all or nothing */
    if (result == CUDA_SUCCESS && seen)
        result = tfr_gate_settle(stream);
    return result != CUDA_SUCCESS || !n ? result : post(stream, op, n);
}

static CUresult wait_one(CUstream stream, CUstreamBatchMemOpType op, CUdeviceptr addr,
                         uint64_t value, unsigned int flags)
{
    CUstreamBatchMemOpParams p = {.waitValue = {.operation = op, .address = addr, .flags = flags}};
    p.waitValue.value64 = value;
    return cuStreamBatchMemOp_v2(stream, 1, &p, 0);
}

static CUresult write_one(CUstream stream, CUstreamBatchMemOpType op, CUdeviceptr addr,
                          uint64_t value, unsigned int flags)
{
    CUstreamBatchMemOpParams p = {.writeValue = {.operation = op, .address = addr, .flags = flags}};
    p.writeValue.value64 = value;
    return cuStreamBatchMemOp_v2(stream, 1, &p, 0);
}

CUresult cuStreamWaitValue32_v2(CUstream stream, CUdeviceptr addr, cuuint32_t value,
                                unsigned int flags)
{
    return wait_one(stream, CU_STREAM_MEM_OP_WAIT_VALUE_32, addr, value, flags);
}

CUresult cuStreamWaitValue64_v2(CUstream stream, CUdeviceptr addr, cuuint64_t value,
                                unsigned int flags)
{
    return wait_one(stream, CU_STREAM_MEM_OP_WAIT_VALUE_64, addr, value, flags);
}

CUresult cuStreamWriteValue32_v2(CUstream stream, CUdeviceptr addr, cuuint32_t value,
                                 unsigned int flags)
{
    return write_one(stream, CU_STREAM_MEM_OP_WRITE_VALUE_32, addr, value, flags);
}

CUresult cuStreamWriteValue64_v2(CUstream stream, CUdeviceptr addr, cuuint64_t value,
                                 unsigned int flags)
{
    return write_one(stream, CU_STREAM_MEM_OP_WRITE_VALUE_64, addr, value, flags);
}

/* ---- the names before _v2: for devices that say so ---- */

static CUresult old_able(CUstream handle)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_stream *stream = tfr_stream_of(handle);
    if (!stream)
        return CUDA_ERROR_INVALID_HANDLE;
    return able(stream, CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1) ? CUDA_SUCCESS
                                                                       : CUDA_ERROR_NOT_SUPPORTED;
}

CUresult cuStreamBatchMemOp(CUstream stream, unsigned int n, CUstreamBatchMemOpParams *params,
                            unsigned int flags)
{
    CUresult result = old_able(stream);
    return result != CUDA_SUCCESS ? result : cuStreamBatchMemOp_v2(stream, n, params, flags);
}

CUresult cuStreamWaitValue32(CUstream stream, CUdeviceptr addr, cuuint32_t value,
                             unsigned int flags)
{
    CUresult result = old_able(stream);
    return result != CUDA_SUCCESS ? result : cuStreamWaitValue32_v2(stream, addr, value, flags);
}

CUresult cuStreamWaitValue64(CUstream stream, CUdeviceptr addr, cuuint64_t value,
                             unsigned int flags)
{
    CUresult result = old_able(stream);
    return result != CUDA_SUCCESS ? result : cuStreamWaitValue64_v2(stream, addr, value, flags);
}

CUresult cuStreamWriteValue32(CUstream stream, CUdeviceptr addr, cuuint32_t value,
                              unsigned int flags)
{
    CUresult result = old_able(stream);
    return result != CUDA_SUCCESS ? result : cuStreamWriteValue32_v2(stream, addr, value, flags);
}

CUresult cuStreamWriteValue64(CUstream stream, CUdeviceptr addr, cuuint64_t value,
                              unsigned int flags)
{
    CUresult result = old_able(stream);
    return result != CUDA_SUCCESS ? result : cuStreamWriteValue64_v2(stream, addr, value, flags);
}
