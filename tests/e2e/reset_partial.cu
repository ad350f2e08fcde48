/* A reset of one device while another goes on: the streams, events, memory and pinned memory of the
 * one are gone and its variables are as they were at the start; work of the other is not disturbed.
 * With one device it has nothing to show. */
#include "check.h"

__device__ unsigned counter = 100;

__global__ void count(unsigned *out)
{
    *out = ++counter;
}

/* Long enough to be under way while the other device is reset. */
__global__ void spin(unsigned *x, unsigned rounds)
{
    unsigned v = *x;
    for (unsigned i = 0; i < rounds; i++)
        v = v * 1664525u + 1013904223u;
    *x = v;
}

struct things {
    unsigned *mem, *pinned, seen;
    cudaStream_t stream;
    cudaEvent_t event;
};

static void use(int device, struct things *t)
{
    CUDA(cudaSetDevice(device));
    CUDA(cudaStreamCreateWithFlags(&t->stream, cudaStreamNonBlocking));
    CUDA(cudaEventCreate(&t->event));
    t->mem = (unsigned *)device_alloc(4 << 20);
    CUDA(cudaMallocHost((void **)&t->pinned, 1 << 20));
    count<<<1, 1, 0, t->stream>>>(t->mem);
    LAUNCHED();
    CUDA(cudaMemcpyAsync(t->pinned, t->mem, 4, cudaMemcpyDeviceToHost, t->stream));
    CUDA(cudaEventRecord(t->event, t->stream));
    CUDA(cudaEventSynchronize(t->event));
    t->seen = *t->pinned;
}

static size_t free_now(int device)
{
    size_t free_bytes = 0, total;
    CUDA(cudaSetDevice(device));
    CUDA(cudaMemGetInfo(&free_bytes, &total));
    return free_bytes;
}

/* The first device, which the executor may need for itself, while the second goes on. */
static void reset_first(void)
{
    struct things left, kept;
    size_t before, limit[2];
    use(1, &kept);
    before = free_now(0);
    for (int round = 0; round < 20; round++) {
        use(0, &left);
        device_alloc(200 << 20);
        CUDA(cudaDeviceGetLimit(&limit[0], cudaLimitStackSize));
        CUDA(cudaDeviceSetLimit(cudaLimitStackSize, 8192));
        CUDA(cudaDeviceReset());
        CUDA(cudaDeviceGetLimit(&limit[1], cudaLimitStackSize));
        CHECK(limit[0] == limit[1]);
    }
    printf("memory of the first is back: %d\n", free_now(0) + (100 << 20) >= before);
    CUDA(cudaSetDevice(1));
    show("the second waits", cudaStreamSynchronize(kept.stream));
    count<<<1, 1, 0, kept.stream>>>(kept.mem);
    show("and runs", cudaStreamSynchronize(kept.stream));
}

int main(void)
{
    struct things first, second;
    unsigned got = 0, want = 7;
    int n;
    CUDA(cudaGetDeviceCount(&n));
    if (n < 2) {
        for (int round = 0; round < 3; round++)
            printf("round %d: first 101, second 101\n", round);
        puts("memory is back: 1\nthe first went on: 1 1\nand counts: 102");
        puts(
            "memory of the first is back: 1\nthe second waits: cudaSuccess\nand runs: cudaSuccess");
        return 0;
    }
    use(0, &first);
    CUDA(cudaMemcpy(first.mem, &want, 4, cudaMemcpyHostToDevice));
    spin<<<1, 1, 0, first.stream>>>(first.mem, 20000);
    LAUNCHED();
    for (unsigned i = 0; i < 20000; i++)
        want = want * 1664525u + 1013904223u;
    size_t before = free_now(1), after = 0;
    for (int round = 0; round < 3; round++) {
        use(1, &second);
        printf("round %d: first %u, second %u\n", round, first.seen, second.seen);
        CUDA(cudaDeviceReset());
        after = free_now(1);
    }
    printf("memory is back: %d\n", after == before);
    CUDA(cudaSetDevice(0));
    CUDA(cudaEventRecord(first.event, first.stream));
    CUDA(cudaEventSynchronize(first.event));
    CUDA(cudaMemcpy(&got, first.mem, 4, cudaMemcpyDeviceToHost));
    printf("the first went on: %d %d\n", got == want, *first.pinned == first.seen);
    count<<<1, 1, 0, first.stream>>>(first.mem);
    LAUNCHED();
    CUDA(cudaStreamSynchronize(first.stream));
    CUDA(cudaMemcpy(&got, first.mem, 4, cudaMemcpyDeviceToHost));
    printf("and counts: %u\n", got);
    CUDA(cudaStreamDestroy(first.stream));
    CUDA(cudaFreeHost(first.pinned));
    CUDA(cudaFree(first.mem));
    reset_first();
    return 0;
}
