/* A context, a module of small kernels and short words, so that a test of softgpu's driver API
 * reads as three sentences.  The tests link lib/soft/libcuda.so.1 itself, as any program would. */
#ifndef TFR_TESTS_API_KIT_H
#define TFR_TESTS_API_KIT_H

#include <criterion/criterion.h>
#include <cuda.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ok(call) cr_assert_eq((call), CUDA_SUCCESS, "%s", #call)
#define answers(call, wants)                                                                       \
    cr_expect_eq((call), (wants), "%s: %d, not %d", #call, (int)(call), (int)(wants))

/* fill: at[i] = v for i < n.  inc: at[i] += v.  spin: waits until *at == v.  empty: nothing. */
static const char kit_ptx[] = ".version 8.0\n.target sm_75\n.address_size 64\n"
                              ".visible .global .align 8 .u64 var = 41;\n"
#define KIT_HEAD(name)                                                                             \
    ".visible .entry " name "(.param .u64 p_at, .param .u32 p_n, .param .u32 p_v)\n{\n"            \
    ".reg .pred %p1;\n.reg .b32 %r<8>;\n.reg .b64 %rd<4>;\n"                                       \
    "ld.param.u64 %rd1, [p_at];\nld.param.u32 %r1, [p_n];\nld.param.u32 %r2, [p_v];\n"             \
    "cvta.to.global.u64 %rd1, %rd1;\n"
#define KIT_INDEX                                                                                  \
    "mov.u32 %r3, %ctaid.x;\nmov.u32 %r4, %ntid.x;\nmov.u32 %r5, %tid.x;\n"                        \
    "mad.lo.s32 %r3, %r3, %r4, %r5;\nsetp.ge.u32 %p1, %r3, %r1;\n@%p1 bra DONE;\n"                 \
    "mul.wide.u32 %rd2, %r3, 4;\nadd.s64 %rd1, %rd1, %rd2;\n"
    KIT_HEAD("fill") KIT_INDEX "st.global.u32 [%rd1], %r2;\nDONE:\nret;\n}\n" KIT_HEAD("inc")
        KIT_INDEX
    "ld.global.u32 %r6, [%rd1];\nadd.s32 %r6, %r6, %r2;\n"
    "st.global.u32 [%rd1], %r6;\nDONE:\nret;\n}\n" KIT_HEAD(
        "spin") "AGAIN:\nld.volatile.global.u32 %r6, [%rd1];\nsetp.ne.s32 %p1, %r6, %r2;\n"
                "@%p1 bra AGAIN;\nret;\n}\n"
                ".visible .entry empty()\n{\nret;\n}\n";

struct kit {
    CUcontext ctx;
    CUmodule module;
    CUfunction fill, inc, spin, empty;
};

static inline struct kit kit_open(void)
{
    struct kit k;
    CUdevice dev;
    ok(cuInit(0));
    ok(cuDeviceGet(&dev, 0));
    ok(cuCtxCreate(&k.ctx, NULL, 0, dev));
    ok(cuModuleLoadData(&k.module, kit_ptx));
    ok(cuModuleGetFunction(&k.fill, k.module, "fill"));
    ok(cuModuleGetFunction(&k.inc, k.module, "inc"));
    ok(cuModuleGetFunction(&k.spin, k.module, "spin"));
    ok(cuModuleGetFunction(&k.empty, k.module, "empty"));
    return k;
}

static inline CUresult kit_launch(CUfunction f, CUstream stream, CUdeviceptr at, uint32_t n,
                                  uint32_t v)
{
    void *params[] = {&at, &n, &v};
    return cuLaunchKernel(f, (n + 127) / 128, 1, 1, 128, 1, 1, 0, stream, params, NULL);
}

/* One thread that waits until *at == v. */
static inline CUresult kit_spin(struct kit *k, CUstream stream, CUdeviceptr at, uint32_t v)
{
    uint32_t n = 1;
    void *params[] = {&at, &n, &v};
    return cuLaunchKernel(k->spin, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL);
}

static inline CUdeviceptr kit_zeros(size_t len)
{
    CUdeviceptr at;
    ok(cuMemAlloc(&at, len));
    ok(cuMemsetD8(at, 0, len));
    ok(cuCtxSynchronize());
    return at;
}

/* Pinned words of the host, zeroed; a device address too. */
static inline volatile uint32_t *kit_words(void)
{
    void *at;
    ok(cuMemHostAlloc(&at, 4096, 0));
    memset(at, 0, 4096);
    return at;
}

static inline uint32_t kit_read(CUdeviceptr at)
{
    uint32_t v;
    ok(cuMemcpyDtoH(&v, at, 4));
    return v;
}

#endif
