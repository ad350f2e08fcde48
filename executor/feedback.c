/* News for the client: stream words, replies, credits, the sticky error.
 *
 * The GPU writes marks into a mirror of ours by stream value writes; whoever plays the feedback
 * role carries them to the client's page.  The words of one pass are a consistent cut: if a stream
 * is shown past a wait for an event, the event's own stream is shown past the event. */
#define TFR_LOG_PART "executor"
#include <stddef.h>
#include <stdlib.h>

#include "base/log.h"
#include "executor/out.h"
#include "executor/stat.h"

enum {
    WORDS = TFR_STREAM_SLOTS / 64,
    CUT_TRIES = 64,
    DELIVERY_LEN = 4096 /* no client of ours uses less of the lane for a copy */
};

/* ---- marks ---- */

CUresult tfr_news_ask(struct tfr_session *s, struct tfr_stream *stream, uint64_t seq)
{
    TFR_STAT_ADD(marks, 1);
    uint32_t word = stream->word;
    /* pairs with the release in tfr_text_expect */
    if (__builtin_expect(atomic_load_explicit(&s->text_expected, memory_order_acquire), 0)) {
        CUresult result = tfr_text_mark(s, stream, seq);
        if (result != CUDA_SUCCESS)
            return result;
    }
    stream->submitted++;
    /* Before the GPU can write it; pairs with the look in news_clear. */
    atomic_store_explicit(&s->asked[word], seq, memory_order_seq_cst);
    atomic_fetch_or_explicit(&s->active[word / 64], 1ull << (word % 64), memory_order_seq_cst);
    /* pairs with the fence in relief_sleep */
    if (__builtin_expect(atomic_load_explicit(&s->relief_asleep, memory_order_seq_cst), 0))
        tfr_relief_wake(s);
    return s->cu->cuStreamWriteValue64_v2(stream->real, s->mirror_gpu + word * sizeof(uint64_t),
                                          seq, 0);
}

bool tfr_news_expected(struct tfr_session *s)
{
    /* After a failure marks may never come, and nobody waits for them. */
    if (atomic_load_explicit(&s->sticky, memory_order_relaxed))
        return false;
    for (int i = 0; i < WORDS; i++)
        if (atomic_load_explicit(&s->active[i], memory_order_relaxed))
            return true;
    return atomic_load_explicit(&s->kept, memory_order_relaxed) != 0;
}

struct pass {
    uint32_t n;
    uint64_t active[WORDS]; /* the words below, as a set */
    uint32_t word[TFR_STREAM_SLOTS];
    uint64_t value[TFR_STREAM_SLOTS];
};
static struct pass pass; /* guarded by news_lock; a process has one session */

/* Reads the mirror of every active word; true: some value differs from the last reading. */
static bool pass_read(struct tfr_session *s, struct pass *p)
{
    bool moved = false;
    for (uint32_t i = 0; i < p->n; i++) {
        /* pairs with the GPU's write, which comes after the work it marks */
        uint64_t value = atomic_load_explicit(&s->mirror[p->word[i]], memory_order_acquire);
        moved |= value != p->value[i];
        p->value[i] = value;
    }
    return moved;
}

static void pass_collect(struct tfr_session *s, struct pass *p)
{
    p->n = 0;
    for (uint32_t i = 0; i < WORDS; i++) {
        uint64_t bits = atomic_load_explicit(&s->active[i], memory_order_acquire);
        p->active[i] = bits;
        for (; bits; bits &= bits - 1) {
            uint32_t word = i * 64 + (uint32_t)__builtin_ctzll(bits);
            p->word[p->n] = word;
            p->value[p->n++] = s->shown[word];
        }
    }
}

/* While the relief reads, the pump may have asked a stream for its first mark and another to wait
 * for that stream: the second may be in the pass and the first not. */
static bool pass_grown(struct tfr_session *s, const struct pass *p)
{
    for (uint32_t i = 0; i < WORDS; i++)
        if (atomic_load_explicit(&s->active[i], memory_order_acquire) & ~p->active[i])
            return true;
    return false;
}

/* The words never stand still.  Whatever a shown mark depends on has a smaller number: with nothing
 * shown beyond the lowest reading of a word that has moved since, the readings are a cut. */
