/* UCX, joining two workers.  The second side (the executor's: a client may be behind NAT) decides
 * how and says so over boot:
 *
 * by connection manager: it listens on a port that the kernel chooses, on the addresses of its RDMA
 * devices, and the other side tries these, those of its own subnets first; or by worker address
 * (TFR_UCX_CONNECT=address on either side, or no RDMA device has an IP address), which UCX resolves
 * itself.
 *
 * A connection request carries a number from the boot channel, without which it is refused, and
 * each endpoint begins with a HELLO that carries a longer one. */
#define TFR_LOG_PART "transport"
#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "transport/boot.h"
#include "transport/ucx/addr.h"
#include "transport/ucx/ucx.h"

enum { VERSION = 2, OPEN_MS = 3000, WORKER_MAX = 1 << 16 };

#define TRY_NS  (15 * TFR_NS_PER_S) /* for one address */
#define JOIN_NS (40 * TFR_NS_PER_S)
#define NAP_NS  (200 * TFR_NS_PER_US)

struct hello {
    uint32_t version;
    uint8_t by_worker; /* else by connection manager; of the first side: a wish */
    uint8_t err_peer;
    uint16_t port;
    uint32_t ip_n, worker_len;
    uint64_t id; /* of the sender's connection requests */
    uint8_t token[UCX_TOKEN];
    struct ucx_ip ips[UCX_IPS];
    uint8_t worker[]; /* address */
};

static tfr_status hello_send(struct ucx_link *link, struct tfr_boot *boot, const struct hello *head)
{
    struct hello *hello = NULL;
    ucp_address_t *address = NULL;
    size_t len = 0;
    tfr_status status = TFR_E_NOMEM;

    if (ucp_worker_get_address(link->worker, &address, &len) != UCS_OK || len > WORKER_MAX)
        return tfr_fail(TFR_E_SYS, "ucx: address of the worker");
    hello = malloc(sizeof(*hello) + len);
    if (hello) {
        struct tfr_boot_msg msg = {
            .type = TFR_BOOT_LINK, .len = (uint32_t)(sizeof(*hello) + len), .body = hello};
        *hello = *head;
        hello->version = VERSION;
        hello->id = link->own_id;
        hello->worker_len = (uint32_t)len;
        memcpy(hello->worker, address, len);
        status = tfr_boot_send(boot, &msg, OPEN_MS);
    }
    free(hello);
    ucp_worker_release_address(link->worker, address);
    return status == TFR_OK ? status : tfr_fail(status, "ucx link: %s", tfr_status_str(status));
}

/* The caller frees *hello_out. */
static tfr_status hello_recv(struct tfr_boot *boot, struct hello **hello_out)
{
    struct tfr_boot_msg msg;
    tfr_status status = tfr_boot_recv(boot, &msg, OPEN_MS);
    struct hello *hello;

    if (status != TFR_OK)
        return tfr_fail(status, "ucx link: %s", tfr_status_str(status));
    hello = msg.body;
    if (msg.type != TFR_BOOT_LINK || msg.len < sizeof(*hello) || hello->version != VERSION ||
        hello->ip_n > UCX_IPS || hello->worker_len > WORKER_MAX ||
        msg.len != sizeof(*hello) + hello->worker_len) {
        tfr_boot_msg_fini(&msg);
        return tfr_fail(TFR_E_PROTO, "ucx link: the peer speaks another version");
    }
    msg.body = NULL;
    tfr_boot_msg_fini(&msg);
    *hello_out = hello;
    return TFR_OK;
}

/* Called by UCX under the lock, as all is. */
static void ep_error(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    struct ucx_link *link = arg;
    const uint32_t all = (1u << UCX_EPS) - 1;

    (void)ep;
    if (link->greeted != all) {
        link->refused = status;
        return;
    }
    ucx_peer_lost(link, "the peer is gone", status);
}

static ucp_ep_params_t ep_params(struct ucx_link *link)
{
    return (ucp_ep_params_t){
        .field_mask = UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .err_mode = link->err_peer ? UCP_ERR_HANDLING_MODE_PEER : UCP_ERR_HANDLING_MODE_NONE,
        .err_handler = {.cb = ep_error, .arg = link},
    };
}

