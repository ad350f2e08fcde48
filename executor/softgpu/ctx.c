/* Contexts: the current one of each thread, primary ones, their life and their limits.
 * A context's memory is never returned to the heap, so that a thread may keep a destroyed one as
 * its current context and be told so; the handle of a primary context stays the same for ever. */
#include "executor/softgpu/soft.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "face/face.h"

enum { STACK_MAX = 64, CLEAR_WAIT_S = 5 };

struct thread_stream { /* a thread's own stream in one context */
    struct thread_stream *next;
    struct soft_stream *stream; /* holds a reference */
    uint64_t ctx_id;
};

struct thread {
    struct soft_ctx *stack[STACK_MAX];
    uint32_t depth;
    struct thread_stream *streams;
};

static _Thread_local struct soft_ctx *current; /* top of the stack */
static _Thread_local struct thread *self;
static pthread_key_t self_key;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t dead_lock = PTHREAD_MUTEX_INITIALIZER;
static struct soft_ctx *dead; /* by dead_lock */
static _Atomic int state;     /* 0 not yet, 1 ready, 2 forked */

/* ---- the process ---- */

static void forked(void)
{
    if (atomic_load_explicit(&state, memory_order_relaxed) == 1)
        atomic_store_explicit(&state, 2, memory_order_relaxed);
}

static CUresult init(void)
{
    CUresult result = soft_mem_init();
    if (result == CUDA_SUCCESS)
        result = soft_dev_init();
    if (result == CUDA_SUCCESS && pthread_atfork(NULL, NULL, forked))
        result = CUDA_ERROR_OPERATING_SYSTEM;
    return result;
}

CUresult cuInit(unsigned int flags)
{
    static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;
    static CUresult result = CUDA_ERROR_NOT_INITIALIZED;
    if (flags)
        return CUDA_ERROR_INVALID_VALUE;
    if (atomic_load_explicit(&state, memory_order_acquire) == 2)
        return CUDA_ERROR_NOT_INITIALIZED;
    pthread_mutex_lock(&init_lock);
    if (result == CUDA_ERROR_NOT_INITIALIZED) {
        result = init();
        if (result == CUDA_SUCCESS)
            atomic_store_explicit(&state, 1, memory_order_release);
    }
    pthread_mutex_unlock(&init_lock);
    return result;
}

CUresult soft_ready(void)
{
    return atomic_load_explicit(&state, memory_order_acquire) == 1 ? CUDA_SUCCESS
                                                                   : CUDA_ERROR_NOT_INITIALIZED;
}

/* ---- threads ---- */

static void thread_gone(void *arg)
{
    struct thread *thread = arg;
    while (thread->streams) {
        struct thread_stream *mine = thread->streams;
        thread->streams = mine->next;
        soft_stream_drop(mine->stream);
        soft_stream_unref(mine->stream);
        free(mine);
    }
    free(thread);
    self = NULL;
}

static void make_key(void)
{
    pthread_key_create(&self_key, thread_gone);
}

static struct thread *me(void)
{
    if (!self) {
        pthread_once(&key_once, make_key);
        self = calloc(1, sizeof(*self));
        if (self)
            pthread_setspecific(self_key, self);
    }
    return self;
}

struct soft_stream *soft_thread_stream(struct soft_ctx *ctx)
{
    struct thread *thread = me();
    if (!thread)
        return NULL;
    for (struct thread_stream *mine = thread->streams; mine; mine = mine->next)
        if (mine->ctx_id == ctx->id)
            return mine->stream;
    struct thread_stream *mine = calloc(1, sizeof(*mine));
    struct soft_stream *stream = mine ? soft_stream_new(ctx, CU_STREAM_DEFAULT, 0) : NULL;
    if (!stream) {
        free(mine);
        return NULL;
    }
    stream->per_thread = true;
    soft_stream_ref(stream);
    *mine = (struct thread_stream){thread->streams, stream, ctx->id};
    thread->streams = mine;
    return stream;
}

struct soft_ctx *soft_current(void)
{
    return current;
}

