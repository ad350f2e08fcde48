/* Native baselines: the figures that TFR will be held against.  CPU cost of a call is the time
 * until it returns, less the cost of reading the clock; the stream is emptied often enough that no
 * queue fills. */
#include "facts.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static double sample[SAMPLE_MAX];

struct base {
    CUstream s, other;
    CUfunction null, big;
    CUevent event, pending;
    CUdeviceptr dev, dev2, word_dev;
    void *pin, *heap, *word;
    CUgraphExec one, hundred;
    CUdeviceptr mem;
    CUstream created;
    size_t len;
    double clock_ns;
};

static double clock_cost(void)
{
    double v[512];
    for (size_t i = 0; i < COUNT(v); i++) {
        uint64_t from = now_ns();
        v[i] = (double)(now_ns() - from);
    }
    double least = v[0];
    for (size_t i = 1; i < COUNT(v); i++)
        least = v[i] < least ? v[i] : least;
    return least;
}

static bool base_open(struct result *r, struct base *b)
{
    CUdeviceptr ignored;
    memset(b, 0, sizeof(*b));
    b->clock_ns = clock_cost();
    b->heap = malloc(MIB);
    if (!b->heap)
        return false;
    memset(b->heap, 1, MIB);
    return (b->null = kernel(r, "null")) != NULL && (b->big = kernel(r, "big")) != NULL &&
           CALL(r, StreamCreate, &b->s, CU_STREAM_NON_BLOCKING) &&
           CALL(r, StreamCreate, &b->other, CU_STREAM_NON_BLOCKING) &&
           CALL(r, EventCreate, &b->event, CU_EVENT_DISABLE_TIMING) &&
           CALL(r, EventCreate, &b->pending, CU_EVENT_DISABLE_TIMING) &&
           CALL(r, MemAlloc, &b->dev, MIB) && CALL(r, MemAlloc, &b->dev2, MIB) &&
           pinned(r, MIB, &b->pin, &ignored) && pinned(r, 4 * KIB, &b->word, &b->word_dev);
}

typedef CUresult op(struct base *b);

/* n calls, the stream emptied every `batch`; `after` (untimed) undoes each call. */
static bool cost(struct result *r, struct base *b, const char *name, unsigned int n,
                 unsigned int batch, op *one, op *after)
{
    if (me.quick)
        n = n > 64 ? 64 : n > 8 ? 8 : n;
    step(r, name);
    for (unsigned int i = 0; i < 4 && i < n; i++)
        if (!ok(r, name, one(b)) || (after && !ok(r, name, after(b))))
            return false;
    (void)cu.StreamSynchronize(b->s);
    for (unsigned int i = 0; i < n; i++) {
        uint64_t from = now_ns();
        CUresult rc = one(b);
        double ns = (double)(now_ns() - from) - b->clock_ns;
        sample[i] = (ns < 0 ? 0 : ns) / 1000;
        if (!ok(r, name, rc) || (after && !ok(r, name, after(b))))
            return false;
        if ((i + 1) % batch == 0)
            (void)cu.StreamSynchronize(b->s);
    }
    (void)cu.StreamSynchronize(b->s);
    measure(r, "us", sample, n, "%s", name);
    return true;
}

/* ---- launches, events, waits ---- */

static CUresult op_launch(struct base *b)
{
    return launch(b->null, b->s, NULL);
}

static CUresult op_launch_big(struct base *b)
{
    static char block[PTX_NULL_BYTES];
    void *args[] = {block};
    return launch(b->big, b->s, args);
}

static CUresult op_record(struct base *b)
{
    return cu.EventRecord(b->event, b->s);
}

static CUresult op_query(struct base *b)
{
    return cu.EventQuery(b->event);
}

static CUresult op_stream_query(struct base *b)
{
    return cu.StreamQuery(b->s);
}

static CUresult op_wait_event(struct base *b)
{
    return cu.StreamWaitEvent(b->s, b->pending, 0);
}

static CUresult op_write_value(struct base *b)
{
    return cu.StreamWriteValue64(b->s, b->word_dev, 1, 0);
}

static void CUDA_CB host_nothing(void *arg)
{
    (void)arg;
}

static CUresult op_host_func(struct base *b)
{
    return cu.LaunchHostFunc(b->s, host_nothing, NULL);
}

static CUresult op_set_current(struct base *b)
{
    (void)b;
    return cu.CtxSetCurrent(me.ctx);
}

static CUresult op_pointer(struct base *b)
{
    CUmemorytype type;
    return cu.PointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, b->dev);
}

