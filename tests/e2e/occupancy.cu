/* Occupancy and attributes of functions, checked against each other rather than against numbers,
 * which are each device's own; the best block size, with a function of the program that says how
 * much shared memory a size needs; limits of the context. */
#include "check.h"

__global__ void plain(int *x)
{
    x[blockIdx.x * blockDim.x + threadIdx.x]++;
}

__global__ void __launch_bounds__(256) bounded(int *x)
{
    x[threadIdx.x]++;
}

__global__ void shares(int *x)
{
    extern __shared__ int room[];
    room[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = room[blockDim.x - 1 - threadIdx.x];
}

static int asked;

/* 64 bytes for each thread. */
static size_t need(int threads)
{
    asked++;
    return (size_t)threads * 64;
}

static int blocks_of(const void *fn, int threads, size_t shared)
{
    int n = -1;
    CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n, fn, threads, shared));
    return n;
}

static void blocks(const cudaDeviceProp *prop)
{
    int more = 0, n = 0;
    for (int threads = 32; threads <= 1024; threads += 32) {
        int fit = blocks_of((const void *)plain, threads, 0);
        CHECK(fit >= 1 && fit * threads <= prop->maxThreadsPerMultiProcessor);
        more += blocks_of((const void *)plain, threads, 40 << 10) > fit;
    }
    printf("more blocks with more shared memory: %d times\n", more);
    printf("no block of 1024 threads in a kernel for 256: %d\n",
           blocks_of((const void *)bounded, 1024, 0));
    show("negative size", cudaOccupancyMaxActiveBlocksPerMultiprocessor(&n, plain, -1, 0));
    show("no place for the answer",
         cudaOccupancyMaxActiveBlocksPerMultiprocessor(NULL, plain, 32, 0));
    show("unknown flags",
         cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(&n, plain, 32, 0, 64));
    size_t left = 0;
    CUDA(cudaOccupancyAvailableDynamicSMemPerBlock(&left, plain, 2, 256));
    left = left < 48 << 10 ? left : 48 << 10; /* more must be asked for */
    printf("as much shared memory as is left for two blocks: two blocks %d\n",
           blocks_of((const void *)plain, 256, left) >= 2);
}

static void sizes(const cudaDeviceProp *prop)
{
    int grid = 0, block = 0;
    CUDA(cudaOccupancyMaxPotentialBlockSize(&grid, &block, plain, 0, 0));
    CHECK(grid == blocks_of((const void *)plain, block, 0) * prop->multiProcessorCount);
    printf("plain: warps %d, threads left over %d\n", block % 32 == 0,
           prop->maxThreadsPerMultiProcessor - block * blocks_of((const void *)plain, block, 0));
    CUDA(cudaOccupancyMaxPotentialBlockSize(&grid, &block, bounded, 0, 0));
    printf("bounded: at most 256 %d\n", block <= 256);
    CUDA(cudaOccupancyMaxPotentialBlockSize(&grid, &block, plain, 0, 100));
    printf("with a limit of 100: %d\n", block <= 100);
    CUDA(cudaOccupancyMaxPotentialBlockSizeVariableSMem(&grid, &block, shares, need));
    printf("by a function: asked %d, fits %d\n", asked > 0,
           blocks_of((const void *)shares, block, need(block)) >= 1);
}

static void attributes(void)
{
    cudaFuncAttributes a;
    CUDA(cudaFuncGetAttributes(&a, bounded));
    printf("bounded: %d threads, shared %zu, registers %d\n", a.maxThreadsPerBlock,
           a.sharedSizeBytes, a.numRegs > 0);
    CUDA(cudaFuncSetAttribute(shares, cudaFuncAttributeMaxDynamicSharedMemorySize, 60 << 10));
    CUDA(cudaFuncGetAttributes(&a, shares));
    printf("dynamic shared memory: %d\n", a.maxDynamicSharedSizeBytes);
    show("more than there is",
         cudaFuncSetAttribute(shares, cudaFuncAttributeMaxDynamicSharedMemorySize, 1 << 30));
    show("carve-out",
         cudaFuncSetAttribute(shares, cudaFuncAttributePreferredSharedMemoryCarveout, 50));
    show("cache", cudaFuncSetCacheConfig(shares, cudaFuncCachePreferL1));
    cudaGetLastError();
}

static void limits(void)
{
    size_t before = 0, after = 0;
    CUDA(cudaDeviceGetLimit(&before, cudaLimitStackSize));
    CUDA(cudaDeviceSetLimit(cudaLimitStackSize, 4096));
    CUDA(cudaDeviceGetLimit(&after, cudaLimitStackSize));
    printf("stack: %d, %zu\n", before > 0, after);
    CUDA(cudaDeviceSetLimit(cudaLimitPrintfFifoSize, 2 << 20));
    CUDA(cudaDeviceGetLimit(&after, cudaLimitPrintfFifoSize));
    printf("printf: %d\n", after >= 2 << 20);
    show("no such limit", cudaDeviceGetLimit(&after, (cudaLimit)99));
    show("set it", cudaDeviceSetLimit((cudaLimit)99, 1));
    show("no place for the answer", cudaDeviceGetLimit(NULL, cudaLimitStackSize));
}

int main(void)
{
    cudaDeviceProp prop;
    int priority[2];
    CUDA(cudaGetDeviceProperties(&prop, 0));
    blocks(&prop);
    sizes(&prop);
    attributes();
    limits();
    CUDA(cudaDeviceGetStreamPriorityRange(&priority[0], &priority[1]));
    printf("priorities: %d, %d\n", priority[0], priority[1] < 0);
    return 0;
}