CUresult soft_ctx_usable(const struct soft_ctx *ctx)
{
    int sticky = atomic_load_explicit(&ctx->sticky, memory_order_acquire);
    if (__builtin_expect(sticky != 0, 0))
        return (CUresult)sticky;
    return atomic_load_explicit(&ctx->alive, memory_order_acquire)
               ? CUDA_SUCCESS
               : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

CUresult soft_enter(struct soft_ctx **ctx_out)
{
    struct soft_ctx *ctx = current;
    if (__builtin_expect(soft_ready() != CUDA_SUCCESS, 0))
        return CUDA_ERROR_NOT_INITIALIZED;
    if (__builtin_expect(soft_calling, 0))
        return CUDA_ERROR_NOT_PERMITTED;
    if (!ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    *ctx_out = ctx;
    return soft_ctx_usable(ctx);
}

void soft_ctx_fault(struct soft_ctx *ctx, CUresult result)
{
    int none = CUDA_SUCCESS;
    atomic_compare_exchange_strong_explicit(&ctx->sticky, &none, (int)result, memory_order_acq_rel,
                                            memory_order_acquire);
    atomic_store_explicit(&ctx->stop, true, memory_order_release);
    soft_engine_poll();
}

/* ---- life ---- */

bool soft_ctx_start(struct soft_ctx *ctx)
{
    static const size_t limits[SOFT_LIMIT_N] = {
        [CU_LIMIT_STACK_SIZE] = 1024,
        [CU_LIMIT_PRINTF_FIFO_SIZE] = 1 << 20,
        [CU_LIMIT_MALLOC_HEAP_SIZE] = 8 << 20,
        [CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH] = 2,
        [CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT] = 2048,
        [CU_LIMIT_MAX_L2_FETCH_GRANULARITY] = 128,
    };
    memcpy(ctx->limit, limits, sizeof(limits));
    ctx->cache = CU_FUNC_CACHE_PREFER_NONE;
    ctx->peers = 0;
    atomic_store_explicit(&ctx->sticky, 0, memory_order_relaxed);
    atomic_store_explicit(&ctx->stop, false, memory_order_relaxed);
    ctx->legacy = soft_stream_new(ctx, CU_STREAM_DEFAULT, 0);
    if (!ctx->legacy)
        return false;
    atomic_store_explicit(&ctx->alive, true, memory_order_release);
    return true;
}

struct soft_ctx *soft_ctx_new(struct soft_dev *dev, unsigned int flags, unsigned int version,
                              bool primary)
{
    struct soft_ctx *ctx = calloc(1, sizeof(*ctx));
    if (!ctx)
        return NULL;
    ctx->handle = soft_handle_add(SOFT_CTX, ctx);
    ctx->heap = soft_heap_new(dev, ctx);
    ctx->id = soft_next_id();
    ctx->dev = dev;
    ctx->flags = flags;
    ctx->api_version = version;
    ctx->primary = primary;
    pthread_mutex_init(&ctx->lock, NULL);
    bool ok = !soft_chaos.on || soft_chaos_ctx(ctx);
    if (!ok || !ctx->handle || !ctx->heap || (!primary && !soft_ctx_start(ctx))) {
        soft_handle_del(ctx->handle);
        free(ctx->heap);
        if (!ctx->channels) /* chaos has listed it */
            free(ctx);
        return NULL;
    }
    return ctx;
}

struct position {
    struct soft_stream *stream;
    uint64_t seq;
};

/* Every stream of the context with what it was given so far; references are held. */
static struct position *positions(struct soft_ctx *ctx, uint32_t *n_out)
{
    uint32_t n = 0, i = 0;
    pthread_mutex_lock(&ctx->lock);
    for (struct soft_stream *s = ctx->streams; s; s = s->next)
        n++;
    struct position *all = malloc((n + 1) * sizeof(*all));
    for (struct soft_stream *s = ctx->streams; all && s; s = s->next) {
        soft_stream_ref(s);
        all[i++] = (struct position){s, atomic_load_explicit(&s->submitted, memory_order_acquire)};
    }
    pthread_mutex_unlock(&ctx->lock);
    *n_out = i;
    return all;
}

CUresult soft_ctx_wait(struct soft_ctx *ctx)
{
    if (soft_calling) /* it would wait for itself */
        return CUDA_ERROR_NOT_PERMITTED;
    uint32_t n;
    struct position *all = positions(ctx, &n);
    if (!all)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (uint32_t i = 0; i < n; i++) {
        soft_stream_wait(all[i].stream, all[i].seq);
        soft_stream_unref(all[i].stream);
    }
    free(all);
    soft_pool_synced();
    return soft_ctx_usable(ctx);
}

/* True if a stream has not passed what it was given; *sum_out changes with every step forward. */
static bool busy(struct soft_ctx *ctx, uint64_t *sum_out)
{
    bool any = false;
    *sum_out = 0;
    pthread_mutex_lock(&ctx->lock);
    for (struct soft_stream *s = ctx->streams; s; s = s->next) {
        any |= !soft_stream_passed(s, atomic_load_explicit(&s->submitted, memory_order_acquire));
        *sum_out += s->id + atomic_load_explicit(&s->done, memory_order_relaxed);
    }
    pthread_mutex_unlock(&ctx->lock);
    return any;
}

/* True once every stream has passed what it was given; false if nothing moves for a while. */
static bool drained(struct soft_ctx *ctx)
{
    uint64_t before = 0, sum, until = 0;
    while (busy(ctx, &sum)) {
        uint64_t now = tfr_clock_now();
        if (!until || sum != before)
            until = now + CLEAR_WAIT_S * TFR_NS_PER_S;
        if (now > until)
            return false;
        before = sum;
        usleep(200);
    }
    return true;
}

static void host_clear(struct soft_ctx *ctx)
{
    struct soft_range range;
    while (soft_host_take(ctx, &range))
        soft_host_unmap(&range);
}

static struct soft_stream *undropped(struct soft_ctx *ctx)
{
    pthread_mutex_lock(&ctx->lock);
    struct soft_stream *stream = ctx->streams;
    while (stream && soft_stream_dropped(stream))
        stream = stream->next;
    pthread_mutex_unlock(&ctx->lock);
    return stream;
}

/* All have passed their last operation; a worker may still be on its way out of one. */
static void streams_clear(struct soft_ctx *ctx)
{
    struct soft_stream *stream;
    bool empty = false;
    while ((stream = undropped(ctx)))
        soft_stream_drop(stream);
    while (!empty) {
        pthread_mutex_lock(&ctx->lock);
        empty = !ctx->streams;
        pthread_mutex_unlock(&ctx->lock);
        if (!empty)
            usleep(50);
    }
}

/* Nobody has access to the memory of a primary context that ends. */
static void peers_clear(const struct soft_ctx *gone)
{
    for (int i = 0; i < soft_dev_n; i++) {
        struct soft_ctx *ctx = soft_devs[i].primary;
        if (!ctx || ctx == gone)
            continue;
        pthread_mutex_lock(&ctx->lock);
        ctx->peers &= ~(1u << gone->dev->at);
        pthread_mutex_unlock(&ctx->lock);
    }
}

void soft_ctx_clear(struct soft_ctx *ctx)
{
    drained(ctx);
    tfr_face_context_gone((CUcontext)ctx->handle);
    atomic_store_explicit(&ctx->stop, true, memory_order_release);
    atomic_store_explicit(&ctx->alive, false, memory_order_release);
    soft_engine_poll();
    if (!drained(ctx))
        return; /* a host function does not return: what it may use stays */
    while (ctx->modules)
        soft_module_drop(ctx->modules);
    while (ctx->events)
        soft_event_drop(ctx->events);
    streams_clear(ctx);
    soft_pool_forget(ctx);
    if (ctx->primary)
        peers_clear(ctx);
    host_clear(ctx);
    soft_heap_clear(ctx->heap);
    ctx->id = soft_next_id(); /* a primary context's next life is another context */
    atomic_store_explicit(&ctx->sticky, 0,
                          memory_order_release); /* from now on it is destroyed, not faulty */
}

/* ---- create, destroy, current ---- */

static void set_top(struct soft_ctx *ctx)
{
    current = ctx;
    soft_heap_use(ctx ? ctx->heap : NULL);
}

static CUresult push(struct soft_ctx *ctx)
{
    struct thread *thread = me();
    if (!thread || thread->depth == STACK_MAX)
        return CUDA_ERROR_OUT_OF_MEMORY;
    thread->stack[thread->depth++] = ctx;
    set_top(ctx);
    return CUDA_SUCCESS;
}

static void pop(void)
{
    struct thread *thread = me();
    if (thread && thread->depth)
        thread->depth--;
    set_top(thread && thread->depth ? thread->stack[thread->depth - 1] : NULL);
}

static CUresult create(CUcontext *out, unsigned int flags, CUdevice device, unsigned int version)
{
    struct soft_dev *dev;
    CUresult result = soft_dev_get(device, &dev);
    if (result)
        return result;
    if (!out || (flags & ~(unsigned int)CU_CTX_FLAGS_MASK) ||
        (flags & CU_CTX_SCHED_MASK) > CU_CTX_SCHED_BLOCKING_SYNC)
        return CUDA_ERROR_INVALID_VALUE;
    struct soft_ctx *ctx = soft_ctx_new(dev, flags | CU_CTX_MAP_HOST, version, false);
    if (!ctx)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *out = (CUcontext)ctx->handle;
    return push(ctx);
}

CUresult cuCtxCreate(CUcontext *ctx, unsigned int flags, CUdevice dev)
{
    return create(ctx, flags, dev, 3010);
}

CUresult cuCtxCreate_v2(CUcontext *ctx, unsigned int flags, CUdevice dev)
{
    return create(ctx, flags, dev, 3020);
}

CUresult cuCtxCreate_v3(CUcontext *ctx, CUexecAffinityParam *affinity, int n, unsigned int flags,
                        CUdevice dev)
{
    if (affinity && n)
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    return create(ctx, flags, dev, 3020);
}

CUresult cuCtxCreate_v4(CUcontext *ctx, CUctxCreateParams *params, unsigned int flags, CUdevice dev)
{
    if (params && (params->numExecAffinityParams || params->cigParams))
        return CUDA_ERROR_NOT_SUPPORTED;
    return create(ctx, flags, dev, 3020);
}

/* A handle of a context, current or not, dead or alive; NULL: none of ours. */
static struct soft_ctx *ctx_of(CUcontext handle)
{
    return soft_handle_get((uint64_t)handle, SOFT_CTX);
}

CUresult cuCtxDestroy_v2(CUcontext handle)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    struct soft_ctx *ctx = ctx_of(handle);
    if (!ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (ctx->primary)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&dead_lock);
    bool first = ctx_of(handle) == ctx;
    if (first) {
        soft_handle_del(ctx->handle);
        ctx->next_dead = dead;
        dead = ctx;
    }
    pthread_mutex_unlock(&dead_lock);
    if (!first)
        return CUDA_ERROR_INVALID_CONTEXT;
    soft_ctx_clear(ctx);
    if (current == ctx)
        pop();
    return CUDA_SUCCESS;
}

CUresult cuCtxDestroy(CUcontext handle)
{
    return cuCtxDestroy_v2(handle);
}

CUresult cuCtxAttach(CUcontext *handle, unsigned int flags)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (!handle || flags)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&dead_lock);
    ctx->attached++;
    pthread_mutex_unlock(&dead_lock);
    *handle = (CUcontext)ctx->handle;
    return CUDA_SUCCESS;
}

