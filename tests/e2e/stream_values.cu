// Streams that write values and wait for them: in device memory, in pinned memory, from the host.
#include <cuda.h>

#include "check.h"

#define CU(call) check_true((call) == CUDA_SUCCESS, #call, __LINE__)

static void name(const char *what, CUresult got)
{
    const char *text = "?";
    cuGetErrorName(got, &text);
    printf("%s: %s\n", what, text);
}

static __global__ void copy(const volatile int *from, int *to)
{
    *to = *from;
}

static CUdeviceptr flag;
static volatile uint32_t *host;
static CUdeviceptr host_gpu;

// The second stream's kernel comes after the first one's, though it was submitted before.
static void between_streams(void)
{
    CUstream a, b;
    int *from = (int *)device_alloc(sizeof(int)), *to = (int *)device_alloc(sizeof(int)), got = 0;
    int value = 7;
    CU(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING));
    CU(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING));
    CUDA(cudaMemset(from, 0, sizeof(int)));
    CUDA(cudaMemset((void *)flag, 0, 64));
    CUDA(cudaDeviceSynchronize());
    CU(cuStreamWaitValue32(b, flag, 5, CU_STREAM_WAIT_VALUE_EQ));
    copy<<<1, 1, 0, b>>>(from, to);
    LAUNCHED();
    CUDA(cudaMemcpyAsync(from, &value, sizeof value, cudaMemcpyHostToDevice, a));
    CU(cuStreamWriteValue32(a, flag, 5, 0));
    CU(cuStreamSynchronize(b));
    CUDA(cudaMemcpy(&got, to, sizeof got, cudaMemcpyDeviceToHost));
    printf("between streams: %d\n", got);
    CU(cuStreamDestroy(a));
    CU(cuStreamDestroy(b));
    CUDA(cudaFree(from));
    CUDA(cudaFree(to));
}

// The program opens the gate by a store, and reads what a stream wrote.
static void with_the_host(void)
{
    CUstream s;
    CU(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    host[0] = host[2] = 0;
    CU(cuStreamWaitValue32(s, host_gpu, 3, CU_STREAM_WAIT_VALUE_GEQ));
    CU(cuStreamWriteValue64(s, host_gpu + 8, 0x100000002ull, 0));
    name("before the store", cuStreamQuery(s));
    printf("nothing written yet: %d\n", host[2] == 0);
    host[0] = 4;
    CU(cuStreamSynchronize(s));
    name("after it", cuStreamQuery(s));
    printf("written: %u %u\n", host[2], host[3]);
    CU(cuStreamDestroy(s));
}

static void batch(void)
{
    CUstream s;
    uint64_t got[2];
    CUstreamBatchMemOpParams op[4];
    CU(cuStreamCreate(&s, CU_STREAM_NON_BLOCKING));
    memset(op, 0, sizeof op);
    op[0].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_64;
    op[0].writeValue.address = flag;
    op[0].writeValue.value64 = 11ull << 32 | 1;
    op[1].memoryBarrier.operation = CU_STREAM_MEM_OP_BARRIER;
    op[2].waitValue.operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    op[2].waitValue.address = flag + 4;
    op[2].waitValue.value = 8;
    op[2].waitValue.flags = CU_STREAM_WAIT_VALUE_AND;
    op[3].writeValue.operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    op[3].writeValue.address = flag + 8;
    op[3].writeValue.value = 22;
    CU(cuStreamBatchMemOp(s, 4, op, 0));
    CU(cuStreamSynchronize(s));
    CUDA(cudaMemcpy(got, (void *)flag, sizeof got, cudaMemcpyDeviceToHost));
    printf("batch: %u %u %u\n", (unsigned)got[0], (unsigned)(got[0] >> 32), (unsigned)got[1]);
    CU(cuStreamDestroy(s));
}

static void mistakes(void)
{
    CUstreamBatchMemOpParams op;
    memset(&op, 0, sizeof op);
    op.operation = (CUstreamBatchMemOpType)99;
    name("no address", cuStreamWriteValue32(0, 0, 1, 0));
    name("odd address", cuStreamWriteValue32(0, flag + 2, 1, 0));
    name("address aligned to 4 only", cuStreamWaitValue64(0, flag + 4, 1, 0));
    name("unknown flag", cuStreamWaitValue32(0, flag, 1, 0x100));
    name("unknown operation", cuStreamBatchMemOp(0, 1, &op, 0));
    name("no operations", cuStreamBatchMemOp(0, 1, NULL, 0));
}

int main()
{
    CUDA(cudaSetDevice(0));
    flag = (CUdeviceptr)device_alloc(64);
    CUDA(cudaHostAlloc((void **)&host, 64, cudaHostAllocMapped));
    CU(cuMemHostGetDevicePointer(&host_gpu, (void *)host, 0));
    between_streams();
    with_the_host();
    batch();
    mistakes();
    CUDA(cudaFreeHost((void *)host));
    CUDA(cudaFree((void *)flag));
    return 0;
}
