/* A transport that reaches GPU memory, for machines without one: tcp, which takes the software
 * GPU's memory for what it is, memory.  Loaded in place of verbs.so (TFR_PLUGINS).  Landing takes
 * its time, as a read by a NIC does.  FAKE_DIRECT: "blind": what arrives is never seen by the
 * GPU; "deaf": GPU memory is not registered; "refuse": who writes there loses the connection, as a
 * remote access error ends a queue pair; "refuse-dmabuf": the same of dma-bufs alone; "far": the
 * same of any use of it between two processes, as if another NIC were used there. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "transport/backend.h"
#include "transport/boot.h"

enum { LAND_AFTER = 3 /* looks at the link */ };

static const struct tfr_transport_ops *tcp;
static struct tfr_transport_ops ops;
static struct tfr_landing landing; /* under way, if `left`; one caller at a time, by contract */
static int left;
static uint8_t *gpu, *shadow; /* blind: what the link moves in place of GPU memory */
static size_t gpu_len;
static struct tfr_key refused;         /* of GPU memory that is not to be written; len 0: none */
static struct tfr_peer_mem *forbidden; /* the same, imported */
static struct tfr_link *broken;        /* by a write there, */
static struct tfr_xfer culprit;        /* this one; it is done with an error */
static struct tfr_link *far;           /* to another process */

static bool is(const char *word)
{
    const char *set = getenv("FAKE_DIRECT");
    return set && strcmp(set, word) == 0;
}

static tfr_status prepare(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out)
{
    tfr_status status = tcp->prepare(cfg, dev_out);
    if (status == TFR_OK)
        (*dev_out)->ops = &ops;
    return status;
}

static tfr_status reg(struct tfr_dev *dev, const struct tfr_area *area, struct tfr_mem **mem_out)
{
    struct tfr_area as_host = *area;
    if (area->kind != TFR_AREA_GPU && area->kind != TFR_AREA_DMABUF)
        return tcp->reg(dev, area, mem_out);
    if (is("deaf"))
        return TFR_E_UNSUP;
    as_host.kind = TFR_AREA_HOST;
    as_host.shown = true;
    gpu = area->addr;
    gpu_len = area->len;
    if (is("blind")) {
        shadow = mmap(NULL, gpu_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        as_host.addr = shadow;
    }
    tfr_status status = tcp->reg(dev, &as_host, mem_out);
    refused.len = 0;
    if (status == TFR_OK &&
        (is("refuse") || (is("refuse-dmabuf") && area->kind == TFR_AREA_DMABUF)))
        tcp->key(*mem_out, &refused);
    return status;
}

static tfr_status import(struct tfr_link *link, const struct tfr_key *key,
                         struct tfr_peer_mem **peer_out)
{
    tfr_status status = tcp->import(link, key, peer_out);
    if (status == TFR_OK && refused.len &&
        memcmp(key->words, refused.words, sizeof refused.words) == 0)
        forbidden = *peer_out;
    return status;
}

static void break_off(struct tfr_link *link)
{
    if (broken == link && culprit.done)
        culprit.done(culprit.arg, TFR_E_PEER);
    culprit.done = NULL;
}

static void close_link(struct tfr_link *link)
{
    break_off(link);
    broken = broken == link ? NULL : broken;
    tcp->close(link);
}

static struct tfr_xfer shadowed(const struct tfr_xfer *xfer)
{
    struct tfr_xfer to = *xfer;
    size_t at = (size_t)((uint8_t *)xfer->local - gpu);
    if (shadow && at < gpu_len)
        to.local = shadow + at;
    return to;
}

static bool refuses(const struct tfr_link *link, const struct tfr_xfer *xfer)
{
    bool ours = gpu && (size_t)((uint8_t *)xfer->local - gpu) < gpu_len;
    return (forbidden && xfer->peer == forbidden) || (is("far") && link == far && ours);
}

static tfr_status break_by(struct tfr_link *link, const struct tfr_xfer *xfer)
{
    broken = link;
    culprit = *xfer;
    return TFR_OK;
}

static tfr_status put(struct tfr_link *link, const struct tfr_xfer *xfer)
{
    struct tfr_xfer to = shadowed(xfer);
    if (broken == link)
        return TFR_E_PEER;
    return refuses(link, xfer) ? break_by(link, xfer) : tcp->put(link, &to);
}

static tfr_status get(struct tfr_link *link, const struct tfr_xfer *xfer)
{
    struct tfr_xfer to = shadowed(xfer);
    if (broken == link)
        return TFR_E_PEER;
    return refuses(link, xfer) ? break_by(link, xfer) : tcp->get(link, &to);
}

static tfr_status open_link(struct tfr_dev *dev, struct tfr_boot *boot, bool first,
                            struct tfr_link **link_out)
{
    tfr_status status = tcp->open(dev, boot, first, link_out);
    uid_t uid;
    pid_t pid;
    if (status == TFR_OK)
        (*link_out)->ops = &ops;
    if (status == TFR_OK && tfr_boot_peer(boot, &uid, &pid) == TFR_OK && pid != getpid())
        far = *link_out;
    return status;
}

static tfr_status land(struct tfr_link *link, const struct tfr_landing *what)
{
    (void)link;
    if (left)
        return TFR_AGAIN;
    landing = *what;
    left = LAND_AFTER;
    return TFR_OK;
}

static tfr_status progress(struct tfr_link *link)
{
    tfr_status status = tcp->progress(link);
    if (broken == link) {
        break_off(link);
        return TFR_E_PEER;
    }
    if (left && --left == 0)
        landing.done(landing.arg, status);
    return status;
}

__attribute__((visibility("default"))) struct tfr_transport_ops *tfr_transport_plugin(uint32_t abi);

struct tfr_transport_ops *tfr_transport_plugin(uint32_t abi)
{
    tcp = tfr_transport_find("tcp");
    if (abi != TFR_TRANSPORT_ABI || !tcp)
        return NULL;
    ops = *tcp;
    ops.name = "verbs";
    ops.caps |= TFR_CAP_GPU_MEM;
    ops.caps &= ~(uint32_t)TFR_CAP_ANY_LOCAL;
    ops.prepare = prepare;
    ops.reg = reg;
    ops.open = open_link;
    ops.close = close_link;
    ops.import = import;
    ops.land = land;
    ops.put = put;
    ops.get = get;
    ops.progress = progress;
    return &ops;
}
