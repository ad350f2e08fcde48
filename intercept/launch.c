/* Launches: errors that the client can see, parameters packed by the kernel's layout, one record.
 * Hot: no system call, no allocation, no lock but the ring's. */
#define TFR_LOG_PART "intercept"
#include <string.h>

#include "intercept/module.h"
#include "intercept/stream.h"

/* The shape of a launch; dim[0..2] grid, dim[3..5] block. */
struct shape {
    unsigned int dim[6];
    unsigned int shared;
};

static int limit_of(CUdevice_attribute attribute)
{
    return tfr_client.snapshot->device[tfr_thread.ctx->device].attribute[attribute];
}

/* A grid or block that the device does not have: INVALID_VALUE to programs that launch functions, 9
 * (cudaErrorInvalidConfiguration, which the driver's list of codes leaves out) to those that launch
 * kernels, which is what cudart does and hands on. */
static CUresult bad_shape(const struct tfr_function *f)
{
    return tfr_id_kind(f->id) == TFR_KIND_KERNEL ? (CUresult)9 : CUDA_ERROR_INVALID_VALUE;
}

/* Outside the limits that nearly every launch is far inside of: the device's own decide. */
static CUresult shape_check_slow(const struct tfr_function *f, const struct shape *s)
{
    static const CUdevice_attribute limit[6] = {
        CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X,  CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y,
        CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z,  CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X,
        CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z};
    if (f->refused != CUDA_SUCCESS)
        return f->refused;
    for (int i = 0; i < 6; i++)
        if (s->dim[i] == 0 || s->dim[i] > (unsigned int)limit_of(limit[i]))
            return bad_shape(f);
    uint64_t threads = (uint64_t)s->dim[3] * s->dim[4] * s->dim[5];
    if (threads > (unsigned int)limit_of(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK))
        return bad_shape(f);
    if (threads > (unsigned int)f->max_threads)
        return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    return s->shared > (unsigned int)f->max_shared ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static inline CUresult shape_check(const struct tfr_function *f, const struct shape *s)
{
    const unsigned int *d = s->dim;
    uint64_t threads = (uint64_t)d[3] * d[4] * d[5];
    bool easy = d[0] - 1 < 0x7fffffff && d[1] - 1 < 65535 && d[2] - 1 < 65535 && d[3] <= 1024 &&
                d[4] <= 1024 && d[5] <= 64 && threads - 1 < (uint64_t)f->max_threads &&
                s->shared <= (unsigned int)f->max_shared;
    return __builtin_expect(easy, 1) ? CUDA_SUCCESS : shape_check_slow(f, s);
}

/* Parameters as one block: by the layout from the pointers, or as the caller packed them. */
static void params_pack(uint8_t *to, const struct tfr_function *f, void **params)
{
    for (uint32_t i = 0; i < f->param_n; i++) {
        const struct tfr_function_param *p = &f->param[i];
        switch (p->size) {
        case 8:
            memcpy(to + p->at, params[i], 8);
            break;
        case 4:
            memcpy(to + p->at, params[i], 4);
            break;
        default:
            memcpy(to + p->at, params[i], p->size);
        }
    }
}

/* The packed block of `extra`, or an error. */
static CUresult extra_read(void **extra, const void **block_out, size_t *len_out)
{
    *block_out = NULL;
    *len_out = 0;
    for (int i = 0; extra[i] != CU_LAUNCH_PARAM_END; i += 2) {
        if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER)
            *block_out = extra[i + 1];
        else if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE)
            *len_out = *(size_t *)extra[i + 1];
        else
            return CUDA_ERROR_INVALID_VALUE;
    }
    return *len_out && !*block_out ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

struct launch {
    const struct tfr_function *f;
    struct tfr_stream *stream;
    struct shape shape;
    void **params;
    const void *block; /* instead of params */
    uint32_t block_len;
    uint32_t flags;
    const CUlaunchAttribute *attrs;
    uint32_t attr_n;
};

static inline uint32_t body_len(const struct launch *l)
{
    return ((l->f->param_len + 7) & ~7u) + l->attr_n * (uint32_t)sizeof(struct tfr_launch_attr);
}

static inline void body_fill(struct tfr_launch *to, const struct launch *l)
{
    to->fn = l->f->id;
    to->stream = l->stream->id;
    memcpy(to->grid, l->shape.dim, sizeof to->grid);
    memcpy(to->block, l->shape.dim + 3, sizeof to->block);
    to->shared = l->shape.shared;
    to->param_len = l->f->param_len;
    to->attr_n = l->attr_n;
    to->flags = l->flags;
    uint8_t *at = (uint8_t *)(to + 1);
    if (l->params)
        params_pack(at, l->f, l->params);
    else if (l->block_len)
        memcpy(at, l->block, l->block_len);
    if (l->block_len && l->block_len < l->f->param_len)
        memset(at + l->block_len, 0, l->f->param_len - l->block_len); /* not what the ring held */
    struct tfr_launch_attr *attr = (struct tfr_launch_attr *)(at + ((l->f->param_len + 7) & ~7u));
    for (uint32_t i = 0; i < l->attr_n; i++) {
        attr[i].id = (uint32_t)l->attrs[i].id;
        attr[i].reserved = 0;
        memcpy(attr[i].value, &l->attrs[i].value, sizeof attr[i].value);
    }
}

/* Stream and function are of the current context: a driver refuses to launch in another's. */
static inline bool launch_fits(const struct launch *l)
{
    const struct tfr_context *ctx = tfr_thread.ctx;
    return l->f && l->stream && l->stream->ctx == ctx && (!l->f->ctx || l->f->ctx == ctx);
}

