/* Modules: PTX loaded into one context.  Libraries (library.c) are loaded through here as well. */
#include "executor/softgpu/soft.h"

#include <stdlib.h>
#include <string.h>

static bool funcs_add(struct soft_module *module)
{
    size_t n = vm_module_kernel_n(module->vm);
    module->func = calloc(n + 1, sizeof(*module->func));
    if (!module->func)
        return false;
    module->func_n = n;
    for (size_t i = 0; i < n; i++) {
        struct soft_func *func = &module->func[i];
        func->module = module;
        func->kernel = vm_module_kernel(module->vm, i);
        func->info = vm_kernel_info(func->kernel);
        atomic_init(&func->carveout, -1);
        uint32_t room = func->info->shared_len < SOFT_SHARED_DEFAULT
                            ? SOFT_SHARED_DEFAULT - func->info->shared_len
                            : 0;
        atomic_init(&func->max_dynamic, (int)room);
        func->handle = soft_handle_add(SOFT_FUNC, func);
        if (!func->handle)
            return false;
    }
    return true;
}

static void handles_del(struct soft_module *module)
{
    soft_handle_del(module->handle);
    for (size_t i = 0; i < module->func_n; i++)
        soft_handle_del(module->func[i].handle);
}

static void module_free(struct soft_module *module)
{
    free(module->func);
    if (module->vm)
        vm_module_unload(module->vm);
    free(module);
}

CUresult soft_module_make(struct soft_ctx *ctx, const char *ptx, size_t len,
                          const struct soft_jit *jit, struct soft_library *library,
                          struct soft_module **module_out)
{
    struct vm_text why = {""};
    struct soft_module *module = calloc(1, sizeof(*module));
    if (!module)
        return CUDA_ERROR_OUT_OF_MEMORY;
    module->ctx = ctx;
    module->library = library;
    atomic_init(&module->refs, 1);
    struct soft_ctx *now = soft_current();
    soft_heap_use(ctx->heap); /* where its variables go */
    CUresult result = vm_module_load(ptx, len, &module->vm, &why);
    soft_heap_use(now ? now->heap : NULL);
    if (result == CUDA_SUCCESS)
        result = vm_module_fits(module->vm, soft_arch, &why);
    if (result) {
        soft_image_refuse(jit, why.s);
        vm_module_unload(module->vm);
        free(module);
        return result;
    }
    module->handle = soft_handle_add(SOFT_MODULE, module);
    if (!module->handle || !funcs_add(module)) {
        handles_del(module);
        module_free(module);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_lock(&ctx->lock);
    module->next = ctx->modules;
    module->prev = &ctx->modules;
    if (module->next)
        module->next->prev = &module->next;
    ctx->modules = module;
    pthread_mutex_unlock(&ctx->lock);
    *module_out = module;
    return CUDA_SUCCESS;
}

void soft_module_drop(struct soft_module *module)
{
    pthread_mutex_lock(&module->ctx->lock);
    *module->prev = module->next;
    if (module->next)
        module->next->prev = module->prev;
    pthread_mutex_unlock(&module->ctx->lock);
    if (module->library)
        soft_library_forget(module);
    handles_del(module);
    soft_module_unref(module);
}

void soft_module_unref(struct soft_module *module)
{
    if (atomic_fetch_sub_explicit(&module->refs, 1, memory_order_acq_rel) == 1)
        module_free(module);
}

static struct soft_func *func_named(struct soft_module *module, const char *name)
{
    struct vm_kernel *kernel = vm_module_find(module->vm, name);
    for (size_t i = 0; kernel && i < module->func_n; i++)
        if (module->func[i].kernel == kernel)
            return &module->func[i];
    return NULL;
}

static CUresult load(CUmodule *out, const void *image, const struct soft_jit *jit)
{
    struct soft_ctx *ctx;
    struct soft_module *module;
    char *ptx;
    size_t len;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!out)
        return CUDA_ERROR_INVALID_VALUE;
    result = soft_image_ptx(image, jit, &ptx, &len);
    if (result)
        return result;
    result = soft_module_make(ctx, ptx, len, jit, NULL, &module);
    free(ptx);
    if (result != CUDA_SUCCESS)
        return result;
    soft_image_accept(jit);
    *out = (CUmodule)module->handle;
    return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    return load(module, image, &(struct soft_jit){0});
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int n,
                            CUjit_option *options, void **values)
{
    return load(module, image, &(struct soft_jit){n, options, values});
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    return load(module, image, &(struct soft_jit){0});
}

CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    struct soft_ctx *ctx;
    char *image;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!module || !path)
        return CUDA_ERROR_INVALID_VALUE;
    result = soft_image_file(path, &image, NULL);
    if (result)
        return result;
    result = load(module, image, &(struct soft_jit){0});
    free(image);
    return result;
}

static CUresult find(CUmodule handle, struct soft_module **module_out)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    struct soft_module *module = soft_handle_get((uint64_t)handle, SOFT_MODULE);
    if (!module)
        return CUDA_ERROR_INVALID_HANDLE;
    *module_out = module;
    return soft_ctx_usable(module->ctx);
}

CUresult cuModuleUnload(CUmodule handle)
{
    struct soft_module *module;
    CUresult result = find(handle, &module);
    if (result)
        return result;
    if (module->library)
        return CUDA_ERROR_NOT_PERMITTED;
    soft_module_drop(module);
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *out, CUmodule handle, const char *name)
{
    struct soft_module *module;
    CUresult result = find(handle, &module);
    if (result)
        return result;
    if (!out || !name)
        return CUDA_ERROR_INVALID_VALUE;
    struct soft_func *func = func_named(module, name);
    if (!func)
        return CUDA_ERROR_NOT_FOUND;
    result = soft_func_ready(func);
    if (result == CUDA_SUCCESS)
        *out = (CUfunction)func->handle;
    return result;
}

CUresult soft_module_global(struct soft_module *module, const char *name, CUdeviceptr *at,
                            size_t *len)
{
    if (!name)
        return CUDA_ERROR_INVALID_VALUE;
    const struct vm_global *global = vm_module_find_global(module->vm, name);
    if (!global)
        return CUDA_ERROR_NOT_FOUND;
    if (at)
        *at = global->addr;
    if (len)
        *len = global->len;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *at, size_t *len, CUmodule handle, const char *name)
{
    struct soft_module *module;
    CUresult result = find(handle, &module);
    return result ? result : soft_module_global(module, name, at, len);
}

CUresult cuModuleGetFunctionCount(unsigned int *n, CUmodule handle)
{
    struct soft_module *module;
    CUresult result = find(handle, &module);
    if (result)
        return result;
    if (!n)
        return CUDA_ERROR_INVALID_VALUE;
    *n = (unsigned int)module->func_n;
    return CUDA_SUCCESS;
}

CUresult cuModuleEnumerateFunctions(CUfunction *out, unsigned int n, CUmodule handle)
{
    struct soft_module *module;
    CUresult result = find(handle, &module);
    if (result)
        return result;
    if (!out || !n)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned int i = 0; i < n && i < module->func_n; i++)
        out[i] = (CUfunction)module->func[i].handle;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!mode)
        return CUDA_ERROR_INVALID_VALUE;
    const char *wish = getenv("CUDA_MODULE_LOADING");
    *mode = wish && strcmp(wish, "EAGER") == 0 ? CU_MODULE_EAGER_LOADING : CU_MODULE_LAZY_LOADING;
    return CUDA_SUCCESS;
}
