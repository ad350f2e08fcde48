/* Facts about addresses and virtual memory management: window, lease, lanes. */
#include "facts.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define TRY_BASES                                                                                  \
    {                                                                                              \
        0x1000000000ull, 0x10000000000ull, 0x100000000000ull, 0x200000000000ull,                   \
            0x300000000000ull, 0x400000000000ull, 0x500000000000ull, 0x600000000000ull,            \
            0x700000000000ull                                                                      \
    }
static const uint64_t bases[] = TRY_BASES;

static size_t round_up(size_t len, size_t to)
{
    return to ? (len + to - 1) / to * to : len;
}

/* ---- reserve_hint ---- */

/* '=' honoured, '>' placed elsewhere, 'x' refused, '-' something of this process is there already.
 */
static char reserve_try(uint64_t base, size_t len, CUresult *rc_out)
{
    CUdeviceptr at = 0;
    *rc_out = CUDA_SUCCESS;
    if (!range_free(base, len))
        return '-';
    *rc_out = cu.MemAddressReserve(&at, len, 0, (CUdeviceptr)base, 0);
    if (*rc_out != CUDA_SUCCESS)
        return 'x';
    (void)cu.MemAddressFree(at, len);
    return at == base ? '=' : '>';
}

static void run_reserve_hint(struct result *r)
{
    if (!begin(r))
        return;
    if (!me.chunk) {
        open_end(r, "no virtual memory management");
        return;
    }
    size_t mem = round_up(me.mem, me.chunk > 2 * MIB ? me.chunk : 2 * MIB);
    const size_t len[] = {2 * MIB, GIB, mem, 2 * mem};
    unsigned int whole = 0, asked = 0;
    CUresult refusal = CUDA_SUCCESS;
    note(r, "= honoured, > moved, x refused, - taken; sizes 2 MiB, 1 GiB, memory, 2 x memory");
    for (size_t b = 0; b < COUNT(bases); b++) {
        char line[COUNT(len) + 1] = {0};
        for (size_t i = 0; i < COUNT(len); i++) {
            CUresult rc;
            step(r, "cuMemAddressReserve");
            line[i] = reserve_try(bases[b], len[i], &rc);
            asked += line[i] != '-';
            if (rc != CUDA_SUCCESS)
                refusal = rc;
        }
        note(r, "0x%llx %s", (unsigned long long)bases[b], line);
        whole += line[3] == '=';
    }
    if (refusal != CUDA_SUCCESS)
        note(r, "refusals: %s", rc_name(refusal));
    if (asked)
        check(r, whole >= 1, "%u of %zu bases honoured for twice the memory", whole, COUNT(bases));
}

/* ---- reserve_over_none ---- */

static uint64_t honoured_base(struct result *r, size_t len)
{
    CUresult rc;
    for (size_t b = COUNT(bases); b-- > 0;)
        if (reserve_try(bases[b], len, &rc) == '=')
            return bases[b];
    open_end(r, "no base is honoured at all");
    return 0;
}

static void run_reserve_over_none(struct result *r)
{
    const size_t len = GIB;
    CUdeviceptr at = 0;
    uint64_t base = begin(r) ? honoured_base(r, len) : 0;
    if (!base)
        return;
    void *want = (void *)(uintptr_t)base;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    void *none = mmap(want, len, PROT_NONE, flags, -1, 0);
    if (none != want) {
        open_end(r, "mmap did not place PROT_NONE at the base");
        return;
    }
    step(r, "cuMemAddressReserve over PROT_NONE");
    CUresult rc = TRY(r, MemAddressReserve, &at, len, 0, (CUdeviceptr)base, 0);
    check(r, rc != CUDA_SUCCESS || at != base, "with PROT_NONE there: %s%s", rc_name(rc),
          rc != CUDA_SUCCESS ? ""
          : at == base       ? ", honoured all the same"
                             : ", moved");
    if (rc == CUDA_SUCCESS)
        (void)cu.MemAddressFree(at, len);
    munmap(none, len);
    rc = TRY(r, MemAddressReserve, &at, len, 0, (CUdeviceptr)base, 0);
    check(r, rc == CUDA_SUCCESS && at == base, "after munmap: %s", rc_name(rc));
    if (rc != CUDA_SUCCESS)
        return;
    note(r, "a reservation %s in /proc/self/maps", range_free(at, len) ? "does not show" : "shows");
    void *over = mmap((void *)(uintptr_t)at, 4 * KIB, PROT_NONE, flags, -1, 0);
    check(r, over == MAP_FAILED, "mmap without replacing, inside a reservation: %s",
          over == MAP_FAILED ? "refused" : "placed");
    if (over != MAP_FAILED)
        munmap(over, 4 * KIB);
    (void)cu.MemAddressFree(at, len);
}

