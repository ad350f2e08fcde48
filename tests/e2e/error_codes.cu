/* The common mistakes, and what CUDA answers to each; the program goes on after all of them. */
#include <cuda.h>

#include "check.h"

__global__ void nothing(int *x)
{
    if (x)
        x[threadIdx.x] = 1;
}

__global__ void greedy(int *x)
{
    extern __shared__ int shared[];
    shared[threadIdx.x] = 1;
    x[threadIdx.x] = shared[threadIdx.x];
}

static void launches(void)
{
    int *x = (int *)device_alloc(4096);
    nothing<<<0, 32>>>(x);
    show("empty grid", cudaGetLastError());
    nothing<<<1, 0>>>(x);
    show("empty block", cudaGetLastError());
    nothing<<<1, 1025>>>(x);
    show("too many threads", cudaGetLastError());
    nothing<<<1, dim3(1, 1, 65)>>>(x);
    show("block too deep", cudaGetLastError());
    nothing<<<dim3(1, 65536), 32>>>(x);
    show("grid too high", cudaGetLastError());
    greedy<<<1, 32, 1 << 20>>>(x);
    show("too much shared memory", cudaGetLastError());
    show("more than opted in",
         cudaFuncSetAttribute(greedy, cudaFuncAttributeMaxDynamicSharedMemorySize, 1 << 20));
    cudaGetLastError();
    nothing<<<1, 32>>>(x);
    show("and a good one", cudaDeviceSynchronize());
    CUDA(cudaFree(x));
}

static void memory(void)
{
    char *x = (char *)device_alloc(4096), host[64], *pinned;
    void *y = NULL;
    int on_stack;
    show("no room for the pointer", cudaMalloc((void **)NULL, 16));
    show("of no bytes", cudaMalloc(&y, 0));
    CHECK(y == NULL);
    show("impossible size", cudaMalloc(&y, (size_t)1 << 60));
    show("free of nothing", cudaFree(NULL));
    show("interior free", cudaFree(x + 256));
    show("free of the stack's", cudaFree(&on_stack));
    show("copy to nothing", cudaMemcpy(NULL, host, 4, cudaMemcpyHostToDevice));
    show("copy of nothing", cudaMemcpy(x, NULL, 4, cudaMemcpyHostToDevice));
    show("copy of no bytes", cudaMemcpy(x, host, 0, cudaMemcpyHostToDevice));
    show("no such direction", cudaMemcpy(x, host, 4, (cudaMemcpyKind)42));
    show("past the end", cudaMemcpy(x + 4090, host, 64, cudaMemcpyHostToDevice));
    show("host memory as device", cudaMemcpy(host, host + 32, 4, cudaMemcpyHostToDevice));
    show("fill past the end", cudaMemset(x + 1, 0, 4096));
    show("fill of host memory", cudaMemset(host, 0, 4));
    CUDA(cudaMallocHost(&pinned, 4096));
    show("pinned, freed as device memory", cudaFree(pinned));
    show("pinned, freed at the wrong place", cudaFreeHost(pinned + 64));
    show("pinned, registered", cudaHostRegister(pinned, 4096, 0));
    show("pinned, freed", cudaFreeHost(pinned));
    show("never registered", cudaHostUnregister(host));
    show("freed", cudaFree(x));
    show("freed again", cudaFree(x));
    cudaGetLastError();
}

static void devices(void)
{
    cudaDeviceProp prop;
    int value, n;
    CUDA(cudaGetDeviceCount(&n));
    show("no such device", cudaSetDevice(n));
    show("device -1", cudaSetDevice(-1));
    show("properties of none", cudaGetDeviceProperties(&prop, n));
    show("no such attribute", cudaDeviceGetAttribute(&value, (cudaDeviceAttr)9999, 0));
    cudaGetLastError();
}

static void streams(void)
{
    cudaStream_t s;
    cudaEvent_t a, b, untimed;
    float ms;
    show("no such flag of a stream", cudaStreamCreateWithFlags(&s, 77));
    show("no such flag of an event", cudaEventCreateWithFlags(&a, 0x4000));
    CUDA(cudaStreamCreate(&s));
    CUDA(cudaEventCreate(&a));
    CUDA(cudaEventCreate(&b));
    CUDA(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));
    show("time between events never recorded", cudaEventElapsedTime(&ms, a, b));
    CUDA(cudaEventRecord(a, s));
    CUDA(cudaEventRecord(untimed, s));
    CUDA(cudaStreamSynchronize(s));
    show("time of an event without a clock", cudaEventElapsedTime(&ms, a, untimed));
    show("an event never recorded is done", cudaEventQuery(b));
    show("destroyed", cudaEventDestroy(a));
    show("a symbol that is none", cudaMemcpyToSymbol(&ms, &ms, 4));
    cudaGetLastError();
    CUDA(cudaStreamDestroy(s));
    CUDA(cudaEventDestroy(b));
    CUDA(cudaEventDestroy(untimed));
}

static void driver(void)
{
    CUdeviceptr at;
    CUmodule module;
    CUfunction function;
    const char *name = NULL;
    int value;
    CUdevice dev;
    printf("cuDeviceGet of none: %d\n", (int)cuDeviceGet(&dev, 99));
    printf("cuDeviceGetAttribute of none: %d\n",
           (int)cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, 99));
    printf("cuMemAlloc of nothing: %d\n", (int)cuMemAlloc(&at, 0));
    printf("cuMemFree of anything: %d\n", (int)cuMemFree(0x1234));
    printf("cuModuleLoadData of nothing: %d\n", (int)cuModuleLoadData(&module, NULL));
    printf("cuModuleGetFunction, no module: %d\n", (int)cuModuleGetFunction(&function, NULL, "f"));
    printf("cuGetErrorName of none: %d, %d\n", (int)cuGetErrorName((CUresult)12345, &name), !name);
    printf("cuInit with flags: %d\n", (int)cuInit(1));
}

int main(void)
{
    show("first of all", cudaGetLastError());
    launches();
    memory();
    devices();
    streams();
    driver();
    show("at last", cudaDeviceSynchronize());
    show("and nothing is left", cudaGetLastError());
    return 0;
}
