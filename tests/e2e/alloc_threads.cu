/* Threads allocate, launch and free at once, with cudaMalloc and out of one pool, and now and then
 * pass a block to another thread's stream: every block holds what its own kernel wrote. */
#include <pthread.h>

#include "check.h"

enum { THREADS = 6, ROUNDS = 150, WORDS_MAX = 8192 };
static unsigned *wrong;

__global__ void put(unsigned *x, unsigned n, unsigned seed)
{
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
        x[i] = seed ^ i;
}

__global__ void check(const unsigned *x, unsigned n, unsigned seed, unsigned *bad)
{
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x)
        if (x[i] != (seed ^ i))
            atomicAdd(bad, 1);
}

static void use(unsigned *x, unsigned n, unsigned seed, cudaStream_t stream)
{
    put<<<1, 64, 0, stream>>>(x, n, seed);
    check<<<1, 64, 0, stream>>>(x, n, seed, wrong);
    LAUNCHED();
}

static void *work(void *arg)
{
    uint32_t state = (uint32_t)(uintptr_t)arg;
    cudaStream_t stream, second;
    cudaEvent_t event;
    CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    CUDA(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    for (int k = 0; k < ROUNDS; k++) {
        unsigned n = check_random(&state) % WORDS_MAX + 1, seed = check_random(&state), *a, *b;
        CUDA(cudaMalloc(&a, n * sizeof(*a)));
        CUDA(cudaMallocAsync(&b, n * sizeof(*b), stream));
        use(a, n, seed, stream);
        use(b, n, ~seed, stream);
        if (k % 3 == 0) { /* allocated in one stream, used and freed in another */
            CUDA(cudaEventRecord(event, stream));
            CUDA(cudaStreamWaitEvent(second, event, 0));
            check<<<1, 64, 0, second>>>(b, n, ~seed, wrong);
            LAUNCHED();
        }
        CUDA(cudaFreeAsync(b, k % 3 == 0 ? second : stream));
        CUDA(k % 5 == 0 ? cudaFreeAsync(a, stream) : cudaFree(a));
    }
    CUDA(cudaStreamSynchronize(stream));
    CUDA(cudaStreamSynchronize(second));
    CUDA(cudaEventDestroy(event));
    CUDA(cudaStreamDestroy(stream));
    CUDA(cudaStreamDestroy(second));
    return NULL;
}

int main(void)
{
    pthread_t thread[THREADS];
    unsigned n = 1;
    wrong = (unsigned *)device_alloc(sizeof(*wrong));
    CUDA(cudaMemset(wrong, 0, sizeof(*wrong)));
    CUDA(cudaDeviceSynchronize());
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)(i + 1)) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
    CUDA(cudaMemcpy(&n, wrong, sizeof(n), cudaMemcpyDeviceToHost));
    printf("%u words of other blocks\n", n);
    CUDA(cudaFree(wrong));
    return 0;
}
