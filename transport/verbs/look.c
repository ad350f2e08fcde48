/* The slow things that may end a link, looked at now and then: the boot socket, librdmacm, events
 * of the device, and the peer's silence.  A device gives a lost peer up after so many retries, but
 * how long those take is the device's own (some have a floor of half a second for each), so a
 * request that is not acknowledged for TFR_VERBS_LOST_MS ends the link here.  Whether the peer's
 * process lives is not asked: its device acknowledges.
 *
 * Before that, a channel that waits is given nothing more: soft-RoCE starts its timer anew with
 * each request, and as long as requests come it would not send again what was lost. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <poll.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "transport/verbs/cm.h"

/* Who hears nothing for so long asks. */
#define SILENCE_NS (400 * TFR_NS_PER_MS)
#define HOLD_NS    (TFR_NS_PER_S / 4)
/* The most that counts between two looks: a process that was stopped has not waited. */
#define STEP_MAX_NS (TFR_NS_PER_S / 4)

static bool has_qp(const struct verbs_link *link, const struct ibv_qp *qp)
{
    bool found = false;

    for (int i = 0; i < TFR_CHANNELS; i++)
        found |= link->channels[i].qp == qp;
    for (int i = 0; i < VERBS_NIC_MAX; i++)
        found |= link->loops[i] == qp;
    return found;
}

static bool has_port(const struct verbs_link *link, uint32_t nic, int port)
{
    bool found = false;

    for (int i = 0; i < TFR_CHANNELS; i++)
        found |= link->channels[i].own_nic == nic && link->channels[i].port == port;
    return found;
}

/* A context tells of all its ports and of the queue pairs of all links. */
static bool is_event_ours(const struct verbs_link *link, uint32_t nic,
                          const struct ibv_async_event *event)
{
    switch (event->event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
        return has_qp(link, event->element.qp);
    case IBV_EVENT_CQ_ERR:
        return event->element.cq == link->cqs[nic].send || event->element.cq == link->cqs[nic].recv;
    case IBV_EVENT_PORT_ERR:
        return has_port(link, nic, event->element.port_num);
    default:
        return link->cqs[nic].events != NULL;
    }
}

static void port_event(struct verbs_link *link, const struct ibv_async_event *event)
{
    switch (event->event_type) {
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_CQ_ERR:
    case IBV_EVENT_DEVICE_FATAL:
    case IBV_EVENT_PORT_ERR:
        verbs_fail(link, TFR_E_PEER, ibv_event_type_str(event->event_type));
        break;
    default:
        break; /* addresses and tables that change do not end a connection */
    }
}

static void events_take(struct verbs_link *link)
{
    for (uint32_t i = 0; i < link->dev->nic_n; i++) {
        struct ibv_async_event event;
        while (ibv_get_async_event(link->dev->nics[i].ctx, &event) == 0) {
            if (is_event_ours(link, i, &event))
                port_event(link, &event);
            ibv_ack_async_event(&event);
        }
    }
}

/* For how long a request of the channel that will tell of its end has not, and none before it. */
static uint64_t wait_add(struct verbs_channel *channel, uint64_t step)
{
    bool owed = atomic_load_explicit(&channel->extras, memory_order_relaxed) ||
                atomic_load_explicit(&channel->signalled, memory_order_relaxed) >
                    atomic_load_explicit(&channel->retired, memory_order_relaxed);

    if (!owed || channel->ends != channel->ends_seen) {
        channel->ends_seen = channel->ends;
        channel->waits_ns = 0;
    } else {
        channel->waits_ns += step;
    }
    atomic_store_explicit(&channel->held, channel->waits_ns >= HOLD_NS, memory_order_relaxed);
    return channel->waits_ns;
}

/* What the device has already said counts. */
static void lost_look(struct verbs_link *link, uint64_t step)
{
    uint64_t limit = verbs_conf()->lost_ms * TFR_NS_PER_MS;
    char why[96];

    for (int i = 0; i < TFR_CHANNELS; i++) {
        struct verbs_channel *channel = &link->channels[i];
        if (wait_add(channel, step) < limit)
            continue;
        verbs_poll_locked(link);
        if (wait_add(channel, 0) < limit)
            continue;
        snprintf(why, sizeof(why), "nothing was acknowledged for %u ms (TFR_VERBS_LOST_MS)",
                 verbs_conf()->lost_ms);
        verbs_fail(link, TFR_E_PEER, why);
    }
}

/* With link->poll held.  A few system calls: now and then. */
void verbs_look(struct verbs_link *link)
{
    struct pollfd boot = {.fd = link->boot, .events = POLLRDHUP};
    uint64_t now = tfr_clock_now(), step = now - link->looked_ns;

    if (poll(&boot, 1, 0) == 1)
        verbs_fail(link, TFR_E_PEER, NULL);
    verbs_cm_look(link);
    events_take(link);
    if (verbs_error(link) != TFR_OK)
        return;
    link->looked_ns = now;
    lost_look(link, step < STEP_MAX_NS ? step : STEP_MAX_NS);
    if (link->heard || link->heard_ns == 0) {
        link->heard = false;
        link->heard_ns = now;
    } else if (now - link->heard_ns > SILENCE_NS && verbs_error(link) == TFR_OK) {
        link->heard_ns = now;
        if (!atomic_load_explicit(&link->channels[0].extras, memory_order_relaxed))
            verbs_extra(&link->channels[0], NULL, 0, NULL); /* is anybody there? */
    }
}
