/* A grid that synchronises with itself: cooperative launches, as large as occupancy allows, and the
 * refusal of one that is larger. */
#include <cooperative_groups.h>

#include "check.h"

namespace cg = cooperative_groups;

/* Rounds of a reduction over all blocks, with a barrier of the grid between them. */
__global__ void rounds(unsigned *x, unsigned *sums, int n, int times)
{
    cg::grid_group grid = cg::this_grid();
    for (int t = 0; t < times; t++) {
        unsigned sum = 0;
        for (unsigned long long i = grid.thread_rank(); i < (unsigned long long)n; i += grid.size())
            sum += x[i];
        atomicAdd(&sums[t], sum);
        grid.sync();
        unsigned all = *(volatile unsigned *)&sums[t];
        for (unsigned long long i = grid.thread_rank(); i < (unsigned long long)n; i += grid.size())
            x[i] = x[i] * 5 + all;
        grid.sync();
    }
}

__global__ void tiles(int *out)
{
    cg::thread_block block = cg::this_thread_block();
    cg::thread_block_tile<8> tile = cg::tiled_partition<8>(block);
    int value = tile.thread_rank() + 1;
    for (int step = tile.size() / 2; step; step /= 2)
        value += tile.shfl_down(value, step);
    if (tile.thread_rank() == 0)
        out[block.thread_rank() / 8] = value + (int)tile.meta_group_rank() * 100;
}

int main(void)
{
    enum { N = 10000, TIMES = 4, THREADS = 128 };
    static unsigned x[N], want[N], sums[TIMES];
    int blocks = 0, can = 0, sms = 0, dev = 0, n = N, times = TIMES;
    unsigned *dx = (unsigned *)device_alloc(sizeof x), *ds = (unsigned *)device_alloc(sizeof sums);
    CUDA(cudaDeviceGetAttribute(&can, cudaDevAttrCooperativeLaunch, dev));
    CUDA(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, dev));
    CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, rounds, THREADS, 0));
    printf("can: %d, fits: %d\n", can, blocks > 0 && sms > 0);
    for (int i = 0; i < N; i++)
        want[i] = x[i] = (unsigned)i * 2654435761u >> 20;
    for (int grid = 1; grid <= 8 && grid <= blocks * sms; grid *= 2) {
        void *args[] = {&dx, &ds, &n, &times};
        CUDA(cudaMemcpy(dx, x, sizeof x, cudaMemcpyHostToDevice));
        CUDA(cudaMemset(ds, 0, sizeof sums));
        CUDA(cudaLaunchCooperativeKernel((void *)rounds, grid, THREADS, args, 0, 0));
        CUDA(cudaMemcpy(sums, ds, sizeof sums, cudaMemcpyDeviceToHost));
        printf("%d blocks: %u %u %u %u\n", grid, sums[0], sums[1], sums[2], sums[3]);
    }
    void *args[] = {&dx, &ds, &n, &times};
    show("more blocks than fit",
         cudaLaunchCooperativeKernel((void *)rounds, blocks * sms + 1, THREADS, args, 0, 0));
    cudaGetLastError();
    int out[8];
    tiles<<<1, 64>>>((int *)dx);
    LAUNCHED();
    CUDA(cudaMemcpy(out, dx, sizeof out, cudaMemcpyDeviceToHost));
    printf("tiles:");
    for (int i = 0; i < 8; i++)
        printf(" %d", out[i]);
    printf("\n");
    unsigned all = 0;
    for (int i = 0; i < N; i++)
        all += want[i];
    CHECK(all == sums[0]);
    CUDA(cudaFree(dx));
    CUDA(cudaFree(ds));
    return 0;
}
