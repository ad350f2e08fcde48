/* The export tables: what each slot must do for NVIDIA's runtime. */
#include <criterion/criterion.h>
#include <cuda.h>
#include <pthread.h>
#include <stdatomic.h>

#include "face/face.h"
#include "tests/unit/face/host.h"

#define CUDART     "6bd5fb6c 5bf4e74a 8987d939 12fd9df9"
#define HOOKS      "a094798c 2e742e74 93f20800 200c0a66"
#define TLS        "42d85a81 23f6cb47 8298f6e7 8a3aecdc"
#define STORAGE    "c693336e 1121df11 a8c368f3 55d89593"
#define CHECKS     "263e8860 7cd26143 92f6bbd5 006dfa7e"
#define KEYED      "d4082055 bde6704b 8d34ba12 3c66e1f2"
#define CONTEXT    "21318c60 97143248 8ca641ff 7324c8f2"
#define MODULE     "6e163fbe b958444d 835ce182 aff1991e"
#define HEURISTICS "1734dc26 800d4745 8726c0f1 e7dd8bca"

typedef void dtor_fn(CUcontext ctx, void *key, void *value);
typedef CUresult set_fn(CUcontext ctx, void *key, void *value, dtor_fn *dtor);
typedef CUresult drop_fn(CUcontext ctx, void *key);
typedef CUresult get_fn(void **value, CUcontext ctx, void *key);

static set_fn *storage_set;
static drop_fn *storage_drop;
static get_fn *storage_get;
static int dead_n;
static void *dead_value;

static void on_death(CUcontext ctx, void *key, void *value)
{
    void *again;

    cr_assert_eq(storage_get(&again, ctx, key), CUDA_ERROR_INVALID_HANDLE);
    dead_n++;
    dead_value = value;
}

static void use_storage(void)
{
    const void *const *table = host_table(STORAGE);

    storage_set = (set_fn *)table[0];
    storage_drop = (drop_fn *)table[1];
    storage_get = (get_fn *)table[2];
}

Test(tables, open_with_their_size_in_bytes)
{
    cr_assert_eq((size_t)host_table(CUDART)[0], 13 * 8);
    cr_assert_eq((size_t)host_table(HOOKS)[0], 7 * 8);
    cr_assert_eq((size_t)host_table(TLS)[0], 3 * 8);
    cr_assert_eq((size_t)host_table(CHECKS)[0], 4 * 8);
    cr_assert_geq((size_t)host_table(CONTEXT)[0], 52 * 8);
    cr_assert_geq((size_t)host_table(MODULE)[0], 8 * 8);
    cr_assert_geq((size_t)host_table(HEURISTICS)[0], 5 * 8);
}

Test(tables, refuse_what_they_do_not_know)
{
    const CUuuid id = {"0123456789abcde"};
    const void *table = &id;

    cr_assert_eq(cuGetExportTable(&table, &id), CUDA_ERROR_INVALID_VALUE);
    cr_assert_null(table);
    cr_assert_null(host_table("f8cff951 21468b4e b9e2fb46 9e7c0dd9"));
    cr_assert_null(host_table("da9151d3 3ae6cc41 a5c04f26 d533e328"));
    cr_assert_eq(cuGetExportTable(NULL, &id), CUDA_ERROR_INVALID_VALUE);
    cr_assert_eq(cuGetExportTable(&table, NULL), CUDA_ERROR_INVALID_VALUE);
}

Test(tables, have_no_empty_slot)
{
    const char *ids[] = {CUDART, HOOKS, TLS, CHECKS, CONTEXT, MODULE, HEURISTICS};

    for (size_t n = 0; n < sizeof ids / sizeof ids[0]; n++) {
        const void *const *table = host_table(ids[n]);
        for (size_t slot = 1; slot < (size_t)table[0] / 8; slot++)
            cr_assert_not_null(table[slot], "table %zu slot %zu", n, slot);
    }
    CUresult (*unknown)(void *, void *) = (CUresult(*)(void *, void *))host_table(HEURISTICS)[4];
    cr_assert_eq(unknown(NULL, NULL), CUDA_ERROR_NOT_SUPPORTED);
}

Test(tables, give_the_primary_context_without_retaining_it)
{
    CUresult (*primary)(CUcontext *, CUdevice) = (void *)host_table(CUDART)[2];
    CUcontext ctx = NULL;

    cr_assert_eq(primary(&ctx, 1), CUDA_SUCCESS);
    cr_assert_eq(ctx, host_context(1));
    cr_assert_eq(primary(&ctx, 2), CUDA_ERROR_INVALID_DEVICE);
}

