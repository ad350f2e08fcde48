/* Kernels and functions.  A kernel's layout and attributes come with the answer to its lookup, so
 * that launches and attribute queries ask nothing. */
#define TFR_LOG_PART "intercept"
#include <stdlib.h>
#include <string.h>

#include "intercept/module.h"

/* What the executor says of a kernel, checked: it is not trusted with our memory. */
static struct tfr_function *function_from(const struct tfr_function_info *info, uint32_t len)
{
    const struct tfr_function_info head = *info; /* read once: the executor could change it */
    uint32_t n = head.param_n;
    if (n > TFR_PARAMS_MAX || head.param_len > TFR_PARAM_BYTES_MAX ||
        len < sizeof *info + n * sizeof info->param[0])
        return NULL;
    struct tfr_function *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    f->param = calloc(n ? n : 1, sizeof *f->param);
    if (!f->param) {
        free(f);
        return NULL;
    }
    memcpy(f->param, info->param, n * sizeof *f->param);
    memcpy(f->attribute, head.attribute, sizeof f->attribute);
    f->refused = (CUresult)head.refused;
    f->param_n = n;
    f->param_len = head.param_len;
    for (uint32_t i = 0; i < n; i++)
        if (!tfr_span_inside(f->param[i].at, f->param[i].size, f->param_len)) {
            free(f->param);
            free(f);
            return NULL;
        }
    f->max_threads = f->attribute[CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK];
    f->max_shared = f->attribute[CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES];
    return f;
}

/* Looks the kernel up over there under this id; the answer in *f_out unless that is NULL. */
static CUresult lookup(uint64_t parent, uint64_t id, const char *name, struct tfr_function **f_out)
{
    uint32_t name_len = (uint32_t)strlen(name) + 1, len;
    struct tfr_ask ask;
    struct tfr_function_get_req *req =
        tfr_ask_begin(&ask, TFR_OP_function_get, (uint32_t)sizeof *req + name_len);
    if (!req)
        return ask.result;
    req->parent = parent;
    req->id = id;
    req->name_len = name_len;
    req->reserved = 0;
    memcpy(req + 1, name, name_len);
    const struct tfr_function_info *info = tfr_ask_send(&ask, sizeof *info);
    if (info && f_out)
        *f_out = tfr_ask_payload(&ask, &len) ? function_from(info, len) : NULL;
    return tfr_ask_end(&ask);
}

CUresult tfr_function_restore(const struct tfr_function *f)
{
    return lookup(f->module->id, f->id, f->name, NULL);
}

static CUresult function_ask(struct tfr_module *module, const char *name,
                             struct tfr_function **f_out)
{
    uint64_t id;
    struct tfr_function *f = NULL;
    char *name_copy = strdup(name);
    CUresult result = name_copy ? tfr_handle_new(module->child, &id) : CUDA_ERROR_OUT_OF_MEMORY;
    if (result != CUDA_SUCCESS) {
        free(name_copy);
        return result;
    }
    result = lookup(module->id, id, name, &f);
    if (result == CUDA_SUCCESS && !f)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    if (result != CUDA_SUCCESS) {
        tfr_handle_drop(module->child, id);
        free(name_copy);
        return result;
    }
    f->id = id;
    f->module = module;
    f->ctx = module->ctx;
    f->name = name_copy;
    *f_out = f;
    return CUDA_SUCCESS;
}

static CUresult function_get(enum tfr_kind kind, const void *handle, const char *name,
                             uint64_t *id_out)
{
    struct tfr_module *module = tfr_handle_object(kind, handle);
    if (!module)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!name || strlen(name) > 8000)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&module->lock);
    struct tfr_function *f = module->functions;
    while (f && (!f->name || strcmp(f->name, name) != 0))
        f = f->next;
    if (!f) {
        result = function_ask(module, name, &f);
        if (result == CUDA_SUCCESS) {
            f->next = module->functions;
            module->functions = f;
            tfr_handle_bind(f->id, f);
        }
    }
    if (result == CUDA_SUCCESS)
        *id_out = f->id;
    pthread_mutex_unlock(&module->lock);
    return result;
}

CUresult cuModuleGetFunction(CUfunction *fn, CUmodule module, const char *name)
{
    uint64_t id;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!fn)
        return CUDA_ERROR_INVALID_VALUE;
    result = function_get(TFR_KIND_MODULE, module, name, &id);
    if (result == CUDA_SUCCESS)
        *fn = tfr_handle_ptr(id);
    return result;
}

CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name)
{
    uint64_t id;
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    if (!kernel)
        return CUDA_ERROR_INVALID_VALUE;
    result = function_get(TFR_KIND_LIBRARY, library, name, &id);
    if (result == CUDA_SUCCESS)
        *kernel = tfr_handle_ptr(id);
    return result;
}

