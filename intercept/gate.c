/* Gates of streams: posting, finding those that are reached, opening.  Who serves them: tick.c's
 * threads, and for bytes also every thread that waits for the session.  Surprising: a gate is
 * appended to its list under the ring lock, so that lists are in the order of the ring. */
#define TFR_LOG_PART "intercept"
#include "intercept/gate.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/log.h"
#include "intercept/bulk.h"
#include "intercept/copy.h"
#include "intercept/pull.h"

_Atomic uint32_t tfr_gate_pending[TFR_GATE_WHO_LIMIT];

static pthread_mutex_t lock =
    PTHREAD_MUTEX_INITIALIZER; /* guards all below; nobody waits with it */
static struct queue {
    struct tfr_gate *first, *last;
    uint32_t running;                   /* number of the one that was taken and is not open yet */
    uint64_t opened;                    /* the last one of this session that is not early */
} queues[TFR_STREAM_SLOTS];             /* by stream word */
static uint32_t busy[TFR_STREAM_SLOTS]; /* words with gates, running ones included */
static uint32_t busy_n;
static uint32_t taken; /* so many; as a number it is never 0 */

static struct waited {
    uint32_t word;
    uint64_t seq;
} waited[TFR_STREAM_SLOTS]; /* one for each word whose stream waits for a value */
static _Atomic uint32_t waited_n;

/* Opened before the stream has got there. */
static bool is_early(const struct tfr_gate *gate)
{
    return gate->due != gate->seq - 1;
}

/* Does the gate come right behind one that is open? */
static bool is_next(const struct queue *q, const struct tfr_gate *gate)
{
    return !is_early(gate) && q->opened >= gate->seq - 1;
}

/* ---- posting ---- */

bool tfr_gate_able(const struct tfr_context *ctx)
{
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (tfr_client.snapshot->device[ctx->device]
            .attribute[CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS])
        return true;
    if (!atomic_flag_test_and_set_explicit(&said, memory_order_relaxed))
        tfr_warn("device %d cannot wait for 64-bit values: no host functions", ctx->device);
    return false;
}

/* Under the ring lock and ours. */
static void append(struct tfr_gate *gate)
{
    struct queue *q = &queues[gate->word];
    gate->next = NULL;
    if (!q->first && !q->running)
        busy[busy_n++] = gate->word;
    if (q->first)
        q->last->next = gate;
    else
        q->first = gate;
    q->last = gate;
    /* Before the threads are woken; pairs with the look in tick.c before it sleeps. */
    atomic_fetch_add_explicit(&tfr_gate_pending[gate->who], 1, memory_order_seq_cst);
}

CUresult tfr_gate_post(struct tfr_stream *stream, enum tfr_gate_who who, struct tfr_gate *gate)
{
    if (!tfr_gate_able(stream->ctx))
        return CUDA_ERROR_NOT_SUPPORTED;
    CUresult result = tfr_tick_start();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_gate_req *req = tfr_post_begin(TFR_OP_gate, sizeof *req);
    if (!req)
        return tfr_post_failed();
    if (stream->dead)
        return tfr_post_cancel(CUDA_ERROR_INVALID_HANDLE);
    uint64_t seq = req->head.seq;
    req->stream = stream->id;
    req->reserved = 0;
    gate->who = who;
    gate->word = stream->word;
    gate->seq = seq;
    gate->due = gate->due ? gate->due : seq - 1;
    gate->open = &tfr_client.page->gate[stream->word];
    gate->session = tfr_client.session_at;
    gate->mapped = tfr_client.mapped;
    if (atomic_load_explicit(&stream->mark, memory_order_relaxed) < seq - 1)
        atomic_store_explicit(&stream->mark, seq - 1, memory_order_relaxed);
    TFR_COUNT(gates, 1);
    uint32_t word = gate->word;
    uint64_t due = gate->due;
    pthread_mutex_lock(&lock);
    append(gate);
    bool next = is_next(&queues[word], gate);
    pthread_mutex_unlock(&lock);
    /* From here on the gate is ours: should the session break, `run` is told. */
    tfr_post_end_on(stream, NULL);
    tfr_tick_wake(who == TFR_GATE_CALL);
    /* The word may have been there already, and then nothing rings for it. */
    if (next || tfr_word_reached(word, due)) {
        if (who == TFR_GATE_CALL)
            tfr_tick_call();
        else
            tfr_gate_help();
    }
    return CUDA_SUCCESS;
}

