/* UCX, the receiving half: the handler of active messages, which UCX calls inside progress, under
 * the link's lock.  Puts are checked against what was shown and applied in the order of their
 * channel; UCX keeps that order on the lanes we know, but does not promise it. */
#define TFR_LOG_PART "transport"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rec.h"
#include "transport/ucx/ucx.h"

enum { EARLY_MAX = 4096 /* messages that may come before their turn */ };

static void peer_broke(struct ucx_link *link, const char *what)
{
    if (ucx_error_of(link) == TFR_OK)
        tfr_fail(TFR_E_PROTO, "ucx: %s", what);
    ucx_error_note(link, TFR_E_PROTO);
}

/* Another thread than the one that sleeps may have taken the message off the worker. */
static void sleepers_wake(struct ucx_link *link)
{
    const uint64_t one = 1;

    if (link->armed && !link->told)
        link->told = write(link->event, &one, sizeof(one)) == sizeof(one);
}

static void put_apply(struct ucx_link *link, uint64_t name, uint64_t at, const void *data,
                      size_t len)
{
    const struct ucx_mem *mem;

    pthread_mutex_lock(&link->dev->lock);
    mem = ucx_mem_find(link->dev, name);
    if (mem && tfr_span_inside(at, len, mem->area.len))
        tfr_bytes_store((uint8_t *)mem->area.addr + at, data, len);
    else if (mem)
        peer_broke(link, "the peer puts outside of the memory it was shown");
    pthread_mutex_unlock(&link->dev->lock); /* memory that is gone takes nothing */
}

static void batch_apply(struct ucx_link *link, const uint8_t *data, size_t len)
{
    while (len) {
        struct ucx_part part;
        size_t size;
        if (len < sizeof(part))
            break;
        memcpy(&part, data, sizeof(part));
        size = sizeof(part) + ((part.len + 7) & ~7ull);
        if (part.len > TFR_SMALL_MAX || size > len)
            break;
        put_apply(link, part.memory, part.at, data + sizeof(part), part.len);
        data += size;
        len -= size;
    }
    if (len)
        peer_broke(link, "a batch that does not add up");
}

static void msg_apply(struct ucx_link *link, const struct ucx_head *head, const void *data,
                      size_t len)
{
    const struct ucx_head ack = {.msg = UCX_MSG_ACK, .channel = head->channel, .seq = head->seq};

    if (head->msg == UCX_MSG_PUT)
        put_apply(link, head->memory, head->at, data, len);
    else if (head->msg == UCX_MSG_BATCH)
        batch_apply(link, data, len);
    else if (head->msg == UCX_MSG_FENCE)
        ucx_msg_send(link, &ack, NULL, NULL, 0, false);
}

static void early_keep(struct ucx_link *link, const struct ucx_head *head, const void *data,
                       size_t len)
{
    struct ucx_channel *channel = &link->channels[head->channel];
    struct ucx_early **at = &channel->early, *early = NULL;

    if (head->seq - channel->rx_seq <= EARLY_MAX)
        early = malloc(sizeof(*early) + len);
    if (!early) {
        peer_broke(link, "a message that is not of its channel's order");
        return;
    }
    early->head = *head;
    early->len = len;
    memcpy(early->data, data, len);
    while (*at && (*at)->head.seq - channel->rx_seq < head->seq - channel->rx_seq)
        at = &(*at)->next;
    early->next = *at;
    *at = early;
}

static void numbered_recv(struct ucx_link *link, const struct ucx_head *head, const void *data,
                          size_t len)
{
    struct ucx_channel *channel = &link->channels[head->channel];
    struct ucx_early *early;

    if (head->seq != channel->rx_seq + 1) {
        early_keep(link, head, data, len);
        return;
    }
    channel->rx_seq++;
    msg_apply(link, head, data, len);
    while ((early = channel->early) && early->head.seq == channel->rx_seq + 1) {
        channel->early = early->next;
        channel->rx_seq++;
        msg_apply(link, &early->head, early->data, early->len);
        free(early);
    }
    sleepers_wake(link);
}

void ucx_early_free(struct ucx_link *link)
{
    struct ucx_early *early;

    for (int i = 0; i < TFR_CHANNELS; i++) {
        while ((early = link->channels[i].early)) {
            link->channels[i].early = early->next;
            free(early);
        }
    }
    while ((early = link->keys)) {
        link->keys = early->next;
        free(early);
    }
}

