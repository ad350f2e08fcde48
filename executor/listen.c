/* The parent's doors: unix sockets and TCP ports, any number of each.  Nothing listens on TCP
 * without a way to prove identities. */
#define TFR_LOG_PART "executor"
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "executor/parent.h"
#include "transport/address.h"
#include "transport/munge.h"

/* A credential that nobody will see: is munged there? */
static bool munge_answers(void)
{
    char text[TFR_AUTH_MAX];
    const char *why;
    if (tfr_munge_encode("", 0, geteuid(), text, sizeof text, &why) == TFR_OK)
        return true;
    tfr_fail(TFR_E_ACCESS, "--auth munge: %s", why);
    return false;
}

/* Reads or makes what is needed for TCP, if any of the addresses is one. */
static bool identity_load(struct tfr_parent *p)
{
    const struct tfr_server_cfg *cfg = p->cfg;
    struct tfr_auth_cfg auth;
    bool tcp = false;
    for (int i = 0; i < cfg->listen_n; i++)
        tcp |= tfr_address_is_tcp(cfg->listen[i]);
    if (!tcp)
        return true;
    if (tfr_auth_load(cfg->auth, cfg->key_file, true, &auth) != TFR_OK)
        return false;
    p->auth.method = auth.method;
    memcpy(p->auth.key, auth.key, sizeof p->auth.key);
    explicit_bzero(&auth, sizeof auth);
    return p->auth.method != TFR_AUTH_MUNGE || (munge_answers() && tfr_identity_start(p));
}

bool tfr_doors_open(struct tfr_parent *p)
{
    const struct tfr_server_cfg *cfg = p->cfg;
    if (cfg->allow_uid && tfr_auth_uids(&p->auth, cfg->allow_uid) != TFR_OK) {
        tfr_fail(TFR_E_INVAL,
                 "--allow-uid %s: expected are numbers of users, at most %d, "
                 "separated by commas",
                 cfg->allow_uid, TFR_AUTH_UIDS);
        return false;
    }
    if (!identity_load(p))
        return false;
    for (int i = 0; i < cfg->listen_n; i++) {
        struct tfr_door *door = &p->door[i];
        *door = (struct tfr_door){.kind = TFR_POLL_LISTEN, .addr = cfg->listen[i]};
        if (tfr_boot_listen(door->addr, &door->fd) != TFR_OK)
            return false;
        p->door_n++;
        door->tcp = tfr_address_is_tcp(door->addr);
        tfr_boot_listen_name(door->addr, door->fd, door->name, sizeof door->name);
        if (!door->tcp && p->auth.uid_n)
            tfr_boot_admit_others(door->addr);
        door->open = tfr_parent_watch(p, door->fd, door);
    }
    return true;
}

void tfr_doors_close(struct tfr_parent *p)
{
    for (int i = 0; i < p->door_n; i++)
        tfr_boot_unlisten(p->door[i].addr, p->door[i].fd);
    p->door_n = 0;
    explicit_bzero(&p->auth, sizeof p->auth);
}

/* By TCP anybody may knock: guest.c makes room. */
bool tfr_door_crowded(const struct tfr_parent *p, const struct tfr_door *door)
{
    return !door->tcp && p->stranger_n[true] >= TFR_KNOWN_MAX;
}

/* A door is left alone while too many have come in by it and said nothing, or no descriptor is
 * free: whoever comes waits in its backlog. */
void tfr_doors_tend(struct tfr_parent *p)
{
    bool deaf = tfr_clock_now() < p->deaf_to_ns;
    p->listening = true;
    for (int i = 0; i < p->door_n; i++) {
        struct tfr_door *door = &p->door[i];
        bool want = !deaf && !tfr_door_crowded(p, door);
        p->listening &= want;
        if (want == door->open)
            continue;
        struct epoll_event event = {.events = want ? EPOLLIN : 0, .data.ptr = door};
        epoll_ctl(p->epoll, EPOLL_CTL_MOD, door->fd, &event);
        door->open = want;
    }
}

size_t tfr_doors_list(const struct tfr_parent *p, const char *before, const char *after,
                      char *text_out, size_t room)
{
    size_t len = 0;
    text_out[0] = 0;
    for (int i = 0; i < p->door_n && len < room; i++)
        len += (size_t)snprintf(text_out + len, room - len, "%s%s%s", before, p->door[i].name,
                                i + 1 < p->door_n || *before ? after : "");
    return len;
}
