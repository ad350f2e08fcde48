/* Memory pools: allocation in stream order, reuse within and between streams, attributes, mixtures
 * with cudaMalloc, mistakes. */
#include "check.h"

enum { WORDS = 1 << 16, BYTES = WORDS * sizeof(unsigned) };

__global__ void put(unsigned *x, unsigned seed)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    x[i] = seed * 2654435761u + i;
}

__global__ void check(const unsigned *x, unsigned seed, unsigned *wrong)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (x[i] != seed * 2654435761u + i)
        atomicAdd(wrong, 1);
}

static unsigned *wrong;

static void use(unsigned *x, unsigned seed, cudaStream_t stream)
{
    put<<<WORDS / 256, 256, 0, stream>>>(x, seed);
    check<<<WORDS / 256, 256, 0, stream>>>(x, seed, wrong);
    LAUNCHED();
}

static void is_right(const char *what)
{
    unsigned n;
    CUDA(cudaMemcpy(&n, wrong, sizeof(n), cudaMemcpyDeviceToHost));
    printf("%s: %u wrong\n", what, n);
}

static unsigned long long attribute(cudaMemPool_t pool, cudaMemPoolAttr which)
{
    unsigned long long value = 77;
    CUDA(cudaMemPoolGetAttribute(pool, which, &value));
    return value;
}

/* Blocks go from stream to stream while both are busy. */
static void between_streams(cudaMemPool_t pool)
{
    cudaStream_t stream[3];
    unsigned *x[3];
    for (int s = 0; s < 3; s++)
        CUDA(cudaStreamCreateWithFlags(&stream[s], s ? cudaStreamNonBlocking : 0));
    for (int k = 0; k < 60; k++) {
        for (int s = 0; s < 3; s++) {
            CUDA(cudaMallocFromPoolAsync(&x[s], BYTES, pool, stream[(s + k) % 3]));
            use(x[s], 3 * k + s, stream[(s + k) % 3]);
        }
        for (int s = 0; s < 3; s++)
            CUDA(cudaFreeAsync(x[s], stream[(s + k) % 3]));
    }
    CUDA(cudaDeviceSynchronize());
    for (int s = 0; s < 3; s++)
        CUDA(cudaStreamDestroy(stream[s]));
    is_right("between streams");
}

/* What one kind of call allocated the other may free. */
static void mixed(cudaMemPool_t pool)
{
    unsigned *a, *b;
    CUDA(cudaMallocFromPoolAsync(&a, BYTES, pool, 0));
    use(a, 1, 0);
    CUDA(cudaFree(a));
    CUDA(cudaMalloc(&b, BYTES));
    use(b, 2, 0);
    CUDA(cudaFreeAsync(b, 0));
    CUDA(cudaStreamSynchronize(0));
    is_right("mixed frees");
    show("freed twice", cudaFreeAsync(b, 0));
    show("freed twice", cudaFree(a));
    (void)cudaGetLastError();
}

static void attributes(cudaMemPool_t pool)
{
    unsigned *x[4];
    unsigned long long none = 0, keep = 1 << 20;
    int flag = -1;
    CUDA(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrUsedMemHigh, &none));
    for (int i = 0; i < 4; i++)
        CUDA(cudaMallocFromPoolAsync(&x[i], BYTES, pool, 0));
    printf("used %llu\n", attribute(pool, cudaMemPoolAttrUsedMemCurrent) / BYTES);
    CHECK(attribute(pool, cudaMemPoolAttrReservedMemCurrent) >= 4 * (size_t)BYTES);
    for (int i = 0; i < 4; i++)
        CUDA(cudaFreeAsync(x[i], 0));
    CUDA(cudaStreamSynchronize(0));
    printf("used %llu, at most %llu\n", attribute(pool, cudaMemPoolAttrUsedMemCurrent),
           attribute(pool, cudaMemPoolAttrUsedMemHigh) / BYTES);
    CUDA(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep));
    printf("threshold %llu\n", attribute(pool, cudaMemPoolAttrReleaseThreshold));
    CUDA(cudaMemPoolTrimTo(pool, 0));
    printf("reserved after the trim %llu\n", attribute(pool, cudaMemPoolAttrReservedMemCurrent));
    CUDA(cudaMemPoolGetAttribute(pool, cudaMemPoolReuseAllowOpportunistic, &flag));
    printf("opportunistic %d", flag);
    flag = 0;
    CUDA(cudaMemPoolSetAttribute(pool, cudaMemPoolReuseAllowOpportunistic, &flag));
    flag = -1;
    CUDA(cudaMemPoolGetAttribute(pool, cudaMemPoolReuseAllowOpportunistic, &flag));
    printf(", then %d\n", flag);
}

static void chosen(cudaMemPool_t pool)
{
    cudaMemPool_t first, now, other;
    cudaMemAccessDesc access;
    cudaPointerAttributes about;
    unsigned *x;
    memset(&access, 0, sizeof(access));
    access.location.type = cudaMemLocationTypeDevice;
    access.flags = cudaMemAccessFlagsProtReadWrite;
    CUDA(cudaDeviceGetDefaultMemPool(&first, 0));
    CUDA(cudaDeviceGetMemPool(&now, 0));
    CHECK(first == now && first != pool);
    CUDA(cudaDeviceSetMemPool(0, pool));
    CUDA(cudaMallocAsync(&x, BYTES, 0));
    CUDA(cudaPointerGetAttributes(&about, x));
    CHECK(about.type == cudaMemoryTypeDevice && about.devicePointer == x);
    printf("used of the chosen pool %llu\n",
           attribute(pool, cudaMemPoolAttrUsedMemCurrent) / BYTES);
    CUDA(cudaFreeAsync(x, 0));
    CUDA(cudaMemPoolSetAccess(pool, &access, 1));
    cudaMemAccessFlags flags;
    CUDA(cudaMemPoolGetAccess(&flags, pool, &access.location));
    CHECK(flags == cudaMemAccessFlagsProtReadWrite);
    CUDA(cudaDeviceGetMemPool(&other, 0));
    CHECK(other == pool);
    CUDA(cudaMemPoolDestroy(pool));
    CUDA(cudaDeviceGetMemPool(&now, 0));
    CHECK(now == first);
    CUDA(cudaMallocAsync(&x, BYTES, 0));
    use(x, 9, 0);
    CUDA(cudaFreeAsync(x, 0));
    is_right("the default pool again");
}

int main(void)
{
    cudaMemPoolProps props;
    cudaMemPool_t pool, first;
    unsigned *x = NULL;
    int yes = 0;
    CUDA(cudaDeviceGetAttribute(&yes, cudaDevAttrMemoryPoolsSupported, 0));
    printf("pools %d\n", yes);
    wrong = (unsigned *)device_alloc(sizeof(*wrong));
    CUDA(cudaMemset(wrong, 0, sizeof(*wrong)));
    memset(&props, 0, sizeof(props));
    props.allocType = cudaMemAllocationTypePinned;
    props.location.type = cudaMemLocationTypeDevice;
    CUDA(cudaMemPoolCreate(&pool, &props));
    between_streams(pool);
    mixed(pool);
    attributes(pool);
    chosen(pool);
    CUDA(cudaDeviceGetDefaultMemPool(&first, 0));
    show("no bytes", cudaMallocAsync(&x, 0, 0));
    show("too many", cudaMallocAsync(&x, (size_t)1 << 50, 0));
    show("the default pool destroyed", cudaMemPoolDestroy(first));
    return 0;
}
