/* Shared memory, set-up: sealed memfds pass over the boot socket, and open() exchanges the two
 * control pages and a socket pair.  Nothing that the peer sends is mapped before seals and size are
 * checked. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <linux/membarrier.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "transport/boot.h"
#include "transport/shm/shm.h"

struct hello {
    uint32_t version, barrier;
};
enum { VERSION = 1, OPEN_MS = 3000 };

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif
#ifndef UNDER_TSAN
#define UNDER_TSAN 0
#endif

/* Lets the peer's membarrier reach our threads.  ThreadSanitizer knows nothing of it. */
static bool barrier_register(void)
{
    return !UNDER_TSAN && tfr_perf_on("membarrier") &&
           syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0 &&
           shm_barrier();
}

static tfr_status shm_prepare(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out)
{
    struct tfr_dev *dev = malloc(sizeof(*dev));

    (void)cfg;
    if (!dev)
        return tfr_fail(TFR_E_NOMEM, "shm device");
    dev->ops = &tfr_shm_ops;
    *dev_out = dev;
    return TFR_OK;
}

static void shm_release(struct tfr_dev *dev)
{
    free(dev);
}

static tfr_status shm_reg(struct tfr_dev *dev, const struct tfr_area *area,
                          struct tfr_mem **mem_out)
{
    struct shm_mem *mem;

    (void)dev;
    if (area->kind != TFR_AREA_MEMFD && area->kind != TFR_AREA_HOST)
        return TFR_E_UNSUP;
    mem = malloc(sizeof(*mem));
    if (!mem)
        return tfr_fail(TFR_E_NOMEM, "shm registration");
    mem->base.ops = &tfr_shm_ops;
    mem->area = *area;
    *mem_out = &mem->base;
    return TFR_OK;
}

static void shm_unreg(struct tfr_mem *mem)
{
    free(mem);
}

/* HOST memory has no descriptor: it can be a source here, and the peer's import refuses it. */
static void shm_key(const struct tfr_mem *base, struct tfr_key *key_out)
{
    const struct shm_mem *mem = (const struct shm_mem *)base;

    *key_out = (struct tfr_key){
        .len = mem->area.len,
        .words = {mem->area.fd_at},
        .fd = mem->area.kind == TFR_AREA_MEMFD ? mem->area.fd : -1,
    };
}

static tfr_status hello_send(const struct shm_link *link, struct tfr_boot *boot, int bell,
                             bool barrier)
{
    struct hello hello = {VERSION, barrier};
    struct tfr_boot_msg msg = {
        .type = TFR_BOOT_LINK,
        .len = sizeof(hello),
        .body = &hello,
        .fds = {link->own_area.fd, bell},
        .fd_n = bell >= 0 ? 2 : 1,
    };
    tfr_status status = tfr_boot_send(boot, &msg, OPEN_MS);

    return status == TFR_OK ? TFR_OK : tfr_fail(status, "shm link: %s", tfr_status_str(status));
}

static bool is_bell(int fd)
{
    int domain = 0, type = 0;
    socklen_t len = sizeof(int);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM;
}

/* Takes the peer's page, its promise about membarrier, and (bell >= 0 expected) our end of the
 * socket. */
static tfr_status hello_recv(struct shm_link *link, struct tfr_boot *boot, bool with_bell,
                             bool barrier)
{
    struct tfr_boot_msg msg;
    struct hello hello;
    void *page;
    tfr_status status = tfr_boot_recv(boot, &msg, OPEN_MS);

    if (status != TFR_OK)
        return tfr_fail(status, "shm link: %s", tfr_status_str(status));
    if (msg.type != TFR_BOOT_LINK || msg.len != sizeof(hello) || msg.fd_n != 1 + with_bell) {
        status = tfr_fail(TFR_E_PROTO, "shm link: unexpected boot message %#x", msg.type);
        goto msg_free;
    }
    memcpy(&hello, msg.body, sizeof(hello));
    if (hello.version != VERSION || (with_bell && !is_bell(msg.fds[1]))) {
        status = tfr_fail(TFR_E_PROTO, "shm link: hello of version %u", hello.version);
        goto msg_free;
    }
    status = tfr_memfd_map(msg.fds[0], 0, sizeof(struct shm_ctl), NULL, &page);
    if (status != TFR_OK)
        goto msg_free;
    madvise(page, sizeof(struct shm_ctl), MADV_DONTFORK);
    link->peer = page;
    link->barrier = barrier && hello.barrier;
    if (with_bell) {
        link->bell = msg.fds[1];
        msg.fds[1] = -1;
    }

msg_free:
    tfr_boot_msg_fini(&msg);
    return status;
}

