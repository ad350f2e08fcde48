/* For the tests of the virtual machine: a module from text, a kernel run, memory that kernels may
 * use. */
#ifndef TFR_TESTS_VM_KIT_H
#define TFR_TESTS_VM_KIT_H

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executor/softgpu/devmem.h"
#include "executor/softgpu/vm.h"

#define VM_PTX_HEAD ".version 9.0\n.target sm_90\n.address_size 64\n"

static inline void *vm_kit_mem(size_t len)
{
    CUdeviceptr p = 0;
    cr_assert_eq(soft_mem_init(), CUDA_SUCCESS);
    cr_assert_eq(soft_mem_alloc(len, 256, &p), CUDA_SUCCESS);
    memset((void *)(uintptr_t)p, 0, len);
    return (void *)(uintptr_t)p;
}

static inline struct vm_module *vm_kit_load(const char *ptx)
{
    struct vm_module *m = NULL;
    struct vm_text why = {""};
    cr_assert_eq(soft_mem_init(), CUDA_SUCCESS);
    cr_assert_eq(vm_module_load(ptx, strlen(ptx), &m, &why), CUDA_SUCCESS, "%s", why.s);
    return m;
}

static inline struct vm_kernel *vm_kit_kernel(struct vm_module *m, const char *name)
{
    struct vm_text why = {""};
    struct vm_kernel *k = name ? vm_module_find(m, name) : vm_module_kernel(m, 0);
    cr_assert_not_null(k, "no kernel %s", name ? name : "");
    cr_assert_eq(vm_kernel_prepare(k, &why), CUDA_SUCCESS, "%s", why.s);
    return k;
}

static inline CUresult vm_kit_run(struct vm_kernel *k, unsigned int blocks, unsigned int threads,
                                  unsigned int shared, const void *params, struct vm_fault *fault)
{
    struct vm_launch l = {.kernel = k,
                          .grid = {blocks, 1, 1},
                          .block = {threads, 1, 1},
                          .shared_len = shared,
                          .params = params};
    memset(fault, 0, sizeof(*fault));
    return vm_run(&l, fault);
}

/* A kernel of one statement list: `out` points at 64-bit words, %rd9 at this thread's. */
static inline char *vm_kit_body(const char *body)
{
    static const char before[] =
        VM_PTX_HEAD ".visible .entry k(.param .u64 out)\n{\n"
                    ".reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<20>; .reg .b64 %rd<20>;\n"
                    ".reg .f32 %f<9>; .reg .f64 %fd<9>;\n"
                    "ld.param.u64 %rd9, [out]; mov.u32 %r9, %tid.x; mul.wide.u32 %rd8, %r9, 8;\n"
                    "add.s64 %rd9, %rd9, %rd8;\n";
    size_t n = sizeof(before) + strlen(body) + 32;
    char *text = malloc(n);
    cr_assert_not_null(text);
    snprintf(text, n, "%s%s\nret;\n}\n", before, body);
    return text;
}

/* Runs such a kernel with one block of n threads; the words in `out`. */
static inline CUresult vm_kit_try(const char *body, unsigned int n, uint64_t *out,
                                  struct vm_fault *fault)
{
    char *text = vm_kit_body(body);
    struct vm_module *m = vm_kit_load(text);
    uint64_t *mem = vm_kit_mem(n * 8), p = (uintptr_t)mem;
    CUresult r = vm_kit_run(vm_kit_kernel(m, NULL), 1, n, 0, &p, fault);
    memcpy(out, mem, n * 8);
    vm_module_unload(m);
    free(text);
    return r;
}

/* What preparing such a kernel answers; the reason in *why. */
static inline CUresult vm_kit_prepare(const char *body, struct vm_text *why)
{
    char *text = vm_kit_body(body);
    struct vm_module *m = vm_kit_load(text);
    CUresult r = vm_kernel_prepare(vm_module_kernel(m, 0), why);
    vm_module_unload(m);
    free(text);
    return r;
}

#endif
