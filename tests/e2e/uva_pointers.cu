/* What an address is: kinds, bases and sizes of allocations, addresses inside structs that kernels
 * follow, and the errors of pointers that are none or are none any more. */
#include "check.h"

struct node {
    struct node *next;
    unsigned value;
};

__global__ void link_up(struct node *first, struct node **others, int n)
{
    struct node *at = first;
    at->value = 1;
    for (int i = 0; i < n; i++) {
        at->next = others[i];
        at = at->next;
        at->value = i + 2;
    }
    at->next = NULL;
}

__global__ void walk(const struct node *at, unsigned *sum)
{
    for (; at; at = at->next)
        *sum += at->value;
}

static void kind(const char *what, const void *ptr)
{
    static const char *const name[] = {"unregistered", "host", "device", "managed"};
    cudaPointerAttributes about;
    CUDA(cudaPointerGetAttributes(&about, ptr));
    printf("%s: %s, device pointer %s, host pointer %s\n", what, name[about.type],
           about.devicePointer == ptr ? "the same"
           : about.devicePointer      ? "another"
                                      : "none",
           about.hostPointer == ptr ? "the same"
           : about.hostPointer      ? "another"
                                    : "none");
}

static void chain(void)
{
    enum { N = 40 };
    struct node *first = (struct node *)device_alloc(sizeof(*first)), *node[N], **others;
    unsigned *sum = (unsigned *)device_alloc(sizeof(*sum)), got;
    others = (struct node **)device_alloc(sizeof(node));
    for (int i = 0; i < N; i++)
        node[i] = (struct node *)device_alloc(i % 7 ? sizeof(**node) : 1 << 20);
    CUDA(cudaMemset(sum, 0, sizeof(*sum)));
    CUDA(cudaMemcpy(others, node, sizeof(node), cudaMemcpyHostToDevice));
    link_up<<<1, 1>>>(first, others, N);
    walk<<<1, 1>>>(first, sum);
    LAUNCHED();
    CUDA(cudaMemcpy(&got, sum, sizeof(got), cudaMemcpyDeviceToHost));
    printf("sum over the chain: %u\n", got);
    for (int i = 0; i < N; i++)
        CUDA(cudaFree(node[i]));
    CUDA(cudaFree(others));
    CUDA(cudaFree(sum));
    CUDA(cudaFree(first));
}

static void inside(char *dev, size_t len)
{
    size_t pitch, size = 0;
    void *rows;
    CHECK((size_t)dev % 256 == 0);
    kind("the middle of an allocation", dev + len / 2);
    show("a free of its middle", cudaFree(dev + len / 2));
    show("a copy from its last byte", cudaMemcpy(&size, dev + len - 1, 1, cudaMemcpyDefault));
    CUDA(cudaMallocPitch(&rows, &pitch, 1000, 30));
    CHECK(pitch >= 1000 && pitch % 32 == 0 && (size_t)rows % 256 == 0);
    CUDA(cudaMemset2D(rows, pitch, 3, 1000, 30));
    CUDA(cudaFree(rows));
    show("a free of it again", cudaFree(rows));
    (void)cudaGetLastError();
}

int main(void)
{
    size_t len = 3 << 20;
    char *dev = (char *)device_alloc(len), *pinned, *heap = (char *)malloc(8192), onstack[16];
    CUDA(cudaHostAlloc(&pinned, 100000, cudaHostAllocMapped | cudaHostAllocPortable));
    kind("device memory", dev);
    kind("pinned memory", pinned);
    kind("the heap", heap);
    kind("the stack", onstack);
    inside(dev, len);
    chain();
    unsigned flags = 0;
    CUDA(cudaHostGetFlags(&flags, pinned));
    printf("flags of pinned memory: %u\n", flags);
    CUDA(cudaHostRegister(heap, 8192, cudaHostRegisterDefault));
    show("registered again", cudaHostRegister(heap, 8192, 0));
    show("a part registered", cudaHostRegister(heap + 4096, 16, 0));
    show("freed as pinned", cudaFreeHost(heap));
    CUDA(cudaHostUnregister(heap));
    show("unregistered again", cudaHostUnregister(heap));
    show("pinned memory unregistered", cudaHostUnregister(pinned + 1));
    int read_only = 0;
    CUDA(cudaDeviceGetAttribute(&read_only, cudaDevAttrHostRegisterReadOnlySupported, 0));
    cudaError_t got = cudaHostRegister(heap, 8192, cudaHostRegisterReadOnly);
    CHECK(got == (read_only ? cudaSuccess : cudaErrorNotSupported));
    if (read_only)
        CUDA(cudaHostUnregister(heap));
    (void)cudaGetLastError();
    show("no bytes registered", cudaHostRegister(heap, 0, 0));
    show("pinned memory freed as device memory", cudaFree(onstack));
    (void)cudaGetLastError();
    CUDA(cudaFreeHost(pinned));
    show("freed twice", cudaFreeHost(pinned));
    (void)cudaGetLastError();
    CUDA(cudaFree(dev));
    free(heap);
    return 0;
}
