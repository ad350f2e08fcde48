/* Any text as PTX: parsed, loaded, every kernel decoded, and those that decode run with one small
 * block and an instruction budget, their parameters pointing at device memory.  A kernel may fault;
 * the interpreter may not. */
#include <stdlib.h>
#include <string.h>

#include "executor/softgpu/devmem.h"
#include "executor/softgpu/vm.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PARAM_WORDS = 8192, MEMORY = 8192, SHARED_MAX = 1 << 20, LOCAL_MAX = 1 << 16 };

static uint64_t params[PARAM_WORDS];
static CUdeviceptr memory;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    setenv("TFR_SOFT_BUDGET", "20000", 1);
    setenv("TFR_SOFT_MEMORY", "256m", 1);
    setenv("TFR_SOFT_WORKERS", "1", 1);
    if (soft_mem_init() || soft_mem_alloc(MEMORY, 256, &memory))
        abort();
    for (int i = 0; i < PARAM_WORDS; i++)
        params[i] = i % 3 == 2 ? 17 : memory;
    return 0;
}

static void run(struct vm_kernel *kernel)
{
    const struct vm_kernel_info *info = vm_kernel_info(kernel);
    struct vm_fault fault;
    struct vm_text why;
    if (vm_kernel_prepare(kernel, &why) || info->param_len > sizeof(params) ||
        info->shared_len > SHARED_MAX || info->local_len > LOCAL_MAX)
        return;
    for (int i = 0; i < 2; i++) {
        struct vm_launch launch = {.kernel = kernel,
                                   .grid = {1 + (uint32_t)i, 1, 1},
                                   .block = {i ? 40 : 32, 1, 1},
                                   .shared_len = 64,
                                   .params = params};
        vm_run(&launch, &fault);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct vm_module *module;
    struct vm_text why;
    char *exact = malloc(size ? size : 1);
    if (!exact)
        return 0;
    memcpy(exact, data, size);
    memset((void *)(uintptr_t)memory, 0, MEMORY);
    if (vm_module_load(exact, size, &module, &why) == CUDA_SUCCESS) {
        for (size_t i = 0; i < vm_module_kernel_n(module) && i < 4; i++)
            run(vm_module_kernel(module, i));
        vm_module_unload(module);
    }
    free(exact);
    return 0;
}
