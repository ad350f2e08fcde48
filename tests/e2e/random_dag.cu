/* Random work over blocking streams, non-blocking ones and the legacy stream: kernels, fills and
 * copies on a few buffers, ordered by events, by the legacy stream's joins and by synchronous
 * copies, with events and streams that come and go under way.  The processor plays the same steps
 * one after the other; whoever lets two steps change places ends with other numbers. */
#include "check.h"

enum {
    ROUNDS = 12,
    STEPS = 600,
    BUFFERS = 6,
    LEN = 64,
    STREAMS = 7, /* 0: the legacy stream; odd ones join it */
    EVENTS = 5,
};

/* Takes long enough that what comes behind it piles up. */
__global__ void mix(unsigned *to, const unsigned *from, unsigned a, int turns)
{
    unsigned x = to[threadIdx.x], y = from[threadIdx.x];
    for (int i = 0; i < turns; i++)
        x = x * 2654435761u + y + a;
    to[threadIdx.x] = x;
}

struct event {
    cudaEvent_t real;
    int stream, step; /* recorded there behind that step; step 0: never */
};
static struct {
    cudaStream_t stream[STREAMS];
    struct event event[EVENTS];
    unsigned *buffer[BUFFERS], model[BUFFERS][LEN];
    int wrote[BUFFERS],
        wrote_at[BUFFERS];         /* stream and step of the last writer; step 0: no matter */
    int read_at[BUFFERS][STREAMS]; /* last step of each stream that read it since */
    int step;
    uint32_t random;
} dag;

static unsigned below(unsigned n)
{
    return check_random(&dag.random) % n;
}

static int joins(int stream)
{
    return stream == 0 || stream % 2;
}

/* An event that covers the step of the stream, recorded anew if there is none. */
static struct event *covering(int stream, int step)
{
    for (int i = 0; i < EVENTS; i++)
        if (dag.event[i].step >= step && dag.event[i].stream == stream)
            return &dag.event[i];
    struct event *event = &dag.event[below(EVENTS)];
    CUDA(cudaEventRecord(event->real, dag.stream[stream]));
    event->stream = stream;
    event->step = dag.step;
    return event;
}

static void after(int stream, int other, int step)
{
    if (step == 0 || stream == other)
        return;
    if (joins(stream) && joins(other) && (stream == 0 || other == 0))
        return; /* the legacy stream sees to it */
    CUDA(cudaStreamWaitEvent(dag.stream[stream], covering(other, step)->real, 0));
}

static void will_read(int stream, int b)
{
    after(stream, dag.wrote[b], dag.wrote_at[b]);
    dag.read_at[b][stream] = dag.step;
}

static void will_write(int stream, int b)
{
    after(stream, dag.wrote[b], dag.wrote_at[b]);
    for (int i = 0; i < STREAMS; i++) {
        after(stream, i, dag.read_at[b][i]);
        dag.read_at[b][i] = 0;
    }
    dag.wrote[b] = stream;
    dag.wrote_at[b] = dag.step;
}

static void do_mix(int stream, int to, int from)
{
    unsigned a = below(1000);
    int turns = below(20) ? 4 : 4000;
    will_read(stream, from);
    will_write(stream, to);
    mix<<<1, LEN, 0, dag.stream[stream]>>>(dag.buffer[to], dag.buffer[from], a, turns);
    LAUNCHED();
    for (int k = 0; k < LEN; k++) {
        unsigned x = dag.model[to][k], y = dag.model[from][k];
        for (int i = 0; i < turns; i++)
            x = x * 2654435761u + y + a;
        dag.model[to][k] = x;
    }
}

static void do_copy(int stream, int to, int from)
{
    if (to == from)
        return;
    will_read(stream, from);
    will_write(stream, to);
    CUDA(cudaMemcpyAsync(dag.buffer[to], dag.buffer[from], sizeof dag.model[0],
                         cudaMemcpyDeviceToDevice, dag.stream[stream]));
    memcpy(dag.model[to], dag.model[from], sizeof dag.model[0]);
}

static void do_fill(int stream, int to)
{
    int value = (int)below(256);
    will_write(stream, to);
    CUDA(cudaMemsetAsync(dag.buffer[to], value, sizeof dag.model[0], dag.stream[stream]));
    memset(dag.model[to], value, sizeof dag.model[0]);
}

