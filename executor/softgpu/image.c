/* From what a load call is given to the interpreter's module: image, JIT options, refusal.
 * A refusal is said once on stderr and put into CU_JIT_ERROR_LOG_BUFFER. */
#include "executor/softgpu/soft.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct jit_log {
    char *text;
    size_t len;
};

static struct jit_log error_log(unsigned int n, const CUjit_option *options, void *const *values)
{
    struct jit_log out = {NULL, 0};
    for (unsigned int i = 0; i < n; i++) {
        if (options[i] == CU_JIT_ERROR_LOG_BUFFER)
            out.text = values[i];
        else if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
            out.len = (size_t)values[i] & UINT32_MAX;
    }
    return out;
}

static void log_fill(unsigned int n, const CUjit_option *options, void **values, const char *text)
{
    struct jit_log out = error_log(n, options, values);
    size_t len = 0;
    if (out.text && out.len) {
        snprintf(out.text, out.len, "%s", text);
        len = strlen(out.text);
    }
    for (unsigned int i = 0; i < n; i++) {
        if (options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
            values[i] = (void *)len;
        else if (options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES)
            values[i] = NULL;
    }
}

void soft_image_refuse(const struct soft_jit *jit, const char *why)
{
    tfr_say("softgpu: %s", why);
    log_fill(jit->n, jit->options, jit->values, why);
}

CUresult soft_image_ptx(const void *image, const struct soft_jit *jit, char **ptx_out,
                        size_t *len_out)
{
    struct vm_text why = {""};
    if (!image || (jit->n && (!jit->options || !jit->values)))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = vm_image_ptx(image, SIZE_MAX, soft_arch, ptx_out, len_out, &why);
    if (result)
        soft_image_refuse(jit, why.s);
    return result;
}

void soft_image_accept(const struct soft_jit *jit)
{
    log_fill(jit->n, jit->options, jit->values, "");
}

CUresult soft_image_file(const char *path, char **image_out, size_t *len_out)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return CUDA_ERROR_FILE_NOT_FOUND;
    char *image = NULL;
    if (fseek(file, 0, SEEK_END) == 0) {
        long len = ftell(file);
        rewind(file);
        image = len >= 0 ? calloc(1, (size_t)len + 64) : NULL;
        if (image && fread(image, 1, (size_t)len, file) != (size_t)len) {
            free(image);
            image = NULL;
        }
        if (image && len_out)
            *len_out = (size_t)len;
    }
    fclose(file);
    *image_out = image;
    return image ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
