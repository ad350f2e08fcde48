/* A module with recursion and calls through pointers: run by one test, spoilt by another. */
#ifndef TFR_TESTS_VM_CALLS_H
#define TFR_TESTS_VM_CALLS_H

#include "tests/unit/softgpu/vm_kit.h"

static const char calls[] = VM_PTX_HEAD
    ".func (.param .b64 r) fact(.param .b64 n)\n{.reg .b64 %rd<5>; .reg .pred %p;\n"
    "ld.param.b64 %rd1, [n]; setp.gt.s64 %p, %rd1, 1; @%p bra MORE; mov.b64 %rd2, 1; bra OUT;\n"
    "MORE: sub.s64 %rd3, %rd1, 1; {.param .b64 a; .param .b64 v; st.param.b64 [a], %rd3;\n"
    "call.uni (v), fact, (a); ld.param.b64 %rd4, [v];} mul.lo.s64 %rd2, %rd4, %rd1;\n"
    "OUT: st.param.b64 [r], %rd2; ret;}\n"
    ".func (.param .b64 r) twice(.param .b64 n) {.reg .b64 %rd<3>; ld.param.b64 %rd1, [n];\n"
    "shl.b64 %rd1, %rd1, 1; st.param.b64 [r], %rd1; ret;}\n"
    ".visible .entry k(.param .u64 out)\n{.reg .b64 %rd<9>; .reg .b32 %r<4>; .reg .pred %p<3>;\n"
    "ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 8; add.s64 %rd1, %rd1, "
    "%rd2;\n"
    "cvt.u64.u32 %rd3, %r1; and.b64 %rd3, %rd3, 15;\n"
    "mov.u64 %rd5, twice; mov.u64 %rd6, fact; and.b32 %r2, %r1, 1; setp.eq.u32 %p1, %r2, 0;\n"
    "selp.b64 %rd5, %rd5, %rd6, %p1;\n"
    "P: .callprototype (.param .b64 _) _ (.param .b64 _);\n"
    "{.param .b64 a; .param .b64 v; st.param.b64 [a], %rd3; call (v), %rd5, (a), P;\n"
    "ld.param.b64 %rd4, [v];}\nst.global.u64 [%rd1], %rd4; ret;}\n";

#endif
