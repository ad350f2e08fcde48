// What kernels print is on stdout when a synchronisation of any kind returns, in order with what
// the program prints itself.
#include "check.h"

static __global__ void say(const char *what, int n)
{
    printf("device: %c%c %d\n", what[0], what[1], n + (int)threadIdx.x);
}

static void host_says(void *arg)
{
    printf("host function: %s\n", (const char *)arg);
    fflush(stdout);
}

static __global__ void fill(void)
{
    if (threadIdx.x == 0)
        printf("line %05d of a kernel that prints a lot\n", (int)blockIdx.x);
}

int main()
{
    cudaStream_t stream, other;
    cudaEvent_t event;
    char *text;
    CUDA(cudaStreamCreate(&stream));
    CUDA(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    CUDA(cudaMalloc(&text, 16));
    CUDA(cudaMemcpy(text, "ab", 3, cudaMemcpyHostToDevice));
    for (int i = 0; i < 3; i++) {
        printf("host: before %d\n", i);
        say<<<1, 2, 0, stream>>>(text, 10 * i);
        LAUNCHED();
        if (i == 0)
            CUDA(cudaStreamSynchronize(stream));
        if (i == 1)
            CUDA(cudaDeviceSynchronize());
        if (i == 2) {
            CUDA(cudaEventRecord(event, stream));
            CUDA(cudaEventSynchronize(event));
        }
        printf("host: after %d\n", i);
    }
    // A callback behind it; the stream goes on behind the callback.
    say<<<1, 1, 0, stream>>>(text, 100);
    CUDA(cudaStreamAddCallback(
        stream, [](cudaStream_t, cudaError_t, void *arg) { host_says(arg); }, (void *)"first", 0));
    say<<<1, 1, 0, stream>>>(text, 101);
    CUDA(cudaStreamAddCallback(
        stream, [](cudaStream_t, cudaError_t, void *arg) { host_says(arg); }, (void *)"second", 0));
    CUDA(cudaStreamSynchronize(stream));
    // Another stream that comes after it by an event.
    say<<<1, 1, 0, stream>>>(text, 200);
    CUDA(cudaEventRecord(event, stream));
    CUDA(cudaStreamWaitEvent(other, event, 0));
    CUDA(cudaStreamSynchronize(other));
    printf("host: after the other stream\n");
    // A synchronous copy behind it.
    char back[3];
    say<<<1, 1>>>(text, 300);
    CUDA(cudaMemcpy(back, text, 3, cudaMemcpyDeviceToHost));
    CUDA(cudaDeviceSynchronize());
    printf("host: after a copy of %s\n", back);
    for (int i = 0; i < 8; i++) {
        fill<<<1, 32, 0, stream>>>();
        LAUNCHED();
    }
    CUDA(cudaStreamSynchronize(stream));
    printf("host: end\n");
    CUDA(cudaFree(text));
    return 0;
}
