/* Smaller facts: layouts, private tables, corner cases of peer copies and prefetching, attributes.
 */
#include "facts.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- param_info ---- */

static const struct {
    size_t at, len;
} layout[] = {{0, 1}, {8, 8}, {16, 12}, {28, 2}, {32, 48}};

static void layout_check(struct result *r, const char *call, bool library, CUfunction fn,
                         CUkernel k)
{
    char text[160] = {0};
    size_t used = 0, at, len, good = 0;
    CUresult rc = CUDA_SUCCESS, end;
    for (size_t i = 0; i < COUNT(layout) && rc == CUDA_SUCCESS; i++) {
        rc = library ? cu.KernelGetParamInfo(k, i, &at, &len)
                     : cu.FuncGetParamInfo(fn, i, &at, &len);
        if (rc != CUDA_SUCCESS)
            break;
        used += (size_t)snprintf(text + used, sizeof(text) - used, " %zu+%zu", at, len);
        good += at == layout[i].at && len == layout[i].len;
    }
    if (!ok(r, call, rc))
        return;
    end = library ? cu.KernelGetParamInfo(k, COUNT(layout), &at, &len)
                  : cu.FuncGetParamInfo(fn, COUNT(layout), &at, &len);
    check(r, good == COUNT(layout) && end == CUDA_ERROR_INVALID_VALUE, "%s:%s, one too many: %s",
          call, text, rc_name(end));
}

static CUkernel library_kernel(struct result *r, CUlibrary lib, const char *name)
{
    CUkernel list[32];
    unsigned int n = 0;
    if (!CALL(r, LibraryGetKernelCount, &n, lib) || n > COUNT(list) ||
        !CALL(r, LibraryEnumerateKernels, list, n, lib))
        return NULL;
    check(r, n == 7, "%u kernels enumerated of 7", n);
    for (unsigned int i = 0; i < n; i++) {
        const char *found = NULL;
        if (CALL(r, KernelGetName, &found, list[i]) && strcmp(found, name) == 0)
            return list[i];
    }
    open_end(r, "kernel %s is not among them", name);
    return NULL;
}

static void run_param_info(struct result *r)
{
    CUlibrary lib;
    if (!begin(r))
        return;
    CUfunction fn = kernel(r, "params");
    if (fn)
        layout_check(r, "cuFuncGetParamInfo", false, fn, NULL);
    if (!CALL(r, LibraryLoadData, &lib, ptx_main, NULL, NULL, 0, NULL, NULL, 0))
        return;
    CUkernel k = library_kernel(r, lib, "params");
    if (!k)
        return;
    layout_check(r, "cuKernelGetParamInfo", true, NULL, k);
    CUkernel plain = library_kernel(r, lib, "null");
    CUresult rc = plain ? launch((CUfunction)plain, NULL, NULL) : CUDA_ERROR_NOT_FOUND;
    if (rc == CUDA_SUCCESS)
        rc = settle(NULL, 3000);
    check(r, rc == CUDA_SUCCESS, "a CUkernel passed to cuLaunchKernel: %s", rc_name(rc));
}

/* ---- export_tables ---- */

