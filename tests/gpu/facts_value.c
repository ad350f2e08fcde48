/* Stream value writes and waits: what marks, feedback and in-stream gates stand on. */
#include "facts.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { REGISTER = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP };

/* Waits for a word that somebody else writes; false after ms. */
static bool word_wait(const volatile uint64_t *word, uint64_t want, unsigned int ms)
{
    uint64_t until = now_ns() + ms * 1000000ull;
    unsigned int spins = 0;
    while (__atomic_load_n(word, __ATOMIC_ACQUIRE) < want) {
        relax(&spins);
        if ((spins & 255) == 0 && now_ns() > until)
            return false;
    }
    return true;
}

static bool mirror_open(struct result *r, size_t len, int fd, void **host_out, CUdeviceptr *dev_out)
{
    *host_out = fd >= 0 ? memfd_map(fd, len) : aligned_alloc(4096, len);
    if (!*host_out) {
        open_end(r, "no memory for a mirror");
        return false;
    }
    memset(*host_out, 0, len);
    return CALL(r, MemHostRegister, *host_out, len, REGISTER) &&
           CALL(r, MemHostGetDevicePointer, dev_out, *host_out, 0);
}

/* ---- value_kinds ---- */

static void peer_sees(int sock, void *arg)
{
    const volatile uint64_t *word = arg;
    uint64_t seen = 0;
    if (word_wait(word, 77, 12000))
        seen = *word;
    (void)bytes_send(sock, &seen, sizeof(seen));
}

static void write_one(struct result *r, CUstream s, const char *what, volatile uint64_t *word,
                      CUdeviceptr dev)
{
    step(r, what);
    CUresult rc = TRY(r, StreamWriteValue64, s, dev, 77, CU_STREAM_WRITE_VALUE_DEFAULT);
    if (rc == CUDA_SUCCESS)
        rc = settle(s, 3000);
    check(r, rc == CUDA_SUCCESS && *word == 77, "%s: %s", what, rc_name(rc));
}

static void wait_one(struct result *r, CUstream s, volatile uint64_t *word, CUdeviceptr dev)
{
    *word = 0;
    CUresult rc = TRY(r, StreamWaitValue64, s, dev, 5, CU_STREAM_WAIT_VALUE_GEQ);
    if (!check(r, rc == CUDA_SUCCESS, "wait value on a registered word: %s", rc_name(rc)))
        return;
    nap_us(2000);
    bool early = cu.StreamQuery(s) != CUDA_ERROR_NOT_READY;
    *word = 6;
    rc = settle(s, 3000);
    check(r, !early && rc == CUDA_SUCCESS, "it %s, then ends with %s",
          early ? "does not wait" : "waits for the CPU's store", rc_name(rc));
    /* GEQ is cyclic: a word behind by less than 2^63 waits. */
    *word = UINT64_MAX - 1;
    rc = TRY(r, StreamWaitValue64, s, dev, 5, CU_STREAM_WAIT_VALUE_GEQ);
    nap_us(2000);
    note(r, "the comparison is %s",
         cu.StreamQuery(s) == CUDA_ERROR_NOT_READY ? "cyclic" : "plain unsigned");
    *word = 6;
    (void)settle(s, 3000);
}

static void run_value_kinds(struct result *r)
{
    int fd = memfd_open(4 * KIB);
    volatile uint64_t *shared = memfd_map(fd, 4 * KIB);
    struct peer peer;
    CUstream s;
    void *host;
    CUdeviceptr dev;
    uint64_t seen = 0;
    if (!shared || !peer_start(r, peer_sees, (void *)shared, &peer))
        return;
    if (!begin(r) || !CALL(r, StreamCreate, &s, CU_STREAM_NON_BLOCKING))
        return;
    note(r, "attributes 93 and 122 (64-bit memory operations): %d, %d", attribute(93),
         attribute(122));
    if (pinned(r, 4 * KIB, &host, &dev))
        write_one(r, s, "cuMemHostAlloc memory", host, dev);
    if (mirror_open(r, 4 * KIB, -1, &host, &dev)) {
        write_one(r, s, "registered heap memory", host, dev);
        write_one(r, s, "the last word of a registered page", (volatile uint64_t *)host + 511,
                  dev + 4088);
        wait_one(r, s, (volatile uint64_t *)host + 8, dev + 64);
    }
    if (mirror_open(r, 4 * KIB, fd, &host, &dev)) {
        write_one(r, s, "a registered memfd page", host, dev);
        bool got = bytes_receive(peer.sock, &seen, sizeof(seen), 4000) && seen == 77;
        check(r, got, "the other process %s the value", got ? "reads" : "does not see");
    }
    peer_join(&peer, 6000);
}

