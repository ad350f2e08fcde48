/* Two sides agree on a transport.  On one machine shm is taken, with tcp behind it, and no plugin
 * is loaded; between machines the order is the registry's.  Nothing of the peer's is trusted: names
 * and texts are cut and made printable before anybody looks at them. */
#define TFR_LOG_PART "transport"
#include "transport/ways.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "transport/backend.h"

enum { OPENED_MS = 10000 };

/* What a side says when it has tried to open a link. */
struct opened {
    int32_t status; /* 0: it is open */
    uint32_t reserved;
};

bool tfr_boot_local(const struct tfr_boot *boot)
{
    struct sockaddr_storage addr;
    socklen_t len = sizeof addr;
    return getsockname(boot->fd, (struct sockaddr *)&addr, &len) == 0 && addr.ss_family == AF_UNIX;
}

bool tfr_boot_near(const struct tfr_boot *boot)
{
    struct sockaddr_storage own = {0}, peer = {0};
    socklen_t own_len = sizeof own, peer_len = sizeof peer;
    if (getsockname(boot->fd, (struct sockaddr *)&own, &own_len) != 0 ||
        getpeername(boot->fd, (struct sockaddr *)&peer, &peer_len) != 0)
        return false;
    if (own.ss_family == AF_INET)
        return ((struct sockaddr_in *)&own)->sin_addr.s_addr ==
               ((struct sockaddr_in *)&peer)->sin_addr.s_addr;
    if (own.ss_family == AF_INET6)
        return memcmp(&((struct sockaddr_in6 *)&own)->sin6_addr,
                      &((struct sockaddr_in6 *)&peer)->sin6_addr, sizeof(struct in6_addr)) == 0;
    return own.ss_family == AF_UNIX;
}

static bool is_auto(const char *setting)
{
    return strcmp(setting, "auto") == 0;
}

/* "fault:shm" and "fault" need what shm needs. */
static bool needs_one_machine(const char *name)
{
    const char *inner = strncmp(name, "fault:", 6) == 0 ? name + 6 : name;
    return strcmp(inner, "shm") == 0 || strcmp(inner, "fault") == 0;
}

bool tfr_ways_shared(const char *setting, const struct tfr_boot *boot)
{
    return (is_auto(setting) || strcmp(setting, "shm") == 0) && tfr_boot_local(boot);
}

void tfr_ways_note(char *why, const char *name, const char *text)
{
    size_t at = strlen(why);
    snprintf(why + at, TFR_WAYS_TEXT - at, "%s%s: %s", at ? "; " : "", name, text);
}

/* ---- what this side has ---- */

static tfr_status own_find(const char *name, const struct tfr_boot *boot,
                           const struct tfr_transport_ops **ops_out, struct tfr_offer *offer_out,
                           const char **why_out)
{
    *why_out = "not usable here";
    *offer_out = (struct tfr_offer){0};
    if (needs_one_machine(name) && !tfr_boot_local(boot)) {
        *why_out = tfr_boot_near(boot)
                       ? "for the memory of one machine the executor needs a unix: address"
                       : "memory is shared over a unix: address alone";
        return TFR_E_UNSUP;
    }
    *ops_out = tfr_transport_find(name);
    if (!*ops_out) {
        *why_out = tfr_transport_why(name);
        return TFR_E_UNSUP;
    }
    tfr_status status = (*ops_out)->offer(offer_out, why_out);
    if (status == TFR_OK && offer_out->len > sizeof offer_out->body)
        return TFR_E_INVAL;
    return status;
}

static bool way_add(const char *name, const struct tfr_boot *boot, struct tfr_ways *ways)
{
    const struct tfr_transport_ops *ops;
    struct tfr_way *way = &ways->way[ways->n];
    const char *why;
    if (ways->n == TFR_WAYS_MAX)
        return false;
    *way = (struct tfr_way){0};
    strncpy(way->name, name, sizeof way->name - 1);
    way->usable = own_find(name, boot, &ops, &way->offer, &why) == TFR_OK;
    if (!way->usable) {
        way->offer = (struct tfr_offer){.len = (uint32_t)strnlen(why, sizeof way->offer.body - 1)};
        memcpy(way->offer.body, why, way->offer.len);
    }
    ways->n++;
    return way->usable;
}

bool tfr_ways_known(const char *setting)
{
    const char *inner = strncmp(setting, "fault:", 6) == 0 ? setting + 6 : setting, *name;
    if (is_auto(setting) || strcmp(setting, "fault") == 0)
        return true;
    for (int i = 0; (name = tfr_transport_name(i)); i++)
        if (strcmp(name, inner) == 0)
            return true;
    return false;
}

bool tfr_ways_able(const char *setting, const char **why_out)
{
    /* Of those that are taken by choice some suffice; tcp is always among them. */
    const char *name = is_auto(setting) ? "tcp" : setting;
    const struct tfr_transport_ops *ops = tfr_transport_find(name);
    struct tfr_offer offer = {0};
    *why_out = "not usable here";
    if (!ops)
        *why_out = tfr_transport_why(name);
    return ops && ops->offer(&offer, why_out) == TFR_OK;
}

tfr_status tfr_ways_find(const char *setting, const struct tfr_boot *boot,
                         struct tfr_ways *ways_out, char *why_out)
{
    bool any = false, local = tfr_boot_local(boot);
    const char *name;
    ways_out->n = 0;
    *why_out = 0;
    if (!is_auto(setting))
        any = way_add(setting, boot, ways_out);
    for (int i = 0; is_auto(setting) && (name = tfr_transport_name(i)); i++)
        if (!local || strcmp(name, "shm") == 0 || strcmp(name, "tcp") == 0)
            any |= way_add(name, boot, ways_out);
    for (uint32_t i = 0; i < ways_out->n && !any; i++)
        tfr_ways_note(why_out, ways_out->way[i].name, (char *)ways_out->way[i].offer.body);
    return any ? TFR_OK : TFR_E_UNSUP;
}

