/* Two kernels whose instructions are counted by hand: thread instructions per second.  That is a
 * figure of the software GPU; on a real one these launches are far too small to mean anything.
 * Operands are small integers, so that sums are exact in any order. */
#include <stdlib.h>

#include "bench/bench.h"

enum { TILE = 16, VECADD_BLOCK = 256, VECADD_INSTRUCTIONS = 22 };
/* before the loop, in each turn, behind it */
enum { MATMUL_HEAD = 32, MATMUL_TURN = 59, MATMUL_TAIL = 5 };

#define HEAD ".version 7.8\n.target sm_75\n.address_size 64\n"

static const char vecadd[] = HEAD
    ".visible .entry vecadd(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)\n"
    "{\n"
    "    .reg .pred %p<2>;\n    .reg .b32 %r<6>;\n    .reg .f32 %f<4>;\n    .reg .b64 %rd<5>;\n"
    "    mov.u32 %r1, %ctaid.x;\n    mov.u32 %r2, %ntid.x;\n    mov.u32 %r3, %tid.x;\n"
    "    mad.lo.s32 %r4, %r1, %r2, %r3;\n"
    "    ld.param.u32 %r5, [n];\n"
    "    setp.ge.u32 %p1, %r4, %r5;\n"
    "    @%p1 bra DONE;\n"
    "    ld.param.u64 %rd1, [a];\n    ld.param.u64 %rd2, [b];\n    ld.param.u64 %rd3, [c];\n"
    "    cvta.to.global.u64 %rd1, %rd1;\n    cvta.to.global.u64 %rd2, %rd2;\n"
    "    cvta.to.global.u64 %rd3, %rd3;\n"
    "    mul.wide.u32 %rd4, %r4, 4;\n"
    "    add.s64 %rd1, %rd1, %rd4;\n    add.s64 %rd2, %rd2, %rd4;\n    add.s64 %rd3, %rd3, %rd4;\n"
    "    ld.global.f32 %f1, [%rd1];\n    ld.global.f32 %f2, [%rd2];\n"
    "    add.f32 %f3, %f1, %f2;\n"
    "    st.global.f32 [%rd3], %f3;\n"
    "DONE:\n    ret;\n}\n";

/* %r10 row of the tile in as, %r11 column in bs: element k is 4k and 64k bytes further. */
#define STEP(k4, k64)                                                                              \
    "    ld.shared.f32 %f3, [%r10+" #k4 "];\n    ld.shared.f32 %f4, [%r11+" #k64 "];\n"            \
    "    fma.rn.f32 %f1, %f3, %f4, %f1;\n"

static const char matmul[] = HEAD
    ".visible .entry matmul(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)\n"
    "{\n"
    "    .reg .pred %p<2>;\n    .reg .b32 %r<24>;\n    .reg .f32 %f<5>;\n    .reg .b64 %rd<12>;\n"
    "    .shared .align 4 .b8 as[1024];\n    .shared .align 4 .b8 bs[1024];\n"
    "    mov.u32 %r1, %tid.x;\n    mov.u32 %r2, %tid.y;\n"
    "    mov.u32 %r3, %ctaid.x;\n    mov.u32 %r4, %ctaid.y;\n"
    "    mad.lo.s32 %r5, %r4, 16, %r2;\n" /* row */
    "    mad.lo.s32 %r6, %r3, 16, %r1;\n" /* column */
    "    ld.param.u32 %r7, [n];\n"
    "    ld.param.u64 %rd1, [a];\n    ld.param.u64 %rd2, [b];\n    ld.param.u64 %rd3, [c];\n"
    "    cvta.to.global.u64 %rd1, %rd1;\n    cvta.to.global.u64 %rd2, %rd2;\n"
    "    cvta.to.global.u64 %rd3, %rd3;\n"
    "    mad.lo.s32 %r8, %r5, %r7, %r1;\n    mul.wide.s32 %rd4, %r8, 4;\n"
    "    add.s64 %rd5, %rd1, %rd4;\n" /* of a */
    "    mad.lo.s32 %r9, %r2, %r7, %r6;\n    mul.wide.s32 %rd6, %r9, 4;\n"
    "    add.s64 %rd7, %rd2, %rd6;\n"   /* of b */
    "    mul.wide.s32 %rd8, %r7, 64;\n" /* 16 rows of b */
    "    mad.lo.s32 %r12, %r2, 16, %r1;\n    shl.b32 %r13, %r12, 2;\n"
    "    mov.u32 %r14, as;\n    mov.u32 %r15, bs;\n"
    "    add.s32 %r16, %r14, %r13;\n    add.s32 %r17, %r15, %r13;\n"
    "    shl.b32 %r18, %r2, 6;\n    add.s32 %r10, %r14, %r18;\n"
    "    shl.b32 %r19, %r1, 2;\n    add.s32 %r11, %r15, %r19;\n"
    "    mov.f32 %f1, 0f00000000;\n"
    "    mov.u32 %r20, 0;\n"
    "NEXT:\n"
    "    ld.global.f32 %f2, [%rd5];\n    ld.global.f32 %f3, [%rd7];\n"
    "    st.shared.f32 [%r16], %f2;\n    st.shared.f32 [%r17], %f3;\n"
    "    bar.sync 0;\n" STEP(0, 0) STEP(4, 64) STEP(8, 128) STEP(12, 192) STEP(16, 256)
        STEP(20, 320) STEP(24, 384) STEP(28, 448) STEP(32, 512) STEP(36, 576) STEP(40, 640)
            STEP(44, 704) STEP(48, 768) STEP(52, 832) STEP(56, 896) STEP(
                60, 960) "    bar.sync 0;\n"
                         "    add.s64 %rd5, %rd5, 64;\n    add.s64 %rd7, %rd7, %rd8;\n"
                         "    add.s32 %r20, %r20, 16;\n"
                         "    setp.lt.s32 %p1, %r20, %r7;\n"
                         "    @%p1 bra NEXT;\n"
                         "    mad.lo.s32 %r21, %r5, %r7, %r6;\n    mul.wide.s32 %rd9, %r21, 4;\n"
                         "    add.s64 %rd10, %rd3, %rd9;\n"
                         "    st.global.f32 [%rd10], %f1;\n"
                         "    ret;\n}\n";