/* One side says hello and brings the socket pair, the other answers. */
static tfr_status hello_exchange(struct shm_link *link, struct tfr_boot *boot, bool first)
{
    bool barrier = barrier_register();
    tfr_status status;
    int pair[2];

    if (!first) {
        status = hello_recv(link, boot, true, barrier);
        return status == TFR_OK ? hello_send(link, boot, -1, barrier) : status;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return tfr_fail(TFR_E_SYS, "socketpair: %s", strerror(errno));
    link->bell = pair[0];
    status = hello_send(link, boot, pair[1], barrier);
    close(pair[1]);
    return status == TFR_OK ? hello_recv(link, boot, false, barrier) : status;
}

static void link_free(struct shm_link *link)
{
    if (link->bell >= 0)
        close(link->bell);
    if (link->peer)
        munmap(link->peer, sizeof(struct shm_ctl));
    munmap(link->own_area.addr, link->own_area.len);
    close(link->own_area.fd);
    pthread_mutex_destroy(&link->lock);
    free(link);
}

static tfr_status shm_open_link(struct tfr_dev *dev, struct tfr_boot *boot, bool first,
                                struct tfr_link **link_out)
{
    struct shm_link *link = calloc(1, sizeof(*link));
    tfr_status status;

    (void)dev;
    if (!link)
        return tfr_fail(TFR_E_NOMEM, "shm link");
    link->base.ops = &tfr_shm_ops;
    link->bell = -1;
    status = tfr_memfd_create("tfr-link", sizeof(struct shm_ctl), NULL, &link->own_area);
    if (status != TFR_OK) {
        free(link);
        return status;
    }
    madvise(link->own_area.addr, link->own_area.len, MADV_DONTFORK);
    link->own = link->own_area.addr;
    pthread_mutex_init(&link->lock, NULL);
    status = hello_exchange(link, boot, first);
    if (status != TFR_OK) {
        link_free(link);
        return status;
    }
    tfr_info("shm link: bells %s", link->barrier ? "by membarrier" : "by fences");
    *link_out = &link->base;
    return TFR_OK;
}

/* Closing the socket wakes a peer that sleeps; the word tells one that does not. */
static void shm_close(struct tfr_link *base)
{
    struct shm_link *link = (struct shm_link *)base;

    atomic_store_explicit(&link->own->closed, 1, memory_order_release);
    link_free(link);
}

static void shm_forked(struct tfr_link *base)
{
    struct shm_link *link = (struct shm_link *)base;

    close(link->bell);
    close(link->own_area.fd);
}

static tfr_status shm_import(struct tfr_link *link, const struct tfr_key *key,
                             struct tfr_peer_mem **peer_out)
{
    struct shm_peer_mem *peer;
    tfr_status status;
    void *addr;

    (void)link;
    if (key->fd < 0)
        return tfr_fail(TFR_E_INVAL, "shm memory without a descriptor");
    status = tfr_memfd_map(key->fd, key->words[0], key->len, NULL, &addr);
    close(key->fd);
    if (status != TFR_OK)
        return status;
    peer = malloc(sizeof(*peer));
    if (!peer) {
        munmap(addr, key->len);
        return tfr_fail(TFR_E_NOMEM, "imported memory");
    }
    madvise(addr, key->len, MADV_DONTFORK);
    peer->base.ops = &tfr_shm_ops;
    peer->base.len = key->len;
    peer->addr = addr;
    *peer_out = &peer->base;
    return TFR_OK;
}

static void shm_forget(struct tfr_peer_mem *base)
{
    struct shm_peer_mem *peer = (struct shm_peer_mem *)base;

    munmap(peer->addr, peer->base.len);
    free(peer);
}

static void *shm_addr(const struct tfr_peer_mem *base)
{
    return ((const struct shm_peer_mem *)base)->addr;
}

struct tfr_transport_ops tfr_shm_ops = {
    .name = "shm",
    .caps = TFR_CAP_ONESIDED | TFR_CAP_GET | TFR_CAP_MAPPED | TFR_CAP_SLEEP,
    .prepare = shm_prepare,
    .release = shm_release,
    .reg = shm_reg,
    .unreg = shm_unreg,
    .key = shm_key,
    .open = shm_open_link,
    .close = shm_close,
    .import = shm_import,
    .forget = shm_forget,
    .addr = shm_addr,
    .put = shm_put,
    .get = shm_get,
    .progress = shm_progress,
    .arm = shm_arm,
    .disarm = shm_disarm,
    .ring = shm_ring,
    .forked = shm_forked,
};