/* ---- what the peer has ---- */

/* Printable ASCII, ended by a zero. */
static void text_tame(char *text, size_t room)
{
    text[room - 1] = 0;
    for (; *text; text++)
        if (*text < ' ' || *text > '~')
            *text = '?';
}

bool tfr_ways_take(const void *body, size_t len, struct tfr_ways *ways_out)
{
    if (len == 0 || len % sizeof(struct tfr_way) || len > sizeof ways_out->way)
        return false;
    ways_out->n = (uint32_t)(len / sizeof(struct tfr_way));
    memcpy(ways_out->way, body, len);
    for (uint32_t i = 0; i < ways_out->n; i++) {
        struct tfr_way *way = &ways_out->way[i];
        if (way->offer.len > sizeof way->offer.body)
            return false;
        text_tame(way->name, sizeof way->name);
        if (!way->usable)
            text_tame((char *)way->offer.body, sizeof way->offer.body);
    }
    return true;
}

static bool way_suits(const struct tfr_way *way, const struct tfr_boot *boot,
                      const struct tfr_transport_ops **ops_out, char *why)
{
    char text[TFR_OFFER_MAX + 16];
    struct tfr_offer own;
    const char *cause = "the two do not go together";
    if (!way->usable) {
        snprintf(text, sizeof text, "client: %s", (const char *)way->offer.body);
        tfr_ways_note(why, way->name, text);
        return false;
    }
    if (own_find(way->name, boot, ops_out, &own, &cause) != TFR_OK) {
        snprintf(text, sizeof text, "executor: %s", cause);
        tfr_ways_note(why, way->name, text);
        return false;
    }
    if ((*ops_out)->suits(&own, &way->offer, &cause))
        return true;
    tfr_ways_note(why, way->name, cause);
    return false;
}

const struct tfr_transport_ops *tfr_ways_next(const struct tfr_ways *peer, const char *setting,
                                              const struct tfr_boot *boot, uint32_t *at, char *why)
{
    while (*at < peer->n) {
        const struct tfr_way *way = &peer->way[(*at)++];
        const struct tfr_transport_ops *ops = NULL;
        if (!is_auto(setting) && strcmp(setting, way->name) != 0)
            tfr_ways_note(why, way->name, "executor: its TFR_TRANSPORT says otherwise");
        else if (way_suits(way, boot, &ops, why))
            return ops;
    }
    return NULL;
}

/* ---- opening ---- */

static tfr_status opened_send(struct tfr_boot *boot, tfr_status status)
{
    struct opened opened = {.status = status};
    struct tfr_boot_msg msg = {.type = TFR_BOOT_OPENED, .len = sizeof opened, .body = &opened};
    return tfr_boot_send(boot, &msg, OPENED_MS);
}

/* What the peer's open() had sent and ours never read lies before it. */
static tfr_status opened_recv(struct tfr_boot *boot, struct opened *opened_out)
{
    struct tfr_boot_msg msg;
    tfr_status status;
    uint32_t type;
    do {
        status = tfr_boot_recv(boot, &msg, OPENED_MS);
        if (status != TFR_OK)
            return status;
        type = msg.type;
        if (type == TFR_BOOT_OPENED && msg.len == sizeof *opened_out)
            memcpy(opened_out, msg.body, sizeof *opened_out);
        else if (type != TFR_BOOT_LINK)
            status = TFR_E_PROTO;
        tfr_boot_msg_fini(&msg);
    } while (status == TFR_OK && type == TFR_BOOT_LINK);
    return status;
}

static tfr_status own_open(struct tfr_dev *dev, struct tfr_boot *boot, bool first,
                           const struct tfr_key *key, struct tfr_link **link_out,
                           struct tfr_peer_mem **peer_out)
{
    tfr_boot_linking(boot, true);
    tfr_status status = dev->ops->open(dev, boot, first, link_out);
    tfr_boot_linking(boot, false);
    if (status != TFR_OK) {
        if (key->fd >= 0)
            close(key->fd);
        return status;
    }
    status = dev->ops->import(*link_out, key, peer_out);
    if (status != TFR_OK)
        dev->ops->close(*link_out);
    return status;
}

tfr_status tfr_ways_open(struct tfr_dev *dev, struct tfr_boot *boot, bool first,
                         const struct tfr_key *key, struct tfr_link **link_out,
                         struct tfr_peer_mem **peer_out, char *why_out)
{
    struct opened its = {0};
    struct tfr_link *link;
    struct tfr_peer_mem *peer;
    const char *side = first ? "client" : "executor";
    tfr_status own = own_open(dev, boot, first, key, &link, &peer);
    tfr_status status = opened_send(boot, own);
    if (status == TFR_OK)
        status = opened_recv(boot, &its);
    if (own == TFR_OK && status == TFR_OK && its.status == 0) {
        *link_out = link;
        *peer_out = peer;
        return TFR_OK;
    }
    if (own == TFR_OK) {
        dev->ops->forget(peer);
        dev->ops->close(link);
        side = first ? "executor" : "client";
    }
    snprintf(why_out, TFR_WAYS_TEXT, "the %s could not open it (%s): its messages say why", side,
             tfr_status_str(own != TFR_OK      ? own
                            : status != TFR_OK ? status
                                               : (tfr_status)its.status));
    return status != TFR_OK ? status : TFR_E_UNSUP;
}
