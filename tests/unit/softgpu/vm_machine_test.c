/* Warps, blocks, memory, calls, faults: what the virtual machine promises beyond single operations.
 */
#include "tests/unit/softgpu/vm_kit.h"

#include "tests/unit/softgpu/vm_calls.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

enum { N = 64 };

static void expect(const char *body, uint64_t (*want)(unsigned int thread))
{
    uint64_t out[N];
    struct vm_fault f;
    CUresult r = vm_kit_try(body, N, out, &f);
    cr_assert_eq(r, CUDA_SUCCESS, "%s", f.text.s);
    for (unsigned int i = 0; i < N; i++)
        cr_expect_eq(out[i], want(i), "thread %u: %llx", i, (unsigned long long)out[i]);
}

static uint64_t want_shuffle(unsigned int t)
{
    unsigned int lane = t & 31;
    return (uint64_t)(lane >= 3 ? t - 3 : t) | (uint64_t)(lane >= 3) << 16 |
           (uint64_t)((lane ^ 5) + (t & 32)) << 32 | (uint64_t)((lane & 24) + 2 + (t & 32)) << 48;
}

Test(vm_warp, shuffles_up_across_and_within_segments)
{
    expect("shfl.sync.up.b32 %r1|%p1, %r9, 3, 0, -1; selp.u32 %r2, 65536, 0, %p1; or.b32 %r1, %r1, "
           "%r2;"
           "shfl.sync.bfly.b32 %r3, %r9, 5, 31, -1;"
           "shfl.sync.idx.b32 %r4, %r9, 2, 0x181f, -1; shl.b32 %r4, %r4, 16; or.b32 %r3, %r3, %r4;"
           "mov.b64 %rd1, {%r1, %r3}; st.global.u64 [%rd9], %rd1;",
           want_shuffle);
}

static uint64_t want_inactive(unsigned int t)
{
    return t & 1 ? 0 : 7; /* odd lanes read from a lane that does not take part */
}

Test(vm_warp, a_lane_that_does_not_take_part_delivers_nothing)
{
    expect("mov.u32 %r5, 7; and.b32 %r1, %r9, 1; setp.eq.s32 %p1, %r1, 0; mov.u32 %r4, 0; @!%p1 "
           "bra ODD;"
           "shfl.sync.idx.b32 %r4, %r5, 2, 31, 0x55555555; bra.uni END;"
           "ODD: shfl.sync.idx.b32 %r4, %r5, 2, 31, 0xaaaaaaaa;"
           "END: cvt.u64.u32 %rd1, %r4; st.global.u64 [%rd9], %rd1;",
           want_inactive);
}

static uint64_t want_vote(unsigned int t)
{
    return 0x24924924ull << (t & 32 ? 2 : 0) == 0 ? 0 : (t < 32 ? 0x49249249u : 0x92492492u);
}

Test(vm_warp, a_ballot_shows_the_predicate_of_every_lane)
{
    expect("rem.u32 %r1, %r9, 3; setp.eq.u32 %p1, %r1, 0; vote.sync.ballot.b32 %r2, %p1, -1;"
           "cvt.u64.u32 %rd1, %r2; st.global.u64 [%rd9], %rd1;",
           want_vote);
}

static uint64_t want_match(unsigned int t)
{
    unsigned int lane = t & 31, m = 0;
    for (unsigned int j = 0; j < 32; j++)
        m |= (unsigned int)(((j + (t & 32)) / 5) == t / 5) << j;
    (void)lane;
    return (uint64_t)m << 32 | (t < 32 ? 496 : 496 + 32 * 32);
}

Test(vm_warp, matches_and_reduces)
{
    expect("div.u32 %r1, %r9, 5; match.any.sync.b32 %r2, %r1, -1; redux.sync.add.s32 %r3, %r9, -1;"
           "mov.b64 %rd1, {%r3, %r2}; st.global.u64 [%rd9], %rd1;",
           want_match);
}

static uint64_t want_arms(unsigned int t)
{
    return t & 1 ? 100 + t : 200 + t;
}

Test(vm_block, barriers_in_two_arms_meet)
{
    expect("and.b32 %r1, %r9, 1; setp.eq.s32 %p1, %r1, 0; @%p1 bra EVEN;"
           "barrier.sync 0; add.u32 %r2, %r9, 100; bra END;"
           "EVEN: barrier.sync 0; add.u32 %r2, %r9, 200;"
           "END: cvt.u64.u32 %rd1, %r2; st.global.u64 [%rd9], %rd1;",
           want_arms);
}