Test(tables, load_images_the_old_way)
{
    CUresult (*load)(CUmodule *, const void *) = (void *)host_table(CUDART)[1];
    CUresult (*load_wrapper)(CUmodule *, const void *, void *, void *, unsigned) =
        (void *)host_table(CUDART)[6];
    CUresult (*load_fatbin)(const void *, CUmodule *, void *, void *, unsigned) =
        (void *)host_table(CUDART)[8];
    CUmodule module;

    cr_assert_eq(load(&module, "a"), CUDA_SUCCESS);
    cr_assert_str_eq(host_loaded, "a");
    cr_assert_eq(load_wrapper(&module, "b", NULL, NULL, 0), CUDA_SUCCESS);
    cr_assert_str_eq(host_loaded, "b");
    cr_assert_eq(load_fatbin("c", &module, NULL, NULL, 0), CUDA_SUCCESS);
    cr_assert_str_eq(host_loaded, "c");
}

Test(tables, hooks_are_buffers_of_zeros)
{
    void (*large)(uint32_t **, size_t *) = (void *)host_table(HOOKS)[2];
    void (*small)(uint32_t **, size_t *) = (void *)host_table(HOOKS)[6];
    uint32_t *words;
    size_t n;

    large(&words, &n);
    cr_assert_eq(n, 1024);
    cr_assert_eq(words[0] | words[1023], 0);
    small(&words, &n);
    cr_assert_eq(n, 14);
    cr_assert_eq(words[0] | words[13], 0);
}

Test(tables, tell_the_current_context_of_the_thread)
{
    CUresult (*current)(void **) = (void *)host_table(TLS)[2];
    void *ctx = &ctx;

    cr_assert_eq(current(&ctx), CUDA_ERROR_INVALID_CONTEXT);
    cr_assert_null(ctx);
    host_make_current(host_context(0));
    cr_assert_eq(current(&ctx), CUDA_SUCCESS);
    cr_assert_eq(ctx, host_context(0));
}

Test(storage, keeps_a_value_per_context_and_key)
{
    void *value;
    int a, b;

    use_storage();
    cr_assert_eq(storage_get(&value, NULL, &a), CUDA_ERROR_INVALID_CONTEXT);
    cr_assert_eq(storage_set(NULL, &a, &b, NULL), CUDA_ERROR_INVALID_CONTEXT);
    cr_assert_eq(storage_set((CUcontext)&a, &a, &b, NULL), CUDA_ERROR_INVALID_CONTEXT);
    host_make_current(host_context(0));
    cr_assert_eq(storage_get(&value, NULL, &a), CUDA_ERROR_INVALID_HANDLE);
    cr_assert_eq(storage_set(NULL, &a, &a, NULL), CUDA_SUCCESS);
    cr_assert_eq(storage_set(host_context(1), &a, &b, NULL), CUDA_SUCCESS);
    cr_assert_eq(storage_get(&value, host_context(0), &a), CUDA_SUCCESS);
    cr_assert_eq(value, &a);
    cr_assert_eq(storage_get(&value, host_context(1), &a), CUDA_SUCCESS);
    cr_assert_eq(value, &b);
    cr_assert_eq(storage_get(&value, NULL, &b), CUDA_ERROR_INVALID_HANDLE);
}

Test(storage, destroys_values_with_their_context)
{
    void *value;
    int a, b, c;

    use_storage();
    storage_set(host_context(0), &a, &a, on_death);
    storage_set(host_context(0), &b, &b, on_death);
    storage_set(host_context(0), &c, &c, NULL);
    storage_set(host_context(1), &a, &c, on_death);
    cr_assert_eq(storage_drop(host_context(0), &a), CUDA_SUCCESS);
    cr_assert_eq(storage_drop(host_context(0), &a), CUDA_ERROR_INVALID_HANDLE);
    cr_assert_eq(dead_n, 0, "dropping runs no destructor");
    tfr_face_context_gone(host_context(0));
    cr_assert_eq(dead_n, 1);
    cr_assert_eq(dead_value, &b);
    cr_assert_eq(storage_get(&value, host_context(0), &c), CUDA_ERROR_INVALID_HANDLE);
    cr_assert_eq(storage_get(&value, host_context(1), &a), CUDA_SUCCESS);
    tfr_face_context_gone(NULL);
    cr_assert_eq(dead_n, 1);
}

static _Atomic int stop;

