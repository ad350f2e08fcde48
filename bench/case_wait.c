/* Calls that wait for the executor's answer: the round trip of the whole stack. */
#include "bench/bench.h"

static CUresult set_up(struct bench *b)
{
    (void)b;
    return CUDA_SUCCESS;
}

static CUresult mem_info(struct bench *b)
{
    size_t unused, total;
    return b->cu.cuMemGetInfo_v2(&unused, &total);
}

static CUresult limit(struct bench *b)
{
    size_t value;
    return b->cu.cuCtxGetLimit(&value, CU_LIMIT_STACK_SIZE);
}

void bench_add_wait(struct bench_list *list)
{
    struct bench_case c = {.what = "cuMemGetInfo",
                           .batch = 1,
                           .samples = list->quick ? 100 : 2000,
                           .count_ops = 500,
                           .floor = FLOOR_PINGPONG,
                           .set_up = set_up,
                           .op = mem_info,
                           .tear_down = bench_close};
    bench_add(list, &c, "call_mem_info");
    c.what = "cuCtxGetLimit";
    c.op = limit;
    bench_add(list, &c, "call_ctx_limit");
    c.what = "cuCtxGetLimit, beside UCX over TCP (TFR_TRANSPORT=tcp, ucx_perftest)";
    c.floor = FLOOR_UCX;
    if (bench_over_tcp())
        bench_add(list, &c, "call_ctx_limit_ucx");
}
