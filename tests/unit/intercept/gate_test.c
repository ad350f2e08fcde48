/* Gates: what is served when, by whom, in which order.  The executor is the test: it reads nothing
 * and moves stream words. */
#include "intercept/gate.h"

#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "kit.h"

static struct tfr_client_page page;
static struct tfr_snapshot snapshot;
static struct tfr_context ctx;
static struct tfr_stream streams[4];
static _Atomic uint64_t ring_tail;
static int bell;
static _Atomic int arms;

static tfr_status arm(struct tfr_link *link, int *fd_out)
{
    (void)link;
    *fd_out = bell;
    arms++;
    return TFR_OK;
}

static void nothing(struct tfr_link *link)
{
    (void)link;
}

static tfr_status progress(struct tfr_link *link)
{
    (void)link;
    return TFR_OK;
}

static const struct tfr_transport_ops ops = {
    .name = "none", .arm = arm, .disarm = nothing, .ring = nothing, .progress = progress};
static struct tfr_link fake_link = {.ops = &ops};

static void set_up(void)
{
    static _Atomic uint64_t head;
    kit_lane(1 << 20);
    bell = eventfd(0, EFD_CLOEXEC);
    snapshot.device[0].attribute[CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS] = 1;
    tfr_client.snapshot = &snapshot;
    tfr_client.page = &page;
    tfr_client.link = &fake_link;
    tfr_client.tx = (struct tfr_ring_tx){.data = aligned_alloc(64, 1 << 16),
                                         .mask = (1 << 16) - 1,
                                         .size = 1 << 16,
                                         .limit = 1 << 16,
                                         .seq = 10,
                                         .remote_tail = &ring_tail,
                                         .link = &fake_link,
                                         .head = &head};
    tfr_client.open = true;
    atomic_store(&tfr_client.attached, true);
    for (uint32_t i = 0; i < 4; i++)
        streams[i] = (struct tfr_stream){.id = i + 1, .ctx = &ctx, .word = i};
}
TestSuite(gate, .init = set_up);

struct job {
    struct tfr_gate gate;
    _Atomic int runs, status;
    _Atomic bool *hold; /* runs until it is set */
};

static void run(struct tfr_gate *gate, CUresult status)
{
    struct job *job = (struct job *)gate;
    job->status = (int)status;
    while (job->hold && !*job->hold)
        usleep(100);
    job->runs++;
}

/* The number of the gate. */
static uint64_t post(int stream, enum tfr_gate_who who, struct job *job)
{
    job->gate.run = run;
    cr_assert_eq(tfr_gate_post(&streams[stream], who, &job->gate), CUDA_SUCCESS);
    return streams[stream].last;
}

/* The stream is there; the executor rings. */
static void arrive(int stream, uint64_t seq)
{
    uint64_t one = 1;
    kit_word((uint32_t)stream, seq - 1);
    cr_assert_eq(write(bell, &one, sizeof one), (ssize_t)sizeof one);
}

static bool opened(int stream, uint64_t seq)
{
    uint64_t until = tfr_clock_now() + 10 * TFR_NS_PER_S;
    while (atomic_load(&page.gate[stream]) < seq && tfr_clock_now() < until)
        usleep(200);
    return atomic_load(&page.gate[stream]) == seq;
}

Test(gate, opens_after_its_job_has_run_when_the_stream_is_there)
{
    struct job job = {.status = -1};
    uint64_t seq = post(0, TFR_GATE_MOVE, &job);
    usleep(20000);
    cr_assert_eq(job.runs, 0);
    cr_assert_eq(page.gate[0], 0);
    arrive(0, seq);
    cr_assert(opened(0, seq));
    cr_assert_eq(job.runs, 1);
    cr_assert_eq(job.status, CUDA_SUCCESS);
}

Test(gate, marks_that_cover_a_gate_are_those_behind_it)
{
    struct job job = {0};
    uint64_t seq = post(0, TFR_GATE_CALL, &job);
    cr_assert_eq(streams[0].last, seq);
    cr_assert_lt(streams[0].mark, seq);
    arrive(0, seq);
    cr_assert(opened(0, seq));
}

