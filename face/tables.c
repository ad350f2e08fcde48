/* cuGetExportTable: the private tables that NVIDIA's runtime and libraries ask libcuda for (which,
 * and what their slots must do, was found by experiment with CUDA 13.0).  A table is an array of
 * pointers; slot 0 is its size in bytes.  Slots of which nothing is known answer 801 and are named
 * once at level debug.  Never hand out success without a table: cudart would jump through it. */
#define TFR_LOG_PART "face"
#include "face/face.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/log.h"
#include "face/keyed.h"
#include "face/store.h"

#define CUDART_N       13
#define HOOKS_N        7
#define TLS_N          3
#define CHECKS_N       4
#define CONTEXT_N      96
#define MODULE_N       16
#define HEURISTICS_N   16
#define OTHER_SLOT_MAX 100

static const void *cudart_interface[CUDART_N];
static const void *tools_hooks[HOOKS_N];
static const void *tools_tls[TLS_N];
static const void *context_storage[4]; /* the one table without its size in slot 0 */
static const void *context_checks[CHECKS_N];
static const void *tools_context[CONTEXT_N];
static const void *tools_module[MODULE_N];
static const void *heuristics[HEURISTICS_N]; /* cuBLASLt; 801 makes it fall back */
static const void *keyed;                    /* NULL: not built */

static CUcontext or_current(CUcontext ctx)
{
    return ctx ? ctx : tfr_face_host.current();
}

/* --- CUDART_INTERFACE --- */

static CUresult cudart_load(CUmodule *module_out, const void *image)
{
    return tfr_face_host.module_load(module_out, image);
}

static CUresult cudart_primary(CUcontext *ctx_out, CUdevice dev)
{
    CUcontext ctx = tfr_face_host.primary(dev);

    if (!ctx_out)
        return CUDA_ERROR_INVALID_VALUE;
    if (!ctx)
        return CUDA_ERROR_INVALID_DEVICE;
    *ctx_out = ctx;
    return CUDA_SUCCESS;
}

static CUresult cudart_load_wrapper(CUmodule *module_out, const void *wrapper, void *a, void *b,
                                    unsigned c)
{
    (void)a;
    (void)b;
    (void)c;
    return tfr_face_host.module_load(module_out, wrapper);
}

static CUresult cudart_load_fatbin(const void *fatbin, CUmodule *module_out, void *a, void *b,
                                   unsigned c)
{
    return cudart_load_wrapper(module_out, fatbin, a, b, c);
}

static void cudart_ignore(size_t n)
{
    (void)n;
}

static CUresult cudart_load_compilers(void)
{
    return CUDA_SUCCESS;
}

/* --- TOOLS_HOOKS: two buffers that stay zero while no tool is attached --- */

static void hooks_large(void **words_out, size_t *word_n_out)
{
    static uint32_t words[1024];

    *words_out = words;
    *word_n_out = 1024;
}

static void hooks_small(void **words_out, size_t *word_n_out)
{
    static uint32_t words[14];

    *words_out = words;
    *word_n_out = 14;
}

/* --- TOOLS_TLS --- */

