/* What functions say of themselves, what may be set, and how many of their blocks a multiprocessor
 * would hold. */
#include "executor/softgpu/soft.h"

#include <string.h>

CUresult soft_func_ready(struct soft_func *func)
{
    struct vm_text why = {""};
    if (atomic_load_explicit(&func->ready, memory_order_acquire))
        return CUDA_SUCCESS;
    CUresult result = vm_kernel_prepare(func->kernel, &why);
    if (result)
        soft_image_refuse(&(struct soft_jit){0}, why.s);
    else
        atomic_store_explicit(&func->ready, true, memory_order_release);
    return result;
}

CUresult soft_func_find(CUfunction handle, struct soft_ctx *ctx, struct soft_func **func_out)
{
    struct soft_func *func = soft_handle_get((uint64_t)handle, SOFT_FUNC);
    if (!func)
        return soft_kernel_func((CUkernel)handle, ctx, func_out);
    *func_out = func;
    return CUDA_SUCCESS;
}

/* In the current context. */
static CUresult here(CUfunction handle, struct soft_func **func_out)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    return result ? result : soft_func_find(handle, ctx, func_out);
}

CUresult soft_func_attribute(struct soft_func *func, CUfunction_attribute attribute, int *value_out)
{
    const struct vm_kernel_info *info = func->info;
    CUresult result = soft_func_ready(func); /* registers and local memory are known only then */
    if (result)
        return result;
    switch ((int)attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        *value_out = (int)info->max_threads;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
        *value_out = (int)info->shared_len;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
        *value_out = (int)info->const_len;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
        *value_out = (int)info->local_len;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
        *value_out = (int)info->regs;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
        *value_out = info->target;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
        *value_out = soft_arch;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *value_out = atomic_load_explicit(&func->max_dynamic, memory_order_relaxed);
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        *value_out = atomic_load_explicit(&func->carveout, memory_order_relaxed);
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
    case CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
    case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        *value_out = 0;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult soft_func_set_attribute(struct soft_func *func, CUfunction_attribute attribute, int value)
{
    switch ((int)attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        if (value < 0 || (uint64_t)value + func->info->shared_len > SOFT_SHARED_OPTIN)
            return CUDA_ERROR_INVALID_VALUE;
        atomic_store_explicit(&func->max_dynamic, value, memory_order_relaxed);
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        if (value < -1 || value > 100)
            return CUDA_ERROR_INVALID_VALUE;
        atomic_store_explicit(&func->carveout, value, memory_order_relaxed);
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
        return value <= 1 ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
    case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult soft_func_param(const struct vm_kernel_info *info, size_t at, size_t *offset_out,
                         size_t *len_out)
{
    if (at >= info->param_n || !offset_out)
        return CUDA_ERROR_INVALID_VALUE;
    *offset_out = info->params[at].at;
    if (len_out)
        *len_out = info->params[at].size;
    return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction handle)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    if (result)
        return result;
    return value ? soft_func_attribute(func, attribute, value) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    return result ? result : soft_func_set_attribute(func, attribute, value);
}

CUresult cuFuncGetParamInfo(CUfunction handle, size_t at, size_t *offset, size_t *len)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    return result ? result : soft_func_param(func->info, at, offset, len);
}

CUresult cuFuncGetName(const char **name, CUfunction handle)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    if (result)
        return result;
    if (!name)
        return CUDA_ERROR_INVALID_VALUE;
    *name = func->info->name;
    return CUDA_SUCCESS;
}

CUresult cuFuncGetModule(CUmodule *module, CUfunction handle)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    if (result)
        return result;
    if (!module)
        return CUDA_ERROR_INVALID_VALUE;
    *module = (CUmodule)func->module->handle;
    return CUDA_SUCCESS;
}

CUresult cuFuncSetCacheConfig(CUfunction handle, CUfunc_cache config)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    if (result)
        return result;
    return (unsigned int)config > CU_FUNC_CACHE_PREFER_EQUAL ? CUDA_ERROR_INVALID_VALUE
                                                             : CUDA_SUCCESS;
}

CUresult cuFuncSetSharedMemConfig(CUfunction handle, CUsharedconfig config)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    if (result)
        return result;
    return (unsigned int)config > CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE
               ? CUDA_ERROR_INVALID_VALUE
               : CUDA_SUCCESS;
}

CUresult cuFuncLoad(CUfunction handle)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    return result ? result : soft_func_ready(func);
}

