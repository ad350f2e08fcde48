/* Copies of growing sizes, timed by events, both ways and on the device, from pageable and pinned
 * memory.  The times are looked at and not printed. */
#include "check.h"

static void measure(const char *what, void *dst, const void *src, size_t len, cudaMemcpyKind kind,
                    cudaStream_t stream)
{
    cudaEvent_t start, end;
    float ms, sum = 0;
    int sizes = 0;
    CUDA(cudaEventCreate(&start));
    CUDA(cudaEventCreate(&end));
    for (size_t n = 1; n <= len; n *= 4) {
        CUDA(cudaEventRecord(start, stream));
        for (int i = 0; i < 4; i++)
            CUDA(cudaMemcpyAsync(dst, src, n, kind, stream));
        CUDA(cudaEventRecord(end, stream));
        CUDA(cudaEventSynchronize(end));
        CUDA(cudaEventElapsedTime(&ms, start, end));
        CHECK(ms >= 0);
        sum += ms;
        sizes++;
    }
    CUDA(cudaEventDestroy(start));
    CUDA(cudaEventDestroy(end));
    CHECK(sum > 0 && sum < 60000);
    printf("%s: %d sizes\n", what, sizes);
}

int main(void)
{
    const size_t len = 16 << 20;
    char *pageable = (char *)malloc(len), *pinned;
    char *a = (char *)device_alloc(len), *b = (char *)device_alloc(len);
    cudaStream_t stream;
    CUDA(cudaMallocHost(&pinned, len));
    CUDA(cudaStreamCreate(&stream));
    for (size_t i = 0; i < len; i++)
        pinned[i] = pageable[i] = (char)(i * 7 + i / 1000);
    measure("pinned to device", a, pinned, len, cudaMemcpyHostToDevice, stream);
    measure("device to device", b, a, len, cudaMemcpyDeviceToDevice, stream);
    memset(pinned, 0, len);
    measure("device to pinned", pinned, b, len, cudaMemcpyDeviceToHost, stream);
    measure("pageable to device", a, pageable, len, cudaMemcpyHostToDevice, stream);
    measure("device to pageable", pageable, a, len, cudaMemcpyDeviceToHost, stream);
    size_t bad = 0;
    for (size_t i = 0; i < len; i++)
        bad += pinned[i] != (char)(i * 7 + i / 1000) || pageable[i] != (char)(i * 7 + i / 1000);
    printf("bytes that are wrong: %zu\n", bad);
    CUDA(cudaFree(a));
    CUDA(cudaFree(b));
    CUDA(cudaFreeHost(pinned));
    CUDA(cudaStreamDestroy(stream));
    free(pageable);
    return 0;
}
