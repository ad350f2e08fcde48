/* How deep a stream's queue is, who else stands still when it is full, and how many streams may
 * wait inside the GPU before others do. */
#include "facts.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- what holds a stream back ---- */

enum gate_kind { GATE_KERNEL, GATE_WAIT, GATE_HOST };
static const char *const gate_name[] = {"a running kernel", "a wait value", "a host function"};

struct gate {
    enum gate_kind kind;
    struct spin *spin; /* GATE_KERNEL: its stream is the gated one */
    CUstream stream;
    volatile uint64_t *word;
    CUdeviceptr word_dev;
    _Atomic bool open;
};

static void CUDA_CB gate_host(void *arg)
{
    struct gate *g = arg;
    uint64_t until = now_ns() + 6000000000ull;
    /* Pairs with the release in gate_open. */
    while (!atomic_load_explicit(&g->open, memory_order_acquire) && now_ns() < until)
        nap_us(200);
}

static bool gate_shut(struct result *r, struct gate *g)
{
    atomic_store_explicit(&g->open, false, memory_order_relaxed);
    *g->word = 0;
    switch (g->kind) {
    case GATE_KERNEL:
        return spin_start(r, g->spin);
    case GATE_WAIT:
        return CALL(r, StreamWaitValue64, g->stream, g->word_dev, 1, CU_STREAM_WAIT_VALUE_GEQ);
    case GATE_HOST:
        return CALL(r, LaunchHostFunc, g->stream, gate_host, g);
    }
    return false;
}

static void gate_open(struct gate *g)
{
    atomic_store_explicit(&g->open, true, memory_order_release); /* pairs with gate_host */
    *g->word = 1;
    if (g->kind == GATE_KERNEL)
        spin_let_go(g->spin);
}

/* ---- who submits ---- */

enum kind { LAUNCH, LAUNCH_BIG, MEMSET, COPY_IN, COPY_OUT, RECORD, WRITE, KIND_N };
static const char *const kind_name[] = {"launches",    "launches with 4 KiB", "memsets",
                                        "copies in",   "copies out",          "event records",
                                        "value writes"};

struct work {
    CUfunction null, big;
    CUdeviceptr dev, pin_dev;
    void *pin;
    CUevent event;
};

struct feeder {
    const struct work *work;
    enum kind kind;
    CUcontext ctx;
    CUstream stream;
    unsigned int cap;
    pthread_t thread;
    _Atomic unsigned int n;
    _Atomic bool stop, ended;
    CUresult rc;
};

static CUresult feed_one(const struct feeder *f)
{
    static char block[PTX_NULL_BYTES];
    void *args[] = {block};
    const struct work *w = f->work;
    switch (f->kind) {
    case LAUNCH_BIG:
        return launch(w->big, f->stream, args);
    case MEMSET:
        return cu.MemsetD32Async(w->dev, 1, 64, f->stream);
    case COPY_IN:
        return cu.MemcpyHtoDAsync(w->dev, w->pin, 256, f->stream);
    case COPY_OUT:
        return cu.MemcpyDtoHAsync(w->pin, w->dev, 256, f->stream);
    case RECORD:
        return cu.EventRecord(w->event, f->stream);
    case WRITE:
        return cu.StreamWriteValue64(f->stream, w->pin_dev + 512, 1, 0);
    case LAUNCH:
    case KIND_N:
        break;
    }
    return launch(w->null, f->stream, NULL);
}

static void *feed(void *arg)
{
    struct feeder *f = arg;
    f->rc = cu.CtxSetCurrent(f->ctx);
    /* stop pairs with feeder_end; n and ended with feeder_depth. */
    while (f->rc == CUDA_SUCCESS && !atomic_load_explicit(&f->stop, memory_order_acquire) &&
           atomic_load_explicit(&f->n, memory_order_relaxed) < f->cap) {
        f->rc = feed_one(f);
        if (f->rc == CUDA_SUCCESS)
            atomic_fetch_add_explicit(&f->n, 1, memory_order_release);
    }
    atomic_store_explicit(&f->ended, true, memory_order_release);
    return NULL;
}

