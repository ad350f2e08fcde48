/* Code as the client sees it: images uploaded once, modules and libraries, kernels with their
 * layout. */
#ifndef TFR_INTERCEPT_MODULE_H
#define TFR_INTERCEPT_MODULE_H

#include "intercept/entry.h"

struct tfr_module;

/* A kernel or function: what a launch needs without asking. */
struct tfr_function {
    uint64_t id;
    const struct tfr_context *ctx; /* of its module; NULL: a library's, launched anywhere */
    uint32_t param_n, param_len;
    int max_threads, max_shared; /* of attribute[], kept flat for the launch */
    CUresult refused; /* what a launch answers: the driver cannot run this kernel; max_threads is 0
                         then */
    struct tfr_function_param *param;
    struct tfr_module *module;
    struct tfr_function *next; /* of the module */
    char *name;
    int attribute[TFR_FUNCTION_ATTRIBUTES];
};

struct tfr_global {
    struct tfr_global *next;
    struct tfr_context *ctx; /* a library's variables are others in every context */
    uint64_t addr, len;
    char *name;
};

struct tfr_module {
    uint64_t id;
    struct tfr_context *ctx;   /* of a module; a library has none */
    enum tfr_kind kind, child; /* MODULE and FUNCTION, or LIBRARY and KERNEL */
    _Atomic bool gone;         /* whoever sets it frees the module */
    pthread_mutex_t lock;      /* guards functions and globals */
    struct tfr_function *functions;
    struct tfr_global *globals;
    /* A library outlives its session (cudart keeps it across cudaDeviceReset) and is loaded again
     * from this. */
    const void *image;
    uint64_t image_len;
    void *image_copy; /* of an image that its owner may take away, else NULL */
    struct tfr_module *next_library;
};

/* A live CUfunction or CUkernel, or NULL. */
static inline struct tfr_function *tfr_function_of(const void *handle)
{
    enum tfr_kind kind = tfr_id_kind((uint64_t)handle);
    if (kind != TFR_KIND_FUNCTION && kind != TFR_KIND_KERNEL)
        return NULL;
    return tfr_handle_object(kind, handle);
}

/* ---- image.c ---- */

/* The bytes to send for what a program handed to a load call, or false: none of the formats. */
bool tfr_image_bytes(const void *image, const void **start_out, uint64_t *len_out);

/* The same for a wrapper of relocatable code, whose containers are put end to end in a copy that is
 * the caller's to free; false: it is not one. */
bool tfr_image_parts(const void *image, void **copy_out, uint64_t *len_out);

/* Makes sure that the executor has the image, until it is released; *id_out names it. */
CUresult tfr_image_upload(const void *start, uint64_t len, uint64_t *id_out);
void tfr_image_release(uint64_t id);

void tfr_image_forget_all(void);

/* A file's bytes, malloc'ed, with a zero behind them. */
CUresult tfr_image_file(const char *path, char **bytes_out, size_t *len_out);

/* linker.c: the session ended. */
void tfr_linker_forget_all(void);

/* ---- module.c ---- */

/* The session ended: modules are gone, libraries wait for the next one. */
void tfr_module_forget_all(void);

/* The context ends: its modules are gone, and the libraries' variables in it. */
void tfr_module_forget_context(const struct tfr_context *ctx);

/* Says once what a reset of a context that the executor keeps cannot do. */
void tfr_module_explain_reset(void);

/* A new session: it gets the libraries and kernels of the last one under their ids. */
CUresult tfr_module_restore_all(void);

/* ---- function.c ---- */

/* Names the kernel to a new session. */
CUresult tfr_function_restore(const struct tfr_function *f);

#endif
