/* Handlers of images, modules, kernels, variables and launches. */
#define TFR_LOG_PART "executor"
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "executor/arrival.h"
#include "executor/jit.h"
#include "executor/stat.h"
#include "tfr_dispatch_decl.h"

static const uint64_t image_max = 4ull << 30;
enum {
    PIECE_MAX = 4 << 20, /* it is copied on the pump */
    ATTRS_KNOWN = 16,    /* launch attributes up to here were looked at: see tfr_attr_is_value */
};

/* ---- images ---- */

/* The image under this id, created at its first piece. */
static struct tfr_image *image_open(struct tfr_session *s, const struct tfr_image_put_req *req)
{
    struct tfr_image *image = tfr_object_aux(s, TFR_KIND_IMAGE, req->image);
    if (image || req->at != 0 || req->total == 0 || req->total > image_max)
        return image;
    image = calloc(1, sizeof *image);
    if (!image)
        return NULL;
    image->len = req->total;
    if (tfr_object_new_aux(s, TFR_KIND_IMAGE, req->image, NULL, image) != CUDA_SUCCESS) {
        free(image);
        return NULL;
    }
    return image;
}

/* Room for so many bytes and one more, for text ends with NUL.  As much as came, not as was
 * announced. */
static bool image_room(struct tfr_session *s, struct tfr_image *image, uint64_t len)
{
    if (len < image->room)
        return true;
    uint64_t room = 2 * image->room > len ? 2 * image->room : len + 1;
    room = room > image->len ? image->len + 1 : room;
    uint64_t most = tfr_env_u64("TFR_IMAGE_LIMIT");
    if (s->image_bytes + (room - image->room) > most) {
        tfr_warn("the program's images (modules, libraries) take more than %llu MiB: no more are "
                 "loaded; a larger TFR_IMAGE_LIMIT of tf-executor admits them",
                 (unsigned long long)most >> 20);
        return false;
    }
    uint8_t *grown = realloc(image->bytes, room);
    if (!grown)
        return false;
    s->image_bytes += room - image->room;
    image->bytes = grown;
    image->room = room;
    return true;
}

CUresult do_image_put(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_image_put_req *req = (const struct tfr_image_put_req *)rec;
    uint64_t lane_at;
    if (__builtin_expect(req->stamp && !tfr_arrival_here(s, rec, 0), 0))
        return TFR_RESULT_PARK;
    const struct tfr_lane *lane = tfr_lane_find(s, req->lane_at, req->len, &lane_at);
    struct tfr_image *image = image_open(s, req);
    if (!image)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (req->total != image->len || req->at != image->have ||
        !tfr_span_inside(req->at, req->len, image->len) || !lane || !lane->host ||
        req->len > PIECE_MAX)
        return tfr_session_bad(s, rec, "a piece that does not fit its image");
    if (!image_room(s, image, req->at + req->len))
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(image->bytes + req->at, lane->host + lane_at, req->len);
    image->have += req->len;
    image->bytes[image->have] = 0;
    return CUDA_SUCCESS;
}

/* A helper may be reading it: the bytes count until the grave is emptied. */
CUresult do_image_free(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    uint64_t id = ((const struct tfr_image_free_req *)rec)->image;
    struct tfr_image *image = tfr_object_aux(s, TFR_KIND_IMAGE, id);
    if (!image)
        return CUDA_ERROR_INVALID_HANDLE;
    s->image_dead += image->room;
    tfr_object_bury(s, image->bytes);
    tfr_object_drop(s, TFR_KIND_IMAGE, id);
    return CUDA_SUCCESS;
}

/* ---- modules ---- */

/* What cudart hands to a driver for relocatable code: the linked fatbin and those it was made of.
 */
struct wrapper {
    uint32_t magic, version;
    const void *data;
    const void *const *extra;
    const void *part[TFR_IMAGE_PARTS_MAX + 2]; /* ended by NULL */
};

