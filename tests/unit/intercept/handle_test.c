/* intercept/handle.c: ids that no address equals and that do not outlive their object. */
#include "kit.h"

Test(handle, is_alive_until_dropped_and_never_again)
{
    uint64_t id, next;
    int object;
    cr_assert_eq(tfr_handle_new(TFR_KIND_EVENT, &id), CUDA_SUCCESS);
    cr_assert_null(tfr_handle_object(TFR_KIND_EVENT, tfr_handle_ptr(id)), "not bound yet");
    tfr_handle_bind(id, &object);
    cr_assert_eq(tfr_handle_object(TFR_KIND_EVENT, tfr_handle_ptr(id)), &object);
    tfr_handle_drop(TFR_KIND_EVENT, id);
    cr_assert_null(tfr_handle_object(TFR_KIND_EVENT, tfr_handle_ptr(id)));
    cr_assert_eq(tfr_handle_new(TFR_KIND_EVENT, &next), CUDA_SUCCESS);
    cr_assert_neq(id, next, "the slot is reused, the id is not");
    cr_assert_eq(tfr_id_at(id), tfr_id_at(next));
}

Test(handle, gives_no_place_to_others_before_the_executor_knows_that_it_is_free)
{
    uint64_t id, next, last;
    cr_assert_eq(tfr_handle_new(TFR_KIND_EVENT, &id), CUDA_SUCCESS);
    tfr_handle_keep();
    tfr_handle_drop(TFR_KIND_EVENT, id);
    cr_assert_eq(tfr_handle_new(TFR_KIND_EVENT, &next), CUDA_SUCCESS);
    cr_assert_neq(tfr_id_at(id), tfr_id_at(next));
    tfr_handle_let_go();
    cr_assert_eq(tfr_handle_new(TFR_KIND_EVENT, &last), CUDA_SUCCESS);
    cr_assert_eq(tfr_id_at(id), tfr_id_at(last));
}

Test(handle, that_has_died_is_bound_to_nothing)
{
    uint64_t id, next;
    int object;
    cr_assert_eq(tfr_handle_new(TFR_KIND_EVENT, &id), CUDA_SUCCESS);
    tfr_handle_drop(TFR_KIND_EVENT, id);
    cr_assert_eq(tfr_handle_new(TFR_KIND_EVENT, &next), CUDA_SUCCESS);
    tfr_handle_bind(id, &object);
    cr_assert_null(tfr_handle_object(TFR_KIND_EVENT, tfr_handle_ptr(next)));
}

Test(handle, of_another_kind_or_out_of_nowhere_is_refused)
{
    uint64_t id, out;
    int object;
    cr_assert_eq(tfr_handle_new(TFR_KIND_KERNEL, &id), CUDA_SUCCESS);
    tfr_handle_bind(id, &object);
    cr_assert_null(tfr_handle_object(TFR_KIND_MODULE, tfr_handle_ptr(id)));
    cr_assert_eq(tfr_handle_id(TFR_KIND_FUNCTION, tfr_handle_ptr(id), &out), CUDA_SUCCESS,
                 "a kernel is accepted where a function is asked for");
    cr_assert_eq(tfr_handle_id(TFR_KIND_FUNCTION, NULL, &out), CUDA_ERROR_INVALID_HANDLE);
    cr_assert_eq(tfr_handle_id(TFR_KIND_FUNCTION, &object, &out), CUDA_ERROR_INVALID_HANDLE);
    cr_assert_eq(tfr_handle_id(TFR_KIND_MODULE, (void *)-1, &out), CUDA_ERROR_INVALID_HANDLE);
}

Test(handle, bits_make_no_user_address)
{
    uint64_t id;
    cr_assert_eq(tfr_handle_new(TFR_KIND_STREAM, &id), CUDA_SUCCESS);
    cr_assert_gt(id >> 47, 0);
}

Test(handle, grows_past_a_chunk)
{
    uint64_t id;
    for (int i = 0; i < 3 * TFR_HANDLE_CHUNK; i++)
        cr_assert_eq(tfr_handle_new(TFR_KIND_EVENT, &id), CUDA_SUCCESS);
    cr_assert_eq(tfr_id_at(id), 3 * TFR_HANDLE_CHUNK - 1);
}

static int seen;

static void drop_odd(void *object, void *arg)
{
    uint64_t id = *(uint64_t *)object;
    cr_assert_eq(arg, &seen);
    seen++;
    if (tfr_id_at(id) % 2)
        tfr_handle_drop(TFR_KIND_MODULE, id);
}

Test(handle, each_sees_the_bound_ones_and_may_drop_them)
{
    static uint64_t id[10];
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(tfr_handle_new(TFR_KIND_MODULE, &id[i]), CUDA_SUCCESS);
        if (i < 8)
            tfr_handle_bind(id[i], &id[i]);
    }
    tfr_handle_each(TFR_KIND_MODULE, drop_odd, &seen);
    cr_assert_eq(seen, 8);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(!tfr_handle_object(TFR_KIND_MODULE, tfr_handle_ptr(id[i])), i % 2);
}

/* Under a sanitizer this fails if the memory goes at once. */
Test(handle, retired_memory_stays_readable)
{
    enum { N = 1000 };
    static volatile int *memory[N];
    for (int i = 0; i < N; i++) {
        memory[i] = malloc(sizeof(int));
        *memory[i] = i;
        tfr_handle_retire((void *)memory[i]);
    }
    tfr_handle_retire(NULL);
    for (int i = 0; i < N; i++)
        cr_assert_eq(*memory[i], i);
}
