/* What the facts share: the table of driver calls, set-up of a process, the built-in kernels, a
 * kernel that spins.  The kernels are PTX text for sm_75, so that the program needs no nvcc; only
 * the one about dependent launches needs sm_90. */
#include "facts.h"

#include <dlfcn.h>
#include <stdlib.h>

struct cu cu;
struct me me;
const char *facts_lib = "libcuda.so.1";

const char ptx_main[] =
    ".version 7.0\n.target sm_75\n.address_size 64\n"
    ".visible .global .align 8 .b8 cell[64];\n"
    ".visible .entry null()\n{\n ret;\n}\n"
    ".visible .entry stamp(.param .u64 out)\n{\n .reg .b64 %rd<3>;\n"
    " ld.param.u64 %rd1, [out];\n mov.u64 %rd2, %globaltimer;\n"
    " st.global.u64 [%rd1], %rd2;\n ret;\n}\n"
    ".visible .entry store(.param .u64 at, .param .u64 value)\n{\n .reg .b64 %rd<3>;\n"
    " ld.param.u64 %rd1, [at];\n ld.param.u64 %rd2, [value];\n"
    " st.global.u64 [%rd1], %rd2;\n ret;\n}\n"
    ".visible .entry copy(.param .u64 to, .param .u64 from)\n{\n .reg .b64 %rd<4>;\n"
    " ld.param.u64 %rd1, [to];\n ld.param.u64 %rd2, [from];\n"
    " ld.global.u64 %rd3, [%rd2];\n st.global.u64 [%rd1], %rd3;\n ret;\n}\n"
    ".visible .entry spin(.param .u64 flag, .param .u64 limit)\n{\n"
    " .reg .b64 %rd<7>;\n .reg .b32 %r<4>;\n .reg .pred %p<3>;\n"
    " ld.param.u64 %rd1, [flag];\n ld.param.u64 %rd2, [limit];\n"
    " mov.u64 %rd3, %globaltimer;\n mov.u32 %r1, 1;\n"
    " st.volatile.global.u32 [%rd1+64], %r1;\n membar.sys;\n"
    "again:\n ld.volatile.global.u32 %r2, [%rd1];\n setp.ne.u32 %p1, %r2, 0;\n"
    " @%p1 bra done;\n mov.u64 %rd4, %globaltimer;\n sub.u64 %rd5, %rd4, %rd3;\n"
    " setp.lt.u64 %p2, %rd5, %rd2;\n @%p2 bra again;\n"
    "done:\n ret;\n}\n"
    ".visible .entry big(.param .align 8 .b8 block[4096])\n{\n .reg .b64 %rd<2>;\n"
    " ld.param.u64 %rd1, [block+4088];\n ret;\n}\n"
    ".visible .entry params(.param .u8 a, .param .u64 b, .param .align 4 .b8 c[12],"
    " .param .u16 d, .param .align 16 .b8 e[48])\n{\n ret;\n}\n";

const char ptx_places[] = ".version 7.0\n.target sm_75\n.address_size 64\n"
                          ".visible .global .align 8 .b8 small_global[64];\n"
                          ".visible .global .align 8 .b8 big_global[4194304];\n"
                          ".visible .const .align 8 .b8 constant[64];\n"
                          ".visible .entry touch()\n{\n ret;\n}\n";

const char ptx_managed[] = ".version 7.0\n.target sm_75\n.address_size 64\n"
                           ".visible .global .attribute(.managed) .align 8 .b8 managed_cell[64];\n"
                           ".visible .entry touch()\n{\n ret;\n}\n";

/* out[0] = end of first, out[1] = start of second. */
const char ptx_pdl[] = ".version 7.8\n.target sm_90\n.address_size 64\n"
                       ".visible .entry first(.param .u64 out, .param .u64 run)\n{\n"
                       " .reg .b64 %rd<6>;\n .reg .pred %p<2>;\n"
                       " ld.param.u64 %rd1, [out];\n ld.param.u64 %rd2, [run];\n"
                       " griddepcontrol.launch_dependents;\n mov.u64 %rd3, %globaltimer;\n"
                       "again:\n mov.u64 %rd4, %globaltimer;\n sub.u64 %rd5, %rd4, %rd3;\n"
                       " setp.lt.u64 %p1, %rd5, %rd2;\n @%p1 bra again;\n"
                       " st.volatile.global.u64 [%rd1], %rd4;\n ret;\n}\n"
                       ".visible .entry second(.param .u64 out)\n{\n .reg .b64 %rd<3>;\n"
                       " ld.param.u64 %rd1, [out];\n mov.u64 %rd2, %globaltimer;\n"
                       " st.volatile.global.u64 [%rd1+8], %rd2;\n griddepcontrol.wait;\n ret;\n}\n";

