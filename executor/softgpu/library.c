/* Libraries: an image that belongs to no context.  It is loaded into a context at the first use
 * there; a CUkernel is a name that stands for one function per context. */
#include "executor/softgpu/soft.h"

#include <stdlib.h>
#include <string.h>

struct kernel {
    uint64_t handle;
    struct soft_library *library;
    char *name;
    size_t at; /* the same in every context's module */
};

struct instance {
    struct instance *next;
    struct soft_module *_Atomic module; /* NULL: its context is gone, and with it the id */
    uint64_t ctx_id;
};

struct soft_library {
    uint64_t handle;
    char *ptx;
    size_t ptx_len;
    pthread_mutex_t lock; /* instances; held while one is loaded.  Before ctx->lock */
    struct instance
        *_Atomic instances; /* newest first, read without lock, freed with the library */
    struct kernel *kernel;  /* fixed once made, under lock */
    size_t kernel_n;
    bool named;
};

static struct soft_module *instance_find(struct soft_library *library, const struct soft_ctx *ctx)
{
    struct instance *at = atomic_load_explicit(&library->instances, memory_order_acquire);
    for (; at; at = at->next)
        if (at->ctx_id == ctx->id)
            return atomic_load_explicit(&at->module, memory_order_acquire);
    return NULL;
}

/* Handles for the kernels, from whichever module came first.  Under library->lock. */
static CUresult name_kernels(struct soft_library *library, struct soft_module *module)
{
    if (library->named)
        return CUDA_SUCCESS;
    library->kernel = calloc(module->func_n + 1, sizeof(*library->kernel));
    if (!library->kernel)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < module->func_n; i++) {
        struct kernel *kernel = &library->kernel[i];
        *kernel = (struct kernel){
            .library = library, .name = strdup(module->func[i].info->name), .at = i};
        kernel->handle = soft_handle_add(SOFT_KERNEL, kernel);
        library->kernel_n = i + 1;
        if (!kernel->name || !kernel->handle)
            return CUDA_ERROR_OUT_OF_MEMORY;
    }
    library->named = true;
    return CUDA_SUCCESS;
}

static CUresult instantiate(struct soft_library *library, struct soft_ctx *ctx,
                            const struct soft_jit *jit, struct soft_module **module_out)
{
    pthread_mutex_lock(&library->lock);
    struct soft_module *module = instance_find(library, ctx);
    CUresult result = CUDA_SUCCESS;
    if (!module) {
        struct instance *made = calloc(1, sizeof(*made));
        result = made ? soft_module_make(ctx, library->ptx, library->ptx_len, jit, library, &module)
                      : CUDA_ERROR_OUT_OF_MEMORY;
        if (result == CUDA_SUCCESS)
            result = name_kernels(library, module);
        if (result == CUDA_SUCCESS) {
            made->next = atomic_load_explicit(&library->instances, memory_order_relaxed);
            made->ctx_id = ctx->id;
            atomic_init(&made->module, module);
            atomic_store_explicit(&library->instances, made, memory_order_release);
        } else {
            free(made);
        }
    }
    pthread_mutex_unlock(&library->lock);
    *module_out = module;
    return result;
}

/* The library's module in this context, loaded at first use. */
static CUresult module_in(struct soft_library *library, struct soft_ctx *ctx,
                          struct soft_module **module_out)
{
    *module_out = instance_find(library, ctx);
    return *module_out ? CUDA_SUCCESS
                       : instantiate(library, ctx, &(struct soft_jit){0}, module_out);
}

void soft_library_forget(struct soft_module *module)
{
    struct instance *at = atomic_load_explicit(&module->library->instances, memory_order_acquire);
    for (; at; at = at->next)
        if (atomic_load_explicit(&at->module, memory_order_acquire) == module)
            atomic_store_explicit(&at->module, NULL, memory_order_release);
}

static void library_free(struct soft_library *library)
{
    for (size_t i = 0; i < library->kernel_n; i++) {
        soft_handle_del(library->kernel[i].handle);
        free(library->kernel[i].name);
    }
    free(library->kernel);
    struct instance *at = atomic_load_explicit(&library->instances, memory_order_relaxed);
    while (at) {
        struct instance *next = at->next;
        free(at);
        at = next;
    }
    pthread_mutex_destroy(&library->lock);
    free(library->ptx);
    free(library);
}

