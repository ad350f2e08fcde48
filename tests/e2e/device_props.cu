/* The device describes itself without contradiction.  What differs between devices is not printed.
 */
#include "check.h"

static int attribute(cudaDeviceAttr attr)
{
    int value = -1;
    CUDA(cudaDeviceGetAttribute(&value, attr, 0));
    return value;
}

static void ok(const char *what, int holds)
{
    printf("%s: %s\n", what, holds ? "ok" : "no");
}

int main(void)
{
    int n = 0, dev = -1, runtime = 0, driver = 0;
    CUDA(cudaGetDeviceCount(&n));
    CUDA(cudaGetDevice(&dev));
    CUDA(cudaRuntimeGetVersion(&runtime));
    CUDA(cudaDriverGetVersion(&driver));
    ok("at least one device, the first is current", n >= 1 && dev == 0);
    ok("the driver is not older than the runtime", runtime / 1000 <= driver / 1000);

    cudaDeviceProp p;
    CUDA(cudaGetDeviceProperties(&p, 0));
    ok("it has a name", strlen(p.name) > 0 && strlen(p.name) < sizeof(p.name));
    ok("compute capability", p.major * 10 + p.minor >= 75 &&
                                 p.major == attribute(cudaDevAttrComputeCapabilityMajor) &&
                                 p.minor == attribute(cudaDevAttrComputeCapabilityMinor));
    ok("warps of 32", p.warpSize == 32);
    ok("blocks of 1024 threads",
       p.maxThreadsPerBlock == 1024 && attribute(cudaDevAttrMaxThreadsPerBlock) == 1024);
    ok("block shape",
       p.maxThreadsDim[0] == 1024 && p.maxThreadsDim[1] == 1024 && p.maxThreadsDim[2] == 64);
    ok("grid shape",
       p.maxGridSize[0] == 2147483647 && p.maxGridSize[1] == 65535 && p.maxGridSize[2] == 65535);
    ok("shared memory", p.sharedMemPerBlock == 49152 && p.sharedMemPerBlockOptin >= 49152 &&
                            p.sharedMemPerMultiprocessor >= p.sharedMemPerBlockOptin);
    ok("registers", p.regsPerBlock >= 32768);
    ok("multiprocessors", p.multiProcessorCount >= 1 &&
                              p.multiProcessorCount == attribute(cudaDevAttrMultiProcessorCount));
    ok("constant memory", p.totalConstMem == 65536);
    ok("unified addresses", p.unifiedAddressing == 1);
    ok("streams and events", p.concurrentKernels == attribute(cudaDevAttrConcurrentKernels));

    size_t free_len = 0, total = 0, later = 0;
    CUDA(cudaMemGetInfo(&free_len, &total));
    ok("memory", total == p.totalGlobalMem && free_len > 0 && free_len <= total);
    void *at = device_alloc((size_t)64 << 20);
    CUDA(cudaMemGetInfo(&later, &total));
    ok("an allocation takes memory", later + ((size_t)60 << 20) <= free_len);
    CUDA(cudaFree(at));

    char bus[32] = {0};
    int found = -1;
    CUDA(cudaDeviceGetPCIBusId(bus, sizeof(bus), 0));
    CUDA(cudaDeviceGetByPCIBusId(&found, bus));
    ok("found by its bus id", found == 0);
    int unique = 0;
    for (int i = 0; i < 16; i++)
        unique |= p.uuid.bytes[i];
    ok("it has a uuid", unique != 0);

    struct cudaPointerAttributes attr;
    int host = 0;
    int *dptr = (int *)device_alloc(4096), *hptr = NULL;
    CUDA(cudaMallocHost((void **)&hptr, 4096));
    CUDA(cudaPointerGetAttributes(&attr, dptr + 10));
    ok("a device pointer",
       attr.type == cudaMemoryTypeDevice && attr.device == 0 && attr.devicePointer == dptr + 10);
    CUDA(cudaPointerGetAttributes(&attr, hptr + 10));
    void *seen = NULL;
    ok("kernels see pinned memory where the device says so",
       p.canMapHostMemory == (cudaHostGetDevicePointer(&seen, hptr, 0) == cudaSuccess) &&
           p.canMapHostMemory == (attr.devicePointer != NULL));
    cudaGetLastError();
    ok("a pinned pointer", attr.type == cudaMemoryTypeHost && attr.hostPointer == hptr + 10);
    CUDA(cudaPointerGetAttributes(&attr, &host));
    ok("a pointer of nobody", attr.type == cudaMemoryTypeUnregistered);
    CUDA(cudaFreeHost(hptr));
    CUDA(cudaFree(dptr));
    return 0;
}
