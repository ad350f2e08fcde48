/* cuLink*: the executor's driver links.  Inputs go up like images of modules; the result comes
 * back, so that a program may load it, or keep it in a file for its next run. */
#define TFR_LOG_PART "intercept"
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "intercept/jit.h"
#include "intercept/module.h"

struct linker {
    uint64_t id;
    pthread_mutex_t lock; /* one call at a time on a state */
    struct tfr_jit jit;   /* the program's log buffers live as long as the state */
    uint8_t *result;
};

static CUresult find(CUlinkState state, struct linker **linker_out)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    *linker_out = tfr_handle_object(TFR_KIND_LINK, state);
    return *linker_out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static struct tfr_link_req *ask_begin(struct tfr_ask *ask, const struct linker *linker,
                                      enum tfr_link_verb verb, uint32_t name_len)
{
    struct tfr_link_req *req =
        tfr_ask_begin(ask, TFR_OP_link, (uint32_t)sizeof(struct tfr_link_req) + name_len);
    if (!req)
        return NULL;
    memset(&req->id, 0, sizeof *req - offsetof(struct tfr_link_req, id));
    req->id = linker->id;
    req->verb = verb;
    req->name_len = name_len;
    return req;
}

/* Sends, and brings the logs home; *len_out: of the linked image. */
static CUresult ask_end(struct tfr_ask *ask, const struct linker *linker, uint64_t *len_out)
{
    struct tfr_link_rep rep = {.len = 0};
    tfr_ask_send(ask, 0);
    tfr_jit_logs(ask, &linker->jit, &rep, sizeof rep);
    *len_out = rep.len;
    return tfr_ask_end(ask);
}

static CUresult create(struct linker *linker)
{
    struct tfr_ask ask;
    uint64_t len;
    struct tfr_link_req *req = ask_begin(&ask, linker, TFR_LINK_CREATE, 0);
    if (!req)
        return ask.result;
    const struct tfr_jit *jit = &linker->jit;
    req->option_n = jit->n;
    req->info_len = tfr_jit_room(jit->info, jit->info_len);
    req->error_len = tfr_jit_room(jit->error, jit->error_len);
    memcpy(req->option, jit->option, sizeof req->option);
    memcpy(req->value, jit->value, sizeof req->value);
    return ask_end(&ask, linker, &len);
}

CUresult cuLinkCreate_v2(unsigned int option_n, CUjit_option *options, void **values,
                         CUlinkState *state)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!state)
        return CUDA_ERROR_INVALID_VALUE;
    struct linker *linker = calloc(1, sizeof *linker);
    if (!linker)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_init(&linker->lock, NULL);
    result = tfr_jit_read(option_n, options, values, &linker->jit);
    if (result == CUDA_SUCCESS)
        result = tfr_handle_new(TFR_KIND_LINK, &linker->id);
    if (result != CUDA_SUCCESS) {
        free(linker);
        return result;
    }
    result = create(linker);
    if (result != CUDA_SUCCESS) {
        tfr_handle_drop(TFR_KIND_LINK, linker->id);
        free(linker);
        return result;
    }
    tfr_handle_bind(linker->id, linker);
    *state = tfr_handle_ptr(linker->id);
    return CUDA_SUCCESS;
}

/* Text travels with its NUL; other inputs as they are. */
static CUresult add(struct linker *linker, CUjitInputType type, const void *data, size_t len,
                    const char *name)
{
    uint64_t image, unused;
    uint32_t name_len = (uint32_t)strnlen(name, 4095) + 1;
    CUresult result = tfr_image_upload(data, len, &image);
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_ask ask;
    struct tfr_link_req *req = ask_begin(&ask, linker, TFR_LINK_ADD, name_len);
    if (!req) {
        tfr_image_release(image);
        return ask.result;
    }
    req->image = image;
    req->type = (uint32_t)type;
    memcpy(req + 1, name, name_len - 1);
    ((char *)(req + 1))[name_len - 1] = 0;
    result = ask_end(&ask, linker, &unused);
    tfr_image_release(image);
    return result;
}