/* The image as it is, or, where several fatbins stand end to end, a wrapper of them. */
static const void *image_wrap(const struct tfr_image *image, struct wrapper *w)
{
    struct {
        uint32_t magic;
        uint16_t version, header_len;
        uint64_t body_len;
    } head;
    uint32_t n = 0;
    uint64_t at = 0;
    while (n <= TFR_IMAGE_PARTS_MAX && tfr_span_inside(at, sizeof head, image->len)) {
        memcpy(&head, image->bytes + at, sizeof head);
        if (head.magic != 0xba55ed50u || !tfr_span_inside(at, head.header_len, image->len) ||
            !tfr_span_inside(at + head.header_len, head.body_len, image->len))
            break;
        w->part[n++] = image->bytes + at;
        at += head.header_len + head.body_len;
    }
    if (n < 2 || at != image->len)
        return image->bytes;
    w->part[n] = NULL;
    w->magic = 0x466243b1u;
    w->version = 2;
    w->data = w->part[0];
    w->extra = &w->part[1];
    return w;
}

static CUresult module_load(struct tfr_session *s, const struct tfr_module_load_req *req,
                            const struct tfr_image *image, struct tfr_jit *jit)
{
    void *real = NULL;
    struct wrapper wrapper;
    const void *bytes = image_wrap(image, &wrapper);
    enum tfr_kind kind = tfr_id_kind(req->id);
    CUresult result =
        kind == TFR_KIND_MODULE
            ? s->cu->cuModuleLoadDataEx((CUmodule *)&real, bytes, jit->n, jit->option, jit->value)
            : s->cu->cuLibraryLoadData((CUlibrary *)&real, bytes, jit->option, jit->value, jit->n,
                                       NULL, NULL, 0);
    return result != CUDA_SUCCESS ? result : tfr_object_new(s, kind, req->id, real);
}

CUresult do_module_load(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    const struct tfr_module_load_req *req = (const struct tfr_module_load_req *)rec;
    const struct tfr_image *image = tfr_object_aux(s, TFR_KIND_IMAGE, req->image);
    enum tfr_kind kind = tfr_id_kind(req->id);
    if (!image || image->have != image->len ||
        (kind != TFR_KIND_MODULE && kind != TFR_KIND_LIBRARY))
        return tfr_session_bad(s, rec, "no such image or no module id");
    struct tfr_jit *jit = calloc(1, sizeof *jit);
    if (!jit)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    if (tfr_jit_fill(jit, req->option_n, req->option, req->value, req->info_len, req->error_len)) {
        result = module_load(s, req, image, jit);
        if (result == CUDA_SUCCESS && tfr_text_image_prints(image->bytes, image->len))
            tfr_text_expect(s);
        struct tfr_module_load_rep rep;
        tfr_jit_answer(jit, reply, &rep, sizeof rep);
    }
    free(jit);
    return result;
}

static bool of_parent(void *aux, void *arg)
{
    return ((const struct tfr_function *)aux)->parent == *(const uint64_t *)arg;
}

CUresult do_module_unload(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    uint64_t id = ((const struct tfr_module_unload_req *)rec)->id;
    enum tfr_kind kind = tfr_id_kind(id);
    bool module = kind == TFR_KIND_MODULE;
    void *real;
    if (!module && kind != TFR_KIND_LIBRARY)
        return CUDA_ERROR_INVALID_HANDLE;
    CUresult result = tfr_object_get(s, kind, id, &real);
    if (result != CUDA_SUCCESS)
        return result;
    tfr_object_sweep(s, module ? TFR_KIND_FUNCTION : TFR_KIND_KERNEL, of_parent, &id);
    tfr_object_drop(s, kind, id);
    return module ? s->cu->cuModuleUnload(real) : s->cu->cuLibraryUnload(real);
}

/* ---- kernels ---- */

/* A name that ends inside its record. */
static const char *name_of(const struct tfr_rec *rec, size_t head, uint32_t len)
{
    const char *name = (const char *)rec + head;
    if (len == 0 || !tfr_span_inside(head, len, rec->size) || name[len - 1] != 0)
        return NULL;
    return name;
}

static CUresult param_get(struct tfr_session *s, enum tfr_kind kind, void *real, size_t i,
                          size_t *at, size_t *size)
{
    if (kind == TFR_KIND_FUNCTION)
        return s->cu->cuFuncGetParamInfo ? s->cu->cuFuncGetParamInfo(real, i, at, size)
                                         : CUDA_ERROR_NOT_SUPPORTED;
    return s->cu->cuKernelGetParamInfo ? s->cu->cuKernelGetParamInfo(real, i, at, size)
                                       : CUDA_ERROR_NOT_SUPPORTED;
}

/* A driver that loads lazily would load it at its first launch, on the pump, and may wait for the
 * GPU. */