static CUresult op_sync_idle(struct base *b)
{
    return cu.StreamSynchronize(b->s);
}

static CUresult op_launch_sync(struct base *b)
{
    CUresult rc = launch(b->null, b->s, NULL);
    return rc == CUDA_SUCCESS ? cu.StreamSynchronize(b->s) : rc;
}

static CUresult op_launch_event_sync(struct base *b)
{
    CUresult rc = launch(b->null, b->s, NULL);
    if (rc == CUDA_SUCCESS)
        rc = cu.EventRecord(b->event, b->s);
    return rc == CUDA_SUCCESS ? cu.EventSynchronize(b->event) : rc;
}

/* The same without the driver: the CPU spins on a mark.  How TFR's executor will see it. */
static CUresult op_launch_mark(struct base *b)
{
    static uint64_t n;
    volatile uint64_t *word = b->word;
    CUresult rc = launch(b->null, b->s, NULL);
    if (rc == CUDA_SUCCESS)
        rc = cu.StreamWriteValue64(b->s, b->word_dev + 64, ++n, 0);
    uint64_t until = now_ns() + 2000000000ull;
    unsigned int spins = 0;
    while (rc == CUDA_SUCCESS && word[8] != n) {
        relax(&spins);
        if ((spins & 1023) == 0 && now_ns() > until)
            return CUDA_ERROR_TIMEOUT;
    }
    return rc;
}

static void run_cpu_launch(struct result *r)
{
    struct base b;
    if (!begin(r) || !base_open(r, &b) || !CALL(r, EventRecord, b.pending, b.other) ||
        !CALL(r, StreamSynchronize, b.other))
        return;
    measure(r, "ns", &b.clock_ns, 1, "reading the clock (subtracted)");
    cost(r, &b, "launch, no parameters", 8000, 256, op_launch, NULL);
    cost(r, &b, "launch, 4 KiB of parameters", 4000, 128, op_launch_big, NULL);
    cost(r, &b, "event record", 4000, 256, op_record, NULL);
    cost(r, &b, "event query, done", 4000, 256, op_query, NULL);
    cost(r, &b, "stream query, idle", 4000, 256, op_stream_query, NULL);
    cost(r, &b, "stream wait event, done", 4000, 256, op_wait_event, NULL);
    cost(r, &b, "value write", 4000, 256, op_write_value, NULL);
    cost(r, &b, "host function", 1000, 64, op_host_func, NULL);
    cost(r, &b, "set current context", 4000, 4000, op_set_current, NULL);
    cost(r, &b, "pointer attribute", 4000, 4000, op_pointer, NULL);
    cost(r, &b, "stream synchronise, idle", 4000, 4000, op_sync_idle, NULL);
    cost(r, &b, "null kernel + stream synchronise", 4000, 4000, op_launch_sync, NULL);
    cost(r, &b, "null kernel + event synchronise", 2000, 4000, op_launch_event_sync, NULL);
    cost(r, &b, "null kernel + value write, CPU spins", 4000, 4000, op_launch_mark, NULL);
}

/* ---- small copies, memsets ---- */

static CUresult op_memset(struct base *b)
{
    return cu.MemsetD8Async(b->dev, 1, b->len, b->s);
}

static CUresult op_in_pinned(struct base *b)
{
    return cu.MemcpyHtoDAsync(b->dev, b->pin, b->len, b->s);
}

static CUresult op_in_pageable(struct base *b)
{
    return cu.MemcpyHtoDAsync(b->dev, b->heap, b->len, b->s);
}

static CUresult op_out_pinned(struct base *b)
{
    return cu.MemcpyDtoHAsync(b->pin, b->dev, b->len, b->s);
}

static CUresult op_out_pageable(struct base *b)
{
    return cu.MemcpyDtoHAsync(b->heap, b->dev, b->len, b->s);
}

static CUresult op_within(struct base *b)
{
    return cu.MemcpyDtoDAsync(b->dev2, b->dev, b->len, b->s);
}

static CUresult op_in_wait(struct base *b)
{
    return cu.MemcpyHtoD(b->dev, b->heap, b->len);
}

static CUresult op_out_wait(struct base *b)
{
    return cu.MemcpyDtoH(b->heap, b->dev, b->len);
}

static CUresult op_out_pinned_sync(struct base *b)
{
    CUresult rc = op_out_pinned(b);
    return rc == CUDA_SUCCESS ? cu.StreamSynchronize(b->s) : rc;
}

