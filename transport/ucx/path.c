/* UCX, the hot half: puts and gets on their way out.  Every call into UCX is made under the link's
 * lock; done() runs after it is released, on the thread that found it to be due. */
#define TFR_LOG_PART "transport"
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rec.h"
#include "transport/boot.h"
#include "transport/ucx/ucx.h"

enum { PEEK_EVERY = 256, /* progress calls between looks at the socket */ ROUNDS = 16 };

#define SILENCE_NS (TFR_NS_PER_S / 2)

void ucx_queue_init(struct ucx_queue *queue)
{
    queue->first = NULL;
    queue->last = &queue->first;
}

static void queue_push(struct ucx_queue *queue, struct ucx_op *op)
{
    op->next = NULL;
    *queue->last = op;
    queue->last = &op->next;
}

static struct ucx_op *queue_pop(struct ucx_queue *queue)
{
    struct ucx_op *op = queue->first;

    if (op && !(queue->first = op->next))
        queue->last = &queue->first;
    return op;
}

void ucx_error_note(struct ucx_link *link, tfr_status status)
{
    int32_t ok = TFR_OK;

    atomic_compare_exchange_strong_explicit(&link->error, &ok, status, memory_order_relaxed,
                                            memory_order_relaxed);
}

tfr_status ucx_error_of(struct ucx_link *link)
{
    return (tfr_status)atomic_load_explicit(&link->error, memory_order_relaxed);
}

static void busy_add(const struct tfr_xfer *xfer)
{
    if (xfer->mem)
        atomic_fetch_add_explicit(&((struct ucx_mem *)xfer->mem)->busy, 1, memory_order_relaxed);
    if (xfer->peer)
        atomic_fetch_add_explicit(&((struct ucx_peer_mem *)xfer->peer)->busy, 1,
                                  memory_order_relaxed);
}

/* Pairs with the acquire loads of unreg and forget. */
void ucx_busy_drop(const struct tfr_xfer *xfer)
{
    if (xfer->mem)
        atomic_fetch_sub_explicit(&((struct ucx_mem *)xfer->mem)->busy, 1, memory_order_release);
    if (xfer->peer)
        atomic_fetch_sub_explicit(&((struct ucx_peer_mem *)xfer->peer)->busy, 1,
                                  memory_order_release);
}

static bool op_is_put(const struct ucx_op *op)
{
    return op->kind == UCX_OP_PUT || (op->kind == UCX_OP_MSG && op->head.msg == UCX_MSG_PUT);
}

/* NULL: none left.  The last ones are kept for messages, which nobody can be told to repeat. */
static struct ucx_op *op_take(struct ucx_link *link, uint32_t keep)
{
    struct ucx_op *op = link->spare;

    if (link->spare_n <= keep)
        return NULL;
    link->spare = op->next;
    link->spare_n--;
    op->link = link;
    op->posted = false;
    op->batch = NULL;
    return op;
}

void ucx_op_finish(struct ucx_op *op, tfr_status status)
{
    op->status = status;
    queue_push(&op->link->finished, op);
}

void ucx_done_run(struct ucx_link *link)
{
    struct ucx_op *op;

    pthread_mutex_lock(&link->lock);
    while ((op = queue_pop(&link->finished))) {
        pthread_mutex_unlock(&link->lock);
        if (op_is_put(op) && op->xfer.channel == 0)
            atomic_fetch_sub_explicit(&link->busy, 1, memory_order_relaxed);
        if (op->xfer.done)
            op->xfer.done(op->xfer.arg, op->status);
        ucx_busy_drop(&op->xfer);
        pthread_mutex_lock(&link->lock);
        if (op->batch) {
            op->batch->next = link->batches;
            link->batches = op->batch;
        }
        op->next = link->spare;
        link->spare = op;
        link->spare_n++;
    }
    pthread_mutex_unlock(&link->lock);
}

void ucx_peer_lost(struct ucx_link *link, const char *what, ucs_status_t status)
{
    if (ucx_error_of(link) == TFR_OK)
        tfr_info("ucx: %s: %s", what, ucs_status_string(status));
    ucx_error_note(link, TFR_E_PEER);
}

static void op_failed(struct ucx_op *op, ucs_status_t status)
{
    ucx_peer_lost(op->link, "a transfer ended with", status);
    ucx_op_finish(op, TFR_E_PEER);
}