static void pass_hold_back(struct tfr_session *s, struct pass *p)
{
    uint64_t lowest = UINT64_MAX;
    for (uint32_t i = 0; i < p->n; i++) {
        uint64_t later = atomic_load_explicit(&s->mirror[p->word[i]], memory_order_acquire);
        if (later != p->value[i] && p->value[i] < lowest)
            lowest = p->value[i];
    }
    for (uint32_t i = 0; i < p->n; i++)
        if (p->value[i] > lowest)
            p->value[i] = s->shown[p->word[i]];
}

/* Reads until two readings of the same words are equal: that is a cut.  False: new words keep
 * coming, show nothing. */
static bool pass_settle(struct tfr_session *s, struct pass *p)
{
    for (int i = 0; i < CUT_TRIES; i++) {
        if (pass_grown(s, p))
            pass_collect(s, p);
        else if (p->n <= 1)
            return true; /* a single word is one by itself */
        if (!pass_read(s, p) && !pass_grown(s, p))
            return true;
    }
    pass_hold_back(s, p);
    return !pass_grown(s, p);
}

/* The word shows all that was asked for; a mark asked for meanwhile sets the bit again. */
static void news_clear(struct tfr_session *s, uint32_t word, uint64_t value)
{
    uint64_t bit = 1ull << (word % 64);
    if (atomic_load_explicit(&s->asked[word], memory_order_seq_cst) != value)
        return;
    atomic_fetch_and_explicit(&s->active[word / 64], ~bit, memory_order_seq_cst);
    if (atomic_load_explicit(&s->asked[word], memory_order_seq_cst) != value)
        atomic_fetch_or_explicit(&s->active[word / 64], bit, memory_order_seq_cst);
}

static void pass_show(struct tfr_session *s, const struct pass *p)
{
    struct tfr_feedback *f = s->feedback;
    uint64_t cut = atomic_load_explicit(&f->cut, memory_order_relaxed);
    if (p->n > 1)
        tfr_out_word(s, &f->cut, cut + 1, TFR_OUT_MORE);
    for (uint32_t i = 0; i < p->n; i++) {
        uint32_t word = p->word[i];
        if (p->value[i] <= s->shown[word])
            continue;
        s->shown[word] = p->value[i];
        /* pairs with the acquire in tfr_word_reached; release also keeps it behind cut + 1 */
        tfr_out_word(s, &f->stream[word], p->value[i], p->n == 1 ? TFR_OUT_BELL : TFR_OUT_MORE);
        news_clear(s, word, p->value[i]);
    }
    if (p->n > 1)
        tfr_out_word(s, &f->cut, cut + 2, TFR_OUT_BELL);
}

/* ---- bytes before news ---- */

/* A client waits for a word before it uses those bytes of the lane again, so there are no more of
 * these than copies fit into the lane at once. */
CUresult tfr_news_deliver(struct tfr_session *s, const struct tfr_stream *stream,
                          const struct tfr_rec *rec, uint64_t place, uint64_t len)
{
    if (s->mapped)
        return CUDA_SUCCESS;
    if (atomic_load_explicit(&s->delivery_n, memory_order_relaxed) >= s->lane[0].len / DELIVERY_LEN)
        return tfr_session_bad(s, rec, "more copies on their way home than the lane holds");
    struct tfr_delivery *d = malloc(sizeof *d);
    if (!d)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *d = (struct tfr_delivery){.word = stream->word, .seq = rec->seq, .at = place, .len = len};
    atomic_fetch_add_explicit(&s->delivery_n, 1, memory_order_relaxed);
    pthread_mutex_lock(&s->deliveries_lock);
    *s->deliveries_last = d;
    s->deliveries_last = &d->next;
    pthread_mutex_unlock(&s->deliveries_lock);
    return CUDA_SUCCESS;
}

/* The pass's value of a word. */
static uint64_t pass_value(const struct pass *p, uint32_t word)
{
    for (uint32_t i = 0; i < p->n; i++)
        if (p->word[i] == word)
            return p->value[i];
    return 0;
}