static bool feeder_begin(struct feeder *f, const struct work *w, enum kind kind, CUcontext ctx,
                         CUstream stream, unsigned int cap)
{
    memset(f, 0, sizeof(*f));
    f->work = w;
    f->kind = kind;
    f->ctx = ctx;
    f->stream = stream;
    f->cap = cap;
    return pthread_create(&f->thread, NULL, feed, f) == 0;
}

/* Waits until it stands still for `still_ms` or has ended: true if it stands still. */
static bool feeder_depth(struct feeder *f, unsigned int still_ms, unsigned int *depth_out)
{
    unsigned int last = 0;
    uint64_t since = now_ns();
    for (;;) {
        bool ended = atomic_load_explicit(&f->ended, memory_order_acquire);
        unsigned int n = atomic_load_explicit(&f->n, memory_order_acquire);
        *depth_out = n;
        if (ended)
            return false;
        if (n != last) {
            last = n;
            since = now_ns();
        } else if (now_ns() - since > still_ms * 1000000ull) {
            return true;
        }
        nap_us(500);
    }
}

static void feeder_end(struct feeder *f)
{
    atomic_store_explicit(&f->stop, true, memory_order_release);
    pthread_join(f->thread, NULL);
}

/* ---- queue_depth ---- */

struct depth {
    struct work work, second_work;
    struct spin spin;
    CUstream gated, beside, second_stream, third_stream;
    CUcontext second, third;
    struct work third_work;
    unsigned int cap, still_ms;
};

static bool work_open(struct result *r, struct work *w)
{
    CUmodule m = NULL;
    return CALL(r, ModuleLoadData, &m, ptx_main) &&
           CALL(r, ModuleGetFunction, &w->null, m, "null") &&
           CALL(r, ModuleGetFunction, &w->big, m, "big") && CALL(r, MemAlloc, &w->dev, 4 * KIB) &&
           pinned(r, 4 * KIB, &w->pin, &w->pin_dev) &&
           CALL(r, EventCreate, &w->event, CU_EVENT_DISABLE_TIMING);
}

/* Every kind of work once, so that nothing is loaded late. */
static bool work_warm(struct result *r, const struct work *w, CUstream stream)
{
    struct feeder f = {.work = w, .stream = stream};
    for (unsigned int k = 0; k < KIND_N; k++) {
        f.kind = (enum kind)k;
        if (!ok(r, kind_name[k], feed_one(&f)))
            return false;
    }
    return ok(r, "warm-up", settle(stream, 5000));
}

static bool depth_open(struct result *r, struct depth *d)
{
    memset(d, 0, sizeof(*d));
    d->cap = me.quick ? 700 : 8192;
    d->still_ms = me.quick ? 60 : 100;
    if (!work_open(r, &d->work) || !spin_open(r, &d->spin) ||
        !CALL(r, StreamCreate, &d->gated, CU_STREAM_NON_BLOCKING) ||
        !CALL(r, StreamCreate, &d->beside, CU_STREAM_NON_BLOCKING) ||
        !work_warm(r, &d->work, d->gated) || !work_warm(r, &d->work, d->beside))
        return false;
    if (!CALL(r, CtxCreate_v2, &d->second, 0, me.dev)) {
        d->second = NULL;
    } else if (!work_open(r, &d->second_work) ||
               !CALL(r, StreamCreate, &d->second_stream, CU_STREAM_NON_BLOCKING) ||
               !work_warm(r, &d->second_work, d->second_stream)) {
        d->second = NULL;
    }
    if (me.device_n > 1 && (!CALL(r, DevicePrimaryCtxRetain, &d->third, 1) ||
                            !CALL(r, CtxSetCurrent, d->third) || !work_open(r, &d->third_work) ||
                            !CALL(r, StreamCreate, &d->third_stream, CU_STREAM_NON_BLOCKING) ||
                            !work_warm(r, &d->third_work, d->third_stream)))
        d->third = NULL;
    return CALL(r, CtxSetCurrent, me.ctx);
}

