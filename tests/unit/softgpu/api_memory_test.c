/* Memory: accounting, ranges, host memory, pools, copies and memsets. */
#include "tests/unit/softgpu/api_kit.h"

static size_t free_now(void)
{
    size_t free_len, total;
    ok(cuMemGetInfo(&free_len, &total));
    return free_len;
}

Test(soft_memory, gives_out_exactly_its_capacity)
{
    kit_open();
    size_t all = free_now() & ~(size_t)4095, half = all / 2 & ~(size_t)4095;
    CUdeviceptr a, b, c;
    ok(cuMemAlloc(&a, half));
    ok(cuMemAlloc(&b, all - half));
    answers(cuMemAlloc(&c, 4096), CUDA_ERROR_OUT_OF_MEMORY);
    ok(cuMemFree(a));
    ok(cuMemAlloc(&c, half));
    ok(cuMemFree(b));
    ok(cuMemFree(c));
    cr_expect_eq(free_now() & ~(size_t)4095, all);
    answers(cuMemAlloc(&c, SIZE_MAX), CUDA_ERROR_OUT_OF_MEMORY);
    answers(cuMemAlloc(&c, 0), CUDA_ERROR_INVALID_VALUE);
}

Test(soft_memory, accounts_for_every_small_allocation)
{
    enum { N = 3000 };
    CUdeviceptr at[N];
    kit_open();
    size_t before = free_now();
    for (uint32_t i = 0; i < N; i++) {
        ok(cuMemAlloc(&at[i], 4 + i * 37 % 9000));
        cr_assert_eq(at[i] % 512, 0);
        ok(cuMemsetD32(at[i], i, 1));
    }
    for (uint32_t i = 0; i < N; i++)
        cr_assert_eq(kit_read(at[i]), i);
    for (uint32_t i = 0; i < N; i++)
        ok(cuMemFree(at[i * 7 % N]));
    cr_expect_eq(free_now(), before);
}

Test(soft_memory, refuses_wrong_frees)
{
    CUdeviceptr small, large;
    kit_open();
    ok(cuMemAlloc(&small, 4096));
    ok(cuMemAlloc(&large, 8 << 20));
    answers(cuMemFree(small + 512), CUDA_ERROR_INVALID_VALUE);
    answers(cuMemFree(large + (2 << 20)), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemFree(small));
    answers(cuMemFree(small), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemFree(large));
    answers(cuMemFree(large), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemFree(0));
}

Test(soft_memory, refuses_copies_beyond_an_allocation)
{
    CUdeviceptr at;
    char host[2048] = {0};
    kit_open();
    ok(cuMemAlloc(&at, 1000));
    ok(cuMemcpyHtoD(at, host, 1000));
    answers(cuMemcpyHtoD(at, host, 1001), CUDA_ERROR_INVALID_VALUE);
    answers(cuMemcpyDtoH(host, at + 999, 2), CUDA_ERROR_INVALID_VALUE);
    answers(cuMemsetD8(at, 0, 1001), CUDA_ERROR_INVALID_VALUE);
    answers(cuMemcpyHtoD((CUdeviceptr)host, host + 100, 10), CUDA_ERROR_INVALID_VALUE);
}

Test(soft_memory, knows_where_an_address_belongs)
{
    struct kit k = kit_open();
    CUdeviceptr at, base;
    size_t len;
    unsigned int type;
    CUcontext ctx;
    char stack;
    ok(cuMemAlloc(&at, 5000));
    ok(cuMemGetAddressRange(&base, &len, at + 4999));
    cr_expect_eq(base, at);
    cr_expect_eq(len, 5000);
    answers(cuMemGetAddressRange(&base, &len, at + 5000), CUDA_ERROR_NOT_FOUND);
    ok(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, at + 7));
    cr_expect_eq(type, CU_MEMORYTYPE_DEVICE);
    ok(cuPointerGetAttribute(&ctx, CU_POINTER_ATTRIBUTE_CONTEXT, at));
    cr_expect_eq(ctx, k.ctx);
    ok(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                             (CUdeviceptr)kit_words() + 5));
    cr_expect_eq(type, CU_MEMORYTYPE_HOST);
    answers(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)&stack),
            CUDA_ERROR_INVALID_VALUE);
}