static CUresult post(const struct launch *l)
{
    struct tfr_launch_req *req = tfr_post_begin(TFR_OP_launch, (uint32_t)sizeof *req + body_len(l));
    if (__builtin_expect(!req, 0))
        return tfr_post_failed();
    body_fill(&req->launch, l);
    return tfr_post_end_on(l->stream, NULL);
}

static CUresult ask(const struct launch *l)
{
    struct tfr_ask a;
    struct tfr_launch_asked_req *req =
        tfr_ask_begin(&a, TFR_OP_launch_asked, (uint32_t)sizeof *req + body_len(l));
    if (!req)
        return a.result;
    body_fill(&req->launch, l);
    uint64_t seq = req->head.seq;
    atomic_store_explicit(&l->stream->last, seq, memory_order_release);
    if (l->stream->blocking)
        atomic_store_explicit(&l->stream->ctx->blocking_last, seq, memory_order_release);
    tfr_ask_send(&a, 0);
    return tfr_ask_end(&a);
}

/* Parameters given either way, or an error. */
static CUresult params_take(struct launch *l, void **params, void **extra)
{
    if (params || (!extra && !l->f->param_n)) {
        l->params = params;
        return params && extra ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    }
    if (!extra)
        return CUDA_ERROR_INVALID_VALUE;
    size_t len;
    CUresult result = extra_read(extra, &l->block, &len);
    if (result != CUDA_SUCCESS)
        return result;
    const struct tfr_function_param *last = l->f->param_n ? &l->f->param[l->f->param_n - 1] : NULL;
    if (last && len < (size_t)last->at + last->size)
        return CUDA_ERROR_INVALID_VALUE;
    /* A block may end before the padding that the layout counts; beyond the layout it means
     * nothing. */
    l->block_len = len < l->f->param_len ? (uint32_t)len : l->f->param_len;
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction fn, unsigned int grid_x, unsigned int grid_y,
                        unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                        unsigned int block_z, unsigned int shared, CUstream stream, void **params,
                        void **extra)
{
    CUresult result = tfr_enter();
    if (__builtin_expect(result != CUDA_SUCCESS, 0))
        return result;
    struct launch l = {.f = tfr_function_of(fn),
                       .stream = tfr_stream_of(stream),
                       .shape = {{grid_x, grid_y, grid_z, block_x, block_y, block_z}, shared}};
    if (__builtin_expect(!launch_fits(&l), 0))
        return CUDA_ERROR_INVALID_HANDLE;
    result = shape_check(l.f, &l.shape);
    if (result == CUDA_SUCCESS)
        result = params_take(&l, params, extra);
    return __builtin_expect(result != CUDA_SUCCESS, 0) ? result : post(&l);
}

CUresult cuLaunchCooperativeKernel(CUfunction fn, unsigned int grid_x, unsigned int grid_y,
                                   unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                                   unsigned int block_z, unsigned int shared, CUstream stream,
                                   void **params)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct launch l = {.f = tfr_function_of(fn),
                       .stream = tfr_stream_of(stream),
                       .shape = {{grid_x, grid_y, grid_z, block_x, block_y, block_z}, shared},
                       .flags = TFR_LAUNCH_COOPERATIVE};
    if (!launch_fits(&l))
        return CUDA_ERROR_INVALID_HANDLE;
    result = shape_check(l.f, &l.shape);
    if (result == CUDA_SUCCESS)
        result = params_take(&l, params, NULL);
    return result != CUDA_SUCCESS ? result : ask(&l);
}

/* Attributes whose value is one of our handles would need translating; the rest go by value.  Those
 * that a driver can refuse are asked about. */
static CUresult attrs_check(const CUlaunchConfig *config, bool *ask_out)
{
    *ask_out = false;
    if (config->numAttrs > TFR_LAUNCH_ATTRS_MAX || (config->numAttrs && !config->attrs))
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned int i = 0; i < config->numAttrs; i++) {
        switch (config->attrs[i].id) {
        case CU_LAUNCH_ATTRIBUTE_IGNORE:
        case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
        case CU_LAUNCH_ATTRIBUTE_PRIORITY:
        case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
        case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
            break;
        case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
        case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
        case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
        case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
            return CUDA_ERROR_NOT_SUPPORTED;
        default:
            *ask_out = true;
        }
    }
    return CUDA_SUCCESS;
}

static CUresult launch_config(const CUlaunchConfig *c, CUstream stream, CUfunction fn,
                              void **params, void **extra)
{
    bool must_ask;
    struct launch l = {
        .f = tfr_function_of(fn),
        .stream = tfr_stream_of(stream),
        .shape = {{c->gridDimX, c->gridDimY, c->gridDimZ, c->blockDimX, c->blockDimY, c->blockDimZ},
                  c->sharedMemBytes},
        .attrs = c->attrs,
        .attr_n = c->numAttrs};
    if (!launch_fits(&l))
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult result = attrs_check(c, &must_ask);
    if (result == CUDA_SUCCESS)
        result = shape_check(l.f, &l.shape);
    if (result == CUDA_SUCCESS)
        result = params_take(&l, params, extra);
    if (result != CUDA_SUCCESS)
        return result;
    return must_ask ? ask(&l) : post(&l);
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction fn, void **params, void **extra)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    return config ? launch_config(config, config->hStream, fn, params, extra)
                  : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuLaunchKernelEx_ptsz(const CUlaunchConfig *config, CUfunction fn, void **params,
                               void **extra)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!config)
        return CUDA_ERROR_INVALID_VALUE;
    return launch_config(config, config->hStream ? config->hStream : CU_STREAM_PER_THREAD, fn,
                         params, extra);
}
