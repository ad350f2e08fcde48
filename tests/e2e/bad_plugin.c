/* A verbs.so that promises everything and keeps nothing: TFR_TEST_BAD says where it fails.  For the
 * tests of how client and executor agree on a transport. */
#include <stdlib.h>
#include <string.h>

#include "transport/backend.h"

static struct tfr_transport_ops ops;
static struct tfr_dev dev = {.ops = &ops};
static struct tfr_mem mem = {.ops = &ops};

static bool bad(const char *where)
{
    const char *at = getenv("TFR_TEST_BAD");
    return at && strcmp(at, where) == 0;
}

static tfr_status offer(struct tfr_offer *offer_out, const char **why_out)
{
    memset(offer_out, 0, sizeof *offer_out);
    *why_out = "the test says that there is no device";
    return bad("offer") ? TFR_E_UNSUP : TFR_OK;
}

static bool suits(const struct tfr_offer *own, const struct tfr_offer *peer, const char **why_out)
{
    (void)own, (void)peer;
    *why_out = "the test says that the two have no fabric in common";
    return !bad("suits");
}

static tfr_status prepare(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out)
{
    (void)cfg;
    if (bad("prepare"))
        return TFR_E_LIMIT;
    *dev_out = &dev;
    return TFR_OK;
}

static tfr_status reg(struct tfr_dev *d, const struct tfr_area *area, struct tfr_mem **mem_out)
{
    (void)d, (void)area;
    *mem_out = &mem;
    return TFR_OK;
}

static tfr_status open_link(struct tfr_dev *d, struct tfr_boot *boot, bool first,
                            struct tfr_link **link_out)
{
    (void)d, (void)boot, (void)first, (void)link_out;
    return TFR_E_UNSUP;
}

struct tfr_transport_ops *tfr_transport_plugin(uint32_t abi);

__attribute__((visibility("default"))) struct tfr_transport_ops *tfr_transport_plugin(uint32_t abi)
{
    ops = (struct tfr_transport_ops){.name = "verbs",
                                     .offer = offer,
                                     .suits = suits,
                                     .prepare = prepare,
                                     .reg = reg,
                                     .open = open_link};
    return abi == TFR_TRANSPORT_ABI ? &ops : NULL;
}
