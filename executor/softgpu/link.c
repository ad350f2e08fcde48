/* cuLink*: PTX texts and fatbins put into one image.  What cuLinkComplete hands out is PTX text of
 * several modules (ptx.h), which the load calls take like any other text; an input's own faults are
 * reported when it is added, those between inputs at the end.  Machine code, objects and libraries
 * are refused. */
#include "executor/softgpu/soft.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executor/softgpu/ptx.h"

enum { OPTIONS_MAX = 64 };

struct link {
    uint64_t handle;
    pthread_mutex_t lock; /* text, len, done */
    char *text;
    size_t len;
    bool done; /* the caller has the text */
    struct soft_jit jit;
    CUjit_option option[OPTIONS_MAX];
    void *error_len; /* of the log, before lengths are written over it */
};

static CUresult find(CUlinkState state, struct link **link_out)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    *link_out = soft_handle_get((uint64_t)state, SOFT_LINK);
    return *link_out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* The option values are the caller's for the life of the state: logs go there. */
CUresult cuLinkCreate_v2(unsigned int n, CUjit_option *options, void **values, CUlinkState *out)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!out || n > OPTIONS_MAX || (n && (!options || !values)))
        return CUDA_ERROR_INVALID_VALUE;
    struct link *link = calloc(1, sizeof(*link));
    if (!link)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (n)
        memcpy(link->option, options, n * sizeof(*options));
    link->jit = (struct soft_jit){n, link->option, values};
    for (unsigned int i = 0; i < n; i++)
        if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
            link->error_len = values[i];
    pthread_mutex_init(&link->lock, NULL);
    link->handle = soft_handle_add(SOFT_LINK, link);
    if (!link->handle) {
        free(link);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *out = (CUlinkState)link->handle;
    return CUDA_SUCCESS;
}

CUresult cuLinkDestroy(CUlinkState state)
{
    struct link *link;
    CUresult result = find(state, &link);
    if (result)
        return result;
    soft_handle_del(link->handle);
    pthread_mutex_destroy(&link->lock);
    free(link->text);
    free(link);
    return CUDA_SUCCESS;
}

/* Under link->lock.  Takes the text over. */
static CUresult append(struct link *link, char *text, size_t len)
{
    if (!link->text) {
        link->text = text;
        link->len = len;
        return CUDA_SUCCESS;
    }
    char *both = realloc(link->text, link->len + len + 2);
    if (both) {
        both[link->len] = PTX_NEXT_MODULE;
        memcpy(both + link->len + 1, text, len + 1);
        link->text = both;
        link->len += len + 1;
    }
    free(text);
    return both ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

static CUresult refuse(const struct link *link, const char *name, const char *why, CUresult result)
{
    for (unsigned int i = 0; i < link->jit.n; i++)
        if (link->option[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
            link->jit.values[i] = link->error_len;
    char text[sizeof(struct vm_text) + 256];
    snprintf(text, sizeof(text), "%.200s: %s", name && *name ? name : "<unnamed>", why);
    soft_image_refuse(&link->jit, text);
    return result;
}

static CUresult add(struct link *link, CUjitInputType type, const void *data, size_t len,
                    const char *name)
{
    struct vm_text why = {""};
    char *text;
    size_t text_len;
    if (type != CU_JIT_INPUT_PTX && type != CU_JIT_INPUT_FATBINARY && type != CU_JIT_INPUT_CUBIN)
        return refuse(link, name, "only PTX and fatbins can be linked", CUDA_ERROR_NOT_SUPPORTED);
    CUresult result = vm_image_ptx(data, len, soft_arch, &text, &text_len, &why);
    if (result)
        return refuse(link, name, why.s, result);
    result = vm_ptx_check(text, text_len, false, soft_arch, &why);
    if (result) {
        free(text);
        return refuse(link, name, why.s, result);
    }
    pthread_mutex_lock(&link->lock);
    result = link->done ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    if (result)
        free(text);
    else
        result = append(link, text, text_len);
    pthread_mutex_unlock(&link->lock);
    return result;
}

CUresult cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void *data, size_t len,
                          const char *name, unsigned int n, CUjit_option *options, void **values)
{
    struct link *link;
    CUresult result = find(state, &link);
    if (result)
        return result;
    if (!data || !len || (n && (!options || !values)))
        return CUDA_ERROR_INVALID_VALUE;
    return add(link, type, data, len, name);
}

CUresult cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char *path, unsigned int n,
                          CUjit_option *options, void **values)
{
    struct link *link;
    char *image;
    size_t len;
    CUresult result = find(state, &link);
    if (result)
        return result;
    if (!path || (n && (!options || !values)))
        return CUDA_ERROR_INVALID_VALUE;
    result = soft_image_file(path, &image, &len);
    if (result)
        return result;
    result = add(link, type, image, len, path);
    free(image);
    return result;
}

CUresult cuLinkComplete(CUlinkState state, void **image_out, size_t *len_out)
{
    struct link *link;
    struct vm_text why = {""};
    CUresult result = find(state, &link);
    if (result)
        return result;
    if (!image_out)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&link->lock);
    if (!link->text)
        result = CUDA_ERROR_INVALID_VALUE;
    else
        result = vm_ptx_check(link->text, link->len, true, soft_arch, &why);
    if (result && why.s[0])
        refuse(link, "link", why.s, result);
    if (!result) {
        soft_image_accept(&link->jit);
        link->done = true;
        *image_out = link->text;
        if (len_out)
            *len_out = link->len + 1;
    }
    pthread_mutex_unlock(&link->lock);
    return result;
}