/* From pageable memory, asynchronous or not; it may be reused at once. */
static void do_upload(int stream, int to, int waits)
{
    unsigned bytes[LEN];
    for (int k = 0; k < LEN; k++)
        dag.model[to][k] = bytes[k] = below(1 << 24);
    will_write(waits ? 0 : stream, to);
    if (waits) {
        CUDA(cudaMemcpy(dag.buffer[to], bytes, sizeof bytes, cudaMemcpyHostToDevice));
        dag.wrote_at[to] = 0;
    } else {
        CUDA(cudaMemcpyAsync(dag.buffer[to], bytes, sizeof bytes, cudaMemcpyHostToDevice,
                             dag.stream[stream]));
    }
    memset(bytes, 0xee, sizeof bytes);
}

static void do_look(int stream)
{
    cudaError_t now = cudaStreamQuery(dag.stream[stream]);
    CHECK(now == cudaSuccess || now == cudaErrorNotReady);
}

static void do_renew_event(void)
{
    struct event *event = &dag.event[below(EVENTS)];
    CUDA(cudaEventDestroy(event->real));
    CUDA(cudaEventCreateWithFlags(&event->real, cudaEventDisableTiming));
    event->step = 0;
}

static void stream_new(int i)
{
    CUDA(cudaStreamCreateWithFlags(&dag.stream[i],
                                   joins(i) ? cudaStreamDefault : cudaStreamNonBlocking));
}

/* What it was given goes on; an event behind it stands for it from then on. */
static void do_renew_stream(int i)
{
    if (i == 0)
        return;
    cudaEvent_t end;
    CUDA(cudaEventCreateWithFlags(&end, cudaEventDisableTiming));
    CUDA(cudaEventRecord(end, dag.stream[i]));
    CUDA(cudaStreamDestroy(dag.stream[i]));
    stream_new(i);
    CUDA(cudaStreamWaitEvent(dag.stream[i], end, 0));
    CUDA(cudaEventDestroy(end));
    for (int e = 0; e < EVENTS; e++)
        if (dag.event[e].stream == i)
            dag.event[e].step = 0;
}

static void step(void)
{
    int stream = (int)below(STREAMS), to = (int)below(BUFFERS), from = (int)below(BUFFERS);
    dag.step++;
    switch (below(40)) {
    case 0:
        do_renew_stream(stream);
        break;
    case 1:
    case 2:
        do_renew_event();
        break;
    case 3:
        do_upload(stream, to, 1);
        break;
    case 4:
    case 5:
        do_look(stream);
        break;
    case 6:
    case 7:
    case 8:
        do_upload(stream, to, 0);
        break;
    case 9:
    case 10:
    case 11:
        do_fill(stream, to);
        break;
    case 12:
    case 13:
    case 14:
    case 15:
        do_copy(stream, to, from);
        break;
    default:
        do_mix(stream, to, from);
    }
}

static unsigned play_round(unsigned seed)
{
    unsigned sum = 0, got[LEN];
    dag.random = seed * 7919u + 1;
    for (int i = 0; i < STEPS; i++)
        step();
    CUDA(cudaDeviceSynchronize());
    for (int b = 0; b < BUFFERS; b++) {
        CUDA(cudaMemcpy(got, dag.buffer[b], sizeof got, cudaMemcpyDeviceToHost));
        CHECK(memcmp(got, dag.model[b], sizeof got) == 0);
        for (int k = 0; k < LEN; k++)
            sum = sum * 31 + got[k];
    }
    return sum;
}

int main(void)
{
    for (int i = 1; i < STREAMS; i++)
        stream_new(i);
    for (int i = 0; i < EVENTS; i++)
        CUDA(cudaEventCreateWithFlags(&dag.event[i].real, cudaEventDisableTiming));
    for (int b = 0; b < BUFFERS; b++) {
        dag.buffer[b] = (unsigned *)device_alloc(sizeof dag.model[0]);
        CUDA(cudaMemset(dag.buffer[b], 0, sizeof dag.model[0]));
    }
    CUDA(cudaDeviceSynchronize());
    for (unsigned r = 1; r <= ROUNDS; r++)
        printf("round %u: %08x\n", r, play_round(r));
    return 0;
}
