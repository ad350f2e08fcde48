// Stream callbacks: told the stream's status, also after an error; host functions are not run then.
#include <atomic>

#include "check.h"

static std::atomic<int> called, functions;
static std::atomic<int> last_status;
static cudaStream_t seen;

static void CUDART_CB note(cudaStream_t stream, cudaError_t status, void *arg)
{
    seen = stream;
    last_status = status;
    called++;
    if (arg)
        *(cudaError_t *)arg = cudaDeviceSynchronize();
}

static void CUDART_CB hold(cudaStream_t, cudaError_t, void *arg)
{
    while (!*(std::atomic<bool> *)arg)
        ;
}

static void function(void *)
{
    functions++;
}

static __global__ void crash(int *at)
{
    at[threadIdx.x] = 1;
}

static void print(const char *what)
{
    printf("%s: %d callbacks, the last with %s; %d functions\n", what, (int)called,
           cudaGetErrorName((cudaError_t)(int)last_status), (int)functions);
}

int main()
{
    cudaStream_t stream;
    cudaError_t inside = cudaSuccess;
    std::atomic<bool> go(false);
    CUDA(cudaStreamCreate(&stream));
    for (int i = 0; i < 10; i++)
        CUDA(cudaStreamAddCallback(stream, note, i == 9 ? &inside : NULL, 0));
    CUDA(cudaLaunchHostFunc(stream, function, NULL));
    CUDA(cudaStreamSynchronize(stream));
    print("ten and one");
    printf("the callback's stream is ours: %d; a call in it: %s\n", seen == stream,
           cudaGetErrorName(inside));
    show("flags that do not exist", cudaStreamAddCallback(stream, note, NULL, 1));
    cudaGetLastError();

    // Both are posted before the crash is known, and reached after it.
    CUDA(cudaStreamAddCallback(stream, hold, &go, 0));
    crash<<<1, 32, 0, stream>>>((int *)0x10);
    LAUNCHED();
    CUDA(cudaLaunchHostFunc(stream, function, NULL));
    CUDA(cudaStreamAddCallback(stream, note, NULL, 0));
    go = true;
    show("the stream", cudaStreamSynchronize(stream));
    for (int i = 0; i < 100000 && called < 11; i++)
        cudaStreamQuery(stream); // fails, and gives the callback's thread time
    while (called < 11)
        ;
    print("after a crash");
    show("a callback after it", cudaStreamAddCallback(stream, note, NULL, 0));
    return 0;
}
