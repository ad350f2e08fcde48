/* Which driver calls wait for a busy GPU, and which are refused while a stream is captured.  One
 * table of calls serves both: each is prepared, timed or tried, and undone. */
#include "facts.h"

#include <stdlib.h>
#include <unistd.h>

/* Waits: FREE it must not, MAY it goes to a helper anyway, MUST programs rely on it.
 * Capture: PASS it must succeed from a relaxed thread and leave the capture alive, ANY it is only
 * noted. */
enum { FREE, MAY, MUST };
enum { PASS, ANY };

/* clang-format off */
#define CALLS(X)                                                                                   \
    X(reserve, FREE, PASS) X(create, FREE, PASS) X(map, FREE, PASS) X(set_access, FREE, PASS)      \
    X(unmap, MAY, PASS) X(release, MAY, PASS) X(address_free, MAY, PASS)                           \
    X(mem_alloc, MAY, PASS) X(mem_free, MUST, ANY)                                                 \
    X(alloc_async_other, FREE, PASS) X(free_async_other, FREE, PASS) X(pool_trim, MAY, PASS)       \
    X(host_alloc, MAY, PASS) X(host_free, MAY, ANY)                                                \
    X(host_register, MAY, PASS) X(host_unregister, MAY, ANY)                                       \
    X(module_load, MAY, PASS) X(get_function, MAY, PASS) X(first_launch, MAY, PASS)                \
    X(module_unload, MAY, ANY)                                                                     \
    X(graph_instantiate, MAY, PASS) X(graph_launch_other, FREE, PASS) X(graph_exec_destroy, MAY, PASS) \
    X(stream_create, FREE, PASS) X(stream_destroy, MAY, PASS)                                      \
    X(event_create, FREE, PASS) X(event_record_other, FREE, PASS) X(event_query, FREE, PASS)       \
    X(event_destroy, FREE, PASS) X(stream_query_other, FREE, PASS)                                 \
    X(stream_sync_other, FREE, PASS) X(launch_other, FREE, PASS) X(write_value_other, FREE, PASS)  \
    X(copy_in_other, FREE, PASS) X(memset_other, FREE, PASS)                                       \
    X(copy_in_sync, FREE, ANY) X(mem_info, FREE, PASS) X(pointer_attribute, FREE, PASS)            \
    X(func_attribute, FREE, PASS) X(ctx_sync, MUST, ANY)

#define CALLS_ID(name, waits, capture) DO_##name,
enum call_id { CALLS(CALLS_ID) DO_N };
#undef CALLS_ID
#define CALLS_ROW(name, waits, capture) {#name, waits, capture},
static const struct {
    const char *name;
    int waits, capture;
} calls[] = {CALLS(CALLS_ROW)};
#undef CALLS_ROW
/* clang-format on */

#define LAST_VMM DO_address_free

/* What the calls work on; made once per fact, one piece of each kind anew per call. */
struct bench {
    CUstream other, scratch_stream;
    CUfunction null;
    CUfunction fresh;
    CUmodule module;
    CUdeviceptr word_dev, pinned_dev, dev, victim, va, pool_at;
    void *word, *buffer, *host, *registered;
    CUevent event, scratch_event;
    CUgraph graph;
    CUgraphExec exec, scratch_exec;
    CUmemGenericAllocationHandle handle;
    bool va_made, handle_made, mapped;
};

static bool graph_make(struct result *r, struct bench *b)
{
    if (!CALL(r, StreamBeginCapture, b->other, CU_STREAM_CAPTURE_MODE_RELAXED) ||
        !ok(r, "launch into a capture", launch(b->null, b->other, NULL)) ||
        !CALL(r, StreamEndCapture, b->other, &b->graph))
        return false;
    return CALL(r, GraphInstantiate, &b->exec, b->graph, 0) &&
           CALL(r, GraphLaunch, b->exec, b->other) &&
           ok(r, "first graph launch", settle(b->other, 3000));
}

