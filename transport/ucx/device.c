/* UCX, devices and memory.  A device is a UCP context with settings of our own: TFR_UCX_* (UCX
 * reads them behind its UCX_*, which others set for MPI), lanes with true RMA only, host memory
 * only.  Loading UCX's CUDA module would load libcuda.so.1, which is us: it is left out. */
#define TFR_LOG_PART "transport"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/env.h"
#include "base/fork.h"
#include "base/log.h"
#include "transport/ucx/ucx.h"

enum { PLACE_BITS = 16 };

/* Every libucs exports it, and not every package has its header. */
ucs_status_t ucs_global_opts_set_value(const char *name, const char *value);

/* What UCX_* of the environment must not decide for us, where there are RDMA devices.  UCX 1.13
 * knows these without the prefix of their module, others with it, and none minds the other kind. */
static const struct {
    const char *key, *value;
} settings[] = {
    /* it would keep the application's memory from its children */
    {"FORK_INIT", "n"},
    {"IB_FORK_INIT", "n"},
    /* the thread for device events ends the process when a queue pair is said to end twice */
    {"ASYNC_EVENTS", "n"},
    {"IB_ASYNC_EVENTS", "n"},
    /* no hooks in the application's mmap: we register ourselves */
    {"REG_METHODS", "direct"},
    {"IB_REG_METHODS", "direct"},
};

/* How long a device sends again before the peer is lost, unless TFR_UCX_ says otherwise.  UCX waits
 * a second between two attempts, and has seven, which some devices take for ever. */
static const struct {
    const char *name, *value;
} retries[] = {
    {"TFR_UCX_RC_TIMEOUT", "67ms"},
    {"TFR_UCX_RC_RETRY_COUNT", "6"},
};

enum { PREFIX = sizeof("TFR_UCX_") - 1 };

/* UCX reads settings of its lanes without our prefix: those with it are passed on. */
static void lanes_set(ucp_config_t *config)
{
    for (size_t i = 0; i < sizeof(retries) / sizeof(retries[0]); i++) {
        if (!getenv(retries[i].name))
            ucp_config_modify(config, retries[i].name + PREFIX, retries[i].value);
    }
    for (char **at = environ; *at; at++) {
        char name[64];
        int len = (int)strcspn(*at, "=");
        bool ours = strncmp(*at, "TFR_UCX_RC_", PREFIX + 3) == 0 ||
                    strncmp(*at, "TFR_UCX_DC_", PREFIX + 3) == 0 ||
                    strncmp(*at, "TFR_UCX_IB_", PREFIX + 3) == 0;
        if (!ours || len >= (int)sizeof(name) || (*at)[len] != '=')
            continue;
        snprintf(name, sizeof(name), "%.*s", len, *at);
        ucp_config_modify(config, name + PREFIX, *at + len + 1);
    }
}

/* Do the names stand for lanes inside one machine alone? */
static bool tls_local(const char *tls)
{
    static const char *const local[] = {"posix", "sysv",  "shm",  "sm",
                                        "cma",   "xpmem", "knem", "self"};

    while (*tls) {
        size_t len = strcspn(tls, ","), i = 0, n = sizeof(local) / sizeof(local[0]);
        while (i < n && (strlen(local[i]) != len || strncmp(local[i], tls, len) != 0))
            i++;
        if (i == n)
            return false;
        tls += len + (tls[len] == ',');
    }
    return true;
}

/* "mlx5_0,mlx5_1:2" as UCX writes it: with ports. */
static void nics_name(char *text, size_t size, const char *names)
{
    size_t used = 0;

    while (*names && used + 64 < size) {
        size_t len = strcspn(names, ",");
        bool port = memchr(names, ':', len) != NULL;
        used += (size_t)snprintf(text + used, size - used, "%s%.*s%s", used ? "," : "",
                                 (int)(len < 48 ? len : 48), names, port ? "" : ":1");
        names += len + (names[len] == ',');
    }
}

