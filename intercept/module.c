/* Modules and libraries, and the variables in them.  Both families share one struct: a library is a
 * module without a context. */
#define TFR_LOG_PART "intercept"
#include "intercept/module.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "intercept/jit.h"
#include "intercept/memory.h"

/* ---- loading ---- */

static CUresult load_ask(uint64_t image, uint64_t id, const struct tfr_jit *jit)
{
    struct tfr_ask ask;
    struct tfr_module_load_req *req = tfr_ask_begin(&ask, TFR_OP_module_load, sizeof *req);
    if (!req)
        return ask.result;
    req->image = image;
    req->id = id;
    req->option_n = jit->n;
    req->info_len = tfr_jit_room(jit->info, jit->info_len);
    req->error_len = tfr_jit_room(jit->error, jit->error_len);
    req->reserved = 0;
    memcpy(req->option, jit->option, sizeof req->option);
    memcpy(req->value, jit->value, sizeof req->value);
    tfr_ask_send(&ask, 0);
    struct tfr_module_load_rep rep;
    tfr_jit_logs(&ask, jit, &rep, sizeof rep);
    return tfr_ask_end(&ask);
}

static CUresult module_new(enum tfr_kind kind, struct tfr_module **module_out)
{
    struct tfr_module *module = calloc(1, sizeof *module);
    if (!module)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = tfr_handle_new(kind, &module->id);
    if (result != CUDA_SUCCESS) {
        free(module);
        return result;
    }
    module->ctx = kind == TFR_KIND_MODULE ? tfr_thread.ctx : NULL;
    module->kind = kind;
    module->child = kind == TFR_KIND_MODULE ? TFR_KIND_FUNCTION : TFR_KIND_KERNEL;
    pthread_mutex_init(&module->lock, NULL);
    *module_out = module;
    return CUDA_SUCCESS;
}

/* Uploads the module's image, if the session lacks it, and loads it under the module's id. */
static CUresult module_send(const struct tfr_module *module, const struct tfr_jit *jit)
{
    uint64_t image_id;
    CUresult result = tfr_image_upload(module->image, module->image_len, &image_id);
    if (result != CUDA_SUCCESS)
        return result;
    result = load_ask(image_id, module->id, jit);
    tfr_image_release(image_id);
    return result;
}

static CUresult load(enum tfr_kind kind, const void *image, const struct tfr_jit *jit,
                     struct tfr_module **module_out)
{
    struct tfr_module *module;
    const void *start;
    uint64_t len;
    if (!image)
        return CUDA_ERROR_INVALID_VALUE;
    void *copy = NULL;
    if (tfr_image_parts(image, &copy, &len))
        start = copy;
    else if (!tfr_image_bytes(image, &start, &len))
        return CUDA_ERROR_INVALID_IMAGE;
    CUresult result = module_new(kind, &module);
    if (result != CUDA_SUCCESS) {
        free(copy);
        return result;
    }
    module->image_copy = copy;
    module->image = start;
    module->image_len = len;
    result = module_send(module, jit);
    if (result != CUDA_SUCCESS) {
        tfr_handle_drop(kind, module->id);
        free(copy);
        free(module);
        return result;
    }
    tfr_handle_bind(module->id, module);
    *module_out = module;
    return CUDA_SUCCESS;
}

/* ---- libraries outlive sessions ---- */

static pthread_mutex_t libraries_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the list */
static struct tfr_module *libraries;

static bool option_set(CUlibraryOption want, const CUlibraryOption *options, void **values,
                       unsigned int n)
{
    for (unsigned int i = 0; options && i < n; i++)
        if (options[i] == want)
            return !values || values[i];
    return false;
}

/* An image that its owner may take away is copied. */
static void library_keep(struct tfr_module *library, bool preserved)
{
    if (!preserved && !library->image_copy) {
        library->image_copy = malloc(library->image_len);
        if (library->image_copy)
            memcpy(library->image_copy, library->image, library->image_len);
        library->image = library->image_copy;
    }
    pthread_mutex_lock(&libraries_lock);
    library->next_library = libraries;
    libraries = library;
    pthread_mutex_unlock(&libraries_lock);
}

static void library_forget(const struct tfr_module *library)
{
    pthread_mutex_lock(&libraries_lock);
    for (struct tfr_module **at = &libraries; *at; at = &(*at)->next_library) {
        if (*at == library) {
            *at = library->next_library;
            break;
        }
    }
    pthread_mutex_unlock(&libraries_lock);
}

CUresult tfr_module_restore_all(void)
{
    struct tfr_jit none = {0};
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&libraries_lock);
    for (struct tfr_module *l = libraries; l && result == CUDA_SUCCESS; l = l->next_library) {
        result = l->image ? module_send(l, &none) : CUDA_ERROR_OUT_OF_MEMORY;
        for (struct tfr_function *f = l->functions; f && result == CUDA_SUCCESS; f = f->next)
            result = tfr_function_restore(f);
    }
    pthread_mutex_unlock(&libraries_lock);
    return result;
}

