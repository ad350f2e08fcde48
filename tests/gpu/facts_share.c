/* Memory that two processes or a network card share with the driver. */
#include "facts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { AREA = 2 * 1024 * 1024 };

/* ---- memfd_register ---- */

static void memfd_maker(int sock, void *arg)
{
    char go;
    (void)arg;
    int fd = memfd_open(AREA);
    unsigned char *at = memfd_map(fd, AREA);
    if (!at)
        return;
    memset(at, 0x5a, AREA); /* every page is this process's before the other sees the file */
    if (!fd_send(sock, fd) || !bytes_receive(sock, &go, 1, 20000))
        return;
    uint32_t bad = 0;
    for (size_t i = 0; i < AREA; i++)
        bad += at[i] != 0xa5;
    (void)bytes_send(sock, &bad, sizeof(bad));
}

static bool device_round(struct result *r, void *host, CUdeviceptr mapped)
{
    CUstream s;
    CUdeviceptr dev;
    unsigned char probe[64];
    if (!CALL(r, StreamCreate, &s, CU_STREAM_NON_BLOCKING) || !CALL(r, MemAlloc, &dev, AREA) ||
        !CALL(r, MemcpyHtoDAsync, dev, host, AREA, s) || !ok(r, "copy in", settle(s, 3000)) ||
        !CALL(r, MemcpyDtoH, probe, dev + AREA - sizeof(probe), sizeof(probe)))
        return false;
    bool good = probe[0] == 0x5a && probe[63] == 0x5a;
    check(r, good, "the GPU %s the other process's bytes", good ? "reads" : "does not see");
    if (!CALL(r, MemsetD8Async, dev, 0xa5, AREA, s) ||
        !CALL(r, MemcpyDtoHAsync, host, dev, AREA - 8, s) || !ok(r, "copy out", settle(s, 3000)))
        return false;
    /* The last word by a kernel, through the mapped address. */
    CUfunction store = kernel(r, "store");
    uint64_t value = 0xa5a5a5a5a5a5a5a5ull;
    CUdeviceptr last = mapped + AREA - 8;
    void *args[] = {&last, &value};
    return store && ok(r, "kernel store", launch(store, s, args)) && ok(r, "run", settle(s, 3000));
}

static void run_memfd_register(struct result *r)
{
    struct peer peer;
    uint32_t bad = UINT32_MAX;
    CUdeviceptr mapped = 0;
    if (!peer_start(r, memfd_maker, NULL, &peer))
        return;
    int fd = fd_receive(peer.sock, 5000);
    void *host = memfd_map(fd, AREA);
    if (!host) {
        open_end(r, "no memfd from the other process");
        return;
    }
    if (!begin(r))
        return;
    unsigned int flags = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP;
    CUresult rc = TRY(r, MemHostRegister, host, AREA, flags);
    if (!check(r, rc == CUDA_SUCCESS, "registering a sealed memfd that another process filled: %s",
               rc_name(rc)) ||
        !CALL(r, MemHostGetDevicePointer, &mapped, host, 0) || !device_round(r, host, mapped))
        return;
    if (bytes_send(peer.sock, "g", 1) && bytes_receive(peer.sock, &bad, sizeof(bad), 5000))
        check(r, bad == 0, "the other process sees the GPU's bytes (%u wrong)", bad);
    else
        open_end(r, "no answer from the other process");
    rc = TRY(r, MemHostRegister, host, AREA, flags);
    note(r, "registering it twice: %s", rc_name(rc));
    void *again = memfd_map(fd, AREA);
    rc = again ? cu.MemHostRegister(again, AREA, flags) : CUDA_ERROR_OUT_OF_MEMORY;
    note(r, "registering the same pages at a second address: %s", rc_name(rc));
    rc = TRY(r, MemHostUnregister, host);
    check(r, rc == CUDA_SUCCESS, "unregistering: %s", rc_name(rc));
    peer_join(&peer, 3000);
}

/* ---- dma_buf ---- */

static bool dma_buf(struct result *r, const char *what, CUdeviceptr at, size_t len,
                    unsigned long long flags)
{
    int fd = -1;
    step(r, "cuMemGetHandleForAddressRange");
    CUresult rc =
        cu.MemGetHandleForAddressRange(&fd, at, len, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, flags);
    note(r, "%s%s: %s", what, flags ? " over PCIe" : "", rc_name(rc));
    if (rc != CUDA_SUCCESS || fd < 0)
        return false;
    off_t size = lseek(fd, 0, SEEK_END);
    note(r, "descriptor of %lld bytes", (long long)size);
    close(fd);
    return true;
}

