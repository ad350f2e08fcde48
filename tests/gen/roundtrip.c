/* Both generated ends of the golden sample in one process: a client stub fills a record, dispatch
 * plays it into a driver of fakes, the reply comes back.  Then the same records, broken as a
 * hostile client would. Built and run by gen_test.py, with the address sanitizer; says nothing and
 * exits 0 when all is well. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "executor/dispatch.h"
#include "executor/session.h"
#include "intercept/entry.h"
#include "proto/cu.h"
#include "tfr_calls.h"
#include "tfr_checks.h"
#include "tfr_dispatch_decl.h"
#include "tfr_ops.h"

static int failed;
#define CHECK(x)                                                                                   \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            printf("%s:%d: %s\n", __FILE__, __LINE__, #x);                                         \
            failed = 1;                                                                            \
        }                                                                                          \
    } while (0)

/* ---- the wire: one record, one reply ---- */

static uint8_t
    *record; /* exactly as large as it says, so that the sanitizer sees one byte too many */
static uint8_t *slot;
static uint32_t slot_len;
static const char *bad;
static uint64_t next_id = 100, dropped;
static struct tfr_cu cu;
static struct tfr_session session = {&cu};

struct tfr_reply {
    int unused;
};
static struct tfr_reply reply;

static void *record_begin(uint16_t op, uint32_t len)
{
    struct tfr_rec head = {.size = len, .op = op};

    free(record);
    record = malloc(len);
    memset(record, 0xa5, len);
    memcpy(record, &head, sizeof head);
    return record;
}

static CUresult play(void)
{
    const struct tfr_rec *rec = (const struct tfr_rec *)record;

    bad = NULL;
    free(slot);
    slot = NULL;
    slot_len = 0;
    return tfr_op_table[rec->op].run(&session, rec, &reply);
}

CUresult tfr_enter(void)
{
    return CUDA_SUCCESS;
}

CUresult tfr_enter_noctx(void)
{
    return CUDA_SUCCESS;
}

