/* For programs that are linked with nothing of CUDA: the driver's calls as fields of `cu`, looked
 * up at run time.  Include it after a macro CALLS(X) that names them. */
#ifndef TFR_TESTS_E2E_DRIVER_H
#define TFR_TESTS_E2E_DRIVER_H

#ifndef __CUDA_API_VERSION_INTERNAL
#define __CUDA_API_VERSION_INTERNAL
#endif
#include <cuda.h>
#include <dlfcn.h>

#include "check.h"

static struct {
#define FIELD(name) __typeof__(&name) name;
    CALLS(FIELD)
#undef FIELD
} cu;

static const char *error_name(CUresult error)
{
    const char *name = NULL;
    return cu.cuGetErrorName(error, &name) == CUDA_SUCCESS && name ? name : "unknown error";
}

static void check_cu(CUresult got, const char *what, int line)
{
    if (got == CUDA_SUCCESS)
        return;
    fflush(stdout);
    fprintf(stderr, "line %d: %s: %s\n", line, what, error_name(got));
    exit(1);
}
#define CU(call) check_cu(cu.call, #call, __LINE__)

/* What a call answers, for the golden file. */
static inline void show_cu(const char *what, CUresult got)
{
    printf("%s: %s\n", what, error_name(got));
}

static void driver_load(void)
{
    void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        fprintf(stderr, "%s\n", dlerror());
    CHECK(lib);
#define LOAD(name)                                                                                 \
    *(void **)&cu.name = dlsym(lib, #name);                                                        \
    CHECK(cu.name);
    CALLS(LOAD)
#undef LOAD
}

#endif
