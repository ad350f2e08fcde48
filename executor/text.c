/* What the driver prints for kernels belongs on the client's stdout (device printf) and stderr
 * (assert).  The worker's stdout and stderr become memfds that we also have mapped: whether
 * something was printed is one load of the bytes where the next text would start.  Consumed pages
 * are given back.  Surprising: our own log goes on to the stderr that the worker was started with.
 */
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

/* One of the two. */
struct channel {
    int fd;
    const char *printed; /* the mapping of fd */
    uint64_t done;       /* bytes carried over; guarded by news_lock */
};
static struct channel out = {.fd = STDOUT_FILENO}, err = {.fd = STDERR_FILENO};

static tfr_status channel_open(struct channel *c)
{
    int fd = memfd_create("tfr-text", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)text_room) != 0)
        return tfr_fail(TFR_E_SYS, "memory for device text: %m");
    void *at = mmap(NULL, text_room, PROT_READ, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (at == MAP_FAILED)
        return tfr_fail(TFR_E_SYS, "memory for device text: %m");
    if (dup2(fd, c->fd) < 0)
        return tfr_fail(TFR_E_SYS, "a place for device text: %m");
    close(fd);
    c->printed = at;
    return TFR_OK;
}

/* What a sanitizer says is about us. */
extern void __sanitizer_set_report_fd(void *fd) __attribute__((weak));

tfr_status tfr_text_open(struct tfr_session *s)
{
    (void)s;
    int log = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (log < 0)
        return tfr_fail(TFR_E_SYS, "a descriptor for the log: %m");
    tfr_log_to(log);
    if (__sanitizer_set_report_fd)
        __sanitizer_set_report_fd((void *)(intptr_t)log);
    fflush(stdout);
    tfr_status status = channel_open(&out);
    return status == TFR_OK ? channel_open(&err) : status;
}

/* Is there text?  It may begin with zeros of its own: the bytes behind them tell. */
static bool text_there(const struct channel *c)
{
    uint64_t word;
    if (!c->printed || c->done + sizeof word > text_room)
        return false;
    memcpy(&word, c->printed + c->done, sizeof word);
    return word != 0;
}

/* Where the text that starts at `done` ends: where the next would be written. */
static uint64_t text_end(const struct channel *c, uint64_t room)
{
    off_t end = lseek(c->fd, 0, SEEK_CUR);
    uint64_t n = end > (off_t)c->done ? (uint64_t)end - c->done : 0;
    return c->done + (n < room ? n : room);
}

static void pages_give_back(int fd, uint64_t from, uint64_t to)
{
    from &= ~(page - 1);
    to &= ~(page - 1);
    if (to > from)
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from));
}

/* A ring in the client's memory, with the two words that go with it. */
struct ring {
    uint8_t *bytes;
    uint64_t size;
    _Atomic uint64_t *tail, *head;
};

static bool channel_bring(struct tfr_session *s, struct channel *c, const struct ring *r)
{
    if (!text_there(c))
        return true;
    uint64_t tail = atomic_load_explicit(r->tail, memory_order_relaxed);
    /* pairs with the release in the client's text.c; the client may lie, and hurts its own text
     * only */
    uint64_t head = atomic_load_explicit(r->head, memory_order_acquire);
    uint64_t room = tail - head <= r->size ? r->size - (tail - head) : 0;
    uint64_t from = c->done, to = text_end(c, room);
    for (uint64_t at = from; at < to;) {
        uint64_t to_at = (tail + (at - from)) % r->size;
        uint64_t n = r->size - to_at < to - at ? r->size - to_at : to - at;
        memcpy(r->bytes + to_at, c->printed + at, n);
        tfr_out_bytes(s, r->bytes + to_at, n);
        at += n;
    }
    c->done = to;
    pages_give_back(c->fd, from, to);
    /* pairs with the acquire in tfr_text_waiting */
    tfr_out_word(s, r->tail, tail + (to - from), TFR_OUT_BELL);
    return !text_there(c);
}

bool tfr_text_bring(struct tfr_session *s)
{
    if (__builtin_expect(!text_there(&out) && !text_there(&err), 1))
        return true;
    struct tfr_feedback *f = s->feedback;
    struct tfr_client_page *p = s->client_page;
    bool all =
        channel_bring(s, &out, &(struct ring){s->text, TFR_TEXT_MAX, &f->text_tail, &p->text_head});
    return channel_bring(s, &err,
                         &(struct ring){s->error_text, TFR_ERROR_TEXT_MAX, &f->error_text_tail,
                                        &p->error_text_head}) &&
           all;
}
