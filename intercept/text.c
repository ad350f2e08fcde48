/* What kernels print, and what the driver says on stderr (assert): the executor puts it into our
 * memory before the news that the kernel is done, and whoever waits for that news prints it on the
 * program's own stdout and stderr. */
#include <stdio.h>

#include "intercept/client.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards the order of text, and stores */
static _Atomic uint64_t taken, error_taken;

bool tfr_text_waiting(void)
{
    const struct tfr_feedback *f = tfr_client.feedback;
    /* pairs with the release in the executor's text.c */
    return atomic_load_explicit(&f->text_tail, memory_order_acquire) !=
               atomic_load_explicit(&taken, memory_order_relaxed) ||
           atomic_load_explicit(&f->error_text_tail, memory_order_acquire) !=
               atomic_load_explicit(&error_taken, memory_order_relaxed);
}

/* One ring's news, to the stream that it belongs to. */
struct ring {
    const uint8_t *bytes;
    uint64_t size, to;
    _Atomic uint64_t *taken, *head;
    FILE *file;
};

static void ring_take(const struct ring *r)
{
    uint64_t from = atomic_load_explicit(r->taken, memory_order_relaxed), to = r->to;
    /* Another session starts from zero; a tail beyond the ring is nonsense. */
    if (to < from || to - from > r->size)
        from = to;
    while (from < to) {
        uint64_t at = from % r->size;
        uint64_t n = r->size - at < to - from ? r->size - at : to - from;
        fwrite(r->bytes + at, 1, n, r->file);
        from += n;
    }
    if (r->to != atomic_load_explicit(r->taken, memory_order_relaxed))
        fflush(r->file); /* as a driver, which writes past stdio's buffer */
    if (to == atomic_load_explicit(r->taken, memory_order_relaxed))
        return;
    atomic_store_explicit(r->taken, to, memory_order_relaxed);
    /* pairs with the acquire in the executor's text.c: the ring's bytes have been read */
    tfr_page_store(r->head, to);
}

void tfr_text_take(void)
{
    if (__builtin_expect(!tfr_text_waiting(), 1))
        return;
    const struct tfr_feedback *f = tfr_client.feedback;
    struct tfr_client_page *page = tfr_client.page;
    pthread_mutex_lock(&lock);
    ring_take(&(struct ring){tfr_client.text, TFR_TEXT_MAX,
                             atomic_load_explicit(&f->text_tail, memory_order_acquire), &taken,
                             &page->text_head, stdout});
    ring_take(&(struct ring){tfr_client.error_text, TFR_ERROR_TEXT_MAX,
                             atomic_load_explicit(&f->error_text_tail, memory_order_acquire),
                             &error_taken, &page->error_text_head, stderr});
    pthread_mutex_unlock(&lock);
}
