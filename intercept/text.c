/* What kernels print: the executor puts it into our memory before the news that the kernel is done,
 * and whoever waits for that news prints it on the program's own stdout. */
#include <stdio.h>

#include "intercept/client.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards taken and the order of text */
static _Atomic uint64_t taken;

bool tfr_text_waiting(void)
{
    /* pairs with the release in the executor's text.c */
    return atomic_load_explicit(&tfr_client.feedback->text_tail, memory_order_acquire) !=
           atomic_load_explicit(&taken, memory_order_relaxed);
}

void tfr_text_take(void)
{
    if (__builtin_expect(!tfr_text_waiting(), 1))
        return;
    pthread_mutex_lock(&lock);
    uint64_t from = atomic_load_explicit(&taken, memory_order_relaxed);
    uint64_t to = atomic_load_explicit(&tfr_client.feedback->text_tail, memory_order_acquire);
    /* Another session starts from zero; a tail beyond the ring is nonsense. */
    if (to < from || to - from > TFR_TEXT_MAX)
        from = to;
    while (from < to) {
        uint64_t at = from % TFR_TEXT_MAX;
        uint64_t n = TFR_TEXT_MAX - at < to - from ? TFR_TEXT_MAX - at : to - from;
        fwrite(tfr_client.text + at, 1, n, stdout);
        from += n;
    }
    atomic_store_explicit(&taken, to, memory_order_relaxed);
    /* pairs with the acquire in the executor's text.c: the ring's bytes have been read */
    tfr_page_store(&tfr_client.page->text_head, to);
    pthread_mutex_unlock(&lock);
}
