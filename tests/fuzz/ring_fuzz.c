/* Any bytes in the ring and any tail: what tfr_ring_take returns lies inside the buffer, and it
 * comes to an end.  Input: words that the peer stores as tails, then the ring's data. */
#include <stdlib.h>
#include <string.h>

#include "transport/ring.h"

enum { SIZE = 4096, TAILS = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct {
    struct tfr_ring_ctl ctl;
    uint8_t data[SIZE];
} area;

static void all_take(struct tfr_ring_rx *rx)
{
    for (uint64_t start = rx->head;;) {
        uint8_t *buf = malloc(SIZE / 8); /* each time, so that the sanitizer sees its end */
        struct tfr_rec *rec;
        tfr_status status = tfr_ring_take(rx, buf, &rec);
        if (status == TFR_OK &&
            (rec->size < sizeof(*rec) || rec->size % TFR_REC_ALIGN || rec->size > SIZE / 8 ||
             rec->op == TFR_OP_PAD || rx->head - start > SIZE))
            abort();
        free(buf);
        if (status != TFR_OK)
            return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t tails[TAILS];
    struct tfr_ring_rx rx;

    if (size < sizeof(tails))
        return 0;
    memcpy(tails, data, sizeof(tails));
    size -= sizeof(tails);
    memset(&area, 0, sizeof(area));
    memcpy(area.data, data + sizeof(tails), size < SIZE ? size : SIZE);
    tfr_ring_rx_init(&rx, &area, SIZE);
    for (int i = 0; i < TAILS; i++) {
        area.ctl.tail = tails[i] % (2 * SIZE); /* mostly plausible */
        all_take(&rx);
    }
    return 0;
}