Test(soft_memory, registers_host_memory_once)
{
    char *at = aligned_alloc(4096, 16384);
    struct kit k = kit_open();
    CUdeviceptr dev;
    answers(cuMemHostUnregister(at), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    answers(cuMemHostGetDevicePointer(&dev, at, 0), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemHostRegister(at, 8192, 0));
    answers(cuMemHostRegister(at, 8192, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    answers(cuMemHostRegister(at + 4096, 8192, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    ok(cuMemHostGetDevicePointer(&dev, at + 100, 0));
    cr_expect_eq(dev, (CUdeviceptr)at + 100);
    ok(kit_launch(k.fill, NULL, (CUdeviceptr)at, 2048, 9));
    ok(cuCtxSynchronize());
    cr_expect_eq(*(uint32_t *)(at + 8188), 9);
    answers(cuMemFreeHost(at), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemHostUnregister(at));
    answers(cuMemHostUnregister(at), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    free(at);
}

Test(soft_memory, frees_in_stream_order)
{
    struct kit k = kit_open();
    volatile uint32_t *word = kit_words();
    CUstream s;
    CUdeviceptr at, other;
    size_t before = free_now();
    ok(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    ok(kit_spin(&k, s, (CUdeviceptr)word, 1));
    ok(cuMemAllocAsync(&at, 4096, s));
    ok(kit_launch(k.fill, s, at, 1024, 5));
    ok(cuMemFreeAsync(at, s));
    answers(cuMemFreeAsync(at, s), CUDA_ERROR_INVALID_VALUE);
    ok(cuMemAllocAsync(&other, 4096, s));
    cr_expect_neq(other, at);
    word[0] = 1;
    ok(cuMemFreeAsync(other, s));
    ok(cuStreamSynchronize(s));
    cr_expect_eq(free_now(), before);
}

Test(soft_memory, waits_for_pending_frees_before_it_is_out_of_memory)
{
    kit_open();
    size_t most = free_now() / 4 * 3;
    CUdeviceptr a, b;
    ok(cuMemAllocAsync(&a, most, NULL));
    ok(cuMemFreeAsync(a, NULL));
    ok(cuMemAllocAsync(&b, most, NULL));
    ok(cuMemFreeAsync(b, NULL));
    ok(cuStreamSynchronize(NULL));
}

Test(soft_memory, fills_by_width_and_rows)
{
    uint32_t host[16];
    kit_open();
    CUdeviceptr at = kit_zeros(64);
    ok(cuMemsetD16(at + 2, 0x1234, 1));
    ok(cuMemsetD32(at + 4, 0xdeadbeef, 2));
    ok(cuMemsetD2D8(at + 16, 16, 0xaa, 3, 3));
    ok(cuMemcpyDtoH(host, at, 64));
    cr_expect_eq(host[0], 0x12340000);
    cr_expect_eq(host[1], 0xdeadbeef);
    cr_expect_eq(host[2], 0xdeadbeef);
    cr_expect_eq(host[3], 0);
    cr_expect_eq(host[4], 0x00aaaaaa);
    cr_expect_eq(host[12], 0x00aaaaaa);
    cr_expect_eq(host[13], 0);
    answers(cuMemsetD32(at + 2, 0, 1), CUDA_ERROR_INVALID_VALUE);
}

Test(soft_memory, copies_a_rectangle)
{
    uint8_t host[8][10];
    kit_open();
    CUdeviceptr at;
    size_t pitch;
    ok(cuMemAllocPitch(&at, &pitch, 10, 8, 4));
    cr_assert_geq(pitch, 10);
    ok(cuMemsetD2D8(at, pitch, 1, 10, 8));
    for (int i = 0; i < 80; i++)
        host[i / 10][i % 10] = (uint8_t)i;
    CUDA_MEMCPY2D c = {.srcMemoryType = CU_MEMORYTYPE_HOST,
                       .srcHost = host,
                       .srcPitch = 10,
                       .srcXInBytes = 2,
                       .srcY = 1,
                       .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                       .dstDevice = at,
                       .dstPitch = pitch,
                       .dstXInBytes = 3,
                       .dstY = 2,
                       .WidthInBytes = 4,
                       .Height = 3};
    ok(cuMemcpy2D(&c));
    CUDA_MEMCPY2D back = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                          .srcDevice = at,
                          .srcPitch = pitch,
                          .dstMemoryType = CU_MEMORYTYPE_HOST,
                          .dstHost = host,
                          .dstPitch = 10,
                          .WidthInBytes = 10,
                          .Height = 8};
    ok(cuMemcpy2D(&back));
    cr_expect_eq(host[2][2], 1);
    cr_expect_eq(host[2][3], 12);
    cr_expect_eq(host[4][6], 35);
    cr_expect_eq(host[4][7], 1);
    cr_expect_eq(host[5][3], 1);
}

Test(soft_memory, gives_everything_back_with_the_context)
{
    CUdeviceptr at;
    CUcontext primary;
    ok(cuInit(0));
    ok(cuDevicePrimaryCtxRetain(&primary, 0));
    ok(cuCtxSetCurrent(primary));
    size_t before = free_now();
    struct kit k = kit_open();
    ok(cuMemAlloc(&at, 100 << 20));
    ok(cuMemAlloc(&at, 1000));
    ok(cuMemAllocAsync(&at, 1000, NULL));
    ok(cuCtxDestroy(k.ctx));
    ok(cuCtxSetCurrent(primary));
    cr_expect_eq(free_now(), before);
}