static void run_dma_buf(struct result *r)
{
    CUdeviceptr plain = 0;
    struct chunk bare, rdma;
    if (!begin(r))
        return;
    int can = attribute(124), vmm = attribute(110);
    note(r,
         "attributes: VMM with RDMA (110) %d, RDMA (116) %d, flush options (117) %d, ordering "
         "(118) %d, "
         "dma-buf (124) %d, host dma-buf (146) %d",
         vmm, attribute(116), attribute(117), attribute(118), can, attribute(146));
    bool any = false, lane = false;
    if (CALL(r, MemAlloc, &plain, 4 * MIB))
        any = dma_buf(r, "cuMemAlloc", plain, 2 * MIB, 0);
    if (me.chunk && chunk_open(r, 2 * MIB, false, false, &bare))
        (void)dma_buf(r, "VMM memory", bare.at, bare.len, 0);
    if (me.chunk && vmm == 1 && chunk_open(r, 4 * MIB, true, false, &rdma)) {
        lane = dma_buf(r, "VMM memory made RDMA capable", rdma.at, rdma.len, 0);
        (void)dma_buf(r, "its middle", rdma.at + MIB, MIB, 0);
        (void)dma_buf(r, "VMM memory made RDMA capable", rdma.at, rdma.len,
                      CU_MEM_RANGE_FLAG_DMA_BUF_MAPPING_TYPE_PCIE);
    }
    if (can == 1)
        check(r, any && lane, "attribute 124 is 1, and a handle is %s",
              any && lane ? "given" : "refused");
    else
        open_end(r, "attribute 124 is %d: lanes need the peer-memory module or stay in host memory",
                 can);
    step(r, "cuFlushGPUDirectRDMAWrites");
    uint64_t from = now_ns();
    CUresult rc =
        TRY(r, FlushGPUDirectRDMAWrites, CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX,
            CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER);
    note(r, "flush: %s in %.1f us", rc_name(rc), (double)(now_ns() - from) / 1000);
    if (attribute(117) > 0 && (attribute(117) & CU_FLUSH_GPU_DIRECT_RDMA_WRITES_OPTION_HOST))
        check(r, rc == CUDA_SUCCESS, "the flush that attribute 117 promises");
}

/* ---- ipc ---- */

struct ipc_message {
    CUipcMemHandle mem;
    CUipcEventHandle event;
    int has_event;
};

/* What the second process found, in memory that both share. */
struct ipc_answer {
    CUresult open, read, event;
    uint64_t value;
    char why[256];
};

