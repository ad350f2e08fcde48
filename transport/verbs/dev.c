/* What a worker prepares once: contexts and protection domains, one per NIC and session. */
#define TFR_LOG_PART "transport"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fork.h"
#include "base/log.h"
#include "transport/verbs/verbs.h"

typedef int fork_state_fn(void); /* enum ibv_fork_status, of rdma-core since 35 */

/* Where fork leaves a device's pages to whoever writes last, queues must stay with the parent; of
 * the application's memory nothing is registered there (intercept/reg.c).  Else it is never asked
 * for: it keeps all registered memory from children. */
static void fork_keep(void)
{
    fork_state_fn *state = NULL;

    *(void **)&state = dlsym(RTLD_DEFAULT, "ibv_is_fork_initialized");
    if (tfr_fork_copies() || (state && state() != 0))
        return;
    if (ibv_fork_init() != 0)
        tfr_warn("this kernel does not copy a device's pages when a program forks: set "
                 "RDMAV_FORK_SAFE=1 if it does");
}

tfr_status verbs_prepare(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out)
{
    struct verbs_dev *dev = calloc(1, sizeof(*dev));
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const char *why = NULL;
    bool stripe;

    if (!dev)
        return tfr_fail(TFR_E_NOMEM, "verbs device");
    pthread_once(&once, fork_keep);
    dev->base.ops = &verbs_ops;
    dev->nic_n = verbs_nics_open(cfg, dev->nics, &stripe, &why);
    if (dev->nic_n == 0) {
        free(dev);
        return tfr_fail(TFR_E_UNSUP, "verbs: %s", why);
    }
    pthread_mutex_init(&dev->lock, NULL);
    pthread_mutex_init(&dev->mems_lock, NULL);
    for (uint32_t i = 0; i < dev->nic_n; i++) {
        int fd = dev->nics[i].ctx->async_fd;
        fcntl(fd, F_SETFL,
              fcntl(fd, F_GETFL) | O_NONBLOCK); /* events are looked for, not waited for */
        dev->nics[i].pd = ibv_alloc_pd(dev->nics[i].ctx);
        if (!dev->nics[i].pd) {
            tfr_fail(TFR_E_SYS, "verbs: protection domain of %s: %s",
                     dev->nics[i].ctx->device->name, strerror(errno));
            verbs_nics_close(dev->nics, dev->nic_n);
            free(dev);
            return TFR_E_SYS;
        }
    }
    verbs_nics_offer(dev->nics, dev->nic_n, stripe, &dev->offer);
    *dev_out = &dev->base;
    return TFR_OK;
}

void verbs_release(struct tfr_dev *base)
{
    struct verbs_dev *dev = (struct verbs_dev *)base;

    verbs_nics_close(dev->nics, dev->nic_n);
    pthread_mutex_destroy(&dev->lock);
    pthread_mutex_destroy(&dev->mems_lock);
    free(dev);
}
