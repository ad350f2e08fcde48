/* Attributes of streams: set, asked for, copied; priorities and what is made of those that do not
 * exist; which device and context a stream is of. */
#include "check.h"

static void policies(cudaStream_t one, cudaStream_t two)
{
    cudaStreamAttrValue value = {}, got = {};
    CUDA(cudaStreamGetAttribute(one, cudaStreamAttributeSynchronizationPolicy, &got));
    printf("at first: auto %d\n", got.syncPolicy == cudaSyncPolicyAuto);
    value.syncPolicy = cudaSyncPolicyYield;
    CUDA(cudaStreamSetAttribute(one, cudaStreamAttributeSynchronizationPolicy, &value));
    CUDA(cudaStreamGetAttribute(one, cudaStreamAttributeSynchronizationPolicy, &got));
    printf("set: yield %d\n", got.syncPolicy == cudaSyncPolicyYield);
    CUDA(cudaStreamGetAttribute(two, cudaStreamAttributeSynchronizationPolicy, &got));
    printf("the other: auto %d\n", got.syncPolicy == cudaSyncPolicyAuto);
    CUDA(cudaStreamCopyAttributes(two, one));
    CUDA(cudaStreamGetAttribute(two, cudaStreamAttributeSynchronizationPolicy, &got));
    printf("copied: yield %d\n", got.syncPolicy == cudaSyncPolicyYield);
    show("no such attribute", cudaStreamGetAttribute(one, (cudaStreamAttrID)77, &got));
    show("set it", cudaStreamSetAttribute(one, (cudaStreamAttrID)77, &value));
    cudaGetLastError();
}

static void window(cudaStream_t stream)
{
    cudaStreamAttrValue value = {}, got = {};
    int most = 0;
    void *mem = device_alloc(1 << 16);
    CUDA(cudaDeviceGetAttribute(&most, cudaDevAttrMaxAccessPolicyWindowSize, 0));
    value.accessPolicyWindow.base_ptr = mem;
    value.accessPolicyWindow.num_bytes = most < 1 << 16 ? (size_t)most : 1 << 16;
    value.accessPolicyWindow.hitRatio = 0.5f;
    value.accessPolicyWindow.hitProp = cudaAccessPropertyPersisting;
    value.accessPolicyWindow.missProp = cudaAccessPropertyStreaming;
    CUDA(cudaStreamSetAttribute(stream, cudaStreamAttributeAccessPolicyWindow, &value));
    CUDA(cudaStreamGetAttribute(stream, cudaStreamAttributeAccessPolicyWindow, &got));
    printf("window: %d %d\n",
           got.accessPolicyWindow.num_bytes == value.accessPolicyWindow.num_bytes,
           got.accessPolicyWindow.hitRatio == 0.5f);
    CUDA(cudaCtxResetPersistingL2Cache());
    CUDA(cudaFree(mem));
}

static int priority_of(int asked)
{
    cudaStream_t stream;
    cudaStreamAttrValue value = {};
    int priority = 99;
    CUDA(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, asked));
    CUDA(cudaStreamGetPriority(stream, &priority));
    CUDA(cudaStreamGetAttribute(stream, cudaStreamAttributePriority, &value));
    CHECK(value.priority == priority);
    CUDA(cudaStreamDestroy(stream));
    return priority;
}

int main(void)
{
    cudaStream_t one, two;
    unsigned long long id[2];
    unsigned int flags[2];
    int least, greatest, device = -1;
    CUDA(cudaStreamCreate(&one));
    CUDA(cudaStreamCreateWithFlags(&two, cudaStreamNonBlocking));
    policies(one, two);
    window(one);
    CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    printf("priorities: %d %d %d\n", priority_of(greatest) == greatest,
           priority_of(greatest - 100) == greatest, priority_of(least + 100) == least);
    CUDA(cudaStreamGetId(one, &id[0]));
    CUDA(cudaStreamGetId(two, &id[1]));
    CUDA(cudaStreamGetFlags(one, &flags[0]));
    CUDA(cudaStreamGetFlags(two, &flags[1]));
    CUDA(cudaStreamGetDevice(one, &device));
    printf("ids differ: %d, flags %u %u, device %d\n", id[0] != id[1], flags[0], flags[1], device);
    CUDA(cudaStreamDestroy(one));
    CUDA(cudaStreamDestroy(two));
    return 0;
}
