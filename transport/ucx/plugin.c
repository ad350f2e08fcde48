/* UCX as lib/tfr/ucx.so: the op table, and whether this machine has what it needs. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "base/env.h"
#include "transport/ucx/ucx.h"

#define UCX_TLS_DEFAULT "rc,dc" /* the row's default in base/env.c */

static bool rdma_there(void)
{
    DIR *dir = opendir("/sys/class/infiniband");
    const struct dirent *entry = NULL;

    while (dir && (entry = readdir(dir)) && entry->d_name[0] == '.')
        ;
    if (dir)
        closedir(dir);
    return entry != NULL;
}

/* The lanes asked for; both sides must ask for the same, and only a test asks for local ones. */
static tfr_status ucx_offer(struct tfr_offer *offer_out, const char **why_out)
{
    const char *tls = tfr_env_str("TFR_UCX_TLS");

    if (strcmp(tls, UCX_TLS_DEFAULT) == 0 && !rdma_there()) {
        *why_out = "no RDMA device here (/sys/class/infiniband is empty)";
        return TFR_E_UNSUP;
    }
    *offer_out = (struct tfr_offer){0};
    offer_out->len = (uint32_t)snprintf((char *)offer_out->body, TFR_OFFER_MAX, "%s", tls);
    return TFR_OK;
}

static bool ucx_suits(const struct tfr_offer *own, const struct tfr_offer *peer,
                      const char **why_out)
{
    *why_out = "the two sides differ in TFR_UCX_TLS";
    return own->len == peer->len && own->len < TFR_OFFER_MAX &&
           memcmp(own->body, peer->body, own->len) == 0;
}

struct tfr_transport_ops tfr_ucx_ops = {
    .name = "ucx",
    .caps = TFR_CAP_GET | TFR_CAP_SLEEP,
    .prepare = ucx_prepare,
    .release = ucx_release,
    .reg = ucx_reg,
    .unreg = ucx_unreg,
    .key = ucx_key,
    .offer = ucx_offer,
    .suits = ucx_suits,
    .open = ucx_open,
    .close = ucx_close,
    .import = ucx_import,
    .forget = ucx_forget,
    .put = ucx_put,
    .get = ucx_get,
    .progress = ucx_progress,
    .busy = ucx_busy,
    .count = ucx_count,
    .arm = ucx_arm,
    .disarm = ucx_disarm,
    .ring = ucx_ring,
    .forked = ucx_forked,
};

__attribute__((visibility("default"))) struct tfr_transport_ops *tfr_transport_plugin(uint32_t abi)
{
    tfr_env_quiet();
    return abi == TFR_TRANSPORT_ABI ? &tfr_ucx_ops : NULL;
}
