/* What a client may say of gates and values without harm to anybody but itself. */
#include <criterion/criterion.h>
#include <unistd.h>

#include "base/clock.h"
#include "rogue.h"
#include "tfr_ops.h"

TestSuite(hostile_gate, .init = rogue_executor_start, .fini = rogue_executor_stop, .timeout = 240);

struct batch {
    struct tfr_values_req req;
    struct tfr_value_op op[2];
};

static void batch_ends_it(struct batch *batch, uint32_t len)
{
    struct rogue r;
    rogue_attach(&r);
    batch->req.stream = rogue_context(&r);
    rogue_post(&r, TFR_OP_values, &batch->req.stream, len);
    cr_assert(rogue_ends(&r));
    rogue_daemon_serves();
}

Test(hostile_gate, more_values_than_the_record_holds_end_the_session)
{
    static const uint32_t many[] = {3, TFR_VALUES_MAX, TFR_VALUES_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++) {
        struct batch batch = {.req.n = many[i]};
        batch_ends_it(&batch, sizeof batch - sizeof batch.req.head);
    }
}

static bool sticky_becomes(struct rogue *r, CUresult want)
{
    uint64_t until = tfr_clock_now() + ROGUE_LIMIT_NS;
    uint64_t got = 0;
    while (!got && tfr_clock_now() < until)
        got = atomic_load_explicit(&rogue_page(r)->sticky, memory_order_acquire);
    return got == want;
}

Test(hostile_gate, unknown_operations_and_streams_are_errors_of_the_session_only)
{
    struct rogue r;
    struct batch batch = {.req.n = 1, .op[0].op = 99};
    rogue_attach(&r);
    batch.req.stream = rogue_context(&r);
    rogue_post(&r, TFR_OP_values, &batch.req.stream, sizeof batch - sizeof batch.req.head);
    cr_assert(sticky_becomes(&r, CUDA_ERROR_INVALID_VALUE));

    struct tfr_gate_req gate = {.stream = tfr_id_make(TFR_KIND_STREAM, 1, 77)};
    rogue_attach(&r);
    rogue_context(&r);
    rogue_post(&r, TFR_OP_gate, &gate.stream, sizeof gate - sizeof gate.head);
    cr_assert(sticky_becomes(&r, CUDA_ERROR_INVALID_HANDLE));
    rogue_daemon_serves();
}

/* The next client finds everything as it was. */
Test(hostile_gate, client_that_never_opens_its_gate_keeps_nobody)
{
    struct rogue r;
    rogue_attach(&r);
    struct tfr_gate_req gate = {.stream = rogue_context(&r)};
    rogue_post(&r, TFR_OP_gate, &gate.stream, sizeof gate - sizeof gate.head);
    uint64_t until = tfr_clock_now() + ROGUE_LIMIT_NS, seq = r.tx.seq;
    _Atomic uint64_t *word = &rogue_page(&r)->stream[0];
    while (atomic_load_explicit(word, memory_order_acquire) < seq - 1)
        cr_assert_lt(tfr_clock_now(), until, "the stream got to the gate");
    for (int i = 0; i < 3000; i++)
        if (i % 3 == 0)
            rogue_post(&r, TFR_OP_gate, &gate.stream, sizeof gate - sizeof gate.head);
        else
            rogue_post(&r, TFR_OP_mark, &gate.stream, sizeof gate - sizeof gate.head);
    cr_assert_lt(atomic_load_explicit(word, memory_order_acquire), seq);
    tfr_boot_close(&r.boot);
    rogue_daemon_serves();
}
