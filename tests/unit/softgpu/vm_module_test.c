/* Modules and images: variables, parameters, what is no PTX, spoilt text and spoilt containers. */
#include "tests/unit/softgpu/vm_calls.h"

Test(vm_module, places_variables_with_their_values)
{
    struct vm_module *m = vm_kit_load(
        VM_PTX_HEAD
        ".global .align 4 .u32 a[3] = {1, 2};\n.const .f32 c = 1.5;\n"
        ".global .align 8 .u64 p[2] = {generic(a)+4, a};\n.global .b8 s[2][3] = {{1}, {4,5}};\n"
        ".visible .entry k(.param .u32 x, .param .align 8 .b8 y[24], .param .u8 z) .maxntid 64, 2\n"
        "{.shared .align 16 .b8 sh[40]; st.shared.u32 [sh], 1; ret;}\n");
    const struct vm_global *a = vm_module_find_global(m, "a"), *p = vm_module_find_global(m, "p");
    const struct vm_global *s = vm_module_find_global(m, "s"), *c = vm_module_find_global(m, "c");
    static const uint32_t want[3] = {1, 2, 0};
    static const uint8_t bytes[6] = {1, 0, 0, 4, 5, 0};
    cr_assert(a && p && s && c && vm_module_global_n(m) == 4);
    cr_assert_eq(a->len, 12);
    cr_assert_arr_eq((void *)(uintptr_t)a->addr, want, sizeof(want));
    cr_assert_arr_eq((void *)(uintptr_t)s->addr, bytes, sizeof(bytes));
    cr_assert_eq(((uint64_t *)(uintptr_t)p->addr)[0], a->addr + 4);
    cr_assert_eq(*(float *)(uintptr_t)c->addr, 1.5f);
    const struct vm_kernel_info *i = vm_kernel_info(vm_module_find(m, "k"));
    cr_assert(i->param_n == 3 && i->params[1].at == 8 && i->params[1].size == 24 &&
              i->param_len == 33);
    cr_assert(i->shared_len == 40 && i->max_threads == 128 && i->target == 90 &&
              i->ptx_version == 90);
    vm_module_unload(m);
}

static void parse(const char *ptx, size_t n)
{
    struct vm_module *m = NULL;
    struct vm_text why;
    if (vm_module_load(ptx, n, &m, &why) != CUDA_SUCCESS)
        return;
    for (size_t i = 0; i < vm_module_kernel_n(m); i++)
        vm_kernel_prepare(vm_module_kernel(m, i), &why);
    vm_module_unload(m);
}

static void spoil(char *copy, size_t n, unsigned int *seed)
{
    static const char bits[] = "{}()[];,.%@!|+-<>=:0123456789abcdefx_ \n\"/*";
    for (int k = rand_r(seed) % 4; k >= 0; k--) {
        size_t at = (size_t)rand_r(seed) % n;
        switch (rand_r(seed) % 4) {
        case 0:
            copy[at] = bits[(size_t)rand_r(seed) % (sizeof(bits) - 1)];
            break;
        case 1: {
            size_t from = (size_t)rand_r(seed) % n, len = (size_t)rand_r(seed) % 40;
            if (from + len < n && at + len < n)
                memmove(copy + at, copy + from, len);
            break;
        }
        case 2:
            copy[at] = (char)rand_r(seed);
            break;
        default:
            memset(copy + at, ' ', n - at < 9 ? n - at : 9);
            break;
        }
    }
}

Test(vm_module, survives_spoilt_text, .timeout = 240)
{
    unsigned int seed = 4711;
    size_t n = sizeof(calls) - 1;
    cr_assert_eq(soft_mem_init(), CUDA_SUCCESS);
    for (size_t i = 0; i < n; i++) { /* cut short, in a buffer without an end */
        char *exact = malloc(i + 1);
        memcpy(exact, calls, i);
        parse(exact, i);
        free(exact);
    }
    for (int i = 0; i < 4000; i++) {
        char *copy = malloc(n);
        memcpy(copy, calls, n);
        spoil(copy, n, &seed);
        parse(copy, n);
        free(copy);
    }
}

