/* Ring between two threads on the very same memory, so that ThreadSanitizer sees both ends: random
 * sizes, a small ring (many wraps), every byte checked.  Usage: ring_threads [RECORDS] */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/relax.h"
#include "transport/ring.h"

enum { RING_SIZE = 8192 };

static struct {
    struct tfr_ring_ctl ctl;
    uint8_t data[RING_SIZE];
} area;
static _Atomic uint64_t head; /* the credit word */
static uint64_t record_n = 200000;

static void no_ring(struct tfr_link *link)
{
    (void)link;
}

static uint32_t draw(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void *writer_main(void *arg)
{
    const struct tfr_transport_ops ops = {.name = "none", .ring = no_ring};
    struct tfr_link link = {&ops};
    struct tfr_ring_tx tx = {
        .data = area.data,
        .mask = RING_SIZE - 1,
        .size = RING_SIZE,
        .limit = RING_SIZE,
        .remote_tail = &area.ctl.tail,
        .link = &link,
        .head = &head,
    };
    uint32_t seed = 1;

    (void)arg;
    for (uint64_t i = 1; i <= record_n; i++) {
        struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_RING_SPACE);
        uint32_t size = 16 + draw(&seed) % (RING_SIZE / 8 - 15);
        struct tfr_rec *rec;
        while (!(rec = tfr_ring_reserve(&tx, size, (uint16_t)(i % 1000 + 1), (uint16_t)i))) {
            if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
                tfr_relax_nap(&relax);
        }
        memset(rec + 1, (int)(i & 255), rec->size - sizeof(*rec));
        tfr_ring_commit(&tx);
    }
    return NULL;
}

static int rec_right(const struct tfr_rec *rec, uint64_t i)
{
    const uint8_t *body = (const uint8_t *)(rec + 1);

    for (uint32_t k = 0; k < rec->size - sizeof(*rec); k++) {
        if (body[k] != (i & 255))
            return 0;
    }
    return rec->seq == i && rec->op == i % 1000 + 1 && rec->ctx == (uint16_t)i;
}

int main(int argc, char **argv)
{
    static _Alignas(16) uint8_t buf[RING_SIZE / 8];
    struct tfr_ring_rx rx;
    struct tfr_rec *rec;
    pthread_t writer;
    uint64_t taken = 0;

    if (argc > 1)
        record_n = strtoull(argv[1], NULL, 0);
    tfr_ring_rx_init(&rx, &area, RING_SIZE);
    if (pthread_create(&writer, NULL, writer_main, NULL))
        return 3;
    while (taken < record_n) {
        struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_RECORD);
        tfr_status status;
        while ((status = tfr_ring_take(&rx, buf, &rec)) == TFR_AGAIN) {
            atomic_store_explicit(&head, rx.head, memory_order_release);
            if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
                tfr_relax_nap(&relax);
        }
        if (status != TFR_OK || !rec_right(rec, ++taken)) {
            fprintf(stderr, "record %llu is wrong\n", (unsigned long long)taken);
            return 1;
        }
        if (tfr_ring_due(&rx)) {
            rx.returned = rx.head;
            atomic_store_explicit(&head, rx.head, memory_order_release);
        }
    }
    pthread_join(writer, NULL);
    printf("%llu records\n", (unsigned long long)taken);
    return 0;
}
