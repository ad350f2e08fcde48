/* The driver's linker: two PTX texts, one from memory and one from a file, become an image that is
 * loaded, kept in a file and loaded again from there. */
#include <cuda.h>
#include <unistd.h>

#include "check.h"

#define HEAD ".version 7.0\n.target sm_75\n.address_size 64\n"

static const char kernel[] =
    HEAD ".extern .global .u32 g;\n.extern .func (.param .b32 r) twice(.param .b32 x);\n"
         ".visible .entry k(.param .u64 out)\n{.reg .b32 %r<3>; .reg .b64 %rd;\n"
         "ld.param.u64 %rd, [out]; ld.global.u32 %r1, [g];\n"
         "{.param .b32 a; .param .b32 v; st.param.b32 [a], %r1; call (v), twice, (a);\n"
         "ld.param.b32 %r2, [v];}\nst.global.u32 [%rd], %r2; ret;}\n";
static const char rest[] =
    HEAD ".visible .global .u32 g = 21;\n"
         ".visible .func (.param .b32 r) twice(.param .b32 x)\n{.reg .b32 %r<2>;\n"
         "ld.param.b32 %r1, [x]; add.u32 %r1, %r1, %r1; st.param.b32 [r], %r1; ret;}\n";

template <typename F> static void driver(const char *name, F *fn)
{
    cudaDriverEntryPointQueryResult found;
    CUDA(cudaGetDriverEntryPointByVersion(name, (void **)fn, 13000, cudaEnableDefault, &found));
    CHECK(found == cudaDriverEntryPointSuccess);
}

static void save(const char *path, const void *bytes, size_t len)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(bytes, 1, len, f) == len);
    fclose(f);
}

static decltype(&cuLinkCreate) link_create;
static decltype(&cuLinkAddData) link_add;
static decltype(&cuLinkAddFile) link_file;
static decltype(&cuLinkComplete) link_complete;
static decltype(&cuLinkDestroy) link_destroy;
static decltype(&cuModuleLoadData) load_data;
static decltype(&cuModuleLoad) load_file;
static decltype(&cuModuleGetFunction) get_function;
static decltype(&cuLaunchKernel) launch;
static decltype(&cuModuleUnload) unload;

static void functions(void)
{
    driver("cuLinkCreate", &link_create);
    driver("cuLinkAddData", &link_add);
    driver("cuLinkAddFile", &link_file);
    driver("cuLinkComplete", &link_complete);
    driver("cuLinkDestroy", &link_destroy);
    driver("cuModuleLoadData", &load_data);
    driver("cuModuleLoad", &load_file);
    driver("cuModuleGetFunction", &get_function);
    driver("cuLaunchKernel", &launch);
    driver("cuModuleUnload", &unload);
}

static void run(const char *how, CUmodule module)
{
    CUfunction f;
    int *out = (int *)device_alloc(4), host = 0;
    CHECK(!get_function(&f, module, "k"));
    void *params[] = {&out};
    CHECK(!launch(f, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
    CUDA(cudaMemcpy(&host, out, 4, cudaMemcpyDeviceToHost));
    CUDA(cudaFree(out));
    printf("%s: %d\n", how, host);
    CHECK(!unload(module));
}

static void refused(void)
{
    static const char bad[] = HEAD ".visible .entry k() { frobnicate; }\n";
    char log[512] = "";
    CUjit_option option[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *value[] = {log, (void *)sizeof(log)}, *image;
    CUlinkState state;
    size_t len;
    CHECK(!link_create(2, option, value, &state));
    CUresult r =
        link_add(state, CU_JIT_INPUT_PTX, (void *)bad, sizeof(bad), "bad.ptx", 0, NULL, NULL);
    if (!r) /* whenever the compiler notices */
        r = link_complete(state, &image, &len);
    if (!r) {
        CUmodule m;
        CUfunction f;
        r = load_data(&m, image);
        if (!r)
            r = get_function(&f, m, "k");
    }
    CHECK(!link_destroy(state));
    printf("bad input refused: %d\n", r != 0);
    value[1] = (void *)sizeof(log); /* was overwritten */
    CHECK(!link_create(2, option, value, &state));
    r = link_add(state, CU_JIT_INPUT_PTX, (void *)kernel, sizeof(kernel), "a.ptx", 0, NULL, NULL);
    if (!r)
        r = link_complete(state, &image, &len);
    printf("undefined name refused: %d, said so: %d\n", r != 0, log[0] != 0);
    CHECK(!link_destroy(state));
}

int main(void)
{
    CUlinkState state;
    CUmodule module;
    char path[64];
    void *image;
    size_t len;
    CUDA(cudaFree(0));
    functions();
    snprintf(path, sizeof(path), "/tmp/tfr-linker-%d", (int)getpid());
    save(path, rest, sizeof(rest) - 1);
    CHECK(!link_create(0, NULL, NULL, &state));
    CHECK(!link_add(state, CU_JIT_INPUT_PTX, (void *)kernel, sizeof(kernel), "kernel.ptx", 0, NULL,
                    NULL));
    CHECK(!link_file(state, CU_JIT_INPUT_PTX, path, 0, NULL, NULL));
    CHECK(!link_complete(state, &image, &len));
    CHECK(!load_data(&module, image));
    save(path, image, len);
    CHECK(!link_destroy(state));
    run("from memory", module);
    CHECK(!load_file(&module, path));
    run("from the file", module);
    remove(path);
    refused();
    return 0;
}