static tfr_status eps_make(struct ucx_link *link, const ucp_ep_params_t *params)
{
    for (int i = 0; i < UCX_EPS; i++) {
        ucs_status_t status = ucp_ep_create(link->worker, params, &link->eps[i]);
        if (status == UCS_OK)
            continue;
        link->eps[i] = NULL;
        return tfr_fail(TFR_E_UNSUP, "ucx: no endpoint by TFR_UCX_TLS=%s: %s",
                        tfr_env_str("TFR_UCX_TLS"), ucs_status_string(status));
    }
    return TFR_OK;
}

static void greet(struct ucx_link *link, bool reply)
{
    for (int i = 0; i < UCX_EPS; i++) {
        const struct ucx_head head = {.msg = UCX_MSG_HELLO, .channel = (uint8_t)i};
        ucx_msg_send(link, &head, NULL, link->token, UCX_TOKEN, reply);
    }
}

static void progress_or_nap(struct ucx_link *link)
{
    const struct timespec nap = {.tv_nsec = (long)NAP_NS};

    if (!ucp_worker_progress(link->worker))
        clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
}

/* Progress until all of the peer's endpoints have greeted. */
static tfr_status greeted_wait(struct ucx_link *link, const struct tfr_boot *boot, uint64_t until)
{
    const uint32_t all = (1u << UCX_EPS) - 1;

    while (link->greeted != all) {
        if (link->refused != UCS_OK && !link->listener)
            return TFR_E_PEER;
        if (ucx_error_of(link) != TFR_OK)
            return ucx_error_of(link);
        if (tfr_boot_gone(boot))
            return TFR_E_PEER;
        if (tfr_clock_now() > until)
            return TFR_E_TIMEOUT;
        progress_or_nap(link);
    }
    return TFR_OK;
}

static tfr_status worker_connect(struct ucx_link *link, struct tfr_boot *boot,
                                 const struct hello *hello)
{
    ucp_ep_params_t params = ep_params(link);
    tfr_status status;

    params.field_mask |= UCP_EP_PARAM_FIELD_REMOTE_ADDRESS;
    params.address = (const ucp_address_t *)hello->worker;
    status = eps_make(link, &params);
    if (status != TFR_OK)
        return status;
    greet(link, false);
    return greeted_wait(link, boot, tfr_clock_now() + JOIN_NS);
}

static void eps_drop(struct ucx_link *link)
{
    ucx_eps_close(link, TFR_NS_PER_S);
    atomic_store_explicit(&link->error, TFR_OK, memory_order_relaxed);
    link->refused = UCS_OK;
    link->greeted = 0;
}

static tfr_status cm_connect(struct ucx_link *link, struct tfr_boot *boot,
                             const struct hello *hello)
{
    tfr_status status = TFR_E_PEER;
    struct ucx_ip ips[UCX_IPS];
    char text[64];

    memcpy(ips, hello->ips, sizeof(ips));
    ucx_ips_sort(link->dev->nics, ips, hello->ip_n);
    for (uint32_t i = 0; i < hello->ip_n; i++) {
        ucp_ep_params_t params = ep_params(link);
        struct sockaddr_storage addr;
        params.field_mask |= UCP_EP_PARAM_FIELD_FLAGS | UCP_EP_PARAM_FIELD_SOCK_ADDR;
        params.flags = UCP_EP_PARAMS_FLAGS_CLIENT_SERVER | UCP_EP_PARAMS_FLAGS_SEND_CLIENT_ID;
        params.sockaddr.addr = (struct sockaddr *)&addr;
        params.sockaddr.addrlen = ucx_ip_sockaddr(&ips[i], hello->port, &addr);
        status = params.sockaddr.addrlen ? eps_make(link, &params) : TFR_E_PROTO;
        if (status == TFR_OK) {
            greet(link, true);
            status = greeted_wait(link, boot, tfr_clock_now() + TRY_NS);
        }
        if (status == TFR_OK)
            return TFR_OK;
        tfr_info("ucx: %s port %u: %s", ucx_ip_text(&ips[i], text, sizeof(text)), hello->port,
                 link->refused ? ucs_status_string(link->refused) : tfr_status_str(status));
        eps_drop(link);
    }
    return tfr_fail(status,
                    "ucx: none of the other side's %u RDMA addresses answers "
                    "(TFR_UCX_CONNECT=address needs none)",
                    hello->ip_n);
}

