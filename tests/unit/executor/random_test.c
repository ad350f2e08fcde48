/* Records of every kind with bodies that are mostly plausible, memory that changes while it is
 * being read: whatever happens to such a session, its worker does not die of it and the daemon
 * serves. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "rogue.h"
#include "tfr_ops.h"

enum { SESSIONS = 60, RECORDS = 400, OBJECTS = 6, BODY_MAX = 40 };

static uint64_t state = 1;

static uint32_t below(uint32_t n)
{
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(state >> 33) % n;
}

static uint64_t id(enum tfr_kind kind)
{
    return tfr_id_make(kind, 1 + below(8) / 7, below(OBJECTS));
}

/* A field: ids, addresses, lengths, and what overflows. */
static uint64_t field(void)
{
    static const uint64_t words[] = {
        0,          1,           2,           4,          16,
        64,         4096,        65536,       1u << 20,   1u << 31,
        1ull << 32, 1ull << 40,  1ull << 63,  UINT64_MAX, UINT64_MAX - 63,
        UINT32_MAX, 0x100000001, 0x200000002, 0x4000000,  0x1fffff};
    switch (below(8)) {
    case 0:
    case 1:
        return id(TFR_KIND_STREAM);
    case 2:
        return id(TFR_KIND_EVENT);
    case 3:
        return id((enum tfr_kind)below(TFR_KIND_LIMIT + 1));
    case 4:
        return below(1 << 16);
    case 5:
        return (uint64_t)below(1 << 16) << 32 | below(1 << 16);
    default:
        return words[below(sizeof words / sizeof words[0])];
    }
}

static uint16_t any_op(void)
{
    for (;;) {
        uint16_t op = (uint16_t)(1 + below(TFR_OP_LIMIT - 1));
        if (below(3))
            op = (uint16_t)(1 + below(TFR_OP_free)); /* the everyday ones */
        if (strcmp(tfr_op_name(op), "?") == 0 || (op == TFR_OP_host_map && below(20)))
            continue;
        return op;
    }
}

static void post_any(struct rogue *r)
{
    uint64_t body[BODY_MAX];
    uint32_t n = below(4) ? 2 + below(8) : below(BODY_MAX);
    for (uint32_t i = 0; i < n; i++)
        body[i] = field();
    if (n && below(2))
        body[0] = below(8); /* a slot */
    struct tfr_rec *rec = tfr_ring_reserve(&r->tx, (uint32_t)(sizeof *rec + n * 8), any_op(),
                                           (uint16_t)(below(10) ? 1 : below(40)));
    if (!rec) {
        usleep(100); /* full: it is busy, or gone */
        return;
    }
    memcpy(rec + 1, body, n * 8);
    tfr_ring_commit(&r->tx);
}

static void objects_make(struct rogue *r)
{
    for (uint32_t i = 1; i < OBJECTS; i++) {
        struct tfr_stream_new_req stream = {
            .stream = tfr_id_make(TFR_KIND_STREAM, 1, i), .word = i, .flags = i % 2};
        struct tfr_event_new_req event = {.event = tfr_id_make(TFR_KIND_EVENT, 1, i)};
        rogue_post(r, TFR_OP_stream_new, &stream.stream, sizeof stream - sizeof stream.head);
        rogue_post(r, TFR_OP_event_new, &event.event, sizeof event - sizeof event.head);
    }
}

TestSuite(any, .init = rogue_executor_start, .fini = rogue_executor_stop, .timeout = 600);

Test(any, records_kill_no_worker)
{
    for (int i = 0; i < SESSIONS; i++) {
        struct rogue r;
        rogue_attach(&r);
        rogue_context(&r);
        objects_make(&r);
        for (int k = 0; k < RECORDS && !tfr_boot_gone(&r.boot); k++)
            post_any(&r);
        rogue_leave(&r);
    }
    rogue_daemon_serves();
}

/* Good records on streams that are always full, so that most of them are kept for later; objects
 * die under them. */
Test(any, kept_records_survive_their_objects)
{
    for (int i = 0; i < SESSIONS / 2; i++) {
        struct rogue r;
        rogue_attach(&r);
        rogue_context(&r);
        objects_make(&r);
        for (int k = 0; k < RECORDS && !tfr_boot_gone(&r.boot); k++) {
            uint64_t stream = tfr_id_make(TFR_KIND_STREAM, 1, below(OBJECTS));
            uint64_t event = tfr_id_make(TFR_KIND_EVENT, 1, 1 + below(OBJECTS - 1));
            uint64_t body[6] = {stream, event};
            static const uint16_t ops[] = {TFR_OP_event_record, TFR_OP_stream_wait, TFR_OP_mark};
            rogue_post(&r, ops[below(3)], body, sizeof body);
            if (k < RECORDS - OBJECTS)
                continue;
            uint64_t ends[2][2] = {{event, 0}, {stream, 0}};
            rogue_post(&r, TFR_OP_event_free, ends[0], sizeof ends[0]);
            rogue_post(&r, TFR_OP_stream_free, ends[1], sizeof ends[1]);
            objects_make(&r); /* under the ids that have just died; others are refused */
        }
        rogue_leave(&r);
    }
    rogue_daemon_serves();
}

static struct {
    struct rogue r;
    _Atomic bool over;
} changing;

/* Every word of the ring, again and again. */
static void *change(void *arg)
{
    uint64_t *at = (uint64_t *)(void *)changing.r.tx.data, n = changing.r.tx.size / 8;
    uint64_t own = 88172645463325252ull;
    (void)arg;
    while (!atomic_load_explicit(&changing.over, memory_order_relaxed)) {
        own ^= own << 13, own ^= own >> 7, own ^= own << 17;
        volatile uint64_t *word = at + own % (n < 512 ? n : 512);
        uint64_t was = *word;
        *word = own >> 60 ? was ^ (1ull << (own >> 50 & 31)) : own;
        *word = was;
    }
    return NULL;
}

Test(any, records_that_change_while_they_are_read_kill_no_worker)
{
    for (int i = 0; i < SESSIONS / 2; i++) {
        pthread_t thread;
        rogue_attach(&changing.r);
        rogue_context(&changing.r);
        objects_make(&changing.r);
        atomic_store_explicit(&changing.over, false, memory_order_relaxed);
        cr_assert_eq(pthread_create(&thread, NULL, change, NULL), 0);
        for (int k = 0; k < RECORDS && !tfr_boot_gone(&changing.r.boot); k++) {
            uint64_t body[6] = {tfr_id_make(TFR_KIND_STREAM, 1, below(OBJECTS)),
                                tfr_id_make(TFR_KIND_EVENT, 1, 1 + below(OBJECTS - 1))};
            struct tfr_rec *rec =
                tfr_ring_reserve(&changing.r.tx, sizeof *rec + sizeof body, TFR_OP_event_record, 1);
            if (!rec)
                break;
            memcpy(rec + 1, body, sizeof body);
            tfr_ring_commit(&changing.r.tx);
        }
        atomic_store_explicit(&changing.over, true, memory_order_relaxed);
        pthread_join(thread, NULL);
        rogue_leave(&changing.r);
    }
    rogue_daemon_serves();
}