/* A value is always its key or its key plus one: never a mixture with another entry's. */
static void *reader(void *bases)
{
    size_t seen = 0;

    while (!atomic_load_explicit(&stop, memory_order_acquire) || !seen) {
        for (uintptr_t n = 0; n < 200; n++) {
            char *key = (char *)bases + 2 * n, *value = key;
            if (storage_get((void **)&value, host_context(n % 2), key) == CUDA_SUCCESS)
                seen++;
            if (value != key && value != key + 1)
                return key;
        }
    }
    return NULL;
}

Test(storage, readers_never_see_another_entrys_value, .timeout = 240)
{
    static char bases[400];
    pthread_t threads[2];
    void *bad;

    use_storage();
    for (int n = 0; n < 2; n++)
        pthread_create(&threads[n], NULL, reader, bases);
    for (int round = 0; round < 1000; round++) {
        for (uintptr_t n = 0; n < 200; n++)
            storage_set(host_context(n % 2), bases + 2 * n, bases + 2 * n + round % 2, NULL);
        for (uintptr_t n = (uintptr_t)round % 3; n < 200; n += 3)
            storage_drop(host_context(n % 2), bases + 2 * n);
        if (round % 50 == 0)
            tfr_face_context_gone(host_context(round / 50 % 2));
    }
    atomic_store_explicit(&stop, 1, memory_order_release);
    for (int n = 0; n < 2; n++) {
        pthread_join(threads[n], &bad);
        cr_assert_null(bad);
    }
}

Test(tables, name_contexts_and_streams_for_workspaces)
{
    CUresult (*key_of)(CUcontext, uint64_t *) = (void *)host_table(CONTEXT)[4];
    CUresult (*id_of)(CUcontext, const void *, uint64_t *) = (void *)host_table(CONTEXT)[39];
    CUresult (*stream_of)(CUcontext, CUstream, void **, int) = (void *)host_table(CONTEXT)[51];
    uint64_t key, legacy, other;
    void *stream;
    int a;

    cr_assert_eq(key_of(host_context(1), &key), CUDA_SUCCESS);
    cr_assert_eq(key, 8);
    cr_assert_eq(key_of((CUcontext)&a, &key), CUDA_ERROR_INVALID_CONTEXT);
    stream_of(host_context(0), NULL, &stream, 0);
    cr_assert_eq(stream, CU_STREAM_LEGACY);
    id_of(host_context(0), stream, &legacy);
    stream_of(host_context(0), NULL, &stream, 1);
    cr_assert_eq(stream, CU_STREAM_PER_THREAD);
    stream_of(host_context(0), (CUstream)&a, &stream, 1);
    cr_assert_eq(stream, &a);
    id_of(host_context(0), stream, &other);
    cr_assert_neq(legacy, other);
}

static void *own_stream_id(void *id_out)
{
    CUresult (*id_of)(CUcontext, const void *, uint64_t *) = (void *)host_table(CONTEXT)[39];

    id_of(host_context(0), CU_STREAM_PER_THREAD, id_out);
    return NULL;
}

Test(tables, the_per_thread_stream_has_an_id_per_thread)
{
    pthread_t thread;
    uint64_t here, there, again;

    own_stream_id(&here);
    pthread_create(&thread, NULL, own_stream_id, &there);
    pthread_join(thread, NULL);
    own_stream_id(&again);
    cr_assert_eq(here, again);
    cr_assert_neq(here, there);
}

static void count(void *user, CUfunction fn, void *owner)
{
    (void)owner;
    *(uintptr_t *)user += (uintptr_t)fn;
}

Test(tables, list_the_functions_of_a_module)
{
    uint64_t (*list)(CUcontext, CUmodule, void (*)(void *, CUfunction, void *), void *) =
        (void *)host_table(MODULE)[7];
    uintptr_t sum = 0;

    cr_assert_eq(list(NULL, NULL, count, &sum), 0, "no context");
    cr_assert_eq(list(host_context(0), NULL, count, &sum), 3);
    cr_assert_eq(sum, 1 + 2 + 3);
}

Test(tables, context_checks_find_nothing_wrong)
{
    CUresult (*check)(CUcontext, uint32_t *, const void **) = (void *)host_table(CHECKS)[2];
    uint32_t (*check_all)(void) = (void *)host_table(CHECKS)[3];
    const void *more = "untouched";
    uint32_t state = 1;

    cr_assert_eq(check(host_context(0), &state, &more), CUDA_SUCCESS);
    cr_assert_eq(state, 0);
    cr_assert_str_eq(more, "untouched");
    cr_assert_eq(check_all(), 0);
}

Test(tables, the_keyed_one_is_there_if_it_was_built)
{
#ifdef TFR_WITH_KEYED
    cr_assert_eq((size_t)host_table(KEYED)[0], 3 * 8);
#else
    cr_assert_null(host_table(KEYED));
#endif
}