static void ipc_reader(int sock, void *arg)
{
    struct ipc_answer *a = arg;
    struct ipc_message m;
    struct result *own = shared_alloc(sizeof(*own));
    CUdeviceptr at = 0;
    CUevent event = NULL;
    a->open = a->read = a->event = CUDA_ERROR_UNKNOWN;
    if (!own || !bytes_receive(sock, &m, sizeof(m), 15000))
        return;
    if (!begin(own)) {
        snprintf(a->why, sizeof(a->why), "%.250s", own->seen);
        return;
    }
    a->open = cu.IpcOpenMemHandle(&at, m.mem, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    if (a->open == CUDA_SUCCESS)
        a->read = cu.MemcpyDtoH(&a->value, at, sizeof(a->value));
    if (m.has_event)
        a->event = cu.IpcOpenEventHandle(&event, m.event);
    if (a->event == CUDA_SUCCESS)
        a->event = cu.EventSynchronize(event);
    if (a->open == CUDA_SUCCESS)
        (void)cu.IpcCloseMemHandle(at);
    (void)bytes_send(sock, "d", 1);
}

static void run_ipc(struct result *r)
{
    struct ipc_answer *a = shared_alloc(sizeof(*a));
    struct ipc_message m;
    struct peer peer;
    CUdeviceptr at = 0;
    CUevent event;
    struct chunk c;
    char done;
    memset(&m, 0, sizeof(m));
    if (!a || !peer_start(r, ipc_reader, a, &peer) || !begin(r) ||
        !CALL(r, MemAlloc, &at, 2 * MIB) || !CALL(r, MemsetD8, at, 0x33, 64) ||
        !CALL(r, CtxSynchronize))
        return;
    if (me.chunk && chunk_open(r, 2 * MIB, false, false, &c)) {
        CUipcMemHandle handle;
        CUresult rc = TRY(r, IpcGetMemHandle, &handle, c.at);
        check(r, rc != CUDA_SUCCESS, "legacy handle of VMM memory: %s", rc_name(rc));
    }
    if (!CALL(r, IpcGetMemHandle, &m.mem, at))
        return;
    if (CALL(r, EventCreate, &event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING) &&
        CALL(r, EventRecord, event, NULL) && CALL(r, IpcGetEventHandle, &m.event, event))
        m.has_event = 1;
    step(r, "the other process opens the handle");
    if (!bytes_send(peer.sock, &m, sizeof(m)) || !bytes_receive(peer.sock, &done, 1, 12000)) {
        open_end(r, "the other process gave no answer: %s", a->why);
        return;
    }
    check(r, a->open == CUDA_SUCCESS, "opening it in another process: %s", rc_name(a->open));
    if (a->open == CUDA_SUCCESS)
        check(r, a->read == CUDA_SUCCESS && a->value == 0x3333333333333333ull,
              "reading it there: %s", rc_name(a->read));
    if (m.has_event)
        note(r, "an interprocess event there: %s", rc_name(a->event));
    peer_join(&peer, 3000);
}

/* ---- posix_fd ---- */

static void fd_reader(int sock, void *arg)
{
    struct ipc_answer *a = arg;
    struct result *own = shared_alloc(sizeof(*own));
    CUmemGenericAllocationHandle handle;
    CUdeviceptr at = 0;
    a->open = a->read = CUDA_ERROR_UNKNOWN;
    int fd = fd_receive(sock, 15000);
    if (!own || fd < 0)
        return;
    if (!begin(own)) {
        snprintf(a->why, sizeof(a->why), "%.250s", own->seen);
        return;
    }
    CUmemAllocationProp prop = chunk_prop(false, false);
    CUmemAccessDesc desc = {.location = prop.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    a->open = cu.MemImportFromShareableHandle(&handle, (void *)(uintptr_t)fd,
                                              CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    if (a->open == CUDA_SUCCESS)
        a->open = cu.MemAddressReserve(&at, me.chunk, 0, 0, 0);
    if (a->open == CUDA_SUCCESS)
        a->open = cu.MemMap(at, me.chunk, 0, handle, 0);
    if (a->open == CUDA_SUCCESS)
        a->open = cu.MemSetAccess(at, me.chunk, &desc, 1);
    if (a->open == CUDA_SUCCESS)
        a->read = cu.MemcpyDtoH(&a->value, at, sizeof(a->value));
    (void)bytes_send(sock, "d", 1);
}

static void run_posix_fd(struct result *r)
{
    struct ipc_answer *a = shared_alloc(sizeof(*a));
    struct peer peer;
    struct chunk c;
    int fd = -1;
    char done;
    if (!a || !peer_start(r, fd_reader, a, &peer) || !begin(r))
        return;
    note(r, "attribute 103 (descriptors): %d", attribute(103));
    if (!me.chunk || !chunk_open(r, me.chunk, false, true, &c) ||
        !CALL(r, MemsetD8, c.at, 0x33, 64) || !CALL(r, CtxSynchronize) ||
        !CALL(r, MemExportToShareableHandle, &fd, c.handle,
              CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0))
        return;
    step(r, "the other process imports the descriptor");
    if (!fd_send(peer.sock, fd) || !bytes_receive(peer.sock, &done, 1, 12000)) {
        open_end(r, "the other process gave no answer: %s", a->why);
        return;
    }
    check(r, a->open == CUDA_SUCCESS, "import and map in another process: %s", rc_name(a->open));
    if (a->open == CUDA_SUCCESS)
        check(r, a->read == CUDA_SUCCESS && a->value == 0x3333333333333333ull,
              "reading it there: %s", rc_name(a->read));
    peer_join(&peer, 3000);
}

const struct fact facts_share[] = {
    {"memfd_register",
     "Another process makes and fills a sealed memfd; cuMemHostRegister of a mapping of it, read "
     "by a "
     "copy, written by a copy and by a kernel, and checked by the other process.",
     "A client's memfd can be registered in the executor and is the same memory for the GPU: the "
     "mapped "
     "path over shm.",
     "If it is refused: over shm, copies go through lanes as over a network (two copies instead of "
     "one).",
     "mapped copies over shm", FACT_SOFT, 15, run_memfd_register},
    {"dma_buf",
     "Attributes 110, 116-118, 124, 146; cuMemGetHandleForAddressRange of cuMemAlloc memory, VMM "
     "memory "
     "and VMM memory made RDMA capable; the driver's GPUDirect flush.",
     "Where attribute 124 is 1, RDMA-capable VMM memory (a lane in GPU memory) and cuMemAlloc "
     "memory give a "
     "dma-buf; where 117 says so, the flush succeeds.",
     "VMM memory refused: GPU lanes are cuMemAlloc memory, one per context. Attribute 124 = 0: "
     "peer-memory "
     "module by address, or pinned host lanes.",
     "lanes in GPU memory", 0, 10, run_dma_buf},
    {"ipc",
     "A legacy handle of cuMemAlloc memory opened and read in another process, with an "
     "interprocess event; "
     "a legacy handle of VMM memory.",
     "Legacy IPC works for cuMemAlloc memory and refuses VMM memory: so IPC goes by descriptor "
     "through the "
     "parent.",
     "If VMM memory gives legacy handles, cuIpc* passes through to the driver.",
     "sharing between workers", 0, 25, run_ipc},
    {"posix_fd",
     "A chunk by cuMemCreate exported as a descriptor, imported, mapped and read in another "
     "process.",
     "Descriptors of VMM memory carry it to another process of the same machine.",
     "If not: memory is not shared between workers, and cuIpc* answers not supported.",
     "sharing between workers", 0, 25, run_posix_fd},
};
const size_t facts_share_n = COUNT(facts_share);