static tfr_status config_make(struct ucx_dev *dev, const struct tfr_dev_cfg *cfg,
                              ucp_config_t **config_out)
{
    const char *nics = getenv("TFR_UCX_NET_DEVICES");
    ucs_status_t status = ucp_config_read("TFR", NULL, config_out);

    if (status != UCS_OK)
        return tfr_fail(TFR_E_INVAL, "settings of UCX (TFR_UCX_*, UCX_*): %s",
                        ucs_status_string(status));
    ucp_config_modify(*config_out, "WARN_INVALID_CONFIG", "n");
    /* ours are messages (ucx_life_look); UCX's own signs of life go by other lanes */
    ucp_config_modify(*config_out, "KEEPALIVE_INTERVAL", "inf");
    ucp_config_modify(*config_out, "TLS", tfr_env_str("TFR_UCX_TLS"));
    if (nics) /* who sets it knows better than what is near */
        snprintf(dev->nics, sizeof(dev->nics), "%s", nics);
    else if (cfg->name)
        nics_name(dev->nics, sizeof(dev->nics), cfg->name);
    ucp_config_modify(*config_out, "NET_DEVICES", *dev->nics ? dev->nics : "all");
    for (size_t i = 0; !dev->shm_only && i < sizeof(settings) / sizeof(settings[0]); i++)
        ucp_config_modify(*config_out, settings[i].key, settings[i].value);
    if (!dev->shm_only && !tfr_fork_copies()) { /* nothing of the application's is registered */
        ucp_config_modify(*config_out, "FORK_INIT", "try");
        ucp_config_modify(*config_out, "IB_FORK_INIT", "try");
    }
    if (!dev->shm_only)
        lanes_set(*config_out);
    return TFR_OK;
}

/* Once: UCX does not guard its global settings against other threads. */
static void globals_set(void)
{
    ucs_status_t status = ucs_global_opts_set_value("MODULES", tfr_env_str("TFR_UCX_MODULES"));

    if (status != UCS_OK)
        tfr_warn("TFR_UCX_MODULES: %s", ucs_status_string(status));
    if (!getenv("UCX_LOG_LEVEL")) /* its log goes to stdout, which is the application's */
        ucs_global_opts_set_value("LOG_LEVEL", "fatal");
}

static tfr_status context_make(ucp_config_t *config, ucp_context_h *context_out)
{
    const ucp_params_t params = {
        .field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED,
        .features = UCP_FEATURE_AM | UCP_FEATURE_RMA | UCP_FEATURE_WAKEUP,
        .mt_workers_shared = 1,
    };
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    sigset_t all, old;
    ucs_status_t status;

    sigfillset(&all); /* UCX has threads, and signals are the application's */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_once(&once, globals_set);
    status = ucp_init(&params, config, context_out);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (status == UCS_OK)
        return TFR_OK;
    return tfr_fail(TFR_E_UNSUP, "ucx: no device for TFR_UCX_TLS=%s: %s (ucx_info -d lists them)",
                    tfr_env_str("TFR_UCX_TLS"), ucs_status_string(status));
}

tfr_status ucx_prepare(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out)
{
    struct ucx_dev *dev = calloc(1, sizeof(*dev));
    ucp_config_t *config;
    tfr_status status;

    if (!dev)
        return tfr_fail(TFR_E_NOMEM, "ucx device");
    dev->base.ops = &tfr_ucx_ops;
    dev->shm_only = tls_local(tfr_env_str("TFR_UCX_TLS"));
    status = config_make(dev, cfg, &config);
    if (status != TFR_OK)
        goto free_dev;
    status = context_make(config, &dev->context);
    ucp_config_release(config);
    if (status != TFR_OK)
        goto free_dev;
    pthread_mutex_init(&dev->lock, NULL);
    pthread_mutex_init(&dev->links_lock, NULL);
    *dev_out = &dev->base;
    return TFR_OK;

free_dev:
    free(dev);
    return status;
}

void ucx_release(struct tfr_dev *base)
{
    struct ucx_dev *dev = (struct ucx_dev *)base;

    if (dev->mem_n) { /* UCX would end the process */
        tfr_warn("ucx: %u registrations outlive their device", dev->mem_n);
        return;
    }
    ucp_cleanup(dev->context);
    pthread_mutex_destroy(&dev->lock);
    pthread_mutex_destroy(&dev->links_lock);
    free(dev);
}

struct ucx_mem *ucx_mem_find(struct ucx_dev *dev, uint64_t name)
{
    struct ucx_mem *mem = dev->mems[name % UCX_MEMS];

    return mem && mem->name == name ? mem : NULL;
}

static tfr_status mem_name(struct ucx_dev *dev, struct ucx_mem *mem)
{
    uint64_t noise, place = 0;

    if (getrandom(&noise, sizeof(noise), 0) != sizeof(noise))
        return tfr_fail(TFR_E_SYS, "getrandom");
    pthread_mutex_lock(&dev->lock);
    while (place < UCX_MEMS && dev->mems[place])
        place++;
    if (place < UCX_MEMS) {
        dev->mem_n++;
        mem->name = noise << PLACE_BITS | place;
        dev->mems[place] = mem;
    }
    pthread_mutex_unlock(&dev->lock);
    return place < UCX_MEMS ? TFR_OK : tfr_fail(TFR_E_LIMIT, "ucx: %d registrations", UCX_MEMS);
}

