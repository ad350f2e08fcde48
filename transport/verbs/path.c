/* The hot half: puts and gets become work requests.  A small put is copied into its request, or, on
 * devices that take less, into a registered slot of ours.  MORE leaves requests in the chain of the
 * channel, and the put that ends it hands them all over with one doorbell. */
#define TFR_LOG_PART "transport"
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/rec.h"
#include "transport/verbs/verbs.h"

/* Single writer: no locked instruction. */
static inline void count_add(_Atomic uint64_t *count, uint64_t n)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + n,
                          memory_order_relaxed);
}

static tfr_status xfer_check(struct verbs_link *link, const struct tfr_xfer *xfer,
                             bool by_reference)
{
    const struct verbs_mem *mem = (const struct verbs_mem *)xfer->mem;
    bool good = xfer->channel < TFR_CHANNELS &&
                tfr_span_inside(xfer->peer_at, xfer->len, xfer->peer->len) &&
                xfer->len <= link->channels[xfer->channel].len_max;

    if (good && by_reference)
        good = mem && mem->mrs[link->channels[xfer->channel].own_nic] &&
               tfr_span_inside((uintptr_t)xfer->local - (uintptr_t)mem->area.addr, xfer->len,
                               mem->area.len);
    if (!good)
        return tfr_fail(TFR_E_INVAL, "transfer of %zu bytes at %llu on channel %u", xfer->len,
                        (unsigned long long)xfer->peer_at, xfer->channel);
    return verbs_error(link);
}

/* Room for one more request, and for the one that MORE promises. */
static bool has_room(const struct verbs_channel *channel, uint64_t number, uint16_t flags)
{
    uint64_t need = number + 1 + (flags & TFR_XFER_MORE ? 1 : 0);

    /* pairs with the release of whoever retires: the slot's flight has been read */
    return need - atomic_load_explicit(&channel->retired, memory_order_acquire) <= channel->depth &&
           !atomic_load_explicit(&channel->held, memory_order_relaxed);
}

/* Bytes that the caller may overwrite when the call returns. */
static void small_take(struct verbs_channel *channel, uint64_t number, const struct tfr_xfer *xfer,
                       struct ibv_send_wr *wr, struct ibv_sge *sge)
{
    uint8_t *copy;

    if (xfer->len <= channel->inline_max) {
        wr->send_flags |= IBV_SEND_INLINE;
        count_add(&channel->inlined, xfer->len);
        if (!(xfer->flags & TFR_XFER_MORE))
            return;
        copy = channel->copies[channel->chain_n];
    } else {
        copy = channel->bounce + number % channel->depth * sizeof(struct verbs_note);
        sge->lkey = channel->bounce_mr->lkey;
    }
    memcpy(copy, xfer->local, xfer->len);
    sge->addr = (uintptr_t)copy;
}

static void request_fill(struct verbs_channel *channel, uint64_t number,
                         const struct tfr_xfer *xfer, enum ibv_wr_opcode opcode)
{
    const struct verbs_peer_mem *peer = (const struct verbs_peer_mem *)xfer->peer;
    const struct verbs_mem *mem = (const struct verbs_mem *)xfer->mem;
    struct ibv_send_wr *wr = &channel->wrs[channel->chain_n];
    struct ibv_sge *sge = &channel->sges[channel->chain_n];
    bool small = opcode != IBV_WR_RDMA_READ &&
                 (xfer->len <= TFR_SMALL_MAX || opcode == IBV_WR_RDMA_WRITE_WITH_IMM);

    *sge = (struct ibv_sge){.addr = (uintptr_t)xfer->local, .length = (uint32_t)xfer->len};
    wr->wr_id = (uint64_t)channel->at << 56 | number;
    wr->next = NULL;
    wr->sg_list = sge;
    wr->num_sge = xfer->len ? 1 : 0;
    wr->opcode = opcode;
    wr->send_flags = 0;
    wr->wr.rdma.remote_addr = peer->at + xfer->peer_at;
    wr->wr.rdma.rkey = peer->rkeys[channel->peer_nic];
    if (small)
        small_take(channel, number, xfer, wr, sge);
    else
        sge->lkey = mem->mrs[channel->own_nic]->lkey;
    if (++channel->silent >= SIGNAL_EVERY || xfer->len >= SIGNAL_LEN ||
        opcode == IBV_WR_RDMA_READ) {
        wr->send_flags |= IBV_SEND_SIGNALED;
        channel->silent = 0;
    }
}

