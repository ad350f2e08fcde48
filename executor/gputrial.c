/* The trial of a lane in GPU memory.  First alone: two links of one device are joined to each
 * other, one plays the session's part and one the client's, and a pattern goes NIC -> GPU -> host
 * and back, on each channel.  Then, once the session's link is open, the same over that.
 * Surprising: every byte of it lies in memory of its own, so that what is given up cannot land in a
 * lane. */
#define TFR_LOG_PART "executor"
#include "executor/gputrial.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

enum {
    PROOF = 128 << 10,  /* bytes of the pattern */
    PROOF_MS = 10000,   /* for all transfers of a trial; a link that works ends the others itself */
    TELL_MS = 1000,     /* between words to the client, who counts silence */
    SLOW = 8,           /* times that host memory takes: rather that, then */
    SLOW_FREE_US = 100, /* what a transfer costs besides */
    ROUNDS = 16,
    LOOKS = 64, /* without a yield, which may cost a time slice */
};

/* Places in the trial's host memory. */
enum { SENT_AT = 0, SEEN_AT = PROOF, FAR_AT = 2 * PROOF, STAMP_AT = 3 * PROOF, ROOM = 4 * PROOF };
enum { NEAR, FAR }; /* ends: the session's and the client's */

struct trial {
    struct tfr_session *s;
    const struct tfr_lane *lane;
    CUstream stream;
    uint8_t *host;
    struct tfr_mem *mem; /* the same */
    struct tfr_boot boot[2];
    struct tfr_link *link[2];     /* FAR: NULL over the session's */
    struct tfr_peer_mem *page[2]; /* where each end may write host memory */
    uint64_t page_at;
    struct tfr_peer_mem *gpu; /* the lane, for FAR */
    uint16_t channel;
    uint64_t until_ns, told_ns, stamp;
    uint32_t looks;
    _Atomic int done; /* 0: not yet, 1, -1: it failed */
};
static struct trial trial; /* what is never done may still be written to, after a trial */

/* ---- transfers ---- */

/* While it waits to be told of a transport, or that we are ready. */
static void queued_tell(struct trial *t, uint64_t now)
{
    struct tfr_queued queued = {0};
    struct tfr_boot_msg msg = {.type = TFR_BOOT_QUEUED, .len = sizeof queued, .body = &queued};
    if (t->told_ns && now - t->told_ns < TELL_MS * TFR_NS_PER_MS)
        return;
    t->told_ns = now;
    tfr_boot_send(&t->s->boot, &msg, TELL_MS);
}

static bool drive(struct trial *t)
{
    uint64_t now = tfr_clock_now();
    bool alive = now < t->until_ns;
    queued_tell(t, now);
    for (int i = NEAR; i <= FAR; i++)
        if (t->link[i] && t->link[i]->ops->progress(t->link[i]) != TFR_OK)
            alive = false;
    if (++t->looks % LOOKS == 0)
        sched_yield();
    return alive;
}

static void moved(void *arg, tfr_status status)
{
    atomic_store_explicit((_Atomic int *)arg, status == TFR_OK ? 1 : -1, memory_order_release);
}

static bool settle(struct trial *t)
{
    int done;
    while (!(done = atomic_load_explicit(&t->done, memory_order_acquire)))
        if (!drive(t))
            return false;
    return done > 0;
}

static bool move(struct trial *t, int end, bool get, struct tfr_xfer xfer)
{
    struct tfr_link *link = t->link[end];
    tfr_status status;
    xfer.channel = t->channel;
    xfer.done = moved;
    xfer.arg = &t->done;
    atomic_store_explicit(&t->done, 0, memory_order_relaxed);
    while ((status = get ? link->ops->get(link, &xfer) : link->ops->put(link, &xfer)) == TFR_AGAIN)
        if (!drive(t))
            return false;
    return status == TFR_OK && settle(t);
}

/* Between host memory of the trial and what an end may write to. */
static bool move_host(struct trial *t, int end, bool get, uint64_t at, struct tfr_peer_mem *peer,
                      uint64_t peer_at)
{
    return move(
        t, end, get,
        (struct tfr_xfer){
            .local = t->host + at, .mem = t->mem, .peer = peer, .peer_at = peer_at, .len = PROOF});
}

/* The session's end moves between the lane and what it may write to. */
static bool move_gpu(struct trial *t, bool get, uint64_t peer_at)
{
    return move(t, NEAR, get,
                (struct tfr_xfer){.local = (void *)t->lane->gpu,
                                  .mem = t->lane->mem,
                                  .peer = t->page[NEAR],
                                  .peer_at = peer_at,
                                  .len = PROOF});
}

/* What the end has put is there. */
static bool arrived(struct trial *t, int end)
{
    _Atomic uint64_t *word = (_Atomic uint64_t *)(t->host + STAMP_AT);
    uint64_t stamp = ++t->stamp;
    if (!move(t, end, false,
              (struct tfr_xfer){.flags = TFR_XFER_AFTER,
                                .local = &stamp,
                                .peer = t->page[end],
                                .peer_at = STAMP_AT,
                                .len = sizeof stamp}))
        return false;
    while (atomic_load_explicit(word, memory_order_acquire) != stamp) /* pairs with the put */
        if (!drive(t))
            return false;
    return true;
}