static const struct table_row {
    const char *name;
    unsigned char id[16];
    size_t slots; /* that TFR serves, slot 0 included; 0: refuses */
    bool no_header;
} tables[] = {
    {"CUDART_INTERFACE",
     {0x6b, 0xd5, 0xfb, 0x6c, 0x5b, 0xf4, 0xe7, 0x4a, 0x89, 0x87, 0xd9, 0x39, 0x12, 0xfd, 0x9d,
      0xf9},
     13,
     false},
    {"TOOLS_HOOKS",
     {0xa0, 0x94, 0x79, 0x8c, 0x2e, 0x74, 0x2e, 0x74, 0x93, 0xf2, 0x08, 0x00, 0x20, 0x0c, 0x0a,
      0x66},
     7,
     false},
    {"TOOLS_TLS",
     {0x42, 0xd8, 0x5a, 0x81, 0x23, 0xf6, 0xcb, 0x47, 0x82, 0x98, 0xf6, 0xe7, 0x8a, 0x3a, 0xec,
      0xdc},
     3,
     false},
    {"CTX_LOCAL_STORAGE",
     {0xc6, 0x93, 0x33, 0x6e, 0x11, 0x21, 0xdf, 0x11, 0xa8, 0xc3, 0x68, 0xf3, 0x55, 0xd8, 0x95,
      0x93},
     4,
     true},
    {"CTX_CHECKS",
     {0x26, 0x3e, 0x88, 0x60, 0x7c, 0xd2, 0x61, 0x43, 0x92, 0xf6, 0xbb, 0xd5, 0x00, 0x6d, 0xfa,
      0x7e},
     4,
     false},
    {"INTEGRITY",
     {0xd4, 0x08, 0x20, 0x55, 0xbd, 0xe6, 0x70, 0x4b, 0x8d, 0x34, 0xba, 0x12, 0x3c, 0x66, 0xe1,
      0xf2},
     3,
     false},
    {"TOOLS_CONTEXT",
     {0x21, 0x31, 0x8c, 0x60, 0x97, 0x14, 0x32, 0x48, 0x8c, 0xa6, 0x41, 0xff, 0x73, 0x24, 0xc8,
      0xf2},
     52,
     false},
    {"TOOLS_MODULE",
     {0x6e, 0x16, 0x3f, 0xbe, 0xb9, 0x58, 0x44, 0x4d, 0x83, 0x5c, 0xe1, 0x82, 0xaf, 0xf1, 0x99,
      0x1e},
     8,
     false},
    {"T1734",
     {0x17, 0x34, 0xdc, 0x26, 0x80, 0x0d, 0x47, 0x45, 0x87, 0x26, 0xc0, 0xf1, 0xe7, 0xdd, 0x8b,
      0xca},
     5,
     false},
    {"f8cff951 (TFR refuses it)",
     {0xf8, 0xcf, 0xf9, 0x51, 0x21, 0x46, 0x8b, 0x4e, 0xb9, 0xe2, 0xfb, 0x46, 0x9e, 0x7c, 0x0d,
      0xd9},
     0,
     false},
    {"da9151d3 (TFR refuses it)",
     {0xda, 0x91, 0x51, 0xd3, 0x3a, 0xe6, 0xcc, 0x41, 0xa5, 0xc0, 0x4f, 0x26, 0xd5, 0x33, 0xe3,
      0x28},
     0,
     false},
};
enum { T1734 = 8 };

static const void *const *table_get(const struct table_row *row, CUresult *rc_out)
{
    CUuuid id;
    const void *table = NULL;
    memcpy(id.bytes, row->id, sizeof(row->id));
    *rc_out = cu.GetExportTable(&table, &id);
    return *rc_out == CUDA_SUCCESS ? table : NULL;
}

static void run_export_tables(struct result *r)
{
    unsigned int short_n = 0, gone = 0;
    if (!begin(r))
        return;
    for (size_t i = 0; i < COUNT(tables); i++) {
        CUresult rc;
        step(r, tables[i].name);
        const void *const *table = table_get(&tables[i], &rc);
        if (!table) {
            note(r, "%s: %s", tables[i].name,
                 rc == CUDA_SUCCESS ? "ok, but no table" : rc_name(rc));
            gone += tables[i].slots > 0;
            continue;
        }
        size_t bytes = (size_t)(uintptr_t)table[0];
        if (tables[i].no_header) {
            note(r, "%s: there, no header", tables[i].name);
            continue;
        }
        note(r, "%s: %zu bytes, %zu slots", tables[i].name, bytes, bytes / sizeof(void *));
        short_n += bytes / sizeof(void *) < tables[i].slots || bytes > 64 * KIB;
    }
    check(r, short_n == 0 && gone == 0, "%u tables shorter than TFR serves them, %u missing",
          short_n, gone);
}

/* Slot 4 called with two results filled with a byte: how far it writes into them.  A crash is
 * contained by the fact's process, and what was noted before it stays. */