CUresult cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction handle)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    if (result)
        return result;
    if (!state)
        return CUDA_ERROR_INVALID_VALUE;
    bool ready = atomic_load_explicit(&func->ready, memory_order_acquire);
    *state = ready ? CU_FUNCTION_LOADING_STATE_LOADED : CU_FUNCTION_LOADING_STATE_UNLOADED;
    return CUDA_SUCCESS;
}

/* ---- occupancy ---- */

int soft_occupancy(struct soft_func *func, uint32_t threads, uint64_t dynamic)
{
    uint32_t warps = (threads + 31) / 32;
    uint32_t regs = (func->info->regs * 32 + 255) & ~255u;
    uint64_t shared = func->info->shared_len + dynamic;
    uint32_t n = SOFT_SM_BLOCKS;
    if (soft_func_ready(func) || threads == 0 || threads > func->info->max_threads ||
        shared > SOFT_SHARED_OPTIN)
        return 0;
    if (n > SOFT_SM_THREADS / 32 / warps)
        n = SOFT_SM_THREADS / 32 / warps;
    if (regs && n > SOFT_REGISTERS / regs / warps)
        n = SOFT_REGISTERS / regs / warps;
    uint64_t by_shared =
        (SOFT_SHARED_OPTIN + SOFT_SHARED_RESERVED) / (shared + SOFT_SHARED_RESERVED);
    return by_shared < n ? (int)by_shared : (int)n;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, CUfunction handle,
                                                              int threads, size_t dynamic,
                                                              unsigned int flags)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    if (result)
        return result;
    if (!n || threads <= 0 || flags & ~(unsigned int)CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE)
        return CUDA_ERROR_INVALID_VALUE;
    result = soft_func_ready(func);
    if (result == CUDA_SUCCESS)
        *n = soft_occupancy(func, (uint32_t)threads, dynamic);
    return result;
}

CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, CUfunction func, int threads,
                                                     size_t dynamic)
{
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(n, func, threads, dynamic, 0);
}

CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *block, CUfunction handle,
                                                   CUoccupancyB2DSize shared, size_t dynamic,
                                                   int limit, unsigned int flags)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    if (result)
        return result;
    if (!grid || !block || flags & ~(unsigned int)CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE)
        return CUDA_ERROR_INVALID_VALUE;
    result = soft_func_ready(func);
    if (result)
        return result;
    int best = 0, most = (int)func->info->max_threads;
    *grid = *block = 0;
    if (limit > 0 && limit < most)
        most = limit;
    for (int threads = most; threads > 0; threads = (threads - 1) / 32 * 32) {
        int n = soft_occupancy(func, (uint32_t)threads, shared ? shared(threads) : dynamic);
        if (n * threads > best) {
            best = n * threads;
            *block = threads;
            *grid = n * SOFT_SM_N;
        }
    }
    return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxPotentialBlockSize(int *grid, int *block, CUfunction func,
                                          CUoccupancyB2DSize shared, size_t dynamic, int limit)
{
    return cuOccupancyMaxPotentialBlockSizeWithFlags(grid, block, func, shared, dynamic, limit, 0);
}

CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t *dynamic, CUfunction handle, int blocks,
                                                 int threads)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    if (result)
        return result;
    if (!dynamic || blocks <= 0 || threads <= 0 ||
        blocks > soft_occupancy(func, (uint32_t)threads, 0))
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t each =
        (SOFT_SHARED_OPTIN + SOFT_SHARED_RESERVED) / (uint64_t)blocks - SOFT_SHARED_RESERVED;
    uint64_t room = each - func->info->shared_len;
    uint64_t most = (uint64_t)atomic_load_explicit(&func->max_dynamic, memory_order_relaxed);
    *dynamic = room < most ? room : most;
    return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxPotentialClusterSize(int *size, CUfunction handle,
                                            const CUlaunchConfig *config)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    if (result)
        return result;
    if (!size || !config)
        return CUDA_ERROR_INVALID_VALUE;
    *size = 1;
    return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxActiveClusters(int *n, CUfunction handle, const CUlaunchConfig *config)
{
    struct soft_func *func;
    CUresult result = here(handle, &func);
    if (result)
        return result;
    if (!n || !config)
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t threads = (uint64_t)config->blockDimX * config->blockDimY * config->blockDimZ;
    *n = threads > 1024
             ? 0
             : SOFT_SM_N * soft_occupancy(func, (uint32_t)threads, config->sharedMemBytes);
    return CUDA_SUCCESS;
}