CUresult cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void *data, size_t len,
                          const char *name, unsigned int option_n, CUjit_option *options,
                          void **values)
{
    struct linker *linker;
    CUresult result = find(state, &linker);
    if (result != CUDA_SUCCESS)
        return result;
    if (!data || !len || (option_n && (!options || !values)))
        return CUDA_ERROR_INVALID_VALUE;
    if (option_n)
        tfr_debug("jit options of a single input are not forwarded");
    pthread_mutex_lock(&linker->lock);
    result = add(linker, type, data, len, name ? name : "");
    pthread_mutex_unlock(&linker->lock);
    return result;
}

CUresult cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char *path,
                          unsigned int option_n, CUjit_option *options, void **values)
{
    struct linker *linker;
    char *bytes;
    size_t len;
    CUresult result = find(state, &linker);
    if (result != CUDA_SUCCESS)
        return result;
    if (!path)
        return CUDA_ERROR_INVALID_VALUE;
    result = tfr_image_file(path, &bytes, &len);
    if (result == CUDA_SUCCESS) /* the zero behind text belongs to it */
        result = cuLinkAddData_v2(state, type, bytes, len + (type == CU_JIT_INPUT_PTX), path,
                                  option_n, options, values);
    free(bytes);
    return result;
}

static CUresult fetch(const struct linker *linker, uint8_t *to, uint64_t len)
{
    CUresult result = CUDA_SUCCESS;
    for (uint64_t at = 0; result == CUDA_SUCCESS && at < len; at += TFR_LINK_PIECE) {
        uint64_t n = len - at < TFR_LINK_PIECE ? len - at : TFR_LINK_PIECE;
        struct tfr_ask ask;
        struct tfr_link_req *req = ask_begin(&ask, linker, TFR_LINK_READ, 0);
        if (!req)
            return ask.result;
        req->at = at;
        const void *piece = tfr_ask_send(&ask, n);
        if (piece)
            memcpy(to + at, piece, n);
        result = tfr_ask_end(&ask);
    }
    return result;
}

static CUresult complete(struct linker *linker, uint64_t *len_out)
{
    struct tfr_ask ask;
    if (!ask_begin(&ask, linker, TFR_LINK_COMPLETE, 0))
        return ask.result;
    CUresult result = ask_end(&ask, linker, len_out);
    if (result != CUDA_SUCCESS)
        return result;
    uint8_t *bytes = *len_out < SIZE_MAX / 2 ? malloc(*len_out + 1) : NULL;
    if (!bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    bytes[*len_out] = 0;
    result = fetch(linker, bytes, *len_out);
    if (result != CUDA_SUCCESS) {
        free(bytes);
        return result;
    }
    free(linker->result);
    linker->result = bytes;
    return CUDA_SUCCESS;
}

CUresult cuLinkComplete(CUlinkState state, void **image, size_t *len)
{
    struct linker *linker;
    uint64_t n = 0;
    CUresult result = find(state, &linker);
    if (result != CUDA_SUCCESS)
        return result;
    if (!image)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&linker->lock);
    result = complete(linker, &n);
    if (result == CUDA_SUCCESS) {
        *image = linker->result;
        if (len)
            *len = n;
    }
    pthread_mutex_unlock(&linker->lock);
    return result;
}

static void linker_free(void *arg)
{
    struct linker *linker = arg;
    free(linker->result);
    free(linker);
}

CUresult cuLinkDestroy(CUlinkState state)
{
    struct linker *linker;
    struct tfr_ask ask;
    CUresult result = find(state, &linker);
    if (result != CUDA_SUCCESS)
        return result;
    if (ask_begin(&ask, linker, TFR_LINK_DESTROY, 0)) {
        tfr_ask_send(&ask, 0);
        result = tfr_ask_end(&ask);
    } else {
        result = ask.result;
    }
    tfr_handle_drop(TFR_KIND_LINK, linker->id);
    linker_free(linker);
    return result;
}

void tfr_linker_forget_all(void)
{
    tfr_handle_clear(TFR_KIND_LINK, linker_free);
}
