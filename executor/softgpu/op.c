/* What operations of a stream do, on whichever thread carries the stream forward.  After a fault of
 * the context nothing has an effect any more; only callbacks are told and frees are done. */
#include "executor/softgpu/soft.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"

_Thread_local bool soft_calling;

static void fault_at(struct soft_stream *stream, const char *what, uint64_t addr)
{
    tfr_say("softgpu: a %s touched address 0x%llx, which it may not", what,
            (unsigned long long)addr);
    soft_ctx_fault(stream->ctx, CUDA_ERROR_ILLEGAL_ADDRESS);
}

/* What the context's limits mean for a launch. */
static void limits_take(struct soft_ctx *ctx, struct vm_launch *launch)
{
    pthread_mutex_lock(&ctx->lock);
    launch->stack_len = (uint32_t)ctx->limit[CU_LIMIT_STACK_SIZE];
    uint64_t heap = ctx->limit[CU_LIMIT_MALLOC_HEAP_SIZE];
    pthread_mutex_unlock(&ctx->lock);
    /* relaxed: kernels that run meanwhile may see either */
    atomic_store_explicit(&ctx->device_heap.limit, heap, memory_order_relaxed);
    launch->heap = &ctx->device_heap;
}

static void exec_kernel(struct soft_stream *stream, const struct soft_op *op)
{
    struct vm_fault fault;
    struct vm_launch launch = {
        .kernel = op->launch.kernel,
        .grid = {op->launch.grid[0], op->launch.grid[1], op->launch.grid[2]},
        .block = {op->launch.block[0], op->launch.block[1], op->launch.block[2]},
        .shared_len = op->launch.shared_len,
        .params = op->data,
        .cooperative = op->launch.cooperative,
        .stop = &stream->ctx->stop,
    };
    limits_take(stream->ctx, &launch);
    CUresult result = vm_run(&launch, &fault);
    if (result == CUDA_SUCCESS)
        return;
    /* One that was stopped because of another's fault, or with its context, has nothing to tell. */
    if (soft_ctx_usable(stream->ctx) == CUDA_SUCCESS)
        tfr_say("%s", fault.text.s);
    soft_ctx_fault(stream->ctx, result);
}

/* Device memory may have been unmapped since the call was checked. */
static void exec_copy(struct soft_stream *stream, const struct soft_op *op)
{
    const struct soft_dev *dev = op->copy.peer ? NULL : stream->ctx->dev;
    const void *src = op->data_len ? op->data : (const void *)op->copy.src;
    if (!soft_mem_reach(dev, op->copy.dst, op->copy.len, SOFT_PAGE_WRITE))
        fault_at(stream, "copy", op->copy.dst);
    else if (!op->data_len && !soft_mem_reach(dev, op->copy.src, op->copy.len, SOFT_PAGE_READ))
        fault_at(stream, "copy", op->copy.src);
    else
        memmove((void *)op->copy.dst, src, op->copy.len);
}

static void exec_copy3d(struct soft_stream *stream, const struct soft_op *op)
{
    const struct soft_dev *dev = op->copy3d.peer ? NULL : stream->ctx->dev;
    const struct soft_box *dst = &op->copy3d.dst, *src = &op->copy3d.src;
    if (!soft_mem_reach(dev, dst->at, soft_box_len(op, dst), SOFT_PAGE_WRITE)) {
        fault_at(stream, "copy", dst->at);
        return;
    }
    if (!soft_mem_reach(dev, src->at, soft_box_len(op, src), SOFT_PAGE_READ)) {
        fault_at(stream, "copy", src->at);
        return;
    }
    for (uint64_t z = 0; z < op->copy3d.depth; z++)
        for (uint64_t y = 0; y < op->copy3d.height; y++)
            memmove((void *)(dst->at + z * dst->slice + y * dst->pitch),
                    (const void *)(src->at + z * src->slice + y * src->pitch), op->copy3d.width);
}

static void fill_row(uint64_t at, uint64_t n, uint32_t value, uint32_t size)
{
    if (size == 1 || (value & 0xff) * 0x01010101u == (size == 2 ? value * 0x10001u : value)) {
        memset((void *)at, (int)(value & 0xff), n * size);
    } else if (size == 2) {
        uint16_t *to = (uint16_t *)at;
        for (uint64_t i = 0; i < n; i++)
            to[i] = (uint16_t)value;
    } else {
        uint32_t *to = (uint32_t *)at;
        for (uint64_t i = 0; i < n; i++)
            to[i] = value;
    }
}