static void run_cpu_copies(struct result *r)
{
    static const struct {
        const char *name;
        op *one;
        unsigned int n;
    } row[] = {{"memset", op_memset, 4000},
               {"copy in, pinned, async", op_in_pinned, 4000},
               {"copy in, pageable, async", op_in_pageable, 2000},
               {"copy out, pinned, async", op_out_pinned, 4000},
               {"copy out, pageable, async", op_out_pageable, 1000},
               {"copy on the device", op_within, 4000},
               {"copy in, pageable, waiting", op_in_wait, 2000},
               {"copy out, pageable, waiting", op_out_wait, 2000},
               {"copy out, pinned, + synchronise", op_out_pinned_sync, 2000}};
    static const size_t len[] = {8, 4096, 65536};
    struct base b;
    if (!begin(r) || !base_open(r, &b))
        return;
    for (size_t k = 0; k < COUNT(row); k++)
        for (size_t i = 0; i < COUNT(len); i++) {
            char name[80];
            b.len = len[i];
            snprintf(name, sizeof(name), "%s, %zu B", row[k].name, len[i]);
            cost(r, &b, name, row[k].n / (len[i] > 4096 ? 4 : 1), 64, row[k].one, NULL);
        }
}

/* ---- allocation ---- */

static CUresult op_alloc(struct base *b)
{
    return cu.MemAlloc(&b->mem, b->len);
}

static CUresult op_free(struct base *b)
{
    return cu.MemFree(b->mem);
}

static CUresult op_alloc_async(struct base *b)
{
    return cu.MemAllocAsync(&b->mem, b->len, b->s);
}

static CUresult op_free_async(struct base *b)
{
    return cu.MemFreeAsync(b->mem, b->s);
}

static CUresult op_host_alloc(struct base *b)
{
    return cu.MemHostAlloc(&b->word, b->len, CU_MEMHOSTALLOC_PORTABLE);
}

static CUresult op_host_free(struct base *b)
{
    return cu.MemFreeHost(b->word);
}

static CUresult op_register(struct base *b)
{
    return cu.MemHostRegister(b->heap, b->len, CU_MEMHOSTREGISTER_PORTABLE);
}

static CUresult op_unregister(struct base *b)
{
    return cu.MemHostUnregister(b->heap);
}

static CUresult op_stream_create(struct base *b)
{
    return cu.StreamCreate(&b->created, CU_STREAM_NON_BLOCKING);
}

static CUresult op_stream_destroy(struct base *b)
{
    return cu.StreamDestroy(b->created);
}

/* A pair {make, drop}: the one timed, then the other. */
static void pair_cost(struct result *r, struct base *b, const char *make_name,
                      const char *drop_name, size_t len, unsigned int n, op *make, op *drop)
{
    char name[80];
    const char *unit = len >= MIB ? "MiB" : "B";
    size_t show = len >= MIB ? len / MIB : len;
    b->len = len;
    snprintf(name, sizeof(name), len ? "%s, %zu %s" : "%s", make_name, show, unit);
    if (!cost(r, b, name, n, 64, make, drop) || !ok(r, make_name, make(b)))
        return;
    snprintf(name, sizeof(name), len ? "%s, %zu %s" : "%s", drop_name, show, unit);
    cost(r, b, name, n, 64, drop, make);
    (void)drop(b);
}

static void run_cpu_alloc(struct result *r)
{
    struct base b;
    CUmemoryPool pool;
    cuuint64_t keep = UINT64_MAX;
    if (!begin(r) || !base_open(r, &b))
        return;
    pair_cost(r, &b, "malloc", "free", 4096, 400, op_alloc, op_free);
    pair_cost(r, &b, "malloc", "free", MIB, 200, op_alloc, op_free);
    pair_cost(r, &b, "malloc", "free", (me.quick ? 16 : 256) * MIB, 20, op_alloc, op_free);
    if (CALL(r, DeviceGetDefaultMemPool, &pool, me.dev) &&
        CALL(r, MemPoolSetAttribute, pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep)) {
        pair_cost(r, &b, "mallocAsync", "freeAsync", 4096, 2000, op_alloc_async, op_free_async);
        pair_cost(r, &b, "mallocAsync", "freeAsync", MIB, 2000, op_alloc_async, op_free_async);
    }
    pair_cost(r, &b, "stream create", "stream destroy", 0, 100, op_stream_create,
              op_stream_destroy);
    free(b.heap);
    size_t len = (me.quick ? 4 : 64) * MIB;
    b.heap = aligned_alloc(4096, len);
    if (!b.heap)
        return;
    memset(b.heap, 1, len);
    pair_cost(r, &b, "host register", "host unregister", 65536, 50, op_register, op_unregister);
    pair_cost(r, &b, "host register", "host unregister", len, 10, op_register, op_unregister);
    pair_cost(r, &b, "host alloc", "host free", 65536, 50, op_host_alloc, op_host_free);
    pair_cost(r, &b, "host alloc", "host free", len, 8, op_host_alloc, op_host_free);
}