static CUresult slot4_try(CUresult (*slot4)(void *, void *), unsigned char fill,
                          unsigned char (*buf)[4096], size_t len[2])
{
    memset(buf, fill, 2 * sizeof(buf[0]));
    CUresult rc = slot4(buf[0], buf[1]);
    for (unsigned int k = 0; k < 2; k++) {
        len[k] = 0;
        for (size_t i = 0; i < sizeof(buf[k]); i++)
            if (buf[k][i] != fill)
                len[k] = i + 1;
    }
    return rc;
}

static void run_slot4(struct result *r)
{
    static const unsigned char fill[] = {0, 0x5a, 0xa5};
    static unsigned char buf[2][4096];
    size_t len[2] = {0, 0}, most[2] = {0, 0};
    CUresult (*slot4)(void *, void *), rc;
    if (!begin(r))
        return;
    const void *const *table = table_get(&tables[T1734], &rc);
    size_t slots = table ? (size_t)(uintptr_t)table[0] / sizeof(void *) : 0;
    if (slots < 5 || slots > 4096 || !table[4]) {
        open_end(r, "a table of %zu slots: %s", slots, rc_name(rc));
        return;
    }
    memcpy(&slot4, &table[4], sizeof(slot4));
    for (size_t i = 0; i < COUNT(fill); i++) {
        step(r, "slot 4 of 1734dc26");
        rc = slot4_try(slot4, fill[i], buf, len);
        note(r, "over 0x%02x: %s, writes %zu and %zu bytes", fill[i], rc_name(rc), len[0], len[1]);
        for (unsigned int k = 0; k < 2; k++)
            most[k] = len[k] > most[k] ? len[k] : most[k];
    }
    for (unsigned int k = 0; k < 2; k++) {
        char hex[16 * 3 + 1] = {0};
        for (size_t i = 0; i < most[k] && i < 16; i++)
            snprintf(hex + 3 * i, 4, " %02x", buf[k][i]);
        if (most[k])
            note(r, "result %u begins%s", k + 1, hex);
    }
    check(r, most[0] <= 256 && most[1] <= 256, "the results are small values");
}

/* ---- peer_copy ---- */

static void peer_behind(struct result *r, struct spin *s, CUdeviceptr to, CUdeviceptr from,
                        CUcontext other)
{
    if (!spin_start(r, s) || !spin_release_after(s, 100))
        return;
    step(r, "cuMemcpyPeer behind a spinning kernel");
    uint64_t at = now_ns();
    CUresult rc = TRY(r, MemcpyPeer, to, other, from, me.ctx, 64 * KIB);
    bool waited = !spin_running(s);
    double us = (double)(now_ns() - at) / 1000;
    spin_release_join(s);
    (void)spin_stop(s);
    note(r, "cuMemcpyPeer behind a kernel of a non-blocking stream %s: %s (%.0f us)",
         waited ? "WAITS" : "goes on", rc_name(rc), us);
}

/* Last, since nobody says that none of them harms the context. */
static void peer_corners(struct result *r, CUdeviceptr to, CUdeviceptr from, CUcontext other)
{
    static char host[64];
    CUdeviceptr heap = (CUdeviceptr)(uintptr_t)host;
    note(r, "no bytes: %s", rc_name(TRY(r, MemcpyPeer, to, other, from, me.ctx, 0)));
    note(r, "with the contexts swapped: %s",
         rc_name(TRY(r, MemcpyPeer, to, me.ctx, from, other, 64)));
    note(r, "a pageable host source: %s", rc_name(TRY(r, MemcpyPeer, to, other, heap, me.ctx, 64)));
    note(r, "no contexts: %s", rc_name(TRY(r, MemcpyPeer, to, NULL, from, NULL, 64)));
}