static CUresult load(CUlibrary *out, const void *image, const struct soft_jit *jit)
{
    char *ptx;
    size_t len;
    struct soft_module *module;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = soft_image_ptx(image, jit, &ptx, &len);
    if (result)
        return result;
    struct soft_library *library = calloc(1, sizeof(*library));
    if (library)
        library->handle = soft_handle_add(SOFT_LIBRARY, library);
    if (!library || !library->handle) {
        free(library);
        free(ptx);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_init(&library->lock, NULL);
    library->ptx = ptx;
    library->ptx_len = len;
    /* With a context at hand a bad image is refused now and not at its first kernel. */
    struct soft_ctx *ctx = soft_current();
    if (ctx && soft_ctx_usable(ctx) == CUDA_SUCCESS)
        result = instantiate(library, ctx, jit, &module);
    if (result) {
        soft_handle_del(library->handle);
        library_free(library);
        return result;
    }
    soft_image_accept(jit);
    *out = (CUlibrary)library->handle;
    return CUDA_SUCCESS;
}

CUresult cuLibraryLoadData(CUlibrary *library, const void *image, CUjit_option *jit_options,
                           void **jit_values, unsigned int jit_n, CUlibraryOption *options,
                           void **values, unsigned int n)
{
    (void)values;
    for (unsigned int i = 0; options && i < n; i++)
        if ((unsigned int)options[i] >= CU_LIBRARY_NUM_OPTIONS)
            return CUDA_ERROR_INVALID_VALUE;
    return load(library, image, &(struct soft_jit){jit_n, jit_options, jit_values});
}

CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *path, CUjit_option *jit_options,
                               void **jit_values, unsigned int jit_n, CUlibraryOption *options,
                               void **values, unsigned int n)
{
    char *image;
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!path)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = soft_image_file(path, &image, NULL);
    if (result)
        return result;
    result = cuLibraryLoadData(library, image, jit_options, jit_values, jit_n, options, values, n);
    free(image);
    return result;
}

static CUresult find(CUlibrary handle, struct soft_library **library_out)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    *library_out = soft_handle_get((uint64_t)handle, SOFT_LIBRARY);
    return *library_out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult cuLibraryUnload(CUlibrary handle)
{
    struct soft_library *library;
    CUresult result = find(handle, &library);
    if (result)
        return result;
    soft_handle_del(library->handle);
    struct instance *at = atomic_load_explicit(&library->instances, memory_order_acquire);
    for (; at; at = at->next) {
        struct soft_module *module = atomic_load_explicit(&at->module, memory_order_acquire);
        if (module)
            soft_module_drop(module);
    }
    library_free(library);
    return CUDA_SUCCESS;
}

/* The current context, or the first device's primary one even before it is retained: cudart asks
 * for kernels and managed variables before it has a context. */
static CUresult some_context(struct soft_ctx **ctx_out)
{
    *ctx_out = soft_current();
    if (*ctx_out)
        return soft_ctx_usable(*ctx_out);
    return soft_primary(&soft_devs[0], ctx_out);
}

static CUresult named(struct soft_library *library)
{
    struct soft_ctx *ctx;
    struct soft_module *module;
    pthread_mutex_lock(&library->lock);
    bool done = library->named;
    pthread_mutex_unlock(&library->lock);
    if (done)
        return CUDA_SUCCESS;
    CUresult result = some_context(&ctx);
    return result ? result : module_in(library, ctx, &module);
}