static void settle_run(struct tfr_gate *gate, CUresult status)
{
    if (status == CUDA_SUCCESS)
        tfr_copy_deliver();
    free(gate);
}

CUresult tfr_gate_settle(struct tfr_stream *stream)
{
    if (!tfr_copy_owed() || !tfr_gate_able(stream->ctx))
        return CUDA_SUCCESS;
    struct tfr_gate *gate = malloc(sizeof *gate);
    if (!gate)
        return CUDA_ERROR_OUT_OF_MEMORY;
    gate->run = settle_run;
    gate->due = 0;
    CUresult result = tfr_gate_post(stream, TFR_GATE_MOVE, gate);
    if (result != CUDA_SUCCESS)
        free(gate);
    return result;
}

/* ---- serving ---- */

/* A gate of this kind at the head of its queue that is reached, or that never will be.  Under lock.
 */
static struct tfr_gate *find(enum tfr_gate_who who, CUresult *status_out)
{
    CUresult error = tfr_client_error();
    /* The program may have freed by now what a lost session was to write. */
    bool lost =
        who == TFR_GATE_MOVE && atomic_load_explicit(&tfr_client.error, memory_order_acquire);
    for (uint32_t i = 0; i < busy_n; i++) {
        const struct queue *q = &queues[busy[i]];
        struct tfr_gate *gate = q->first;
        if (!gate || q->running || gate->who != who)
            continue;
        bool reached = tfr_word_reached(gate->word, gate->due);
        /* Or all that it has to do before is to pass a gate that is open: there is no need to hear
         * of that, and functions in a row cost one round trip. */
        bool next = is_next(q, gate);
        *status_out = reached && !lost ? CUDA_SUCCESS : error;
        if (reached || next || error != CUDA_SUCCESS)
            return gate;
    }
    return NULL;
}

bool tfr_gate_due(enum tfr_gate_who who)
{
    CUresult status;
    if (!atomic_load_explicit(&tfr_gate_pending[who], memory_order_relaxed))
        return false;
    pthread_mutex_lock(&lock);
    bool due = find(who, &status) != NULL;
    pthread_mutex_unlock(&lock);
    return due;
}

/* Under lock: the first of the queue, on its way to be run. */
static struct tfr_gate *queue_take(struct queue *q, uint32_t *number_out)
{
    struct tfr_gate *gate = q->first;
    q->first = gate->next;
    taken += taken == UINT32_MAX ? 2 : 1;
    *number_out = q->running = taken;
    return gate;
}

static struct tfr_gate *take(enum tfr_gate_who who, uint32_t *number_out, CUresult *status_out)
{
    pthread_mutex_lock(&lock);
    struct tfr_gate *gate = find(who, status_out);
    if (gate)
        queue_take(&queues[gate->word], number_out);
    pthread_mutex_unlock(&lock);
    return gate;
}

/* Under lock: nothing of the queue runs any more. */
static void queue_rest(uint32_t word)
{
    queues[word].running = 0;
    if (!queues[word].first) {
        uint32_t at = 0;
        while (busy[at] != word)
            at++;
        busy[at] = busy[--busy_n];
    }
}

static void finish(const struct tfr_gate *gate, uint32_t number)
{
    struct queue *q = &queues[gate->word];
    pthread_mutex_lock(&lock);
    if (q->running == number) { /* else it has outlived its session */
        if (!is_early(gate))
            q->opened = gate->seq;
        queue_rest(gate->word);
    }
    /* pairs with the acquire in tfr_gate_writer_pending */
    atomic_fetch_sub_explicit(&tfr_gate_pending[gate->who], 1, memory_order_release);
    pthread_mutex_unlock(&lock);
}

/* The GPU sees what `run` wrote; a failed session has nobody to wait. */
static void open_up(const struct tfr_gate *gate)
{
    if (gate->mapped)
        atomic_store_explicit(gate->open, gate->seq, memory_order_release);
    else
        tfr_bulk_word(gate->open, gate->seq, tfr_bulk_channel_of(gate->word), gate->session);
}

uint32_t tfr_gate_serve(enum tfr_gate_who who, uint32_t limit)
{
    uint32_t n = 0;
    for (; n < limit; n++) {
        CUresult status;
        uint32_t number;
        struct tfr_gate *gate = take(who, &number, &status);
        if (!gate)
            break;
        const struct tfr_gate was = *gate;
        gate->run(gate, status);
        open_up(&was);
        finish(&was, number);
    }
    return n;
}