Test(gate, needs_no_news_when_the_stream_was_there_before)
{
    struct job job = {0};
    kit_word(1, 100);
    uint64_t seq = post(1, TFR_GATE_MOVE, &job);
    cr_assert_lt(seq, 100);
    cr_assert(opened(1, seq));
    cr_assert_eq(job.runs, 1);
}

Test(gate, opens_in_the_order_of_the_ring)
{
    struct job job[3] = {0};
    uint64_t seq[3];
    for (int i = 0; i < 3; i++) {
        seq[i] = post(0, i == 1 ? TFR_GATE_CALL : TFR_GATE_MOVE, &job[i]);
        tfr_client.tx.seq++; /* a record between */
    }
    for (int i = 0; i < 3; i++) {
        arrive(0, seq[i]);
        cr_assert(opened(0, seq[i]));
        cr_assert_eq(job[i].runs, 1);
        cr_assert_eq(i < 2 ? job[i + 1].runs : 0, 0);
    }
}

Test(gate, long_functions_delay_neither_bytes_nor_functions_of_other_streams)
{
    _Atomic bool go = false;
    struct job slow = {.hold = &go}, quick = {0}, bytes = {0};
    uint64_t slow_seq = post(0, TFR_GATE_CALL, &slow);
    uint64_t quick_seq = post(1, TFR_GATE_CALL, &quick);
    uint64_t bytes_seq = post(2, TFR_GATE_MOVE, &bytes);
    arrive(0, slow_seq);
    arrive(1, quick_seq);
    arrive(2, bytes_seq);
    cr_assert(opened(1, quick_seq));
    cr_assert(opened(2, bytes_seq));
    cr_assert_eq(slow.runs, 0);
    go = true;
    cr_assert(opened(0, slow_seq));
}

static bool never(void)
{
    return false;
}

static void *sleep_long(void *aside)
{
    tfr_wait_tick(never, 60000, aside != NULL);
    return NULL;
}

static void *lead_long(void *arg)
{
    tfr_wait_news(never, 60000);
    return arg;
}

/* Nothing tells of a function that is due when it is posted, and no thread may be free for it. */
Test(gate, the_thread_that_sees_to_functions_can_be_called_from_its_sleep, .timeout = 120)
{
    pthread_t sleeper, leader;
    uint64_t one = 1;
    tfr_client.poke = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    for (uintptr_t i = 0; i < 2; i++) {
        cr_assert_eq(pthread_create(&sleeper, NULL, sleep_long, (void *)i), 0);
        while (arms != (int)i + 1)
            usleep(200);
        tfr_wait_poke();
        pthread_join(sleeper, NULL);
    }
    cr_assert_eq(pthread_create(&leader, NULL, lead_long, NULL), 0);
    while (arms != 3)
        usleep(200);
    cr_assert_eq(pthread_create(&sleeper, NULL, sleep_long, NULL), 0);
    while (tfr_client.waiters != 2)
        usleep(200);
    for (bool over = false; !over; usleep(1000)) { /* it sleeps behind the leader, or soon */
        tfr_wait_poke();
        over = pthread_tryjoin_np(sleeper, NULL) == 0;
    }
    cr_assert_eq(arms, 3, "the leader was woken");
    cr_assert_eq(write(bell, &one, sizeof one), (ssize_t)sizeof one);
    pthread_join(leader, NULL);
}

Test(gate, tells_of_the_sessions_error)
{
    struct job job[2] = {0};
    uint64_t seq[2] = {post(0, TFR_GATE_MOVE, &job[0]), post(1, TFR_GATE_CALL, &job[1])};
    uint64_t one = 1;
    atomic_store(&kit_page.sticky, CUDA_ERROR_ILLEGAL_ADDRESS);
    cr_assert_eq(write(bell, &one, sizeof one), (ssize_t)sizeof one);
    for (int i = 0; i < 2; i++) {
        cr_assert(opened(i, seq[i]));
        cr_assert_eq(job[i].status, CUDA_ERROR_ILLEGAL_ADDRESS);
    }
}