static void function_load(struct tfr_session *s, enum tfr_kind kind, void *real)
{
    CUfunction fn = real;
    int value;
    if (kind == TFR_KIND_KERNEL &&
        (!s->cu->cuKernelGetFunction || s->cu->cuKernelGetFunction(&fn, real) != CUDA_SUCCESS))
        return;
    if (s->cu->cuFuncLoad)
        s->cu->cuFuncLoad(fn);
    else
        s->cu->cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_NUM_REGS, fn);
}

/* Layout and attributes, as the answer and for our own checks. */
static CUresult function_describe(struct tfr_session *s, enum tfr_kind kind, void *real,
                                  CUdevice dev, struct tfr_reply *reply, uint32_t *param_len_out)
{
    struct tfr_function_info *info = tfr_reply_room(reply, sizeof *info);
    uint32_t param_n = 0, param_len = 0;
    for (int i = 0; i < TFR_FUNCTION_ATTRIBUTES && !info->refused; i++) {
        int value = 0;
        CUresult result =
            kind == TFR_KIND_FUNCTION
                ? s->cu->cuFuncGetAttribute(&value, (CUfunction_attribute)i, real)
                : s->cu->cuKernelGetAttribute(&value, (CUfunction_attribute)i, real, dev);
        /* An attribute that an older driver does not know is 0; the first one they all know. */
        if (i == 0)
            info->refused = (uint32_t)result;
        info->attribute[i] = value;
    }
    for (;;) {
        size_t at, size;
        CUresult result = param_get(s, kind, real, param_n, &at, &size);
        if (result == CUDA_ERROR_INVALID_VALUE)
            break;
        if (result != CUDA_SUCCESS)
            return result;
        struct tfr_function_param *p = tfr_reply_room(reply, sizeof *p);
        if (!p || at + size > TFR_PARAM_BYTES_MAX)
            return CUDA_ERROR_OUT_OF_MEMORY;
        p->at = (uint32_t)at;
        p->size = (uint32_t)size;
        param_n++;
        if (at + size > param_len)
            param_len = (uint32_t)(at + size);
    }
    if (!info->refused)
        function_load(s, kind, real);
    info->param_n = param_n;
    info->param_len = param_len;
    *param_len_out = param_len;
    return CUDA_SUCCESS;
}

CUresult do_function_get(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    const struct tfr_function_get_req *req = (const struct tfr_function_get_req *)rec;
    const char *name = name_of(rec, sizeof *req, req->name_len);
    enum tfr_kind kind = tfr_id_kind(req->id);
    enum tfr_kind parent_kind = kind == TFR_KIND_FUNCTION ? TFR_KIND_MODULE : TFR_KIND_LIBRARY;
    void *parent, *real = NULL;
    if (!name || (kind != TFR_KIND_FUNCTION && kind != TFR_KIND_KERNEL))
        return tfr_session_bad(s, rec, "no name or no function id");
    CUresult result = tfr_object_get(s, parent_kind, req->parent, &parent);
    if (result != CUDA_SUCCESS)
        return result;
    result = kind == TFR_KIND_FUNCTION
                 ? s->cu->cuModuleGetFunction((CUfunction *)&real, parent, name)
                 : s->cu->cuLibraryGetKernel((CUkernel *)&real, parent, name);
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_function *f = calloc(1, sizeof *f);
    if (!f)
        return CUDA_ERROR_OUT_OF_MEMORY;
    f->parent = req->parent;
    result = function_describe(s, kind, real, tfr_session_device(s, rec), reply, &f->param_len);
    if (result == CUDA_SUCCESS)
        result = tfr_object_new_aux(s, kind, req->id, real, f);
    if (result != CUDA_SUCCESS)
        free(f);
    return result;
}

CUresult do_function_set(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_function_set_req *req = (const struct tfr_function_set_req *)rec;
    CUfunction_attribute attribute = (CUfunction_attribute)req->attribute;
    void *real;
    CUresult result = tfr_object_get(s, TFR_KIND_FUNCTION, req->id, &real);
    if (result != CUDA_SUCCESS)
        return result;
    if (tfr_id_kind(req->id) == TFR_KIND_FUNCTION)
        return s->cu->cuFuncSetAttribute(real, attribute, req->value);
    return s->cu->cuKernelSetAttribute(attribute, req->value, real, tfr_session_device(s, rec));
}