static CUmodule main_module;

/* Stands in for a call that the library does not export.  No argument is read, so calling it
 * through another type is harmless on every ABI this runs on. */
static CUresult not_exported(void)
{
    return CUDA_ERROR_NOT_SUPPORTED;
}

static void *symbol(void *lib, const char *name)
{
    void *at = dlsym(lib, name);
    if (at)
        return at;
    size_t len = strlen(me.missing);
    snprintf(me.missing + len, sizeof(me.missing) - len, "%s%s", len ? " " : "", name);
    CUresult (*stand_in)(void) = not_exported;
    memcpy(&at, &stand_in, sizeof(at));
    return at;
}

#define STR_(x) #x
#define STR(x)  STR_(x)

static void *table_load(void)
{
    static void *lib;
    if (lib)
        return lib;
    lib = dlopen(facts_lib, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return NULL;
#define FACTS_LOAD(name)                                                                           \
    {                                                                                              \
        void *at = symbol(lib, STR(cu##name));                                                     \
        memcpy(&cu.name, &at, sizeof(at));                                                         \
    }
    FACTS_CALLS(FACTS_LOAD)
#undef FACTS_LOAD
    void *at = symbol(lib, "cuCtxCreate_v2");
    memcpy(&cu.CtxCreate_v2, &at, sizeof(at));
    at = symbol(lib, "cuEventElapsedTime");
    memcpy(&cu.EventElapsedTime, &at, sizeof(at));
    at = symbol(lib, "cuMemPrefetchAsync_v2");
    memcpy(&cu.MemPrefetchAsync_v2, &at, sizeof(at));
    return lib;
}

int attribute(int which)
{
    int value = -1;
    if (cu.DeviceGetAttribute(&value, (CUdevice_attribute)which, me.dev) != CUDA_SUCCESS)
        return -1;
    return value;
}

static void library_name(void)
{
    Dl_info info;
    void *at;
    memcpy(&at, &cu.Init, sizeof(at));
    if (!dladdr(at, &info) || !info.dli_fname || !realpath(info.dli_fname, me.lib))
        snprintf(me.lib, sizeof(me.lib), "%s", facts_lib);
}

CUmemAllocationProp chunk_prop(bool rdma, bool fd)
{
    CUmemAllocationProp prop;
    memset(&prop, 0, sizeof(prop));
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.location.id = me.dev;
    if (fd)
        prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    prop.allocFlags.gpuDirectRDMACapable = rdma ? 1 : 0;
    return prop;
}

bool begin_init(struct result *r)
{
    step(r, "dlopen");
    if (!table_load()) {
        open_end(r, "%s", dlerror());
        return false;
    }
    if (!CALL(r, Init, 0) || !CALL(r, DeviceGetCount, &me.device_n))
        return false;
    if (me.device_n < 1) {
        open_end(r, "no device");
        return false;
    }
    if (!CALL(r, DeviceGet, &me.dev, 0) ||
        !CALL(r, DeviceGetName, me.name, (int)sizeof(me.name), me.dev) ||
        !CALL(r, DeviceTotalMem, &me.mem, me.dev))
        return false;
    me.soft = strncmp(me.name, SOFT_NAME, strlen(SOFT_NAME)) == 0;
    me.cc = attribute(75) * 10 + attribute(76);
    if (cu.DeviceGetPCIBusId(me.pci, (int)sizeof(me.pci), me.dev) != CUDA_SUCCESS)
        snprintf(me.pci, sizeof(me.pci), "-");
    (void)cu.DriverGetVersion(&me.driver);
    library_name();
    CUmemAllocationProp prop = chunk_prop(false, false);
    if (cu.MemGetAllocationGranularity(&me.chunk, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM) !=
        CUDA_SUCCESS)
        me.chunk = 0;
    return true;
}

bool begin(struct result *r)
{
    return begin_init(r) && CALL(r, DevicePrimaryCtxRetain, &me.ctx, me.dev) &&
           CALL(r, CtxSetCurrent, me.ctx);
}

CUfunction kernel(struct result *r, const char *name)
{
    CUfunction fn = NULL;
    if (!main_module && !CALL(r, ModuleLoadData, &main_module, ptx_main)) {
        main_module = NULL;
        return NULL;
    }
    return CALL(r, ModuleGetFunction, &fn, main_module, name) ? fn : NULL;
}

CUresult launch(CUfunction fn, CUstream stream, void **args)
{
    return cu.LaunchKernel(fn, 1, 1, 1, 1, 1, 1, 0, stream, args, NULL);
}

CUresult settle(CUstream stream, unsigned int ms)
{
    /* a stand-in's host may be busy */
    uint64_t limit = now_ns() + (me.soft ? 5 : 1) * ms * 1000000ull;
    for (;;) {
        CUresult rc = cu.StreamQuery(stream);
        if (rc != CUDA_ERROR_NOT_READY)
            return rc;
        if (now_ns() > limit)
            return CUDA_ERROR_TIMEOUT;
        nap_us(50);
    }
}

bool pinned(struct result *r, size_t len, void **host_out, CUdeviceptr *dev_out)
{
    unsigned int flags = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP;
    if (!CALL(r, MemHostAlloc, host_out, len, flags))
        return false;
    memset(*host_out, 0, len);
    return CALL(r, MemHostGetDevicePointer, dev_out, *host_out, 0);
}

bool chunk_open(struct result *r, size_t len, bool rdma, bool fd, struct chunk *chunk_out)
{
    if (!me.chunk) {
        open_end(r, "no granularity for cuMemCreate");
        return false;
    }
    memset(chunk_out, 0, sizeof(*chunk_out));
    CUmemAllocationProp prop = chunk_prop(rdma, fd);
    len = (len + me.chunk - 1) / me.chunk * me.chunk;
    if (!CALL(r, MemCreate, &chunk_out->handle, len, &prop, 0))
        return false;
    if (!CALL(r, MemAddressReserve, &chunk_out->at, len, 0, 0, 0) ||
        !CALL(r, MemMap, chunk_out->at, len, 0, chunk_out->handle, 0))
        return false; /* the fact ends here, and the process with it */
    chunk_out->len = len;
    CUmemAccessDesc desc = {.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    return CALL(r, MemSetAccess, chunk_out->at, len, &desc, 1);
}

void chunk_close(struct chunk *chunk)
{
    (void)cu.MemUnmap(chunk->at, chunk->len);
    (void)cu.MemRelease(chunk->handle);
    (void)cu.MemAddressFree(chunk->at, chunk->len);
}

/* ---- the spinning kernel ---- */

void spin_let_go(struct spin *s)
{
    atomic_store_explicit(&s->flag[0], 1, memory_order_seq_cst);
}

bool spin_open(struct result *r, struct spin *s)
{
    memset(s, 0, sizeof(*s));
    void *host = NULL;
    s->fn = kernel(r, "spin");
    if (!s->fn || !pinned(r, 4 * KIB, &host, &s->dev))
        return false;
    s->flag = host;
    if (!CALL(r, StreamCreate, &s->stream, CU_STREAM_NON_BLOCKING))
        return false;
    /* A first launch may load code and wait for the device: get it over with. */
    spin_let_go(s);
    uint64_t limit = 1;
    void *args[] = {&s->dev, &limit};
    return ok(r, "launch of spin", launch(s->fn, s->stream, args)) &&
           ok(r, "first run of spin", settle(s->stream, 5000));
}

bool spin_start(struct result *r, struct spin *s)
{
    uint64_t limit = 5000000000ull;
    void *args[] = {&s->dev, &limit};
    atomic_store_explicit(&s->flag[0], 0, memory_order_seq_cst);
    atomic_store_explicit(&s->flag[16], 0, memory_order_seq_cst);
    if (!ok(r, "launch of spin", launch(s->fn, s->stream, args)))
        return false;
    uint64_t until = now_ns() + 3000000000ull;
    while (atomic_load_explicit(&s->flag[16], memory_order_acquire) == 0) {
        if (now_ns() > until) {
            spin_let_go(s);
            s->dead = true;
            open_end(r, "the spinning kernel did not start within 3 s");
            return false;
        }
        nap_us(20);
    }
    return true;
}

bool spin_running(const struct spin *s)
{
    return atomic_load_explicit(&s->flag[0], memory_order_acquire) == 0 &&
           cu.StreamQuery(s->stream) == CUDA_ERROR_NOT_READY;
}

CUresult spin_stop(struct spin *s)
{
    spin_let_go(s);
    return settle(s->stream, 6000);
}

static void *spin_releaser(void *arg)
{
    struct spin *s = arg;
    uint64_t until = now_ns() + s->after_ms * 1000000ull;
    /* Pairs with the release in spin_release_join. */
    while (now_ns() < until && !atomic_load_explicit(&s->cancel, memory_order_acquire))
        nap_us(200);
    spin_let_go(s);
    return NULL;
}

bool spin_release_after(struct spin *s, unsigned int ms)
{
    s->after_ms = ms;
    atomic_store_explicit(&s->cancel, false, memory_order_relaxed);
    return pthread_create(&s->releaser, NULL, spin_releaser, s) == 0;
}

void spin_release_join(struct spin *s)
{
    atomic_store_explicit(&s->cancel, true, memory_order_release); /* pairs with spin_releaser */
    pthread_join(s->releaser, NULL);
}
