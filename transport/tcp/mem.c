/* Registrations and their names on the wire.  The table only grows, so that the receiving half
 * finds a slot without a lock; a registration that ends first takes its name back and then waits
 * until nobody moves bytes there, which takes as long as one system call. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rec.h"
#include "base/relax.h"
#include "transport/tcp/tcp.h"

enum { CHUNK = 1 << TCP_CHUNK_BITS, SLOT_MASK = (1 << TCP_SLOT_BITS) - 1 };

/* Beyond that a transfer whose memory is to go is given up, and its link with it. */
#define UNREG_NS (60 * TFR_NS_PER_S)

tfr_status tcp_dev_make(struct tcp_dev **dev_out)
{
    struct tcp_dev *dev = calloc(1, sizeof(*dev));

    if (!dev)
        return tfr_fail(TFR_E_NOMEM, "tcp device");
    pthread_mutex_init(&dev->lock, NULL);
    *dev_out = dev;
    return TFR_OK;
}

void tcp_dev_free(struct tcp_dev *dev)
{
    for (int i = 0; i < TCP_CHUNK_N; i++)
        free(atomic_load_explicit(&dev->chunks[i], memory_order_relaxed));
    free(dev->spare);
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}

static struct tcp_slot *slot_at(struct tcp_dev *dev, uint32_t at)
{
    /* pairs with the release in slot_new */
    struct tcp_slot *chunk =
        atomic_load_explicit(&dev->chunks[at >> TCP_CHUNK_BITS], memory_order_acquire);

    return chunk ? &chunk[at % CHUNK] : NULL;
}

/* With the device's lock.  TFR_E_LIMIT or TFR_E_NOMEM: said. */
static tfr_status slot_new(struct tcp_dev *dev, uint32_t *at_out)
{
    uint32_t at = dev->slot_n;
    struct tcp_slot *chunk;
    uint32_t *spare;

    if (dev->spare_n) {
        *at_out = dev->spare[--dev->spare_n];
        return TFR_OK;
    }
    if (at > SLOT_MASK)
        return tfr_fail(TFR_E_LIMIT, "more than %u memory registrations over tcp", at);
    if (at % CHUNK == 0) { /* room for giving them back comes along */
        spare = realloc(dev->spare, (at + CHUNK) * sizeof(*spare));
        if (spare)
            dev->spare = spare;
        chunk = spare ? calloc(CHUNK, sizeof(*chunk)) : NULL;
        if (!chunk)
            return tfr_fail(TFR_E_NOMEM, "tcp registrations");
        atomic_store_explicit(&dev->chunks[at >> TCP_CHUNK_BITS], chunk, memory_order_release);
    }
    dev->slot_n++;
    *at_out = at;
    return TFR_OK;
}

uint8_t *tcp_mem_enter(struct tcp_dev *dev, uint64_t id, uint64_t at, uint64_t len,
                       struct tcp_slot **slot_out)
{
    struct tcp_slot *slot = slot_at(dev, id & SLOT_MASK);

    if (!slot || id <= SLOT_MASK)
        return NULL;
    /* Each side of unreg_wait and this looks at the other's word after having changed its own. */
    atomic_fetch_add_explicit(&slot->users, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&slot->id, memory_order_seq_cst) == id &&
        tfr_span_inside(at, len, slot->len)) {
        *slot_out = slot;
        return slot->addr + at;
    }
    tcp_mem_leave(slot);
    return NULL;
}

void tcp_mem_leave(struct tcp_slot *slot)
{
    /* pairs with the load in name_end */
    atomic_fetch_sub_explicit(&slot->users, 1, memory_order_release);
}

/* From here on the peer may name it, once it has been told. */
static tfr_status name_make(struct tcp_mem *mem, const struct tfr_area *area)
{
    struct tcp_dev *dev = mem->dev;
    tfr_status status;
    uint64_t id;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return tfr_fail(TFR_E_SYS, "random number: %s", strerror(errno));
    pthread_mutex_lock(&dev->lock);
    status = slot_new(dev, &mem->at);
    pthread_mutex_unlock(&dev->lock);
    if (status != TFR_OK)
        return status;
    mem->slot = slot_at(dev, mem->at);
    mem->slot->addr = area->addr;
    mem->slot->len = area->len;
    mem->id = ((id | 1ull << 63) & ~(uint64_t)SLOT_MASK) | mem->at;
    atomic_store_explicit(&mem->slot->id, mem->id, memory_order_seq_cst);
    return TFR_OK;
}