/* ---- graphs ---- */

static CUresult op_graph_one(struct base *b)
{
    return cu.GraphLaunch(b->one, b->s);
}

static CUresult op_graph_hundred(struct base *b)
{
    return cu.GraphLaunch(b->hundred, b->s);
}

static CUresult op_graph_sync(struct base *b)
{
    CUresult rc = cu.GraphLaunch(b->one, b->s);
    return rc == CUDA_SUCCESS ? cu.StreamSynchronize(b->s) : rc;
}

static bool graph_of(struct result *r, struct base *b, unsigned int nodes, CUgraphExec *exec_out)
{
    CUgraph graph = NULL;
    if (!CALL(r, StreamBeginCapture, b->s, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL))
        return false;
    CUresult rc = CUDA_SUCCESS;
    for (unsigned int i = 0; i < nodes && rc == CUDA_SUCCESS; i++)
        rc = launch(b->null, b->s, NULL);
    if (!CALL(r, StreamEndCapture, b->s, &graph) || !ok(r, "captured launch", rc))
        return false;
    double us;
    uint64_t from = now_ns();
    if (!CALL(r, GraphInstantiate, exec_out, graph, 0))
        return false;
    us = (double)(now_ns() - from) / 1000;
    measure(r, "us", &us, 1, "instantiate, %u nodes", nodes);
    return true;
}

static void run_cpu_graph(struct result *r)
{
    struct base b;
    if (!begin(r) || !base_open(r, &b) || !graph_of(r, &b, 1, &b.one) ||
        !graph_of(r, &b, 100, &b.hundred))
        return;
    cost(r, &b, "graph launch, 1 node", 2000, 64, op_graph_one, NULL);
    cost(r, &b, "graph launch, 100 nodes", 1000, 16, op_graph_hundred, NULL);
    cost(r, &b, "graph launch, 1 node, + synchronise", 2000, 4000, op_graph_sync, NULL);
}

/* ---- bandwidth ---- */

enum way { IN, OUT, WITHIN };
static const char *const way_name[] = {"in", "out", "on the device"};

static double rate(struct result *r, CUstream s, enum way way, CUdeviceptr dev, void *host,
                   CUdeviceptr dev2, size_t len, unsigned int n)
{
    CUresult rc = CUDA_SUCCESS;
    uint64_t from = now_ns();
    for (unsigned int i = 0; i < n && rc == CUDA_SUCCESS; i++)
        rc = way == IN    ? cu.MemcpyHtoDAsync(dev, host, len, s)
             : way == OUT ? cu.MemcpyDtoHAsync(host, dev, len, s)
                          : cu.MemcpyDtoDAsync(dev2, dev, len, s);
    if (rc == CUDA_SUCCESS)
        rc = cu.StreamSynchronize(s);
    if (!ok(r, "copy", rc))
        return -1;
    return (double)len * n / (double)(now_ns() - from);
}

static void rates(struct result *r, const char *kind, enum way way, void *host, CUdeviceptr dev,
                  CUdeviceptr dev2, size_t most)
{
    static const size_t len[] = {4 * KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB};
    CUstream s;
    if (!CALL(r, StreamCreate, &s, CU_STREAM_NON_BLOCKING))
        return;
    for (size_t i = 0; i < COUNT(len) && len[i] <= most; i++) {
        unsigned int n = len[i] >= 64 * MIB ? 2 : len[i] >= MIB ? 8 : 64, rounds = me.quick ? 2 : 7;
        step(r, kind);
        if (rate(r, s, way, dev, host, dev2, len[i], n) < 0)
            return;
        for (unsigned int k = 0; k < rounds; k++) {
            sample[k] = rate(r, s, way, dev, host, dev2, len[i], n);
            if (sample[k] < 0)
                return;
        }
        measure(r, "GB/s", sample, rounds, "%s, %s, %zu KiB", kind, way_name[way], len[i] / 1024);
    }
}

