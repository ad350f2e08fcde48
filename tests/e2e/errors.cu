/* What common mistakes answer, by name; how the last error is kept, shown and cleared; and that the
 * device still works afterwards. */
#include "check.h"

__global__ void nothing(void)
{
}

__global__ void slow(unsigned *x, int turns)
{
    unsigned v = threadIdx.x;
    for (int k = 0; k < turns; k++)
        v = v * 1664525u + 1013904223u;
    x[threadIdx.x] = v;
}

__device__ int symbol[4];

static void refused(const char *what)
{
    printf("%s: %s\n", what, cudaGetErrorName(cudaGetLastError()));
}

static void launches(void)
{
    nothing<<<1, 2048>>>();
    refused("2048 threads");
    nothing<<<0, 32>>>();
    refused("no blocks");
    nothing<<<dim3(1, 70000), 32>>>();
    refused("70000 blocks in y");
    nothing<<<1, dim3(1, 1, 128)>>>();
    refused("128 threads in z");
    nothing<<<1, 1, 8 << 20>>>();
    refused("8 MiB of shared memory");
}

static void memory(void)
{
    static int host[16];
    void *dev = device_alloc(64), *many = NULL;
    show("cudaMalloc to NULL", cudaMalloc(NULL, 4));
    show("cudaMalloc of 2^60 bytes", cudaMalloc(&many, (size_t)1 << 60));
    show("cudaFree of NULL", cudaFree(NULL));
    show("cudaFree of host memory", cudaFree(host));
    show("cudaFreeHost of other memory", cudaFreeHost(host));
    show("copy to NULL", cudaMemcpy(NULL, host, 64, cudaMemcpyHostToDevice));
    show("copy from NULL", cudaMemcpy(dev, NULL, 64, cudaMemcpyHostToDevice));
    show("copy of nothing", cudaMemcpy(NULL, NULL, 0, cudaMemcpyHostToDevice));
    show("copy in direction 77", cudaMemcpy(dev, host, 64, (cudaMemcpyKind)77));
    show("copy beyond the end", cudaMemcpy(dev, host, (size_t)1 << 40, cudaMemcpyHostToDevice));
    show("memset of NULL", cudaMemset(NULL, 0, 16));
    show("register", cudaHostRegister(host, sizeof(host), 0));
    show("register again", cudaHostRegister(host, sizeof(host), 0));
    show("unregister", cudaHostUnregister(host));
    show("unregister again", cudaHostUnregister(host));
    (void)cudaGetLastError();
    CUDA(cudaFree(dev));
}

static void objects(void)
{
    cudaDeviceProp prop;
    cudaStream_t stream;
    cudaEvent_t event;
    int value = 0, local = 0;
    show("device 99", cudaSetDevice(99));
    show("properties of device -1", cudaGetDeviceProperties(&prop, -1));
    show("attribute 100000", cudaDeviceGetAttribute(&value, (cudaDeviceAttr)100000, 0));
    show("no such symbol", cudaMemcpyToSymbol((const void *)&local, &value, 4));
    show("beyond the symbol", cudaMemcpyToSymbol(symbol, &value, 4, 16));
    show("stream flags 0xff", cudaStreamCreateWithFlags(&stream, 0xff));
    show("event flags 0x100", cudaEventCreateWithFlags(&event, 0x100));
    (void)cudaGetLastError();
}

static void last_error(void)
{
    CHECK(cudaGetLastError() == cudaSuccess);
    show("a mistake", cudaMalloc(NULL, 4));
    show("peek", cudaPeekAtLastError());
    show("peek again", cudaPeekAtLastError());
    CUDA(cudaDeviceSynchronize()); /* a success does not clear it */
    show("get", cudaGetLastError());
    show("get again", cudaGetLastError());
}

static void not_ready(void)
{
    unsigned *dev = (unsigned *)device_alloc(32 * sizeof(unsigned));
    cudaStream_t stream;
    cudaEvent_t event;
    int stream_seen = 0, event_seen = 0;
    CUDA(cudaStreamCreate(&stream));
    CUDA(cudaEventCreate(&event));
    for (int turns = 100000; turns < 10000000 && !(stream_seen && event_seen); turns *= 2) {
        slow<<<1, 32, 0, stream>>>(dev, turns);
        LAUNCHED();
        CUDA(cudaEventRecord(event, stream));
        stream_seen |= cudaStreamQuery(stream) == cudaErrorNotReady;
        event_seen |= cudaEventQuery(event) == cudaErrorNotReady;
        (void)cudaGetLastError();
        CUDA(cudaStreamSynchronize(stream));
        CUDA(cudaStreamQuery(stream));
        CUDA(cudaEventQuery(event));
    }
    printf("busy streams and events are not ready: %s\n", stream_seen && event_seen ? "ok" : "no");
    CUDA(cudaEventDestroy(event));
    CUDA(cudaStreamDestroy(stream));
    CUDA(cudaFree(dev));
}

static void texts(void)
{
    static const int code[] = {0, 1, 2, 3, 9, 13, 35, 98, 100, 101, 209, 400, 600, 700, 719, 801};
    for (size_t i = 0; i < sizeof(code) / sizeof(code[0]); i++)
        printf("%d %s: %s\n", code[i], cudaGetErrorName((cudaError_t)code[i]),
               cudaGetErrorString((cudaError_t)code[i]));
}

int main(void)
{
    CUDA(cudaFree(0));
    launches();
    memory();
    objects();
    last_error();
    not_ready();
    texts();
    nothing<<<1, 1>>>();
    LAUNCHED();
    CUDA(cudaDeviceSynchronize());
    printf("the device still works\n");
    return 0;
}
