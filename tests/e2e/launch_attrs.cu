/* Launches by cudaLaunchKernel and cudaLaunchKernelEx, what a function says of itself, and more
 * dynamic shared memory than is granted without asking. */
#include "check.h"

__constant__ int offset = 7;

__global__ void __launch_bounds__(128) sum_shared(const int *in, int *out, int n)
{
    extern __shared__ int dyn[];
    __shared__ int fixed[32];
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        dyn[n - 1 - i] = in[i];
    if (threadIdx.x < 32)
        fixed[threadIdx.x] = offset;
    __syncthreads();
    int sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        sum += dyn[i] * (i % 3 + 1) + fixed[i & 31];
    atomicAdd(out, sum);
}

static int expected(int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += (n - 1 - i) * (i % 3 + 1) + 7;
    return sum;
}

static int result(int *dout)
{
    int got = 0;
    CUDA(cudaMemcpy(&got, dout, sizeof(got), cudaMemcpyDeviceToHost));
    CUDA(cudaMemset(dout, 0, sizeof(got)));
    return got;
}

int main(void)
{
    enum { N = 15000 };
    static int in[N];
    for (int i = 0; i < N; i++)
        in[i] = i;
    int *din = (int *)device_alloc(sizeof(in)), *dout = (int *)device_alloc(4), n = 1000;
    CUDA(cudaMemcpy(din, in, sizeof(in), cudaMemcpyHostToDevice));
    CUDA(cudaMemset(dout, 0, 4));

    cudaFuncAttributes attr;
    CUDA(cudaFuncGetAttributes(&attr, sum_shared));
    printf("threads %d, static shared memory %zu\n", attr.maxThreadsPerBlock, attr.sharedSizeBytes);
    CHECK(attr.numRegs > 0 && attr.ptxVersion >= 75 && attr.binaryVersion >= 75);

    void *args[] = {&din, &dout, &n};
    CUDA(cudaLaunchKernel((const void *)sum_shared, dim3(1), dim3(128), args, n * 4, 0));
    CHECK(result(dout) == expected(n));
    printf("cudaLaunchKernel: %d\n", expected(n));

    cudaStream_t stream;
    CUDA(cudaStreamCreate(&stream));
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(1);
    config.blockDim = dim3(64, 2);
    config.dynamicSmemBytes = n * 4;
    config.stream = stream;
    config.blockDim = dim3(128);
    CUDA(cudaLaunchKernelEx(&config, sum_shared, (const int *)din, dout, n));
    CUDA(cudaStreamSynchronize(stream));
    CHECK(result(dout) == expected(n));
    cudaLaunchAttribute priority = {};
    priority.id = cudaLaunchAttributePriority;
    priority.val.priority = 0;
    config.attrs = &priority;
    config.numAttrs = 1;
    CUDA(cudaLaunchKernelEx(&config, sum_shared, (const int *)din, dout, n));
    CUDA(cudaStreamSynchronize(stream));
    CHECK(result(dout) == expected(n));
    printf("cudaLaunchKernelEx: without and with an attribute\n");

    n = N; /* 60,000 bytes: more than 48 KiB must be asked for */
    sum_shared<<<1, 128, n * 4>>>(din, dout, n);
    show("without asking", cudaGetLastError());
    CUDA(cudaFuncSetAttribute(sum_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, n * 4));
    CUDA(cudaFuncGetAttributes(&attr, sum_shared));
    CHECK(attr.maxDynamicSharedSizeBytes == n * 4);
    sum_shared<<<1, 128, n * 4>>>(din, dout, n);
    LAUNCHED();
    CHECK(result(dout) == expected(n));
    printf("after asking: %d\n", expected(n));
    show("asking for 16 MiB",
         cudaFuncSetAttribute(sum_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 16 << 20));
    (void)cudaGetLastError();
    CUDA(cudaFree(din));
    CUDA(cudaFree(dout));
    return 0;
}