/* ---- value_order ---- */

enum { ORDER_LEN = 64 * 1024, ORDER_AREA = ORDER_LEN + 4096 };

/* Shared by the two processes; the pointers are into the memfd's mapping of before the fork. */
struct order {
    volatile uint64_t *data, *mark, *ack;
    _Atomic uint64_t bad; /* relaxed: read after the join */
    unsigned int rounds;
};

static void order_reader(int sock, void *arg)
{
    struct order *o = arg;
    const size_t at[] = {0, ORDER_LEN / 16, ORDER_LEN / 8 - 1};
    (void)sock;
    for (uint64_t i = 1; i <= o->rounds; i++) {
        if (!word_wait(o->mark, i, 12000))
            return;
        uint64_t want = i | i << 32;
        bool bad = false;
        for (size_t k = 0; k < COUNT(at); k++)
            bad |= o->data[at[k]] != want;
        atomic_fetch_add_explicit(&o->bad, bad, memory_order_relaxed);
        __atomic_store_n(o->ack, i, __ATOMIC_RELEASE);
    }
}

static bool order_rounds(struct result *r, const struct order *o, char *host, CUdeviceptr area)
{
    CUstream s;
    CUdeviceptr dev;
    if (!CALL(r, StreamCreate, &s, CU_STREAM_NON_BLOCKING) || !CALL(r, MemAlloc, &dev, ORDER_LEN))
        return false;
    step(r, "copy to the host, then value write");
    for (uint64_t i = 1; i <= o->rounds; i++) {
        CUresult rc = TRY(r, MemsetD32Async, dev, (unsigned int)i, ORDER_LEN / 4, s);
        if (rc == CUDA_SUCCESS)
            rc = TRY(r, MemcpyDtoHAsync, host, dev, ORDER_LEN, s);
        if (rc == CUDA_SUCCESS)
            rc = TRY(r, StreamWriteValue64, s, area + ORDER_LEN, i, CU_STREAM_WRITE_VALUE_DEFAULT);
        if (!ok(r, "copy and value write", rc))
            return false;
        if (!word_wait(o->ack, i, 4000)) {
            open_end(r, "round %llu was not acknowledged", (unsigned long long)i);
            return false;
        }
    }
    return true;
}

static void run_value_order(struct result *r)
{
    struct order *o = shared_alloc(sizeof(*o));
    int fd = memfd_open(ORDER_AREA);
    char *shared = memfd_map(fd, ORDER_AREA);
    struct peer peer;
    void *host;
    CUdeviceptr dev;
    if (!o || !shared)
        return;
    o->data = (volatile uint64_t *)shared;
    o->mark = o->data + ORDER_LEN / 8;
    o->ack = o->mark + 64;
    o->rounds =
        me.quick ? 50 : 4000; /* quick proves the flow, the full run hunts for a reordering */
    if (!peer_start(r, order_reader, o, &peer))
        return;
    if (!begin(r) || !mirror_open(r, ORDER_AREA, fd, &host, &dev))
        return;
    bool done = order_rounds(r, o, host, dev);
    peer_join(&peer, 3000);
    unsigned long long bad = atomic_load_explicit(&o->bad, memory_order_relaxed);
    if (done)
        check(r, bad == 0, "%llu of %u marks overtook a copy of 64 KiB, seen by another process",
              bad, o->rounds);
}

/* ---- value_cost ---- */