/* Application code that runs at this moment may be torn down right after us: at exit cudart's own
 * callback, say.  Not for ever: it may be endless. */
static void calls_settle(void)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_LOCK);
    uint64_t until = tfr_clock_now() + TFR_NS_PER_S;
    if (tfr_thread.calling) /* it is us */
        return;
    /* pairs with the release in finish */
    while (atomic_load_explicit(&tfr_gate_pending[TFR_GATE_CALL], memory_order_acquire) &&
           tfr_clock_now() < until)
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
}

/* One of those that nobody runs; false: there is none. */
static bool forget_one(void)
{
    struct tfr_gate *gate = NULL;
    uint32_t number = 0;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < busy_n && !gate; i++) {
        struct queue *q = &queues[busy[i]];
        if (!q->running)
            gate = queue_take(q, &number);
    }
    pthread_mutex_unlock(&lock);
    if (!gate)
        return false;
    const struct tfr_gate was = *gate;
    gate->run(gate, CUDA_ERROR_CONTEXT_IS_DESTROYED);
    finish(&was, number);
    return true;
}

/* What moves bytes on another thread at this moment sees the session's error soon, and uses what
 * is freed next; behind it there may be more.  Not for ever: a function may be ahead of them. */
static void moves_settle(void)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_LOCK);
    uint64_t until = tfr_clock_now() + TFR_NS_PER_S;
    /* pairs with the release in finish */
    while (atomic_load_explicit(&tfr_gate_pending[TFR_GATE_MOVE], memory_order_acquire) &&
           tfr_clock_now() < until)
        if (!forget_one() && tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
}

void tfr_gate_moves_end(void)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_LOCK);
    uint64_t until = tfr_clock_now() + TFR_NS_PER_S;
    /* pairs with the release in finish */
    while (atomic_load_explicit(&tfr_gate_pending[TFR_GATE_MOVE], memory_order_acquire) &&
           tfr_clock_now() < until)
        if (!tfr_gate_serve(TFR_GATE_MOVE, UINT32_MAX) && tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
}

/* Functions that outlive their session hold up no stream of the next one. */
static void running_forget(void)
{
    pthread_mutex_lock(&lock);
    for (uint32_t i = busy_n; i-- > 0;)
        queue_rest(busy[i]);
    pthread_mutex_unlock(&lock);
}

void tfr_gate_forget_all(void)
{
    while (forget_one())
        continue;
    moves_settle();
    calls_settle();
    running_forget();
    while (forget_one())
        continue;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < TFR_STREAM_SLOTS; i++)
        queues[i].opened = 0;
    pthread_mutex_unlock(&lock);
    atomic_store_explicit(&waited_n, 0, memory_order_release);
}

/* ---- who may still write host memory ---- */

void tfr_gate_value_waits(const struct tfr_stream *stream, uint64_t seq)
{
    pthread_mutex_lock(&lock);
    uint32_t n = atomic_load_explicit(&waited_n, memory_order_relaxed), at = 0;
    while (at < n && waited[at].word != stream->word)
        at++;
    if (at == n || waited[at].seq < seq)
        waited[at] = (struct waited){stream->word, seq};
    if (at == n)
        atomic_store_explicit(&waited_n, n + 1, memory_order_release);
    pthread_mutex_unlock(&lock);
}

static bool value_waits(void)
{
    if (!atomic_load_explicit(&waited_n, memory_order_acquire))
        return false;
    pthread_mutex_lock(&lock);
    uint32_t n = atomic_load_explicit(&waited_n, memory_order_relaxed);
    for (uint32_t i = 0; i < n;)
        if (tfr_word_reached(waited[i].word, waited[i].seq))
            waited[i] = waited[--n];
        else
            i++;
    atomic_store_explicit(&waited_n, n, memory_order_release);
    pthread_mutex_unlock(&lock);
    return n != 0;
}

bool tfr_gate_caller_pending(void)
{
    return atomic_load_explicit(&tfr_gate_pending[TFR_GATE_CALL], memory_order_acquire) ||
           value_waits();
}

bool tfr_gate_writer_pending(void)
{
    return tfr_gate_caller_pending() || tfr_copy_owed() || tfr_pull_brings();
}
