/* What the driver prints for kernels (device printf, assert) belongs on the client's stdout.
 * The worker's stdout becomes a memfd that we also have mapped: whether something was printed is
 * one load of the bytes where the next text would start.  Consumed pages are given back. */
#define TFR_LOG_PART "executor"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "executor/out.h"

/* Sparse: costs what is printed and not yet taken. */
static const uint64_t text_room = 1ull << 32;
static const uint64_t page = 4096;

static const char *printed; /* the mapping of stdout */
static uint64_t done;       /* bytes carried over; guarded by news_lock */

tfr_status tfr_text_open(struct tfr_session *s)
{
    (void)s;
    int fd = memfd_create("tfr-text", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)text_room) != 0)
        return tfr_fail(TFR_E_SYS, "memory for device text: %m");
    void *at = mmap(NULL, text_room, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED)
        return tfr_fail(TFR_E_SYS, "memory for device text: %m");
    fflush(stdout);
    if (dup2(fd, STDOUT_FILENO) < 0)
        return tfr_fail(TFR_E_SYS, "stdout for device text: %m");
    close(fd);
    printed = at;
    return TFR_OK;
}

/* Is there text?  It may begin with zeros of its own: the bytes behind them tell. */
static bool text_there(void)
{
    uint64_t word;
    if (!printed || done + sizeof word > text_room)
        return false;
    memcpy(&word, printed + done, sizeof word);
    return word != 0;
}

/* Where the text that starts at `done` ends: where the next would be written. */
static uint64_t text_end(uint64_t room)
{
    off_t end = lseek(STDOUT_FILENO, 0, SEEK_CUR);
    uint64_t n = end > (off_t)done ? (uint64_t)end - done : 0;
    return done + (n < room ? n : room);
}

static void pages_give_back(uint64_t from, uint64_t to)
{
    from &= ~(page - 1);
    to &= ~(page - 1);
    if (to > from)
        fallocate(STDOUT_FILENO, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from,
                  (off_t)(to - from));
}

bool tfr_text_bring(struct tfr_session *s)
{
    if (__builtin_expect(!text_there(), 1))
        return true;
    uint64_t tail = atomic_load_explicit(&s->feedback->text_tail, memory_order_relaxed);
    /* pairs with the release in the client's text.c; the client may lie, and hurts its own text
     * only */
    uint64_t head = atomic_load_explicit(&s->client_page->text_head, memory_order_acquire);
    uint64_t room = tail - head <= TFR_TEXT_MAX ? TFR_TEXT_MAX - (tail - head) : 0;
    uint64_t from = done, to = text_end(room);
    for (uint64_t at = from; at < to;) {
        uint64_t ring = (tail + (at - from)) % TFR_TEXT_MAX;
        uint64_t n = TFR_TEXT_MAX - ring < to - at ? TFR_TEXT_MAX - ring : to - at;
        memcpy(s->text + ring, printed + at, n);
        tfr_out_bytes(s, s->text + ring, n);
        at += n;
    }
    done = to;
    pages_give_back(from, to);
    /* pairs with the acquire in tfr_text_waiting */
    tfr_out_word(s, &s->feedback->text_tail, tail + (to - from), true);
    return !text_there();
}