CUresult do_global_get(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    const struct tfr_global_get_req *req = (const struct tfr_global_get_req *)rec;
    const char *name = name_of(rec, sizeof *req, req->name_len);
    struct tfr_global_rep *rep = tfr_reply_room(reply, sizeof *rep);
    enum tfr_kind kind = tfr_id_kind(req->parent);
    CUdeviceptr addr = 0;
    size_t len = 0;
    void *parent;
    if (!name || (kind != TFR_KIND_MODULE && kind != TFR_KIND_LIBRARY))
        return tfr_session_bad(s, rec, "no name or no module");
    CUresult result = tfr_object_get(s, kind, req->parent, &parent);
    if (result != CUDA_SUCCESS)
        return result;
    result = kind == TFR_KIND_MODULE ? s->cu->cuModuleGetGlobal_v2(&addr, &len, parent, name)
                                     : s->cu->cuLibraryGetGlobal(&addr, &len, parent, name);
    rep->addr = addr;
    rep->len = len;
    return result;
}

/* ---- launches ---- */

bool tfr_attr_is_value(uint32_t id)
{
    switch (id) {
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
    case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
    case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
        return false;
    default:
        return id <= ATTRS_KNOWN;
    }
}

/* With attributes: cooperative, clusters, serialisation. */
static CUresult launch_ex(struct tfr_session *s, const struct tfr_launch *l, CUfunction fn,
                          CUstream stream, const uint8_t *attrs, void **extra)
{
    CUlaunchAttribute attr[TFR_LAUNCH_ATTRS_MAX + 1];
    unsigned int n = 0;
    for (; n < l->attr_n; n++) {
        const struct tfr_launch_attr *from = (const struct tfr_launch_attr *)attrs + n;
        if (!tfr_attr_is_value(from->id))
            return CUDA_ERROR_NOT_SUPPORTED;
        memset(&attr[n], 0, sizeof attr[n]);
        attr[n].id = (CUlaunchAttributeID)from->id;
        memcpy(&attr[n].value, from->value, sizeof from->value);
    }
    if (l->flags & TFR_LAUNCH_COOPERATIVE) {
        memset(&attr[n], 0, sizeof attr[n]);
        attr[n].id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
        attr[n++].value.cooperative = 1;
    }
    CUlaunchConfig config = {.gridDimX = l->grid[0],
                             .gridDimY = l->grid[1],
                             .gridDimZ = l->grid[2],
                             .blockDimX = l->block[0],
                             .blockDimY = l->block[1],
                             .blockDimZ = l->block[2],
                             .sharedMemBytes = l->shared,
                             .hStream = stream,
                             .attrs = attr,
                             .numAttrs = n};
    return s->cu->cuLaunchKernelEx(&config, fn, NULL, extra);
}

static CUresult launch(struct tfr_session *s, const struct tfr_rec *rec, const struct tfr_launch *l)
{
    uint8_t *params = (uint8_t *)(uintptr_t)(l + 1);
    uint64_t room = rec->size - (uint64_t)(params - (const uint8_t *)rec);
    uint64_t attrs_at = ((uint64_t)l->param_len + 7) & ~7ull;
    struct tfr_stream *stream;
    void *real;
    CUresult result = tfr_object_get(s, TFR_KIND_FUNCTION, l->fn, &real);
    if (result == CUDA_SUCCESS)
        result = tfr_stream_get(s, l->stream, &stream);
    if (result != CUDA_SUCCESS)
        return result;
    const struct tfr_function *f = tfr_object_aux(s, TFR_KIND_FUNCTION, l->fn);
    if (!f || l->param_len != f->param_len || l->attr_n > TFR_LAUNCH_ATTRS_MAX ||
        attrs_at + l->attr_n * sizeof(struct tfr_launch_attr) > room)
        return tfr_session_bad(s, rec, "parameters do not fit the kernel");
    size_t len = l->param_len;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, params, CU_LAUNCH_PARAM_BUFFER_SIZE, &len,
                     CU_LAUNCH_PARAM_END};
    if (l->attr_n || l->flags)
        return launch_ex(s, l, real, stream->real, params + attrs_at, extra);
    return s->cu->cuLaunchKernel(real, l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1],
                                 l->block[2], l->shared, stream->real, NULL, extra);
}

CUresult do_launch(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    TFR_STAT_ADD(launches, 1);
    return launch(s, rec, &((const struct tfr_launch_req *)rec)->launch);
}

CUresult do_launch_asked(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    return launch(s, rec, &((const struct tfr_launch_asked_req *)rec)->launch);
}