/* Hands the chain over. */
static tfr_status chain_post(struct verbs_channel *channel)
{
    uint64_t end = atomic_load_explicit(&channel->filled, memory_order_relaxed);
    uint32_t n = channel->chain_n;
    struct ibv_send_wr *bad;
    uint64_t signalled = 0;
    int error;

    for (uint32_t i = 0; i < n; i++) {
        channel->wrs[i].next = i + 1 < n ? &channel->wrs[i + 1] : NULL;
        if (channel->wrs[i].send_flags & IBV_SEND_SIGNALED)
            signalled = end - n + i + 1;
    }
    channel->chain_n = 0;
    error = ibv_post_send(channel->qp, channel->wrs, &bad);
    count_add(&channel->requests, n);
    count_add(&channel->doorbells, 1);
    /* pairs with the acquire of whoever posts an extra: what is below is ahead of it */
    atomic_store_explicit(&channel->posted, end, memory_order_release);
    if (signalled)
        atomic_store_explicit(&channel->signalled, signalled, memory_order_relaxed);
    if (error)
        verbs_fail(channel->link, TFR_E_PEER, strerror(error));
    return TFR_OK; /* accepted: done() tells of the failure */
}

static tfr_status transfer(struct verbs_channel *channel, const struct tfr_xfer *xfer,
                           enum ibv_wr_opcode opcode, const uint32_t *imm)
{
    uint64_t number = atomic_load_explicit(&channel->filled, memory_order_relaxed);

    request_fill(channel, number, xfer, opcode);
    if (imm) {
        struct ibv_send_wr *wr = &channel->wrs[channel->chain_n];
        wr->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
        wr->imm_data = htonl(*imm);
    }
    channel->flights[number % channel->depth] = (struct verbs_flight){xfer->done, xfer->arg};
    if (xfer->done)
        atomic_store_explicit(&channel->wanted, number + 1, memory_order_relaxed);
    /* pairs with the acquire of whoever retires: the flight is written */
    atomic_store_explicit(&channel->filled, number + 1, memory_order_release);
    count_add(&channel->bytes, xfer->len);
    channel->chain_n++;
    if (xfer->flags & TFR_XFER_MORE && channel->chain_n < CHAIN_MAX)
        return TFR_OK;
    return chain_post(channel);
}

/* A put that tells of itself.  Larger ones than a note holds go when all before them has arrived.
 */
static tfr_status note_put(struct verbs_channel *channel, const struct tfr_xfer *xfer, bool rings)
{
    uint64_t filled = atomic_load_explicit(&channel->filled, memory_order_relaxed);
    uint32_t imm, number;
    struct verbs_note note;
    struct tfr_xfer as;

    if (xfer->len > TFR_SMALL_MAX) {
        /* pairs with the release in retire */
        if (atomic_load_explicit(&channel->retired, memory_order_acquire) == filled)
            return transfer(channel, xfer, IBV_WR_RDMA_WRITE, NULL);
        atomic_store_explicit(&channel->wanted, filled, memory_order_relaxed);
        if (channel->chain_n) /* else it would wait for what it holds back */
            chain_post(channel);
        return TFR_AGAIN;
    }
    if (!verbs_note_make(channel, xfer, &note, &as, &imm))
        return TFR_AGAIN;
    if (rings && verbs_bell_take(channel->link, &number))
        imm |= number; /* not counted: each note wakes */
    return transfer(channel, &as, IBV_WR_RDMA_WRITE_WITH_IMM, &imm);
}

static tfr_status plain_put(struct verbs_channel *channel, const struct tfr_xfer *xfer, bool rings)
{
    uint32_t number;

    rings = rings && channel->link->imm_ok && verbs_bell_take(channel->link, &number);
    if (rings)
        verbs_bell_count(channel->link);
    return transfer(channel, xfer, IBV_WR_RDMA_WRITE, rings ? &number : NULL);
}

tfr_status verbs_put(struct tfr_link *base, const struct tfr_xfer *xfer)
{
    struct verbs_link *link = verbs_link_of(base);
    tfr_status status = xfer_check(link, xfer, xfer->len > TFR_SMALL_MAX);
    struct verbs_channel *channel;
    uint16_t flags;
    uint32_t number;
    bool rings;

    if (status != TFR_OK)
        return status;
    channel = &link->channels[xfer->channel];
    if (!has_room(channel, atomic_load_explicit(&channel->filled, memory_order_relaxed),
                  xfer->flags))
        return TFR_AGAIN;
    flags = channel->gathered | xfer->flags;
    rings = flags & TFR_XFER_BELL && !(flags & TFR_XFER_MORE);
    if (link->notes && flags & TFR_XFER_AFTER)
        status = note_put(channel, xfer, rings);
    else
        status = plain_put(channel, xfer, rings);
    if (status != TFR_OK)
        return status;
    channel->gathered = flags & TFR_XFER_MORE ? flags & TFR_XFER_BELL : 0;
    count_add(&channel->puts, 1);
    /* A question that came meanwhile may be answered ahead of this put: see sleep.c.  A note wakes
     * by itself. */
    if (rings && !(link->notes && flags & TFR_XFER_AFTER && xfer->len <= TFR_SMALL_MAX) &&
        verbs_bell_take(link, &number)) {
        verbs_bell_count(link);
        verbs_bell_send(channel, number);
    }
    return TFR_OK;
}

