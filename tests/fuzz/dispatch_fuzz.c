/* Any records: each goes through tfr_session_run with a driver that says yes to everything and does
 * nothing, so that what is tried is the executor's own checking: sizes, spans, ids, slots.  Input:
 * for each record its op (2 bytes), its length (1, in units of 4) and its bytes. */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "executor/session.h"
#include "tfr_ops.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RECORDS_MAX = 64 };

static struct tfr_session session;
static struct tfr_cu driver;
static struct tfr_page_area *page;

static void no_bell(struct tfr_link *link)
{
    (void)link;
}

/* The client's memory is ours, and nobody sleeps. */
static const struct tfr_transport_ops ops = {.ring = no_bell};
static struct tfr_link nobody = {.ops = &ops};

/* Stands for every function of the driver. */
static CUresult yes(void)
{
    return CUDA_SUCCESS;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    CUresult (*fn)(void) = yes;
    (void)argc;
    (void)argv;
    setenv("TFR_LANE_SIZE", "2m", 1);
    setenv("TFR_RING_SIZE", "64k", 1);
    setenv("TFR_LOG", "error", 0);
    for (size_t at = 0; at + sizeof(fn) <= sizeof(driver); at += sizeof(fn))
        memcpy((uint8_t *)&driver + at, &fn, sizeof(fn));
    if (tfr_session_prepare(&session, &driver) != TFR_OK)
        abort();
    page = aligned_alloc(_Alignof(struct tfr_page_area), sizeof(*page));
    if (!page)
        abort();
    memset(page, 0, sizeof(*page));
    session.device_n = 2;
    session.mapped = true;
    session.link = &nobody;
    session.feedback = &page->feedback;
    session.reply = page->reply;
    session.text = page->text;
    session.relief_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    session.ctx[0] = (CUcontext)16;
    session.ctx[1] = (CUcontext)32;
    session.ctx_device[1] = 1;
    return 0;
}

static bool any(void *aux, void *arg)
{
    (void)aux;
    (void)arg;
    return true;
}

/* As the pump does it, but that helpers' records run here. */
static void record(const uint8_t *body, uint32_t len, uint16_t op, uint64_t seq)
{
    uint32_t size = (uint32_t)sizeof(struct tfr_rec) + len;
    struct tfr_rec *rec = calloc(1, size);
    if (!rec)
        return;
    memcpy(rec + 1, body, len);
    rec->size = size;
    rec->op = op;
    rec->ctx = 1;
    rec->seq = seq;
    const struct tfr_op_info *info = op < TFR_OP_LIMIT ? &tfr_op_table[op] : NULL;
    if (info && info->wants_reply && size >= sizeof(struct tfr_asked_req) && !(body[0] & 0x80))
        ((struct tfr_asked_req *)rec)->slot %= TFR_REPLY_SLOTS; /* else little gets past it */
    session.park.seq = seq;
    session.park.event = NULL;
    if (info && info->run)
        tfr_session_run(&session, info, rec);
    free(rec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint64_t seq;
    for (int n = 0; n < RECORDS_MAX && size >= 3; n++) {
        uint16_t op = (uint16_t)(data[0] | data[1] << 8);
        size_t len = data[2] * 4u;
        data += 3;
        size -= 3;
        len = len < size ? len : size & ~(size_t)3;
        record(data, (uint32_t)len, op, ++seq);
        data += len;
        size -= len;
    }
    for (int kind = 1; kind < TFR_KIND_LIMIT; kind++)
        tfr_object_sweep(&session, (enum tfr_kind)kind, any, NULL);
    tfr_object_reap(&session);
    /* Tables that ids of the whole range have spread out make every sweep slow. */
    for (int kind = 1; kind < TFR_KIND_LIMIT; kind++) {
        for (int c = 0; c < TFR_HANDLE_MAX / TFR_OBJECT_CHUNK; c++) {
            free(atomic_load(&session.objects[kind][c]));
            atomic_store(&session.objects[kind][c], NULL);
        }
    }
    atomic_store(&session.sticky, 0);
    atomic_store(&session.ended, 0);
    return 0;
}
