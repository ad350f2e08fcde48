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

#include "executor/softgpu/devmem.h"
#include "executor/softgpu/vm.h"

enum {
    SOFT_DEV_MAX = 8,
    SOFT_DRIVER_VERSION = 13000,
    SOFT_INLINE_COPY = 64 << 10, /* bytes: longer copies are a worker's */
    SOFT_PARAM_MAX = 32764,
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
    uint64_t memory; /* capacity, bytes */
    struct soft_ctx *primary;
    CUmemoryPool pool, default_pool; /* guarded by mempool.c's lock */
};
extern struct soft_dev soft_devs[SOFT_DEV_MAX];
extern int soft_dev_n;
extern int soft_arch; /* 90 for compute capability 9.0 */

struct soft_ctx {
    uint64_t handle, id;
    struct soft_dev *dev;
    unsigned int flags, api_version;
    bool primary;
    int retained; /* primary: guarded by ctx.c's lock */
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
    CUfunc_cache cache;
    uint32_t
        peers; /* devices whose memory was enabled: only the protocol, all memory is reachable */
};

/* 0 or why not: not initialised, forked. */
CUresult soft_ready(void);
/* The current context, alive and without a fault. */
CUresult soft_enter(struct soft_ctx **ctx_out);
/* The current context as it is; NULL: none. */
struct soft_ctx *soft_current(void);
CUresult soft_ctx_usable(const struct soft_ctx *ctx);
CUresult soft_dev_get(CUdevice dev, struct soft_dev **dev_out);
int soft_dev_attribute(const struct soft_dev *dev, int attribute, int *value_out); /* 0 or -1 */
CUresult soft_dev_init(void);
struct soft_ctx *soft_ctx_new(struct soft_dev *dev, unsigned int flags, unsigned int version,
                              bool primary);
CUresult soft_primary(struct soft_dev *dev,
                      struct soft_ctx **ctx_out); /* the object, retained or not */
void soft_ctx_fault(struct soft_ctx *ctx, CUresult result);
/* Ends all work of a context (a stuck one is stopped) and drops what it owns. */
void soft_ctx_clear(struct soft_ctx *ctx);
CUresult soft_ctx_wait(struct soft_ctx *ctx);
struct soft_stream *soft_thread_stream(
    struct soft_ctx *ctx); /* this thread's own, made on demand */

/* ---- streams (stream.c, engine.c) ---- */

enum soft_op_kind {
    SOFT_OP_KERNEL,
    SOFT_OP_COPY,
    SOFT_OP_COPY3D,
    SOFT_OP_FILL,
    SOFT_OP_WRITE,
    SOFT_OP_WAIT_VALUE,
    SOFT_OP_WAIT_STREAM,
    SOFT_OP_RECORD,
    SOFT_OP_HOST,
    SOFT_OP_CALLBACK,
    SOFT_OP_FREE,
    SOFT_OP_NONE,
};

struct soft_event;

struct soft_box { /* a 3D piece of linear memory */
    uint64_t at, pitch, slice;
};

struct soft_op {
    struct soft_op *next;
    uint64_t seq;
    enum soft_op_kind kind;
    uint32_t data_len, data_cap;
    void *data; /* data_len bytes copied in at submission; `room` or a block behind it */
    union {
        struct {
            struct vm_kernel *kernel;
            struct soft_module *module; /* holds a reference */
            uint32_t grid[3], block[3], shared_len;
            bool cooperative;
        } launch;
        struct {
            uint64_t dst, src, len;
        } copy;
        struct {
            struct soft_box dst, src;
            uint64_t width, height, depth;
        } copy3d;
        struct {
            uint64_t at, pitch, width, height; /* width in elements */
            uint32_t value, size;
        } fill;
        struct {
            uint64_t at, value;
            uint32_t wide, flags;
            bool passed; /* a parked wait saw the value */
        } value;
        struct {
            struct soft_stream *stream; /* holds a reference */
            uint64_t seq;
        } wait;
        struct {
            struct soft_event *event; /* holds a reference */
            uint64_t version;
        } record;
        struct {
            CUhostFn fn;
            CUstreamCallback callback;
            void *arg;
            uint64_t stream;
        } host;
        struct {
            uint64_t at;
        } free;
    };
};

struct soft_stream {
    pthread_mutex_t lock; /* queue, spares, waiters, active */
    struct soft_op *head, *tail;
    struct soft_op *spare_small, *spare_big;
    uint32_t spare_n;
    bool active;                /* queued for a worker, being run, or parked */
    bool blocking, per_thread;  /* blocking: takes part in the legacy stream's order */
    _Atomic uint64_t submitted; /* written under lock */
    _Atomic uint64_t done; /* release by who ran the operation; pairs with acquire of all waiters */
    _Atomic uint32_t attention; /* sleepers + parked streams; seq_cst against done */
    _Atomic uint32_t bell;
    struct soft_stream *waiters; /* streams parked on my progress, by run_next */
    struct soft_stream *run_next;
    uint64_t wait_seq;                /* while parked on another stream */
    struct soft_op *parked;           /* while parked on a value */
    uint64_t joined;                  /* blocking: legacy's seq waited for; legacy: unused */
    uint64_t joined_by_legacy;        /* guarded by ctx->lock */
    struct soft_stream *next, **prev; /* in ctx->streams, by ctx->lock */
    struct soft_ctx *ctx;
    unsigned int flags;
    int priority;
    uint64_t id, handle;
    _Atomic uint32_t refs;
};