static tfr_status mem_map(struct ucx_mem *mem)
{
    const ucp_mem_map_params_t params = {
        .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE,
        .address = mem->area.addr,
        .length = mem->area.len,
        .memory_type = UCS_MEMORY_TYPE_HOST,
    };
    ucs_status_t status = ucp_mem_map(mem->dev->context, &params, &mem->memh);

    if (status != UCS_OK)
        return tfr_fail(TFR_E_NOMEM, "ucx: registering %zu bytes: %s (raise ulimit -l)",
                        mem->area.len, ucs_status_string(status));
    status = ucp_rkey_pack(mem->dev->context, mem->memh, &mem->rkey, &mem->rkey_len);
    if (status == UCS_OK && mem->rkey_len <= UCX_EAGER_MAX)
        return TFR_OK;
    ucp_mem_unmap(mem->dev->context, mem->memh);
    return tfr_fail(TFR_E_SYS, "ucx: remote key: %s", ucs_status_string(status));
}

tfr_status ucx_reg(struct tfr_dev *base, const struct tfr_area *area, struct tfr_mem **mem_out)
{
    struct ucx_mem *mem;
    tfr_status status;

    if (area->kind != TFR_AREA_MEMFD && area->kind != TFR_AREA_HOST)
        return TFR_E_UNSUP;
    mem = calloc(1, sizeof(*mem));
    if (!mem)
        return tfr_fail(TFR_E_NOMEM, "ucx registration");
    mem->base.ops = &tfr_ucx_ops;
    mem->dev = (struct ucx_dev *)base;
    mem->area = *area;
    status = mem_map(mem);
    if (status != TFR_OK)
        goto free_mem;
    status = mem_name(mem->dev, mem);
    if (status != TFR_OK)
        goto unmap;
    *mem_out = &mem->base;
    return TFR_OK;

unmap:
    ucp_rkey_buffer_release(mem->rkey);
    ucp_mem_unmap(mem->dev->context, mem->memh);
free_mem:
    free(mem);
    return status;
}

/* Any link of the device may still read the memory. */
static void links_settle(struct ucx_dev *dev, const _Atomic uint32_t *busy)
{
    pthread_mutex_lock(&dev->links_lock);
    for (struct ucx_link *link = dev->links; link; link = link->next)
        ucx_settle(link, busy);
    pthread_mutex_unlock(&dev->links_lock);
}

void ucx_unreg(struct tfr_mem *base)
{
    struct ucx_mem *mem = (struct ucx_mem *)base;
    struct ucx_dev *dev = mem->dev;

    pthread_mutex_lock(&dev->lock);
    dev->mems[mem->name % UCX_MEMS] = NULL;
    pthread_mutex_unlock(&dev->lock);
    while (atomic_load_explicit(&mem->busy, memory_order_acquire))
        links_settle(dev, &mem->busy);
    ucp_rkey_buffer_release(mem->rkey);
    ucp_mem_unmap(dev->context, mem->memh);
    free(mem);
    pthread_mutex_lock(&dev->lock);
    dev->mem_n--;
    pthread_mutex_unlock(&dev->lock);
}

/* UCX's part of the key goes over the links; those to come get it when they are open. */
static void key_push(struct ucx_mem *mem)
{
    struct ucx_dev *dev = mem->dev;

    pthread_mutex_lock(&dev->links_lock);
    if (!atomic_exchange_explicit(&mem->shown, true, memory_order_relaxed)) {
        for (struct ucx_link *link = dev->links; link; link = link->next) {
            pthread_mutex_lock(&link->lock);
            if (ucx_error_of(link) == TFR_OK)
                ucx_key_send(link, mem);
            pthread_mutex_unlock(&link->lock);
        }
    }
    pthread_mutex_unlock(&dev->links_lock);
}

/* Only who is told the name can put there. */
void ucx_key(const struct tfr_mem *base, struct tfr_key *key_out)
{
    struct ucx_mem *mem = (struct ucx_mem *)(uintptr_t)base;

    key_push(mem);
    *key_out = (struct tfr_key){.len = mem->area.len, .words = {mem->name, UCX_KEY}, .fd = -1};
}
