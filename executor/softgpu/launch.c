/* Launches: every refusal that a driver makes at the call, the parameter block, and the submission.
 * A grid whose instructions are few and bounded (the interpreter knows: vm_kernel_info.bound) runs
 * on the submitting thread if its stream is idle; that spares two thread hops. */
#include "executor/softgpu/soft.h"

#include <stdlib.h>
#include <string.h>

enum { PARAM_ROOM = 4096 };

struct launch {
    CUfunction handle;
    uint32_t grid[3], block[3], shared_len;
    CUstream stream;
    void **params, **extra;
    bool cooperative;
};

/* A shape that the device does not have.  Programs see cudaErrorInvalidConfiguration (9) natively,
 * and cudart, which launches kernels and not functions, hands on what the driver answers. */
static CUresult bad_shape(const struct launch *l)
{
    return soft_handle_get((uint64_t)l->handle, SOFT_KERNEL) ? (CUresult)9
                                                             : CUDA_ERROR_INVALID_VALUE;
}

static CUresult check_dims(const struct launch *l, const struct soft_func *func)
{
    static const uint32_t grid_max[3] = {2147483647, 65535, 65535}, block_max[3] = {1024, 1024, 64};
    for (int i = 0; i < 3; i++)
        if (l->grid[i] == 0 || l->block[i] == 0 || l->grid[i] > grid_max[i] ||
            l->block[i] > block_max[i])
            return bad_shape(l);
    uint32_t threads = l->block[0] * l->block[1] * l->block[2];
    if (threads > 1024)
        return bad_shape(l);
    if (threads > func->info->max_threads)
        return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    if (l->shared_len > (uint32_t)atomic_load_explicit(&func->max_dynamic, memory_order_relaxed))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

static CUresult check_cooperative(const struct launch *l, struct soft_func *func)
{
    uint64_t blocks = (uint64_t)l->grid[0] * l->grid[1] * l->grid[2];
    uint32_t threads = l->block[0] * l->block[1] * l->block[2];
    if (blocks > (uint64_t)soft_occupancy(func, threads, l->shared_len) * SOFT_SM_N)
        return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    return CUDA_SUCCESS;
}

/* Copies the parameters into `block`, laid out as the kernel wants them. */
static CUresult pack(const struct launch *l, const struct vm_kernel_info *info, char *block)
{
    if (l->params && l->extra)
        return CUDA_ERROR_INVALID_VALUE;
    if (l->extra) {
        const void *buffer = NULL;
        size_t len = 0;
        for (void **at = l->extra; *at != CU_LAUNCH_PARAM_END; at += 2) {
            if (*at == CU_LAUNCH_PARAM_BUFFER_POINTER)
                buffer = at[1];
            else if (*at == CU_LAUNCH_PARAM_BUFFER_SIZE)
                len = *(size_t *)at[1];
            else
                return CUDA_ERROR_INVALID_VALUE;
        }
        if (info->param_n && (!buffer || len < info->param_len))
            return CUDA_ERROR_INVALID_VALUE;
        memcpy(block, buffer ? buffer : "", info->param_n ? info->param_len : 0);
        return CUDA_SUCCESS;
    }
    if (info->param_n && !l->params)
        return CUDA_ERROR_INVALID_VALUE;
    for (uint32_t i = 0; i < info->param_n; i++)
        memcpy(block + info->params[i].at, l->params[i], info->params[i].size);
    return CUDA_SUCCESS;
}

static bool small(const struct launch *l, const struct vm_kernel_info *info)
{
    uint64_t blocks = (uint64_t)l->grid[0] * l->grid[1];
    if (!info->bound || l->cooperative || blocks > soft_inline_work ||
        l->grid[2] > soft_inline_work)
        return false;
    return blocks * l->grid[2] * l->block[0] * l->block[1] * l->block[2] * info->bound <=
           soft_inline_work;
}

static CUresult submit(const struct launch *l, struct soft_func *func, struct soft_stream *stream)
{
    const struct vm_kernel_info *info = func->info;
    char room[PARAM_ROOM], *block = room;
    if (info->param_len > PARAM_ROOM)
        block = malloc(info->param_len);
    if (!block)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = pack(l, info, block);
    if (result == CUDA_SUCCESS) {
        struct soft_op op = {.kind = SOFT_OP_KERNEL,
                             .launch = {.kernel = func->kernel,
                                        .module = func->module,
                                        .grid = {l->grid[0], l->grid[1], l->grid[2]},
                                        .block = {l->block[0], l->block[1], l->block[2]},
                                        .shared_len = l->shared_len,
                                        .cooperative = l->cooperative}};
        atomic_fetch_add_explicit(&func->module->refs, 1, memory_order_relaxed);
        result = soft_submit(stream, &op, block, info->param_len, small(l, info), NULL);
        if (result)
            soft_module_unref(func->module);
    }
    if (block != room)
        free(block);
    return result;
}

static CUresult launch(const struct launch *l)
{
    struct soft_stream *stream;
    struct soft_func *func;
    CUresult result = soft_stream_find(l->stream, &stream);
    if (result)
        return result;
    result =
        soft_func_find(l->handle, soft_current(), &func); /* a CUkernel means the current one's */
    if (result)
        return result;
    if (func->module->ctx != stream->ctx)
        return CUDA_ERROR_INVALID_HANDLE;
    result = check_dims(l, func);
    if (result == CUDA_SUCCESS)
        result = soft_func_ready(func);
    if (result == CUDA_SUCCESS && l->cooperative)
        result = check_cooperative(l, func);
    return result ? result : submit(l, func, stream);
}

CUresult cuLaunchKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz,
                        unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared_len,
                        CUstream stream, void **params, void **extra)
{
    return launch(
        &(struct launch){f, {gx, gy, gz}, {bx, by, bz}, shared_len, stream, params, extra, false});
}

CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz,
                                   unsigned int bx, unsigned int by, unsigned int bz,
                                   unsigned int shared_len, CUstream stream, void **params)
{
    return launch(
        &(struct launch){f, {gx, gy, gz}, {bx, by, bz}, shared_len, stream, params, NULL, true});
}

/* Hints may be ignored; what changes the meaning of a launch is done or refused. */
static CUresult apply(const CUlaunchAttribute *attribute, struct launch *l)
{
    const CUlaunchAttributeValue *value = &attribute->value;
    switch ((int)attribute->id) {
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
        l->cooperative = value->cooperative != 0;
        return CUDA_SUCCESS;
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
        return (uint64_t)value->clusterDim.x * value->clusterDim.y * value->clusterDim.z <= 1
                   ? CUDA_SUCCESS
                   : CUDA_ERROR_NOT_SUPPORTED;
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
    case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
    case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
        return CUDA_ERROR_NOT_SUPPORTED;
    case CU_LAUNCH_ATTRIBUTE_IGNORE:
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
    case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *c, CUfunction f, void **params, void **extra)
{
    if (!c || (c->numAttrs && !c->attrs))
        return soft_ready() ? CUDA_ERROR_NOT_INITIALIZED : CUDA_ERROR_INVALID_VALUE;
    struct launch l = {f,
                       {c->gridDimX, c->gridDimY, c->gridDimZ},
                       {c->blockDimX, c->blockDimY, c->blockDimZ},
                       c->sharedMemBytes,
                       c->hStream,
                       params,
                       extra,
                       false};
    CUresult result = CUDA_SUCCESS;
    for (unsigned int i = 0; i < c->numAttrs && result == CUDA_SUCCESS; i++)
        result = apply(&c->attrs[i], &l);
    return result ? result : launch(&l);
}

/* The stream stands inside the configuration: the one twin that gen.py cannot make. */
CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *config, CUfunction f, void **params,
                               void **extra)
{
    if (!config)
        return cuLaunchKernelEx(config, f, params, extra);
    CUlaunchConfig mine = *config;
    if (!mine.hStream)
        mine.hStream = CU_STREAM_PER_THREAD;
    return cuLaunchKernelEx(&mine, f, params, extra);
}
