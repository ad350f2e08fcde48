/* cuGetProcAddress: which symbol a name and a version stand for. */
#include <criterion/criterion.h>
#include <cuda.h>

#include "face/map.h"
#include "tests/unit/face/host.h"

static void *find(const char *name, int version, cuuint64_t flags)
{
    void *at = &at;
    CUresult r = cuGetProcAddress_v2(name, &at, version, flags, NULL);

    cr_assert(r == (at ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND), "%s: %d", name, r);
    return at;
}

Test(proc, picks_the_newest_entry_that_the_version_knows)
{
    cr_assert_eq(find("cuCtxCreate", 2000, 0), (void *)cuCtxCreate);
    cr_assert_eq(find("cuCtxCreate", 3010, 0), (void *)cuCtxCreate);
    cr_assert_eq(find("cuCtxCreate", 3020, 0), (void *)cuCtxCreate_v2);
    cr_assert_eq(find("cuCtxCreate", 11040, 0), (void *)cuCtxCreate_v3);
    cr_assert_eq(find("cuCtxCreate", 13000, 0), (void *)cuCtxCreate_v4);
    cr_assert_eq(find("cuCtxCreate", 99000, 0), (void *)cuCtxCreate_v4);
    cr_assert_eq(find("cuDevicePrimaryCtxReset", 7000, 0), (void *)cuDevicePrimaryCtxReset);
    cr_assert_eq(find("cuDevicePrimaryCtxReset", 11000, 0), (void *)cuDevicePrimaryCtxReset_v2);
}

Test(proc, prefers_the_twin_for_per_thread_streams)
{
    cr_assert_eq(find("cuMemcpyHtoD", 13000, 2), (void *)cuMemcpyHtoD_v2_ptds);
    cr_assert_eq(find("cuMemcpyHtoD", 13000, 1), (void *)cuMemcpyHtoD_v2);
    cr_assert_eq(find("cuMemcpyHtoD", 6050, 2), (void *)cuMemcpyHtoD_v2);
    cr_assert_eq(find("cuLaunchKernel", 7000, 2), (void *)cuLaunchKernel_ptsz);
    cr_assert_eq(find("cuCtxGetCurrent", 13000, 2), (void *)cuCtxGetCurrent);
}

Test(proc, refuses_the_empty_name_and_bears_no_status)
{
    void *at = &at;

    cr_assert_eq(cuGetProcAddress_v2("", &at, 0, 0, NULL), CUDA_ERROR_NOT_FOUND);
    cr_assert_null(at);
    cr_assert_null(find("cuNoSuchCall", 13000, 0));
    cr_assert_null(find("cuCtxCreate_v2", 13000, 0), "a name is without its suffix");
    cr_assert_eq(cuGetProcAddress("cuNoSuchCall", &at, 13000, 0), CUDA_ERROR_NOT_FOUND);
    cr_assert_eq(cuGetProcAddress("cuInit", &at, 13000, 0), CUDA_SUCCESS);
    cr_assert_eq(at, (void *)cuInit);
}

Test(proc, tells_an_unknown_name_from_an_old_version)
{
    CUdriverProcAddressQueryResult status;
    void *at = &at;

    cr_assert_eq(cuGetProcAddress_v2("cuNoSuchCall", &at, 13000, 0, &status), CUDA_SUCCESS);
    cr_assert_eq(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    cr_assert_null(at);
    cr_assert_eq(cuGetProcAddress_v2("cuMemAllocAsync", &at, 11010, 0, &status), CUDA_SUCCESS);
    cr_assert_eq(status, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
    cr_assert_null(at);
    cr_assert_eq(cuGetProcAddress_v2("cuMemAllocAsync", &at, 11020, 0, &status), CUDA_SUCCESS);
    cr_assert_eq(status, CU_GET_PROC_ADDRESS_SUCCESS);
    cr_assert_eq(at, (void *)cuMemAllocAsync);
}

Test(proc, refuses_what_is_no_question)
{
    void *at;

    cr_assert_eq(cuGetProcAddress_v2(NULL, &at, 13000, 0, NULL), CUDA_ERROR_INVALID_VALUE);
    cr_assert_eq(cuGetProcAddress_v2("cuInit", NULL, 13000, 0, NULL), CUDA_ERROR_INVALID_VALUE);
    cr_assert_eq(cuGetProcAddress_v2("cuInit", &at, 13000, 3, NULL), CUDA_ERROR_INVALID_VALUE);
}

Test(proc, finds_every_row_at_its_own_version)
{
    for (size_t n = 0; n < tfr_face_row_n; n++) {
        const struct tfr_face_row *row = &tfr_face_rows[n];
        cr_assert_eq(find(row->name, row->version, 0), (void *)row->symbol, "%s %d", row->name,
                     row->version);
        if (row->twin)
            cr_assert_eq(find(row->name, row->twin_version, 2), (void *)row->twin, "%s", row->name);
    }
    cr_assert_gt(tfr_face_row_n, 500);
}

Test(proc, an_old_name_calls_its_successor)
{
    cr_assert_eq(cuCtxDestroy(host_context(0)), CUDA_SUCCESS);
    cr_assert_eq(host_destroyed, 1);
}

Test(proc, what_nobody_implements_is_not_supported)
{
    CUtexref ref;

    cr_assert_eq(cuTexRefCreate(&ref), CUDA_ERROR_NOT_SUPPORTED);
    cr_assert_eq(cuStreamWaitValue32(NULL, 0, 0, 0), CUDA_ERROR_NOT_SUPPORTED);
}
