/* Virtual memory management: what may be touched, and when. */
#include "tests/unit/softgpu/api_kit.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { UNIT = 2 << 20 };

static const CUmemAllocationProp prop = {
    .type = CU_MEM_ALLOCATION_TYPE_PINNED,
    .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
static const CUmemAccessDesc both = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0},
                                     .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};

Test(soft_vmm, maps_memory_where_it_was_reserved)
{
    struct kit k = kit_open();
    CUdeviceptr at;
    CUmemGenericAllocationHandle a, b;
    size_t unit;
    ok(cuMemGetAllocationGranularity(&unit, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    cr_assert_eq(unit, UNIT);
    ok(cuMemAddressReserve(&at, 4 * UNIT, 0, 0, 0));
    ok(cuMemCreate(&a, UNIT, &prop, 0));
    ok(cuMemCreate(&b, 2 * UNIT, &prop, 0));
    ok(cuMemMap(at, UNIT, 0, a, 0));
    ok(cuMemMap(at + UNIT, 2 * UNIT, 0, b, 0));
    ok(cuMemSetAccess(at, 3 * UNIT, &both, 1));
    ok(kit_launch(k.fill, NULL, at + UNIT - 512, 256, 77)); /* across the seam */
    ok(cuCtxSynchronize());
    cr_expect_eq(kit_read(at + UNIT - 4), 77);
    cr_expect_eq(kit_read(at + UNIT + 508), 77);
    answers(cuMemMap(at, UNIT, 0, a, 0), CUDA_ERROR_INVALID_VALUE);
    answers(cuMemAddressFree(at, 4 * UNIT), CUDA_ERROR_INVALID_VALUE);
    answers(cuMemUnmap(at + 2 * UNIT, UNIT), CUDA_ERROR_INVALID_VALUE); /* half a mapping */
    ok(cuMemUnmap(at, 3 * UNIT));
    ok(cuMemAddressFree(at, 4 * UNIT));
    ok(cuMemRelease(a));
    ok(cuMemRelease(b));
    answers(cuMemRelease(b), CUDA_ERROR_INVALID_VALUE);
}

Test(soft_vmm, keeps_the_bytes_when_they_move)
{
    CUdeviceptr one, two;
    CUmemGenericAllocationHandle a;
    kit_open();
    ok(cuMemAddressReserve(&one, UNIT, 0, 0, 0));
    ok(cuMemAddressReserve(&two, UNIT, 0, 0, 0));
    ok(cuMemCreate(&a, UNIT, &prop, 0));
    ok(cuMemMap(one, UNIT, 0, a, 0));
    ok(cuMemMap(two, UNIT, 0, a, 0)); /* at the same time */
    ok(cuMemRelease(a));
    ok(cuMemSetAccess(one, UNIT, &both, 1));
    ok(cuMemSetAccess(two, UNIT, &both, 1));
    ok(cuMemsetD32(one, 1234, 1));
    ok(cuCtxSynchronize());
    cr_expect_eq(kit_read(two), 1234);
    ok(cuMemUnmap(one, UNIT));
    cr_expect_eq(kit_read(two), 1234);
}

Test(soft_vmm, faults_a_kernel_before_access_was_set)
{
    struct kit k = kit_open();
    CUdeviceptr at;
    CUmemGenericAllocationHandle a;
    char byte = 0;
    ok(cuMemAddressReserve(&at, UNIT, 0, 0, 0));
    ok(cuMemCreate(&a, UNIT, &prop, 0));
    ok(cuMemMap(at, UNIT, 0, a, 0));
    answers(cuMemcpyHtoD(at, &byte, 1), CUDA_ERROR_INVALID_VALUE);
    ok(kit_launch(k.fill, NULL, at, 1, 1));
    answers(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
}

Test(soft_vmm, faults_a_write_to_read_only_memory)
{
    struct kit k = kit_open();
    CUdeviceptr at;
    CUmemGenericAllocationHandle a;
    CUmemAccessDesc read = both;
    unsigned long long flags;
    read.flags = CU_MEM_ACCESS_FLAGS_PROT_READ;
    ok(cuMemAddressReserve(&at, UNIT, 0, 0, 0));
    ok(cuMemCreate(&a, UNIT, &prop, 0));
    ok(cuMemMap(at, UNIT, 0, a, 0));
    ok(cuMemSetAccess(at, UNIT, &read, 1));
    ok(cuMemGetAccess(&flags, &both.location, at));
    cr_expect_eq(flags, CU_MEM_ACCESS_FLAGS_PROT_READ);
    cr_expect_eq(kit_read(at), 0);
    ok(kit_launch(k.fill, NULL, at, 1, 1));
    answers(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
}

Test(soft_vmm, honours_a_free_hint)
{
    CUdeviceptr at, again, third;
    kit_open();
    ok(cuMemAddressReserve(&at, 8 * UNIT, 0, 0, 0));
    ok(cuMemAddressFree(at, 8 * UNIT));
    ok(cuMemAddressReserve(&again, 4 * UNIT, 0, at + 2 * UNIT, 0));
    cr_expect_eq(again, at + 2 * UNIT);
    ok(cuMemAddressReserve(&third, 4 * UNIT, 0, at + 2 * UNIT, 0)); /* taken: somewhere else */
    cr_expect_neq(third, again);
}

Test(soft_vmm, leaves_a_window_to_those_who_ask_for_it)
{
    const CUdeviceptr window = 0x200000000000;
    const size_t len = (size_t)8 << 30;
    CUdeviceptr at, other;
    kit_open();
    ok(cuMemAlloc(&other, 64 << 20));
    cr_expect(other < window || other >= window + len);
    ok(cuMemAddressReserve(&at, len, 0, window, 0));
    cr_expect_eq(at, window);
    ok(cuMemAddressFree(at, len));
    /* Somebody else's mapping is not taken over. */
    void *mine = mmap((void *)window, 4096, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    cr_assert_eq((CUdeviceptr)mine, window);
    ok(cuMemAddressReserve(&at, len, 0, window, 0));
    cr_expect_neq(at, window);
    ok(cuMemAddressFree(at, len));
}

Test(soft_vmm, counts_against_the_capacity)
{
    size_t before, after, total;
    CUmemGenericAllocationHandle a, b;
    kit_open();
    ok(cuMemGetInfo(&before, &total));
    ok(cuMemCreate(&a, 4 * UNIT, &prop, 0));
    ok(cuMemGetInfo(&after, &total));
    cr_expect_eq(before - after, 4 * UNIT);
    answers(cuMemCreate(&b, total, &prop, 0), CUDA_ERROR_OUT_OF_MEMORY);
    ok(cuMemRelease(a));
    ok(cuMemGetInfo(&after, &total));
    cr_expect_eq(before, after);
}

Test(soft_vmm, finds_the_handle_of_an_address)
{
    CUdeviceptr at;
    CUmemGenericAllocationHandle a, b;
    CUmemAllocationProp found;
    kit_open();
    ok(cuMemAddressReserve(&at, UNIT, 0, 0, 0));
    ok(cuMemCreate(&a, UNIT, &prop, 0));
    ok(cuMemMap(at, UNIT, 0, a, 0));
    ok(cuMemRetainAllocationHandle(&b, (void *)(at + 5)));
    cr_expect_eq(a, b);
    ok(cuMemGetAllocationPropertiesFromHandle(&found, b));
    cr_expect_eq(found.location.id, 0);
    ok(cuMemRelease(a));
    ok(cuMemRelease(b));
    answers(cuMemRelease(b), CUDA_ERROR_INVALID_VALUE);
}

static int attribute(CUdevice_attribute which)
{
    int value = -1;
    ok(cuDeviceGetAttribute(&value, which, 0));
    return value;
}

/* Memory of cuMemCreate at a reserved place. */
static CUdeviceptr mapped(size_t len)
{
    CUmemAllocationProp direct = prop;
    CUmemGenericAllocationHandle a;
    CUdeviceptr at;
    direct.allocFlags.gpuDirectRDMACapable = 1;
    ok(cuMemAddressReserve(&at, len, 0, 0, 0));
    ok(cuMemCreate(&a, len, &direct, 0));
    ok(cuMemMap(at, len, 0, a, 0));
    ok(cuMemRelease(a));
    ok(cuMemSetAccess(at, len, &both, 1));
    return at;
}

Test(soft_vmm, shares_its_memory_as_a_dma_buf_where_the_machine_makes_them)
{
    int fd = -1;
    kit_open();
    CUdeviceptr at = mapped(2 * UNIT);
    bool can = access("/dev/udmabuf", R_OK | W_OK) == 0;
    cr_assert_eq(attribute(CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED), can);
    CUresult result =
        cuMemGetHandleForAddressRange(&fd, at + UNIT, UNIT, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0);
    cr_assert_eq(result, can ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED);
    if (!can)
        cr_skip_test("no /dev/udmabuf");
    ok(cuMemsetD32(at + UNIT, 4711, UNIT / 4));
    ok(cuCtxSynchronize());
    uint32_t *seen = mmap(NULL, UNIT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(seen, MAP_FAILED);
    cr_assert_eq(seen[UNIT / 4 - 1], 4711);
    seen[0] = 12; /* as a NIC would */
    ok(cuFlushGPUDirectRDMAWrites(CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX,
                                  CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER));
    cr_assert_eq(kit_read(at + UNIT), 12);
    close(fd);
}

Test(soft_vmm, makes_no_dma_buf_of_what_is_not_one_mapping)
{
    const CUmemRangeHandleType type = CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD;
    int fd = -1;
    CUdeviceptr plain;
    kit_open();
    CUdeviceptr at = mapped(UNIT);
    ok(cuMemAlloc(&plain, UNIT));
    answers(cuMemGetHandleForAddressRange(&fd, plain, 4096, type, 0), CUDA_ERROR_NOT_SUPPORTED);
    answers(cuMemGetHandleForAddressRange(&fd, at, 2 * UNIT, type, 0), CUDA_ERROR_INVALID_VALUE);
    answers(cuMemGetHandleForAddressRange(&fd, at + 1, 4096, type, 0), CUDA_ERROR_INVALID_VALUE);
    answers(cuMemGetHandleForAddressRange(&fd, at, 0, type, 0), CUDA_ERROR_INVALID_VALUE);
    answers(cuMemGetHandleForAddressRange(NULL, at, 4096, type, 0), CUDA_ERROR_INVALID_VALUE);
    answers(cuMemGetHandleForAddressRange(&fd, 4096, 4096, type, 0), CUDA_ERROR_INVALID_VALUE);
    cr_assert_eq(fd, -1);
}

Test(soft_vmm, says_what_it_can_of_gpudirect)
{
    kit_open();
    cr_assert_eq(attribute(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED), 1);
    cr_assert_eq(attribute(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED), 1);
    cr_assert_eq(attribute(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WRITES_ORDERING),
                 CU_GPU_DIRECT_RDMA_WRITES_ORDERING_ALL_DEVICES);
    cr_assert(attribute(CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS) &
              CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST);
    answers(cuFlushGPUDirectRDMAWrites((CUflushGPUDirectRDMAWritesTarget)1,
                                       CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER),
            CUDA_ERROR_INVALID_VALUE);
}
