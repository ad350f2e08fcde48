/* A pageable source may be overwritten as soon as cudaMemcpy or cudaMemcpyAsync returns, and a
 * pageable destination is filled when they return: many times, 1 byte to 8 MiB, odd sizes and
 * offsets. */
#include "check.h"

static unsigned char *host, *back;

static void stamp(unsigned char *at, size_t len, unsigned round)
{
    for (size_t i = 0; i < len; i += 509)
        at[i] = (unsigned char)(round * 31 + i / 509);
    at[len - 1] = (unsigned char)(round + 77);
}

static void verify(const unsigned char *at, size_t len, unsigned round)
{
    for (size_t i = 0; i < len - 1; i += 509)
        CHECK(at[i] == (unsigned char)(round * 31 + i / 509));
    CHECK(at[len - 1] == (unsigned char)(round + 77));
}

/* Reads one copy back between two guard bytes. */
static void read_back(const unsigned char *dev, size_t len, int async, cudaStream_t stream)
{
    back[0] = back[1 + len] = 0x5a;
    memset(back + 1, 0xdd, len);
    if (async) {
        CUDA(cudaMemcpyAsync(back + 1, dev, len, cudaMemcpyDeviceToHost, stream));
        CUDA(cudaStreamSynchronize(stream));
    } else {
        CUDA(cudaMemcpy(back + 1, dev, len, cudaMemcpyDeviceToHost));
    }
    CHECK(back[0] == 0x5a && back[1 + len] == 0x5a);
}

/* `slots` copies out of one source buffer, overwritten after each; all read back afterwards. */
static void reuse(size_t len, int slots, int async, cudaStream_t stream)
{
    unsigned char *dev = (unsigned char *)device_alloc(len * slots);
    for (int s = 0; s < slots; s++) {
        stamp(host + 3, len, s);
        if (async)
            CUDA(cudaMemcpyAsync(dev + s * len, host + 3, len, cudaMemcpyHostToDevice, stream));
        else
            CUDA(cudaMemcpy(dev + s * len, host + 3, len, cudaMemcpyHostToDevice));
        memset(host + 3, 0xee, len);
    }
    for (int s = 0; s < slots; s++) {
        read_back(dev + s * len, len, async, stream);
        verify(back + 1, len, s);
    }
    CUDA(cudaFree(dev));
}

__global__ void slow(unsigned *x, int turns)
{
    unsigned v = threadIdx.x;
    for (int k = 0; k < turns; k++)
        v = v * 1664525u + 1013904223u;
    x[threadIdx.x] = v;
}

/* Staged while a kernel runs: each with the bytes that it found. */
static void behind_a_busy_stream(cudaStream_t stream)
{
    enum { COPIES = 400, LEN = 2048 };
    unsigned char *dev = (unsigned char *)device_alloc(COPIES * LEN);
    unsigned *x = (unsigned *)device_alloc(32 * sizeof(unsigned));
    slow<<<1, 32, 0, stream>>>(x, 200000);
    LAUNCHED();
    for (int i = 0; i < COPIES; i++) {
        stamp(host, LEN, i);
        CUDA(cudaMemcpyAsync(dev + i * LEN, host, LEN, cudaMemcpyHostToDevice, stream));
    }
    CUDA(cudaMemcpyAsync(back, dev, COPIES * LEN, cudaMemcpyDeviceToHost, stream));
    CUDA(cudaStreamSynchronize(stream));
    for (int i = 0; i < COPIES; i++)
        verify(back + i * LEN, LEN, i);
    CUDA(cudaFree(dev));
    CUDA(cudaFree(x));
    printf("%d copies behind a busy stream: ok\n", COPIES);
}

int main(void)
{
    static const size_t lens[] = {1,     3,     17,    255,    1023,    1024,    1025,    4096,
                                  40000, 65536, 65537, 262144, 1048576, 2500001, 8u << 20};
    host = (unsigned char *)malloc((8u << 20) + 16);
    back = (unsigned char *)malloc((8u << 20) + 16);
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        int slots = lens[i] <= 4096 ? 60 : lens[i] <= 262144 ? 16 : lens[i] <= 1048576 ? 6 : 2;
        reuse(lens[i], slots, 0, stream);
        reuse(lens[i], slots, 1, stream);
        printf("%zu bytes, %d times: ok\n", lens[i], slots);
    }
    behind_a_busy_stream(stream);
    return 0;
}