static bool land(struct trial *t)
{
    struct tfr_landing landing = {
        .mem = t->lane->mem, .len = PROOF, .done = moved, .arg = &t->done};
    struct tfr_link *link = t->link[NEAR];
    tfr_status status;
    atomic_store_explicit(&t->done, 0, memory_order_relaxed);
    while ((status = link->ops->land(link, &landing)) == TFR_AGAIN)
        if (!drive(t))
            return false;
    return status == TFR_OK && settle(t);
}

/* ---- what is tried ---- */

static void pattern(struct trial *t, uint32_t seed)
{
    uint8_t *sent = t->host + SENT_AT;
    for (uint32_t i = 0; i < PROOF; i++)
        sent[i] = (uint8_t)((i * 2654435761u + seed + t->channel) >> 13);
    memset(t->host + SEEN_AT, 0, PROOF);
    memset(t->host + FAR_AT, 0, PROOF);
}

static bool same(const struct trial *t, uint64_t at)
{
    return memcmp(t->host + SENT_AT, t->host + at, PROOF) == 0;
}

/* What the GPU reads must be what the NIC wrote, which has arrived. */
static const char *gpu_look(struct trial *t)
{
    const struct tfr_cu *cu = t->s->cu;
    if (!land(t))
        return "what the NIC writes cannot be flushed";
    if (cu->cuMemcpyDtoHAsync_v2(t->host + SEEN_AT, t->lane->gpu, PROOF, t->stream) !=
            CUDA_SUCCESS ||
        cu->cuStreamSynchronize(t->stream) != CUDA_SUCCESS)
        return "the GPU does not copy out of it";
    return same(t, SEEN_AT) ? NULL : "the GPU does not see what the NIC has written";
}

static bool gpu_fill(struct trial *t)
{
    const struct tfr_cu *cu = t->s->cu;
    pattern(t, 2 << 20);
    return cu->cuMemcpyHtoDAsync_v2(t->lane->gpu, t->host + SENT_AT, PROOF, t->stream) ==
               CUDA_SUCCESS &&
           cu->cuStreamSynchronize(t->stream) == CUDA_SUCCESS;
}

/* Client -> GPU. */
static const char *alone_in(struct trial *t)
{
    pattern(t, 1 << 20);
    if (!move_host(t, FAR, false, SENT_AT, t->gpu, 0) || !arrived(t, FAR))
        return "the NIC does not write GPU memory";
    return gpu_look(t);
}

/* GPU -> client: put by us, and fetched by it. */
static const char *alone_out(struct trial *t)
{
    if (!gpu_fill(t))
        return "the GPU does not copy into it";
    if (!move_gpu(t, false, FAR_AT) || !arrived(t, NEAR) ||
        !move_host(t, FAR, true, SEEN_AT, t->gpu, 0))
        return "the NIC does not read GPU memory";
    return same(t, FAR_AT) && same(t, SEEN_AT) ? NULL
                                               : "the NIC does not see what the GPU has written";
}

/* The best of several rounds, more of them while it looks bad: a busy machine is no slow NIC.  They
 * do not simply take turns, since a scheduler between two threads may, too. */
static const char *alone_speed(struct trial *t)
{
    uint64_t best[2] = {UINT64_MAX, UINT64_MAX};
    bool slow = true;
    for (int i = 0; i < 2 * ROUNDS && (slow || i < 4); i++) {
        int gpu = __builtin_parity((unsigned)i);
        uint64_t begin = tfr_clock_now();
        if (!move_host(t, FAR, false, SENT_AT, gpu ? t->gpu : t->page[FAR], gpu ? 0 : FAR_AT) ||
            !arrived(t, FAR))
            return "the NIC does not write GPU memory";
        uint64_t took = tfr_clock_now() - begin;
        best[gpu] = took < best[gpu] ? took : best[gpu];
        slow = best[1] > SLOW * (best[0] + SLOW_FREE_US * TFR_NS_PER_US);
    }
    tfr_info("%d KiB by the NIC: %.1f us into host memory, %.1f us into GPU memory", PROOF >> 10,
             (double)best[0] / 1e3, (double)best[1] / 1e3);
    return slow ? "the NIC reaches GPU memory more slowly than host memory" : NULL;
}

static const char *alone_all(struct trial *t)
{
    const char *why = NULL;
    for (t->channel = 1; t->channel < TFR_CHANNELS && !why; t->channel++) {
        why = alone_in(t);
        why = why ? why : alone_out(t);
    }
    t->channel = 1;
    return why ? why : alone_speed(t);
}

static const char *session_all(struct trial *t)
{
    pattern(t, 1 << 20);
    if (!move_host(t, NEAR, false, SENT_AT, t->page[NEAR], t->page_at) ||
        !move_gpu(t, true, t->page_at))
        return "the NIC does not write GPU memory";
    const char *why = gpu_look(t);
    if (why)
        return why;
    if (!gpu_fill(t))
        return "the GPU does not copy into it";
    if (!move_gpu(t, false, t->page_at) ||
        !move_host(t, NEAR, true, SEEN_AT, t->page[NEAR], t->page_at))
        return "the NIC does not read GPU memory";
    return same(t, SEEN_AT) ? NULL : "the NIC does not see what the GPU has written";
}

