/* Eight streams, each with its own chain of copies and kernels on pinned and registered memory; all
 * of them under way at once, and every byte checked. */
#include "check.h"

enum { STREAMS = 8, ROUNDS = 12, N = 40000 };

__global__ void step(uint32_t *x, int n, uint32_t add)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        x[i] = x[i] * 3 + add;
}

int main(void)
{
    cudaStream_t stream[STREAMS];
    uint32_t *in[STREAMS], *out[STREAMS], *device[STREAMS], *twin[STREAMS];
    uint32_t seed = 7;
    for (int s = 0; s < STREAMS; s++) {
        CUDA(cudaStreamCreateWithFlags(&stream[s],
                                       s & 1 ? cudaStreamNonBlocking : cudaStreamDefault));
        if (s & 2) {
            in[s] = (uint32_t *)malloc(N * 4);
            out[s] = (uint32_t *)malloc(N * 4);
            CUDA(cudaHostRegister(in[s], N * 4, 0));
            CUDA(cudaHostRegister(out[s], N * 4, 0));
        } else {
            CUDA(cudaMallocHost(&in[s], N * 4));
            CUDA(cudaMallocHost(&out[s], N * 4));
        }
        device[s] = (uint32_t *)device_alloc(N * 4);
        twin[s] = (uint32_t *)device_alloc(N * 4);
        for (int i = 0; i < N; i++)
            in[s][i] = check_random(&seed);
    }
    for (int r = 0; r < ROUNDS; r++) {
        for (int s = 0; s < STREAMS; s++) {
            /* each round moves another part there, all of it on the device, and back */
            int from = r * (N / ROUNDS), n = N / ROUNDS;
            CUDA(cudaMemcpyAsync(device[s] + from, in[s] + from, n * 4, cudaMemcpyHostToDevice,
                                 stream[s]));
            step<<<(n + 127) / 128, 128, 0, stream[s]>>>(device[s] + from, n, (uint32_t)(s + r));
            LAUNCHED();
            CUDA(cudaMemcpyAsync(twin[s] + from, device[s] + from, n * 4, cudaMemcpyDeviceToDevice,
                                 stream[s]));
            CUDA(cudaMemcpyAsync(out[s] + from, twin[s] + from, n * 4, cudaMemcpyDeviceToHost,
                                 stream[s]));
        }
    }
    for (int s = STREAMS - 1; s >= 0; s--) {
        uint32_t sum = 0;
        CUDA(cudaStreamSynchronize(stream[s]));
        for (int i = 0; i < ROUNDS * (N / ROUNDS); i++) {
            CHECK(out[s][i] == in[s][i] * 3 + (uint32_t)(s + i / (N / ROUNDS)));
            sum = sum * 31 + out[s][i];
        }
        printf("stream %d: %08x\n", s, sum);
    }
    for (int s = 0; s < STREAMS; s++) {
        if (s & 2) {
            CUDA(cudaHostUnregister(in[s]));
            CUDA(cudaHostUnregister(out[s]));
            free(in[s]);
            free(out[s]);
        } else {
            CUDA(cudaFreeHost(in[s]));
            CUDA(cudaFreeHost(out[s]));
        }
        CUDA(cudaFree(device[s]));
        CUDA(cudaFree(twin[s]));
        CUDA(cudaStreamDestroy(stream[s]));
    }
    return 0;
}