static CUresult tls_current(void **ctx_out)
{
    *ctx_out = tfr_face_host.current();
    return *ctx_out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

/* --- CTX_LOCAL_STORAGE --- */

static CUresult storage_set(CUcontext ctx, void *key, void *value, tfr_face_dtor dtor)
{
    ctx = or_current(ctx);
    if (!ctx || !tfr_face_host.context_key(ctx))
        return CUDA_ERROR_INVALID_CONTEXT;
    return tfr_face_store_set(ctx, key, value, dtor);
}

static CUresult storage_drop(CUcontext ctx, void *key)
{
    ctx = or_current(ctx);
    return ctx ? tfr_face_store_drop(ctx, key) : CUDA_ERROR_INVALID_CONTEXT;
}

/* Every runtime call comes through here. */
static CUresult storage_get(void **value_out, CUcontext ctx, void *key)
{
    ctx = or_current(ctx);
    return ctx ? tfr_face_store_get(ctx, key, value_out) : CUDA_ERROR_INVALID_CONTEXT;
}

/* --- CTX_CHECKS --- */

static CUresult checks_context(CUcontext ctx, uint32_t *state_out, const void **more_out)
{
    (void)ctx;
    (void)more_out;
    *state_out = 0;
    return CUDA_SUCCESS;
}

static uint32_t checks_global(void)
{
    return 0;
}

/* --- TOOLS_CONTEXT: cuBLAS keys its workspaces by (context, stream) --- */

static CUresult context_key(CUcontext ctx, uint64_t *key_out)
{
    ctx = or_current(ctx);
    *key_out = ctx ? tfr_face_host.context_key(ctx) : 0;
    return *key_out ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

/* The private handle of a stream is the public one, so its id is the handle; handle 2 names another
 * stream in every thread. */
static CUresult context_stream_id(CUcontext ctx, const void *stream, uint64_t *id_out)
{
    static _Thread_local char here __attribute__((tls_model("initial-exec")));

    (void)ctx;
    *id_out = (uint64_t)(uintptr_t)stream;
    if (stream == CU_STREAM_PER_THREAD)
        *id_out = (uint64_t)(uintptr_t)&here | 1ull << 63;
    return CUDA_SUCCESS;
}

static CUresult context_stream(CUcontext ctx, CUstream stream, void **stream_out, int per_thread)
{
    (void)ctx;
    if (!stream)
        stream = per_thread ? CU_STREAM_PER_THREAD : CU_STREAM_LEGACY;
    *stream_out = stream;
    return CUDA_SUCCESS;
}

/* --- TOOLS_MODULE --- */

static uint64_t module_functions(CUcontext ctx, CUmodule module,
                                 void (*each)(void *user, CUfunction fn, void *owner), void *user)
{
    ctx = or_current(ctx);
    return ctx ? tfr_face_host.module_functions(ctx, module, each, user) : 0;
}

/* --- slots of which nothing is known: a function each, so that the log can tell which one was
 * called --- */

static CUresult slot_unknown(int slot, _Atomic unsigned char *said)
{
    if (!atomic_exchange_explicit(said, 1, memory_order_relaxed))
        tfr_debug("slot %d of an export table was called: answered with error %d", slot,
                  CUDA_ERROR_NOT_SUPPORTED);
    return CUDA_ERROR_NOT_SUPPORTED;
}

#define OTHER(n)                                                                                   \
    static CUresult other_##n(void)                                                                \
    {                                                                                              \
        static _Atomic unsigned char said;                                                         \
        return slot_unknown(n, &said);                                                             \
    }
#define OTHER_NAME(n) (const void *)other_##n,
#define TEN(X, t)     X(t##0) X(t##1) X(t##2) X(t##3) X(t##4) X(t##5) X(t##6) X(t##7) X(t##8) X(t##9)
#define HUNDRED(X)                                                                                 \
    TEN(X, )                                                                                       \
    TEN(X, 1) TEN(X, 2) TEN(X, 3) TEN(X, 4) TEN(X, 5) TEN(X, 6) TEN(X, 7) TEN(X, 8) TEN(X, 9)

HUNDRED(OTHER)
static const void *const others[OTHER_SLOT_MAX] = {HUNDRED(OTHER_NAME)};

/* --- the tables --- */

struct slot {
    int at;
    const void *fn;
};

static void fill(const void **table, size_t slot_n, const struct slot *slots)
{
    table[0] = (const void *)(slot_n * sizeof *table);
    memcpy(table + 1, others + 1, (slot_n - 1) * sizeof *table);
    for (; slots->fn; slots++)
        table[slots->at] = slots->fn;
}

#define FILL(table, ...)                                                                           \
    fill(table, sizeof table / sizeof table[0], (const struct slot[]){__VA_ARGS__, {0, NULL}})

static void fill_all(void)
{
    FILL(cudart_interface, {1, (const void *)cudart_load}, {2, (const void *)cudart_primary},
         {6, (const void *)cudart_load_wrapper}, {7, (const void *)cudart_ignore},
         {8, (const void *)cudart_load_fatbin}, {12, (const void *)cudart_load_compilers});
    FILL(tools_hooks, {2, (const void *)hooks_large}, {6, (const void *)hooks_small});
    FILL(tools_tls, {2, (const void *)tls_current});
    FILL(context_storage, {0, (const void *)storage_set}, {1, (const void *)storage_drop},
         {2, (const void *)storage_get});
    FILL(context_checks, {2, (const void *)checks_context}, {3, (const void *)checks_global});
    FILL(tools_context, {4, (const void *)context_key}, {39, (const void *)context_stream_id},
         {51, (const void *)context_stream});
    FILL(tools_module, {7, (const void *)module_functions});
    fill(heuristics, HEURISTICS_N, (const struct slot[]){{0, NULL}});
#ifdef TFR_WITH_KEYED
    keyed = tfr_face_keyed_table(cudart_interface);
#endif
}

static const struct export
{
    uint8_t id[16];
    const char *name;
    const void *table; /* NULL: the keyed one */
}
exports[] = {
    /* clang-format off */
    {{0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a, 0x89, 0x87, 0xd9, 0x39, 0x12, 0xfd, 0x9d, 0xf9},
     "cudart interface", cudart_interface},
    {{0xa0, 0x94, 0x79, 0x8c, 0x2e, 0x74, 0x2e, 0x74, 0x93, 0xf2, 0x08, 0x00, 0x20, 0x0c, 0x0a, 0x66},
     "tools hooks", tools_hooks},
    {{0x42, 0xd8, 0x5a, 0x81, 0x23, 0xf6, 0xcb, 0x47, 0x82, 0x98, 0xf6, 0xe7, 0x8a, 0x3a, 0xec, 0xdc},
     "tools tls", tools_tls},
    {{0xc6, 0x93, 0x33, 0x6e, 0x11, 0x21, 0xdf, 0x11, 0xa8, 0xc3, 0x68, 0xf3, 0x55, 0xd8, 0x95, 0x93},
     "context storage", context_storage},
    {{0x26, 0x3e, 0x88, 0x60, 0x7c, 0xd2, 0x61, 0x43, 0x92, 0xf6, 0xbb, 0xd5, 0x00, 0x6d, 0xfa, 0x7e},
     "context checks", context_checks},
    {{0xd4, 0x08, 0x20, 0x55, 0xbd, 0xe6, 0x70, 0x4b, 0x8d, 0x34, 0xba, 0x12, 0x3c, 0x66, 0xe1, 0xf2},
     "keyed", NULL},
    {{0x21, 0x31, 0x8c, 0x60, 0x97, 0x14, 0x32, 0x48, 0x8c, 0xa6, 0x41, 0xff, 0x73, 0x24, 0xc8, 0xf2},
     "tools context", tools_context},
    {{0x6e, 0x16, 0x3f, 0xbe, 0xb9, 0x58, 0x44, 0x4d, 0x83, 0x5c, 0xe1, 0x82, 0xaf, 0xf1, 0x99, 0x1e},
     "tools module", tools_module},
    {{0x17, 0x34, 0xdc, 0x26, 0x80, 0x0d, 0x47, 0x45, 0x87, 0x26, 0xc0, 0xf1, 0xe7, 0xdd, 0x8b, 0xca},
     "heuristics", heuristics},
    /* clang-format on */
};

static const struct export *find(const uint8_t id[16])
{
    for (size_t n = 0; n < sizeof exports / sizeof exports[0]; n++) {
        if (memcmp(exports[n].id, id, 16) == 0)
            return &exports[n];
    }
    return NULL;
}

static void say_refused(const uint8_t id[16])
{
    tfr_debug("export table %02x%02x%02x%02x-%02x%02x%02x%02x-... refused", id[0], id[1], id[2],
              id[3], id[4], id[5], id[6], id[7]);
}

__attribute__((visibility("default"))) CUresult cuGetExportTable(const void **ppExportTable,
                                                                 const CUuuid *pExportTableId)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const struct export *export;

    if (!ppExportTable || !pExportTableId)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_once(&once, fill_all);
    export = find((const uint8_t *)pExportTableId->bytes);
    *ppExportTable = !export ? NULL : export->table ? export->table : keyed;
    if (!*ppExportTable) {
        say_refused((const uint8_t *)pExportTableId->bytes);
        return CUDA_ERROR_INVALID_VALUE;
    }
    tfr_debug("export table %s handed out", export->name);
    return CUDA_SUCCESS;
}
