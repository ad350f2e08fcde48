/* Text in time: a driver hands on what kernels printed at its own synchronisations only.  Once an
 * image that may print has been loaded, each mark has an event before it, and before the client is
 * shown what a pass has read, a thread of ours synchronises with events that are passed by then.
 * Sessions without such an image pay one load per mark and pass.
 *
 * Surprising: it must not be a synchronisation with streams, since what they wait for may be the
 * very news that is held back.  Nor is a driver waited for that takes its time though the events
 * are passed: a call that it blocks while it holds its locks may wait for that news, too. */
#define TFR_LOG_PART "executor"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/relax.h"
#include "executor/session.h"

enum {
    SLOTS = 3,     /* one being waited for, the oldest that is not, and the newest */
    HOLD_MS = 500, /* so long news waits for text, once our thread is at it */
    STEP_MS = 50,  /* the most that counts between two looks: we may have been stopped */
};

enum slot_state { FREE, RECORDING, OUT, BUSY };

/* Events of one stream word; they belong to the context that the word's stream is in. */
struct marks {
    uint16_t ctx;
    uint64_t life;
    struct slot {
        enum slot_state state;
        CUevent event;
        uint64_t seq;
    } slot[SLOTS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all below; never over a call */
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static struct marks *words; /* by stream word; from the first image that prints */

/* The pass that is held back: a copy, as its owner may not wait for us.  LATE: it has gone ahead.
 */
static enum { IDLE, ASKED, DONE, LATE } request;
static bool taken; /* our thread has seen it: what takes time now is the driver */
static uint64_t looked_ns, held_ns;
static uint32_t request_n;
static uint32_t request_word[TFR_STREAM_SLOTS];
static uint64_t request_value[TFR_STREAM_SLOTS];

/* ---- events ---- */

/* With the lock held: where the next event goes; NULL: nowhere, an older one will have to do. */
static struct slot *slot_choose(struct marks *m)
{
    struct slot *newest = NULL;
    for (int i = 0; i < SLOTS; i++) {
        struct slot *slot = &m->slot[i];
        if (slot->state == FREE)
            return slot;
        if (slot->state == OUT && (!newest || slot->seq > newest->seq))
            newest = slot;
    }
    return newest;
}

CUresult tfr_text_mark(struct tfr_session *s, const struct tfr_stream *stream, uint64_t seq)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    struct marks *m = &words[stream->word];
    if (m->ctx != stream->ctx || m->life != s->ctx_life[stream->ctx]) /* they died with it */
        *m = (struct marks){.ctx = stream->ctx, .life = s->ctx_life[stream->ctx]};
    struct slot *slot = slot_choose(m);
    CUevent event = slot ? slot->event : NULL;
    if (slot)
        slot->state = RECORDING;
    pthread_mutex_unlock(&lock);
    if (!slot)
        return CUDA_SUCCESS;
    if (!event)
        result = s->cu->cuEventCreate(&event, CU_EVENT_DISABLE_TIMING);
    if (result == CUDA_SUCCESS)
        result = s->cu->cuEventRecord(event, stream->real);
    pthread_mutex_lock(&lock);
    slot->event = event;
    slot->seq = seq;
    slot->state = result == CUDA_SUCCESS ? OUT : FREE;
    pthread_mutex_unlock(&lock);
    return result;
}

/* The newest event that a stream has passed which shows this value; it becomes busy. */
static struct slot *slot_passed(struct marks *m, uint64_t value)
{
    struct slot *passed = NULL;
    for (int i = 0; i < SLOTS; i++) {
        struct slot *slot = &m->slot[i];
        if (slot->state == OUT && slot->seq <= value && (!passed || slot->seq > passed->seq))
            passed = slot;
    }
    if (passed)
        passed->state = BUSY;
    return passed;
}

/* Of one word.  An error is the watch's to find. */
static void word_sync(struct tfr_session *s, uint32_t word, uint64_t value)
{
    pthread_mutex_lock(&lock);
    struct marks *m = &words[word];
    struct slot *slot = slot_passed(m, value);
    CUevent event = slot ? slot->event : NULL;
    uint16_t ctx = m->ctx;
    uint64_t life = m->life;
    pthread_mutex_unlock(&lock);
    if (!slot)
        return;
    pthread_mutex_lock(&s->ctx_lock); /* it is not destroyed meanwhile */
    if (life == s->ctx_life[ctx] && tfr_session_enter(s, (uint16_t)(ctx + 1)) == CUDA_SUCCESS)
        s->cu->cuEventSynchronize(event);
    pthread_mutex_unlock(&s->ctx_lock);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < SLOTS && m->life == life; i++)
        if (&m->slot[i] == slot || (m->slot[i].state == OUT && m->slot[i].seq <= value))
            m->slot[i].state = FREE;
    pthread_mutex_unlock(&lock);
}

/* ---- the thread ---- */

