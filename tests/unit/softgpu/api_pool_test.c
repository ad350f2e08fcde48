/* Pools: what they say of their memory. */
#include "tests/unit/softgpu/api_kit.h"

enum { MIB = 1 << 20 };

static uint64_t get(CUmemoryPool pool, CUmemPool_attribute attribute)
{
    cuuint64_t value = 0;
    ok(cuMemPoolGetAttribute(pool, attribute, &value));
    return value;
}

static CUresult set(CUmemoryPool pool, CUmemPool_attribute attribute, uint64_t wanted)
{
    cuuint64_t value = wanted;
    return cuMemPoolSetAttribute(pool, attribute, &value);
}

static CUmemoryPool pool_open(void)
{
    CUmemoryPool pool;
    kit_open();
    ok(cuDeviceGetDefaultMemPool(&pool, 0));
    return pool;
}

Test(soft_pool, shrinks_to_its_threshold_when_somebody_waits)
{
    CUmemoryPool pool = pool_open();
    CUdeviceptr at;
    ok(cuMemAllocAsync(&at, 40 * MIB, NULL));
    cr_expect_eq(get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 40 * MIB);
    cr_expect_geq(get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 40 * MIB);
    ok(cuMemFreeAsync(at, NULL));
    ok(cuStreamSynchronize(NULL));
    cr_expect_eq(get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0);
    cr_expect_eq(get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 0);

    ok(set(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, UINT64_MAX));
    ok(cuMemAllocAsync(&at, 40 * MIB, NULL));
    ok(cuMemFreeAsync(at, NULL));
    ok(cuStreamSynchronize(NULL));
    cr_expect_geq(get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 40 * MIB);
    ok(cuMemPoolTrimTo(pool, 0));
    cr_expect_eq(get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT), 0);
}

Test(soft_pool, keeps_two_high_water_marks)
{
    CUmemoryPool pool = pool_open();
    CUdeviceptr a, b;
    ok(cuMemAllocAsync(&a, MIB, NULL));
    ok(cuMemAllocAsync(&b, MIB, NULL));
    ok(cuMemFreeAsync(b, NULL));
    ok(cuStreamSynchronize(NULL));
    cr_expect_eq(get(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH), 2 * MIB);
    cr_expect_geq(get(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH), 2 * MIB);
    answers(set(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, 5), CUDA_ERROR_INVALID_VALUE);
    answers(set(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, 0), CUDA_ERROR_INVALID_VALUE);
    ok(set(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0));
    cr_expect_eq(get(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH), MIB);
    ok(cuMemFreeAsync(a, NULL));
    ok(cuStreamSynchronize(NULL));
}

Test(soft_pool, forgets_what_a_context_took_with_it)
{
    CUmemoryPool pool = pool_open();
    CUcontext ctx;
    CUdeviceptr at;
    ok(cuCtxGetCurrent(&ctx));
    for (int i = 0; i < 50; i++)
        ok(cuMemAllocAsync(&at, i % 2 ? 700 : 3 * MIB, NULL));
    cr_expect_gt(get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0);
    ok(cuCtxDestroy(ctx));
    cr_expect_eq(get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0);
}

Test(soft_pool, is_a_thing_of_its_own)
{
    const CUmemPoolProps props = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                                  .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    CUmemPoolProps shared = props;
    CUmemoryPool pool, other = pool_open();
    CUdeviceptr at;
    shared.handleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    answers(cuMemPoolCreate(&pool, &shared), CUDA_ERROR_NOT_SUPPORTED);
    ok(cuMemPoolCreate(&pool, &props));
    ok(cuMemAllocFromPoolAsync(&at, MIB, pool, NULL));
    cr_expect_eq(get(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), MIB);
    cr_expect_eq(get(other, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0);
    ok(cuMemPoolDestroy(pool));
    answers(cuMemPoolDestroy(pool), CUDA_ERROR_INVALID_VALUE);
    answers(cuMemPoolDestroy(other), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemsetD8(at, 1, MIB)); /* the allocation outlives its pool */
    ok(cuMemFreeAsync(at, NULL));
    ok(cuCtxSynchronize());
}
