/* The one name that this library exports. */
#include "base/env.h"
#include "transport/verbs/verbs.h"

struct tfr_transport_ops verbs_ops = {
    .name = "verbs",
    .caps = TFR_CAP_ONESIDED | TFR_CAP_GET | TFR_CAP_GPU_MEM | TFR_CAP_SLEEP,
    .prepare = verbs_prepare,
    .release = verbs_release,
    .reg = verbs_reg,
    .unreg = verbs_unreg,
    .key = verbs_key,
    .offer = verbs_offer,
    .suits = verbs_suits,
    .tell = verbs_tell,
    .open = verbs_open,
    .close = verbs_close,
    .import = verbs_import,
    .forget = verbs_forget,
    .put = verbs_put,
    .get = verbs_get,
    .land = verbs_land_op,
    .progress = verbs_progress,
    .busy = verbs_busy,
    .spread = verbs_spread,
    .count = verbs_count,
    .arm = verbs_arm,
    .disarm = verbs_disarm,
    .ring = verbs_ring,
    .forked = verbs_forked,
};

__attribute__((visibility("default"))) struct tfr_transport_ops *tfr_transport_plugin(uint32_t abi);

/* Where puts may be told by immediates they need progress at the other side.  iWARP, and what
 * stands for it in tests, has no gets. */
struct tfr_transport_ops *tfr_transport_plugin(uint32_t abi)
{
    if (abi != TFR_TRANSPORT_ABI)
        return NULL;
    tfr_env_quiet();
    if (verbs_imm_likely())
        verbs_ops.caps &= ~(uint32_t)TFR_CAP_ONESIDED;
    if (verbs_iwarp_only() || verbs_conf()->notify == VERBS_NOTIFY_SEND)
        verbs_ops.caps &= ~(uint32_t)TFR_CAP_GET;
    return &verbs_ops;
}
