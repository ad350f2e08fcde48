/* Two processes move records over a transport: random sizes, checksums, credit by put, and both
 * sides fall asleep by arm and poll in between.  A lost wake-up shows as a missed deadline of poll
 * and is a failure.  Usage: processes TRANSPORT [RECORDS] */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/counter.h"
#include "base/relax.h"
#include "tests/pair.h"
#include "transport/ring.h"

enum {
    RING_SIZE = 64 << 10,
    LIMIT_S = 240,   /* of the whole program */
    POLL_MS = 20000, /* a bell that takes longer is lost */
    FLUSH_EVERY = 32,
    NAP_EVERY = 20000, /* records between pauses that make the peer fall asleep */
    REC_MAX = 512,
};

/* Shown area of both sides: the writer's holds the credit word, the reader's the ring. */
struct body {
    struct tfr_rec rec;
    uint64_t sum;
};

static uint64_t record_n = 1000000;

static uint32_t draw(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static uint64_t sum_of(const struct tfr_rec *rec)
{
    const uint64_t *words = (const uint64_t *)(const void *)(rec + 1);
    uint64_t sum = rec->seq * 0x9e3779b97f4a7c15ull + rec->size + rec->op;

    for (uint32_t i = 1; i < (rec->size - sizeof(*rec)) / 8; i++)
        sum = (sum ^ words[i]) * 0x100000001b3ull;
    return sum;
}

/* Arms, looks again, sleeps.  False: the bell was lost or the link is done. */
static bool sleep_on(struct pair_end *end, bool (*ready)(void *arg), void *arg)
{
    struct pollfd poller = {.events = POLLIN};
    int n = 1;

    if (end->ops->arm(end->link, &poller.fd) != TFR_OK)
        return false;
    if (!ready(arg))
        n = poll(&poller, 1, POLL_MS);
    end->ops->disarm(end->link);
    if (n == 0)
        fprintf(stderr, "%d: no bell within %d ms\n", getpid(), POLL_MS);
    return n != 0;
}

struct writer {
    struct pair_end *end;
    struct tfr_ring_tx tx;
};

static bool credit_ready(void *arg)
{
    struct writer *writer = arg;

    writer->end->ops->progress(writer->end->link);
    return atomic_load_explicit(writer->tx.head, memory_order_acquire) != writer->tx.head_seen;
}

static struct tfr_rec *rec_reserve(struct writer *writer, uint32_t size, uint16_t op)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_RING_SPACE);
    struct tfr_rec *rec;

    while (!(rec = tfr_ring_reserve(&writer->tx, size, op, 0))) {
        pair_need(writer->end->ops->progress(writer->end->link) == TFR_OK, "writer's link");
        if (tfr_relax(&relax) != TFR_RELAX_SLEEP)
            continue;
        /* shadow that waits for done() has no bell */
        if (tfr_ring_flush(&writer->tx) == TFR_OK && writer->tx.freed == writer->tx.head_seen &&
            writer->tx.published - writer->tx.head_seen > RING_SIZE / 2)
            pair_need(sleep_on(writer->end, credit_ready, writer), "bell for the writer");
        else
            tfr_relax_nap(&relax);
    }
    return rec;
}

static void flush(struct writer *writer)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    tfr_status status;

    while ((status = tfr_ring_flush(&writer->tx)) == TFR_AGAIN) {
        writer->end->ops->progress(writer->end->link);
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
    }
    pair_need(status == TFR_OK, "flush");
}

