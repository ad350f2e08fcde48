/* cuLink* for a client: the driver's own linker works on uploaded images; the result is fetched in
 * pieces.  Runs on helpers, for a link may compile for seconds. */
#define TFR_LOG_PART "executor"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "executor/jit.h"
#include "tfr_dispatch_decl.h"

/* The driver keeps pointers to the option values: they live as long as the state. */
struct link {
    struct tfr_jit jit;
    CUlinkState real;
    const uint8_t *result; /* the driver's */
    size_t len;
};

static void answer(const struct link *link, struct tfr_reply *reply, uint64_t len)
{
    struct tfr_link_rep rep = {.len = len};
    tfr_jit_answer(&link->jit, reply, &rep, sizeof rep);
}

static CUresult create(struct tfr_session *s, const struct tfr_link_req *req,
                       struct tfr_reply *reply)
{
    struct link *link = calloc(1, sizeof *link);
    if (!link)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    if (tfr_jit_fill(&link->jit, req->option_n, req->option, req->value, req->info_len,
                     req->error_len))
        result =
            s->cu->cuLinkCreate_v2(link->jit.n, link->jit.option, link->jit.value, &link->real);
    answer(link, reply, 0);
    if (result == CUDA_SUCCESS) {
        result = tfr_object_new_aux(s, TFR_KIND_LINK, req->id, NULL, link);
        if (result != CUDA_SUCCESS)
            s->cu->cuLinkDestroy(link->real);
    }
    if (result != CUDA_SUCCESS)
        free(link);
    return result;
}

static CUresult add(struct tfr_session *s, const struct tfr_link_req *req, struct link *link)
{
    const struct tfr_image *image = tfr_object_aux(s, TFR_KIND_IMAGE, req->image);
    const char *name = (const char *)(req + 1);
    if (!image || image->have != image->len || req->name_len == 0 ||
        !tfr_span_inside(sizeof *req, req->name_len, req->head.size) || name[req->name_len - 1])
        return tfr_session_bad(s, &req->head, "no such image, or a name without end");
    return s->cu->cuLinkAddData_v2(link->real, (CUjitInputType)req->type, image->bytes, image->len,
                                   name, 0, NULL, NULL);
}

static CUresult complete(struct tfr_session *s, struct link *link)
{
    void *result = NULL;
    size_t len = 0;
    CUresult r = s->cu->cuLinkComplete(link->real, &result, &len);
    if (r == CUDA_SUCCESS) {
        link->result = result;
        link->len = len;
    }
    return r;
}

static CUresult read_piece(struct tfr_session *s, const struct tfr_link_req *req,
                           const struct link *link, struct tfr_reply *reply)
{
    if (req->at >= link->len)
        return tfr_session_bad(s, &req->head, "a piece behind the end");
    uint64_t n = link->len - req->at < TFR_LINK_PIECE ? link->len - req->at : TFR_LINK_PIECE;
    void *to = tfr_reply_room(reply, (uint32_t)n);
    if (to)
        memcpy(to, link->result + req->at, n);
    return CUDA_SUCCESS;
}

static CUresult destroy(struct tfr_session *s, uint64_t id, struct link *link)
{
    CUresult result = s->cu->cuLinkDestroy(link->real);
    tfr_object_drop(s, TFR_KIND_LINK, id); /* frees it */
    return result;
}

static CUresult step(struct tfr_session *s, const struct tfr_link_req *req, struct link *link,
                     struct tfr_reply *reply)
{
    CUresult result;
    switch (req->verb) {
    case TFR_LINK_ADD:
        result = add(s, req, link);
        answer(link, reply, 0);
        return result;
    case TFR_LINK_COMPLETE:
        result = complete(s, link);
        answer(link, reply, link->len);
        return result;
    case TFR_LINK_READ:
        return read_piece(s, req, link, reply);
    case TFR_LINK_DESTROY:
        return destroy(s, req->id, link);
    default:
        return tfr_session_bad(s, &req->head, "an unknown verb");
    }
}

/* A state has no lock of its own, and a client could use one from two helpers. */
static pthread_mutex_t states = PTHREAD_MUTEX_INITIALIZER;

CUresult do_link(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    const struct tfr_link_req *req = (const struct tfr_link_req *)rec;
    CUresult result = CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&states);
    struct link *link = tfr_object_aux(s, TFR_KIND_LINK, req->id);
    if (req->verb == TFR_LINK_CREATE)
        result = create(s, req, reply);
    else if (link)
        result = step(s, req, link, reply);
    pthread_mutex_unlock(&states);
    return result;
}
