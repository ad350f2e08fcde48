/* Launches: what issuing one costs the caller, by size of parameters, and launch + wait.  The
 * kernels with parameters store their last word, so that the check sees whether all arrived. */
#include <string.h>

#include "bench/bench.h"

static const char ptx[] =
    ".version 7.8\n.target sm_75\n.address_size 64\n"
    ".visible .entry empty()\n{\n    ret;\n}\n"
    ".visible .entry words(\n"
    "    .param .u64 p0, .param .u64 p1, .param .u64 p2, .param .u64 p3,\n"
    "    .param .u64 p4, .param .u64 p5, .param .u64 p6, .param .u64 p7,\n"
    "    .param .u64 p8, .param .u64 p9, .param .u64 p10, .param .u64 p11,\n"
    "    .param .u64 p12, .param .u64 p13, .param .u64 p14, .param .u64 p15)\n"
    "{\n"
    "    .reg .b64 %rd<3>;\n"
    "    ld.param.u64 %rd1, [p0];\n"
    "    ld.param.u64 %rd2, [p15];\n"
    "    cvta.to.global.u64 %rd1, %rd1;\n"
    "    st.global.u64 [%rd1], %rd2;\n"
    "    ret;\n}\n"
    ".visible .entry block(.param .align 8 .b8 p0[4096])\n"
    "{\n"
    "    .reg .b64 %rd<3>;\n"
    "    ld.param.u64 %rd1, [p0];\n"
    "    ld.param.u64 %rd2, [p0+4088];\n"
    "    cvta.to.global.u64 %rd1, %rd1;\n"
    "    st.global.u64 [%rd1], %rd2;\n"
    "    ret;\n}\n";

enum { WORDS = 16, RECORD_HEAD = 72, MANY = 20000 };

static CUresult set_up(struct bench *b)
{
    uint64_t bytes = b->c->arg;
    CUresult result = bench_kernel(b, ptx, bytes == 0 ? "empty" : bytes == 128 ? "words" : "block");
    b->grid[0] = b->grid[1] = b->block[0] = b->block[1] = 1;
    if (result != CUDA_SUCCESS || bytes == 0)
        return result;
    result = b->cu.cuMemAlloc_v2(&b->mem[0], 8);
    b->values[0] = b->mem[0];
    for (int i = 0; i < WORDS; i++)
        b->params[i] = &b->values[i];
    return result;
}

static CUresult launch_and_wait(struct bench *b)
{
    CUresult result = bench_launch(b);
    return result == CUDA_SUCCESS ? b->cu.cuStreamSynchronize(b->stream) : result;
}

/* More than the ring holds: the slower of the two sides sets the pace. */
static CUresult launch_many(struct bench *b)
{
    CUresult result = CUDA_SUCCESS;
    for (int i = 0; i < MANY && result == CUDA_SUCCESS; i++)
        result = bench_launch(b);
    return result == CUDA_SUCCESS ? b->cu.cuStreamSynchronize(b->stream) : result;
}

static CUresult check(struct bench *b, uint32_t seed, bool *right_out)
{
    uint64_t last = b->c->arg / 8 - 1, got = 0;
    b->values[last] = 0x1234567800000000u | seed;
    CUresult result = launch_and_wait(b);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuMemcpyDtoH_v2(&got, b->mem[0], sizeof got);
    *right_out = result != CUDA_SUCCESS || got == b->values[last];
    return result;
}

void bench_add_launch(struct bench_list *list)
{
    struct bench_case c = {
        .what = "cuLaunchKernel, issue only",
        .batch = 200,
        .samples = list->quick ? 5 : 40,
        .count_ops = 1000,
        .floor = FLOOR_STORE,
        .floor_size = RECORD_HEAD + 8,
        .issue = true,
        .set_up = set_up,
        .op = bench_launch,
        .settle = bench_settle,
        .tear_down = bench_close,
    };
    bench_add(list, &c, "launch_issue");
    c.check = check;
    c.arg = 128;
    c.floor_size = RECORD_HEAD + 8 + 128;
    bench_add(list, &c, "launch_issue_128B");
    c.arg = 4096;
    c.batch = c.count_ops = 100; /* the ring holds 250 */
    c.floor_size = RECORD_HEAD + 8 + 4096;
    bench_add(list, &c, "launch_issue_4KiB");
    bench_add(list,
              &(struct bench_case){.what = "cuLaunchKernel + cuStreamSynchronize",
                                   .batch = 1,
                                   .samples = list->quick ? 100 : 1000,
                                   .count_ops = 200,
                                   .floor = FLOOR_PINGPONG,
                                   .set_up = set_up,
                                   .op = launch_and_wait,
                                   .tear_down = bench_close},
              "launch_sync");
    bench_add(list,
              &(struct bench_case){.what = "20000 cuLaunchKernel + cuStreamSynchronize, per launch",
                                   .batch = 1,
                                   .samples = list->quick ? 5 : 20,
                                   .count_ops = 1,
                                   .calls = MANY,
                                   .floor = FLOOR_STORE,
                                   .floor_size = RECORD_HEAD + 8,
                                   .set_up = set_up,
                                   .op = launch_many,
                                   .tear_down = bench_close},
              "launch_sustained");
}