/* A stranger gets no endpoint: UCX would let it write where it likes. */
static bool guest_known(struct ucx_link *link, ucp_conn_request_h request)
{
    ucp_conn_request_attr_t attr = {.field_mask = UCP_CONN_REQUEST_ATTR_FIELD_CLIENT_ID};

    return ucp_conn_request_query(request, &attr) == UCS_OK && attr.client_id == link->peer_id;
}

static void guest_come(ucp_conn_request_h request, void *arg)
{
    struct ucx_link *link = arg;
    ucp_ep_params_t params = ep_params(link);
    int at = 0;

    while (at < UCX_EPS && link->guests[at])
        at++;
    params.field_mask |= UCP_EP_PARAM_FIELD_CONN_REQUEST;
    params.conn_request = request;
    if (at == UCX_EPS || !guest_known(link, request))
        ucp_listener_reject(link->listener, request);
    else if (ucp_ep_create(link->worker, &params, &link->guests[at]) != UCS_OK)
        link->guests[at] = NULL;
}

static ucs_status_t listen_at(struct ucx_link *link, const struct sockaddr *any, socklen_t len,
                              uint16_t *port_out)
{
    const ucp_listener_params_t params = {
        .field_mask = UCP_LISTENER_PARAM_FIELD_SOCK_ADDR | UCP_LISTENER_PARAM_FIELD_CONN_HANDLER,
        .sockaddr = {any, len},
        .conn_handler = {.cb = guest_come, .arg = link},
    };
    ucp_listener_attr_t attr = {.field_mask = UCP_LISTENER_ATTR_FIELD_SOCKADDR};
    ucs_status_t status = ucp_listener_create(link->worker, &params, &link->listener);

    if (status != UCS_OK) {
        link->listener = NULL;
        return status;
    }
    status = ucp_listener_query(link->listener, &attr);
    *port_out = ucx_sockaddr_port(&attr.sockaddr);
    return status;
}

/* One listener for both families, as far as the kernel has them. */
static tfr_status listen_start(struct ucx_link *link, bool v6, uint16_t *port_out)
{
    const struct sockaddr_in6 any6 = {.sin6_family = AF_INET6};
    const struct sockaddr_in any = {.sin_family = AF_INET};
    ucs_status_t status = UCS_ERR_UNSUPPORTED;

    if (v6)
        status = listen_at(link, (const struct sockaddr *)&any6, sizeof(any6), port_out);
    if (status != UCS_OK && !link->listener)
        status = listen_at(link, (const struct sockaddr *)&any, sizeof(any), port_out);
    if (status == UCS_OK)
        return TFR_OK;
    return tfr_fail(TFR_E_SYS, "ucx: listening: %s", ucs_status_string(status));
}

/* Shuts the door behind the peer's endpoints. */
static void listen_end(struct ucx_link *link)
{
    const ucp_request_param_t force = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                       .flags = UCP_EP_CLOSE_FLAG_FORCE};

    for (int i = 0; i < UCX_EPS; i++) {
        bool ours = false;
        for (int k = 0; k < UCX_EPS; k++)
            ours |= link->guests[i] == link->eps[k];
        if (link->guests[i] && !ours) {
            ucs_status_ptr_t request = ucp_ep_close_nbx(link->guests[i], &force);
            if (UCS_PTR_IS_PTR(request))
                ucp_request_free(request);
        }
        link->guests[i] = NULL;
    }
    ucp_listener_destroy(link->listener);
    link->listener = NULL;
}

static tfr_status cm_accept(struct ucx_link *link, struct tfr_boot *boot)
{
    tfr_status status = greeted_wait(link, boot, tfr_clock_now() + JOIN_NS);

    if (status == TFR_OK)
        greet(link, false);
    listen_end(link);
    return status == TFR_OK ? status
                            : tfr_fail(status, "ucx: the other side did not connect: %s",
                                       tfr_status_str(status));
}

static bool wants_address(void)
{
    const char *way = tfr_env_str("TFR_UCX_CONNECT");

    return way && strcmp(way, "address") == 0;
}

