/* The TFR_VERBS_ settings, read once. */
#define TFR_LOG_PART "transport"
#include <stdlib.h>
#include <string.h>

#include "base/env.h"
#include "base/log.h"
#include "transport/verbs/verbs.h"

static struct verbs_conf conf;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* -1 if it is not set. */
static int number(const char *name)
{
    const char *text = tfr_env_str(name);

    return text && *text ? (int)strtol(text, NULL, 0) : -1;
}

static uint32_t bounded(const char *name, uint32_t least, uint32_t most)
{
    uint64_t value = tfr_env_u64(name);

    if (value >= least && value <= most)
        return (uint32_t)value;
    value = value < least ? least : most;
    tfr_warn("%s is taken as %u: from %u to %u", name, (unsigned)value, least, most);
    return (uint32_t)value;
}

/* Which of the words, from 0; 0 with a warning if it is none of them. */
static int choice(const char *name, const char *const *words)
{
    const char *text = tfr_env_str(name);

    for (int i = 0; words[i]; i++) {
        if (text && strcmp(text, words[i]) == 0)
            return i;
    }
    tfr_warn("%s is %s, not \"%s\"", name, words[0], text ? text : "");
    return 0;
}

static void conf_read(void)
{
    static const char *const notifies[] = {"auto", "mem", "imm", "send", NULL};
    static const char *const lands[] = {"read", "none", NULL};

    conf = (struct verbs_conf){
        .devices = tfr_env_str("TFR_VERBS_DEVICE"),
        .port = number("TFR_VERBS_PORT"),
        .gid_at = number("TFR_VERBS_GID"),
        .pkey = number("TFR_VERBS_PKEY"),
        .inline_len = bounded("TFR_VERBS_INLINE", 0, TFR_SMALL_MAX),
        .depth = bounded("TFR_VERBS_DEPTH", 32, 16384),
        .mtu = bounded("TFR_VERBS_MTU", 256, 4096),
        .retry = bounded("TFR_VERBS_RETRY", 0, 6), /* 7 never ends on some devices */
        .rnr_retry = 6,
        .timeout = bounded("TFR_VERBS_TIMEOUT", 1, 20),
        .lost_ms = bounded("TFR_VERBS_LOST_MS", 100, 60000),
        .sl = bounded("TFR_VERBS_SL", 0, 15),
        .traffic_class = bounded("TFR_VERBS_TC", 0, 255),
        .spin_us = bounded("TFR_VERBS_SPIN", 0, 1000),
        .notify = (enum verbs_notify)choice("TFR_VERBS_NOTIFY", notifies),
        .land = (enum verbs_land)choice("TFR_VERBS_LAND", lands),
        .relaxed = tfr_env_bool("TFR_VERBS_RELAXED", false),
        .cm = tfr_env_bool("TFR_VERBS_CM", false),
    };
}

enum ibv_mtu verbs_mtu_most(void)
{
    enum ibv_mtu mtu = IBV_MTU_256;

    while (mtu < IBV_MTU_4096 && 256u << mtu <= verbs_conf()->mtu)
        mtu++;
    return mtu;
}

const struct verbs_conf *verbs_conf(void)
{
    pthread_once(&once, conf_read);
    return &conf;
}
