/* Registrations.  Memory is registered with every NIC of the device, from the moment that there is
 * a link with those that it uses, and what the peer may write or
 * read is said by the caller: memory of the application never gets remote rights.  The keys die
 * with the registration. */
#define TFR_LOG_PART "transport"
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "base/relax.h"
#include "transport/verbs/verbs.h"

typedef struct ibv_mr *dmabuf_fn(struct ibv_pd *pd, uint64_t offset, size_t len, uint64_t iova,
                                 int fd, int access);

/* rdma-core before 34 has none. */
static dmabuf_fn *dmabuf_find(void)
{
    dmabuf_fn *found = NULL;
    void *lib;

    *(void **)&found = dlsym(RTLD_DEFAULT, "ibv_reg_dmabuf_mr");
    if (found)
        return found;
    lib = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_NOLOAD);
    if (lib) {
        *(void **)&found = dlsym(lib, "ibv_reg_dmabuf_mr");
        dlclose(lib);
    }
    return found;
}

tfr_status verbs_reg_failed(size_t len, int error)
{
    struct rlimit limit = {0};

    getrlimit(RLIMIT_MEMLOCK, &limit);
    if ((error == ENOMEM || error == EAGAIN) && limit.rlim_cur != RLIM_INFINITY)
        return tfr_fail(TFR_E_LIMIT,
                        "verbs: %zu KiB cannot be locked: the limit is %llu KiB (ulimit -l); RDMA "
                        "needs it unlimited or larger",
                        len >> 10, (unsigned long long)limit.rlim_cur >> 10);
    return tfr_fail(error == ENOMEM ? TFR_E_NOMEM : TFR_E_SYS, "verbs: registration of %zu KiB: %s",
                    len >> 10, strerror(error));
}

static int access_of(const struct verbs_mem *mem)
{
    int access = IBV_ACCESS_LOCAL_WRITE;

    if (mem->shown)
        access |= IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
#ifdef IBV_ACCESS_OPTIONAL_FIRST
    /* never for memory whose words are polled */
    if (verbs_conf()->relaxed && (!mem->shown || mem->area.kind >= TFR_AREA_GPU))
        access |= IBV_ACCESS_RELAXED_ORDERING;
#endif
    return access;
}

static struct ibv_mr *mr_make(struct verbs_mem *mem, struct ibv_pd *pd)
{
    const struct tfr_area *area = &mem->area;
    int access = access_of(mem);
    struct ibv_mr *mr;
    dmabuf_fn *dmabuf;

    if (area->kind == TFR_AREA_DMABUF) {
        dmabuf = dmabuf_find();
        errno = EOPNOTSUPP;
        return dmabuf ? dmabuf(pd, area->fd_at, area->len, (uintptr_t)area->addr, area->fd, access)
                      : NULL;
    }
    mr = ibv_reg_mr(pd, area->addr, area->len, access);
    if (!mr && !mem->shown && (errno == EFAULT || errno == EPERM)) {
        mr = ibv_reg_mr(pd, area->addr, area->len, 0);
        mem->read_only |= mr != NULL;
    }
    return mr;
}

static void mem_free(struct verbs_mem *mem)
{
    for (uint32_t i = 0; i < mem->dev->nic_n; i++)
        if (mem->mrs[i])
            ibv_dereg_mr(mem->mrs[i]);
    free(mem);
}

/* GPU memory that cannot be registered is no error: the caller knows another way. */
static tfr_status reg_refused(const struct tfr_area *area, int error)
{
    if (area->kind == TFR_AREA_HOST || area->kind == TFR_AREA_MEMFD)
        return verbs_reg_failed(area->len, error);
    tfr_info("verbs: GPU memory cannot be registered %s: %s",
             area->kind == TFR_AREA_DMABUF ? "as a dma-buf" : "by its address", strerror(error));
    return TFR_E_UNSUP;
}