static double gpu_ns(struct result *r, CUstream s, unsigned int n,
                     CUresult (*one)(CUstream, CUdeviceptr), CUdeviceptr at)
{
    CUevent from, to;
    float ms = 0;
    CUresult rc = CUDA_SUCCESS;
    if (!CALL(r, EventCreate, &from, 0) || !CALL(r, EventCreate, &to, 0) ||
        !CALL(r, EventRecord, from, s))
        return -1;
    for (unsigned int i = 0; i < n && rc == CUDA_SUCCESS; i++)
        rc = one(s, at);
    if (!ok(r, "submission", rc) || !CALL(r, EventRecord, to, s) ||
        !ok(r, "run", settle(s, 5000)) || !CALL(r, EventElapsedTime, &ms, from, to))
        return -1;
    return (double)ms * 1e6 / n;
}

static CUfunction cost_null;

static CUresult cost_write(CUstream s, CUdeviceptr at)
{
    return cu.StreamWriteValue64(s, at, 1, 0);
}

static CUresult cost_write_bare(CUstream s, CUdeviceptr at)
{
    return cu.StreamWriteValue64(s, at, 1, CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER);
}

static CUresult cost_wait(CUstream s, CUdeviceptr at)
{
    return cu.StreamWaitValue64(s, at, 0, CU_STREAM_WAIT_VALUE_GEQ);
}

static CUresult cost_launch(CUstream s, CUdeviceptr at)
{
    (void)at;
    return launch(cost_null, s, NULL);
}

static CUresult cost_launch_mark(CUstream s, CUdeviceptr at)
{
    CUresult rc = launch(cost_null, s, NULL);
    return rc == CUDA_SUCCESS ? cost_write(s, at) : rc;
}

static void run_value_cost(struct result *r)
{
    static const struct {
        const char *name;
        CUresult (*one)(CUstream, CUdeviceptr);
    } row[] = {{"value write", cost_write},
               {"value write, no barrier", cost_write_bare},
               {"value wait, satisfied", cost_wait},
               {"null launch", cost_launch},
               {"null launch and value write", cost_launch_mark}};
    static double v[SAMPLE_MAX];
    double issue_write = 0, issue_launch = 0;
    CUstream s;
    void *host;
    CUdeviceptr dev;
    if (!begin(r) || !CALL(r, StreamCreate, &s, CU_STREAM_NON_BLOCKING) ||
        !pinned(r, 4 * KIB, &host, &dev) || !(cost_null = kernel(r, "null")))
        return;
    unsigned int n = me.quick ? 64 : 2048;
    for (size_t i = 0; i < COUNT(row); i++) {
        step(r, row[i].name);
        if (!ok(r, row[i].name, row[i].one(s, dev)) || !ok(r, row[i].name, settle(s, 3000)))
            return;
        for (unsigned int k = 0; k < n; k++) {
            uint64_t from = now_ns();
            CUresult rc = row[i].one(s, dev);
            v[k] = (double)(now_ns() - from);
            if (!ok(r, row[i].name, rc) || (k % 128 == 127 && !ok(r, row[i].name, settle(s, 3000))))
                return;
        }
        double p50 = measure(r, "ns", v, n, "%s, CPU", row[i].name);
        issue_write = i == 0 ? p50 : issue_write;
        issue_launch = i == 3 ? p50 : issue_launch;
        (void)settle(s, 3000);
        double gpu = gpu_ns(r, s, me.quick ? 64 : 400, row[i].one, dev);
        measure(r, "ns", &gpu, 1, "%s, GPU", row[i].name);
    }
    check(r, issue_write < 2 * issue_launch,
          "a value write costs the CPU %.0f ns, a launch %.0f ns", issue_write, issue_launch);
}

/* ---- value_wait: the other process opens the gate, the GPU answers ---- */

struct ping {
    volatile uint64_t *in, *out; /* in this order: the peer writes in, the GPU writes out */
    unsigned int rounds, done;
    double us[1024];
};

static void ping_peer(int sock, void *arg)
{
    struct ping *p = arg;
    char go;
    if (!bytes_receive(sock, &go, 1, 20000))
        return;
    for (unsigned int i = 0; i < p->rounds; i++) {
        uint64_t from = now_ns();
        __atomic_store_n(p->in, (uint64_t)i + 1, __ATOMIC_SEQ_CST);
        if (!word_wait(p->out, (uint64_t)i + 1, 3000))
            return;
        p->us[i] = (double)(now_ns() - from) / 1000;
        p->done = i + 1;
    }
}

