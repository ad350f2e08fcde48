/* Several modules in one text are linked by name; what is too new or meant for another device is
 * refused. */
#include "executor/softgpu/ptx.h"
#include "tests/unit/softgpu/vm_kit.h"

#define NEXT "\x1c"

static CUresult load(const char *text, struct vm_text *why)
{
    struct vm_module *m = NULL;
    cr_assert_eq(soft_mem_init(), CUDA_SUCCESS);
    CUresult r = vm_module_load(text, strlen(text), &m, why);
    if (!r)
        vm_module_unload(m);
    return r;
}

static const char adds[] = VM_PTX_HEAD
    ".extern .global .u32 g; .extern .func (.param .b32 r) f(.param .b32 x);\n.global .u32 own = "
    "1;\n"
    ".visible .entry k(.param .u64 out)\n{.reg .b32 %r<6>; .reg .b64 %rd<4>;\n"
    "ld.param.u64 %rd1, [out]; ld.global.u32 %r1, [g]; ld.global.u32 %r2, [own];\n"
    "{.param .b32 a; .param .b32 v; st.param.b32 [a], %r1; call (v), f, (a); ld.param.b32 %r3, "
    "[v];}\n"
    "add.u32 %r3, %r3, %r2; st.global.u32 [%rd1], %r3; ret;}\n";
#define FUNCTION(linkage, op)                                                                      \
    linkage " .func (.param .b32 r) f(.param .b32 x) {.reg .b32 %r<4>; ld.param.b32 %r1, [x];\n"   \
            "ld.global.u32 %r2, [own]; " op ".u32 %r1, %r1, %r2; st.param.b32 [r], %r1; ret;}\n"
static const char defines[] =
    VM_PTX_HEAD ".global .u32 own = 10; .visible .global .u32 g = 7;\n" FUNCTION(".visible", "add");

Test(vm_link, finds_names_of_other_modules_and_keeps_its_own)
{
    char text[4096];
    struct vm_fault fault;
    for (int turned = 0; turned < 2; turned++) {
        snprintf(text, sizeof(text), "%s" NEXT "%s", turned ? defines : adds,
                 turned ? adds : defines);
        struct vm_module *m = vm_kit_load(text);
        uint32_t *out = vm_kit_mem(4);
        uint64_t p = (uintptr_t)out;
        cr_assert_eq(vm_kit_run(vm_kit_kernel(m, "k"), 1, 1, 0, &p, &fault), CUDA_SUCCESS);
        cr_expect_eq(*out, 7 + 10 + 1);
        vm_module_unload(m);
    }
}

Test(vm_link, prefers_the_strong_definition_to_a_weak_one)
{
    static const char weak[] =
        VM_PTX_HEAD ".global .u32 own = 100; .weak .global .u32 g = 1;\n" FUNCTION(".weak", "sub");
    const char *const order[][3] = {
        {adds, weak, defines}, {weak, defines, adds}, {defines, adds, weak}};
    char text[4096];
    struct vm_fault fault;
    for (int i = 0; i < 3; i++) {
        snprintf(text, sizeof(text), "%s" NEXT "%s" NEXT "%s", order[i][0], order[i][1],
                 order[i][2]);
        struct vm_module *m = vm_kit_load(text);
        uint32_t *out = vm_kit_mem(4);
        uint64_t p = (uintptr_t)out;
        cr_assert_eq(vm_kit_run(vm_kit_kernel(m, "k"), 1, 1, 0, &p, &fault), CUDA_SUCCESS);
        cr_expect_eq(*out, 18, "order %d gives %u", i, *out);
        vm_module_unload(m);
    }
}

Test(vm_link, names_what_two_modules_define)
{
    char text[4096];
    struct vm_text why = {""};
    snprintf(text, sizeof(text), "%s" NEXT "%s" NEXT "%s", adds, defines, defines);
    cr_expect_eq(load(text, &why), CUDA_ERROR_INVALID_IMAGE);
    cr_expect(strstr(why.s, "'g'") && strstr(why.s, "module 2"), "%s", why.s);
    snprintf(text, sizeof(text), "%s" NEXT "%s", adds, VM_PTX_HEAD ".visible .const .u32 g = 1;");
    cr_expect_eq(load(text, &why), CUDA_ERROR_INVALID_IMAGE);
}

Test(vm_link, names_what_no_module_defines)
{
    struct vm_text why = {""};
    cr_expect_eq(load(adds, &why), CUDA_ERROR_NOT_FOUND);
    cr_expect_not_null(strstr(why.s, "variable g"), "%s", why.s);
}

Test(vm_link, wants_a_head_in_every_module)
{
    char text[4096];
    struct vm_text why = {""};
    snprintf(text, sizeof(text), "%s" NEXT "%s", defines, ".visible .global .u32 other;");
    cr_expect_eq(load(text, &why), CUDA_ERROR_INVALID_PTX);
    cr_expect_not_null(strstr(why.s, "module 2"), "%s", why.s);
}

Test(vm_link, refuses_a_version_that_it_does_not_know)
{
    struct vm_text why = {""};
    cr_expect_eq(load(".version 99.9\n.target sm_75\n.address_size 64\n", &why),
                 CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    cr_expect_not_null(strstr(why.s, "99.9"), "%s", why.s);
    cr_expect_eq(load(".version 10.0\n.target sm_75\n.address_size 64\n.unheard of\n", &why),
                 CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    cr_expect_eq(load(".version 0.5\n.target sm_75\n.address_size 64\n", &why),
                 CUDA_ERROR_INVALID_PTX);
}

Test(vm_link, fits_the_device_of_its_highest_target)
{
    struct vm_text why = {""};
    struct vm_module *m = vm_kit_load(".version 8.0\n.target sm_75\n.address_size 64\n" NEXT
                                      ".version 9.0\n.target sm_90a, debug\n.address_size 64\n");
    cr_expect_eq(vm_module_fits(m, 90, &why), CUDA_SUCCESS);
    cr_expect_eq(vm_module_fits(m, 89, &why), CUDA_ERROR_INVALID_PTX);
    cr_expect_eq(vm_module_fits(m, 100, &why), CUDA_ERROR_INVALID_PTX, "sm_90a is for sm_90 alone");
    vm_module_unload(m);
}