static void name_end(struct tcp_mem *mem)
{
    atomic_store_explicit(&mem->slot->id, 0, memory_order_seq_cst);
    while (atomic_load_explicit(&mem->slot->users, memory_order_seq_cst))
        sched_yield();
    pthread_mutex_lock(&mem->dev->lock);
    mem->dev->spare[mem->dev->spare_n++] = mem->at;
    pthread_mutex_unlock(&mem->dev->lock);
}

tfr_status tcp_reg(struct tfr_dev *base, const struct tfr_area *area, struct tfr_mem **mem_out)
{
    struct tcp_dev *dev = (struct tcp_dev *)base;
    struct tcp_mem *mem;
    tfr_status status;

    if (area->kind != TFR_AREA_HOST && area->kind != TFR_AREA_MEMFD)
        return TFR_E_UNSUP;
    if (!area->addr || !area->len || area->len >> TCP_LEN_BITS)
        return tfr_fail(TFR_E_INVAL, "registration of %zu bytes", area->len);
    mem = calloc(1, sizeof(*mem));
    if (!mem)
        return tfr_fail(TFR_E_NOMEM, "tcp registration");
    mem->base.ops = &tfr_tcp_ops;
    mem->dev = dev;
    mem->len = area->len;
    status = area->shown || area->kind != TFR_AREA_HOST ? name_make(mem, area) : TFR_OK;
    if (status != TFR_OK) {
        free(mem);
        return status;
    }
    *mem_out = &mem->base;
    return TFR_OK;
}

/* One turn for every link of the device, or its end. */
static void links_drive(struct tcp_dev *dev, bool give_up)
{
    struct tcp_link *link;

    pthread_mutex_lock(&dev->lock);
    for (link = dev->links; link; link = link->next) {
        link->users++; /* it stays in the list as long as this is not 0 */
        pthread_mutex_unlock(&dev->lock);
        if (give_up)
            tcp_link_fail(link, tfr_fail(TFR_E_TIMEOUT, "the peer takes no bytes"));
        tcp_progress(&link->base);
        pthread_mutex_lock(&dev->lock);
        link->users--;
    }
    pthread_mutex_unlock(&dev->lock);
}

void tcp_unreg(struct tfr_mem *base)
{
    struct tcp_mem *mem = (struct tcp_mem *)base;
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    uint64_t since_ns = tfr_clock_now();

    if (mem->slot)
        name_end(mem);
    /* pairs with the release in tcp_dones_run */
    while (atomic_load_explicit(&mem->busy, memory_order_acquire)) {
        links_drive(mem->dev, tfr_clock_now() - since_ns > UNREG_NS);
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP)
            tfr_relax_nap(&relax);
    }
    free(mem);
}

static const uint64_t key_mark = 0x3130706374726674; /* "tfrtcp01" */

void tcp_key(const struct tfr_mem *base, struct tfr_key *key_out)
{
    const struct tcp_mem *mem = (const struct tcp_mem *)base;

    *key_out = (struct tfr_key){.len = mem->len, .words = {mem->id, key_mark}, .fd = -1};
}

tfr_status tcp_import(struct tfr_link *link, const struct tfr_key *key,
                      struct tfr_peer_mem **peer_out)
{
    struct tcp_peer_mem *peer;

    (void)link;
    if (key->fd >= 0)
        close(key->fd);
    if (key->fd >= 0 || key->words[1] != key_mark || !key->len || key->len >> TCP_LEN_BITS)
        return tfr_fail(TFR_E_PROTO, "the peer's key for %llu bytes is not one of tcp",
                        (unsigned long long)key->len);
    peer = malloc(sizeof(*peer));
    if (!peer)
        return tfr_fail(TFR_E_NOMEM, "imported memory");
    peer->base.ops = &tfr_tcp_ops;
    peer->base.len = key->len;
    peer->id = key->words[0];
    *peer_out = &peer->base;
    return TFR_OK;
}

/* Frames under way carry all that they need. */
void tcp_forget(struct tfr_peer_mem *peer)
{
    free(peer);
}