static void run_value_wait(struct result *r)
{
    struct ping *p = shared_alloc(sizeof(*p));
    int fd = memfd_open(4 * KIB);
    volatile uint64_t *page = memfd_map(fd, 4 * KIB);
    struct peer peer;
    CUstream s;
    void *host;
    CUdeviceptr dev;
    if (!p || !page)
        return;
    p->in = page;
    p->out = page + 64;
    p->rounds = me.quick ? 20 : 100;
    if (!peer_start(r, ping_peer, p, &peer))
        return;
    if (!begin(r) || !CALL(r, StreamCreate, &s, CU_STREAM_NON_BLOCKING) ||
        !mirror_open(r, 4 * KIB, fd, &host, &dev))
        return;
    for (unsigned int i = 1; i <= p->rounds; i++)
        if (!CALL(r, StreamWaitValue64, s, dev, i, CU_STREAM_WAIT_VALUE_GEQ) ||
            !CALL(r, StreamWriteValue64, s, dev + 512, i, 0))
            return;
    if (!bytes_send(peer.sock, "g", 1))
        return;
    bool joined = peer_join(&peer, 8000);
    check(r, joined && p->done == p->rounds, "%u of %u gates opened by another process's store",
          p->done, p->rounds);
    if (p->done)
        measure(r, "us", p->us, p->done, "store to mark, both ways over PCIe");
    *page = UINT64_MAX / 2; /* whatever is still shut */
    (void)settle(s, 3000);
}

/* ---- value_pdl ---- */

enum between { NOTHING, WRITE, WRITE_BARE, RECORD, WAIT, BETWEEN_N };
static const char *const between_name[] = {"nothing", "a value write",
                                           "a value write without barrier", "an event record",
                                           "a satisfied value wait"};

struct pdl {
    CUfunction first, second;
    CUstream s;
    CUevent event;
    CUdeviceptr out_dev, word_dev;
    volatile uint64_t *out;
};

static CUresult pdl_between(struct pdl *p, enum between what)
{
    switch (what) {
    case WRITE:
        return cu.StreamWriteValue64(p->s, p->word_dev, 1, 0);
    case WRITE_BARE:
        return cu.StreamWriteValue64(p->s, p->word_dev, 1, CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER);
    case RECORD:
        return cu.EventRecord(p->event, p->s);
    case WAIT:
        return cu.StreamWaitValue64(p->s, p->word_dev, 0, CU_STREAM_WAIT_VALUE_GEQ);
    case NOTHING:
    case BETWEEN_N:
        break;
    }
    return CUDA_SUCCESS;
}

static bool pdl_once(struct result *r, struct pdl *p, enum between what, bool *overlap_out)
{
    uint64_t run_ns = 2000000;
    void *first_args[] = {&p->out_dev, &run_ns}, *second_args[] = {&p->out_dev};
    CUlaunchAttribute attr;
    memset(&attr, 0, sizeof(attr));
    attr.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attr.value.programmaticStreamSerializationAllowed = 1;
    CUlaunchConfig config;
    memset(&config, 0, sizeof(config));
    config.gridDimX = config.gridDimY = config.gridDimZ = 1;
    config.blockDimX = config.blockDimY = config.blockDimZ = 1;
    config.hStream = p->s;
    config.attrs = &attr;
    config.numAttrs = 1;
    if (!ok(r, "first kernel", launch(p->first, p->s, first_args)) ||
        !ok(r, between_name[what], pdl_between(p, what)) ||
        !CALL(r, LaunchKernelEx, &config, p->second, second_args, NULL) ||
        !ok(r, "two dependent kernels", settle(p->s, 4000)))
        return false;
    *overlap_out = p->out[1] < p->out[0];
    return true;
}