static void op_ended(void *request, ucs_status_t status, void *arg)
{
    struct ucx_op *op = arg;

    ucp_request_free(request);
    op->posted = false;
    op->link->posted--;
    if (status == UCS_OK)
        ucx_op_finish(op, TFR_OK);
    else
        op_failed(op, status);
}

/* What a call answered: done at once, failed, or a request that ends in op_ended. */
static void op_posted(struct ucx_op *op, ucs_status_ptr_t request)
{
    op->link->count.requests++;
    op->link->count.doorbells++;
    if (request == NULL) {
        ucx_op_finish(op, TFR_OK);
    } else if (UCS_PTR_IS_ERR(request)) {
        op_failed(op, UCS_PTR_STATUS(request));
    } else {
        op->posted = true;
        op->link->posted++;
    }
}

static bool msg_is_numbered(uint8_t msg)
{
    return msg == UCX_MSG_PUT || msg == UCX_MSG_BATCH || msg == UCX_MSG_RING ||
           msg == UCX_MSG_FENCE;
}

static void am_send(struct ucx_op *op, uint32_t flags)
{
    struct ucx_link *link = op->link;
    ucp_request_param_t param = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                        UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_MEMORY_TYPE,
        .flags = UCP_AM_SEND_FLAG_EAGER | flags,
        .cb.send = op_ended,
        .user_data = op,
        .memory_type = UCS_MEMORY_TYPE_HOST,
    };

    if (msg_is_numbered(op->head.msg))
        op->head.seq = ++link->channels[op->head.channel].tx_seq;
    link->count.bytes += sizeof(op->head) + op->xfer.len;
    op_posted(op, ucp_am_send_nbx(link->eps[ucx_ep_of(op->head.channel)], UCX_AM, &op->head,
                                  sizeof(op->head), op->xfer.local, op->xfer.len, &param));
}

static void rma_send(struct ucx_op *op)
{
    struct ucx_link *link = op->link;
    struct ucx_peer_mem *peer = (struct ucx_peer_mem *)op->xfer.peer;
    unsigned at = ucx_ep_of(op->xfer.channel);
    uint64_t remote = peer->remote + op->xfer.peer_at;
    ucp_request_param_t param = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                        UCP_OP_ATTR_FIELD_MEMORY_TYPE | UCP_OP_ATTR_FIELD_MEMH,
        .cb.send = op_ended,
        .user_data = op,
        .memory_type = UCS_MEMORY_TYPE_HOST,
        .memh = ((struct ucx_mem *)op->xfer.mem)->memh,
    };
    ucs_status_ptr_t request;

    link->count.bytes += op->xfer.len;
    if (op->kind == UCX_OP_PUT) {
        link->channels[op->xfer.channel].put_posted++;
        request = ucp_put_nbx(link->eps[at], op->xfer.local, op->xfer.len, remote, peer->rkeys[at],
                              &param);
    } else {
        request = ucp_get_nbx(link->eps[at], op->xfer.local, op->xfer.len, remote, peer->rkeys[at],
                              &param);
    }
    op_posted(op, request);
}

static size_t part_size(size_t len)
{
    return sizeof(struct ucx_part) + ((len + 7) & ~(size_t)7);
}

static void batch_send(struct ucx_channel *channel)
{
    struct ucx_op *batch = channel->batch;

    channel->batch = NULL;
    if (batch)
        am_send(batch, 0);
}

static bool batch_start(struct ucx_channel *channel, uint8_t number)
{
    struct ucx_link *link = channel->link;
    struct ucx_op *op = link->batches ? op_take(link, UCX_OPS_KEPT) : NULL;

    if (!op)
        return false;
    op->kind = UCX_OP_MSG;
    op->batch = link->batches;
    link->batches = op->batch->next;
    op->head = (struct ucx_head){.msg = UCX_MSG_BATCH, .channel = number};
    op->xfer = (struct tfr_xfer){.channel = number, .local = op->batch->data};
    channel->batch = op;
    return true;
}

static void batch_add(struct ucx_op *batch, const struct ucx_op *op)
{
    const struct ucx_part part = {op->head.memory, op->head.at, op->xfer.len};
    uint8_t *to = batch->batch->data + batch->xfer.len;

    memcpy(to, &part, sizeof(part));
    memcpy(to + sizeof(part), op->xfer.local, op->xfer.len);
    batch->xfer.len += part_size(op->xfer.len);
}

