/* Words of the feedback page: which stream has which, and where all of them are at a moment. Called
 * by stream.c and by whoever must know what the session still has to do: frees of memory.
 * Surprising: a word is given to another stream only after its last mark was seen, so that it only
 * ever grows. */
#include "intercept/copy.h"
#include "intercept/stream.h"

static pthread_mutex_t words_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint32_t used; /* words ever handed out in this session */
    struct {
        const struct tfr_context *ctx;
        uint32_t word;
        uint64_t after; /* free once the word has reached this */
    } retired[TFR_STREAM_SLOTS];
    uint32_t retired_n;
} words; /* guarded by words_lock */
/* Whose it is; NULL: nobody's.  Written with the lock held, pairs with the acquire in
 * tfr_points_mark. */
static struct tfr_stream *_Atomic word_owner[TFR_STREAM_SLOTS];

bool tfr_word_take(uint32_t *word_out)
{
    bool found = false;
    pthread_mutex_lock(&words_lock);
    for (uint32_t i = 0; i < words.retired_n && !found; i++) {
        if (tfr_word_reached(words.retired[i].word, words.retired[i].after)) {
            *word_out = words.retired[i].word;
            words.retired[i] = words.retired[--words.retired_n];
            found = true;
        }
    }
    if (!found && words.used < TFR_STREAM_SLOTS) {
        *word_out = words.used++;
        found = true;
    }
    pthread_mutex_unlock(&words_lock);
    return found;
}

void tfr_word_retire(const struct tfr_context *ctx, uint32_t word, uint64_t after)
{
    pthread_mutex_lock(&words_lock);
    atomic_store_explicit(&word_owner[word], NULL, memory_order_relaxed);
    words.retired[words.retired_n].ctx = ctx;
    words.retired[words.retired_n].word = word;
    words.retired[words.retired_n++].after = after;
    pthread_mutex_unlock(&words_lock);
}

void tfr_word_give(struct tfr_stream *stream)
{
    pthread_mutex_lock(&words_lock);
    atomic_store_explicit(&word_owner[stream->word], stream, memory_order_release);
    pthread_mutex_unlock(&words_lock);
}

/* A destroyed stream's work that is still under way, if any: it counts as the context's. */
bool tfr_word_retired_busy(const struct tfr_context *ctx, uint32_t *word_out, uint64_t *after_out)
{
    bool busy = false;
    pthread_mutex_lock(&words_lock);
    for (uint32_t i = 0; i < words.retired_n && !busy; i++) {
        *word_out = words.retired[i].word;
        *after_out = words.retired[i].after;
        busy = words.retired[i].ctx == ctx && !tfr_word_reached(*word_out, *after_out);
    }
    pthread_mutex_unlock(&words_lock);
    return busy;
}

void tfr_word_forget_all(void)
{
    pthread_mutex_lock(&words_lock);
    while (words.used)
        atomic_store_explicit(&word_owner[--words.used], NULL, memory_order_relaxed);
    words.retired_n = 0;
    pthread_mutex_unlock(&words_lock);
}

/* ---- points ---- */

static void point_add(struct tfr_point *points, uint32_t room, uint32_t *n, struct tfr_point point)
{
    if (tfr_word_reached(point.word, point.seq))
        return;
    if (*n < room)
        points[*n] = point;
    ++*n;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint32_t tfr_points_take(struct tfr_point *points, uint32_t room, uint64_t until)
{
    uint32_t n = 0;
    pthread_mutex_lock(&words_lock);
    for (uint32_t word = 0; word < words.used; word++) {
        const struct tfr_stream *s = atomic_load_explicit(&word_owner[word], memory_order_relaxed);
        if (s)
            point_add(
                points, room, &n,
                (struct tfr_point){
                    word, least(atomic_load_explicit(&s->last, memory_order_acquire), until)});
    }
    for (uint32_t i = 0; i < words.retired_n; i++)
        point_add(points, room, &n,
                  (struct tfr_point){words.retired[i].word, least(words.retired[i].after, until)});
    pthread_mutex_unlock(&words_lock);
    return n;
}

/* A stream that is being destroyed is marked as it goes. */
CUresult tfr_points_mark(const struct tfr_point *points, uint32_t n)
{
    CUresult result = CUDA_SUCCESS;
    for (uint32_t i = 0; i < n && result == CUDA_SUCCESS; i++) {
        struct tfr_stream *stream =
            atomic_load_explicit(&word_owner[points[i].word], memory_order_acquire);
        if (!stream || tfr_word_reached(points[i].word, points[i].seq))
            continue;
        result = tfr_stream_ask_mark(stream, points[i].seq);
        if (result == CUDA_ERROR_INVALID_HANDLE)
            result = CUDA_SUCCESS;
    }
    return result;
}

CUresult tfr_points_wait(const struct tfr_point *points, uint32_t n)
{
    CUresult result = tfr_points_mark(points, n);
    for (uint32_t i = 0; i < n && result == CUDA_SUCCESS; i++)
        result = tfr_wait_word(&tfr_client.feedback->stream[points[i].word], points[i].seq,
                               TFR_WAIT_STREAM);
    if (result == CUDA_SUCCESS)
        tfr_copy_deliver();
    return result == CUDA_SUCCESS ? tfr_client_error() : result;
}