/* The next copy that the pass shows as done, taken off the list. */
static struct tfr_delivery *delivery_take(struct tfr_session *s, const struct pass *p)
{
    struct tfr_delivery *found = NULL;
    pthread_mutex_lock(&s->deliveries_lock);
    for (struct tfr_delivery **at = &s->deliveries; *at && !found; at = &(*at)->next) {
        if (pass_value(p, (*at)->word) < (*at)->seq)
            continue;
        found = *at;
        *at = found->next;
        if (!found->next)
            s->deliveries_last = at;
        break;
    }
    pthread_mutex_unlock(&s->deliveries_lock);
    return found;
}

/* Everything that the words of the pass speak of leaves before them, on their channel. */
static void pass_deliver(struct tfr_session *s, const struct pass *p)
{
    struct tfr_delivery *d;
    while ((d = delivery_take(s, p))) {
        tfr_out_lane(s, d->at, d->len);
        free(d);
        atomic_fetch_sub_explicit(&s->delivery_n, 1, memory_order_relaxed);
    }
}

/* Words to show, in p; a pass that is held back for text stays as it is. */
static bool pass_find(struct tfr_session *s, struct pass *p)
{
    if (!s->holding) {
        pass_collect(s, p);
        if (!p->n || !pass_read(s, p) || !pass_settle(s, p))
            return false;
        s->holding = atomic_load_explicit(&s->text_expected, memory_order_acquire);
    }
    if (s->holding && tfr_text_hold(p->n, p->word, p->value))
        return false;
    s->holding = false;
    return true;
}

/* True: there is a pass to show. */
static bool pass_make(struct tfr_session *s, struct pass *p)
{
    if (!s->text_late && !pass_find(s, p))
        return false;
    s->text_late = !tfr_text_bring(s);
    if (s->text_late)
        return false;
    if (!s->mapped)
        pass_deliver(s, p);
    return true;
}

bool tfr_news_bring(struct tfr_session *s)
{
    struct pass *p = &pass;
    if (atomic_exchange_explicit(&s->news_lock, 1, memory_order_acquire))
        return false;
    atomic_store_explicit(&s->news_pass,
                          atomic_load_explicit(&s->news_pass, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    bool moved = pass_make(s, p);
    if (moved)
        pass_show(s, p);
    atomic_store_explicit(&s->news_lock, 0, memory_order_release);
    return moved;
}

/* ---- replies and credits ---- */

void tfr_news_reply(struct tfr_session *s, uint32_t slot, uint64_t seq, CUresult result,
                    uint32_t len)
{
    struct tfr_reply_slot *to = &s->reply[slot];
    to->result = (uint32_t)result;
    to->len = len;
    tfr_out_bytes(s, &to->result,
                  offsetof(struct tfr_reply_slot, payload) -
                      offsetof(struct tfr_reply_slot, result) + len);
    /* pairs with the acquire in run_asked */
    atomic_store_explicit(&s->answered[slot], seq, memory_order_release);
    /* pairs with the acquire in tfr_wait_word */
    tfr_out_word(s, &to->seq, seq, TFR_OUT_BELL);
}

void tfr_news_credit(struct tfr_session *s)
{
    s->rx.returned = s->rx.head;
    /* pairs with the acquire in tfr_ring_reserve */
    tfr_out_word(s, &s->feedback->ring_head, s->rx.head, TFR_OUT_QUIET);
}

void tfr_session_sticky(struct tfr_session *s, CUresult result, const struct tfr_rec *rec)
{
    const char *name = NULL;
    pthread_mutex_lock(&s->sticky_lock);
    if (!atomic_load_explicit(&s->sticky, memory_order_relaxed)) {
        if (s->cu->cuGetErrorName)
            s->cu->cuGetErrorName(result, &name);
        tfr_warn("%s answered %s (%d): every later call of this session answers it too",
                 rec ? tfr_op_table[rec->op].name : "the GPU", name ? name : "an unknown error",
                 (int)result);
        if (tfr_result_is_fatal(result))
            tfr_text_last(s);
        atomic_store_explicit(&s->sticky, (uint32_t)result, memory_order_release);
        /* pairs with the acquire in tfr_enter */
        tfr_out_word(s, &s->feedback->sticky, (uint32_t)result, TFR_OUT_BELL);
    }
    pthread_mutex_unlock(&s->sticky_lock);
}