static uint64_t want_red(unsigned int t)
{
    (void)t;
    return 16 | 1ull << 32;
}

Test(vm_block, a_barrier_counts_predicates)
{
    expect("and.b32 %r1, %r9, 3; setp.eq.s32 %p1, %r1, 0; barrier.red.popc.u32 %r2, 1, %p1;"
           "bar.red.or.pred %p2, 2, %p1; bar.red.and.pred %p3, 3, !%p1; selp.u32 %r3, 1, 0, %p2;"
           "@%p3 mov.u32 %r3, 9; mov.b64 %rd1, {%r2, %r3}; st.global.u64 [%rd9], %rd1;",
           want_red);
}

static uint64_t want_handover(unsigned int t)
{
    return t < 32 ? 0 : 5 + (t - 32);
}

Test(vm_block, one_warp_arrives_where_another_waits)
{
    expect(
        "{.shared .align 8 .b8 buf[256]; mov.u32 %r1, buf; setp.ge.u32 %p1, %r9, 32; @%p1 bra TAKE;"
        "shl.b32 %r2, %r9, 2; add.u32 %r2, %r1, %r2; add.u32 %r3, %r9, 5; st.shared.u32 [%r2], %r3;"
        "bar.arrive 4, 64; mov.u64 %rd1, 0; bra DONE;"
        "TAKE: bar.sync 4, 64; sub.u32 %r4, %r9, 32; shl.b32 %r2, %r4, 2; add.u32 %r2, %r1, %r2;"
        "ld.shared.u32 %rd1, [%r2];"
        "DONE: st.global.u64 [%rd9], %rd1;}",
        want_handover);
}

static uint64_t want_spin(unsigned int t)
{
    (void)t;
    return 1;
}

Test(vm_block, a_spin_on_another_lane_ends, .timeout = 240)
{
    expect("{.shared .u32 flag; setp.ne.u32 %p1, %r9, 33; @%p1 bra WAIT; st.volatile.shared.u32 "
           "[flag], 1;"
           "WAIT: ld.volatile.shared.u32 %r1, [flag]; setp.ne.u32 %p2, %r1, 1; @%p2 bra WAIT;"
           "mov.u64 %rd1, 1; st.global.u64 [%rd9], %rd1;}",
           want_spin);
}

static uint64_t want_bytes(unsigned int t)
{
    return (uint64_t)(int64_t)(int8_t)(0x80 + t) + ((uint64_t)(0x80 + t) << 8);
}

Test(vm_memory, loads_extend_to_the_register)
{
    expect("{.local .align 8 .b8 mem[16]; add.u32 %r1, %r9, 128; st.local.u8 [mem+3], %r1;"
           "ld.local.s8 %rd1, [mem+3]; ld.local.u8 %h1, [mem+3]; cvt.u64.u16 %rd2, %h1;"
           "shl.b64 %rd2, %rd2, 8; add.u64 %rd1, %rd1, %rd2; st.global.u64 [%rd9], %rd1;}",
           want_bytes);
}

static uint64_t want_generic(unsigned int t)
{
    return 3 * t + 1;
}

Test(vm_memory, generic_addresses_reach_shared_and_local)
{
    expect(
        "{.shared .align 8 .b8 s[512]; .local .align 8 .b8 l[8]; mov.u64 %rd1, s; mov.u64 %rd2, l;"
        "cvta.shared.u64 %rd1, %rd1; cvta.local.u64 %rd2, %rd2; add.u64 %rd1, %rd1, %rd8;"
        "cvt.u64.u32 %rd3, %r9; st.u64 [%rd1], %rd3; shl.b64 %rd3, %rd3, 1; st.u64 [%rd2], %rd3;"
        "isspacep.shared %p1, %rd1; isspacep.local %p2, %rd2; isspacep.global %p3, %rd9;"
        "and.pred %p1, %p1, %p2; and.pred %p1, %p1, %p3; selp.u64 %rd6, 1, 0, %p1;"
        "ld.u64 %rd4, [%rd1]; ld.local.u64 %rd5, [l]; add.u64 %rd4, %rd4, %rd5;"
        "add.u64 %rd4, %rd4, %rd6; st.u64 [%rd9], %rd4;}",
        want_generic);
}

static uint64_t want_vector(unsigned int t)
{
    return (uint64_t)(t * 4 + 2) << 32 | (t * 4 + 1);
}

