/* Breadth-first search by frontiers, and all shortest paths (Floyd and Warshall) by tiles: the host
 * asks after each step whether there is more to do. */
#include "check.h"

enum { NODES = 5000, DEGREE = 3, SIDE = 96, FAR = 1 << 20 };

__global__ void expand(const int *first, const int *to, int *level, int now, const int *frontier,
                       int n, int *next, int *next_n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    int node = frontier[i];
    for (int k = first[node]; k < first[node + 1]; k++)
        if (atomicCAS(&level[to[k]], -1, now + 1) == -1)
            next[atomicAdd(next_n, 1)] = to[k];
}

__global__ void relax(int *d, int k)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    int by = d[y * SIDE + k] + d[k * SIDE + x];
    if (by < d[y * SIDE + x])
        d[y * SIDE + x] = by;
}

static void search(void)
{
    static int first[NODES + 1], to[NODES * DEGREE], level[NODES];
    uint32_t seed = 21;
    for (int i = 0; i < NODES; i++) {
        first[i] = i * DEGREE;
        for (int k = 0; k < DEGREE; k++)
            to[i * DEGREE + k] =
                k ? (int)((i + check_random(&seed) % 60) % NODES) : (i * 7 + 1) % NODES;
    }
    first[NODES] = NODES * DEGREE;
    int *d_first = (int *)device_alloc(sizeof first), *d_to = (int *)device_alloc(sizeof to);
    int *d_level = (int *)device_alloc(sizeof level), *count = (int *)device_alloc(4);
    int *front = (int *)device_alloc(sizeof level), *next = (int *)device_alloc(sizeof level);
    int n = 1, source = 17, now = 0, reached = 0;
    CUDA(cudaMemcpy(d_first, first, sizeof first, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(d_to, to, sizeof to, cudaMemcpyHostToDevice));
    CUDA(cudaMemset(d_level, 0xff, sizeof level));
    CUDA(cudaMemset(d_level + source, 0, 4));
    CUDA(cudaMemcpy(front, &source, 4, cudaMemcpyHostToDevice));
    for (; n; now++) {
        reached += n;
        CUDA(cudaMemset(count, 0, 4));
        expand<<<(n + 127) / 128, 128>>>(d_first, d_to, d_level, now, front, n, next, count);
        LAUNCHED();
        CUDA(cudaMemcpy(&n, count, 4, cudaMemcpyDeviceToHost));
        int *t = front;
        front = next;
        next = t;
    }
    CUDA(cudaMemcpy(level, d_level, sizeof level, cudaMemcpyDeviceToHost));
    unsigned sum = 0;
    for (int i = 0; i < NODES; i++)
        sum = sum * 31 + (unsigned)level[i];
    printf("search: %d levels, %d nodes, %08x\n", now, reached, sum);
    CUDA(cudaFree(d_first));
    CUDA(cudaFree(d_to));
    CUDA(cudaFree(d_level));
    CUDA(cudaFree(count));
    CUDA(cudaFree(front));
    CUDA(cudaFree(next));
}

static void paths(void)
{
    static int d[SIDE * SIDE], want[SIDE * SIDE];
    uint32_t seed = 22;
    for (int i = 0; i < SIDE * SIDE; i++)
        d[i] = i % (SIDE + 1) == 0        ? 0
               : check_random(&seed) % 10 ? FAR
                                          : 1 + (int)(check_random(&seed) % 99);
    memcpy(want, d, sizeof d);
    int *dd = (int *)device_alloc(sizeof d);
    CUDA(cudaMemcpy(dd, d, sizeof d, cudaMemcpyHostToDevice));
    for (int k = 0; k < SIDE; k++)
        relax<<<dim3(SIDE / 32, SIDE / 8), dim3(32, 8)>>>(dd, k);
    LAUNCHED();
    CUDA(cudaMemcpy(d, dd, sizeof d, cudaMemcpyDeviceToHost));
    for (int k = 0; k < SIDE; k++)
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++)
                if (want[y * SIDE + k] + want[k * SIDE + x] < want[y * SIDE + x])
                    want[y * SIDE + x] = want[y * SIDE + k] + want[k * SIDE + x];
    CHECK(!memcmp(d, want, sizeof d));
    unsigned sum = 0;
    for (int i = 0; i < SIDE * SIDE; i++)
        sum = sum * 31 + (unsigned)d[i];
    printf("paths: %08x\n", sum);
    CUDA(cudaFree(dd));
}

int main(void)
{
    search();
    paths();
    return 0;
}
