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