/* Small puts gather while the caller says MORE, and go with the one that it announced. */
static void put_send(struct ucx_op *op)
{
    struct ucx_channel *channel = &op->link->channels[op->head.channel];
    bool more = op->xfer.flags & TFR_XFER_MORE;
    bool small = op->xfer.len <= TFR_SMALL_MAX;

    if (channel->batch &&
        (!small || channel->batch->xfer.len + part_size(op->xfer.len) > UCX_EAGER_MAX))
        batch_send(channel);
    if (small && (channel->batch || (more && batch_start(channel, op->head.channel)))) {
        batch_add(channel->batch, op);
        ucx_op_finish(op, TFR_OK);
        if (!more)
            batch_send(channel);
    } else {
        am_send(op, 0);
    }
}

static void op_send(struct ucx_op *op)
{
    if (op->kind == UCX_OP_MSG)
        put_send(op);
    else
        rma_send(op);
}

void ucx_msg_send(struct ucx_link *link, const struct ucx_head *head, struct tfr_mem *mem,
                  void *data, size_t len, bool reply)
{
    struct ucx_op *op;

    if (ucx_error_of(link) != TFR_OK)
        return;
    op = op_take(link, 0);
    if (!op) {
        tfr_fail(TFR_E_LIMIT, "ucx: the peer asks faster than it reads");
        ucx_error_note(link, TFR_E_LIMIT);
        return;
    }
    op->kind = UCX_OP_MSG;
    op->head = *head;
    op->xfer = (struct tfr_xfer){.channel = head->channel, .local = data, .mem = mem, .len = len};
    busy_add(&op->xfer);
    am_send(op, reply ? UCP_AM_SEND_FLAG_REPLY : 0);
}

void ucx_key_ask(struct ucx_link *link, struct ucx_peer_mem *peer)
{
    const struct ucx_head head = {.msg = UCX_MSG_ASK, .memory = peer->name};

    peer->asked = true;
    ucx_msg_send(link, &head, NULL, NULL, 0, false);
}

static void flush_ended(void *request, ucs_status_t status, void *arg)
{
    struct ucx_channel *channel = arg;

    ucp_request_free(request);
    channel->flushing = false;
    if (status == UCS_OK)
        channel->put_flushed = channel->flush_upto;
    else
        ucx_peer_lost(channel->link, "a flush ended with", status);
}

static void flush_start(struct ucx_channel *channel, unsigned ep)
{
    ucp_request_param_t param = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
        .cb.send = flush_ended,
        .user_data = channel,
    };
    ucs_status_ptr_t request;

    if (channel->flushing)
        return;
    channel->flush_upto = channel->put_posted;
    request = ucp_ep_flush_nbx(channel->link->eps[ep], &param);
    if (request == NULL)
        channel->put_flushed = channel->flush_upto;
    else if (UCS_PTR_IS_ERR(request))
        ucx_peer_lost(channel->link, "a flush ended with", UCS_PTR_STATUS(request));
    else
        channel->flushing = true;
}

static bool bulk_flushed(const struct ucx_channel *channel)
{
    return channel->put_posted == channel->put_flushed;
}

/* May the put go without overtaking?  Messages keep their order by number. */
static bool op_ready(const struct ucx_channel *channel, const struct ucx_op *op)
{
    if (!(op->xfer.flags & TFR_XFER_AFTER))
        return true;
    return bulk_flushed(channel) && (op->kind == UCX_OP_MSG || channel->acked == channel->tx_seq);
}

/* Has what the head of the queue waits for under way. */
static void channel_force(struct ucx_channel *channel, uint8_t number)
{
    const struct ucx_head fence = {.msg = UCX_MSG_FENCE, .channel = number};

    if (!bulk_flushed(channel)) {
        flush_start(channel, ucx_ep_of(number));
    } else if (channel->queue.first && channel->acked != channel->tx_seq &&
               channel->fenced != channel->tx_seq) {
        ucx_msg_send(channel->link, &fence, NULL, NULL, 0, false);
        channel->fenced = channel->tx_seq;
    }
}