tfr_status verbs_reg(struct tfr_dev *base, const struct tfr_area *area, struct tfr_mem **mem_out)
{
    struct verbs_dev *dev = (struct verbs_dev *)base;
    struct verbs_mem *mem;
    uint32_t used;

    if (area->len == 0 || (area->kind != TFR_AREA_DMABUF && !area->addr))
        return tfr_fail(TFR_E_INVAL, "verbs: registration of %zu bytes at %p", area->len,
                        area->addr);
    mem = calloc(1, sizeof(*mem));
    if (!mem)
        return tfr_fail(TFR_E_NOMEM, "verbs registration");
    pthread_mutex_lock(&dev->mems_lock);
    used = dev->used;
    pthread_mutex_unlock(&dev->mems_lock);
    mem->base.ops = &verbs_ops;
    mem->dev = dev;
    mem->area = *area;
    mem->shown = area->shown || area->kind != TFR_AREA_HOST;
    for (uint32_t i = 0; i < dev->nic_n; i++) {
        if (used && !(used >> i & 1))
            continue;
        mem->mrs[i] = mr_make(mem, dev->nics[i].pd);
        if (!mem->mrs[i]) {
            tfr_status status = reg_refused(area, errno);
            mem_free(mem);
            return status;
        }
    }
    if (mem->shown) {
        pthread_mutex_lock(&dev->mems_lock);
        mem->next = dev->mems;
        dev->mems = mem;
        pthread_mutex_unlock(&dev->mems_lock);
    }
    *mem_out = &mem->base;
    return TFR_OK;
}

/* The peer has the keys of all, and uses those of the link's NICs. */
void verbs_nics_use(struct verbs_dev *dev, uint32_t nics)
{
    pthread_mutex_lock(&dev->mems_lock);
    dev->used |= nics;
    for (struct verbs_mem *mem = dev->mems; mem; mem = mem->next) {
        for (uint32_t i = 0; i < dev->nic_n; i++) {
            if (dev->used >> i & 1 || !mem->mrs[i])
                continue;
            ibv_dereg_mr(mem->mrs[i]);
            mem->mrs[i] = NULL;
        }
    }
    pthread_mutex_unlock(&dev->mems_lock);
}

void verbs_unreg(struct tfr_mem *base)
{
    struct verbs_mem *mem = (struct verbs_mem *)base;
    struct verbs_mem **at = &mem->dev->mems;

    pthread_mutex_lock(&mem->dev->mems_lock);
    while (*at && *at != mem)
        at = &(*at)->next;
    if (*at)
        *at = mem->next;
    pthread_mutex_unlock(&mem->dev->mems_lock);
    pthread_mutex_lock(&mem->dev->lock);
    for (struct verbs_link *link = mem->dev->links; link; link = link->next) {
        pthread_mutex_lock(&link->poll); /* whoever found it for a note has written */
        pthread_mutex_unlock(&link->poll);
        verbs_drain(link);
    }
    pthread_mutex_unlock(&mem->dev->lock);
    mem_free(mem);
}

/* Memory that is not to be shown gives a key that nobody can import. */
void verbs_key(const struct tfr_mem *base, struct tfr_key *key_out)
{
    const struct verbs_mem *mem = (const struct verbs_mem *)base;

    *key_out = (struct tfr_key){.len = mem->area.len, .fd = -1};
    if (!mem->shown)
        return;
    key_out->words[0] = (uintptr_t)mem->area.addr;
    for (uint32_t i = 0; i < mem->dev->nic_n; i++) {
        if (mem->mrs[i])
            key_out->words[1 + i / 2] |= (uint64_t)mem->mrs[i]->rkey << 32 * (i % 2);
    }
}

tfr_status verbs_import(struct tfr_link *base, const struct tfr_key *key,
                        struct tfr_peer_mem **peer_out)
{
    struct verbs_peer_mem *peer;

    if (key->fd >= 0) {
        close(key->fd);
        return tfr_fail(TFR_E_PROTO, "verbs memory with a descriptor");
    }
    if (key->len == 0 || key->words[0] > UINT64_MAX - key->len || !(key->words[1] | key->words[2]))
        return tfr_fail(TFR_E_PROTO, "the peer's memory of %llu bytes at %llx cannot be used",
                        (unsigned long long)key->len, (unsigned long long)key->words[0]);
    peer = malloc(sizeof(*peer));
    if (!peer)
        return tfr_fail(TFR_E_NOMEM, "imported memory");
    peer->base.ops = base->ops;
    peer->base.len = key->len;
    peer->link = verbs_link_of(base);
    peer->dev = peer->link->dev;
    peer->at = key->words[0];
    for (uint32_t i = 0; i < VERBS_NIC_MAX; i++)
        peer->rkeys[i] = (uint32_t)(key->words[1 + i / 2] >> 32 * (i % 2));
    *peer_out = &peer->base;
    return TFR_OK;
}

void verbs_forget(struct tfr_peer_mem *base)
{
    struct verbs_peer_mem *peer = (struct verbs_peer_mem *)base;

    pthread_mutex_lock(&peer->dev->lock);
    for (struct verbs_link *link = peer->dev->links; link; link = link->next)
        if (link == peer->link)
            verbs_drain(link);
    pthread_mutex_unlock(&peer->dev->lock);
    free(peer);
}