CUresult cuKernelGetFunction(CUfunction *fn, CUkernel kernel)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!fn)
        return CUDA_ERROR_INVALID_VALUE;
    if (!tfr_function_of(kernel))
        return CUDA_ERROR_INVALID_HANDLE;
    *fn = (CUfunction)kernel;
    return CUDA_SUCCESS;
}

static CUresult attribute_get(int *value, CUfunction_attribute attribute, const void *handle)
{
    if (!value || (int)attribute < 0 || attribute >= CU_FUNC_ATTRIBUTE_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    struct tfr_function *f = tfr_function_of(handle);
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    if (f->refused != CUDA_SUCCESS)
        return f->refused;
    *value = (int)attribute < TFR_FUNCTION_ATTRIBUTES ? f->attribute[attribute] : 0;
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction fn)
{
    CUresult result = tfr_enter();
    return result != CUDA_SUCCESS ? result : attribute_get(value, attribute, fn);
}

CUresult cuKernelGetAttribute(int *value, CUfunction_attribute attribute, CUkernel kernel,
                              CUdevice dev)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    if (dev < 0 || dev >= (int)tfr_client.snapshot->device_n)
        return CUDA_ERROR_INVALID_DEVICE;
    return attribute_get(value, attribute, kernel);
}

static CUresult attribute_set(const void *handle, CUfunction_attribute attribute, int value)
{
    struct tfr_function *f = tfr_function_of(handle);
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    struct tfr_ask ask;
    struct tfr_function_set_req *req = tfr_ask_begin(&ask, TFR_OP_function_set, sizeof *req);
    if (!req)
        return ask.result;
    req->id = f->id;
    req->attribute = (int32_t)attribute;
    req->value = value;
    tfr_ask_send(&ask, 0);
    CUresult result = tfr_ask_end(&ask);
    if (result == CUDA_SUCCESS && (int)attribute >= 0 && (int)attribute < TFR_FUNCTION_ATTRIBUTES) {
        f->attribute[attribute] = value;
        f->max_shared = f->attribute[CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES];
    }
    return result;
}

CUresult cuFuncSetAttribute(CUfunction fn, CUfunction_attribute attribute, int value)
{
    CUresult result = tfr_enter();
    return result != CUDA_SUCCESS ? result : attribute_set(fn, attribute, value);
}

CUresult cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel kernel,
                              CUdevice dev)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (dev < 0 || dev >= (int)tfr_client.snapshot->device_n)
        return CUDA_ERROR_INVALID_DEVICE;
    return attribute_set(kernel, attribute, value);
}

CUresult cuFuncSetSharedMemConfig(CUfunction fn, CUsharedconfig config)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!tfr_function_of(fn))
        return CUDA_ERROR_INVALID_HANDLE;
    return (unsigned int)config > CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE
               ? CUDA_ERROR_INVALID_VALUE
               : CUDA_SUCCESS;
}

CUresult cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice dev)
{
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    if (!tfr_function_of(kernel))
        return CUDA_ERROR_INVALID_HANDLE;
    if (dev < 0 || dev >= (int)tfr_client.snapshot->device_n)
        return CUDA_ERROR_INVALID_DEVICE;
    return (int)config < 0 || config > CU_FUNC_CACHE_PREFER_EQUAL ? CUDA_ERROR_INVALID_VALUE
                                                                  : CUDA_SUCCESS;
}

static CUresult param_info(const void *handle, size_t index, size_t *at, size_t *size)
{
    struct tfr_function *f = tfr_function_of(handle);
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!at || index >= f->param_n)
        return CUDA_ERROR_INVALID_VALUE;
    *at = f->param[index].at;
    if (size)
        *size = f->param[index].size;
    return CUDA_SUCCESS;
}

CUresult cuFuncGetParamInfo(CUfunction fn, size_t index, size_t *at, size_t *size)
{
    CUresult result = tfr_enter();
    return result != CUDA_SUCCESS ? result : param_info(fn, index, at, size);
}

CUresult cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t *at, size_t *size)
{
    CUresult result = tfr_enter_noctx();
    return result != CUDA_SUCCESS ? result : param_info(kernel, index, at, size);
}

static CUresult name_get(const char **name, const void *handle)
{
    struct tfr_function *f = tfr_function_of(handle);
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!name)
        return CUDA_ERROR_INVALID_VALUE;
    *name = f->name;
    return CUDA_SUCCESS;
}

CUresult cuKernelGetName(const char **name, CUkernel kernel)
{
    CUresult result = tfr_enter_noctx();
    return result != CUDA_SUCCESS ? result : name_get(name, kernel);
}

CUresult cuFuncGetName(const char **name, CUfunction fn)
{
    CUresult result = tfr_enter_noctx();
    return result != CUDA_SUCCESS ? result : name_get(name, fn);
}

CUresult cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction fn)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!tfr_function_of(fn))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!state)
        return CUDA_ERROR_INVALID_VALUE;
    *state = CU_FUNCTION_LOADING_STATE_LOADED;
    return CUDA_SUCCESS;
}
