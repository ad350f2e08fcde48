/* Shared memory, the hot half: a put is a memcpy, and a bell is a system call only for a peer that
 * sleeps.  Called from the issue path of every record (ring), so nothing here logs while all is
 * well. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <linux/membarrier.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/counter.h"
#include "base/log.h"
#include "base/rec.h"
#include "transport/shm/shm.h"

enum { PEEK_EVERY = 256 /* progress calls between looks at the socket */ };

static struct shm_link *link_of(struct tfr_link *link)
{
    return (struct shm_link *)link;
}

static void peer_lost(struct shm_link *shm)
{
    int32_t ok = TFR_OK;

    atomic_compare_exchange_strong_explicit(&shm->error, &ok, TFR_E_PEER, memory_order_relaxed,
                                            memory_order_relaxed);
}

/* Stores before this are seen before stores after it. */
static inline void stores_in_order(void)
{
#if defined(__x86_64__)
    __asm__ __volatile__("" ::: "memory"); /* the machine keeps stores in order */
#else
    atomic_thread_fence(memory_order_release);
#endif
}

static void bytes_show(uint8_t *to, const void *from, size_t len)
{
    if (len == sizeof(uint64_t) && (uintptr_t)to % sizeof(uint64_t) == 0) {
        uint64_t word;
        memcpy(&word, from, sizeof(word));
        /* pairs with the acquire load of whoever polls the word */
        atomic_store_explicit((_Atomic uint64_t *)to, word, memory_order_release);
        return;
    }
    stores_in_order();
    memcpy(to, from, len);
}

static tfr_status xfer_check(struct shm_link *shm, const struct tfr_xfer *xfer)
{
    if (xfer->channel >= TFR_CHANNELS ||
        !tfr_span_inside(xfer->peer_at, xfer->len, xfer->peer->len))
        return tfr_fail(TFR_E_INVAL, "transfer of %zu bytes at %llu on channel %u", xfer->len,
                        (unsigned long long)xfer->peer_at, xfer->channel);
    return (tfr_status)atomic_load_explicit(&shm->error, memory_order_relaxed);
}

tfr_status shm_put(struct tfr_link *link, const struct tfr_xfer *xfer)
{
    struct shm_peer_mem *peer = (struct shm_peer_mem *)xfer->peer;
    tfr_status status = xfer_check(link_of(link), xfer);

    if (status != TFR_OK)
        return status;
    bytes_show(peer->addr + xfer->peer_at, xfer->local, xfer->len);
    if (xfer->done)
        xfer->done(xfer->arg, TFR_OK);
    if (xfer->flags & TFR_XFER_BELL)
        shm_ring(link);
    return TFR_OK;
}

tfr_status shm_get(struct tfr_link *link, const struct tfr_xfer *xfer)
{
    struct shm_peer_mem *peer = (struct shm_peer_mem *)xfer->peer;
    tfr_status status = xfer_check(link_of(link), xfer);

    if (status != TFR_OK)
        return status;
    memcpy(xfer->local, peer->addr + xfer->peer_at, xfer->len);
    if (xfer->done)
        xfer->done(xfer->arg, TFR_OK);
    return TFR_OK;
}

/* Has the peer closed its end, on purpose or by dying?  One system call. */
static void socket_look(struct shm_link *shm)
{
    char byte;
    ssize_t got = recv(shm->bell, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
        peer_lost(shm);
}

tfr_status shm_progress(struct tfr_link *link)
{
    struct shm_link *shm = link_of(link);
    uint32_t polls = atomic_load_explicit(&shm->polls, memory_order_relaxed);

    atomic_store_explicit(&shm->polls, polls + 1, memory_order_relaxed);
    if (polls % PEEK_EVERY == 0)
        socket_look(shm);
    if (atomic_load_explicit(&shm->peer->closed, memory_order_relaxed))
        peer_lost(shm);
    return (tfr_status)atomic_load_explicit(&shm->error, memory_order_relaxed);
}

bool shm_barrier(void)
{
    return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
}

/* Where the flag is still up from a sleep that ended by itself, everybody sees it: no barrier,
 * which interrupts the peer's processors, for those who nap again and again. */
tfr_status shm_arm(struct tfr_link *link, int *fd_out)
{
    struct shm_link *shm = link_of(link);
    tfr_status status = shm_progress(link);

    if (status != TFR_OK)
        return status;
    pthread_mutex_lock(&shm->lock);
    shm->armed++;
    /* pairs with the load (and, without membarrier, the read-modify-write) in shm_ring */
    if (!atomic_exchange_explicit(&shm->own->asleep, 1, memory_order_acq_rel) && shm->barrier)
        shm_barrier();
    pthread_mutex_unlock(&shm->lock);
    TFR_COUNT(sleeps, 1);
    *fd_out = shm->bell;
    return TFR_OK;
}

/* Only the last one drains: a byte that woke one thread must stay for the others that are armed.
 * The flag stays up if nobody rang; that costs the peer one bell in vain and us a barrier less. */
void shm_disarm(struct tfr_link *link)
{
    struct shm_link *shm = link_of(link);
    char bytes[64];
    ssize_t got = -1;

    pthread_mutex_lock(&shm->lock);
    if (--shm->armed == 0) {
        got = recv(shm->bell, bytes, sizeof(bytes), MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            peer_lost(shm);
    }
    pthread_mutex_unlock(&shm->lock);
}

static __attribute__((noinline, cold)) void bell_send(struct shm_link *shm)
{
    if (!atomic_exchange_explicit(&shm->peer->asleep, 0, memory_order_acq_rel))
        return; /* somebody else rang */
    TFR_COUNT(bells, 1);
    /* never blocks: a full socket means that bytes are there to be read */
    if (send(shm->bell, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)
        peer_lost(shm);
}

void shm_ring(struct tfr_link *link)
{
    struct shm_link *shm = link_of(link);
    uint32_t asleep;

    if (shm->barrier) {
        atomic_signal_fence(memory_order_seq_cst); /* the machine's part is done by shm_arm */
        asleep = atomic_load_explicit(&shm->peer->asleep, memory_order_relaxed);
    } else {
        /* a read-modify-write orders itself against the one in shm_arm: one of the two sides sees
         */
        asleep = atomic_fetch_or_explicit(&shm->peer->asleep, 0, memory_order_acq_rel);
    }
    if (__builtin_expect(asleep != 0, 0))
        bell_send(shm);
}