static void run_peer_copy(struct result *r)
{
    struct spin s;
    CUdeviceptr a = 0, b = 0, c = 0;
    CUcontext second = NULL;
    uint64_t back = 0;
    if (!begin(r) || !spin_open(r, &s) || !CALL(r, MemAlloc, &a, 64 * KIB) ||
        !CALL(r, MemAlloc, &b, 64 * KIB) || !CALL(r, MemsetD8, a, 9, 64 * KIB) ||
        !CALL(r, MemsetD8, b, 0, 64 * KIB) || !CALL(r, CtxSynchronize))
        return;
    CUresult rc = TRY(r, MemcpyPeer, b, me.ctx, a, me.ctx, 64 * KIB);
    if (rc == CUDA_SUCCESS)
        rc = TRY(r, MemcpyDtoH, &back, b, sizeof(back));
    check(r, rc == CUDA_SUCCESS && back == 0x0909090909090909ull, "both sides the same context: %s",
          rc_name(rc));
    if (!CALL(r, CtxCreate_v2, &second, 0, me.dev))
        return;
    bool have = CALL(r, MemAlloc, &c, 64 * KIB) && CALL(r, MemsetD8, c, 0, 64 * KIB) &&
                CALL(r, CtxSetCurrent, me.ctx);
    if (!have)
        return;
    back = 0;
    rc = TRY(r, MemcpyPeer, c, second, a, me.ctx, 64 * KIB);
    if (rc == CUDA_SUCCESS)
        rc = TRY(r, MemcpyDtoH, &back, c, sizeof(back));
    check(r, rc == CUDA_SUCCESS && back == 0x0909090909090909ull,
          "to another context of the device: %s", rc_name(rc));
    peer_behind(r, &s, b, a, me.ctx);
    peer_behind(r, &s, c, a, second);
    peer_corners(r, c, a, second);
}

/* ---- prefetch ---- */

static CUmemLocation location(CUmemLocationType type, int id)
{
    CUmemLocation to;
    memset(&to, 0, sizeof(to));
    to.type = type;
    to.id = id;
    return to;
}

static void run_prefetch(struct result *r)
{
    CUdeviceptr managed = 0, plain = 0;
    if (!begin(r))
        return;
    CUmemLocation device = location(CU_MEM_LOCATION_TYPE_DEVICE, me.dev);
    CUmemLocation host = location(CU_MEM_LOCATION_TYPE_HOST, 0);
    int concurrent = attribute(89);
    note(r, "attribute 89 (concurrent managed access): %d", concurrent);
    if (CALL(r, MemAlloc, &plain, MIB))
        note(r, "cuMemAlloc memory: %s",
             rc_name(TRY(r, MemPrefetchAsync_v2, plain, MIB, device, 0, NULL)));
    static char heap[4096];
    note(r, "heap memory: %s",
         rc_name(TRY(r, MemPrefetchAsync_v2, (CUdeviceptr)(uintptr_t)heap, 4096, device, 0, NULL)));
    if (!CALL(r, MemAllocManaged, &managed, 2 * MIB, CU_MEM_ATTACH_GLOBAL))
        return;
    CUresult to_dev = TRY(r, MemPrefetchAsync_v2, managed, 2 * MIB, device, 0, NULL);
    CUresult to_host = TRY(r, MemPrefetchAsync_v2, managed, 2 * MIB, host, 0, NULL);
    note(r, "no bytes: %s", rc_name(TRY(r, MemPrefetchAsync_v2, managed, 0, device, 0, NULL)));
    note(r, "an odd range: %s",
         rc_name(TRY(r, MemPrefetchAsync_v2, managed + 13, 100, device, 0, NULL)));
    note(r, "past the end: %s",
         rc_name(TRY(r, MemPrefetchAsync_v2, managed, 64 * MIB, device, 0, NULL)));
    note(r, "a device that is not there: %s",
         rc_name(TRY(r, MemPrefetchAsync_v2, managed, MIB,
                     location(CU_MEM_LOCATION_TYPE_DEVICE, 99), 0, NULL)));
    (void)settle(NULL, 3000);
    if (concurrent == 1)
        check(r, to_dev == CUDA_SUCCESS && to_host == CUDA_SUCCESS,
              "managed memory to the device: %s, back: %s", rc_name(to_dev), rc_name(to_host));
    else
        check(r, to_dev == CUDA_SUCCESS || to_dev == CUDA_ERROR_INVALID_DEVICE,
              "managed memory to a device with attribute 89 = 0: %s", rc_name(to_dev));
}

/* ---- attributes ---- */

