/* All channels of a link at once, each from a thread of its own, in both directions, while other
 * threads call progress: what ThreadSanitizer looks at.  Bulk ends with stamps; where the transport
 * can, a thread gets back what another has put.  Usage: channels TRANSPORT [ROUNDS] */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/pair.h"

enum {
    AREA = 2 << 20,
    LIMIT_S = 220,
    BULK_LEN = 40000,
    PIECE_N = 4,
    WORD_AT = 64, /* one line per channel: the stamp, and what was seen of it */
    BULK_AT = 4096,
    FROM_AT = 512 << 10, /* behind all that is written by the peer: what is put there, */
    COPY_AT = 1 << 20,   /* and what was got back */
};

static uint64_t round_n = 300;
static _Atomic bool stop;

static _Atomic uint64_t *word_at(const struct pair_end *end, size_t at)
{
    return (void *)((char *)end->area.addr + at);
}

struct talk {
    struct pair_end *from, *to;
    uint16_t channel;
    _Atomic uint32_t done;
};

static void talk_done(void *arg, tfr_status status)
{
    struct talk *talk = arg;

    pair_need(status == TFR_OK, "transfer");
    atomic_fetch_add(&talk->done, 1);
}

static void done_wait(struct talk *talk, uint32_t n)
{
    while (atomic_load(&talk->done) < n)
        sched_yield();
    atomic_store(&talk->done, 0);
}

static void xfer_start(struct talk *talk, struct tfr_xfer *xfer, bool get)
{
    struct pair_end *end = talk->from;
    tfr_status status;

    xfer->channel = talk->channel;
    xfer->peer = end->peer;
    while ((status = get ? end->ops->get(end->link, xfer) : end->ops->put(end->link, xfer)) ==
           TFR_AGAIN)
        sched_yield();
    pair_need(status == TFR_OK, "put or get");
}

static void round_write(struct talk *talk, size_t at, uint64_t round)
{
    uint8_t *from = (uint8_t *)talk->from->area.addr + FROM_AT + at;
    struct tfr_xfer stamp = {.flags = TFR_XFER_AFTER | TFR_XFER_BELL,
                             .local = &round,
                             .peer_at = WORD_AT * (talk->channel + 1u),
                             .len = sizeof(round)};

    memset(from, (int)(round + talk->channel), BULK_LEN);
    for (size_t i = 0; i < PIECE_N; i++) {
        size_t piece = i * (BULK_LEN / PIECE_N);
        struct tfr_xfer xfer = {.flags = i % 2 ? 0 : TFR_XFER_MORE,
                                .local = from + piece,
                                .mem = talk->from->mem,
                                .peer_at = at + piece,
                                .len = BULK_LEN / PIECE_N,
                                .done = talk_done,
                                .arg = talk};
        xfer_start(talk, &xfer, false);
    }
    xfer_start(talk, &stamp, false);
    done_wait(talk, PIECE_N);
}

static void round_check(const uint8_t *bytes, const struct talk *talk, uint64_t round)
{
    for (size_t k = 0; k < BULK_LEN; k++)
        pair_need(bytes[k] == (uint8_t)(round + talk->channel), "bytes");
}

static void *talk_main(void *arg)
{
    struct talk *talk = arg;
    size_t at = BULK_AT + (size_t)talk->channel * BULK_LEN * 2;
    bool gets = talk->from->ops->caps & TFR_CAP_GET;

    for (uint64_t round = 1; round <= round_n; round++) {
        _Atomic uint64_t *seen = word_at(talk->to, WORD_AT * (talk->channel + 1u));
        uint8_t *copy = (uint8_t *)talk->from->area.addr + COPY_AT + at;
        struct tfr_xfer xfer = {.local = copy,
                                .mem = talk->from->mem,
                                .peer_at = at,
                                .len = BULK_LEN,
                                .done = talk_done,
                                .arg = talk};

        round_write(talk, at, round);
        while (atomic_load_explicit(seen, memory_order_acquire) != round)
            sched_yield();
        round_check((const uint8_t *)talk->to->area.addr + at, talk, round);
        if (!gets)
            continue;
        xfer_start(talk, &xfer, true);
        done_wait(talk, 1);
        round_check(copy, talk, round);
    }
    return NULL;
}

static void *progress_main(void *arg)
{
    struct pair_end *end = arg;

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        pair_need(end->ops->progress(end->link) == TFR_OK, "progress");
        sched_yield();
    }
    return NULL;
}

int main(int argc, char **argv)
{
    const char *transport = argc > 1 ? argv[1] : "shm";
    pthread_t talkers[2][TFR_CHANNELS], drivers[2];
    static struct talk talks[2][TFR_CHANNELS];
    struct pair_end ends[2];

    if (argc > 2)
        round_n = strtoull(argv[2], NULL, 0);
    alarm(LIMIT_S);
    pair_open_both(ends, transport, AREA);
    for (int way = 0; way < 2; way++) {
        pair_need(!pthread_create(&drivers[way], NULL, progress_main, &ends[way]), "thread");
        for (uint16_t i = 0; i < TFR_CHANNELS; i++) {
            talks[way][i].from = &ends[way];
            talks[way][i].to = &ends[!way];
            talks[way][i].channel = i;
            pair_need(!pthread_create(&talkers[way][i], NULL, talk_main, &talks[way][i]), "thread");
        }
    }
    for (int way = 0; way < 2; way++)
        for (int i = 0; i < TFR_CHANNELS; i++)
            pthread_join(talkers[way][i], NULL);
    atomic_store(&stop, true);
    for (int way = 0; way < 2; way++)
        pthread_join(drivers[way], NULL);
    pair_close(&ends[0]);
    pair_close(&ends[1]);
    printf("%s: %llu rounds\n", transport, (unsigned long long)round_n);
    return 0;
}