/* ---- unloading ---- */

/* Those of one context, or all of them (NULL). */
static void globals_free(struct tfr_module *module, const struct tfr_context *ctx)
{
    struct tfr_global **at = &module->globals;
    while (*at) {
        struct tfr_global *g = *at;
        struct tfr_range range;
        if (ctx && g->ctx != ctx) {
            at = &g->next;
            continue;
        }
        *at = g->next;
        tfr_range_take(g->addr, 1u << TFR_RANGE_GLOBAL, &range);
        free(g->name);
        free(g);
    }
}

/* May the caller free it?  Several threads may unload the same one, or end what it belongs to. */
static bool module_claim(struct tfr_module *module)
{
    return !atomic_exchange_explicit(&module->gone, true, memory_order_acq_rel);
}

static void module_free(struct tfr_module *module)
{
    while (module->functions) {
        struct tfr_function *f = module->functions;
        module->functions = f->next;
        tfr_handle_drop(module->child, f->id);
        tfr_handle_retire(f->param);
        tfr_handle_retire(f->name);
        tfr_handle_retire(f);
    }
    globals_free(module, NULL);
    free(module->image_copy);
    tfr_handle_retire(module);
}

static CUresult unload_ask(uint64_t id, uint16_t op)
{
    struct tfr_ask ask;
    struct tfr_module_unload_req *req = tfr_ask_begin(&ask, op, sizeof *req);
    if (!req)
        return ask.result;
    req->id = id;
    tfr_ask_send(&ask, 0);
    return tfr_ask_end(&ask);
}

/* A library needs no context, and after a reset no session either: its owner may be about to take
 * the image away, so that it must not be loaded again. */
static CUresult unload(enum tfr_kind kind, const void *handle, uint16_t op)
{
    CUresult result = kind == TFR_KIND_LIBRARY ? tfr_enter_noctx() : tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_module *module = tfr_handle_object(kind, handle);
    if (!module || !module_claim(module))
        return CUDA_ERROR_INVALID_HANDLE;
    if (atomic_load_explicit(&tfr_client.attached, memory_order_acquire))
        result = unload_ask(module->id, op);
    tfr_handle_drop(kind, module->id);
    library_forget(module);
    module_free(module);
    return result;
}

static void module_forget(void *arg)
{
    if (module_claim(arg))
        module_free(arg);
}

void tfr_module_forget_all(void)
{
    tfr_handle_clear(TFR_KIND_MODULE, module_forget);
    pthread_mutex_lock(&libraries_lock);
    for (struct tfr_module *l = libraries; l; l = l->next_library)
        globals_free(l, NULL);
    pthread_mutex_unlock(&libraries_lock);
    tfr_linker_forget_all();
    tfr_image_forget_all();
}

static void module_end(void *object, void *ctx)
{
    struct tfr_module *module = object;
    if (module->ctx != ctx || !module_claim(module))
        return;
    tfr_handle_drop(TFR_KIND_MODULE, module->id);
    module_free(module);
}

void tfr_module_forget_context(const struct tfr_context *ctx)
{
    tfr_handle_each(TFR_KIND_MODULE, module_end, (void *)(uintptr_t)ctx);
    pthread_mutex_lock(&libraries_lock);
    for (struct tfr_module *l = libraries; l; l = l->next_library) {
        pthread_mutex_lock(&l->lock);
        globals_free(l, ctx);
        pthread_mutex_unlock(&l->lock);
    }
    pthread_mutex_unlock(&libraries_lock);
}

void tfr_module_explain_reset(void)
{
    static _Atomic bool said;
    pthread_mutex_lock(&libraries_lock);
    bool any = libraries != NULL;
    pthread_mutex_unlock(&libraries_lock);
    if (any && !atomic_exchange_explicit(&said, true, memory_order_relaxed))
        tfr_warn("variables in device code keep their values over this reset of the first device, "
                 "since another context is in use");
}

CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int option_n,
                            CUjit_option *options, void **values)
{
    struct tfr_jit jit = {0};
    struct tfr_module *loaded;
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!module)
        return CUDA_ERROR_INVALID_VALUE;
    result = tfr_jit_read(option_n, options, values, &jit);
    if (result == CUDA_SUCCESS)
        result = load(TFR_KIND_MODULE, image, &jit, &loaded);
    if (result == CUDA_SUCCESS)
        *module = tfr_handle_ptr(loaded->id);
    return result;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

CUresult cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

/* The file is ours to read: no path crosses the wire. */
CUresult tfr_image_file(const char *path, char **bytes_out, size_t *len_out)
{
    *bytes_out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size < 16) {
        if (fd >= 0)
            close(fd);
        return CUDA_ERROR_FILE_NOT_FOUND;
    }
    /* One zero byte more than the file has: PTX text ends with it. */
    size_t len = (size_t)st.st_size, have = 0;
    char *bytes = calloc(1, len + 1);
    while (bytes && have < len) {
        ssize_t n = read(fd, bytes + have, len - have);
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    close(fd);
    *bytes_out = bytes;
    *len_out = len;
    return !bytes        ? CUDA_ERROR_OUT_OF_MEMORY
           : have != len ? CUDA_ERROR_FILE_NOT_FOUND
                         : CUDA_SUCCESS;
}

