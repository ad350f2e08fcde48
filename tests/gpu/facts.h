/* Facts of a real driver: what the design assumes about libcuda, checked one by one.  facts.c runs
 * the facts and reports; facts_*.c hold them.  Plain C, cuda.h and a libcuda opened at run time:
 * nothing of TFR is used, so that the program builds on a bare GPU machine with one cc command.
 *
 * Each fact runs in a process of its own, forked from a parent that never touches CUDA; it writes
 * into a struct result in shared memory, so that what was seen before a hang or a crash is kept. */
#ifndef TFR_FACTS_H
#define TFR_FACTS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <cuda.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

#define KIB            (1ull << 10)
#define MIB            (1ull << 20)
#define GIB            (1ull << 30)
#define COUNT(a)       (sizeof(a) / sizeof((a)[0]))
#define SOFT_NAME      "TFR software GPU"
#define SLOT_N         48 /* measures of one fact */
#define SAMPLE_MAX     8192
#define PTX_NULL_BYTES 4096 /* parameters of the kernel "big" */

enum verdict {
    V_NONE,
    V_AGREES,
    V_DIFFERS,
    V_CANNOT_TELL,
    V_NOT_MODELLED, /* softgpu only: the call or the property does not exist there */
    V_MEASURED,     /* a baseline: nothing to agree with */
    V_HANG,
    V_CRASH,
    V_UNSEEN, /* not run */
};

struct measure {
    char name[56], unit[8];
    double p50, p99, max;
    unsigned int n;
};

struct result {
    enum verdict verdict;
    unsigned int agree_n, differ_n, open_n, measure_n;
    double seconds;
    bool done;     /* the fact came to its end: the library did not end the process */
    char step[96]; /* the last driver call begun: where a hang sits */
    char seen[12000];
    struct measure measure[SLOT_N];
};

enum {
    FACT_SOFT = 1,     /* softgpu models it, and must agree; else it is "not modelled" there */
    FACT_BASELINE = 2, /* only figures */
    FACT_FIRST = 4,    /* before the holder keeps the driver warm */
};

struct fact {
    const char *name;
    const char *done;    /* what is done */
    const char *assumes; /* what TFR assumes */
    const char *changes; /* what it changes in the design if it differs */
    const char *ref;     /* the part of TFR that leans on it */
    unsigned int flags, limit_s;
    void (*run)(struct result *r);
};

/* ---- the driver ---- */