/* With the gated stream full: does a thread that submits elsewhere go on? */
static bool goes_on(const struct depth *d, const struct work *w, enum kind kind, CUcontext ctx,
                    CUstream stream, struct feeder *f)
{
    unsigned int n;
    return feeder_begin(f, w, kind, ctx, stream, 16) && !feeder_depth(f, d->still_ms * 2, &n) &&
           f->rc == CUDA_SUCCESS;
}

static const char *moves(bool on)
{
    return on ? "goes on" : "STANDS STILL";
}

static void beside_full(struct result *r, struct depth *d, const char *behind)
{
    struct feeder f[4];
    bool launches = goes_on(d, &d->work, LAUNCH, me.ctx, d->beside, &f[0]);
    bool copies = goes_on(d, &d->work, COPY_IN, me.ctx, d->beside, &f[1]);
    note(r, "full behind %s: another stream's launch %s, its copy %s", behind, moves(launches),
         moves(copies));
    if (d->second) {
        bool on = goes_on(d, &d->second_work, LAUNCH, d->second, d->second_stream, &f[2]);
        check(r, on, "another context's launch %s", moves(on));
    }
    if (d->third) {
        bool on = goes_on(d, &d->third_work, LAUNCH, d->third, d->third_stream, &f[3]);
        check(r, on, "another device's launch %s", moves(on));
    }
    /* The gate opens before these are joined: a launch that stands still ends then. */
    for (unsigned int i = 0; i < 4; i++)
        if ((i < 2) || (i == 2 && d->second) || (i == 3 && d->third))
            atomic_store_explicit(&f[i].stop, true, memory_order_release);
    gate_open(&(struct gate){.kind = GATE_WAIT, .word = (volatile uint64_t *)d->work.pin + 128});
    spin_let_go(&d->spin);
    for (unsigned int i = 0; i < 4; i++)
        if ((i < 2) || (i == 2 && d->second) || (i == 3 && d->third))
            pthread_join(f[i].thread, NULL);
}

static bool depth_one(struct result *r, struct depth *d, enum gate_kind gate, enum kind kind,
                      bool ask)
{
    struct gate g = {.kind = gate,
                     .spin = &d->spin,
                     .stream = gate == GATE_KERNEL ? d->spin.stream : d->gated,
                     .word = (volatile uint64_t *)d->work.pin + 128,
                     .word_dev = d->work.pin_dev + 1024};
    struct feeder f;
    unsigned int n = 0;
    char what[80];
    snprintf(what, sizeof(what), "%s behind %s", kind_name[kind], gate_name[gate]);
    step(r, what);
    if (!gate_shut(r, &g) || !feeder_begin(&f, &d->work, kind, me.ctx, g.stream, d->cap))
        return false;
    bool full = feeder_depth(&f, d->still_ms, &n);
    if (full || f.rc == CUDA_SUCCESS)
        check(r, n > 512, "%s: %s%u", what, full ? "" : "more than ", n);
    else
        open_end(r, "%s: %s after %u", what, rc_name(f.rc), n);
    if (ask && full)
        beside_full(r, d, gate_name[gate]);
    atomic_store_explicit(&f.stop, true, memory_order_release); /* pairs with feed */
    gate_open(&g);
    feeder_end(&f);
    return ok(r, what, settle(g.stream, 6000));
}

static void run_queue_depth(struct result *r)
{
    struct depth d;
    if (!begin(r) || !depth_open(r, &d))
        return;
    bool on = depth_one(r, &d, GATE_KERNEL, LAUNCH, true) &&
              depth_one(r, &d, GATE_WAIT, LAUNCH, true) &&
              depth_one(r, &d, GATE_HOST, LAUNCH, false);
    for (unsigned int k = LAUNCH_BIG; on && k < KIND_N; k++)
        on = depth_one(r, &d, GATE_WAIT, (enum kind)k, false);
}