Test(gate, gates_of_a_session_that_ends_are_told)
{
    struct job job[3] = {0};
    for (int i = 0; i < 3; i++)
        post(0, TFR_GATE_CALL, &job[i]);
    tfr_gate_forget_all();
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(job[i].runs, 1);
        cr_assert_eq(job[i].status, CUDA_ERROR_CONTEXT_IS_DESTROYED);
    }
    cr_assert_not(tfr_gate_writer_pending());
}

Test(gate, functions_and_waits_for_values_may_write_host_memory_until_they_are_over)
{
    struct job job = {0};
    cr_assert_not(tfr_gate_writer_pending());
    uint64_t seq = post(0, TFR_GATE_CALL, &job);
    cr_assert(tfr_gate_writer_pending());
    arrive(0, seq);
    cr_assert(opened(0, seq));
    for (int i = 0; i < 10000 && tfr_gate_writer_pending(); i++)
        usleep(200);
    cr_assert_not(tfr_gate_writer_pending());
    tfr_gate_value_waits(&streams[1], 50);
    tfr_gate_value_waits(&streams[2], 60);
    cr_assert(tfr_gate_writer_pending());
    kit_word(1, 50);
    cr_assert(tfr_gate_writer_pending());
    kit_word(2, 61);
    cr_assert_not(tfr_gate_writer_pending());
}

Test(gate, a_device_that_cannot_wait_is_said_no)
{
    struct job job = {.gate = {.run = run}};
    snapshot.device[0].attribute[CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS] = 0;
    cr_assert_eq(tfr_gate_post(&streams[0], TFR_GATE_CALL, &job.gate), CUDA_ERROR_NOT_SUPPORTED);
    cr_assert_eq(ring_tail, 0);
}

Test(gate, function_that_outlives_its_session_holds_up_nobody_in_the_next_one)
{
    static struct tfr_client_page next_page;
    _Atomic bool hold = false;
    struct job endless = {.status = -1, .hold = &hold}, behind = {.status = -1}, job = {0};
    arrive(0, post(0, TFR_GATE_CALL, &endless));
    while (endless.status < 0)
        usleep(200);
    post(0, TFR_GATE_CALL, &behind);
    tfr_gate_forget_all();
    cr_assert_eq(behind.runs, 1);
    cr_assert_eq(behind.status, CUDA_ERROR_CONTEXT_IS_DESTROYED);
    tfr_client.session_at++;
    tfr_client.page = &next_page;
    uint64_t seq = post(0, TFR_GATE_CALL, &job);
    arrive(0, seq);
    uint64_t until = tfr_clock_now() + 10 * TFR_NS_PER_S;
    while (next_page.gate[0] < seq && tfr_clock_now() < until)
        usleep(200);
    cr_assert_eq(next_page.gate[0], seq);
    hold = true;
    while (!endless.runs)
        usleep(200);
    usleep(20000);
    cr_assert_eq(next_page.gate[0], seq, "the old one opened a gate of the new session");
}

Test(gate, those_behind_each_other_are_run_in_a_row_without_a_word_of_the_stream)
{
    enum { N = 5 };
    static struct job job[N] = {{.status = -1}}, apart = {.status = -1}; /* apart outlives us */
    uint64_t first = post(0, TFR_GATE_CALL, &job[0]), last = first;
    for (int i = 1; i < N; i++)
        last = post(0, i == N - 1 ? TFR_GATE_MOVE : TFR_GATE_CALL, &job[i]);
    tfr_client.tx.seq++; /* a record between */
    post(0, TFR_GATE_CALL, &apart);
    arrive(0, first);
    cr_assert(opened(0, last));
    for (int i = 0; i < N; i++)
        cr_assert_eq(job[i].runs, 1);
    usleep(20000);
    cr_assert_eq(apart.runs, 0, "something lies before it that the stream may still be at");
}
