/* Which of the executor's devices the program sees: CUDA_VISIBLE_DEVICES as a driver reads it, or
 * TFR_VISIBLE_DEVICES instead.  Called once, before anybody reads the snapshot.  Surprising: batch
 * systems set the first for the GPUs of the node that the program runs on, which it cannot be told
 * from, so that no device at all is worth a line. */
#define TFR_LOG_PART "intercept"
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/env.h"
#include "base/log.h"
#include "base/visible.h"
#include "intercept/entry.h"

/* Programs hide all devices on purpose, to run on the CPU. */
static bool on_purpose(const char *list)
{
    return !*list || strncmp(list, "-1", 2) == 0 || strcasecmp(list, "none") == 0;
}

static void explain(const char *name, const char *list, uint32_t n)
{
    static _Atomic bool said;
    if (on_purpose(list) || atomic_exchange_explicit(&said, true, memory_order_relaxed))
        return;
    tfr_say("%s=%s names none of the executor's %u devices%s", name, list, n,
            getenv("SLURM_JOB_ID")
                ? "; if it is about GPUs of this node, set TFR_VISIBLE_DEVICES=all"
                : "");
}

void tfr_visible_apply(struct tfr_snapshot *snapshot)
{
    struct tfr_visible_device all[TFR_DEVICES_MAX];
    struct tfr_snapshot_device seen[TFR_DEVICES_MAX];
    int at[TFR_DEVICES_MAX];
    const char *name = "TFR_VISIBLE_DEVICES", *list = tfr_env_str(name);
    if (list && strcasecmp(list, "all") == 0)
        list = NULL;
    else if (!list)
        list = getenv(name = "CUDA_VISIBLE_DEVICES");
    uint32_t n = snapshot->device_n;
    for (uint32_t i = 0; i < n; i++)
        memcpy(all[i].uuid, snapshot->device[i].uuid, sizeof all[i].uuid);
    snapshot->device_n = (uint32_t)tfr_visible_read(list, all, (int)n, at);
    if (!snapshot->device_n)
        explain(name, list, n);
    for (uint32_t i = 0; i < snapshot->device_n; i++) {
        seen[i] = snapshot->device[at[i]];
        tfr_client.real[i] = (uint8_t)at[i];
    }
    memcpy(snapshot->device, seen, snapshot->device_n * sizeof seen[0]);
}