Test(vm_module, refuses_what_is_not_ptx)
{
    static const char *const bad[] = {"",
                                      "hello",
                                      ".version 9.0",
                                      ".version 9.0\n.target sm_90\n.address_size 32",
                                      VM_PTX_HEAD ".entry k( {",
                                      VM_PTX_HEAD ".entry k() {bra X;}",
                                      VM_PTX_HEAD ".entry k() {mov.u32 %r1, 0;}",
                                      VM_PTX_HEAD ".entry k() {.reg .b32 %r<99999999>; ret;}",
                                      VM_PTX_HEAD ".global .u32 a[0x7fffffffffffffff];",
                                      VM_PTX_HEAD ".global .u32 a; .global .u32 a;",
                                      VM_PTX_HEAD ".entry k() {X: X: ret;}",
                                      VM_PTX_HEAD ".nonsense",
                                      VM_PTX_HEAD ".global .u32 a[2] = {1,2,3};"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct vm_module *m;
        struct vm_text why = {""};
        cr_expect_eq(vm_module_load(bad[i], strlen(bad[i]), &m, &why), CUDA_ERROR_INVALID_PTX, "%s",
                     bad[i]);
        cr_expect(strstr(why.s, "ptx line"), "%s: %s", bad[i], why.s);
    }
}

/* ---- images ---- */

static size_t container(uint8_t *out, const char *text, uint32_t arch, uint64_t flags,
                        uint32_t packed, uint64_t full, size_t n)
{
    uint64_t stored = (n + 7) & ~7ull, body = 0x40 + stored;
    memset(out, 0, 16 + 0x40 + stored);
    memcpy(out, (uint32_t[]){0xBA55ED50, 0x00100001}, 8);
    memcpy(out + 8, &body, 8);
    memcpy(out + 16, (uint32_t[]){0x01010001, 0x40}, 8);
    memcpy(out + 24, &stored, 8);
    memcpy(out + 32, &packed, 4);
    memcpy(out + 16 + 0x1c, &arch, 4);
    memcpy(out + 16 + 0x28, &flags, 8);
    memcpy(out + 16 + 0x38, &full, 8);
    memcpy(out + 16 + 0x40, text, n);
    return 16 + 0x40 + stored;
}

Test(vm_image, finds_the_text_in_a_container)
{
    static const char text[] = ".version 9.0\n";
    static const uint8_t lz4[] = {0x14, 'a', 1, 0, 0x50, 'b', 'c', 'd', 'e', 'f'}; /* a x9, bcdef */
    uint8_t image[256];
    struct vm_text why;
    char *ptx;
    size_t len, n = container(image, text, 75, 0x11, 0, 0, sizeof(text));
    cr_assert_eq(vm_image_ptx(image, n, 90, &ptx, &len, &why), CUDA_SUCCESS, "%s", why.s);
    cr_assert_str_eq(ptx, text);
    free(ptx);
    cr_assert_eq(vm_image_ptx(image, n, 70, &ptx, &len, &why), CUDA_ERROR_NO_BINARY_FOR_GPU);
    cr_assert_eq(vm_image_ptx(image, n - 1, 90, &ptx, &len, &why), CUDA_ERROR_INVALID_IMAGE);
    n = container(image, (const char *)lz4, 75, 0x2011, sizeof(lz4), 14, sizeof(lz4));
    cr_assert_eq(vm_image_ptx(image, n, 90, &ptx, &len, &why), CUDA_SUCCESS, "%s", why.s);
    cr_assert_str_eq(ptx, "aaaaaaaaabcdef");
    free(ptx);
    for (size_t i = 0; i < n; i++) { /* any limit and any spoilt byte: an answer, not a crash */
        uint8_t *exact = malloc(i + 1);
        memcpy(exact, image, i);
        if (vm_image_ptx(exact, i, 90, &ptx, &len, &why) == CUDA_SUCCESS)
            free(ptx);
        free(exact);
        for (int bit = 0; bit < 8; bit++) {
            image[i] ^= (uint8_t)(1 << bit);
            if (vm_image_ptx(image, n, 90, &ptx, &len, &why) == CUDA_SUCCESS)
                free(ptx);
            image[i] ^= (uint8_t)(1 << bit);
        }
    }
}
