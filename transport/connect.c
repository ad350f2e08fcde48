/* tfr_boot_connect: a socket, and over TCP the proof of identity on it.  Whatever may answer on a
 * port that is not an executor's (silence, another protocol, a slammed door) becomes one line.  An
 * executor that is flooded may close a connection early: it is tried again while there is time. */
#define TFR_LOG_PART "transport"
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "transport/address.h"
#include "transport/auth.h"
#include "transport/boot.h"
#include "transport/sodium.h"

enum { NAP_MS = 20 };

static int left_ms(uint64_t deadline_ns)
{
    uint64_t now = tfr_clock_now();

    return now >= deadline_ns ? 0 : (int)((deadline_ns - now) / TFR_NS_PER_MS) + 1;
}

/* A whole message, without a line if there is none. */
static tfr_status answer_take(struct tfr_boot *boot, uint64_t deadline_ns,
                              struct tfr_boot_msg *msg_out)
{
    struct pollfd poller = {.fd = boot->fd, .events = POLLIN};
    struct tfr_boot_in in = {0};
    tfr_status status;

    while ((status = tfr_boot_recv_part(boot, &in, TFR_AUTH_MAX, msg_out)) == TFR_AGAIN) {
        int left = left_ms(deadline_ns);
        if (!left) {
            status = TFR_E_TIMEOUT;
            break;
        }
        poll(&poller, 1, left);
    }
    tfr_boot_in_fini(&in);
    return status;
}

static tfr_status prove_steps(struct tfr_boot *boot, struct tfr_auth *auth, uint64_t deadline_ns)
{
    struct tfr_boot_msg in, out;
    tfr_status status = TFR_AGAIN, sent = TFR_OK;

    tfr_auth_begin(auth, &out);
    for (;;) {
        if (out.type)
            sent = tfr_boot_send(boot, &out, left_ms(deadline_ns));
        if (status != TFR_AGAIN || sent != TFR_OK)
            return status != TFR_AGAIN ? status : sent;
        status = answer_take(boot, deadline_ns, &in);
        if (status != TFR_OK)
            return status;
        status = tfr_auth_step(auth, &in, &out);
        tfr_boot_msg_fini(&in);
    }
}

static tfr_status closes_say(const char *addr)
{
    return tfr_fail(TFR_E_PROTO,
                    "%s closes connections and says nothing: is it a tf-executor's port?", addr);
}

/* TFR_E_PEER: closed before anything was said.  Other failures are said.  "closed": another
 * connection was, so that silence on this one is time that ran out. */
static tfr_status prove(const char *addr, const struct tfr_auth_cfg *cfg, struct tfr_boot *boot,
                        uint64_t deadline_ns, bool closed)
{
    struct tfr_auth *auth = tfr_auth_new(cfg, true);
    tfr_status status;

    if (!auth)
        return tfr_fail(TFR_E_NOMEM, "%s: no memory for the proof of identity", addr);
    status = prove_steps(boot, auth, deadline_ns);
    if (status == TFR_OK)
        boot->seal = tfr_auth_seal(auth);
    else if (status == TFR_E_TIMEOUT && closed)
        status = closes_say(addr);
    else if (status == TFR_E_TIMEOUT)
        status =
            tfr_fail(TFR_E_PROTO,
                     "%s takes connections and says nothing: is it a tf-executor's port?", addr);
    else if (status == TFR_E_PROTO)
        tfr_fail(status, "what answers at %s is no tf-executor: check the port", addr);
    else if (status == TFR_E_ACCESS && cfg->method == TFR_AUTH_NONE)
        tfr_debug("%s: %s", addr, tfr_auth_why(auth)); /* we have said what we lack */
    else if (status == TFR_E_ACCESS)
        tfr_fail(status, "no use of the executor at %s: %s", addr, tfr_auth_why(auth));
    tfr_auth_free(auth);
    return status;
}

/* Proves who we are on this connection, or on another if it is closed early. */
static tfr_status tcp_join(const char *addr, const struct tfr_auth_cfg *cfg, uint64_t deadline_ns,
                           struct tfr_boot *boot)
{
    const struct timespec nap = {.tv_nsec = NAP_MS * 1000000};
    bool closed = false;
    tfr_status status;

