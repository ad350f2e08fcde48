/* cudaMemset and cudaMemsetAsync: values, lengths and offsets that are no multiple of anything. */
#include "check.h"

enum { LEN = 1 << 18 };

int main(void)
{
    static unsigned char want[LEN], got[LEN];
    unsigned char *dev = (unsigned char *)device_alloc(LEN);
    cudaStream_t stream;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaMemset(dev, 0, LEN));
    CUDA(cudaDeviceSynchronize());
    uint32_t seed = 5;
    for (int i = 0; i < 300; i++) {
        size_t at = check_random(&seed) % LEN, len = check_random(&seed) % 5000;
        int value = check_random(&seed);
        if (len > LEN - at)
            len = LEN - at;
        if (i % 40 == 0)
            len = LEN - at;
        CUDA(cudaMemsetAsync(dev + at, value, len, stream));
        memset(want + at, value, len);
    }
    CUDA(cudaMemcpyAsync(got, dev, LEN, cudaMemcpyDeviceToHost, stream));
    CUDA(cudaStreamSynchronize(stream));
    CHECK(memcmp(got, want, LEN) == 0);
    printf("300 asynchronous memsets are right\n");

    static const size_t lens[] = {0, 1, 2, 3, 4, 7, 16, 100, 4095, 65536, 100001};
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        CUDA(cudaMemset(dev + 5, 0x40 + (int)i, lens[i]));
        memset(want + 5, 0x40 + (int)i, lens[i]);
        CUDA(cudaMemcpy(got, dev, LEN, cudaMemcpyDeviceToHost));
        CHECK(memcmp(got, want, LEN) == 0);
    }
    printf("synchronous memsets are right\n");
    CUDA(cudaMemset(dev, -1, LEN));
    CUDA(cudaMemcpy(got, dev, LEN, cudaMemcpyDeviceToHost));
    printf("the value is cut to a byte: %u\n", got[LEN - 1]);
    CUDA(cudaFree(dev));
    return 0;
}