struct soft_event {
    pthread_mutex_t lock;
    struct soft_ctx *ctx;
    unsigned int flags;
    struct soft_stream *stream; /* of the last record; holds a reference; NULL: never recorded */
    uint64_t seq, version;
    uint64_t time_ns;                /* when the stream passed the last record */
    struct soft_event *next, **prev; /* in ctx->events */
    uint64_t handle;
    _Atomic uint32_t refs;
};

struct soft_stream *soft_stream_new(struct soft_ctx *ctx, unsigned int flags, int priority);
void soft_stream_ref(struct soft_stream *stream);
void soft_stream_unref(struct soft_stream *stream);
void soft_stream_drop(struct soft_stream *stream); /* leaves the context, gives up its handle */
void soft_event_unref(struct soft_event *event);
void soft_event_drop(struct soft_event *event);

/* A handle, or one of the names NULL/1 (legacy) and 2 (per thread), in the current context. */
CUresult soft_stream_find(CUstream handle, struct soft_stream **stream_out);

/* Appends *op (with `len` bytes at `data`) behind what the stream and the legacy rules require.
 * `cheap`: run it here and now if nothing is ahead of it.  *seq_out may be NULL. */
CUresult soft_submit(struct soft_stream *stream, const struct soft_op *op, const void *data,
                     uint32_t len, bool cheap, uint64_t *seq_out);
/* The position that covers all that was submitted, the legacy joins included. */
uint64_t soft_stream_position(struct soft_stream *stream);
bool soft_stream_passed(const struct soft_stream *stream, uint64_t seq);
void soft_stream_wait(struct soft_stream *stream, uint64_t seq);

/* engine.c, for stream.c */
void soft_engine_run(
    struct soft_stream *stream); /* a worker will: stream->active was set by the caller */
bool soft_engine_park(struct soft_stream *stream,
                      struct soft_op *op); /* false: the value is there */
void soft_engine_poll(void); /* memory was written: look at parked value waits if there are any */
void soft_exec(struct soft_stream *stream, struct soft_op *op); /* op.c: anything but a wait */
/* Runs operations until the stream is empty or parked; the caller owns stream->active. */
void soft_stream_work(struct soft_stream *stream);
void soft_stream_complete(struct soft_stream *stream, uint64_t seq);
bool soft_value_there(const struct soft_op *op);

/* ---- memory (devmem.c, hostmem.c, vmm.c, mempool.c) ---- */

enum {
    SOFT_MEM_MANAGED = 1,
    SOFT_MEM_ASYNC = 2,
    SOFT_MEM_FREEING = 4,
    SOFT_MEM_VMM = 8,
    SOFT_MEM_HOST = 16,
    SOFT_MEM_MODULE = 32, /* a variable of a module: not the program's to free */
};

struct soft_range {
    uint64_t base, len, id;
    unsigned int flags; /* SOFT_MEM_*, for host memory also host_flags */
    unsigned int host_flags;
    bool registered; /* host memory by cuMemHostRegister */
    struct soft_ctx *ctx;
    struct soft_dev *dev;
    uint64_t pool; /* mempool.c's, for SOFT_MEM_ASYNC */
};

struct soft_heap *soft_heap_new(struct soft_dev *dev, struct soft_ctx *ctx);
void soft_heap_clear(struct soft_heap *heap); /* frees every allocation in it */
/* The heap that soft_mem_alloc uses on this thread from now on; NULL: device 0's own. */
void soft_heap_use(struct soft_heap *heap);
CUresult soft_heap_alloc(struct soft_heap *heap, size_t len, size_t align, unsigned int flags,
                         uint64_t pool, CUdeviceptr *addr_out);
/* Base addresses only.  `flags` must be among the allocation's, else CUDA_ERROR_INVALID_VALUE. */
CUresult soft_heap_free(CUdeviceptr addr);
CUresult soft_mem_mark(CUdeviceptr addr,
                       unsigned int flag); /* sets a flag; set already: INVALID_VALUE */
/* Device memory that holds addr: an allocation or a VMM mapping. */
bool soft_mem_find(uint64_t addr, struct soft_range *range_out);
bool soft_any_find(uint64_t addr, struct soft_range *range_out); /* device or known host memory */
/* May the driver itself copy to or from [addr, addr+len)?  For device memory: inside one allocation
 * or accessible mappings; true for host memory (pageable too). */
