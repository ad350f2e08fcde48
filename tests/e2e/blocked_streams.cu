/* Many streams that stand still at once, each with copies that can be made only when it goes on:
 * who posts them must not be made to wait, since it is he who lets them go on. */
#include <unistd.h>

#include "check.h"

enum { STREAMS = 60, LEN = 600000 };

static int go;

static void CUDART_CB hold(void *arg)
{
    (void)arg;
    while (!__atomic_load_n(&go, __ATOMIC_ACQUIRE))
        usleep(500);
}

int main(void)
{
    static uint8_t in[STREAMS][LEN], out[STREAMS][LEN];
    cudaStream_t first, streams[STREAMS];
    cudaEvent_t event;
    uint8_t *device = (uint8_t *)device_alloc(STREAMS * LEN);
    CUDA(cudaHostRegister(in, sizeof in, cudaHostRegisterDefault));
    CUDA(cudaHostRegister(out, sizeof out, cudaHostRegisterDefault));
    CUDA(cudaStreamCreate(&first));
    CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    CUDA(cudaLaunchHostFunc(first, hold, NULL));
    CUDA(cudaEventRecord(event, first));
    for (int i = 0; i < STREAMS; i++) {
        CUDA(cudaStreamCreate(&streams[i]));
        CUDA(cudaStreamWaitEvent(streams[i], event, 0));
        CUDA(cudaMemcpyAsync(device + (size_t)i * LEN, in[i], LEN, cudaMemcpyHostToDevice,
                             streams[i]));
        CUDA(cudaMemcpyAsync(out[i], device + (size_t)i * LEN, LEN, cudaMemcpyDeviceToHost,
                             streams[i]));
    }
    printf("%d streams wait\n", STREAMS);
    for (int i = 0; i < STREAMS; i++)
        memset(in[i], i + 1, LEN); /* they are read when the streams get there */
    __atomic_store_n(&go, 1, __ATOMIC_RELEASE);
    CUDA(cudaDeviceSynchronize());
    for (int i = 0; i < STREAMS; i++)
        CHECK(memcmp(in[i], out[i], LEN) == 0);
    printf("and all of them have gone on\n");
    return 0;
}