static void exec_fill(struct soft_stream *stream, const struct soft_op *op)
{
    uint64_t row = op->fill.width * op->fill.size;
    uint64_t len = (op->fill.height - 1) * op->fill.pitch + row;
    if (!soft_mem_reach(stream->ctx->dev, op->fill.at, len, SOFT_PAGE_WRITE)) {
        fault_at(stream, "memset", op->fill.at);
        return;
    }
    for (uint64_t y = 0; y < op->fill.height; y++)
        fill_row(op->fill.at + y * op->fill.pitch, op->fill.width, op->fill.value, op->fill.size);
}

static void exec_write(struct soft_stream *stream, const struct soft_op *op)
{
    uint32_t len = op->value.wide ? 8 : 4;
    if (!soft_mem_ok(op->value.at, len, SOFT_PAGE_WRITE) ||
        (soft_chaos.on && !soft_mem_reach(stream->ctx->dev, op->value.at, len, SOFT_PAGE_WRITE)))
        fault_at(stream, "value write", op->value.at);
    else if (op->value.wide)
        atomic_store_explicit((_Atomic uint64_t *)op->value.at, op->value.value,
                              memory_order_release);
    else
        atomic_store_explicit((_Atomic uint32_t *)op->value.at, (uint32_t)op->value.value,
                              memory_order_release);
}

bool soft_value_there(const struct soft_op *op)
{
    uint64_t value = op->value.value, found;
    if (!soft_mem_ok(op->value.at, op->value.wide ? 8 : 4, SOFT_PAGE_READ))
        return true;
    if (op->value.wide)
        found = atomic_load_explicit((_Atomic uint64_t *)op->value.at, memory_order_acquire);
    else
        found = atomic_load_explicit((_Atomic uint32_t *)op->value.at, memory_order_acquire);
    switch (op->value.flags & 3) {
    case CU_STREAM_WAIT_VALUE_GEQ: /* cyclic */
        return op->value.wide ? (int64_t)(found - value) >= 0
                              : (int32_t)((uint32_t)found - (uint32_t)value) >= 0;
    case CU_STREAM_WAIT_VALUE_EQ:
        return found == value;
    case CU_STREAM_WAIT_VALUE_AND:
        return (found & value) != 0;
    }
    return op->value.wide ? ~(found | value) != 0 : (uint32_t) ~(found | value) != 0;
}

static void exec_record(const struct soft_op *op)
{
    struct soft_event *event = op->record.event;
    uint64_t now = tfr_clock_now();
    pthread_mutex_lock(&event->lock);
    if (event->version == op->record.version)
        event->time_ns = now;
    pthread_mutex_unlock(&event->lock);
}

static void exec_usable(struct soft_stream *stream, struct soft_op *op)
{
    switch (op->kind) {
    case SOFT_OP_KERNEL:
        exec_kernel(stream, op);
        break;
    case SOFT_OP_COPY:
        exec_copy(stream, op);
        break;
    case SOFT_OP_COPY3D:
        exec_copy3d(stream, op);
        break;
    case SOFT_OP_FILL:
        exec_fill(stream, op);
        break;
    case SOFT_OP_WRITE:
        exec_write(stream, op);
        break;
    case SOFT_OP_RECORD:
        exec_record(op);
        break;
    case SOFT_OP_HOST:
        soft_calling = true;
        op->host.fn(op->host.arg);
        soft_calling = false;
        break;
    case SOFT_OP_CALLBACK: /* these are done in any case */
    case SOFT_OP_FREE:
    case SOFT_OP_WAIT_VALUE: /* these are stream.c's */
    case SOFT_OP_WAIT_STREAM:
    case SOFT_OP_NONE:
        break;
    }
}

static void exec_callback(const struct soft_op *op, CUresult status)
{
    soft_calling = true;
    op->host.callback((CUstream)op->host.stream, status, op->host.arg);
    soft_calling = false;
}

void soft_exec(struct soft_stream *stream, struct soft_op *op)
{
    CUresult usable = soft_ctx_usable(stream->ctx);
    if (usable == CUDA_SUCCESS)
        exec_usable(stream, op);
    if (op->kind == SOFT_OP_KERNEL)
        soft_module_unref(op->launch.module);
    else if (op->kind == SOFT_OP_CALLBACK)
        exec_callback(op, usable);
    else if (op->kind == SOFT_OP_FREE)
        soft_pool_free(stream->ctx, op->free.at);
    else if (op->kind == SOFT_OP_RECORD)
        soft_event_unref(op->record.event);
    soft_engine_poll();
}
