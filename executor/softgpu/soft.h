/* What the files of softgpu's driver API share: the objects behind the handles, the streams'
 * engine, and the checks every entry point starts with.  The PTX interpreter (vm.h) knows none of
 * this.
 *
 * Locks, outermost first: state (init) > ctx->lock > event->lock > stream->lock > the engine's,
 * memory's and the handle table's own locks, which are leaves.  No lock is held while an operation
 * of a stream runs.
 *
 * Entry points are compiled with __CUDA_API_VERSION_INTERNAL, so that cuda.h declares exactly the
 * exported names; the pragma gives those, and only those, default visibility. */
#ifndef TFR_SOFTGPU_SOFT_H
#define TFR_SOFTGPU_SOFT_H

#pragma GCC visibility push(default)
#include <cuda.h>
#include <cudaProfiler.h>
#pragma GCC visibility pop

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "executor/softgpu/chaos.h"
#include "executor/softgpu/devmem.h"
#include "executor/softgpu/vm.h"

enum {
    SOFT_DEV_MAX = 8,
    SOFT_DRIVER_VERSION = 13000,
    SOFT_LIMIT_N = CU_LIMIT_MAX,
    SOFT_PRIORITY_HIGH = -5,
    /* The multiprocessor that occupancy is computed for. */
    SOFT_SM_N = 16,
    SOFT_SM_THREADS = 2048,
    SOFT_SM_BLOCKS = 32,
    SOFT_REGISTERS = 65536,
    SOFT_SHARED_DEFAULT = 48 << 10, /* per block, without asking */
    SOFT_SHARED_OPTIN = 227 << 10,
    SOFT_SHARED_RESERVED = 1 << 10,
};

/* ---- handles (handle.c) ---- */

enum soft_kind {
    SOFT_CTX = 1,
    SOFT_STREAM,
    SOFT_EVENT,
    SOFT_MODULE,
    SOFT_FUNC,
    SOFT_LIBRARY,
    SOFT_KERNEL,
    SOFT_PHYS,
    SOFT_POOL,
    SOFT_LINK,
};

/* A handle is a number (kind, generation, slot), so that a stale or wild one is recognised. */
uint64_t soft_handle_add(enum soft_kind kind, void *obj); /* 0: no memory */
void soft_handle_del(uint64_t handle);
void *soft_handle_get(uint64_t handle, enum soft_kind kind); /* NULL: not one */

/* ---- devices and contexts (device.c, ctx.c) ---- */

struct soft_ctx;
struct soft_stream;
struct soft_heap;

struct soft_dev {
    int at;
    int number;      /* in the machine, whatever the program is allowed to see */
    uint64_t memory; /* capacity, bytes */
    struct soft_ctx *primary;
    CUmemoryPool pool, default_pool; /* guarded by mempool.c's lock */
};
extern struct soft_dev soft_devs[SOFT_DEV_MAX];
extern int soft_dev_n;
extern int soft_arch; /* 90 for compute capability 9.0 */
/* What runs on the submitting thread if its stream is idle: bytes of a copy, thread-instructions of
 * a launch.  More is a worker's. */
extern uint64_t soft_inline_copy, soft_inline_work;

struct soft_ctx {
    uint64_t handle, id;
    struct soft_dev *dev;
    unsigned int flags, api_version;
    bool primary;
    int retained; /* primary: guarded by primary.c's lock */
    int attached; /* created: cuCtxAttach, guarded by ctx.c's lock */
    bool ending;  /* its last release is under way; guarded as retained */
    _Atomic bool alive;
    _Atomic int sticky;   /* CUresult: the first fault; nothing of this context runs after it */
    _Atomic bool stop;    /* told to the interpreter: give up */
    pthread_mutex_t lock; /* streams, events, modules, limits, peers */
    struct soft_stream *legacy;
    struct soft_stream *streams; /* all, the legacy one included */
    struct soft_event *events;
    struct soft_module *modules;
    _Atomic uint32_t frees_pending; /* cuMemFreeAsync not yet reached */
    struct soft_heap *heap;
    size_t limit[SOFT_LIMIT_N];
    struct vm_heap device_heap; /* of malloc in kernels */
    CUfunc_cache cache;
    struct soft_ctx
        *next_dead; /* destroyed ones are kept: a thread may still have one as its current */
    struct soft_channels *channels; /* chaos: channel.c's */
    uint32_t peers; /* devices whose memory was enabled; all of it is reachable anyway */
};

/* 0 or why not: not initialised, forked. */
CUresult soft_ready(void);
/* Does this thread run a host function?  CUDA calls are not permitted there. */
extern _Thread_local bool soft_calling;
/* The current context, alive and without a fault. */
CUresult soft_enter(struct soft_ctx **ctx_out);
/* The current context as it is; NULL: none. */
struct soft_ctx *soft_current(void);
CUresult soft_ctx_usable(const struct soft_ctx *ctx);
CUresult soft_dev_get(CUdevice dev, struct soft_dev **dev_out);
CUresult soft_dev_init(void);
struct soft_ctx *soft_ctx_new(struct soft_dev *dev, unsigned int flags, unsigned int version,
                              bool primary);
bool soft_ctx_start(struct soft_ctx *ctx);
/* Ends all work of a context (a stuck one is stopped) and drops what it owns. */
void soft_ctx_clear(struct soft_ctx *ctx);
/* The object, retained or not. */
CUresult soft_primary(struct soft_dev *dev, struct soft_ctx **ctx_out);
void soft_ctx_fault(struct soft_ctx *ctx, CUresult result);
CUresult soft_ctx_wait(struct soft_ctx *ctx);
/* This thread's own stream there, made on demand. */
struct soft_stream *soft_thread_stream(struct soft_ctx *ctx);

#include "executor/softgpu/mem.h"
#include "executor/softgpu/stream.h"
#include "executor/softgpu/code.h"

#endif