static void channel_advance(struct ucx_channel *channel, uint8_t number)
{
    const struct ucx_head ring = {.msg = UCX_MSG_RING, .channel = number};

    if (channel->ring_wanted || (channel->queue.first && channel->queue.first->kind != UCX_OP_MSG))
        batch_send(channel);
    for (int i = 0; i < 2; i++) { /* a flush may be done at once */
        while (channel->queue.first && op_ready(channel, channel->queue.first))
            op_send(queue_pop(&channel->queue));
        if (!channel->queue.first && channel->ring_wanted && bulk_flushed(channel)) {
            channel->ring_wanted = false;
            ucx_msg_send(channel->link, &ring, NULL, NULL, 0, false);
        }
        if (!channel->queue.first && !channel->ring_wanted)
            return;
        channel_force(channel, number);
    }
}

static void queues_fail(struct ucx_link *link)
{
    struct ucx_op *op;

    for (int i = 0; i < TFR_CHANNELS; i++) {
        struct ucx_channel *channel = &link->channels[i];
        if (channel->batch)
            ucx_op_finish(channel->batch, ucx_error_of(link));
        channel->batch = NULL;
        while ((op = queue_pop(&channel->queue)))
            ucx_op_finish(op, ucx_error_of(link));
    }
}

void ucx_channels_advance(struct ucx_link *link)
{
    if (ucx_error_of(link) != TFR_OK) {
        queues_fail(link);
        return;
    }
    for (int i = 0; i < TFR_CHANNELS; i++) {
        if (link->channels[i].queue.first || link->channels[i].ring_wanted)
            channel_advance(&link->channels[i], (uint8_t)i);
    }
}

static tfr_status xfer_check(struct ucx_link *link, const struct tfr_xfer *xfer, bool need_mem)
{
    if (xfer->channel >= TFR_CHANNELS || (need_mem && !xfer->mem) ||
        !tfr_span_inside(xfer->peer_at, xfer->len, xfer->peer->len))
        return tfr_fail(TFR_E_INVAL, "transfer of %zu bytes at %llu on channel %u", xfer->len,
                        (unsigned long long)xfer->peer_at, xfer->channel);
    return ucx_error_of(link);
}

static void op_fill(struct ucx_op *op, const struct tfr_xfer *xfer, enum ucx_kind kind)
{
    op->kind = kind;
    op->xfer = *xfer;
    busy_add(xfer);
    if (kind != UCX_OP_MSG)
        return;
    op->head = (struct ucx_head){
        .msg = UCX_MSG_PUT,
        .channel = (uint8_t)xfer->channel,
        .flags = xfer->flags,
        .memory = ((struct ucx_peer_mem *)xfer->peer)->name,
        .at = xfer->peer_at,
    };
    if (xfer->len <= TFR_SMALL_MAX) {
        memcpy(op->small, xfer->local, xfer->len);
        op->xfer.local = op->small;
        op->link->count.inlined += xfer->len;
    }
}

/* With the lock held.  NULL: not now. */
static struct ucx_op *op_make(struct ucx_link *link, const struct tfr_xfer *xfer,
                              enum ucx_kind kind)
{
    struct ucx_peer_mem *peer = (struct ucx_peer_mem *)xfer->peer;
    struct ucx_op *op;

    if (ucx_error_of(link) != TFR_OK)
        return NULL; /* the next try is told */
    if (kind != UCX_OP_MSG && !peer->ready) {
        if (!peer->asked)
            ucx_key_ask(link, peer);
        return NULL;
    }
    op = op_take(link, UCX_OPS_KEPT);
    if (op)
        op_fill(op, xfer, kind);
    return op;
}

/* What UCX could not send at once goes by its progress, which nobody need call after a put. */
static void worker_push(struct ucx_link *link)
{
    for (int i = 0; i < ROUNDS && link->worker && link->posted && ucp_worker_progress(link->worker);
         i++)
        ;
}

