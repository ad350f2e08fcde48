/* A fault link, set-up: devices, memory and links are pairs of ours and the inner transport's.
 * tfr_fault_wrap gives each transport an op table of its own, since prepare() learns nothing but
 * the table it is called through. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "transport/fault/fault.h"

enum { WRAPS = 6 };

static struct wrap {
    struct tfr_transport_ops ops;
    const struct tfr_transport_ops *inner;
    char name[24];
} wraps[WRAPS];
static pthread_mutex_t wraps_lock = PTHREAD_MUTEX_INITIALIZER;

static tfr_status fault_prepare(const struct wrap *wrap, const struct tfr_dev_cfg *cfg,
                                struct tfr_dev **dev_out)
{
    struct fault_dev *dev = calloc(1, sizeof(*dev));
    tfr_status status;

    if (!dev)
        return tfr_fail(TFR_E_NOMEM, "fault device");
    dev->base.ops = &wrap->ops;
    status = wrap->inner->prepare(cfg, &dev->inner);
    if (status != TFR_OK) {
        free(dev);
        return status;
    }
    pthread_mutex_init(&dev->lock, NULL);
    *dev_out = &dev->base;
    return TFR_OK;
}

#define PREPARE(at)                                                                                \
    static tfr_status prepare_##at(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out)        \
    {                                                                                              \
        return fault_prepare(&wraps[at], cfg, dev_out);                                            \
    }
PREPARE(0)
PREPARE(1)
PREPARE(2)
PREPARE(3)
PREPARE(4)
PREPARE(5)
static tfr_status (*const prepares[WRAPS])(const struct tfr_dev_cfg *, struct tfr_dev **) = {
    prepare_0, prepare_1, prepare_2, prepare_3, prepare_4, prepare_5,
};

static void fault_release(struct tfr_dev *base)
{
    struct fault_dev *dev = (struct fault_dev *)base;

    dev->inner->ops->release(dev->inner);
    pthread_mutex_destroy(&dev->lock);
    free(dev);
}

static tfr_status fault_reg(struct tfr_dev *base, const struct tfr_area *area,
                            struct tfr_mem **mem_out)
{
    struct fault_dev *dev = (struct fault_dev *)base;
    struct fault_mem *mem = calloc(1, sizeof(*mem));
    tfr_status status;

    if (!mem)
        return tfr_fail(TFR_E_NOMEM, "fault registration");
    mem->base.ops = base->ops;
    mem->dev = dev;
    status = dev->inner->ops->reg(dev->inner, area, &mem->inner);
    if (status != TFR_OK) {
        free(mem);
        return status;
    }
    *mem_out = &mem->base;
    return TFR_OK;
}

/* Any link of the device may still read the memory. */
static bool links_settle(struct fault_dev *dev, const _Atomic uint32_t *busy)
{
    bool idle = true;

    pthread_mutex_lock(&dev->lock);
    for (struct fault_link *link = dev->links; link; link = link->next)
        idle &= fault_settle(link, busy);
    pthread_mutex_unlock(&dev->lock);
    return idle;
}

/* What a dead link does not give back is leaked: it may still be written to. */
static void fault_unreg(struct tfr_mem *base)
{
    struct fault_mem *mem = (struct fault_mem *)base;

    while (atomic_load_explicit(&mem->busy, memory_order_acquire)) {
        if (!links_settle(mem->dev, &mem->busy))
            return;
    }
    mem->inner->ops->unreg(mem->inner);
    free(mem);
}

static void fault_key(const struct tfr_mem *base, struct tfr_key *key_out)
{
    const struct fault_mem *mem = (const struct fault_mem *)base;

    mem->inner->ops->key(mem->inner, key_out);
}

static void seeds_plant(struct fault_link *link, bool first)
{
    uint64_t seed = tfr_env_u64("TFR_FAULT_SEED") * 2 + first;

    for (uint64_t i = 0; i < TFR_CHANNELS; i++)
        link->put_seed[i] = seed + (i << 56);
    link->wire_seed = ~seed;
}

static void link_init(struct fault_link *link)
{
    pthread_condattr_t attr;

    fault_queue_init(&link->delivered);
    for (int i = 0; i < TFR_CHANNELS; i++)
        fault_queue_init(&link->channels[i]);
    for (int i = 0; i < FAULT_FLIGHTS; i++) {
        link->flights[i].next = link->spare;
        link->spare = &link->flights[i];
    }
    link->inner_fd = -1;
    pthread_mutex_init(&link->lock, NULL);
    pthread_mutex_init(&link->inner_lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&link->work, &attr);
    pthread_condattr_destroy(&attr);
}

static void link_free(struct fault_link *link)
{
    pthread_mutex_destroy(&link->lock);
    pthread_mutex_destroy(&link->inner_lock);
    pthread_cond_destroy(&link->work);
    free(link);
}

static tfr_status sleep_init(struct fault_link *link)
{
    struct epoll_event event = {.events = EPOLLIN};

    link->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (link->event < 0)
        return tfr_fail(TFR_E_SYS, "eventfd of the fault link: %s", strerror(errno));
    link->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (link->epoll >= 0 && epoll_ctl(link->epoll, EPOLL_CTL_ADD, link->event, &event) == 0)
        return TFR_OK;
    tfr_fail(TFR_E_SYS, "epoll of the fault link: %s", strerror(errno));
    if (link->epoll >= 0)
        close(link->epoll);
    close(link->event);
    return TFR_E_SYS;
}

static void sleep_fini(struct fault_link *link)
{
    close(link->epoll);
    close(link->event);
}

