/* Calls that must not wait for a stream which stands still, since it is the caller who sets it
 * going again: copies in other streams (whatever room the blocked ones have taken), the end of the
 * stream itself.  And calls that wait for what was posted before them, and for nothing that comes
 * after. */
#include <atomic>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cuda.h>

#include "check.h"

#ifdef cuCtxCreate
extern "C" CUresult cuCtxCreate_v2(CUcontext *ctx, unsigned int flags, CUdevice device);
#endif

enum { COPIES = 80, PIECE = 256 << 10, BIG = 4 << 20, DEPTH = 8, MANY = 30000 };

__global__ void hold(volatile int *go)
{
    while (!*go)
        ;
}

__global__ void busy(unsigned *sum, unsigned rounds)
{
    for (unsigned i = 0; i < rounds; i++)
        *sum = *sum * 1664525u + i;
}

static int *go;
static cudaStream_t blocked, other;

static void block(void)
{
    CUDA(cudaMemset(go, 0, sizeof *go));
    CUDA(cudaDeviceSynchronize());
    hold<<<1, 1, 0, blocked>>>(go);
    LAUNCHED();
}

static void release(void)
{
    static const int one = 1;
    CUDA(cudaMemcpyAsync(go, &one, sizeof one, cudaMemcpyHostToDevice, other));
}