static void run_bandwidth(struct result *r)
{
    size_t most = me.quick ? MIB : 256 * MIB;
    CUdeviceptr dev = 0, dev2 = 0, ignored;
    void *pin, *heap;
    if (!begin(r) || !CALL(r, MemAlloc, &dev, most) || !CALL(r, MemAlloc, &dev2, most) ||
        !pinned(r, most, &pin, &ignored))
        return;
    heap = aligned_alloc(4096, most);
    if (!heap)
        return;
    memset(heap, 1, most);
    rates(r, "pinned", IN, pin, dev, 0, most);
    rates(r, "pinned", OUT, pin, dev, 0, most);
    rates(r, "pageable", IN, heap, dev, 0, most);
    rates(r, "pageable", OUT, heap, dev, 0, most);
    rates(r, "bytes copied", WITHIN, NULL, dev, dev2, most);
}

/* ---- start-up ---- */

static void since(struct result *r, uint64_t *from, const char *name)
{
    double ms = (double)(now_ns() - *from) / 1e6;
    measure(r, "ms", &ms, 1, "%s", name);
    *from = now_ns();
}

static void run_start(struct result *r)
{
    CUfunction null;
    uint64_t whole = now_ns(), at = whole;
    if (!begin_init(r))
        return;
    since(r, &at, "dlopen, cuInit, device");
    if (!CALL(r, DevicePrimaryCtxRetain, &me.ctx, me.dev) || !CALL(r, CtxSetCurrent, me.ctx))
        return;
    since(r, &at, "primary context");
    if (!(null = kernel(r, "null")))
        return;
    since(r, &at, "module of PTX");
    if (!ok(r, "launch", launch(null, NULL, NULL)) || !CALL(r, CtxSynchronize))
        return;
    since(r, &at, "first launch + synchronise");
    since(r, &whole, "whole");
    note(r, "the PTX may come from the driver's cache (CUDA_CACHE_DISABLE %s)",
         getenv("CUDA_CACHE_DISABLE") ? getenv("CUDA_CACHE_DISABLE") : "is not set");
}

static void run_start_jit(struct result *r)
{
    setenv("CUDA_CACHE_DISABLE", "1", 1);
    run_start(r);
}

static void run_contexts(struct result *r)
{
    CUcontext ctx;
    unsigned int n = me.quick ? 2 : 5;
    double create[8], destroy[8];
    size_t before = 0, after = 0, total;
    if (!begin(r) || !CALL(r, MemGetInfo, &before, &total))
        return;
    for (unsigned int i = 0; i < n; i++) {
        uint64_t from = now_ns();
        if (!CALL(r, CtxCreate_v2, &ctx, 0, me.dev))
            return;
        create[i] = (double)(now_ns() - from) / 1e6;
        if (i == 0 && CALL(r, MemGetInfo, &after, &total))
            note(r, "a further context takes %.0f MiB of the device",
                 before > after ? (double)(before - after) / (double)MIB : 0.0);
        from = now_ns();
        if (!CALL(r, CtxDestroy, ctx))
            return;
        destroy[i] = (double)(now_ns() - from) / 1e6;
    }
    measure(r, "ms", create, n, "a further context, create");
    measure(r, "ms", destroy, n, "a further context, destroy");
}

#define BASE(name, done, limit, flags, run)                                                        \
    {                                                                                              \
        name, done, "nothing: a figure to be held against", "-", "tf-bench",                       \
            FACT_BASELINE | (flags), limit, run                                                    \
    }

const struct fact facts_base[] = {
    BASE("base_start_first",
         "A process's way to its first kernel while no other process holds the driver.", 60,
         FACT_FIRST, run_start),
    BASE("base_start", "The same while another process holds the driver.", 30, 0, run_start),
    BASE("base_start_jit", "The same with the driver's cache of compiled PTX off.", 30, 0,
         run_start_jit),
    BASE("base_contexts", "cuCtxCreate and cuCtxDestroy beside the primary context.", 20, 0,
         run_contexts),
    BASE("base_launch",
         "CPU time of launches, events, waits, queries; a null kernel with a synchronisation.", 15,
         0, run_cpu_launch),
    BASE("base_copies", "CPU time of memsets and small copies both ways.", 15, 0, run_cpu_copies),
    BASE("base_alloc", "CPU time of allocation, registration and streams.", 25, 0, run_cpu_alloc),
    BASE("base_graph", "CPU time of graph launches.", 10, 0, run_cpu_graph),
    BASE("base_bandwidth", "Bandwidth by size: pinned and pageable both ways, and on the device.",
         20, 0, run_bandwidth),
};
const size_t facts_base_n = COUNT(facts_base);
