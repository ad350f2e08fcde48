/* Occupancy that no single question answers: the best block size is a search in which the program
 * itself may say how much shared memory a size needs, so it runs here and asks about each size;
 * clusters are asked about with a launch's attributes. */
#include <string.h>

#include "intercept/module.h"

static int limit_of(CUdevice_attribute attribute)
{
    return tfr_client.snapshot->device[tfr_thread.ctx->device].attribute[attribute];
}

/* ---- block size ---- */

struct search {
    CUfunction fn;
    CUoccupancyB2DSize shared_of;
    size_t shared;
    unsigned int flags;
    int best; /* threads of a multiprocessor */
    int block, per_sm;
};

static CUresult block_try(struct search *s, int block)
{
    int n = 0;
    size_t shared = s->shared_of ? s->shared_of(block) : s->shared;
    CUresult result =
        cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&n, s->fn, block, shared, s->flags);
    if (result == CUDA_SUCCESS && n * block > s->best) {
        s->best = n * block;
        s->block = block;
        s->per_sm = n;
    }
    return result;
}

/* From the largest size down by warps; the first that leaves no thread idle is the best. */
static CUresult block_search(struct search *s, int most)
{
    int warp = limit_of(CU_DEVICE_ATTRIBUTE_WARP_SIZE);
    int full = limit_of(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR);
    CUresult result = CUDA_SUCCESS;
    if (warp <= 0)
        return CUDA_ERROR_INVALID_DEVICE;
    for (int block = most; block > 0 && result == CUDA_SUCCESS && s->best != full;
         block = (block - 1) / warp * warp)
        result = block_try(s, block);
    return result;
}

CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *grid, int *block, CUfunction fn,
                                                   CUoccupancyB2DSize shared_of, size_t shared,
                                                   int limit, unsigned int flags)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    const struct tfr_function *f = tfr_function_of(fn);
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!grid || !block || (flags & ~(unsigned int)CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE))
        return CUDA_ERROR_INVALID_VALUE;
    if (f->refused != CUDA_SUCCESS)
        return f->refused;
    struct search s = {.fn = fn, .shared_of = shared_of, .shared = shared, .flags = flags};
    int most = limit_of(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    if (f->max_threads < most)
        most = f->max_threads;
    if (limit > 0 && limit < most)
        most = limit;
    result = block_search(&s, most);
    if (result != CUDA_SUCCESS)
        return result;
    *grid = s.per_sm * limit_of(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    *block = s.block;
    return CUDA_SUCCESS;
}

CUresult cuOccupancyMaxPotentialBlockSize(int *grid, int *block, CUfunction fn,
                                          CUoccupancyB2DSize shared_of, size_t shared, int limit)
{
    return cuOccupancyMaxPotentialBlockSizeWithFlags(grid, block, fn, shared_of, shared, limit, 0);
}

/* ---- clusters ---- */

/* Its value is a handle of ours, which the driver over there does not know. */
static bool is_event(CUlaunchAttributeID id)
{
    return id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT ||
           id == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT;
}

static CUresult clusters_ask(const struct tfr_function *f, const CUlaunchConfig *c, bool most,
                             int *n_out)
{
    uint32_t len = c->numAttrs * (uint32_t)sizeof(struct tfr_launch_attr);
    struct tfr_ask ask;
    struct tfr_clusters_req *req =
        tfr_ask_begin(&ask, TFR_OP_clusters, (uint32_t)sizeof *req + len);
    if (!req)
        return ask.result;
    req->fn = f->id;
    memcpy(req->grid, &c->gridDimX, sizeof req->grid);
    memcpy(req->block, &c->blockDimX, sizeof req->block);
    req->shared = c->sharedMemBytes;
    req->attr_n = c->numAttrs;
    req->most = most;
    req->reserved = 0;
    struct tfr_launch_attr *attr = (struct tfr_launch_attr *)(req + 1);
    for (unsigned int i = 0; i < c->numAttrs; i++) {
        attr[i].id = (uint32_t)c->attrs[i].id;
        attr[i].reserved = 0;
        memcpy(attr[i].value, &c->attrs[i].value, sizeof attr[i].value);
    }
    const struct tfr_clusters_rep *rep = tfr_ask_send(&ask, sizeof *rep);
    if (rep)
        *n_out = rep->n;
    return tfr_ask_end(&ask);
}

static CUresult clusters(int *n_out, CUfunction fn, const CUlaunchConfig *config, bool most)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    const struct tfr_function *f = tfr_function_of(fn);
    if (!f)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!n_out || !config || config->numAttrs > TFR_LAUNCH_ATTRS_MAX ||
        (config->numAttrs && !config->attrs))
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned int i = 0; i < config->numAttrs; i++)
        if (is_event(config->attrs[i].id))
            return CUDA_ERROR_NOT_SUPPORTED;
    return clusters_ask(f, config, most, n_out);
}

CUresult cuOccupancyMaxPotentialClusterSize(int *size, CUfunction fn, const CUlaunchConfig *config)
{
    return clusters(size, fn, config, true);
}

CUresult cuOccupancyMaxActiveClusters(int *n, CUfunction fn, const CUlaunchConfig *config)
{
    return clusters(n, fn, config, false);
}