static bool bench_open(struct result *r, struct bench *b)
{
    memset(b, 0, sizeof(*b));
    b->buffer = aligned_alloc(4096, 64 * KIB);
    if (!b->buffer)
        return false;
    memset(b->buffer, 1, 64 * KIB);
    b->null = kernel(r, "null");
    if (!b->null || !CALL(r, StreamCreate, &b->other, CU_STREAM_NON_BLOCKING) ||
        !pinned(r, 64 * KIB, &b->word, &b->word_dev) || !CALL(r, MemAlloc, &b->dev, 64 * KIB) ||
        !CALL(r, EventCreate, &b->event, CU_EVENT_DISABLE_TIMING) ||
        !ok(r, "first launch", launch(b->null, b->other, NULL)) ||
        !CALL(r, EventRecord, b->event, b->other) || !ok(r, "first run", settle(b->other, 3000)))
        return false;
    if (!graph_make(r, b)) {
        b->exec = NULL;
        note(r, "calls on graphs are left out");
    }
    return true;
}

/* Makes what the call needs.  Refusals here show as a refusal of the call itself. */
static CUresult prepare_vmm(struct bench *b, enum call_id id)
{
    CUresult rc = CUDA_SUCCESS;
    CUmemAllocationProp prop = chunk_prop(false, false);
    if (!me.chunk)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (id >= DO_map) {
        rc = cu.MemAddressReserve(&b->va, me.chunk, 0, 0, 0);
        b->va_made = rc == CUDA_SUCCESS;
    }
    if (rc == CUDA_SUCCESS &&
        (id == DO_map || id == DO_set_access || id == DO_unmap || id == DO_release)) {
        rc = cu.MemCreate(&b->handle, me.chunk, &prop, 0);
        b->handle_made = rc == CUDA_SUCCESS;
    }
    if (rc == CUDA_SUCCESS && (id == DO_set_access || id == DO_unmap)) {
        rc = cu.MemMap(b->va, me.chunk, 0, b->handle, 0);
        b->mapped = rc == CUDA_SUCCESS;
    }
    CUmemAccessDesc desc = {.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    if (rc == CUDA_SUCCESS && id == DO_unmap)
        rc = cu.MemSetAccess(b->va, me.chunk, &desc, 1);
    return rc;
}

static CUresult prepare(struct bench *b, enum call_id id)
{
    unsigned int host_flags = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP;
    CUresult rc;
    if (id <= LAST_VMM)
        return prepare_vmm(b, id);
    switch ((int)id) {
    case DO_mem_free:
        return cu.MemAlloc(&b->victim, 4 * MIB);
    case DO_free_async_other:
        rc = cu.MemAllocAsync(&b->pool_at, MIB, b->other);
        return rc == CUDA_SUCCESS ? settle(b->other, 3000) : rc;
    case DO_host_free:
        return cu.MemHostAlloc(&b->host, 64 * KIB, host_flags);
    case DO_host_unregister:
        rc = cu.MemHostRegister(b->buffer, 64 * KIB, host_flags & 3);
        b->registered = rc == CUDA_SUCCESS ? b->buffer : NULL;
        return rc;
    case DO_get_function:
    case DO_first_launch:
    case DO_module_unload:
        rc = cu.ModuleLoadData(&b->module, ptx_places);
        if (rc == CUDA_SUCCESS && id == DO_first_launch)
            rc = cu.ModuleGetFunction(&b->fresh, b->module, "touch");
        return rc;
    case DO_graph_instantiate:
    case DO_graph_launch_other:
        return b->exec ? CUDA_SUCCESS : CUDA_ERROR_NOT_SUPPORTED;
    case DO_graph_exec_destroy:
        return b->exec ? cu.GraphInstantiate(&b->scratch_exec, b->graph, 0)
                       : CUDA_ERROR_NOT_SUPPORTED;
    case DO_stream_destroy:
        return cu.StreamCreate(&b->scratch_stream, CU_STREAM_NON_BLOCKING);
    case DO_event_destroy:
        return cu.EventCreate(&b->scratch_event, CU_EVENT_DISABLE_TIMING);
    default:
        return CUDA_SUCCESS;
    }
}

static CUresult do_vmm(struct bench *b, enum call_id id)
{
    CUresult rc = CUDA_SUCCESS;
    CUmemAllocationProp prop = chunk_prop(false, false);
    CUmemAccessDesc desc = {.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    switch ((int)id) {
    case DO_reserve:
        rc = cu.MemAddressReserve(&b->va, me.chunk, 0, 0, 0);
        b->va_made = rc == CUDA_SUCCESS;
        return rc;
    case DO_create:
        rc = cu.MemCreate(&b->handle, me.chunk, &prop, 0);
        b->handle_made = rc == CUDA_SUCCESS;
        return rc;
    case DO_map:
        rc = cu.MemMap(b->va, me.chunk, 0, b->handle, 0);
        b->mapped = rc == CUDA_SUCCESS;
        return rc;
    case DO_set_access:
        return cu.MemSetAccess(b->va, me.chunk, &desc, 1);
    case DO_unmap:
        rc = cu.MemUnmap(b->va, me.chunk);
        b->mapped = rc != CUDA_SUCCESS;
        return rc;
    case DO_release:
        rc = cu.MemRelease(b->handle);
        b->handle_made = rc != CUDA_SUCCESS;
        return rc;
    default:
        rc = cu.MemAddressFree(b->va, me.chunk);
        b->va_made = rc != CUDA_SUCCESS;
        return rc;
    }
}

static CUresult do_memory(struct bench *b, enum call_id id)
{
    CUresult rc;
    CUmemoryPool pool;
    unsigned int flags = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP;
    switch ((int)id) {
    case DO_mem_alloc:
        return cu.MemAlloc(&b->victim, 4 * MIB);
    case DO_mem_free:
        rc = cu.MemFree(b->victim);
        b->victim = rc == CUDA_SUCCESS ? 0 : b->victim;
        return rc;
    case DO_alloc_async_other:
        return cu.MemAllocAsync(&b->pool_at, MIB, b->other);
    case DO_free_async_other:
        rc = cu.MemFreeAsync(b->pool_at, b->other);
        b->pool_at = rc == CUDA_SUCCESS ? 0 : b->pool_at;
        return rc;
    case DO_pool_trim:
        rc = cu.DeviceGetDefaultMemPool(&pool, me.dev);
        return rc == CUDA_SUCCESS ? cu.MemPoolTrimTo(pool, 0) : rc;
    case DO_host_alloc:
        return cu.MemHostAlloc(&b->host, 64 * KIB, flags);
    case DO_host_free:
        rc = cu.MemFreeHost(b->host);
        b->host = rc == CUDA_SUCCESS ? NULL : b->host;
        return rc;
    case DO_host_register:
        rc = cu.MemHostRegister(b->buffer, 64 * KIB,
                                CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP);
        b->registered = rc == CUDA_SUCCESS ? b->buffer : NULL;
        return rc;
    default:
        rc = cu.MemHostUnregister(b->buffer);
        b->registered = rc == CUDA_SUCCESS ? NULL : b->buffer;
        return rc;
    }
}

static CUresult do_object(struct bench *b, enum call_id id)
{
    CUresult rc;
    switch ((int)id) {
    case DO_module_load:
        return cu.ModuleLoadData(&b->module, ptx_places);
    case DO_get_function:
        return cu.ModuleGetFunction(&b->fresh, b->module, "touch");
    case DO_first_launch:
        return launch(b->fresh, b->other, NULL);
    case DO_module_unload:
        rc = cu.ModuleUnload(b->module);
        b->module = rc == CUDA_SUCCESS ? NULL : b->module;
        return rc;
    case DO_graph_instantiate:
        return cu.GraphInstantiate(&b->scratch_exec, b->graph, 0);
    case DO_graph_launch_other:
        return cu.GraphLaunch(b->exec, b->other);
    case DO_graph_exec_destroy:
        rc = cu.GraphExecDestroy(b->scratch_exec);
        b->scratch_exec = rc == CUDA_SUCCESS ? NULL : b->scratch_exec;
        return rc;
    case DO_stream_create:
        return cu.StreamCreate(&b->scratch_stream, CU_STREAM_NON_BLOCKING);
    case DO_stream_destroy:
        rc = cu.StreamDestroy(b->scratch_stream);
        b->scratch_stream = rc == CUDA_SUCCESS ? NULL : b->scratch_stream;
        return rc;
    case DO_event_create:
        return cu.EventCreate(&b->scratch_event, CU_EVENT_DISABLE_TIMING);
    default:
        rc = cu.EventDestroy(b->scratch_event);
        b->scratch_event = rc == CUDA_SUCCESS ? NULL : b->scratch_event;
        return rc;
    }
}

static CUresult do_stream(struct bench *b, enum call_id id)
{
    size_t spare, total;
    CUmemorytype type;
    switch ((int)id) {
    case DO_event_record_other:
        return cu.EventRecord(b->event, b->other);
    case DO_event_query:
        return cu.EventQuery(b->event);
    case DO_stream_query_other:
        return cu.StreamQuery(b->other);
    case DO_stream_sync_other:
        return cu.StreamSynchronize(b->other);
    case DO_launch_other:
        return launch(b->null, b->other, NULL);
    case DO_write_value_other:
        return cu.StreamWriteValue64(b->other, b->word_dev, 1, 0);
    case DO_copy_in_other:
        return cu.MemcpyHtoDAsync(b->dev, b->word, 64, b->other);
    case DO_memset_other:
        return cu.MemsetD32Async(b->dev, 1, 64, b->other);
    case DO_copy_in_sync:
        return cu.MemcpyHtoD(b->dev, b->buffer, 64);
    case DO_mem_info:
        return cu.MemGetInfo(&spare, &total);
    case DO_pointer_attribute:
        return cu.PointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, b->dev);
    case DO_func_attribute:
        return cu.FuncSetAttribute(b->null, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 1024);
    default:
        return cu.CtxSynchronize();
    }
}

static CUresult do_call(struct bench *b, enum call_id id)
{
    if (id <= LAST_VMM)
        return do_vmm(b, id);
    if (id <= DO_host_unregister)
        return do_memory(b, id);
    if (id <= DO_event_create || id == DO_event_destroy)
        return do_object(b, id);
    return do_stream(b, id);
}

/* Outside captures and with the GPU idle. */
static void undo(struct bench *b)
{
    if (b->mapped)
        (void)cu.MemUnmap(b->va, me.chunk);
    if (b->handle_made)
        (void)cu.MemRelease(b->handle);
    if (b->va_made)
        (void)cu.MemAddressFree(b->va, me.chunk);
    if (b->victim)
        (void)cu.MemFree(b->victim);
    if (b->pool_at)
        (void)cu.MemFreeAsync(b->pool_at, b->other);
    if (b->host)
        (void)cu.MemFreeHost(b->host);
    if (b->registered)
        (void)cu.MemHostUnregister(b->registered);
    if (b->scratch_exec)
        (void)cu.GraphExecDestroy(b->scratch_exec);
    if (b->scratch_stream)
        (void)cu.StreamDestroy(b->scratch_stream);
    if (b->scratch_event)
        (void)cu.EventDestroy(b->scratch_event);
    (void)settle(b->other, 3000);
    if (b->module)
        (void)cu.ModuleUnload(b->module);
    b->mapped = b->handle_made = b->va_made = false;
    b->victim = b->pool_at = 0;
    b->host = b->registered = NULL;
    b->scratch_exec = NULL;
    b->scratch_stream = NULL;
    b->scratch_event = NULL;
    b->module = NULL;
}

/* ---- behind a spinning kernel ---- */

/* One try: false if there is nothing to say.  *waited_out: it came back only when the kernel was
 * let go. */
static bool behind_try(struct result *r, struct bench *b, struct spin *s, enum call_id id,
                       unsigned int hold_ms, bool *waited_out, double *us_out)
{
    char what[64];
    snprintf(what, sizeof(what), "prepare %s", calls[id].name);
    step(r, what);
    CUresult rc = prepare(b, id);
    if (rc != CUDA_SUCCESS) {
        open_end(r, "%s could not be prepared: %s", calls[id].name, rc_name(rc));
        undo(b);
        return false;
    }
    if (!spin_start(r, s) || !spin_release_after(s, hold_ms))
        return false;
    snprintf(what, sizeof(what), "%s behind a spinning kernel", calls[id].name);
    step(r, what);
    uint64_t from = now_ns();
    rc = do_call(b, id);
    *us_out = (double)(now_ns() - from) / 1000;
    *waited_out = !spin_running(s);
    spin_release_join(s);
    CUresult end = spin_stop(s);
    undo(b);
    if (rc != CUDA_SUCCESS)
        open_end(r, "%s: %s", calls[id].name, rc_name(rc));
    return rc == CUDA_SUCCESS && ok(r, "the spinning kernel", end);
}

static void behind_one(struct result *r, struct bench *b, struct spin *s, enum call_id id)
{
    const unsigned int hold_ms = me.quick ? 60 : 120;
    bool waited;
    double us;
    if (!behind_try(r, b, s, id, hold_ms, &waited, &us))
        return;
    /* A slow call is no waiting call: one that waits takes as long as it is made to. */
    if (waited && !behind_try(r, b, s, id, (me.soft ? 12 : 4) * hold_ms, &waited, &us))
        return;
    if (me.soft && waited && calls[id].waits == FREE && /* the host was busy, perhaps */
        !behind_try(r, b, s, id, 40 * hold_ms, &waited, &us))
        return;
    if (calls[id].waits == MAY)
        note(r, "%s %s (%.0f us)", calls[id].name, waited ? "WAITS" : "goes on", us);
    else
        check(r, waited == (calls[id].waits == MUST), "%s %s (%.0f us)", calls[id].name,
              waited ? "WAITS" : "goes on", us);
}

static void behind(struct result *r, enum call_id from, enum call_id to)
{
    struct bench b;
    struct spin s;
    if (!begin(r) || !bench_open(r, &b) || !spin_open(r, &s))
        return;
    for (unsigned int id = from; id < (unsigned int)to && !s.dead; id++)
        behind_one(r, &b, &s, (enum call_id)id);
}

static void run_vmm_behind(struct result *r)
{
    if (!begin_init(r))
        return;
    if (!me.chunk)
        open_end(r, "no virtual memory management");
    else
        behind(r, DO_reserve, DO_mem_alloc);
}

static void run_calls_behind(struct result *r)
{
    behind(r, DO_mem_alloc, DO_N);
}

/* ---- while a stream is captured ---- */

enum who { SAME, OTHER, OTHER_RELAXED };
static const char *const who_name[] = {"same thread", "other thread", "other relaxed thread"};
static const char *const mode_name[] = {"global", "thread-local", "relaxed"};

struct call_job {
    struct bench *b;
    enum call_id id;
    bool relaxed;
    CUresult rc;
};

static void *call_thread(void *arg)
{
    struct call_job *job = arg;
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    job->rc = cu.CtxSetCurrent(me.ctx);
    if (job->rc == CUDA_SUCCESS && job->relaxed)
        job->rc = cu.ThreadExchangeStreamCaptureMode(&mode);
    if (job->rc == CUDA_SUCCESS)
        job->rc = do_call(job->b, job->id);
    return NULL;
}

/* The call's result and, in *alive_out, whether the capture ended well. */
static CUresult in_capture(struct bench *b, CUstream captured, CUstreamCaptureMode mode,
                           enum who who, enum call_id id, bool *alive_out)
{
    CUgraph graph = NULL;
    pthread_t thread;
    struct call_job job = {
        .b = b, .id = id, .relaxed = who == OTHER_RELAXED, .rc = CUDA_ERROR_UNKNOWN};
    *alive_out = false;
    CUresult rc = cu.StreamBeginCapture(captured, mode);
    if (rc != CUDA_SUCCESS)
        return rc;
    (void)launch(b->null, captured, NULL);
    if (who == SAME)
        job.rc = do_call(b, id);
    else if (pthread_create(&thread, NULL, call_thread, &job) == 0)
        pthread_join(thread, NULL);
    rc = cu.StreamEndCapture(captured, &graph);
    *alive_out = rc == CUDA_SUCCESS && graph;
    if (graph)
        (void)cu.GraphDestroy(graph);
    return job.rc;
}

static void capture_row(struct result *r, struct bench *b, CUstream captured, unsigned int mode,
                        unsigned int who)
{
    char bad[1200] = {0};
    size_t len = 0;
    unsigned int must_fail = 0, fine = 0;
    for (unsigned int id = 0; id < DO_N; id++) {
        char what[80];
        bool alive;
        snprintf(what, sizeof(what), "%s in a %s capture, %s", calls[id].name, mode_name[mode],
                 who_name[who]);
        step(r, what);
        if (prepare(b, (enum call_id)id) != CUDA_SUCCESS) {
            undo(b);
            continue;
        }
        CUresult rc = in_capture(b, captured, (CUstreamCaptureMode)mode, (enum who)who,
                                 (enum call_id)id, &alive);
        undo(b);
        if (rc == CUDA_SUCCESS && alive) {
            fine++;
            continue;
        }
        must_fail += calls[id].capture == PASS;
        len += (size_t)snprintf(bad + len, sizeof(bad) - len, " %s=%d%s", calls[id].name, (int)rc,
                                alive ? "" : "!");
        len = len < sizeof(bad) ? len : sizeof(bad) - 1;
    }
    if (mode == CU_STREAM_CAPTURE_MODE_RELAXED && who == OTHER_RELAXED)
        check(r, must_fail == 0, "%s, %s: %u pass, not:%s", mode_name[mode], who_name[who], fine,
              len ? bad : " none");
    else
        note(r, "%s, %s: %u pass, not:%s", mode_name[mode], who_name[who], fine,
             len ? bad : " none");
}

struct end_job {
    CUstream stream;
    CUresult rc;
};

static void *end_thread(void *arg)
{
    struct end_job *job = arg;
    CUgraph graph = NULL;
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    job->rc = cu.CtxSetCurrent(me.ctx);
    (void)cu.ThreadExchangeStreamCaptureMode(&mode);
    if (job->rc == CUDA_SUCCESS)
        job->rc = cu.StreamEndCapture(job->stream, &graph);
    return NULL;
}

static void capture_moves(struct result *r, struct bench *b, CUstream captured)
{
    pthread_t thread;
    struct end_job job = {.stream = captured, .rc = CUDA_ERROR_UNKNOWN};
    if (!CALL(r, StreamBeginCapture, captured, CU_STREAM_CAPTURE_MODE_RELAXED) ||
        !ok(r, "launch", launch(b->null, captured, NULL)) ||
        pthread_create(&thread, NULL, end_thread, &job) != 0)
        return;
    pthread_join(thread, NULL);
    check(r, job.rc == CUDA_SUCCESS, "a relaxed capture ended by another thread: %s",
          rc_name(job.rc));
}

static void run_calls_capture(struct result *r)
{
    struct bench b;
    CUstream captured;
    if (!begin(r) || !bench_open(r, &b) ||
        !CALL(r, StreamCreate, &captured, CU_STREAM_NON_BLOCKING))
        return;
    CUgraph graph = NULL;
    if (!CALL(r, StreamBeginCapture, captured, CU_STREAM_CAPTURE_MODE_RELAXED) ||
        !CALL(r, StreamEndCapture, captured, &graph))
        return;
    note(r, "calls that are refused (error) or kill the capture (!)");
    for (unsigned int mode = 0; mode < 3; mode++)
        for (unsigned int who = 0; who < 3; who++)
            capture_row(r, &b, captured, mode, who);
    capture_moves(r, &b, captured);
}

const struct fact facts_calls[] = {
    {"vmm_behind",
     "Each call of virtual memory management timed while a kernel spins in a non-blocking stream, "
     "which "
     "is let go after 120 ms.",
     "Reserve, create, map and set access do not wait for the GPU; unmap, release and address free "
     "may.",
     "If growing waits for running kernels: leases grow ahead of need only, and a growth that must "
     "wait is said in the log. If unmapping does not wait: it moves from the helpers to the pump, "
     "behind the quarantine.",
     "pump and helpers, lease", FACT_SOFT, 15, run_vmm_behind},
    {"calls_behind",
     "The same for allocation, registration, modules, graphs, streams, events, copies and queries, "
     "on "
     "another non-blocking stream where they need one.",
     "cuMemFree and cuCtxSynchronize wait (programs rely on it); launches, copies, memsets, "
     "events, "
     "value writes, pool calls, graph launches and queries on other streams do not; the rest may, "
     "and "
     "runs on helpers.",
     "A call that waits though the pump makes it: it moves to a helper. cuMemFree not waiting: "
     "quarantine alone is enough and free never stalls.",
     "pump and helpers, quarantine", FACT_SOFT, 25, run_calls_behind},
    {"calls_capture",
     "Each call made while a stream is captured: three capture modes, from the capturing thread, "
     "from "
     "another one, and from another one in relaxed mode; then a capture ended by another thread.",
     "From a relaxed thread, during a relaxed capture, every call that does not touch the legacy "
     "stream or free memory passes and the capture lives; a relaxed capture may end on another "
     "thread.",
     "A call that fails there: the executor holds it back until the capture ends (a list), or the "
     "capturing session is served call by call by one thread.",
     "capture", 0, 25, run_calls_capture},
};
const size_t facts_calls_n = COUNT(facts_calls);