static bool pdl_open(struct result *r, struct pdl *p)
{
    CUmodule m = NULL;
    void *out, *word;
    memset(p, 0, sizeof(*p));
    if (me.cc < 90) {
        open_end(r, "compute capability %d.%d has no dependent launches", me.cc / 10, me.cc % 10);
        return false;
    }
    if (!CALL(r, ModuleLoadData, &m, ptx_pdl) ||
        !CALL(r, ModuleGetFunction, &p->first, m, "first") ||
        !CALL(r, ModuleGetFunction, &p->second, m, "second") ||
        !pinned(r, 4 * KIB, &out, &p->out_dev) || !pinned(r, 4 * KIB, &word, &p->word_dev) ||
        !CALL(r, StreamCreate, &p->s, CU_STREAM_NON_BLOCKING) ||
        !CALL(r, EventCreate, &p->event, CU_EVENT_DISABLE_TIMING))
        return false;
    p->out = out;
    return true;
}

static void run_value_pdl(struct result *r)
{
    struct pdl p;
    unsigned int n = me.quick ? 2 : 8, overlaps[BETWEEN_N] = {0};
    bool overlap;
    if (!begin(r) || !pdl_open(r, &p) || !pdl_once(r, &p, NOTHING, &overlap))
        return;
    for (unsigned int k = 0; k < BETWEEN_N; k++) {
        for (unsigned int i = 0; i < n; i++) {
            if (!pdl_once(r, &p, (enum between)k, &overlap))
                return;
            overlaps[k] += overlap;
        }
        note(r, "with %s between: %u of %u overlap", between_name[k], overlaps[k], n);
    }
    if (overlaps[NOTHING] < n / 2) {
        open_end(r, "no overlap to begin with");
        return;
    }
    check(r, overlaps[WRITE] == 0, "a value write between %s the overlap",
          overlaps[WRITE] ? "keeps" : "ends");
}

/* ---- value_fault ---- */

/* Words of the pinned page, 64 bytes apart. */
enum { GO = 0, GATE = 8, BEFORE = 16, AFTER = 24, WAITING = 32 };

struct fault {
    CUstream wild, waiting, done;
    volatile uint64_t *word;
    CUdeviceptr dev;
};

static CUresult fault_word(const struct fault *f, CUstream s, unsigned int word)
{
    return cu.StreamWriteValue64(s, f->dev + 8 * word, 1, CU_STREAM_WRITE_VALUE_DEFAULT);
}

static CUresult fault_wait(const struct fault *f, CUstream s, unsigned int word)
{
    return cu.StreamWaitValue64(s, f->dev + 8 * word, 1, CU_STREAM_WAIT_VALUE_GEQ);
}

/* Everything is queued while the wild store still waits, so that the marks are outstanding at the
 * fault. */
static bool fault_set(struct result *r, struct fault *f)
{
    CUfunction store = kernel(r, "store");
    void *host;
    uint64_t nowhere = 0x10, value = 1;
    void *args[] = {&nowhere, &value};
    if (!store || !pinned(r, 4 * KIB, &host, &f->dev) ||
        !CALL(r, StreamCreate, &f->wild, CU_STREAM_NON_BLOCKING) ||
        !CALL(r, StreamCreate, &f->waiting, CU_STREAM_NON_BLOCKING) ||
        !CALL(r, StreamCreate, &f->done, CU_STREAM_NON_BLOCKING))
        return false;
    f->word = host;
    return ok(r, "mark before", fault_word(f, f->done, BEFORE)) &&
           ok(r, "mark before", settle(f->done, 3000)) &&
           ok(r, "wait", fault_wait(f, f->waiting, GATE)) &&
           ok(r, "mark behind a wait", fault_word(f, f->waiting, WAITING)) &&
           ok(r, "wait", fault_wait(f, f->wild, GO)) &&
           ok(r, "wild store", launch(store, f->wild, args)) &&
           ok(r, "mark behind the wild store", fault_word(f, f->wild, AFTER));
}

static void fault_recover(struct result *r)
{
    CUdeviceptr at = 0;
    CUresult rc = TRY(r, DevicePrimaryCtxReset, me.dev);
    note(r, "reset of the primary context: %s", rc_name(rc));
    if (rc == CUDA_SUCCESS)
        rc = TRY(r, DevicePrimaryCtxRetain, &me.ctx, me.dev);
    if (rc == CUDA_SUCCESS)
        rc = TRY(r, CtxSetCurrent, me.ctx);
    if (rc == CUDA_SUCCESS)
        rc = TRY(r, MemAlloc, &at, 4 * KIB);
    note(r, "work in the same process after it: %s", rc_name(rc));
}

