/* CUB's device-wide primitives: scan, reduce, radix sort. */
#include <cub/cub.cuh>

#include "check.h"

static const int N = 50000;

/* Calls an algorithm twice, as CUB wants it: for the size of its memory, then in earnest. */
template <class F> static void twice(F algorithm)
{
    size_t len = 0;
    CUDA(algorithm(nullptr, len));
    void *memory = device_alloc(len ? len : 1);
    CUDA(algorithm(memory, len));
    CUDA(cudaDeviceSynchronize());
    CUDA(cudaFree(memory));
}

int main()
{
    static unsigned in[N], out[N];
    uint32_t seed = 4;
    for (int i = 0; i < N; i++)
        in[i] = check_random(&seed) % 1000;
    unsigned *d_in = (unsigned *)device_alloc(sizeof in);
    unsigned *d_out = (unsigned *)device_alloc(sizeof in);
    CUDA(cudaMemcpy(d_in, in, sizeof in, cudaMemcpyHostToDevice));

    twice([&](void *m, size_t &len) {
        return cub::DeviceScan::InclusiveSum(m, len, d_in, d_out, N);
    });
    CUDA(cudaMemcpy(out, d_out, sizeof out, cudaMemcpyDeviceToHost));
    unsigned sum = 0;
    for (int i = 0; i < N; i++) {
        sum += in[i];
        CHECK(out[i] == sum);
    }
    printf("inclusive sum: %u\n", sum);

    twice([&](void *m, size_t &len) { return cub::DeviceReduce::Max(m, len, d_in, d_out, N); });
    unsigned most;
    CUDA(cudaMemcpy(&most, d_out, 4, cudaMemcpyDeviceToHost));
    printf("max: %u\n", most);

    twice([&](void *m, size_t &len) {
        return cub::DeviceRadixSort::SortKeys(m, len, d_in, d_out, N);
    });
    CUDA(cudaMemcpy(out, d_out, sizeof out, cudaMemcpyDeviceToHost));
    for (int i = 1; i < N; i++)
        CHECK(out[i - 1] <= out[i]);
    printf("sorted: %u %u %u\n", out[0], out[N / 2], out[N - 1]);
    return 0;
}
