/* Copies behind a kernel that does not end before all of them have been posted: whoever posts them
 * must not be made to wait.  The kernel spins on a word of pinned memory that the host sets last.
 */
#include <unistd.h>

#include "check.h"

enum { COPIES = 500, MOST = 1 << 20 };

__global__ void hold(volatile int *go)
{
    while (!*go)
        ;
}

static size_t length(int i)
{
    static const size_t lens[] = {2048, 4096, 10000, 65536, 2048, 300000, 2048, MOST};
    return i % 50 == 49 ? MOST : lens[i % 6];
}

/* late: memory that the GPU reads in place may be written until the stream arrives there. */
static void run(const char *what, uint8_t *in, uint8_t *out, uint8_t *device, int *go,
                cudaStream_t stream, bool late)
{
    size_t at = 0;
    *go = 0;
    hold<<<1, 1, 0, stream>>>(go);
    LAUNCHED();
    for (int i = 0; i < COPIES; i++) {
        if (i & 1)
            CUDA(cudaMemcpyAsync(out + at, device + at, length(i), cudaMemcpyDeviceToHost, stream));
        else
            CUDA(cudaMemcpyAsync(device + at, in + at, length(i), cudaMemcpyHostToDevice, stream));
        at += length(i);
    }
    CHECK(cudaStreamQuery(stream) == cudaErrorNotReady);
    if (late)
        in[0] = 0xab;
    __atomic_store_n(go, 1, __ATOMIC_RELEASE);
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaMemcpy(out, device, 1, cudaMemcpyDeviceToHost));
    CHECK(out[0] == in[0]);
    printf("%s: %d copies of %zu bytes\n", what, COPIES, at);
}

/* Pageable sources are read at the call, so they are right whatever is written to them later. */
static void pageable(uint8_t *in, uint8_t *device, int *go, cudaStream_t stream)
{
    uint8_t *back = (uint8_t *)malloc(COPIES * 2048);
    *go = 0;
    hold<<<1, 1, 0, stream>>>(go);
    LAUNCHED();
    for (int i = 0; i < COPIES; i++) {
        memset(in, i, 2048);
        CUDA(cudaMemcpyAsync(device + i * 2048, in, 2048, cudaMemcpyHostToDevice, stream));
    }
    memset(in, 0xee, 2048);
    CHECK(cudaStreamQuery(stream) == cudaErrorNotReady);
    __atomic_store_n(go, 1, __ATOMIC_RELEASE);
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaMemcpy(back, device, COPIES * 2048, cudaMemcpyDeviceToHost));
    for (int i = 0; i < COPIES * 2048; i++)
        CHECK(back[i] == (uint8_t)(i / 2048));
    printf("pageable: %d copies\n", COPIES);
    free(back);
}

int main(void)
{
    size_t len = 0;
    uint8_t *in, *out, *device, *malloced_in, *malloced_out;
    int *go;
    cudaStream_t stream;
    alarm(180); /* rather than hang */
    for (int i = 0; i < COPIES; i++)
        len += length(i);
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaHostAlloc(&go, sizeof *go, cudaHostAllocMapped));
    CUDA(cudaMallocHost(&in, len));
    CUDA(cudaMallocHost(&out, len));
    device = (uint8_t *)device_alloc(len);
    CUDA(cudaMemset(device, 1, len));
    memset(in, 5, len);
    run("pinned", in, out, device, go, stream, true);
    malloced_in = (uint8_t *)malloc(len);
    malloced_out = (uint8_t *)malloc(len);
    memset(malloced_in, 6, len);
    CUDA(cudaHostRegister(malloced_in, len, 0));
    CUDA(cudaHostRegister(malloced_out, len, 0));
    run("registered", malloced_in, malloced_out, device, go, stream, true);
    CUDA(cudaHostUnregister(malloced_in));
    CUDA(cudaHostUnregister(malloced_out));
    pageable(malloced_in, device, go, stream);
    free(malloced_in);
    free(malloced_out);
    CUDA(cudaFreeHost(in));
    CUDA(cudaFreeHost(out));
    CUDA(cudaFreeHost(go));
    CUDA(cudaFree(device));
    CUDA(cudaStreamDestroy(stream));
    return 0;
}