Test(vm_memory, vectors_go_through_shared_memory)
{
    expect("{.shared .align 16 .b8 s[1024]; shl.b32 %r1, %r9, 4; mov.u32 %r2, s; add.u32 %r1, %r1, "
           "%r2;"
           "shl.b32 %r3, %r9, 2; add.u32 %r4, %r3, 1; add.u32 %r5, %r3, 2; add.u32 %r6, %r3, 3;"
           "st.shared.v4.u32 [%r1], {%r3, %r4, %r5, %r6}; bar.sync 0;"
           "ld.shared.v2.u32 {%r7, %r8}, [%r1+8]; ld.shared.v4.u32 {_, %r10, %r11, _}, [%r1];"
           "mov.b64 %rd1, {%r10, %r11}; st.global.u64 [%rd9], %rd1;}",
           want_vector);
}

Test(vm_calls, recursion_and_pointers_in_divergent_lanes)
{
    struct vm_module *m = vm_kit_load(calls);
    uint64_t *out = vm_kit_mem(N * 8), p = (uintptr_t)out;
    struct vm_fault f;
    cr_assert_eq(vm_kit_run(vm_kit_kernel(m, "k"), 1, N, 0, &p, &f), CUDA_SUCCESS, "%s", f.text.s);
    for (unsigned int i = 0; i < N; i++) {
        uint64_t n = i & 15, want = 1;
        for (uint64_t k = 2; k <= n; k++)
            want *= k;
        cr_expect_eq(out[i], i & 1 ? want : 2 * n, "thread %u: %llu", i,
                     (unsigned long long)out[i]);
    }
    vm_module_unload(m);
}

Test(vm_calls, endless_recursion_is_a_fault)
{
    struct vm_module *m =
        vm_kit_load(VM_PTX_HEAD ".func f() {call f; ret;} .visible .entry k() {call f; ret;}");
    struct vm_fault f;
    cr_assert_eq(vm_kit_run(vm_kit_kernel(m, "k"), 1, 32, 0, NULL, &f), CUDA_ERROR_LAUNCH_FAILED);
    cr_assert(strstr(f.text.s, "stack overflow"), "%s", f.text.s);
    cr_assert_eq(vm_kit_run(vm_kit_kernel(m, "k"), 1, 32, 0, NULL, &f), CUDA_ERROR_LAUNCH_FAILED);
    vm_module_unload(m);
}

/* ---- faults ---- */

static void faults(const char *body, CUresult want, const char *says)
{
    uint64_t out[N];
    struct vm_fault f;
    CUresult r = vm_kit_try(body, N, out, &f);
    cr_expect_eq(r, want, "%d: %s", (int)r, f.text.s);
    cr_expect_eq(f.result, want);
    cr_expect(strstr(f.text.s, says), "%s", f.text.s);
    cr_expect(strstr(f.text.s, "kernel k"), "%s", f.text.s);
}

Test(vm_fault, names_the_thread_and_line_of_a_null_store)
{
    uint64_t out[N];
    struct vm_fault f;
    CUresult r =
        vm_kit_try("\nsetp.eq.u32 %p1, %r9, 37; mov.u64 %rd1, 0;\n@%p1 st.global.u32 [%rd1+4], 1;",
                   N, out, &f);
    cr_assert_eq(r, CUDA_ERROR_ILLEGAL_ADDRESS);
    cr_assert_eq(f.thread[0], 37);
    cr_assert_eq(f.addr, 4);
    cr_assert_eq(f.line, 12, "%u", f.line);
}