static void *text_main(void *arg)
{
    struct tfr_session *s = arg;
    prctl(PR_SET_NAME, "tfr-text");
    for (;;) {
        pthread_mutex_lock(&lock);
        while (request != ASKED && request != LATE)
            pthread_cond_wait(&wake, &lock);
        taken = true;
        pthread_mutex_unlock(&lock);
        for (uint32_t i = 0; i < request_n; i++)
            word_sync(s, request_word[i], request_value[i]);
        fflush(stdout); /* the driver's text may be in there: it is one libc */
        pthread_mutex_lock(&lock);
        request = request == LATE ? IDLE : DONE;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

void tfr_text_expect(struct tfr_session *s)
{
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    pthread_t thread;
    pthread_mutex_lock(&once);
    if (!atomic_load_explicit(&s->text_expected, memory_order_relaxed)) {
        struct marks *made = calloc(TFR_STREAM_SLOTS, sizeof *made);
        bool able = made != NULL;
        if (able) {
            words = made;
            able = pthread_create(&thread, NULL, text_main, s) == 0;
        }
        if (able) /* pairs with the loads of those who call tfr_text_mark and _hold */
            atomic_store_explicit(&s->text_expected, 1, memory_order_release);
        else
            tfr_warn("no thread for device text: it may come late");
    }
    pthread_mutex_unlock(&once);
}

/* With the lock held.  A thread that gets no core is no driver that is busy: text that came late
 * for it would be in the wrong order. */
static bool held_too_long(void)
{
    uint64_t now = tfr_clock_now(), step = now - looked_ns;
    looked_ns = now;
    if (taken)
        held_ns += step < STEP_MS * TFR_NS_PER_MS ? step : STEP_MS * TFR_NS_PER_MS;
    return held_ns >= HOLD_MS * TFR_NS_PER_MS;
}

bool tfr_text_hold(uint32_t n, const uint32_t *word, const uint64_t *value)
{
    bool hold = true;
    pthread_mutex_lock(&lock);
    switch (request) {
    case IDLE:
        memcpy(request_word, word, n * sizeof *word);
        memcpy(request_value, value, n * sizeof *value);
        request_n = n;
        request = ASKED;
        taken = false;
        looked_ns = tfr_clock_now();
        held_ns = 0;
        pthread_cond_signal(&wake);
        break;
    case ASKED:
        if (!held_too_long())
            break;
        request = LATE;
        hold = false;
        tfr_info("the driver is busy: text of kernels may come late");
        break;
    case LATE:
        hold = false;
        break;
    case DONE:
        request = IDLE;
        hold = false;
        break;
    }
    pthread_mutex_unlock(&lock);
    return hold;
}

/* ---- which images print ---- */

static bool names_printf(const uint8_t *bytes, uint64_t len)
{
    return memmem(bytes, len, "vprintf", 7) || memmem(bytes, len, "__assertfail", 12);
}

/* Are all entries of the fatbin at `bytes` compressed?  *len_out: how long it is; 0: it is none. */
static bool fatbin_is_dark(const uint8_t *bytes, uint64_t len, uint64_t *len_out)
{
    struct {
        uint32_t magic;
        uint16_t version, header_len;
        uint64_t body_len;
    } head;
    struct {
        uint16_t kind, version;
        uint32_t header_len;
        uint64_t len, skipped[3], flags;
    } entry;
    static const uint64_t packed = 0x2000 | 0x8000;
    bool dark = false, plain = false;
    *len_out = 0;
    if (len < sizeof head)
        return false;
    memcpy(&head, bytes, sizeof head);
    if (head.magic != 0xba55ed50u || !tfr_span_inside(head.header_len, head.body_len, len))
        return false;
    *len_out = head.header_len + head.body_len;
    for (uint64_t at = head.header_len; tfr_span_inside(at, sizeof entry, *len_out);) {
        memcpy(&entry, bytes + at, sizeof entry);
        if (entry.header_len < sizeof entry || entry.len > *len_out)
            break;
        dark |= (entry.flags & packed) != 0;
        plain |= !(entry.flags & packed);
        at += entry.header_len + entry.len;
    }
    return dark && !plain;
}

/* What nvcc stores is machine code and, compressed or not, the text that it came from: one of them
 * in plain sight tells of both.  Nothing in plain sight: it may print. */
bool tfr_text_image_prints(const uint8_t *bytes, uint64_t len)
{
    if (names_printf(bytes, len))
        return true;
    for (uint64_t n; len; bytes += n, len -= n) {
        if (fatbin_is_dark(bytes, len, &n))
            return true;
        if (!n)
            break;
    }
    return false;
}

/* ---- the last words ---- */

void tfr_text_last(struct tfr_session *s)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_LOCK);
    /* In a dead context this waits for nothing: it lets the driver say what it has to say.  The
     * fault may be another's: a live one would keep us for as long as it has work. */
    if (tfr_result_is_fatal(s->cu->cuStreamQuery(CU_STREAM_LEGACY)))
        s->cu->cuCtxSynchronize();
    fflush(stdout);
    while (atomic_exchange_explicit(&s->news_lock, 1, memory_order_acquire))
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
    tfr_text_bring(s);
    atomic_store_explicit(&s->news_lock, 0, memory_order_release);
}