tfr_status verbs_get(struct tfr_link *base, const struct tfr_xfer *xfer)
{
    struct verbs_link *link = verbs_link_of(base);
    tfr_status status = xfer_check(link, xfer, true);
    struct verbs_channel *channel;

    if (status != TFR_OK)
        return status;
    channel = &link->channels[xfer->channel];
    if (!has_room(channel, atomic_load_explicit(&channel->filled, memory_order_relaxed),
                  xfer->flags))
        return TFR_AGAIN;
    count_add(&channel->gets, 1);
    if (((const struct verbs_mem *)xfer->mem)->read_only) {
        if (xfer->done)
            xfer->done(xfer->arg, TFR_E_INVAL);
        return TFR_OK;
    }
    return transfer(channel, xfer, IBV_WR_RDMA_READ, NULL);
}

static void extra_fill(struct verbs_channel *channel, const uint64_t *from, uint64_t ctl_at,
                       struct ibv_send_wr *wr, struct ibv_sge *sge)
{
    struct verbs_link *link = channel->link;

    /* pairs with the release in chain_post: the end of this one is the end of those, too */
    uint64_t ahead = atomic_load_explicit(&channel->posted, memory_order_acquire);

    *sge = (struct ibv_sge){(uintptr_t)from, sizeof(*from), link->own_mrs[channel->own_nic]->lkey};
    *wr = (struct ibv_send_wr){
        .wr_id = EXTRA_BIT | (uint64_t)channel->at << 56 | ahead,
        .sg_list = sge,
        .num_sge = from ? 1 : 0,
        .opcode = IBV_WR_RDMA_WRITE,
        .send_flags = IBV_SEND_SIGNALED,
        .wr.rdma.remote_addr = link->peer_ctl + ctl_at,
        .wr.rdma.rkey = link->peer_ctl_rkeys[channel->peer_nic],
    };
    if (from && channel->inline_max >= sizeof(*from))
        wr->send_flags |= IBV_SEND_INLINE;
}

tfr_status verbs_extra(struct verbs_channel *channel, const uint64_t *from, uint64_t ctl_at,
                       const uint32_t *bell)
{
    struct ibv_send_wr wr, *bad;
    struct ibv_sge sge;

    if (atomic_load_explicit(&channel->held, memory_order_relaxed))
        return TFR_AGAIN;
    if (atomic_fetch_add_explicit(&channel->extras, 1, memory_order_relaxed) >= EXTRA_MAX) {
        atomic_fetch_sub_explicit(&channel->extras, 1, memory_order_relaxed);
        return TFR_AGAIN;
    }
    extra_fill(channel, from, ctl_at, &wr, &sge);
    if (bell && channel->link->imm_ok) {
        wr.opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
        wr.imm_data = htonl(*bell);
    } else if (bell && !from) {
        wr.opcode = IBV_WR_SEND;
    }
    atomic_fetch_add_explicit(&channel->link->extra_requests, 1, memory_order_relaxed);
    if (ibv_post_send(channel->qp, &wr, &bad) == 0)
        return TFR_OK;
    atomic_fetch_sub_explicit(&channel->extras, 1, memory_order_relaxed);
    verbs_fail(channel->link, TFR_E_PEER, "a request was refused");
    return TFR_E_PEER;
}

uint32_t verbs_busy(const struct tfr_link *base)
{
    const struct verbs_channel *channel = &((const struct verbs_link *)base)->channels[0];
    uint64_t retired = atomic_load_explicit(&channel->retired, memory_order_relaxed);
    uint64_t filled = atomic_load_explicit(&channel->filled, memory_order_relaxed);

    return filled > retired ? (uint32_t)(filled - retired) : 0;
}

/* Of two rails the second has one bulk channel (rail_number in open.c). */
uint32_t verbs_spread(const struct tfr_link *base)
{
    return ((const struct verbs_link *)base)->rail_n == 2 ? 2 : TFR_CHANNELS - 1;
}

void verbs_count(const struct tfr_link *base, struct tfr_link_count *count_out)
{
    const struct verbs_link *link = (const struct verbs_link *)base;
    uint64_t extras = atomic_load_explicit(&link->extra_requests, memory_order_relaxed);

    *count_out = (struct tfr_link_count){
        .requests = extras,
        .doorbells = extras,
        .extras = extras,
        .bells = atomic_load_explicit(&link->bells, memory_order_relaxed),
        .sleeps = atomic_load_explicit(&link->sleeps, memory_order_relaxed),
    };
    for (int i = 0; i < TFR_CHANNELS; i++) {
        const struct verbs_channel *c = &link->channels[i];
        count_out->puts += atomic_load_explicit(&c->puts, memory_order_relaxed);
        count_out->gets += atomic_load_explicit(&c->gets, memory_order_relaxed);
        count_out->requests += atomic_load_explicit(&c->requests, memory_order_relaxed);
        count_out->doorbells += atomic_load_explicit(&c->doorbells, memory_order_relaxed);
        count_out->bytes += atomic_load_explicit(&c->bytes, memory_order_relaxed);
        count_out->inlined += atomic_load_explicit(&c->inlined, memory_order_relaxed);
    }
}