/* ---- parked_streams ---- */

enum { PARK_MAX = 128 };

static bool parked_once(struct result *r, unsigned int n, CUstream *parked, CUstream free_stream,
                        const struct work *w, bool *on_out)
{
    volatile uint64_t *word = (volatile uint64_t *)w->pin + 128;
    *word = 0;
    for (unsigned int i = 0; i < n; i++)
        if (!CALL(r, StreamWaitValue64, parked[i], w->pin_dev + 1024, 1,
                  CU_STREAM_WAIT_VALUE_GEQ) ||
            !ok(r, "launch behind a wait", launch(w->null, parked[i], NULL)))
            return false;
    CUresult rc = launch(w->null, free_stream, NULL);
    if (rc == CUDA_SUCCESS)
        rc = settle(free_stream, me.soft ? 3000 : 250); /* a stand-in's host may be busy */
    *on_out = rc == CUDA_SUCCESS;
    *word = 1;
    for (unsigned int i = 0; i < n; i++)
        if (!ok(r, "a parked stream", settle(parked[i], 3000)))
            return false;
    return ok(r, "the free stream", settle(free_stream, 3000));
}

static void run_parked_streams(struct result *r)
{
    static const unsigned int counts[] = {1, 4, 7, 8, 16, 31, 32, 64, 128};
    CUstream parked[PARK_MAX], free_stream;
    struct work w;
    unsigned int most = 0, first_bad = 0;
    if (!begin(r) || !work_open(r, &w))
        return;
    for (unsigned int i = 0; i < PARK_MAX; i++)
        if (!CALL(r, StreamCreate, &parked[i], CU_STREAM_NON_BLOCKING))
            return;
    if (!CALL(r, StreamCreate, &free_stream, CU_STREAM_NON_BLOCKING) ||
        !work_warm(r, &w, free_stream))
        return;
    for (size_t i = 0; i < COUNT(counts); i++) {
        bool on = false;
        if (!parked_once(r, counts[i], parked, free_stream, &w, &on))
            return;
        if (on && !first_bad)
            most = counts[i];
        if (!on && !first_bad)
            first_bad = counts[i];
    }
    if (first_bad)
        note(r, "with %u streams waiting, a free stream stands still", first_bad);
    check(r, most >= 7, "a free stream goes on beside %u waiting streams", most);
}

const struct fact facts_stream[] = {
    {"queue_depth",
     "A thread submits behind a spinning kernel, a wait value and a host function until a call "
     "does "
     "not come back for 100 ms: launches, launches with 4 KiB of parameters, memsets, copies, "
     "event "
     "records, value writes. With the stream full: launches and copies on another stream, another "
     "context, another device.",
     "A stream takes more than 512 pieces of any kind before a call blocks; then other streams of "
     "the "
     "context may stand still too, but other contexts and devices go on.",
     "Less than 512: the pump parks a stream earlier. Other contexts standing still: one "
     "submitting "
     "process or thread per context is not enough, and parking must count the whole device.",
     "pump: when a stream is parked", 0, 25, run_queue_depth},
    {"parked_streams",
     "1 to 128 streams wait for a word of host memory, a kernel behind each; then a kernel in a "
     "stream "
     "that waits for nothing.",
     "A free stream goes on beside at least 7 waiting ones.",
     "Fewer: in-stream waits are rationed across streams, and pulls beyond that park in the pump "
     "instead; CUDA_DEVICE_MAX_CONNECTIONS is raised in the worker.",
     "in-stream waits of pulls and deliveries", FACT_SOFT, 15, run_parked_streams},
};
const size_t facts_stream_n = COUNT(facts_stream);