/* There and back in synchronous copies. */
static void round_trip(const char *what, uint8_t *device)
{
    uint8_t *in = (uint8_t *)malloc(BIG), *out = (uint8_t *)malloc(BIG);
    for (int i = 0; i < BIG; i++)
        in[i] = (uint8_t)(i * 7 + i / 251);
    CUDA(cudaMemcpy(device, in, BIG, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(out, device, BIG, cudaMemcpyDeviceToHost));
    CHECK(memcmp(in, out, BIG) == 0);
    CUDA(cudaMemcpy2D(device, 5000, in, 5000, 4096, 800, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy2D(out, 4096, device, 5000, 4096, 800, cudaMemcpyDeviceToHost));
    CHECK(memcmp(in + 5000, out + 4096, 4096) == 0);
    printf("%s: copied\n", what);
    free(in);
    free(out);
}

static void behind_many(uint8_t *device, uint8_t *host, bool down)
{
    block();
    for (int i = 0; i < COPIES; i++)
        CUDA(cudaMemcpyAsync(down ? host + i * PIECE : device + i * PIECE,
                             down ? device + i * PIECE : host + i * PIECE, PIECE, cudaMemcpyDefault,
                             blocked));
    round_trip(down ? "copies out of the device are blocked" : "copies to the device are blocked",
               device + COPIES * PIECE);
    release();
    CUDA(cudaStreamSynchronize(blocked));
}

static void *copy_out(void *device)
{
    uint8_t *out = (uint8_t *)malloc(BIG);
    CUDA(cudaMemcpyAsync(out, device, BIG, cudaMemcpyDeviceToHost, blocked));
    free(out);
    return NULL;
}

static void behind_threads(uint8_t *device)
{
    pthread_t thread[3];
    block();
    for (pthread_t &t : thread)
        CHECK(pthread_create(&t, NULL, copy_out, device) == 0);
    usleep(100000);
    round_trip("threads wait for copies", device + BIG);
    release();
    for (pthread_t t : thread)
        pthread_join(t, NULL);
}

static void destroyed(uint8_t *device, uint8_t *host)
{
    CUDA(cudaMemset(device, 0x5a, PIECE));
    memset(host, 0, PIECE);
    block();
    CUDA(cudaMemcpyAsync(host, device, PIECE, cudaMemcpyDeviceToHost, blocked));
    CUDA(cudaStreamDestroy(blocked));
    release();
    CUDA(cudaDeviceSynchronize());
    CHECK(host[0] == 0x5a && host[PIECE - 1] == 0x5a);
    printf("the stream was destroyed before its copy\n");
}

static std::atomic<bool> freed;
static std::atomic<int> launched;

/* Never idle, until the other thread has freed, or for many times as long as that takes. */
static void *keep_busy(void *sum)
{
    cudaStream_t stream;
    cudaEvent_t event[DEPTH];
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (cudaEvent_t &e : event)
        CUDA(cudaEventCreate(&e));
    for (int i = 0; i < MANY && !freed; i++) {
        busy<<<1, 1, 0, stream>>>((unsigned *)sum, 20000);
        LAUNCHED();
        CUDA(cudaEventRecord(event[i % DEPTH], stream));
        CUDA(cudaEventSynchronize(event[(i + 1) % DEPTH]));
        launched++;
    }
    bool in_time = freed;
    CUDA(cudaStreamSynchronize(stream));
    return in_time ? stream : NULL;
}

static void free_beside(void *sum)
{
    pthread_t thread[3];
    void *host, *in_time;
    bool all = true;
    CUDA(cudaMallocHost(&host, 4096));
    for (pthread_t &t : thread)
        CHECK(pthread_create(&t, NULL, keep_busy, sum) == 0);
    while (launched < 100)
        usleep(1000);
    CUDA(cudaFreeHost(host));
    freed = true;
    for (pthread_t t : thread) {
        pthread_join(t, &in_time);
        all &= in_time != NULL;
    }
    printf("freed beside busy streams: %s\n", all ? "yes" : "only when they were idle");
}

/* What another context is given is none of its business. */
static void context_ends(uint8_t *device, uint8_t *host)
{
    CUcontext ctx;
    CUdeviceptr mem;
    CUDA(cudaMemset(device, 0x17, PIECE));
    block();
    for (int i = 0; i < DEPTH; i++)
        CUDA(cudaMemsetAsync(device, 0x17, PIECE, blocked));
    CUDA(cudaMemcpyAsync(host, device, PIECE, cudaMemcpyDeviceToHost, blocked));
    CHECK(cuCtxCreate_v2(&ctx, 0, 0) == CUDA_SUCCESS);
    CHECK(cuMemAlloc(&mem, 4096) == CUDA_SUCCESS);
    CHECK(cuMemsetD8(mem, 1, 4096) == CUDA_SUCCESS);
    CHECK(cuCtxDestroy(ctx) == CUDA_SUCCESS);
    release();
    CUDA(cudaStreamSynchronize(blocked));
    CHECK(host[0] == 0x17 && host[PIECE - 1] == 0x17);
    printf("another context ended\n");
}

static void *release_later(void *)
{
    usleep(200000);
    release();
    return NULL;
}

/* Memory that is no longer registered may go at once: what was posted has been waited for. */
static void unregistered(uint8_t *device)
{
    pthread_t thread;
    uint8_t *host =
        (uint8_t *)mmap(NULL, BIG, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(host != MAP_FAILED);
    memset(host, 1, BIG);
    CUDA(cudaHostRegister(host, BIG, 0));
    CUDA(cudaMemset(device, 0x33, BIG));
    block();
    CUDA(cudaMemcpyAsync(host, device, BIG, cudaMemcpyDeviceToHost, blocked));
    CUDA(cudaMemcpyAsync(device + BIG, host, BIG, cudaMemcpyHostToDevice, blocked));
    CHECK(pthread_create(&thread, NULL, release_later, NULL) == 0);
    CUDA(cudaHostUnregister(host));
    munmap(host, BIG);
    pthread_join(thread, NULL);
    uint8_t *back = (uint8_t *)malloc(BIG);
    CUDA(cudaStreamSynchronize(blocked));
    CUDA(cudaMemcpy(back, device + BIG, BIG, cudaMemcpyDeviceToHost));
    CHECK(back[0] == 0x33 && back[BIG - 1] == 0x33);
    printf("unregistered and gone\n");
    free(back);
}

/* Memory that nobody uses goes back to the driver. */
static void memory_goes_back(void)
{
    enum { CHUNK = 64 << 20, CHUNKS = 4 };
    void *chunk[CHUNKS];
    cudaMemPool_t pool;
    CUDA(cudaDeviceGetDefaultMemPool(&pool, 0));
    for (int i = 0; i < CHUNKS; i++)
        CUDA(cudaMalloc(&chunk[i], CHUNK));
    for (int i = 0; i < CHUNKS; i++)
        CUDA(cudaFree(chunk[i]));
    block();
    for (int i = 0; i < 2 * DEPTH; i++)
        CUDA(cudaMemsetAsync(go + 1, 1, 4, blocked));
    CUDA(cudaMemPoolTrimTo(pool, 0));
    release();
    CUDA(cudaStreamSynchronize(blocked));
    printf("memory comes and goes\n");
}

int main(void)
{
    uint8_t *device, *host = (uint8_t *)malloc(COPIES * PIECE);
    alarm(180); /* rather than hang */
    setvbuf(stdout, NULL, _IOLBF, 0);
    memset(host, 3, COPIES * PIECE);
    CUDA(cudaStreamCreateWithFlags(&blocked, cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    go = (int *)device_alloc(2 * sizeof *go);
    device = (uint8_t *)device_alloc(COPIES * PIECE + BIG);
    CUDA(cudaMemset(device, 1, COPIES * PIECE + BIG));
    CUDA(cudaHostRegister(host, COPIES * PIECE, 0));
    free_beside(device);
    behind_many(device, host, false);
    behind_many(device, host, true);
    behind_threads(device);
    context_ends(device, host);
    memory_goes_back();
    unregistered(device);
    destroyed(device, host);
    CUDA(cudaHostUnregister(host));
    free(host);
    CUDA(cudaFree(device));
    CUDA(cudaFree(go));
    return 0;
}