/* ---- set-up ---- */

static bool host_make(struct trial *t)
{
    struct tfr_area area = {.kind = TFR_AREA_HOST, .len = ROOM, .fd = -1, .shown = true};
    area.addr = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area.addr == MAP_FAILED)
        return false;
    t->host = area.addr;
    if (t->s->dev->ops->reg(t->s->dev, &area, &t->mem) == TFR_OK &&
        t->s->cu->cuStreamCreate(&t->stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS)
        return true;
    if (t->mem)
        t->s->dev->ops->unreg(t->mem);
    munmap(t->host, ROOM);
    return false;
}

static void host_free(struct trial *t)
{
    t->s->cu->cuStreamDestroy_v2(t->stream);
    t->s->dev->ops->unreg(t->mem);
    munmap(t->host, ROOM);
}

static struct tfr_key key_of(const struct tfr_mem *mem)
{
    struct tfr_key key;
    mem->ops->key(mem, &key);
    if (key.fd >= 0)
        key.fd = fcntl(key.fd, F_DUPFD_CLOEXEC, 0); /* import takes it */
    return key;
}

struct end {
    struct trial *t;
    int at;
    tfr_status status;
};

static void *end_open(void *arg)
{
    struct end *end = arg;
    struct trial *t = end->t;
    struct tfr_key key = key_of(t->mem);
    char why[TFR_WAYS_TEXT];
    end->status = tfr_ways_open(t->s->dev, &t->boot[end->at], end->at == FAR, &key,
                                &t->link[end->at], &t->page[end->at], why);
    return NULL;
}

static void end_close(struct trial *t, int at)
{
    t->page[at]->ops->forget(t->page[at]);
    t->link[at]->ops->close(t->link[at]);
}

static bool ends_open(struct trial *t)
{
    struct end ends[2] = {{.t = t, .at = NEAR}, {.t = t, .at = FAR}};
    pthread_t thread;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    for (int i = NEAR; i <= FAR; i++)
        t->boot[i] = (struct tfr_boot){.fd = pair[i]};
    if (pthread_create(&thread, NULL, end_open, &ends[FAR]) == 0) {
        end_open(&ends[NEAR]);
        pthread_join(thread, NULL);
        if (ends[NEAR].status == TFR_OK && ends[FAR].status == TFR_OK)
            return true;
    }
    for (int i = NEAR; i <= FAR; i++) {
        if (t->link[i] && ends[i].status == TFR_OK)
            end_close(t, i);
        tfr_boot_close(&t->boot[i]);
    }
    return false;
}

/* Whatever was under way has ended then. */
static void ends_close(struct trial *t)
{
    if (t->gpu)
        t->gpu->ops->forget(t->gpu);
    end_close(t, NEAR);
    t->link[FAR]->ops->progress(t->link[FAR]); /* hears of it */
    end_close(t, FAR);
    for (int i = NEAR; i <= FAR; i++)
        tfr_boot_close(&t->boot[i]);
}

const char *tfr_gputrial_alone(struct tfr_session *s, const struct tfr_lane *lane)
{
    struct trial *t = &trial;
    const char *why = NULL;
    *t = (struct trial){.s = s, .lane = lane};
    if (lane->len < PROOF)
        return "it is too small";
    if (!host_make(t))
        return "there is no memory to try it with";
    queued_tell(t, tfr_clock_now());
    if (ends_open(t)) {
        struct tfr_key key = key_of(lane->mem);
        t->until_ns = tfr_clock_now() + PROOF_MS * TFR_NS_PER_MS;
        bool shown = t->link[FAR]->ops->import(t->link[FAR], &key, &t->gpu) == TFR_OK;
        why = shown ? alone_all(t) : "its key is not taken";
        ends_close(t);
    } else {
        tfr_info("the NIC does not talk to itself: GPU memory is tried with the session's link");
    }
    host_free(t);
    return why;
}

tfr_status tfr_gputrial_session(struct tfr_session *s, const struct tfr_lane *lane,
                                const char **why_out)
{
    struct trial *t = &trial;
    *t = (struct trial){.s = s,
                        .lane = lane,
                        .link = {s->link},
                        .page = {s->page},
                        .page_at = lane->peer_at,
                        .channel = 1};
    *why_out = "the client has no room";
    if (lane->peer_len < PROOF)
        return TFR_OK;
    *why_out = "there is no memory to try it with";
    if (!host_make(t))
        return TFR_OK;
    t->told_ns = tfr_clock_now();
    t->until_ns = t->told_ns + PROOF_MS * TFR_NS_PER_MS;
    *why_out = session_all(t);
    if (*why_out && (s->link->ops->progress(s->link) != TFR_OK || tfr_clock_now() >= t->until_ns))
        return TFR_E_PEER;
    host_free(t);
    return TFR_OK;
}

void tfr_gputrial_forget(void)
{
    host_free(&trial);
}