static void run_value_fault(struct result *r)
{
    struct fault f;
    CUresult rc;
    if (!begin(r) || !fault_set(r, &f))
        return;
    f.word[GO] = 1;
    uint64_t from = now_ns();
    step(r, "cuStreamQuery after a fault");
    do {
        nap_us(100);
        rc = TRY(r, StreamQuery, f.done);
    } while ((rc == CUDA_SUCCESS || rc == CUDA_ERROR_NOT_READY) && now_ns() - from < 3000000000ull);
    double ms = (double)(now_ns() - from) / 1e6;
    bool told = rc != CUDA_SUCCESS && rc != CUDA_ERROR_NOT_READY;
    check(r, told && ms < (me.soft ? 3000 : 500), "a query on another stream says %s after %.1f ms",
          rc_name(rc), ms);
    note(r, "a value write after that: %s", rc_name(fault_word(&f, f.done, BEFORE)));
    f.word[GATE] = 1;
    nap_us(300000);
    check(r, f.word[BEFORE] == 1, "the mark of before stays");
    check(r, f.word[AFTER] == 0, "the mark behind the fault in its stream is %s",
          f.word[AFTER] ? "written" : "never written");
    check(r, f.word[WAITING] == 0, "the mark of another stream that was still waiting is %s",
          f.word[WAITING] ? "written" : "never written");
    fault_recover(r);
}

const struct fact facts_value[] = {
    {"value_kinds",
     "cuStreamWriteValue64 into cuMemHostAlloc memory, registered heap memory and a registered "
     "memfd "
     "page that another process reads; cuStreamWaitValue64 on a registered word that the CPU sets.",
     "All work, 64 bits wide; the other process sees the value.",
     "A kind that does not work: the mirror is cuMemHostAlloc memory, and feedback copies it to "
     "the page "
     "even over shm.",
     "marks and feedback", FACT_SOFT, 15, run_value_kinds},
    {"value_order",
     "4000 times: a 64 KiB copy to the host, then a value write, both into a memfd; another "
     "process that "
     "sees the value checks the first, middle and last word.",
     "A value write with flags 0 is not seen before the bytes of a preceding copy.",
     "Marks would need an event or a host function between copy and write; delivery of D2H bytes "
     "then "
     "waits for an event query, never for a mark.",
     "marks: bytes before news", FACT_SOFT, 20, run_value_order},
    {"value_cost",
     "CPU time of issuing and GPU time of running value writes and satisfied waits, beside null "
     "launches.",
     "A value write costs the CPU less than two launches.",
     "Dearer: marks are asked for by events (cuEventRecord, cuEventQuery) or every few hundred "
     "records only.",
     "when marks are asked for", 0, 10, run_value_cost},
    {"value_wait",
     "100 pairs {wait for a word of a memfd page, write another} are queued; another process "
     "stores the "
     "one and spins on the other.",
     "A gate in a stream opens by another process's plain store, with no system call: the client "
     "page can "
     "satisfy in-stream waits.",
     "If not: the executor's landing thread relays the client page into cuMemHostAlloc memory.",
     "client page, landing", FACT_SOFT, 20, run_value_wait},
    {"value_pdl",
     "Two kernels joined by programmatic stream serialisation with nothing, a value write, an "
     "event record "
     "or a satisfied wait between; do they overlap?",
     "A value write between them ends the overlap; so marks are never put between launches "
     "unasked.",
     "If the overlap survives a value write, marks may follow every launch.",
     "when marks are asked for", 0, 10, run_value_pdl},
    {"value_fault",
     "A kernel stores to address 16, with marks before it, behind it and in a stream that still "
     "waits; a "
     "query on another stream; then a reset.",
     "No mark outstanding at a fault is ever written, marks written before stay, and a query on "
     "any "
     "stream of the context tells the fault within 500 ms.",
     "Marks written all the same: the sticky word must be read before a mark is believed. A query "
     "that "
     "does not tell: the watch synchronises an event instead.",
     "watch, sticky error", FACT_SOFT, 15, run_value_fault},
};
const size_t facts_value_n = COUNT(facts_value);
