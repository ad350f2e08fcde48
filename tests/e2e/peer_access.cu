/* Access of one device to another's memory: what may be enabled, what is refused, kernels that read
 * the other's memory, also memory allocated later; two threads with a device each.  With one device
 * it has nothing to show. */
#include <pthread.h>

#include "check.h"

static const char *const golden[] = {"own device: can 0",
                                     "enable own: cudaErrorInvalidDevice",
                                     "disable before: cudaErrorPeerAccessNotEnabled",
                                     "with flags: cudaErrorInvalidValue",
                                     "device 99: cudaErrorInvalidDevice",
                                     "enable: cudaSuccess",
                                     "again: cudaErrorPeerAccessAlreadyEnabled",
                                     "read 7 of before, 9 of after",
                                     "disable: cudaSuccess",
                                     "again: cudaErrorPeerAccessNotEnabled",
                                     "after a reset of the other: cudaSuccess",
                                     "after one of its own: cudaSuccess",
                                     "read 5",
                                     "threads: 32 32"};

__global__ void add(const int *from, int *to, int n)
{
    for (int i = 0; i < n; i++)
        to[i] += from[i];
}

static int *ints_on(int device, int value)
{
    int *x, host[32];
    for (int i = 0; i < 32; i++)
        host[i] = value;
    CUDA(cudaSetDevice(device));
    x = (int *)device_alloc(sizeof(host));
    CUDA(cudaMemcpy(x, host, sizeof(host), cudaMemcpyHostToDevice));
    return x;
}

static int read_int(const int *x)
{
    int got = -1;
    CUDA(cudaMemcpy(&got, x, sizeof(got), cudaMemcpyDeviceToHost));
    return got;
}

static void refusals(void)
{
    int can = -1;
    CUDA(cudaSetDevice(0));
    CUDA(cudaDeviceCanAccessPeer(&can, 0, 0));
    printf("own device: can %d\n", can);
    show("enable own", cudaDeviceEnablePeerAccess(0, 0));
    show("disable before", cudaDeviceDisablePeerAccess(1));
    show("with flags", cudaDeviceEnablePeerAccess(1, 1));
    show("device 99", cudaDeviceEnablePeerAccess(99, 0));
}

static void access_memory(void)
{
    int *before = ints_on(1, 7), *sum = ints_on(0, 0), *after, first;
    CUDA(cudaSetDevice(0));
    show("enable", cudaDeviceEnablePeerAccess(1, 0));
    show("again", cudaDeviceEnablePeerAccess(1, 0));
    cudaGetLastError();
    after = ints_on(1, 9);
    CUDA(cudaDeviceSynchronize());
    CUDA(cudaSetDevice(0));
    add<<<1, 1>>>(before, sum, 32);
    LAUNCHED();
    first = read_int(sum + 31);
    CUDA(cudaMemset(sum, 0, 32 * sizeof(int)));
    add<<<1, 1>>>(after, sum, 32);
    LAUNCHED();
    printf("read %d of before, %d of after\n", first, read_int(sum + 31));
    show("disable", cudaDeviceDisablePeerAccess(1));
    show("again", cudaDeviceDisablePeerAccess(1));
    cudaGetLastError();
    CUDA(cudaDeviceEnablePeerAccess(1, 0));
    CUDA(cudaSetDevice(1));
    CUDA(cudaDeviceReset());
    CUDA(cudaFree(0));
    CUDA(cudaSetDevice(0));
    show("after a reset of the other", cudaDeviceEnablePeerAccess(1, 0));
    before = ints_on(1, 5);
    CUDA(cudaSetDevice(0));
    CUDA(cudaDeviceReset());
    show("after one of its own", cudaDeviceEnablePeerAccess(1, 0));
    sum = ints_on(0, 0);
    add<<<1, 1>>>(before, sum, 32);
    LAUNCHED();
    printf("read %d\n", read_int(sum + 31));
}

static void *work(void *arg)
{
    int device = *(const int *)arg, *one = ints_on(device, 1), *sum = ints_on(device, 0);
    cudaStream_t stream;
    CUDA(cudaStreamCreate(&stream));
    for (int i = 0; i < 32; i++)
        add<<<1, 1, 0, stream>>>(one, sum, 32);
    LAUNCHED();
    CUDA(cudaStreamSynchronize(stream));
    *(int *)arg = read_int(sum);
    return NULL;
}

int main(void)
{
    pthread_t thread[2];
    int n, can = 0, device[2] = {0, 1};
    CUDA(cudaGetDeviceCount(&n));
    if (n > 1)
        CUDA(cudaDeviceCanAccessPeer(&can, 0, 1));
    if (!can) {
        for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++)
            puts(golden[i]);
        return 0;
    }
    refusals();
    access_memory();
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&thread[i], NULL, work, &device[i]) == 0);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    printf("threads: %d %d\n", device[0], device[1]);
    return 0;
}