    while ((status = prove(addr, cfg, boot, deadline_ns, closed)) == TFR_E_PEER) {
        closed = true;
        tfr_boot_close(boot);
        if (!left_ms(deadline_ns))
            return closes_say(addr);
        nanosleep(&nap, NULL);
        status = tfr_address_connect(addr, deadline_ns, &boot->fd);
        if (status == TFR_E_TIMEOUT)
            return closes_say(addr);
        if (status != TFR_OK)
            return status;
    }
    if (status != TFR_OK)
        tfr_boot_close(boot);
    return status;
}

/* Whose executors we trust besides our own: root's, and those that were named. */
static tfr_status trusted_add(struct tfr_auth_cfg *cfg)
{
    const char *uids = tfr_env_str("TFR_EXECUTOR_UID");

    cfg->uid[cfg->uid_n++] = 0;
    if (!uids || tfr_auth_uids(cfg, uids) == TFR_OK)
        return TFR_OK;
    return tfr_fail(TFR_E_INVAL,
                    "TFR_EXECUTOR_UID=%s: numbers of users are expected, separated by commas",
                    uids);
}

/* Anybody may have come first, and have taken the name. */
static tfr_status owner_check(const char *addr, const struct tfr_boot *boot)
{
    struct tfr_auth_cfg cfg = {0};
    tfr_status status = trusted_add(&cfg);
    uid_t uid;
    pid_t pid;

    if (status == TFR_OK)
        status = tfr_boot_peer(boot, &uid, &pid);
    if (status != TFR_OK || tfr_auth_admits(&cfg, uid))
        return status;
    return tfr_fail(TFR_E_ACCESS,
                    "%s is in the hands of user %u (process %d): name that in TFR_EXECUTOR_UID if "
                    "you trust it",
                    addr, (unsigned)uid, (int)pid);
}

/* Without a key of our own the executor is told, so that its owner learns of it. */
static tfr_status tcp_connect(const char *addr, uint64_t deadline_ns, struct tfr_boot *boot_out)
{
    struct tfr_boot boot = {.fd = -1};
    struct tfr_auth_cfg cfg;
    tfr_status status = tfr_address_connect(addr, deadline_ns, &boot.fd), lack;

    if (status != TFR_OK)
        return status;
    lack = tfr_auth_load(NULL, NULL, false, &cfg);
    if (lack == TFR_OK)
        lack = trusted_add(&cfg);
    if (lack != TFR_OK)
        cfg.method = TFR_AUTH_NONE;
    status = tfr_sodium() ? tcp_join(addr, &cfg, deadline_ns, &boot) : lack;
    explicit_bzero(&cfg, sizeof(cfg));
    if (lack == TFR_OK && status == TFR_OK)
        *boot_out = boot;
    else
        tfr_boot_close(&boot);
    return lack == TFR_OK ? status : lack;
}

tfr_status tfr_boot_connect(const char *addr, int limit_ms, struct tfr_boot *boot_out)
{
    uint64_t deadline_ns =
        tfr_clock_now() + (uint64_t)(limit_ms > 0 ? limit_ms : 0) * TFR_NS_PER_MS;
    struct tfr_boot boot = {.fd = -1};
    tfr_status status;

    if (tfr_address_is_tcp(addr))
        return tcp_connect(addr, deadline_ns, boot_out);
    status = tfr_address_connect(addr, deadline_ns, &boot.fd);
    if (status == TFR_OK)
        status = owner_check(addr, &boot);
    if (status == TFR_OK)
        *boot_out = boot;
    else
        tfr_boot_close(&boot);
    return status;
}

tfr_status tfr_boot_connect_any(const char *list, int limit_ms, char *addr_out,
                                struct tfr_boot *boot_out)
{
    tfr_status worst = TFR_E_PEER;

    while (*list) {
        size_t len = strcspn(list, ",");
        if (len > 0 && len < TFR_BOOT_ADDR_MAX) {
            tfr_status status;
            memcpy(addr_out, list, len);
            addr_out[len] = 0;
            status = tfr_boot_connect(addr_out, limit_ms, boot_out);
            if (status == TFR_OK)
                return TFR_OK;
            if (status != TFR_E_PEER && status != TFR_E_TIMEOUT)
                worst = status;
        }
        list += len + (list[len] == ',');
    }
    return worst;
}