tfr_status ucx_put(struct tfr_link *base, const struct tfr_xfer *xfer)
{
    struct ucx_link *link = ucx_link_of(base);
    enum ucx_kind kind = xfer->len <= UCX_EAGER_MAX ? UCX_OP_MSG : UCX_OP_PUT;
    tfr_status status = xfer_check(link, xfer, xfer->len > TFR_SMALL_MAX);
    struct ucx_channel *channel;
    struct ucx_op *op;

    if (status != TFR_OK)
        return status;
    channel = &link->channels[xfer->channel];
    pthread_mutex_lock(&link->lock);
    op = op_make(link, xfer, kind);
    if (op) {
        link->count.puts++;
        if (xfer->channel == 0)
            atomic_fetch_add_explicit(&link->busy, 1, memory_order_relaxed);
        channel->ring_wanted |= kind == UCX_OP_PUT && (xfer->flags & TFR_XFER_BELL);
        queue_push(&channel->queue, op);
        channel_advance(channel, (uint8_t)xfer->channel);
        worker_push(link);
    }
    pthread_mutex_unlock(&link->lock);
    ucx_done_run(link);
    return op ? TFR_OK : TFR_AGAIN;
}

tfr_status ucx_get(struct tfr_link *base, const struct tfr_xfer *xfer)
{
    struct ucx_link *link = ucx_link_of(base);
    tfr_status status = xfer_check(link, xfer, true);
    struct ucx_op *op;

    if (status != TFR_OK)
        return status;
    pthread_mutex_lock(&link->lock);
    op = op_make(link, xfer, UCX_OP_GET);
    if (op) {
        link->count.gets++;
        op_send(op);
    }
    pthread_mutex_unlock(&link->lock);
    ucx_done_run(link);
    return op ? TFR_OK : TFR_AGAIN;
}

/* A closed boot socket tells of the peer's end where endpoints do not.  A lost peer is told by a
 * message in the silence that cannot be delivered; one that UCX still has tells as much. */
void ucx_life_look(struct ucx_link *link)
{
    const struct tfr_boot boot = {.fd = link->sock};
    uint64_t now = tfr_clock_now();

    if (tfr_boot_gone(&boot))
        ucx_peer_lost(link, "the boot connection has ended", UCS_ERR_CONNECTION_RESET);
    if (link->heard || link->heard_ns == 0) {
        link->heard = false;
        link->heard_ns = now;
    } else if (link->err_peer && now - link->heard_ns > SILENCE_NS && link->posted == 0) {
        link->heard_ns = now;
        for (int i = 0; i < UCX_EPS; i++) {
            const struct ucx_head ping = {.msg = UCX_MSG_PING, .channel = (uint8_t)i};
            ucx_msg_send(link, &ping, NULL, NULL, 0, false);
        }
    }
}

tfr_status ucx_progress(struct tfr_link *base)
{
    struct ucx_link *link = ucx_link_of(base);
    uint32_t polls = atomic_fetch_add_explicit(&link->polls, 1, memory_order_relaxed);

    pthread_mutex_lock(&link->lock);
    if (polls % PEEK_EVERY == 0)
        ucx_life_look(link);
    for (int i = 0; i < ROUNDS && link->worker && ucp_worker_progress(link->worker); i++)
        ;
    if (ucx_error_of(link) == TFR_OK)
        ucx_channels_advance(link);
    else
        ucx_link_fail(link);
    pthread_mutex_unlock(&link->lock);
    ucx_done_run(link);
    return ucx_error_of(link);
}

/* Any message wakes who sleeps; one that comes behind the bytes is enough. */
void ucx_ring(struct tfr_link *base)
{
    struct ucx_link *link = ucx_link_of(base);
    bool wanted = false;

    if (ucx_error_of(link) != TFR_OK)
        return;
    pthread_mutex_lock(&link->lock);
    for (int i = 0; i < TFR_CHANNELS; i++) {
        struct ucx_channel *channel = &link->channels[i];
        channel->ring_wanted |= channel->queue.first || !bulk_flushed(channel);
        wanted |= channel->ring_wanted;
    }
    link->channels[0].ring_wanted |= !wanted;
    ucx_channels_advance(link);
    worker_push(link);
    pthread_mutex_unlock(&link->lock);
    ucx_done_run(link);
}

uint32_t ucx_busy(const struct tfr_link *link)
{
    return atomic_load_explicit(&((const struct ucx_link *)link)->busy, memory_order_relaxed);
}

void ucx_count(const struct tfr_link *base, struct tfr_link_count *count_out)
{
    struct ucx_link *link = (struct ucx_link *)(uintptr_t)base;

    pthread_mutex_lock(&link->lock);
    *count_out = link->count;
    pthread_mutex_unlock(&link->lock);
}
