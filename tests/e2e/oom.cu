/* Memory to the last byte: what can be allocated is what cudaMemGetInfo says, to the granularity of
 * 2 MiB; freed, it is there again, in one piece as in many.  Run with little memory
 * (TFR_SOFT_MEMORY): a real device is filled up to a part only. */
#include "check.h"

enum { BLOCK = 2 << 20, BLOCKS_MAX = 4096 };
static void *block[BLOCKS_MAX];

static size_t free_bytes(void)
{
    size_t left, total;
    CUDA(cudaMemGetInfo(&left, &total));
    CHECK(left <= total);
    return left;
}

/* As many blocks as there are: the count. */
static int take_all(void)
{
    int n = 0;
    cudaError_t got = cudaSuccess;
    while (n < BLOCKS_MAX && (got = cudaMalloc(&block[n], BLOCK)) == cudaSuccess)
        n++;
    CHECK(n == BLOCKS_MAX || got == cudaErrorMemoryAllocation);
    CHECK(n == BLOCKS_MAX || cudaGetLastError() == cudaErrorMemoryAllocation);
    return n;
}

static void give_all(int n)
{
    for (int i = 0; i < n; i++)
        CUDA(cudaFree(block[i]));
}

int main(void)
{
    void *one = device_alloc(512);
    CUDA(cudaFree(one));
    size_t before = free_bytes();
    int n = take_all();
    CHECK(n == BLOCKS_MAX || (size_t)n == before / BLOCK);
    CHECK(n == BLOCKS_MAX || free_bytes() < BLOCK);
    printf("all of it can be had\n");
    give_all(n);
    CHECK(free_bytes() == before);
    printf("all of it is free again\n");
    CHECK(take_all() == n);
    for (int i = 0; i < n; i += 2)
        CUDA(cudaFree(block[i]));
    for (int i = 0; i < n; i += 2)
        CUDA(cudaMalloc(&block[i], BLOCK));
    give_all(n);
    printf("holes are filled\n");
    size_t whole = (size_t)n * BLOCK;
    CUDA(cudaMalloc(&one, whole));
    CUDA(cudaMemset(one, 1, whole));
    CUDA(cudaFree(one));
    CHECK(free_bytes() == before);
    printf("it can be had in one piece\n");
    show("more than there is", cudaMalloc(&one, (size_t)1 << 50));
    show("with 2^64 - 1 bytes", cudaMalloc(&one, ~(size_t)0));
    return 0;
}
