/* Modules, functions and launches (image.c, module.c, library.c, func.c, launch.c).  Included
 * through soft.h. */
#ifndef TFR_SOFTGPU_CODE_H
#define TFR_SOFTGPU_CODE_H

#include "executor/softgpu/soft.h"

struct soft_jit {
    unsigned int n;
    const CUjit_option *options;
    void **values;
};

/* PTX text of an image, malloc'ed.  A refusal is logged and goes to the JIT error buffer. */
CUresult soft_image_ptx(const void *image, const struct soft_jit *jit, char **ptx_out,
                        size_t *len_out);
void soft_image_refuse(const struct soft_jit *jit, const char *why);
/* The image has been loaded: the logs are empty. */
void soft_image_accept(const struct soft_jit *jit);
/* NUL behind the end; len_out may be NULL. */
CUresult soft_image_file(const char *path, char **image_out, size_t *len_out);

struct soft_func {
    uint64_t handle;
    struct soft_module *module;
    struct vm_kernel *kernel;
    const struct vm_kernel_info *info;
    _Atomic bool ready; /* decoded */
    _Atomic int max_dynamic, carveout, cache;
};

struct soft_module {
    uint64_t handle;
    struct soft_ctx *ctx;
    struct vm_module *vm;
    struct soft_func *func;
    size_t func_n;
    struct soft_library *library;     /* NULL: by cuModuleLoad */
    struct soft_module *next, **prev; /* in ctx->modules */
    _Atomic uint32_t refs;            /* its own life, and every launch on its way */
};

/* Loads the text into the context. */
CUresult soft_module_make(struct soft_ctx *ctx, const char *ptx, size_t len,
                          const struct soft_jit *jit, struct soft_library *library,
                          struct soft_module **module_out);
/* Launches on their way keep it until they are done. */
void soft_module_drop(struct soft_module *module);
void soft_module_unref(struct soft_module *module);
CUresult soft_module_global(struct soft_module *module, const char *name, CUdeviceptr *at,
                            size_t *len);
void soft_library_forget(struct soft_module *module); /* it goes with its context */
/* A CUfunction or a CUkernel, in this context. */
CUresult soft_func_find(CUfunction handle, struct soft_ctx *ctx, struct soft_func **func_out);
CUresult soft_kernel_func(CUkernel handle, struct soft_ctx *ctx, struct soft_func **func_out);
CUresult soft_func_ready(struct soft_func *func); /* decodes it */
CUresult soft_func_attribute(struct soft_func *func, CUfunction_attribute attribute,
                             int *value_out);
CUresult soft_func_set_attribute(struct soft_func *func, CUfunction_attribute attribute, int value);
CUresult soft_func_param(const struct vm_kernel_info *info, size_t at, size_t *offset_out,
                         size_t *len_out);
/* Blocks of the function that one multiprocessor holds. */
int soft_occupancy(struct soft_func *func, uint32_t threads, uint64_t dynamic);

#endif