Test(vm_fault, stops_every_wild_access)
{
    faults("ld.global.u32 %r1, [%rd9+1];", CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned");
    faults("add.u64 %rd1, %rd9, 4; ld.global.v2.u32 {%r1, %r2}, [%rd1];",
           CUDA_ERROR_MISALIGNED_ADDRESS, "misaligned");
    faults("mov.u64 %rd1, 0xfffffffffffffff0; ld.global.u32 %r1, [%rd1];",
           CUDA_ERROR_ILLEGAL_ADDRESS, "illegal address");
    faults("mov.u64 %rd1, 0xfffffffffffffff8; ld.global.v2.u64 {%rd2, %rd3}, [%rd1+8];",
           CUDA_ERROR_ILLEGAL_ADDRESS, "illegal address 0x0");
    faults("{.shared .b8 s[64]; mov.u32 %r1, s; st.shared.u32 [%r1+64], 1;}",
           CUDA_ERROR_ILLEGAL_ADDRESS, "shared");
    faults("mov.u32 %r1, -4; ld.shared.u32 %r2, [%r1];", CUDA_ERROR_ILLEGAL_ADDRESS, "shared");
    faults("{.local .b8 l[64]; mov.u64 %rd1, l; shl.b64 %rd2, %rd8, 8; add.u64 %rd1, %rd1, %rd2;"
           "st.local.u64 [%rd1], %rd1;}",
           CUDA_ERROR_ILLEGAL_ADDRESS, "local");
    faults("mov.u64 %rd1, 0x300000000000000; ld.u32 %r1, [%rd1];", CUDA_ERROR_ILLEGAL_ADDRESS,
           "generic");
    faults("mov.u64 %rd1, 0x700000000000000; st.u32 [%rd1], 0;", CUDA_ERROR_ILLEGAL_ADDRESS,
           "generic");
    faults("mov.u64 %rd1, 0x700000000000000; ld.u64 %rd2, [%rd1+8];", CUDA_ERROR_ILLEGAL_ADDRESS,
           "generic");
    faults("mov.u64 %rd1, 4096; atom.global.add.u32 %r1, [%rd1], 1;", CUDA_ERROR_ILLEGAL_ADDRESS,
           "global");
    faults("red.shared.add.u32 [%r9], 1;", CUDA_ERROR_ILLEGAL_ADDRESS, "shared");
    faults("trap;", CUDA_ERROR_LAUNCH_FAILED, "trap");
    faults("bar.sync %r9;", CUDA_ERROR_LAUNCH_FAILED, "barrier");
    faults("setp.lt.u32 %p1, %r9, 40; @%p1 bra L; bar.sync 1; L: bar.sync 2;",
           CUDA_ERROR_LAUNCH_FAILED, "deadlock");
}

Test(vm_fault, stops_at_its_instruction_budget)
{
    setenv("TFR_SOFT_BUDGET", "1000000", 1);
    faults("L: add.u32 %r1, %r1, 1; bra L;", CUDA_ERROR_LAUNCH_TIMEOUT, "budget");
    faults("L: bar.sync 0; bra L;", CUDA_ERROR_LAUNCH_TIMEOUT, "budget");
}

static _Atomic bool stop_flag;

static void *stop_later(void *arg)
{
    struct timespec t = {0, 50 * 1000 * 1000};
    (void)arg;
    nanosleep(&t, NULL);
    atomic_store_explicit(&stop_flag, true, memory_order_relaxed);
    return NULL;
}

Test(vm_fault, stops_when_told_to, .timeout = 240)
{
    char *text = vm_kit_body("L: add.u32 %r1, %r1, 1; bra L;");
    struct vm_module *m = vm_kit_load(text);
    uint64_t p = 0;
    struct vm_fault f;
    pthread_t t;
    struct vm_launch l = {.kernel = vm_kit_kernel(m, NULL),
                          .grid = {9, 1, 1},
                          .block = {32, 1, 1},
                          .params = &p,
                          .stop = &stop_flag};
    pthread_create(&t, NULL, stop_later, NULL);
    cr_assert_eq(vm_run(&l, &f), CUDA_ERROR_LAUNCH_FAILED);
    pthread_join(t, NULL);
    vm_module_unload(m);
    free(text);
}

/* ---- refusals ---- */

static void refuses(const char *body, const char *says)
{
    struct vm_text why = {""};
    CUresult r = vm_kit_prepare(body, &why);
    cr_expect_eq(r, CUDA_ERROR_NOT_SUPPORTED, "%s: %d", body, (int)r);
    cr_expect(strstr(why.s, "kernel k, ptx line") && strstr(why.s, says), "%s", why.s);
}

Test(vm_refuse, names_what_it_cannot_run)
{
    refuses("wgmma.fence.sync.aligned;", "wgmma.fence");
    refuses("frobnicate.u32 %r1, %r2;", "frobnicate");
    refuses("add.rn.s32 %r1, %r2, %r3;", "add.rn.s32");
    refuses("add.wrong.s32 %r1, %r2, %r3;", ".wrong");
    refuses("add.u32 %r1, %r2, %rd3;", "width");
    refuses("add.u32 %r1, %r2;", "operands");
    refuses("add.u32 %r1, %r2, %r3, %r4;", "operands");
    refuses("add.f32.f32 %f1, %f2, %f3;", "types");
    refuses("add.rn.rz.f32 %f1, %f2, %f3;", "twice");
    refuses("add.u8 %h1, %h2, %h3;", "width");
    refuses("ld.global.v8.f32 {%f0,%f1,%f2,%f3,%f4,%f5,%f6,%f7}, [%rd1];", "vector");
    refuses("ld.global.L2::cache_hint.f32 %f0, [%rd1], %rd2;", "cache_hint");
    refuses("mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 %f1, %r1, %r2, %f1;", "shape");
    refuses("atom.global.v2.f32.min {%f1,%f2}, [%rd1], {%f3,%f4};", "form");
    refuses("atom.global.min.f32 %f1, [%rd1], %f2;", "atom");
    refuses("cp.async.bulk.prefetch.L2.global [%rd1], 16;", "cp.async.bulk");
    refuses("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
            "{%f0,%f1,%f2,%f3},{%r0,%r1,%r2},{%r2},{%f0,%f1,%f2,%f3};",
            "number of registers");
    refuses("mma.sync.aligned.m16n8k8.row.col.f32.f16.bf16.f32 "
            "{%f0,%f1,%f2,%f3},{%r0,%r1},{%r2},{%f0,%f1,%f2,%f3};",
            "go together");
    refuses("tex.1d.v4.f32.s32 {%f0,%f1,%f2,%f3}, [%rd1, {%r1}];", "tex");
    refuses("min.xorsign.abs.f32 %f1, %f2, %f3;", "min");
    refuses("shfl.up.b32 %r1, %r2, 1, 0;", "shfl");
    refuses("multimem.red.global.add.u32 [%rd1], %r1;", "multimem");
    refuses("st.param.u32 [out], 1;", "st.param");
    refuses("ld.param.u64 %rd1, [out+8];", "leaves");
}

Test(vm_refuse, one_kernel_does_not_cost_the_others)
{
    struct vm_module *m = vm_kit_load(VM_PTX_HEAD ".entry bad() {wgmma.fence.sync.aligned; ret;}\n"
                                                  ".entry good() {ret;}");
    struct vm_text why = {""};
    struct vm_fault f;
    cr_assert_eq(vm_kernel_prepare(vm_module_find(m, "bad"), &why), CUDA_ERROR_NOT_SUPPORTED);
    cr_assert_eq(vm_kernel_prepare(vm_module_find(m, "bad"), &why), CUDA_ERROR_NOT_SUPPORTED);
    cr_assert_eq(vm_kit_run(vm_kit_kernel(m, "good"), 3, 33, 0, NULL, &f), CUDA_SUCCESS);
    vm_module_unload(m);
}

/* ---- many blocks ---- */

Test(vm_grid, blocks_that_wait_for_later_ones_end, .timeout = 240)
{
    struct vm_module *m = vm_kit_load(
        VM_PTX_HEAD
        ".entry k(.param .u64 c) {.reg .b64 %rd; .reg .b32 %r<4>; .reg .pred %p;\n"
        "ld.param.u64 %rd, [c]; mov.u32 %r2, %nctaid.x; mov.u32 %r3, %tid.x; setp.eq.u32 %p, %r3, "
        "0;\n"
        "@%p red.global.add.u32 [%rd], 1;\n"
        "L: ld.volatile.global.u32 %r1, [%rd]; setp.ne.u32 %p, %r1, %r2; @%p bra L; ret;}");
    uint32_t *count = vm_kit_mem(4);
    uint64_t p = (uintptr_t)count;
    struct vm_fault f;
    struct vm_launch l = {
        .kernel = vm_kit_kernel(m, "k"), .grid = {40, 1, 1}, .block = {64, 1, 1}, .params = &p};
    cr_assert_eq(vm_run(&l, &f), CUDA_SUCCESS, "%s", f.text.s);
    cr_assert_eq(*count, 40);
    *count = 0;
    l.cooperative = true;
    cr_assert_eq(vm_run(&l, &f), CUDA_SUCCESS, "%s", f.text.s);
    cr_assert_eq(*count, 40);
    vm_module_unload(m);
}

/* One block writes vectors of equal words while the other counts those it sees torn. */
static uint32_t torn(const char *type, const char *move, const char *from, const char *to,
                     const char *store, const char *load)
{
    char text[2048];
    snprintf(text, sizeof(text),
             VM_PTX_HEAD
             ".entry k(.param .u64 c) {.reg .b64 %%rd<8>; .reg .b32 %%r<9>; .reg .pred %%p<3>;\n"
             ".reg %s %%v<5>;\n"
             "ld.param.u64 %%rd1, [c]; mov.u32 %%r1, %%tid.x; mul.wide.u32 %%rd2, %%r1, 16;\n"
             "add.u64 %%rd2, %%rd2, %%rd1; mov.u32 %%r2, %%ctaid.x; mov.u32 %%r3, 0;\n"
             "setp.eq.u32 %%p1, %%r2, 0;\n"
             "L: %s %%v1, %%r3; @%%p1 %s [%%rd2], %s; @!%%p1 %s %s, [%%rd2];\n"
             "setp.ne%s %%p2, %%v1, %%v2; @!%%p1 setp.ne%s %%p2, %%v3, %%v4;\n"
             "@%%p1 bra N; @%%p2 red.global.add.u32 [%%rd1+512], 1;\n"
             "N: add.u32 %%r3, %%r3, 1; setp.ne.u32 %%p2, %%r3, 400000; @%%p2 bra L; ret;}",
             type, move, store, from, load, to, type, type);
    struct vm_module *m = vm_kit_load(text);
    uint8_t *mem = vm_kit_mem(512 + 4);
    uint64_t p = (uintptr_t)mem;
    uint32_t count;
    struct vm_fault f;
    cr_assert_eq(vm_kit_run(vm_kit_kernel(m, "k"), 2, 32, 0, &p, &f), CUDA_SUCCESS, "%s", f.text.s);
    memcpy(&count, mem + 512, sizeof(count));
    vm_module_unload(m);
    return count;
}

Test(vm_grid, strong_vectors_are_never_torn, .timeout = 240)
{
    setenv("TFR_SOFT_WORKERS", "2", 1);
    cr_expect_eq(torn(".u32", "mov.u32", "{%v1, %v1}", "{%v3, %v4}", "st.relaxed.gpu.global.v2.u32",
                      "ld.relaxed.gpu.global.v2.u32"),
                 0);
    cr_expect_eq(torn(".u32", "mov.u32", "{%v1, %v1, %v1, %v1}", "{%v3, %v2, %v2, %v4}",
                      "st.volatile.global.v4.u32", "ld.volatile.global.v4.u32"),
                 0);
    cr_expect_eq(torn(".u64", "cvt.u64.u32", "{%v1, %v1}", "{%v3, %v4}", "st.global.cg.v2.u64",
                      "ld.acquire.gpu.v2.u64"),
                 0);
}

struct many {
    struct vm_kernel *k;
    uint64_t *sum;
};

static void *many_run(void *arg)
{
    const struct many *m = arg;
    uint64_t p = (uintptr_t)m->sum;
    struct vm_fault f;
    struct vm_launch l = {.kernel = m->k, .grid = {300, 2, 1}, .block = {16, 4, 2}, .params = &p};
    return (void *)(uintptr_t)vm_run(&l, &f);
}

Test(vm_grid, every_thread_runs_once_whoever_launches)
{
    setenv("TFR_SOFT_WORKERS", "4", 1);
    struct vm_module *m = vm_kit_load(
        VM_PTX_HEAD ".entry k(.param .u64 s) {.reg .b64 %rd<3>; .reg .b32 %r<9>; .reg .pred %p;\n"
                    "ld.param.u64 %rd1, [s]; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ctaid.y; mov.u32 "
                    "%r3, %tid.x;\n"
                    "mov.u32 %r4, %tid.y; mov.u32 %r5, %tid.z; mad.lo.u32 %r1, %r2, 300, %r1;\n"
                    "mad.lo.u32 %r5, %r5, 4, %r4; mad.lo.u32 %r5, %r5, 16, %r3; mad.lo.u32 %r1, "
                    "%r1, 128, %r5;\n"
                    "mov.u32 %r6, 200; L: sub.u32 %r6, %r6, 1; setp.ne.u32 %p, %r6, 0; @%p bra L;\n"
                    "cvt.u64.u32 %rd2, %r1; red.global.add.u64 [%rd1], %rd2; ret;}");
    struct many all[3];
    pthread_t t[3];
    uint64_t n = 600 * 128;
    for (int i = 0; i < 3; i++) {
        all[i] = (struct many){vm_kit_kernel(m, "k"), vm_kit_mem(8)};
        pthread_create(&t[i], NULL, many_run, &all[i]);
    }
    for (int i = 0; i < 3; i++) {
        void *r;
        pthread_join(t[i], &r);
        cr_assert_eq((uintptr_t)r, CUDA_SUCCESS);
        cr_assert_eq(*all[i].sum, n * (n - 1) / 2);
    }
    vm_module_unload(m);
}