static tfr_status wire_start(struct fault_link *link)
{
    sigset_t all, old;
    int err;

    sigfillset(&all); /* signals are the application's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&link->wire, NULL, fault_wire_main, link);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return err ? tfr_fail(TFR_E_SYS, "thread of the fault link: %s", strerror(err)) : TFR_OK;
}

static void dev_link_add(struct fault_dev *dev, struct fault_link *link)
{
    link->dev = dev;
    pthread_mutex_lock(&dev->lock);
    link->next = dev->links;
    dev->links = link;
    pthread_mutex_unlock(&dev->lock);
}

static void dev_link_remove(struct fault_dev *dev, struct fault_link *link)
{
    struct fault_link **at = &dev->links;

    pthread_mutex_lock(&dev->lock);
    while (*at != link)
        at = &(*at)->next;
    *at = link->next;
    pthread_mutex_unlock(&dev->lock);
}

static tfr_status fault_open(struct tfr_dev *base, struct tfr_boot *boot, bool first,
                             struct tfr_link **link_out)
{
    struct fault_dev *dev = (struct fault_dev *)base;
    struct fault_link *link = calloc(1, sizeof(*link));
    tfr_status status;

    if (!link)
        return tfr_fail(TFR_E_NOMEM, "fault link");
    link->base.ops = base->ops;
    seeds_plant(link, first);
    link_init(link);
    status = dev->inner->ops->open(dev->inner, boot, first, &link->inner);
    if (status != TFR_OK)
        goto free_link;
    status = sleep_init(link);
    if (status != TFR_OK)
        goto close_inner;
    status = wire_start(link);
    if (status != TFR_OK)
        goto fini_sleep;
    dev_link_add(dev, link);
    *link_out = &link->base;
    return TFR_OK;

fini_sleep:
    sleep_fini(link);
close_inner:
    link->inner->ops->close(link->inner);
free_link:
    link_free(link);
    return status;
}

/* What the wire still carries is lost, as it would be with a queue pair. */
static void fault_close(struct tfr_link *base)
{
    struct fault_link *link = fault_link_of(base);
    struct fault_flight *flight;

    dev_link_remove(link->dev, link);
    pthread_mutex_lock(&link->lock);
    link->stop = true;
    pthread_cond_signal(&link->work);
    pthread_mutex_unlock(&link->lock);
    pthread_join(link->wire, NULL);
    pthread_mutex_lock(&link->lock);
    for (int i = 0; i < TFR_CHANNELS; i++) {
        while ((flight = fault_queue_pop(&link->channels[i]))) {
            flight->status = TFR_E_PEER;
            fault_flight_end(flight);
        }
    }
    pthread_mutex_unlock(&link->lock);
    link->inner->ops->close(link->inner);
    fault_done_run(link, true);
    sleep_fini(link);
    link_free(link);
}

static void fault_forked(struct tfr_link *base)
{
    struct fault_link *link = fault_link_of(base);

    link->inner->ops->forked(link->inner);
    sleep_fini(link);
}

static tfr_status fault_import(struct tfr_link *base, const struct tfr_key *key,
                               struct tfr_peer_mem **peer_out)
{
    struct fault_link *link = fault_link_of(base);
    struct tfr_peer_mem *inner;
    struct fault_peer_mem *peer;
    tfr_status status = link->inner->ops->import(link->inner, key, &inner);

    if (status != TFR_OK)
        return status;
    peer = calloc(1, sizeof(*peer));
    if (!peer) {
        inner->ops->forget(inner);
        return tfr_fail(TFR_E_NOMEM, "imported memory");
    }
    peer->base.ops = base->ops;
    peer->base.len = inner->len;
    peer->inner = inner;
    peer->link = link;
    *peer_out = &peer->base;
    return TFR_OK;
}

/* Leaked like memory in unreg. */
static void fault_forget(struct tfr_peer_mem *base)
{
    struct fault_peer_mem *peer = (struct fault_peer_mem *)base;

    while (atomic_load_explicit(&peer->busy, memory_order_acquire)) {
        if (!fault_settle(peer->link, &peer->busy))
            return;
    }
    peer->inner->ops->forget(peer->inner);
    free(peer);
}

static void wrap_init(struct wrap *wrap, const struct tfr_transport_ops *inner)
{
    wrap->inner = inner;
    snprintf(wrap->name, sizeof(wrap->name), "fault:%s", inner->name);
    wrap->ops = (struct tfr_transport_ops){
        .name = strcmp(inner->name, "shm") == 0 ? "fault" : wrap->name,
        .caps = inner->caps & ~(uint32_t)TFR_CAP_MAPPED,
        .prepare = prepares[wrap - wraps],
        .release = fault_release,
        .reg = fault_reg,
        .unreg = fault_unreg,
        .key = fault_key,
        .offer = inner->offer,
        .suits = inner->suits,
        .open = fault_open,
        .close = fault_close,
        .import = fault_import,
        .forget = fault_forget,
        .put = fault_put,
        .get = fault_get,
        .land = fault_land,
        .progress = fault_progress,
        .busy = fault_busy,
        .spread = fault_spread,
        .count = fault_count,
        .arm = fault_arm,
        .disarm = fault_disarm,
        .ring = fault_ring,
        .forked = fault_forked,
    };
    tfr_transport_defaults(&wrap->ops);
}

const struct tfr_transport_ops *tfr_fault_wrap(const struct tfr_transport_ops *inner)
{
    const struct tfr_transport_ops *ops = NULL;

    pthread_mutex_lock(&wraps_lock);
    for (int i = 0; i < WRAPS && !ops; i++) {
        if (!wraps[i].inner)
            wrap_init(&wraps[i], inner);
        if (wraps[i].inner == inner)
            ops = &wraps[i].ops;
    }
    pthread_mutex_unlock(&wraps_lock);
    return ops;
}