void ucx_key_send(struct ucx_link *link, struct ucx_mem *mem)
{
    const struct ucx_head head = {
        .msg = UCX_MSG_KEY,
        .memory = mem->name,
        .at = (uint64_t)(uintptr_t)mem->area.addr,
    };

    ucx_msg_send(link, &head, &mem->base, mem->rkey, mem->rkey_len, false);
}

/* The peer has imported what we showed it and has not got the key. */
static void key_answer(struct ucx_link *link, const struct ucx_head *ask)
{
    struct ucx_mem *mem;

    pthread_mutex_lock(&link->dev->lock);
    mem = ucx_mem_find(link->dev, ask->memory);
    if (mem && atomic_load_explicit(&mem->shown, memory_order_relaxed))
        ucx_key_send(link, mem);
    pthread_mutex_unlock(&link->dev->lock);
}

static void key_take(struct ucx_link *link, struct ucx_peer_mem *peer, const struct ucx_head *head,
                     const void *data)
{
    for (int i = 0; i < UCX_EPS; i++) {
        if (ucp_ep_rkey_unpack(link->eps[i], data, &peer->rkeys[i]) == UCS_OK)
            continue;
        while (i--)
            ucp_rkey_destroy(peer->rkeys[i]);
        peer_broke(link, "the peer's memory cannot be reached by the lanes we have");
        return;
    }
    peer->remote = head->at;
    peer->ready = true;
    sleepers_wake(link);
}

static void key_recv(struct ucx_link *link, const struct ucx_head *head, const void *data,
                     size_t len)
{
    struct ucx_peer_mem *peer = link->peers;
    struct ucx_early *early;

    while (peer && peer->name != head->memory)
        peer = peer->next;
    if (peer && !peer->ready)
        key_take(link, peer, head, data);
    if (peer || link->key_n == UCX_MEMS || !(early = malloc(sizeof(*early) + len)))
        return;
    early->head = *head;
    early->len = len;
    memcpy(early->data, data, len);
    early->next = link->keys;
    link->keys = early;
    link->key_n++;
}

void ucx_key_find(struct ucx_link *link, struct ucx_peer_mem *peer)
{
    struct ucx_early **at = &link->keys, *early;

    while (*at && (*at)->head.memory != peer->name)
        at = &(*at)->next;
    early = *at;
    if (!early)
        return;
    *at = early->next;
    link->key_n--;
    key_take(link, peer, &early->head, early->data);
    free(early);
}

static void hello_recv(struct ucx_link *link, const struct ucx_head *head, const void *data,
                       size_t len, const ucp_am_recv_param_t *param)
{
    if (head->channel >= UCX_EPS || len != UCX_TOKEN || link->greeted & 1u << head->channel ||
        memcmp(data, link->token, UCX_TOKEN) != 0)
        return;
    if (!link->eps[head->channel]) {
        if (!(param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP))
            return;
        link->eps[head->channel] = param->reply_ep;
    }
    link->greeted |= 1u << head->channel;
}

static void msg_recv(struct ucx_link *link, const struct ucx_head *head, const void *data,
                     size_t len)
{
    struct ucx_channel *channel = &link->channels[head->channel];

    link->heard = true;
    switch (head->msg) {
    case UCX_MSG_PUT:
    case UCX_MSG_BATCH:
    case UCX_MSG_RING:
    case UCX_MSG_FENCE:
        numbered_recv(link, head, data, len);
        break;
    case UCX_MSG_ACK:
        channel->acked = head->seq;
        break;
    case UCX_MSG_ASK:
        key_answer(link, head);
        break;
    case UCX_MSG_KEY:
        key_recv(link, head, data, len);
        break;
    case UCX_MSG_BYE:
        tfr_debug("ucx: BYE");
        ucx_error_note(link, TFR_E_PEER);
        sleepers_wake(link);
        break;
    case UCX_MSG_PING:
        break;
    default:
        peer_broke(link, "a message of no known kind");
    }
}

ucs_status_t ucx_am_recv(void *arg, const void *header, size_t header_len, void *data, size_t len,
                         const ucp_am_recv_param_t *param)
{
    const uint32_t all = (1u << UCX_EPS) - 1;
    struct ucx_link *link = arg;
    struct ucx_head head;

    if (link->failed || header_len != sizeof(head) || param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV)
        return UCS_OK;
    memcpy(&head, header, sizeof(head));
    if (head.msg == UCX_MSG_HELLO)
        hello_recv(link, &head, data, len, param);
    else if (link->greeted == all && head.channel < TFR_CHANNELS)
        msg_recv(link, &head, data, len);
    return UCS_OK;
}