static tfr_status first_join(struct ucx_link *link, struct tfr_boot *boot)
{
    struct hello own = {.err_peer = link->err_peer}, *peer = NULL;
    tfr_status status;

    own.by_worker = wants_address() || !link->err_peer;
    if (getrandom(link->token, UCX_TOKEN, 0) != UCX_TOKEN)
        return tfr_fail(TFR_E_SYS, "getrandom");
    memcpy(own.token, link->token, UCX_TOKEN);
    status = hello_send(link, boot, &own);
    if (status == TFR_OK)
        status = hello_recv(boot, &peer);
    if (status == TFR_OK)
        status = peer->by_worker ? worker_connect(link, boot, peer) : cm_connect(link, boot, peer);
    free(peer);
    return status;
}

/* Where the first side can find us, and how. */
static tfr_status door_open(struct ucx_link *link, const struct hello *peer, struct hello *own)
{
    bool v6 = false;

    if (!peer->by_worker && !wants_address())
        own->ip_n = ucx_ips_list(link->dev->nics, own->ips);
    own->by_worker = own->ip_n == 0;
    for (uint32_t i = 0; i < own->ip_n; i++)
        v6 |= own->ips[i].family == UCX_IP6;
    return own->by_worker ? TFR_OK : listen_start(link, v6, &own->port);
}

static tfr_status second_join(struct ucx_link *link, struct tfr_boot *boot)
{
    struct hello own = {0}, *peer = NULL;
    tfr_status status = hello_recv(boot, &peer);

    if (status != TFR_OK)
        return status;
    memcpy(link->token, peer->token, UCX_TOKEN);
    link->peer_id = peer->id;
    link->err_peer = peer->err_peer;
    own.err_peer = peer->err_peer;
    status = door_open(link, peer, &own);
    if (status == TFR_OK)
        status = hello_send(link, boot, &own);
    if (status == TFR_OK)
        status = own.by_worker ? worker_connect(link, boot, peer) : cm_accept(link, boot);
    if (link->listener)
        listen_end(link);
    free(peer);
    return status;
}

/* What a side still sends by its progress while it connects must have left: the other one waits
 * for it. */
static tfr_status flushed_wait(struct ucx_link *link, uint64_t until)
{
    const ucp_request_param_t param = {0};
    ucs_status_ptr_t request = ucp_worker_flush_nbx(link->worker, &param);
    ucs_status_t status = UCS_PTR_RAW_STATUS(request);

    while (UCS_PTR_IS_PTR(request) && tfr_clock_now() < until &&
           (status = ucp_request_check_status(request)) == UCS_INPROGRESS)
        progress_or_nap(link);
    if (UCS_PTR_IS_PTR(request))
        ucp_request_free(request);
    return status == UCS_OK ? TFR_OK : TFR_E_PEER;
}

/* Returns when both sides have all that they need of each other's progress. */
static tfr_status ready_exchange(struct ucx_link *link, struct tfr_boot *boot)
{
    uint64_t until = tfr_clock_now() + JOIN_NS;
    struct tfr_boot_msg ready = {.type = TFR_BOOT_LINK}, msg;
    struct pollfd poller = {.fd = boot->fd, .events = POLLIN};
    tfr_status status = flushed_wait(link, until);

    if (status == TFR_OK)
        status = tfr_boot_send(boot, &ready, OPEN_MS);
    while (status == TFR_OK && poll(&poller, 1, 0) == 0) {
        if (tfr_clock_now() > until)
            status = TFR_E_TIMEOUT;
        progress_or_nap(link);
    }
    if (status == TFR_OK)
        status = tfr_boot_recv(boot, &msg, OPEN_MS);
    if (status != TFR_OK)
        return tfr_fail(status, "ucx link: %s", tfr_status_str(status));
    status = msg.type == TFR_BOOT_LINK && msg.len == 0 ? TFR_OK : TFR_E_PROTO;
    tfr_boot_msg_fini(&msg);
    return status;
}

tfr_status ucx_join(struct ucx_link *link, struct tfr_boot *boot, bool first)
{
    tfr_status status = first ? first_join(link, boot) : second_join(link, boot);

    if (status == TFR_OK)
        status = ready_exchange(link, boot);
    if (status == TFR_OK)
        status = ucx_lanes_check(link->eps[1]);
    if (status != TFR_OK)
        eps_drop(link);
    return status;
}
