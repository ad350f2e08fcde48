/* Two devices: copies between them by every call, peers enabled or not, in order with the work of
 * both; with one device it has nothing to show but the same lines. */
#include <cuda.h>

#include "check.h"

enum { N = 50000 };
static unsigned from[N], back[N];

__global__ void add(unsigned *x, int n, unsigned by)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        x[i] += by;
}

static void expect(const char *what, const unsigned *device, unsigned by)
{
    memset(back, 0, sizeof back);
    CUDA(cudaMemcpy(back, device, sizeof back, cudaMemcpyDefault));
    for (int i = 0; i < N; i++)
        CHECK(back[i] == from[i] + by);
    printf("%s: right\n", what);
}

/* To and from the other device's memory while the first is current, in a stream of the first. */
static void from_here(unsigned *b, cudaStream_t s)
{
    unsigned *pinned;
    CUDA(cudaMallocHost(&pinned, sizeof from));
    memcpy(pinned, from, sizeof from);
    CUDA(cudaMemcpy(b, from, sizeof from, cudaMemcpyHostToDevice));
    expect("cudaMemcpy to it", b, 0);
    CUDA(cudaMemset(b, 0, sizeof from));
    CUDA(cudaMemcpy(b + 100, from + 100, sizeof from - 400, cudaMemcpyHostToDevice));
    CUDA(cudaMemcpy(b, from, 400, cudaMemcpyHostToDevice));
    memset(back, 0xff, sizeof back);
    CUDA(cudaMemcpy(back, b, sizeof back, cudaMemcpyDeviceToHost));
    CHECK(memcmp(back, from, sizeof from) == 0);
    for (int i = 0; i < 300; i++) /* in order, more than a launch queue holds */
        CUDA(cudaMemsetAsync(b, i, sizeof from, s));
    CUDA(cudaMemcpyAsync(b, pinned, sizeof from, cudaMemcpyHostToDevice, s));
    CUDA(cudaMemcpyAsync(pinned, b, sizeof from, cudaMemcpyDeviceToHost, s));
    CUDA(cudaStreamSynchronize(s));
    CHECK(memcmp(pinned, from, sizeof from) == 0);
    CUDA(cudaMemset(b, 0, sizeof from));
    CUDA(cudaMemcpy2D(b, 400, from, 400, 400, N / 100, cudaMemcpyHostToDevice));
    expect("cudaMemcpy2D to it, and fills", b, 0);
    memset(back, 0, sizeof back);
    CUDA(cudaMemcpy2D(back, 400, b, 400, 300, N / 100, cudaMemcpyDeviceToHost));
    for (int i = 0; i < N; i++)
        CHECK(back[i] == (i % 100 < 75 ? from[i] : 0));
    printf("cudaMemcpy2D from it: right\n");
    CUDA(cudaMemset(b, 0, sizeof from));
    CUDA(cudaMemcpyAsync(b, pinned, sizeof from, cudaMemcpyDefault, s));
    CUDA(cudaStreamSynchronize(s));
    expect("cudaMemcpyAsync by address to it", b, 0);
    CUDA(cudaFreeHost(pinned));
}

int main(void)
{
    int n, other, can = 0;
    CUDA(cudaGetDeviceCount(&n));
    other = n > 1;
    for (int i = 0; i < N; i++)
        from[i] = (unsigned)i * 2654435761u;
    unsigned *a, *b, *c;
    cudaStream_t s;
    CUDA(cudaSetDevice(other));
    b = (unsigned *)device_alloc(sizeof from);
    CUDA(cudaSetDevice(0));
    a = (unsigned *)device_alloc(sizeof from);
    c = (unsigned *)device_alloc(sizeof from);
    CUDA(cudaStreamCreate(&s));
    CUDA(cudaMemcpy(a, from, sizeof from, cudaMemcpyHostToDevice));

    add<<<(N + 255) / 256, 256>>>(a, N, 1);
    LAUNCHED();
    CUDA(cudaMemcpyPeer(b, other, a, 0, sizeof from));
    expect("cudaMemcpyPeer after a kernel", b, 1);
    CUDA(cudaSetDevice(other));
    add<<<(N + 255) / 256, 256>>>(b, N, 1);
    LAUNCHED();
    CUDA(cudaMemcpyPeer(c, 0, b, other, sizeof from));
    CUDA(cudaSetDevice(0));
    add<<<(N + 255) / 256, 256>>>(c, N, 1);
    LAUNCHED();
    expect("cudaMemcpyPeer there, a kernel, and back", c, 3);

    add<<<(N + 255) / 256, 256, 0, s>>>(a, N, 9);
    CUDA(cudaMemcpyPeerAsync(b, other, a, 0, sizeof from, s));
    CUDA(cudaStreamSynchronize(s));
    expect("cudaMemcpyPeerAsync in a stream", b, 10);

    CUDA(cudaMemset(c, 0, sizeof from));
    CUDA(cudaMemcpy(c, b, sizeof from, cudaMemcpyDefault));
    expect("cudaMemcpy by address", c, 10);
    CUDA(cudaMemset(c, 0, sizeof from));
    CUDA(cudaMemcpyAsync(c, b, sizeof from, cudaMemcpyDeviceToDevice, s));
    CUDA(cudaStreamSynchronize(s));
    expect("cudaMemcpyAsync on the device", c, 10);

    CUDA(cudaMemset(c, 0, sizeof from));
    CUDA(cudaMemcpy2D(c, 400, b, 400, 400, N / 100, cudaMemcpyDefault));
    expect("cudaMemcpy2D, end to end", c, 10);
    CUDA(cudaMemcpy(c, from, sizeof from, cudaMemcpyHostToDevice));
    add<<<(N + 255) / 256, 256>>>(c, N, 10);
    CUDA(cudaMemset2D(c, 400, 0, 300, N / 100));
    CUDA(cudaMemcpy2D(c, 400, b, 400, 300, N / 100, cudaMemcpyDefault));
    expect("cudaMemcpy2D with gaps", c, 10);

    cudaMemcpy3DPeerParms p = {};
    CUDA(cudaMemset(c, 0, sizeof from));
    p.srcDevice = other;
    p.srcPtr = make_cudaPitchedPtr(b, 400, 400, 50);
    p.dstDevice = 0;
    p.dstPtr = make_cudaPitchedPtr(c, 400, 400, 50);
    p.extent = make_cudaExtent(400, 50, N / 5000);
    CUDA(cudaMemcpy3DPeer(&p));
    expect("cudaMemcpy3DPeer", c, 10);
    CUDA(cudaMemset(c, 0, sizeof from));
    CUDA(cudaMemcpy3DPeerAsync(&p, s));
    CUDA(cudaStreamSynchronize(s));
    expect("cudaMemcpy3DPeerAsync", c, 10);

    from_here(b, s);

    CUDA(cudaDeviceCanAccessPeer(&can, 0, 0));
    printf("can access itself: %d\n", can);
    show("no such device", cudaMemcpyPeer(b, 77, a, 0, 4));
    show("no bytes", cudaMemcpyPeer(b, other, a, 0, 0));
    show("past the end", cudaMemcpyPeer(b, other, a, 0, sizeof from + 4));
    cudaGetLastError();
    CUDA(cudaStreamDestroy(s));
    CUDA(cudaFree(a));
    CUDA(cudaFree(b));
    CUDA(cudaFree(c));
    return 0;
}
