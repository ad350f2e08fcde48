/* What nvcc makes of C functions gives the bits that the C compiler's gives: loops, divergence,
 * calls, structs, local arrays, integers and exact floating point together.  TWIN_PTX_<arch> are
 * made by nvcc (twin.cu). */
#include "tests/unit/softgpu/vm_kit.h"

#include "tests/unit/softgpu/twin.h"

enum { COUNT = 3000 };

static const struct twin {
    const char *name;
    uint64_t (*fn)(uint64_t, uint64_t, uint64_t);
} twins[] = {
#define TWIN_ROW(name) {"twin_" #name, name},
    TWINS(TWIN_ROW)
#undef TWIN_ROW
};

static char *read_text(const char *path)
{
    char *text = calloc(1, 1 << 20);
    FILE *f = fopen(path, "r");
    cr_assert(f && text, "%s", path);
    cr_assert_gt(fread(text, 1, (1 << 20) - 1, f), 0);
    fclose(f);
    return text;
}

static bool same(struct vm_module *m, const struct twin *t, const uint64_t *in, uint64_t *out)
{
    struct {
        const void *in;
        void *out;
        uint32_t n;
    } p = {in, out, COUNT};
    struct vm_fault f;
    CUresult r = vm_kit_run(vm_kit_kernel(m, t->name), COUNT / 96 + 1, 96, 0, &p, &f);
    cr_assert_eq(r, CUDA_SUCCESS, "%s", f.text.s);
    for (int i = 0; i < COUNT; i++) {
        uint64_t want = t->fn(in[3 * i], in[3 * i + 1], in[3 * i + 2]);
        if (out[i] == want)
            continue;
        cr_log_error("%s: number %d gives %llx, not %llx", t->name, i, (unsigned long long)out[i],
                     (unsigned long long)want);
        return false;
    }
    return true;
}

static void check(const char *path)
{
    char *text = read_text(path);
    struct vm_module *m = vm_kit_load(text);
    uint64_t *in = vm_kit_mem(COUNT * 24), *out = vm_kit_mem(COUNT * 8), s = 0x9e3779b97f4a7c15ull;
    int bad = 0;
    for (int i = 0; i < 3 * COUNT; i++) {
        s = s * 6364136223846793005ull + 1442695040888963407ull;
        in[i] = i % 7 ? s ^ s >> 29 : s >> (s & 63);
    }
    for (size_t i = 0; i < sizeof(twins) / sizeof(*twins); i++)
        bad += !same(m, &twins[i], in, out);
    cr_assert_eq(bad, 0, "%d twins differ", bad);
    vm_module_unload(m);
    free(text);
}

Test(vm_twin, optimised_code_gives_the_hosts_bits)
{
    check(TWIN_PTX_75);
}

Test(vm_twin, newer_targets_do_too)
{
    check(TWIN_PTX_90);
}

Test(vm_twin, debug_code_does_too)
{
    check(TWIN_PTX_G);
}