CUresult cuModuleLoad(CUmodule *module, const char *path)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (!module || !path)
        return CUDA_ERROR_INVALID_VALUE;
    char *bytes;
    size_t len;
    result = tfr_image_file(path, &bytes, &len);
    if (result == CUDA_SUCCESS)
        result = cuModuleLoadData(module, bytes);
    free(bytes);
    return result;
}

CUresult cuModuleUnload(CUmodule module)
{
    return unload(TFR_KIND_MODULE, module, TFR_OP_module_unload);
}

/* cudart loads libraries before there is a context when it loads eagerly: the session is attached
 * for it. */
CUresult cuLibraryLoadData(CUlibrary *library, const void *image, CUjit_option *jit_options,
                           void **jit_values, unsigned int jit_n, CUlibraryOption *options,
                           void **values, unsigned int option_n)
{
    struct tfr_jit jit = {0};
    struct tfr_module *loaded;
    CUresult result = tfr_enter_noctx();
    if (result != CUDA_SUCCESS)
        return result;
    if (!library)
        return CUDA_ERROR_INVALID_VALUE;
    result = tfr_client_attach();
    if (result == CUDA_SUCCESS)
        result = tfr_jit_read(jit_n, jit_options, jit_values, &jit);
    if (result == CUDA_SUCCESS)
        result = load(TFR_KIND_LIBRARY, image, &jit, &loaded);
    if (result != CUDA_SUCCESS)
        return result;
    library_keep(loaded, option_set(CU_LIBRARY_BINARY_IS_PRESERVED, options, values, option_n));
    *library = tfr_handle_ptr(loaded->id);
    return CUDA_SUCCESS;
}

CUresult cuLibraryUnload(CUlibrary library)
{
    return unload(TFR_KIND_LIBRARY, library, TFR_OP_module_unload);
}

/* ---- variables ---- */

static CUresult global_ask(struct tfr_module *module, const char *name, struct tfr_global_rep *out)
{
    uint32_t name_len = (uint32_t)strlen(name) + 1;
    struct tfr_ask ask;
    struct tfr_global_get_req *req =
        tfr_ask_begin(&ask, TFR_OP_global_get, (uint32_t)sizeof *req + name_len);
    if (!req)
        return ask.result;
    req->parent = module->id;
    req->name_len = name_len;
    req->reserved = 0;
    memcpy(req + 1, name, name_len);
    const struct tfr_global_rep *rep = tfr_ask_send(&ask, sizeof *rep);
    if (rep)
        *out = *rep;
    return tfr_ask_end(&ask);
}

static CUresult global_new(struct tfr_module *module, const char *name, struct tfr_global **g_out)
{
    struct tfr_global_rep rep = {0};
    CUresult result = global_ask(module, name, &rep);
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_global *g = calloc(1, sizeof *g);
    if (!g)
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct tfr_range range = {.base = rep.addr,
                              .len = rep.len,
                              .kind = TFR_RANGE_GLOBAL,
                              .device = tfr_thread.ctx->device,
                              .ctx = tfr_thread.ctx};
    tfr_range_add(&range);
    g->ctx = tfr_thread.ctx;
    g->addr = rep.addr;
    g->len = rep.len;
    g->name = strdup(name);
    g->next = module->globals;
    module->globals = g;
    *g_out = g;
    return CUDA_SUCCESS;
}

static CUresult global_get(enum tfr_kind kind, const void *handle, const char *name,
                           CUdeviceptr *addr, size_t *len)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_module *module = tfr_handle_object(kind, handle);
    if (!module)
        return CUDA_ERROR_INVALID_HANDLE;
    if (!name || strlen(name) > 8000)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&module->lock);
    struct tfr_global *g = module->globals;
    /* A module's variables are where it was loaded, whatever context is current. */
    while (g &&
           (!g->name || (!module->ctx && g->ctx != tfr_thread.ctx) || strcmp(g->name, name) != 0))
        g = g->next;
    if (!g)
        result = global_new(module, name, &g);
    if (result == CUDA_SUCCESS) {
        if (addr)
            *addr = g->addr;
        if (len)
            *len = g->len;
    }
    pthread_mutex_unlock(&module->lock);
    return result;
}

CUresult cuModuleGetGlobal_v2(CUdeviceptr *addr, size_t *len, CUmodule module, const char *name)
{
    return global_get(TFR_KIND_MODULE, module, name, addr, len);
}

CUresult cuLibraryGetGlobal(CUdeviceptr *addr, size_t *len, CUlibrary library, const char *name)
{
    return global_get(TFR_KIND_LIBRARY, library, name, addr, len);
}