/* Pasting gives the toolkit's name, which cuda.h then maps to the exported one (cuMemAlloc_v2). */
/* clang-format off */
#define FACTS_CALLS(X)                                                                             \
    X(Init) X(DriverGetVersion) X(DeviceGet) X(DeviceGetCount) X(DeviceGetName) X(DeviceTotalMem)  \
    X(DeviceGetAttribute) X(DeviceGetPCIBusId) X(DevicePrimaryCtxRetain) X(DevicePrimaryCtxReset)  \
    X(GetErrorName) X(GetExportTable) X(CtxSetCurrent) X(CtxGetCurrent) X(CtxDestroy)              \
    X(CtxGetApiVersion) X(CtxSynchronize) X(MemAlloc) X(MemFree) X(MemGetInfo) X(MemHostAlloc)     \
    X(MemFreeHost) X(MemHostRegister) X(MemHostUnregister) X(MemHostGetDevicePointer)              \
    X(MemAllocManaged) X(MemAllocAsync) X(MemFreeAsync) X(DeviceGetDefaultMemPool)                 \
    X(MemPoolTrimTo) X(MemPoolSetAttribute) X(PointerGetAttribute) X(MemGetAddressRange)           \
    X(MemAddressReserve) X(MemAddressFree) X(MemCreate) X(MemRelease) X(MemMap) X(MemUnmap)        \
    X(MemSetAccess) X(MemGetAllocationGranularity) X(MemExportToShareableHandle)                   \
    X(MemImportFromShareableHandle) X(MemGetHandleForAddressRange) X(FlushGPUDirectRDMAWrites)     \
    X(IpcGetMemHandle) X(IpcOpenMemHandle) X(IpcCloseMemHandle) X(IpcGetEventHandle)               \
    X(IpcOpenEventHandle) X(MemcpyHtoD) X(MemcpyDtoH) X(MemcpyDtoD) X(MemcpyHtoDAsync)             \
    X(MemcpyDtoHAsync) X(MemcpyDtoDAsync) X(MemcpyPeer) X(MemcpyPeerAsync) X(MemsetD8)             \
    X(MemsetD32) X(MemsetD32Async) X(MemsetD8Async) X(StreamCreate) X(StreamDestroy)               \
    X(StreamQuery) X(StreamSynchronize) X(StreamWaitEvent) X(StreamWriteValue64)                   \
    X(StreamWaitValue64) X(StreamBeginCapture) X(StreamEndCapture) X(ThreadExchangeStreamCaptureMode) \
    X(EventCreate) X(EventDestroy) X(EventRecord) X(EventQuery) X(EventSynchronize)                \
    X(ModuleLoadData) X(ModuleUnload) X(ModuleGetFunction) X(ModuleGetGlobal) X(FuncGetParamInfo)  \
    X(FuncSetAttribute) X(LibraryLoadData) X(LibraryUnload) X(LibraryGetKernelCount)               \
    X(LibraryEnumerateKernels) X(KernelGetParamInfo) X(KernelGetName) X(LaunchKernel)              \
    X(LaunchKernelEx) X(LaunchHostFunc) X(GraphInstantiate) X(GraphLaunch) X(GraphDestroy)         \
    X(GraphExecDestroy) X(Array3DCreate) X(ArrayDestroy)
/* clang-format on */

struct cu {
#define FACTS_FIELD(name) __typeof__(cu##name) *name;
    FACTS_CALLS(FACTS_FIELD)
#undef FACTS_FIELD
    /* Named by version here, since toolkits disagree on what the plain name means. */
    CUresult (*CtxCreate_v2)(CUcontext *ctx, unsigned int flags, CUdevice dev);
    CUresult (*EventElapsedTime)(float *ms, CUevent from, CUevent to);
    CUresult (*MemPrefetchAsync_v2)(CUdeviceptr at, size_t len, CUmemLocation to,
                                    unsigned int flags, CUstream stream);
};
extern struct cu cu;

/* The device under test, filled by begin(). */
struct me {
    CUdevice dev;
    CUcontext ctx;
    size_t mem, chunk; /* memory of the device; granularity of cuMemCreate, 0 if there is none */
    int cc, device_n, driver;
    bool soft, quick;
    char name[128], pci[32], lib[512], missing[256];
};
extern struct me me;
extern const char *facts_lib; /* what to open */

/* Opens the library, initialises it, makes device 0's primary context current.  False: r says why.
 */
bool begin(struct result *r);
/* The same without a context. */
bool begin_init(struct result *r);
int attribute(int which); /* of the device, -1 if it is refused */

/* A kernel of the built-in module, loaded at first use:
 *   null()  stamp(u64 *out)  store(u64 *at, u64 value)  copy(u64 *to, const u64 *from)
 *   spin(u32 *flag, u64 limit_ns): sets flag[16] = 1, then runs until flag[0] != 0 or the limit
 *   big(4096 bytes)  params(u8, u64, b8[12], u16, align 16 b8[48]) */
CUfunction kernel(struct result *r, const char *name);
extern const char ptx_main[], ptx_places[], ptx_managed[], ptx_pdl[];
CUresult launch(CUfunction fn, CUstream stream, void **args);
/* Polls until the stream is idle: its result, or CUDA_ERROR_TIMEOUT. */
CUresult settle(CUstream stream, unsigned int ms);
/* Page-locked, portable, mapped. */
bool pinned(struct result *r, size_t len, void **host_out, CUdeviceptr *dev_out);
/* Memory by cuMemCreate, mapped where the driver likes and accessible. */
struct chunk {
    CUdeviceptr at;
    size_t len;
    CUmemGenericAllocationHandle handle;
};
CUmemAllocationProp chunk_prop(bool rdma, bool fd);
bool chunk_open(struct result *r, size_t len, bool rdma, bool fd, struct chunk *chunk_out);
void chunk_close(struct chunk *chunk);