CUresult soft_mem_check(uint64_t addr, uint64_t len, unsigned int want);
static inline bool soft_is_device(uint64_t addr)
{
    return addr - soft_mem.base < soft_mem.len;
}
uint64_t soft_mem_used(const struct soft_dev *dev);
CUresult soft_mem_charge(struct soft_dev *dev, uint64_t len);
void soft_mem_credit(struct soft_dev *dev, uint64_t len);

/* devmem.c for vmm.c: address space in units of 2 MiB, which is also the granularity of mappings.
 */
enum { SOFT_CHUNK_SHIFT = 21 };
#define SOFT_CHUNK (1ull << SOFT_CHUNK_SHIFT)

struct soft_phys;

struct soft_reserve { /* cuMemAddressReserve; contents guarded by vmm.c's lock */
    uint64_t base, len;
    struct soft_piece {         /* per 2 MiB */
        struct soft_phys *phys; /* NULL: nothing mapped */
        uint32_t first, n;      /* the whole mapping, in pieces of the reservation */
        uint64_t at;            /* in phys */
        uint64_t id;
        unsigned int access; /* SOFT_PAGE_* */
        struct soft_dev *dev;
    } piece[];
};

/* Address space for a reservation; a hint is honoured if it is free.  False: none left. */
bool soft_space_take(struct soft_reserve *reserve, uint64_t align, uint64_t hint);
void soft_space_give(struct soft_reserve *reserve);
struct soft_reserve *soft_space_owner(uint64_t addr); /* NULL: not reserved */
void soft_page_set(uint64_t base, uint64_t len, unsigned int access);
uint64_t soft_next_id(void);
void soft_pool_free(struct soft_ctx *ctx,
                    uint64_t at); /* mempool.c: the stream reached a cuMemFreeAsync */

bool soft_host_find(uint64_t addr, struct soft_range *range_out);
bool soft_host_pinned(uint64_t addr, uint64_t len);
CUresult soft_host_add(const struct soft_range *range);
CUresult soft_host_del(uint64_t base, bool registered);
bool soft_host_take(struct soft_ctx *ctx,
                    struct soft_range *range_out); /* removes one of its ranges */

void soft_host_unmap(const struct soft_range *range); /* hostalloc.c: gives allocated pages back */
void soft_pool_forget(struct soft_ctx *ctx);
uint64_t soft_pool_handle(uint64_t pool); /* of soft_range.pool */

/* ---- modules and launches (image.c, module.c, library.c, func.c, launch.c) ---- */

struct soft_jit {
    unsigned int n;
    const CUjit_option *options;
    void **values;
};

/* PTX text of an image, malloc'ed.  A refusal is logged and goes to the JIT error buffer. */
CUresult soft_image_ptx(const void *image, const struct soft_jit *jit, char **ptx_out,
                        size_t *len_out);
void soft_image_refuse(const struct soft_jit *jit, const char *why);
CUresult soft_image_file(const char *path, char **image_out);

struct soft_func {
    uint64_t handle;
    struct soft_module *module;
    struct vm_kernel *kernel;
    const struct vm_kernel_info *info;
    _Atomic bool ready; /* decoded */
    _Atomic int max_dynamic, carveout, cache;
};

struct soft_module {
    uint64_t handle;
    struct soft_ctx *ctx;
    struct vm_module *vm;
    struct soft_func *func;
    size_t func_n;
    struct soft_library *library;     /* NULL: by cuModuleLoad */
    struct soft_module *next, **prev; /* in ctx->modules */
    _Atomic uint32_t refs;            /* its own life, and every launch on its way */
};

/* Loads the text into the context. */
CUresult soft_module_make(struct soft_ctx *ctx, const char *ptx, size_t len,
                          const struct soft_jit *jit, struct soft_library *library,
                          struct soft_module **module_out);
void soft_module_drop(
    struct soft_module *module); /* launches on their way keep it until they are done */
void soft_module_unref(struct soft_module *module);
struct soft_func *soft_module_func(struct soft_module *module, const char *name);
/* The library's module in this context, loaded at first use. */
CUresult soft_library_module(struct soft_library *library, struct soft_ctx *ctx,
                             struct soft_module **module_out);
void soft_library_forget(struct soft_module *module); /* it goes with its context */
/* A CUfunction or a CUkernel, in this context. */
CUresult soft_func_find(CUfunction handle, struct soft_ctx *ctx, struct soft_func **func_out);
CUresult soft_kernel_func(CUkernel handle, struct soft_ctx *ctx, struct soft_func **func_out);
CUresult soft_func_ready(struct soft_func *func); /* decodes it */
CUresult soft_func_attribute(struct soft_func *func, CUfunction_attribute attribute,
                             int *value_out);
CUresult soft_func_set_attribute(struct soft_func *func, CUfunction_attribute attribute, int value);
CUresult soft_func_param(const struct vm_kernel_info *info, size_t at, size_t *offset_out,
                         size_t *len_out);
/* Blocks of the function that one multiprocessor holds. */
int soft_occupancy(struct soft_func *func, uint32_t threads, uint64_t dynamic);

#endif