static int writer_run(struct pair_end *end)
{
    const struct timespec nap = {.tv_nsec = 2000000};
    struct writer writer = {.end = end};
    uint32_t seed = 7;
    char byte;

    pair_need(tfr_ring_tx_init(&writer.tx, end->dev, end->link, end->peer, 0, RING_SIZE,
                               end->area.addr) == TFR_OK,
              "ring");
    for (uint64_t i = 1; i <= record_n; i++) {
        uint32_t size = 32 + draw(&seed) % (REC_MAX - 31);
        struct tfr_rec *rec = rec_reserve(&writer, size, (uint16_t)(1 + i % 500));
        uint64_t *words = (uint64_t *)(void *)(rec + 1);
        for (uint32_t k = 1; k < (rec->size - sizeof(*rec)) / 8; k++)
            words[k] = i * k;
        words[0] = sum_of(rec);
        tfr_ring_commit(&writer.tx);
        if (i % FLUSH_EVERY == 0 || i == record_n)
            flush(&writer);
        if (i % NAP_EVERY == 0)
            nanosleep(&nap, NULL);
    }
    /* stays until the reader has everything: close loses what is under way */
    pair_need(read(end->boot.fd, &byte, 1) == 1 && byte == 'k', "the reader's good-bye");
    tfr_ring_tx_fini(&writer.tx);
    return 0;
}

static bool rec_ready(void *arg)
{
    return tfr_ring_ready(arg);
}

static void credit_return(struct pair_end *end, struct tfr_ring_rx *rx)
{
    struct tfr_xfer xfer = {
        .flags = TFR_XFER_AFTER | TFR_XFER_BELL,
        .local = &rx->head,
        .peer = end->peer,
        .len = sizeof(rx->head),
    };

    if (rx->returned == rx->head)
        return;
    rx->returned = rx->head;
    pair_put(end, &xfer);
}

static int reader_run(struct pair_end *end)
{
    static _Alignas(16) uint8_t buf[RING_SIZE / 8];
    const struct timespec nap = {.tv_nsec = 3000000};
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_RECORD);
    struct tfr_ring_rx rx;
    struct tfr_rec *rec;
    uint64_t taken = 0;

    tfr_ring_rx_init(&rx, end->area.addr, RING_SIZE);
    while (taken < record_n) {
        tfr_status status = tfr_ring_take(&rx, buf, &rec);
        if (status == TFR_AGAIN) {
            pair_need(end->ops->progress(end->link) == TFR_OK, "reader's link");
            if (tfr_relax(&relax) == TFR_RELAX_SLEEP) {
                credit_return(end, &rx);
                pair_need(sleep_on(end, rec_ready, &rx), "bell for the reader");
            }
            continue;
        }
        pair_need(status == TFR_OK, "take");
        pair_need(rec->seq == ++taken && sum_of(rec) == ((struct body *)rec)->sum, "checksum");
        tfr_relax_again(&relax);
        if (tfr_ring_due(&rx))
            credit_return(end, &rx);
        if (taken % (NAP_EVERY * 3) == 0)
            nanosleep(&nap, NULL);
    }
    pair_need(write(end->boot.fd, "k", 1) == 1, "good-bye");
    return 0;
}

static void say(const char *who, uint64_t since_ns)
{
    printf("%s: %llu records, %.2f s, %llu bells, %llu sleeps\n", who, (unsigned long long)record_n,
           (double)(tfr_clock_now() - since_ns) / 1e9,
           (unsigned long long)atomic_load(&tfr_counters.bells),
           (unsigned long long)atomic_load(&tfr_counters.sleeps));
    fflush(stdout);
}

int main(int argc, char **argv)
{
    const char *transport = argc > 1 ? argv[1] : "shm";
    uint64_t since_ns = tfr_clock_now();
    struct pair_end end;
    int socks[2], status = 0, result;
    pid_t child;

    if (argc > 2)
        record_n = strtoull(argv[2], NULL, 0);
    pair_need(socketpair(AF_UNIX, SOCK_STREAM, 0, socks) == 0, "socketpair");
    child = fork();
    pair_need(child >= 0, "fork");
    alarm(LIMIT_S);
    close(socks[child != 0]);
    /* a page that shows both the credit word and the ring is enough for either side */
    pair_open(&end, transport, socks[child == 0], child != 0, TFR_RING_AREA(RING_SIZE));
    result = child ? writer_run(&end) : reader_run(&end);
    say(child ? "writer" : "reader", since_ns);
    pair_close(&end);
    if (child)
        pair_need(waitpid(child, &status, 0) == child, "wait");
    return result || status != 0;
}