CUresult cuLibraryGetKernel(CUkernel *out, CUlibrary handle, const char *name)
{
    struct soft_library *library;
    CUresult result = find(handle, &library);
    if (result)
        return result;
    if (!out || !name)
        return CUDA_ERROR_INVALID_VALUE;
    result = named(library);
    if (result)
        return result;
    for (size_t i = 0; i < library->kernel_n; i++) {
        if (strcmp(library->kernel[i].name, name) == 0) {
            *out = (CUkernel)library->kernel[i].handle;
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_NOT_FOUND;
}

CUresult cuLibraryGetKernelCount(unsigned int *n, CUlibrary handle)
{
    struct soft_library *library;
    CUresult result = find(handle, &library);
    if (result == CUDA_SUCCESS)
        result = named(library);
    if (result)
        return result;
    if (!n)
        return CUDA_ERROR_INVALID_VALUE;
    *n = (unsigned int)library->kernel_n;
    return CUDA_SUCCESS;
}

CUresult cuLibraryEnumerateKernels(CUkernel *out, unsigned int n, CUlibrary handle)
{
    struct soft_library *library;
    CUresult result = find(handle, &library);
    if (result == CUDA_SUCCESS)
        result = named(library);
    if (result)
        return result;
    if (!out || !n)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < n && i < library->kernel_n; i++)
        out[i] = (CUkernel)library->kernel[i].handle;
    return CUDA_SUCCESS;
}

static CUresult module_here(CUlibrary handle, struct soft_module **module_out)
{
    struct soft_library *library;
    struct soft_ctx *ctx;
    CUresult result = find(handle, &library);
    if (result == CUDA_SUCCESS)
        result = soft_enter(&ctx);
    return result ? result : module_in(library, ctx, module_out);
}

CUresult cuLibraryGetModule(CUmodule *out, CUlibrary handle)
{
    struct soft_module *module;
    CUresult result = module_here(handle, &module);
    if (result)
        return result;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = (CUmodule)module->handle;
    return CUDA_SUCCESS;
}

CUresult cuLibraryGetGlobal(CUdeviceptr *at, size_t *len, CUlibrary handle, const char *name)
{
    struct soft_module *module;
    CUresult result = module_here(handle, &module);
    return result ? result : cuModuleGetGlobal_v2(at, len, (CUmodule)module->handle, name);
}

/* A __managed__ variable is a global like the others: the host may touch device memory here. */
CUresult cuLibraryGetManaged(CUdeviceptr *at, size_t *len, CUlibrary handle, const char *name)
{
    struct soft_library *library;
    struct soft_module *module;
    struct soft_ctx *ctx;
    CUresult result = find(handle, &library);
    if (result == CUDA_SUCCESS)
        result = some_context(&ctx);
    if (result == CUDA_SUCCESS)
        result = module_in(library, ctx, &module);
    return result ? result : soft_module_global(module, name, at, len);
}

/* ---- kernels ---- */

static struct kernel *kernel_of(CUkernel handle)
{
    return soft_handle_get((uint64_t)handle, SOFT_KERNEL);
}

CUresult soft_kernel_func(CUkernel handle, struct soft_ctx *ctx, struct soft_func **func_out)
{
    struct kernel *kernel = kernel_of(handle);
    struct soft_module *module;
    if (!kernel)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult result = module_in(kernel->library, ctx, &module);
    if (result == CUDA_SUCCESS)
        *func_out = &module->func[kernel->at];
    return result;
}

/* In the current context. */
static CUresult func_here(CUkernel handle, struct soft_func **func_out)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    return result ? result : soft_kernel_func(handle, ctx, func_out);
}

/* In the primary context of a device: where an attribute by device is kept. */
static CUresult func_on(CUkernel handle, CUdevice device, struct soft_func **func_out)
{
    struct soft_dev *dev;
    struct soft_ctx *ctx = soft_current();
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!ctx || ctx->dev != dev)
        result = soft_primary(dev, &ctx);
    return result ? result : soft_kernel_func(handle, ctx, func_out);
}

CUresult cuKernelGetFunction(CUfunction *out, CUkernel handle)
{
    struct soft_func *func;
    CUresult result = func_here(handle, &func);
    if (result)
        return result;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    result = soft_func_ready(func);
    if (result == CUDA_SUCCESS)
        *out = (CUfunction)func->handle;
    return result;
}

CUresult cuKernelGetLibrary(CUlibrary *out, CUkernel handle)
{
    struct kernel *kernel = kernel_of(handle);
    if (!kernel)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    *out = (CUlibrary)kernel->library->handle;
    return CUDA_SUCCESS;
}

CUresult cuKernelGetName(const char **name, CUkernel handle)
{
    struct kernel *kernel = kernel_of(handle);
    if (!kernel)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!name)
        return CUDA_ERROR_INVALID_VALUE;
    *name = kernel->name;
    return CUDA_SUCCESS;
}

CUresult cuKernelGetParamInfo(CUkernel handle, size_t at, size_t *offset, size_t *len)
{
    struct soft_func *func;
    CUresult result = func_here(handle, &func);
    return result ? result : soft_func_param(func->info, at, offset, len);
}

CUresult cuKernelGetAttribute(int *value, CUfunction_attribute attribute, CUkernel handle,
                              CUdevice dev)
{
    struct soft_func *func;
    CUresult result = func_on(handle, dev, &func);
    if (result)
        return result;
    return value ? soft_func_attribute(func, attribute, value) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel handle,
                              CUdevice dev)
{
    struct soft_func *func;
    CUresult result = func_on(handle, dev, &func);
    return result ? result : soft_func_set_attribute(func, attribute, value);
}

CUresult cuKernelSetCacheConfig(CUkernel handle, CUfunc_cache config, CUdevice dev)
{
    struct soft_func *func;
    CUresult result = func_on(handle, dev, &func);
    if (result)
        return result;
    return (unsigned int)config > CU_FUNC_CACHE_PREFER_EQUAL ? CUDA_ERROR_INVALID_VALUE
                                                             : CUDA_SUCCESS;
}
