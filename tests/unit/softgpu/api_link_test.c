/* cuLink*: inputs become one image, and what is wrong is said in the log of the state. */
#include "tests/unit/softgpu/api_kit.h"

#define HEAD ".version 9.0\n.target sm_75\n.address_size 64\n"

static const char uses[] = HEAD
    ".extern .global .u32 g;\n.visible .entry k(.param .u64 out)\n{.reg .b32 %r; .reg .b64 %rd;\n"
    "ld.param.u64 %rd, [out]; ld.global.u32 %r, [g]; st.global.u32 [%rd], %r; ret;}\n";
static const char defines[] = HEAD ".visible .global .u32 g = 42;\n";

struct state {
    CUlinkState link;
    char error[256];
    CUjit_option option[2];
    void *value[2];
};

static void begin(struct state *s)
{
    s->option[0] = CU_JIT_ERROR_LOG_BUFFER;
    s->option[1] = CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES;
    s->value[0] = s->error;
    s->value[1] = (void *)sizeof(s->error);
    memset(s->error, 0, sizeof(s->error));
    ok(cuLinkCreate(2, s->option, s->value, &s->link));
}

static CUresult add(struct state *s, CUjitInputType type, const char *text, size_t len)
{
    return cuLinkAddData(s->link, type, (void *)(uintptr_t)text, len, "part.ptx", 0, NULL, NULL);
}

Test(soft_link, makes_one_module_of_several_texts)
{
    struct kit k = kit_open();
    struct state s;
    void *image;
    size_t len;
    CUmodule m;
    CUfunction f;
    CUdeviceptr out;
    uint32_t word = 0;
    (void)k;
    begin(&s);
    ok(add(&s, CU_JIT_INPUT_PTX, uses, sizeof(uses)));
    ok(add(&s, CU_JIT_INPUT_PTX, defines, sizeof(defines) - 1));
    ok(cuLinkComplete(s.link, &image, &len));
    char *copy = malloc(len);
    memcpy(copy, image, len);
    answers(add(&s, CU_JIT_INPUT_PTX, defines, sizeof(defines)), CUDA_ERROR_INVALID_VALUE);
    ok(cuLinkDestroy(s.link));
    answers(cuLinkDestroy(s.link), CUDA_ERROR_INVALID_HANDLE);
    ok(cuModuleLoadData(&m, copy));
    free(copy);
    ok(cuModuleGetFunction(&f, m, "k"));
    ok(cuMemAlloc(&out, 4));
    ok(cuLaunchKernel(f, 1, 1, 1, 1, 1, 1, 0, NULL, (void *[]){&out}, NULL));
    ok(cuMemcpyDtoH(&word, out, 4));
    cr_expect_eq(word, 42);
}

Test(soft_link, says_what_is_wrong_with_an_input_when_it_is_added)
{
    struct kit k = kit_open();
    struct state s;
    static const char bad[] = HEAD ".visible .entry k() { frobnicate }\n";
    static const char late[] = ".version 99.9\n.target sm_75\n.address_size 64\n";
    static const char elf[64] = "\177ELF";
    (void)k;
    begin(&s);
    answers(add(&s, CU_JIT_INPUT_PTX, bad, sizeof(bad)), CUDA_ERROR_INVALID_PTX);
    cr_expect(strstr(s.error, "part.ptx") && strstr(s.error, "line 4"), "%s", s.error);
    answers(add(&s, CU_JIT_INPUT_PTX, late, sizeof(late)), CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    answers(add(&s, CU_JIT_INPUT_CUBIN, elf, sizeof(elf)), CUDA_ERROR_NO_BINARY_FOR_GPU);
    answers(add(&s, CU_JIT_INPUT_LIBRARY, elf, sizeof(elf)), CUDA_ERROR_NOT_SUPPORTED);
    answers(cuLinkAddFile(s.link, CU_JIT_INPUT_PTX, "/nowhere.ptx", 0, NULL, NULL),
            CUDA_ERROR_FILE_NOT_FOUND);
    ok(cuLinkDestroy(s.link));
}

Test(soft_link, says_which_names_do_not_meet)
{
    struct kit k = kit_open();
    struct state s;
    void *image;
    size_t len;
    (void)k;
    begin(&s);
    ok(add(&s, CU_JIT_INPUT_PTX, uses, sizeof(uses)));
    answers(cuLinkComplete(s.link, &image, &len), CUDA_ERROR_NOT_FOUND);
    cr_expect(strstr(s.error, "'g'"), "%s", s.error);
    ok(cuLinkDestroy(s.link));
    begin(&s);
    ok(add(&s, CU_JIT_INPUT_PTX, defines, sizeof(defines)));
    ok(add(&s, CU_JIT_INPUT_PTX, defines, sizeof(defines)));
    answers(cuLinkComplete(s.link, &image, &len), CUDA_ERROR_INVALID_IMAGE);
    cr_expect(strstr(s.error, "'g'"), "%s", s.error);
    ok(cuLinkDestroy(s.link));
}
