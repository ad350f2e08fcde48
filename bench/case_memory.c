/* Device memory: allocating and freeing a block, plain and out of a pool. */
#include "bench/bench.h"

enum { BYTES = 4096 };

/* A first block, so that memory is there; natively a context keeps some too. */
static CUresult set_up(struct bench *b)
{
    CUresult result = bench_stream_open(b);
    return result == CUDA_SUCCESS ? b->cu.cuMemAlloc_v2(&b->mem[0], 64) : result;
}

static CUresult alloc_free(struct bench *b)
{
    CUdeviceptr at;
    CUresult result = b->cu.cuMemAlloc_v2(&at, BYTES);
    return result == CUDA_SUCCESS ? b->cu.cuMemFree_v2(at) : result;
}

static CUresult pool(struct bench *b)
{
    CUdeviceptr at;
    CUresult result = b->cu.cuMemAllocAsync(&at, BYTES, b->stream);
    return result == CUDA_SUCCESS ? b->cu.cuMemFreeAsync(at, b->stream) : result;
}

void bench_add_memory(struct bench_list *list)
{
    struct bench_case c = {.what = "cuMemAlloc of 4 KiB and cuMemFree, the pair, nothing under way",
                           .batch = 200,
                           .samples = list->quick ? 5 : 40,
                           .count_ops = 1000,
                           .issue = true,
                           .set_up = set_up,
                           .op = alloc_free,
                           .settle = bench_settle,
                           .tear_down = bench_close};
    bench_add(list, &c, "memory.alloc_free");
    c.what = "cuMemAllocAsync of 4 KiB and cuMemFreeAsync, the pair";
    c.op = pool;
    bench_add(list, &c, "memory.pool");
}