static void run_attributes(struct result *r)
{
    static const struct {
        int id, need; /* need: the value the design cannot do without, -1 none */
        const char *name;
    } row[] = {{41, 1, "unified addressing"},
               {102, 1, "virtual memory management"},
               {115, 1, "memory pools"},
               {122, 1, "64-bit memory operations"},
               {83, -1, "managed memory"},
               {88, -1, "pageable access"},
               {89, -1, "concurrent managed access"},
               {91, -1, "host pointer of registered memory"},
               {93, -1, "64-bit memory operations, old number"},
               {98, -1, "flush by wait value"},
               {100, -1, "pageable access by host tables"},
               {103, -1, "descriptors"},
               {110, -1, "RDMA with VMM"},
               {116, -1, "RDMA"},
               {117, -1, "flush options"},
               {118, -1, "writes ordering"},
               {124, -1, "dma-buf"},
               {128, -1, "fabric handles"},
               {132, -1, "multicast"},
               {146, -1, "host dma-buf"}};
    if (!begin(r))
        return;
    for (size_t i = 0; i < COUNT(row); i++) {
        int value = attribute(row[i].id);
        if (row[i].need >= 0)
            check(r, value == row[i].need, "%d %s: %d", row[i].id, row[i].name, value);
        else
            note(r, "%d %s: %d", row[i].id, row[i].name, value);
    }
}

const struct fact facts_misc[] = {
    {"param_info",
     "cuFuncGetParamInfo and cuKernelGetParamInfo on a kernel of five parameters of known layout; "
     "cuLibraryEnumerateKernels; a CUkernel launched as a CUfunction.",
     "Offsets and sizes are those of the PTX, one parameter too many is INVALID_VALUE, all kernels "
     "are "
     "enumerated, and a CUkernel may be launched.",
     "Layouts come from parsing the image on the client instead of from the reply.",
     "packing of launches", FACT_SOFT, 10, run_param_info},
    {"export_tables",
     "cuGetExportTable for the eleven identifiers that CUDA 13.0 libraries ask for; sizes in the "
     "headers.",
     "Each table that TFR serves is there and at least as long; the two that TFR refuses may be "
     "refused.",
     "A longer table than served is fine until a library calls past our end: the figures become "
     "the lengths "
     "that face/ serves.",
     "face/ export tables", 0, 10, run_export_tables},
    {"slot4",
     "Slot 4 of table 1734dc26 called with two 4 KiB results filled with a pattern; what it "
     "changes.",
     "It fills two small results (what they mean is open); answering 801 makes callers fall back.",
     "The sizes seen say what a forwarded answer must carry, if performance of cuBLASLt needs one.",
     "face/ export tables", 0, 10, run_slot4},
    {"peer_copy",
     "cuMemcpyPeer within one context, to a second context, with no bytes, no contexts, contexts "
     "swapped, a "
     "host source; behind a spinning kernel.",
     "Between contexts of one device it copies; which corner cases are refused, and with what, is "
     "open.",
     "The results noted become the client's immediate errors; if it waits for running kernels it "
     "goes to a "
     "helper.",
     "immediate errors of copies", FACT_SOFT, 15, run_peer_copy},
    {"prefetch",
     "cuMemPrefetchAsync of cuMemAlloc, heap and 2 MiB of managed memory: to the device and back, "
     "no bytes, odd "
     "range, past the end, no such device.",
     "Managed memory moves where attribute 89 is 1; where it is 0 the call is refused or does "
     "nothing, and TFR "
     "(which reports 0) answers success without doing anything.",
     "If real drivers refuse with attribute 89 = 0, programs know to expect it, and TFR refuses "
     "likewise.",
     "attribute overrides", FACT_SOFT, 10, run_prefetch},
    {"attributes", "The attributes of the override table as this device answers them.",
     "Unified addressing, virtual memory management, memory pools and 64-bit memory operations are "
     "1.",
     "One of the four missing: that device is served in `no_window` mode, without leases or "
     "GPU-written marks.",
     "attribute overrides", FACT_SOFT, 5, run_attributes},
};
const size_t facts_misc_n = COUNT(facts_misc);