CUresult tfr_handle_id(enum tfr_kind kind, const void *handle, uint64_t *id_out)
{
    *id_out = (uint64_t)kind << 56 | (uint64_t)handle;
    return handle == (const void *)0xdead ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

CUresult tfr_handle_new(enum tfr_kind kind, uint64_t *id_out)
{
    *id_out = (uint64_t)kind << 56 | ++next_id;
    return CUDA_SUCCESS;
}

void tfr_handle_drop(enum tfr_kind kind, uint64_t id)
{
    (void)kind;
    dropped = id;
}

void *tfr_handle_ptr(uint64_t id)
{
    return (void *)id;
}

void *tfr_ask_begin(struct tfr_ask *ask, uint16_t op, uint32_t len)
{
    (void)ask;
    return record_begin(op, len);
}

const void *tfr_ask_send(struct tfr_ask *ask, size_t min_len)
{
    ask->result = play();
    return ask->result == CUDA_SUCCESS && slot_len >= min_len ? slot : NULL;
}

CUresult tfr_ask_end(struct tfr_ask *ask)
{
    return ask->result;
}

void *tfr_post_begin(uint16_t op, uint32_t len)
{
    return record_begin(op, len);
}

CUresult tfr_post_failed(void)
{
    return CUDA_ERROR_UNKNOWN;
}

CUresult tfr_post_end(void)
{
    return play();
}

CUresult tfr_check_cuStreamCreate(CUstream *stream, unsigned int flags)
{
    (void)stream;
    return flags > 1 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult tfr_check_cuStreamDestroy_v2(CUstream stream)
{
    (void)stream;
    return CUDA_SUCCESS;
}

CUresult tfr_check_cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags)
{
    (void)stream;
    (void)event;
    return flags ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

CUresult tfr_session_bad(struct tfr_session *s, const struct tfr_rec *rec, const char *reason)
{
    (void)s;
    (void)rec;
    bad = reason;
    return CUDA_ERROR_UNKNOWN;
}

CUresult tfr_object_get(struct tfr_session *s, enum tfr_kind kind, uint64_t id, void **real_out)
{
    (void)s;
    if (id >> 56 != kind)
        return CUDA_ERROR_INVALID_HANDLE;
    *real_out = (void *)(id << 8 >> 8);
    return CUDA_SUCCESS;
}

static uint64_t named, object_dropped;
static void *real_named;

CUresult tfr_object_new(struct tfr_session *s, enum tfr_kind kind, uint64_t id, void *real)
{
    (void)s;
    CHECK(id >> 56 == kind);
    named = id;
    real_named = real;
    return CUDA_SUCCESS;
}

void tfr_object_drop(struct tfr_session *s, enum tfr_kind kind, uint64_t id)
{
    (void)s;
    (void)kind;
    object_dropped = id;
}

void *tfr_reply_room(struct tfr_reply *to, uint32_t len)
{
    (void)to;
    if (len > 65536)
        return NULL;
    slot_len = len;
    slot = calloc(1, len);
    return slot;
}

CUresult do_mark(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *to)
{
    (void)s;
    (void)rec;
    (void)to;
    return CUDA_SUCCESS;
}

CUresult do_alloc(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *to)
{
    return do_mark(s, rec, to);
}

CUresult do_cuMemcpyHtoDAsync_v2(struct tfr_session *s, const struct tfr_rec *rec,
                                 struct tfr_reply *to)
{
    return do_mark(s, rec, to);
}

/* ---- the driver ---- */

static int calls;

static CUresult device_name(char *name, int len, CUdevice dev)
{
    calls++;
    snprintf(name, (size_t)len, "device %d", dev);
    return CUDA_SUCCESS;
}

static CUresult device_uuid(CUuuid *uuid, CUdevice dev)
{
    calls++;
    memset(uuid, dev, sizeof *uuid);
    return CUDA_SUCCESS;
}

static CUresult capabilities(unsigned int *out, const CUatomicOperation *in, unsigned int n,
                             CUdevice dev)
{
    calls++;
    for (unsigned at = 0; at < n; at++)
        out[at] = 10 * (unsigned)in[at] + (unsigned)dev;
    return CUDA_SUCCESS;
}

static CUresult set_limit(CUlimit limit, size_t value)
{
    calls++;
    return limit == CU_LIMIT_STACK_SIZE && value == 1ull << 40 ? CUDA_SUCCESS
                                                               : CUDA_ERROR_UNSUPPORTED_LIMIT;
}

static CUresult address_range(CUdeviceptr *base, size_t *size, CUdeviceptr addr)
{
    calls++;
    CHECK(addr == 0x123456789abcull);
    if (base)
        *base = addr & ~0xfffull;
    if (size)
        *size = 4096;
    return CUDA_SUCCESS;
}

static size_t access_n;
static int access_id;

static CUresult set_access(CUdeviceptr addr, size_t size, const CUmemAccessDesc *desc, size_t count)
{
    (void)addr;
    (void)size;
    calls++;
    access_n = desc ? count : 99;
    access_id = desc ? desc[count - 1].location.id : 0;
    return CUDA_SUCCESS;
}

static CUresult prefetch(CUdeviceptr addr, size_t len, CUmemLocation location, unsigned int flags,
                         CUstream stream)
{
    calls++;
    CHECK(addr == 1 && len == 2 && location.id == 3 && flags == 4);
    return stream ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

static CUresult get_function(CUfunction *fn, CUmodule module, const char *name)
{
    calls++;
    CHECK(module == (CUmodule)0x77);
    *fn = (CUfunction)0x88;
    return strcmp(name, "kernel") == 0 ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}

static CUresult coredump(CUcoredumpSettings which, void *value, size_t *size)
{
    calls++;
    CHECK(which == CU_COREDUMP_FILE);
    return *(char *)value == 'x' && (!size || *size == 5) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static CUresult stream_create(CUstream *stream, unsigned int flags)
{
    calls++;
    CHECK(flags == 1);
    *stream = (CUstream)0x99;
    return CUDA_SUCCESS;
}

static CUresult stream_destroy(CUstream stream)
{
    calls++;
    CHECK(stream == (CUstream)0x55);
    return CUDA_SUCCESS;
}

static CUresult stream_wait(CUstream stream, CUevent event, unsigned int flags)
{
    calls++;
    CHECK(stream == (CUstream)0x55 && event == (CUevent)0x66 && flags == 0);
    return CUDA_SUCCESS;
}

static struct tfr_cu driver(void)
{
    return (struct tfr_cu){
        .cuDeviceGetName = device_name,
        .cuDeviceGetUuid_v2 = device_uuid,
        .cuDeviceGetHostAtomicCapabilities = capabilities,
        .cuCtxSetLimit = set_limit,
        .cuMemGetAddressRange_v2 = address_range,
        .cuMemSetAccess = set_access,
        .cuMemPrefetchAsync_v2 = prefetch,
        .cuModuleGetFunction = get_function,
        .cuCoredumpSetAttribute = coredump,
        .cuStreamCreate = stream_create,
        .cuStreamDestroy_v2 = stream_destroy,
        .cuStreamWaitEvent = stream_wait,
    };
}

/* ---- what must come through ---- */

static void outputs_come_back(void)
{
    char name[9];
    CUuuid uuid;
    CUdeviceptr base = 0;
    size_t size = 0;

    CHECK(cuDeviceGetName(name, sizeof name, 3) == CUDA_SUCCESS);
    CHECK(strcmp(name, "device 3") == 0);
    CHECK(cuDeviceGetName(name, -1, 3) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuDeviceGetName(NULL, 9, 3) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuDeviceGetUuid_v2(&uuid, 7) == CUDA_SUCCESS);
    CHECK(uuid.bytes[15] == 7);
    CHECK(cuMemGetAddressRange_v2(&base, &size, 0x123456789abcull) == CUDA_SUCCESS);
    CHECK(base == 0x123456789000ull && size == 4096);
    base = 0;
    CHECK(cuMemGetAddressRange_v2(&base, NULL, 0x123456789abcull) == CUDA_SUCCESS);
    CHECK(base == 0x123456789000ull);
    CHECK(cuMemGetAddressRange_v2(NULL, &size, 0x123456789abcull) == CUDA_SUCCESS);
}

static void inputs_go_there(void)
{
    const CUatomicOperation in[3] = {1, 2, 5};
    const CUmemAccessDesc desc[2] = {{.location = {.id = 1}}, {.location = {.id = 9}}};
    const CUmemLocation location = {.id = 3};
    unsigned int out[3];
    size_t five = 5;

    CHECK(cuDeviceGetHostAtomicCapabilities(out, in, 3, 4) == CUDA_SUCCESS);
    CHECK(out[0] == 14 && out[1] == 24 && out[2] == 54);
    CHECK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 1ull << 40) == CUDA_SUCCESS);
    CHECK(cuCtxSetLimit(CU_LIMIT_PRINTF_FIFO_SIZE, 1) == CUDA_ERROR_UNSUPPORTED_LIMIT);
    CHECK(cuMemSetAccess(1, 2, desc, 2) == CUDA_SUCCESS && access_n == 2 && access_id == 9);
    CHECK(cuMemSetAccess(1, 2, NULL, 2) == CUDA_SUCCESS && access_n == 99);
    CHECK(cuMemSetAccess(1, 2, desc, SIZE_MAX / 4) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuMemPrefetchAsync_v2(1, 2, location, 4, (CUstream)0x55) == CUDA_SUCCESS);
    CHECK(cuMemPrefetchAsync_v2(1, 2, location, 4, NULL) == CUDA_ERROR_NOT_READY);
    CHECK(cuCoredumpSetAttribute(CU_COREDUMP_FILE, "x", &five) == CUDA_SUCCESS);
    CHECK(cuCoredumpSetAttribute(CU_COREDUMP_FILE, "x", NULL) == CUDA_SUCCESS);
    CHECK(cuCoredumpSetAttribute(CU_COREDUMP_FILE, "y", NULL) == CUDA_ERROR_INVALID_VALUE);
}

static void handles_live_and_die(void)
{
    CUfunction fn = NULL;
    CUstream stream = NULL;

    CHECK(cuModuleGetFunction(&fn, (CUmodule)0x77, "kernel") == CUDA_SUCCESS);
    CHECK((uint64_t)fn == named && real_named == (void *)0x88);
    fn = NULL;
    CHECK(cuModuleGetFunction(&fn, (CUmodule)0x77, "colonel") == CUDA_ERROR_NOT_FOUND);
    CHECK(!fn && dropped == ((uint64_t)TFR_KIND_FUNCTION << 56 | next_id));
    CHECK(cuModuleGetFunction(&fn, (CUmodule)0xdead, "kernel") == CUDA_ERROR_INVALID_HANDLE);
    CHECK(cuStreamCreate(&stream, 1) == CUDA_SUCCESS);
    CHECK((uint64_t)stream == named && real_named == (void *)0x99);
    CHECK(cuStreamCreate(&stream, 2) == CUDA_ERROR_INVALID_VALUE);
    CHECK(cuStreamWaitEvent((CUstream)0x55, (CUevent)0x66, 0) == CUDA_SUCCESS);
    dropped = 0;
    CHECK(cuStreamDestroy_v2((CUstream)0x55) == CUDA_SUCCESS);
    CHECK(dropped == object_dropped && dropped == ((uint64_t)TFR_KIND_STREAM << 56 | 0x55));
    cu.cuStreamDestroy_v2 = NULL;
    CHECK(cuStreamDestroy_v2((CUstream)0x55) == CUDA_ERROR_NOT_SUPPORTED);
    cu = driver();
}

/* ---- what must not ---- */

/* The record in hand, cut to `size` bytes, is refused before the driver hears of it. */
static void refused_at(uint32_t size)
{
    uint8_t *whole = record;
    int before = calls;

    record = malloc(size);
    memcpy(record, whole, size);
    ((struct tfr_rec *)record)->size = size;
    CHECK(play() == CUDA_ERROR_UNKNOWN && bad && calls == before);
    free(record);
    record = whole;
}

static void refused(void)
{
    refused_at(((struct tfr_rec *)record)->size);
}

static void short_records_are_refused(void)
{
    static const uint16_t ops[] = {TFR_OP_mark, TFR_OP_alloc, TFR_OP_cuDeviceGetName,
                                   TFR_OP_cuMemcpyHtoDAsync_v2, TFR_OP_cuStreamWaitEvent};

    for (size_t n = 0; n < sizeof ops / sizeof ops[0]; n++) {
        record_begin(ops[n], 1024);
        refused_at(16);
        refused_at(tfr_op_table[ops[n]].min_size - 1);
    }
}

static void lengths_are_held_against_the_record(void)
{
    const CUmemAccessDesc desc[2] = {{.flags = 0}, {.flags = 0}};
    CUfunction fn;

    CHECK(cuMemSetAccess(1, 2, desc, 2) == CUDA_SUCCESS);
    struct tfr_cuMemSetAccess_req *set = (void *)record;
    refused_at(set->head.size - 1);
    refused_at(sizeof *set);
    set->desc_len -= 1;
    refused();
    set->desc_len = UINT32_MAX;
    refused();
    set->count = UINT64_MAX / 2;
    set->desc_len = (uint32_t)(set->count * sizeof *desc);
    refused();

    CHECK(cuModuleGetFunction(&fn, (CUmodule)0x77, "kernel") == CUDA_SUCCESS);
    struct tfr_cuModuleGetFunction_req *get = (void *)record;
    get->name_len = 6;
    refused();
    get->name_len = 0;
    refused();
    get->name_len = UINT32_MAX - 3;
    refused();
    get->name_len = 9;
    refused();
}

static void answers_have_a_limit(void)
{
    char name[9];

    CHECK(cuDeviceGetName(name, sizeof name, 3) == CUDA_SUCCESS);
    struct tfr_cuDeviceGetName_req *q = (void *)record;
    q->len = -1;
    refused();
    q->len = 1 << 20;
    int before = calls;
    CHECK(play() == CUDA_ERROR_INVALID_VALUE && calls == before);
}

static void handles_are_checked(void)
{
    CHECK(cuStreamWaitEvent((CUstream)0x55, (CUevent)0x66, 0) == CUDA_SUCCESS);
    struct tfr_cuStreamWaitEvent_req *q = (void *)record;
    int before = calls;
    q->event = q->stream;
    CHECK(play() == CUDA_ERROR_INVALID_HANDLE && calls == before);
}

int main(void)
{
    cu = driver();
    outputs_come_back();
    inputs_go_there();
    handles_live_and_die();
    short_records_are_refused();
    lengths_are_held_against_the_record();
    answers_have_a_limit();
    handles_are_checked();
    CHECK(strcmp(tfr_op_name(TFR_OP_mark), "mark") == 0 && strcmp(tfr_op_name(0xffff), "?") == 0);
    free(record);
    free(slot);
    return failed;
}
