/* Events, waits between streams, fills, and copies of pinned memory: what issuing one costs. */
#include <string.h>

#include "bench/bench.h"

enum { FILL_WORDS = 1024, COPY_BYTES = 4096 };

static CUresult set_up(struct bench *b)
{
    CUresult result = bench_stream_open(b);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuStreamCreate(&b->other, CU_STREAM_NON_BLOCKING);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuEventCreate(&b->event, CU_EVENT_DISABLE_TIMING);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuEventRecord(b->event, b->stream);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuEventSynchronize(b->event);
    return result;
}

static CUresult record(struct bench *b)
{
    return b->cu.cuEventRecord(b->event, b->stream);
}

static CUresult query(struct bench *b)
{
    return b->cu.cuEventQuery(b->event);
}

/* The wait alone would find an event that has long been reached: nothing to do. */
static CUresult record_and_wait(struct bench *b)
{
    CUresult result = b->cu.cuEventRecord(b->event, b->stream);
    return result == CUDA_SUCCESS ? b->cu.cuStreamWaitEvent(b->other, b->event, 0) : result;
}

static CUresult settle_both(struct bench *b)
{
    CUresult result = b->cu.cuStreamSynchronize(b->stream);
    return result == CUDA_SUCCESS ? b->cu.cuStreamSynchronize(b->other) : result;
}

static CUresult memory_set_up(struct bench *b)
{
    CUresult result = bench_stream_open(b);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuMemAlloc_v2(&b->mem[0], COPY_BYTES);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuMemHostAlloc((void **)&b->host, COPY_BYTES, 0);
    return result;
}

static void memory_tear_down(struct bench *b)
{
    if (b->host)
        b->cu.cuMemFreeHost(b->host);
    bench_close(b);
}

static CUresult fill(struct bench *b)
{
    return b->cu.cuMemsetD32Async(b->mem[0], b->n, FILL_WORDS, b->stream);
}

static CUresult fill_check(struct bench *b, uint32_t seed, bool *right_out)
{
    uint32_t got[FILL_WORDS];
    b->n = seed;
    CUresult result = fill(b);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuStreamSynchronize(b->stream);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuMemcpyDtoH_v2(got, b->mem[0], sizeof got);
    for (int i = 0; i < FILL_WORDS && result == CUDA_SUCCESS; i++)
        *right_out &= got[i] == seed;
    return result;
}

static CUresult copy_to(struct bench *b)
{
    return b->cu.cuMemcpyHtoDAsync_v2(b->mem[0], b->host, COPY_BYTES, b->stream);
}

static CUresult copy_from(struct bench *b)
{
    return b->cu.cuMemcpyDtoHAsync_v2(b->host, b->mem[0], COPY_BYTES, b->stream);
}

static CUresult copy_check(struct bench *b, uint32_t seed, bool *right_out)
{
    memset(b->host, (int)seed, COPY_BYTES);
    CUresult result = copy_to(b);
    if (result == CUDA_SUCCESS)
        result = bench_settle(b);
    memset(b->host, (int)~seed, COPY_BYTES);
    if (result == CUDA_SUCCESS)
        result = copy_from(b);
    if (result == CUDA_SUCCESS)
        result = bench_settle(b);
    for (int i = 0; i < COPY_BYTES && result == CUDA_SUCCESS; i++)
        *right_out &= b->host[i] == (uint8_t)seed;
    return result;
}

void bench_add_stream(struct bench_list *list)
{
    struct bench_case c = {.what = "cuEventRecord, issue only",
                           .batch = 200,
                           .samples = list->quick ? 5 : 40,
                           .count_ops = 1000,
                           .floor = FLOOR_STORE,
                           .floor_size = 48,
                           .issue = true,
                           .set_up = set_up,
                           .op = record,
                           .settle = settle_both,
                           .tear_down = bench_close};
    bench_add(list, &c, "event_record");
    c.what = "cuEventRecord and cuStreamWaitEvent of another stream, the pair, issue only";
    c.op = record_and_wait;
    c.floor_size = 96;
    bench_add(list, &c, "record_and_stream_wait");
    c.what = "cuEventQuery of an event that was reached";
    c.op = query;
    c.settle = NULL;
    c.floor = FLOOR_NONE;
    bench_add(list, &c, "event_query");

    c.floor = FLOOR_STORE;
    c.set_up = memory_set_up;
    c.tear_down = memory_tear_down;
    c.settle = bench_settle;
    c.what = "cuMemsetD32Async of 4 KiB, issue only";
    c.op = fill;
    c.check = fill_check;
    c.floor_size = 80;
    bench_add(list, &c, "memset_issue");
    c.what = "cuMemcpyHtoDAsync of 4 KiB of pinned memory, issue only";
    c.op = copy_to;
    c.check = copy_check;
    c.floor_size = 64;
    bench_add(list, &c, "h2d_pinned_issue");
    c.what = "cuMemcpyDtoHAsync of 4 KiB of pinned memory, issue only";
    c.op = copy_from;
    bench_add(list, &c, "d2h_pinned_issue");
}