static float element(uint64_t i, uint32_t seed)
{
    return (float)((i * 13 + seed) % 7);
}

/* Three arrays of `elements` floats and the parameters a, b, c, n. */
static CUresult arrays_open(struct bench *b, uint64_t elements)
{
    CUresult result = CUDA_SUCCESS;
    for (int i = 0; i < 3 && result == CUDA_SUCCESS; i++) {
        result = b->cu.cuMemAlloc_v2(&b->mem[i], elements * sizeof(float));
        if (result == CUDA_SUCCESS)
            result = b->cu.cuMemsetD32_v2(b->mem[i], 0, elements);
        b->params[i] = &b->mem[i];
    }
    b->params[3] = &b->n;
    return result;
}

static CUresult inputs_write(struct bench *b, uint64_t elements, uint32_t seed)
{
    float *values = malloc(elements * sizeof *values);
    CUresult result = values ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    for (int k = 0; k < 2 && result == CUDA_SUCCESS; k++) {
        for (uint64_t i = 0; i < elements; i++)
            values[i] = element(i, seed + (uint32_t)k);
        result = b->cu.cuMemcpyHtoD_v2(b->mem[k], values, elements * sizeof *values);
    }
    free(values);
    return result;
}

static CUresult run(struct bench *b)
{
    CUresult result = bench_launch(b);
    return result == CUDA_SUCCESS ? b->cu.cuStreamSynchronize(b->stream) : result;
}

static CUresult vecadd_set_up(struct bench *b)
{
    b->n = (uint32_t)b->c->arg;
    b->grid[0] = b->n / VECADD_BLOCK;
    b->block[0] = VECADD_BLOCK;
    b->grid[1] = b->block[1] = 1;
    CUresult result = bench_kernel(b, vecadd, "vecadd");
    return result == CUDA_SUCCESS ? arrays_open(b, b->n) : result;
}

static CUresult matmul_set_up(struct bench *b)
{
    b->n = (uint32_t)b->c->arg;
    b->grid[0] = b->grid[1] = b->n / TILE;
    b->block[0] = b->block[1] = TILE;
    CUresult result = bench_kernel(b, matmul, "matmul");
    return result == CUDA_SUCCESS ? arrays_open(b, (uint64_t)b->n * b->n) : result;
}

static float vecadd_value(uint64_t i, uint32_t n, uint32_t seed)
{
    (void)n;
    return element(i, seed) + element(i, seed + 1);
}

static float matmul_value(uint64_t i, uint32_t n, uint32_t seed)
{
    uint64_t row = i / n, column = i % n;
    float sum = 0;
    for (uint64_t k = 0; k < n; k++)
        sum += element(row * n + k, seed) * element(k * n + column, seed + 1);
    return sum;
}

static CUresult check(struct bench *b, uint32_t seed, uint64_t elements,
                      float (*value)(uint64_t, uint32_t, uint32_t), bool *right_out)
{
    float *got = malloc(elements * sizeof *got);
    CUresult result = got ? inputs_write(b, elements, seed) : CUDA_ERROR_OUT_OF_MEMORY;
    if (result == CUDA_SUCCESS)
        result = run(b);
    if (result == CUDA_SUCCESS)
        result = b->cu.cuMemcpyDtoH_v2(got, b->mem[2], elements * sizeof *got);
    for (uint64_t i = 0; i < elements && result == CUDA_SUCCESS; i++)
        *right_out &= got[i] == value(i, b->n, seed);
    free(got);
    return result;
}

static CUresult vecadd_check(struct bench *b, uint32_t seed, bool *right_out)
{
    return check(b, seed, b->n, vecadd_value, right_out);
}

static CUresult matmul_check(struct bench *b, uint32_t seed, bool *right_out)
{
    return check(b, seed, (uint64_t)b->n * b->n, matmul_value, right_out);
}

void bench_add_kernel(struct bench_list *list)
{
    struct bench_case c = {.what = "vector sum, launch + cuStreamSynchronize",
                           .arg = list->quick ? 1 << 14 : 1 << 18,
                           .batch = 1,
                           .samples = list->quick ? 5 : 20,
                           .count_ops = 3,
                           .set_up = vecadd_set_up,
                           .op = run,
                           .check = vecadd_check,
                           .tear_down = bench_close};
    c.work = (double)c.arg * VECADD_INSTRUCTIONS;
    bench_add(list, &c, "kernel_vecadd");
    c.what = "tiled matrix product, launch + cuStreamSynchronize";
    c.arg = list->quick ? 64 : 256;
    uint64_t turns = c.arg / TILE, each = MATMUL_HEAD + turns * MATMUL_TURN + MATMUL_TAIL;
    c.work = (double)(c.arg * c.arg * each);
    c.set_up = matmul_set_up;
    c.check = matmul_check;
    bench_add(list, &c, "kernel_matmul");
}