/* ---- map_rules ---- */

static void run_map_rules(struct result *r)
{
    struct chunk c;
    CUdeviceptr va = 0;
    if (!begin(r) || !chunk_open(r, me.chunk, false, false, &c))
        return;
    size_t g = me.chunk;
    CUmemGenericAllocationHandle two;
    CUmemAllocationProp prop = chunk_prop(false, false);
    CUmemAccessDesc desc = {.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    if (!CALL(r, MemAddressReserve, &va, 4 * g, 0, 0, 0) ||
        !CALL(r, MemCreate, &two, 2 * g, &prop, 0))
        return;
    CUresult rc = TRY(r, MemMap, va, g, g, two, 0);
    check(r, rc != CUDA_SUCCESS, "map of the second half of a handle: %s", rc_name(rc));
    if (rc == CUDA_SUCCESS)
        (void)cu.MemUnmap(va, g);
    rc = TRY(r, MemMap, va, g, 0, two, 0);
    note(r, "map of the first half: %s", rc_name(rc));
    if (rc == CUDA_SUCCESS)
        (void)cu.MemUnmap(va, g);
    if (!CALL(r, MemMap, va, 2 * g, 0, two, 0) || !CALL(r, MemMap, va + 2 * g, g, 0, c.handle, 0))
        return;
    rc = TRY(r, MemSetAccess, va, 3 * g, &desc, 1);
    check(r, rc == CUDA_SUCCESS, "set access across two mappings: %s", rc_name(rc));
    rc = TRY(r, MemUnmap, va, g);
    check(r, rc != CUDA_SUCCESS, "unmap of half a mapping: %s", rc_name(rc));
    if (rc == CUDA_SUCCESS)
        return;
    rc = TRY(r, MemRelease, two);
    check(r, rc == CUDA_SUCCESS, "release while mapped: %s", rc_name(rc));
    rc = TRY(r, MemsetD32, va, 7, g / 4);
    check(r, rc == CUDA_SUCCESS, "use after that: %s", rc_name(rc));
    rc = TRY(r, MemUnmap, va, 3 * g);
    check(r, rc == CUDA_SUCCESS, "unmap of two whole mappings at once: %s", rc_name(rc));
}

/* ---- chunk_cost ---- */

struct chunk_times {
    double create[16], map[16], access[16], unmap[16], release[16], grow[16];
};

static bool chunk_once(struct result *r, size_t len, CUdeviceptr va, struct chunk_times *t,
                       unsigned int i)
{
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop = chunk_prop(attribute(110) == 1, false);
    CUmemAccessDesc desc = {.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    uint64_t at[6];
    at[0] = now_ns();
    if (!CALL(r, MemCreate, &handle, len, &prop, 0))
        return false;
    at[1] = now_ns();
    if (!CALL(r, MemMap, va, len, 0, handle, 0))
        return false;
    at[2] = now_ns();
    if (!CALL(r, MemSetAccess, va, len, &desc, 1))
        return false;
    at[3] = now_ns();
    if (!CALL(r, MemUnmap, va, len))
        return false;
    at[4] = now_ns();
    if (!CALL(r, MemRelease, handle))
        return false;
    at[5] = now_ns();
    double *to[] = {t->create, t->map, t->access, t->unmap, t->release};
    for (size_t k = 0; k < COUNT(to); k++)
        to[k][i] = (double)(at[k + 1] - at[k]) / 1000;
    t->grow[i] = (double)(at[3] - at[0]) / 1000;
    return true;
}

static void run_chunk_cost(struct result *r)
{
    static const size_t len[] = {2 * MIB, 8 * MIB, 32 * MIB, 64 * MIB, 256 * MIB, GIB};
    CUdeviceptr va = 0;
    if (!begin(r))
        return;
    if (!me.chunk || !CALL(r, MemAddressReserve, &va, GIB, 0, 0, 0)) {
        open_end(r, "no virtual memory management");
        return;
    }
    for (size_t s = 0; s < COUNT(len); s++) {
        struct chunk_times t;
        unsigned int n = me.quick ? 2 : len[s] >= 256 * MIB ? 4 : 12;
        size_t size = round_up(len[s], me.chunk);
        if (me.quick && size > 8 * MIB)
            break;
        for (unsigned int i = 0; i < n; i++)
            if (!chunk_once(r, size, va, &t, i))
                return;
        unsigned int mib = (unsigned int)(size / MIB);
        measure(r, "us", t.create, n, "create %u MiB", mib);
        measure(r, "us", t.map, n, "map %u MiB", mib);
        measure(r, "us", t.access, n, "set access %u MiB", mib);
        measure(r, "us", t.unmap, n, "unmap %u MiB", mib);
        measure(r, "us", t.release, n, "release %u MiB", mib);
        double grow = measure(r, "us", t.grow, n, "create+map+access %u MiB", mib);
        if (len[s] == 64 * MIB || (me.quick && len[s] == 8 * MIB))
            check(r, grow < 2000, "a lease grows by %u MiB in %.0f us", mib, grow);
    }
}

/* ---- two_contexts ---- */

static void read_from(struct result *r, const char *what, CUdeviceptr at, CUfunction copy,
                      uint64_t *out, CUdeviceptr out_dev, bool must)
{
    void *args[] = {&out_dev, &at};
    *(volatile uint64_t *)out = 0;
    CUresult rc = launch(copy, NULL, args);
    if (rc == CUDA_SUCCESS)
        rc = settle(NULL, 3000);
    bool good = rc == CUDA_SUCCESS && *(volatile uint64_t *)out == 0x0707070707070707ull;
    if (must)
        check(r, good, "%s read by a kernel of the second context: %s%s", what, rc_name(rc),
              rc == CUDA_SUCCESS && !good ? ", wrong bytes" : "");
    else
        note(r, "%s read by a kernel of the second context: %s%s", what, rc_name(rc),
             rc == CUDA_SUCCESS && !good ? ", wrong bytes" : "");
}

static void run_two_contexts(struct result *r)
{
    struct chunk c;
    CUcontext second = NULL;
    CUmodule module = NULL;
    CUfunction copy = NULL;
    CUdeviceptr plain = 0, out_dev = 0, out_dev2 = 0;
    void *out = NULL, *mirror = NULL;
    if (!begin(r) || !chunk_open(r, 2 * MIB, attribute(110) == 1, false, &c) ||
        !pinned(r, 4 * KIB, &out, &out_dev) || !CALL(r, MemAlloc, &plain, 2 * MIB) ||
        !CALL(r, MemsetD8, c.at, 7, 64) || !CALL(r, MemsetD8, plain, 7, 64))
        return;
    mirror = memfd_map(memfd_open(4 * KIB), 4 * KIB);
    unsigned int flags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
    if (!mirror || !CALL(r, MemHostRegister, mirror, 4 * KIB, flags))
        return;
    memset(mirror, 7, 64);
    if (!CALL(r, CtxCreate_v2, &second, 0, me.dev)) /* becomes current */
        return;
    if (!CALL(r, ModuleLoadData, &module, ptx_main) ||
        !CALL(r, ModuleGetFunction, &copy, module, "copy"))
        return;
    CUresult rc = TRY(r, MemHostGetDevicePointer, &out_dev2, mirror, 0);
    check(r, rc == CUDA_SUCCESS, "device pointer of a portable registration there: %s",
          rc_name(rc));
    read_from(r, "VMM memory", c.at, copy, out, out_dev, true);
    if (rc == CUDA_SUCCESS)
        read_from(r, "a portable mirror", out_dev2, copy, out, out_dev, true);
    rc = TRY(r, StreamWriteValue64, NULL, out_dev, 99, 0);
    if (rc == CUDA_SUCCESS)
        rc = settle(NULL, 3000);
    check(r, rc == CUDA_SUCCESS && *(volatile uint64_t *)out == 99,
          "value write into a portable mirror from there: %s", rc_name(rc));
    /* Last: where it is not allowed it may kill the context. */
    read_from(r, "cuMemAlloc memory of the first context", plain, copy, out, out_dev, false);
}

/* ---- after_reset ---- */

static void run_after_reset(struct result *r)
{
    struct chunk c;
    uint64_t back = 0;
    CUdeviceptr dev = 0;
    if (!begin(r) || !chunk_open(r, 2 * MIB, false, false, &c) || !CALL(r, MemsetD8, c.at, 7, 64))
        return;
    void *mirror = memfd_map(memfd_open(4 * KIB), 4 * KIB);
    unsigned int flags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
    if (!mirror || !CALL(r, MemHostRegister, mirror, 4 * KIB, flags))
        return;
    CUcontext before = me.ctx;
    if (!CALL(r, DevicePrimaryCtxReset, me.dev) ||
        !CALL(r, DevicePrimaryCtxRetain, &me.ctx, me.dev) || !CALL(r, CtxSetCurrent, me.ctx))
        return;
    note(r, "the primary context's handle is %s", before == me.ctx ? "the same" : "another");
    CUresult rc = TRY(r, MemcpyDtoH, &back, c.at, sizeof(back));
    check(r, rc == CUDA_SUCCESS && back == 0x0707070707070707ull,
          "VMM memory read by a copy after the reset: %s%s", rc_name(rc),
          rc == CUDA_SUCCESS && back != 0x0707070707070707ull ? ", wrong bytes" : "");
    rc = TRY(r, MemHostGetDevicePointer, &dev, mirror, 0);
    note(r, "device pointer of the mirror: %s", rc_name(rc));
    if (rc == CUDA_SUCCESS) {
        rc = TRY(r, StreamWriteValue64, NULL, dev, 5, CU_STREAM_WRITE_VALUE_DEFAULT);
        if (rc == CUDA_SUCCESS)
            rc = settle(NULL, 3000);
        note(r, "a value write into it: %s, the word is %s", rc_name(rc),
             *(volatile uint64_t *)mirror == 5 ? "written" : "not written");
    }
    rc = TRY(r, MemHostRegister, mirror, 4 * KIB, flags);
    note(r, "registering it again: %s", rc_name(rc));
    rc = TRY(r, MemHostUnregister, mirror);
    note(r, "unregistering: %s", rc_name(rc));
}

/* ---- addresses ---- */

static void place(struct result *r, const char *what, CUdeviceptr at, size_t len, unsigned int *in)
{
    bool inside = false;
    for (size_t b = 0; b < COUNT(bases); b++)
        inside |= at >= bases[b] && at < bases[b] + 2 * me.mem;
    bool shown = !range_free(at, len);
    note(r, "%s 0x%llx%s%s", what, (unsigned long long)at, shown ? " (mapped here too)" : "",
         inside ? " (in a candidate window)" : "");
    *in += inside;
}

static void place_global(struct result *r, CUmodule m, const char *name, unsigned int *in)
{
    CUdeviceptr at = 0;
    size_t len = 0;
    if (CALL(r, ModuleGetGlobal, &at, &len, m, name))
        place(r, name, at, len, in);
}

static void place_code(struct result *r, unsigned int *in)
{
    CUmodule m = NULL;
    if (CALL(r, ModuleLoadData, &m, ptx_places)) {
        place_global(r, m, "small_global", in);
        place_global(r, m, "big_global", in);
        place_global(r, m, "constant", in);
    }
    if (CALL(r, ModuleLoadData, &m, ptx_managed))
        place_global(r, m, "managed_cell", in);
}

static void place_pool(struct result *r, unsigned int *in)
{
    CUdeviceptr at = 0;
    if (!CALL(r, MemAllocAsync, &at, MIB, NULL) || !CALL(r, CtxSynchronize))
        return;
    place(r, "cuMemAllocAsync 1 MiB", at, MIB, in);
    (void)cu.MemFreeAsync(at, NULL);
    if (!CALL(r, MemAllocAsync, &at, 64 * MIB, NULL) || !CALL(r, CtxSynchronize))
        return;
    place(r, "cuMemAllocAsync 64 MiB", at, 64 * MIB, in);
    (void)cu.MemFreeAsync(at, NULL);
}

static void run_addresses(struct result *r)
{
    unsigned int in = 0;
    void *host = NULL;
    CUdeviceptr at = 0, dev = 0;
    struct chunk c;
    CUarray array;
    if (!begin(r))
        return;
    if (CALL(r, MemAlloc, &at, 256))
        place(r, "cuMemAlloc 256 B", at, 256, &in);
    if (CALL(r, MemAlloc, &at, 64 * MIB))
        place(r, "cuMemAlloc 64 MiB", at, 64 * MIB, &in);
    place_pool(r, &in);
    place_code(r, &in);
    if (CALL(r, MemAllocManaged, &at, MIB, CU_MEM_ATTACH_GLOBAL))
        place(r, "cuMemAllocManaged", at, MIB, &in);
    if (me.chunk && chunk_open(r, 2 * MIB, false, false, &c))
        place(r, "cuMemAddressReserve without a hint", c.at, c.len, &in);
    if (pinned(r, MIB, &host, &dev))
        note(r, "cuMemHostAlloc %p, device pointer %s", host,
             dev == (CUdeviceptr)(uintptr_t)host ? "the same" : "another");
    host = memfd_map(memfd_open(64 * KIB), 64 * KIB);
    if (host && CALL(r, MemHostRegister, host, 64 * KIB, CU_MEMHOSTREGISTER_DEVICEMAP) &&
        CALL(r, MemHostGetDevicePointer, &dev, host, 0))
        note(r, "registered memfd %p, device pointer %s", host,
             dev == (CUdeviceptr)(uintptr_t)host ? "the same" : "another");
    CUDA_ARRAY3D_DESCRIPTOR desc = {
        .Width = 1024, .Height = 1024, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    if (CALL(r, Array3DCreate, &array, &desc)) {
        note(r, "an array's handle is %p", (void *)array);
        (void)cu.ArrayDestroy(array);
    }
    check(r, in == 0, "%u of the ranges lie in a candidate window", in);
}

const struct fact facts_vmm[] = {
    {"reserve_hint",
     "cuMemAddressReserve of 2 MiB, 1 GiB, the memory and twice the memory at nine fixed bases "
     "with "
     "nothing mapped there, each freed at once.",
     "At least one base is honoured for twice the device's memory, so client and executor can "
     "agree "
     "on a window.",
     "No base honoured: `no_window` becomes the normal mode (addresses are the server's, "
     "cuMemAlloc is a round trip), and the lease is cut out of ranges the driver chose. Only some "
     "honoured: they become the list of candidates, in that order.",
     "window", 0, 10, run_reserve_hint},
    {"reserve_over_none",
     "PROT_NONE mapped at an honoured base, then cuMemAddressReserve there; the mapping removed "
     "and the "
     "reservation made; mmap without replacing inside the reservation.",
     "The driver takes no range where this process has a mapping, and a reservation is itself a "
     "mapping: "
     "so in the executor only the driver reserves, and nothing else can be placed in the window.",
     "If the driver overlays mappings: the executor reserves PROT_NONE first (no malloc can land "
     "there). If a reservation is not a mapping: the executor must add one of its own.",
     "window", 0, 10, run_reserve_over_none},
    {"map_rules",
     "Mapping part of a handle, one cuMemSetAccess over two mappings, unmapping half a mapping, "
     "releasing a handle while it is mapped, unmapping two mappings at once.",
     "Offset must be zero and a mapping is unmapped whole; access may span mappings; a handle may "
     "be "
     "released while mapped; one unmap may span whole mappings.",
     "Offsets or halves allowed: a lease could be carved finer than its chunks. A release refused "
     "while mapped: the executor keeps one handle per chunk.",
     "lease", FACT_SOFT, 10, run_map_rules},
    {"chunk_cost",
     "cuMemCreate, cuMemMap, cuMemSetAccess, cuMemUnmap, cuMemRelease timed for 2 MiB to 1 GiB.",
     "A lease grows by 64 MiB in less than 2 ms.",
     "Slower: larger steps asked for ahead, at a higher low-water mark; the figures choose the "
     "step.",
     "lease", 0, 15, run_chunk_cost},
    {"two_contexts",
     "Memory by cuMemCreate, a registered portable mirror and cuMemAlloc memory of the primary "
     "context used by a kernel and a value write of a second context.",
     "VMM memory and portable mirrors serve every context of the device: one lane and one mirror "
     "per worker.",
     "Otherwise lanes and mirrors are made per context, and cuCtxCreate gets slower.",
     "lanes, mirror", FACT_SOFT, 10, run_two_contexts},
    {"after_reset",
     "cuDevicePrimaryCtxReset with VMM memory mapped and a mirror registered, then both used "
     "again.",
     "VMM mappings survive the reset. TFR does not lean on it: the real context is never reset.",
     "If they survive, a real reset could be used to recover from a fault without a new worker; if "
     "not, emulation object by object stays the only way.",
     "reset of a context", FACT_SOFT, 10, run_after_reset},
    {"addresses",
     "Addresses that cuMemAlloc, pools, module globals, managed memory, reservations and arrays "
     "get; "
     "whether host pointers keep their value on the device.",
     "Nothing that the driver places by itself falls into a candidate window.",
     "The base is taken from the list of candidates; a base that the driver uses itself leaves the "
     "list.",
     "window", 0, 10, run_addresses},
};
const size_t facts_vmm_n = COUNT(facts_vmm);