/* Creation was the first use. */
CUresult cuCtxDetach(CUcontext handle)
{
    struct soft_ctx *ctx;
    CUresult result = soft_enter(&ctx);
    if (result)
        return result;
    if (ctx_of(handle) != ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (ctx->primary)
        return cuDevicePrimaryCtxRelease_v2(ctx->dev->at);
    pthread_mutex_lock(&dead_lock);
    bool last = ctx->attached-- == 0;
    pthread_mutex_unlock(&dead_lock);
    return last ? cuCtxDestroy_v2(handle) : CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext handle)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    struct soft_ctx *ctx = ctx_of(handle);
    return ctx ? push(ctx) : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxPopCurrent_v2(CUcontext *handle)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!current)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (handle)
        *handle = (CUcontext)current->handle;
    pop();
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent(CUcontext handle)
{
    return cuCtxPushCurrent_v2(handle);
}

CUresult cuCtxPopCurrent(CUcontext *handle)
{
    return cuCtxPopCurrent_v2(handle);
}

CUresult cuCtxSetCurrent(CUcontext handle)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    struct soft_ctx *ctx = handle ? ctx_of(handle) : NULL;
    struct thread *thread = me();
    if (handle && !ctx)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!thread)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!ctx) {
        pop();
        return CUDA_SUCCESS;
    }
    if (!thread->depth)
        return push(ctx);
    thread->stack[thread->depth - 1] = ctx;
    set_top(ctx);
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *handle)
{
    if (soft_ready())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!handle)
        return CUDA_ERROR_INVALID_VALUE;
    *handle = current ? (CUcontext)current->handle : NULL;
    return CUDA_SUCCESS;
}
