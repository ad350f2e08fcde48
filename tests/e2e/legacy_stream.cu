/* The legacy default stream waits for all blocking streams and they for it; a synchronous copy
 * counts as work of the legacy stream.  Every arrow carries a number that a lost wait would leave
 * behind. */
#include "check.h"

__global__ void late_store(int *at, int value, int turns)
{
    unsigned v = value;
    for (int k = 0; k < turns; k++)
        v = v * 1664525u + 1013904223u;
    *at = value + (v == 1 && turns < 0);
}

__global__ void chain(int *to, const int *from, int add)
{
    *to = *from + add;
}

int main(void)
{
    enum { SLOW = 30000 };
    cudaStream_t one, two;
    CUDA(cudaStreamCreate(&one));
    CUDA(cudaStreamCreate(&two));
    int *x = (int *)device_alloc(64 * sizeof(int)), got[4] = {0};
    for (int round = 0; round < 20; round++) {
        CUDA(cudaMemset(x, 0, 64 * sizeof(int)));
        late_store<<<1, 1, 0, one>>>(x, 5 + round, SLOW);
        chain<<<1, 1>>>(x + 1, x, 10);             /* legacy: after one */
        chain<<<1, 1, 0, two>>>(x + 2, x + 1, 20); /* blocking: after legacy */
        chain<<<1, 1, 0, cudaStreamLegacy>>>(x + 3, x + 2, 30);
        LAUNCHED();
        CUDA(cudaMemcpy(got, x, sizeof(got), cudaMemcpyDeviceToHost));
        CHECK(got[0] == 5 + round && got[1] == got[0] + 10 && got[2] == got[0] + 30);
        CHECK(got[3] == got[0] + 60);
    }
    printf("blocking and legacy streams wait for each other: %d\n", got[3]);

    /* A synchronous copy is ordered after blocking streams without any other wait. */
    for (int round = 0; round < 20; round++) {
        late_store<<<1, 1, 0, two>>>(x, 100 + round, SLOW);
        LAUNCHED();
        int value = 0;
        CUDA(cudaMemcpy(&value, x, sizeof(value), cudaMemcpyDeviceToHost));
        CHECK(value == 100 + round);
    }
    printf("a copy waits for blocking streams\n");

    /* A memset in the legacy stream, then a blocking stream, then a synchronous read. */
    for (int round = 0; round < 20; round++) {
        late_store<<<1, 1>>>(x, 9, SLOW);
        CUDA(cudaMemsetAsync(x, 1, sizeof(int), 0));
        chain<<<1, 1, 0, one>>>(x + 1, x, round);
        LAUNCHED();
        CUDA(cudaStreamSynchronize(one));
        CUDA(cudaMemcpy(got, x, sizeof(got), cudaMemcpyDeviceToHost));
        CHECK(got[0] == 0x01010101 && got[1] == 0x01010101 + round);
    }
    printf("waiting for a stream covers what it waits for\n");

    /* A non-blocking stream is ordered by nothing but waits. */
    cudaStream_t free_stream;
    CUDA(cudaStreamCreateWithFlags(&free_stream, cudaStreamNonBlocking));
    late_store<<<1, 1>>>(x, 77, SLOW);
    CUDA(cudaStreamSynchronize(cudaStreamLegacy));
    chain<<<1, 1, 0, free_stream>>>(x + 1, x, 1);
    LAUNCHED();
    CUDA(cudaStreamSynchronize(free_stream));
    CUDA(cudaMemcpy(got, x, sizeof(got), cudaMemcpyDeviceToHost));
    CHECK(got[0] == 77 && got[1] == 78);
    printf("a non-blocking stream after a wait: %d\n", got[1]);
    return 0;
}