/* A kernel that keeps the GPU busy until it is told to stop (or 5 s are over). */
struct spin {
    _Atomic uint32_t *flag; /* pairs with the kernel's volatile accesses: [0] stop, [16] started */
    CUdeviceptr dev;
    CUstream stream;
    CUfunction fn;
    pthread_t releaser;
    unsigned int after_ms;
    _Atomic bool cancel;
    bool dead; /* it did not start when it should have */
};
bool spin_open(struct result *r, struct spin *s);
bool spin_start(struct result *r, struct spin *s); /* returns once it runs on the GPU */
bool spin_running(const struct spin *s);
void spin_let_go(struct spin *s);
CUresult spin_stop(struct spin *s);
/* Lets a thread stop it after so long, so that a call that waits for the GPU comes back. */
bool spin_release_after(struct spin *s, unsigned int ms);
void spin_release_join(struct spin *s);

/* ---- what was seen ---- */

void step(struct result *r, const char *what);
void note(struct result *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* One assumption held or not; the text says what was seen. */
bool check(struct result *r, bool good, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* It could not be found out, and why. */
void open_end(struct result *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* True on success; otherwise the refusal is an open end. */
bool ok(struct result *r, const char *call, CUresult rc);
#define CALL(r, fn, ...) (step(r, "cu" #fn), ok(r, "cu" #fn, cu.fn(__VA_ARGS__)))
/* The same where a refusal is an answer. */
#define TRY(r, fn, ...) (step(r, "cu" #fn), cu.fn(__VA_ARGS__))
const char *rc_name(CUresult rc);
/* Sorts the samples and keeps p50, p99 and the largest. */
double measure(struct result *r, const char *unit, double *v, unsigned int n, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));

/* ---- processes, memory, time ---- */

static inline uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void nap_us(unsigned int us);
/* For a wait loop: spins, then yields, so that two processes on one core do not starve each other.
 */
void relax(unsigned int *spins);
void *shared_alloc(size_t len); /* zeroed, shared with children of fork; NULL if there is none */
/* A sealed memfd of len bytes, or -1. */
int memfd_open(size_t len);
void *memfd_map(int fd, size_t len);
/* Is nothing mapped in [at, at+len) of this process? */
bool range_free(uint64_t at, uint64_t len);

/* A second process, forked before this one has touched CUDA.  fn runs there; sock joins the two. */
struct peer {
    pid_t pid;
    int sock;
};
bool peer_start(struct result *r, void (*fn)(int sock, void *arg), void *arg,
                struct peer *peer_out);
bool peer_join(struct peer *p, unsigned int ms); /* false: it had to be killed or it failed */
bool fd_send(int sock, int fd);
int fd_receive(int sock, unsigned int ms);
bool bytes_send(int sock, const void *data, size_t len);
bool bytes_receive(int sock, void *data, size_t len, unsigned int ms);

extern const struct fact facts_vmm[], facts_calls[], facts_stream[], facts_value[], facts_share[],
    facts_misc[], facts_base[];
extern const size_t facts_vmm_n, facts_calls_n, facts_stream_n, facts_value_n, facts_share_n,
    facts_misc_n, facts_base_n;

/* Reports; facts_out.c. */
struct report {
    const struct fact *const *fact;
    const struct result *const *result;
    size_t n;
    const struct me *dev;
    char date[32], host[160], kernel_driver[160], command[1024];
    bool ran; /* false: nothing was run, every fact is "assumed, not yet seen" */
    double seconds;
};
const char *verdict_str(enum verdict verdict);
void print_table(FILE *to, const struct report *report);
void print_json(FILE *to, const struct report *report);
void print_markdown(FILE *to, const struct report *report);

#endif
