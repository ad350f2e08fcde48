/* Joins the sockets of a link.  The worker listens on the address that its boot socket has, for as
 * long as this takes, and says where over the boot socket; the client connects.  Whoever connects
 * is sent a number and must answer with a keyed hash of it, of its channel and of a number of its
 * own, and is answered in kind.  The key comes from what both sides shared over the boot socket.
 * Strangers are heard beside each other, and turned away; when they crowd, the oldest goes that
 * does not come from the client's address, and a client that was taken for one tries again. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "transport/address.h"
#include "transport/mac.h"
#include "transport/tcp/tcp.h"
#include "transport/ways.h"

enum {
    VERSION = 1,
    OPEN_MS = 3000,
    PORTS_MS = 2000,
    GUEST_N = 64, /* heard at once */
    AGAIN_MS = 5,
    NONCE = 16,
    MAGIC = 0x31504354, /* "TCP1" */
};

/* Over the boot socket: from the side that listens, and the answer. */
struct offer {
    uint32_t version, sock_n;
    uint16_t port, encrypt, reserved[2];
    uint8_t secret[TFR_BOOT_SECRET]; /* zeros where both have one already */
    uint8_t nonce[NONCE];
};
struct answer {
    uint32_t version, sock_n;
    uint32_t encrypt, reserved; /* encrypt: one of the two wants it */
};

/* Over each connection: a number, this, and the listener's hash. */
struct hello {
    uint32_t magic, channel;
    uint8_t nonce[NONCE], mac[TFR_MAC_LEN];
};

struct said { /* what is hashed */
    char who[8];
    uint32_t magic, channel;
    uint8_t listener[NONCE], connector[NONCE];
};

struct guest {
    int fd;   /* -1: none */
    bool odd; /* not from the client's address */
    uint32_t have, number;
    struct hello hello;
    uint8_t nonce[NONCE];
};

struct party {
    struct tfr_boot *boot;
    uint8_t key[TFR_MAC_LEN];
    uint64_t deadline_ns;
    int listener;
    struct tcp_joint *joint; /* its fds: -1 until joined */
    uint32_t joined;
    uint32_t guest_n; /* so many have come */
    struct guest guests[GUEST_N];
};

static int left_ms(uint64_t deadline_ns)
{
    uint64_t now = tfr_clock_now();

    return now >= deadline_ns ? 0 : (int)((deadline_ns - now) / TFR_NS_PER_MS + 1);
}

static void mac_make(const uint8_t *key, const char *who, uint32_t channel, const uint8_t *listener,
                     const uint8_t *connector, uint8_t *mac_out)
{
    struct said said = {.magic = MAGIC, .channel = channel};

    memcpy(said.who, who, strlen(who));
    memcpy(said.listener, listener, NONCE);
    memcpy(said.connector, connector, NONCE);
    tfr_mac(key, &said, sizeof(said), mac_out);
}

/* The link's own key: what both share, hashed with what only this link was told. */
static void key_make(struct party *party, const struct offer *offer)
{
    const uint8_t *secret = tfr_boot_secret(party->boot);
    struct tcp_joint *joint = party->joint;
    struct {
        char label[8];
        uint8_t secret[TFR_BOOT_SECRET], nonce[NONCE];
    } text = {"tfr tcp", {0}, {0}};

    memcpy(joint->secret, secret ? secret : offer->secret, sizeof(joint->secret));
    memcpy(joint->nonce, offer->nonce, NONCE);
    memcpy(text.secret, joint->secret, sizeof(text.secret));
    memcpy(text.nonce, joint->nonce, NONCE);
    tfr_mac(joint->secret, &text, sizeof(text), party->key);
}

static tfr_status random_fill(void *bytes, size_t len)
{
    if (getrandom(bytes, len, 0) == (ssize_t)len)
        return TFR_OK;
    return tfr_fail(TFR_E_SYS, "random numbers: %s", strerror(errno));
}

/* A dead host shows within four seconds on a socket that is idle; recv.c looks at the others. */
static tfr_status msg_send(struct tfr_boot *boot, void *body, uint32_t len)
{
    struct tfr_boot_msg msg = {.type = TFR_BOOT_LINK, .len = len, .body = body};
    tfr_status status = tfr_boot_send(boot, &msg, OPEN_MS);

    return status == TFR_OK ? TFR_OK : tfr_fail(status, "tcp link: %s", tfr_status_str(status));
}

static tfr_status msg_recv(struct tfr_boot *boot, void *body_out, uint32_t len)
{
    struct tfr_boot_msg msg;
    tfr_status status = tfr_boot_recv(boot, &msg, OPEN_MS);
    uint32_t version = 0;

    if (status == TFR_E_PEER)
        return status; /* it could not open its side, and says so */
    if (status != TFR_OK)
        return tfr_fail(status, "tcp link: %s", tfr_status_str(status));
    if (msg.len >= sizeof(version))
        memcpy(&version, msg.body, sizeof(version));
    if (msg.type != TFR_BOOT_LINK || msg.fd_n || msg.len != len || version != VERSION)
        status =
            tfr_fail(TFR_E_PROTO, "tcp link: boot message %#x of version %u", msg.type, version);
    else
        memcpy(body_out, msg.body, len);
    tfr_boot_msg_fini(&msg);
    return status;
}

/* One end of the boot connection, with another port; over a unix socket: this machine. */
static socklen_t addr_get(const struct tfr_boot *boot, bool peer, uint16_t port,
                          struct sockaddr_storage *addr_out)
{
    socklen_t len = sizeof(*addr_out);
    struct sockaddr_in *in = (struct sockaddr_in *)addr_out;
    int err;

    memset(addr_out, 0, sizeof(*addr_out));
    err = peer ? getpeername(boot->fd, (struct sockaddr *)addr_out, &len)
               : getsockname(boot->fd, (struct sockaddr *)addr_out, &len);
    if (!err && addr_out->ss_family == AF_INET6) {
        ((struct sockaddr_in6 *)addr_out)->sin6_port = htons(port);
        return sizeof(struct sockaddr_in6);
    }
    if (err || addr_out->ss_family != AF_INET) {
        memset(addr_out, 0, sizeof(*addr_out));
        in->sin_family = AF_INET;
        in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    }
    in->sin_port = htons(port);
    return sizeof(*in);
}

/* 0, or the errno of the failure. */
static int listen_try(struct party *party, unsigned port, struct sockaddr_storage *addr_out)
{
    socklen_t len = addr_get(party->boot, false, (uint16_t)port, addr_out);
    int fd = socket(addr_out->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err;

    if (fd >= 0 && bind(fd, (struct sockaddr *)addr_out, len) == 0 && listen(fd, 64) == 0) {
        getsockname(fd, (struct sockaddr *)addr_out, &len);
        party->listener = fd;
        return 0;
    }
    err = errno;
    if (fd >= 0)
        close(fd);
    return err;
}

/* Where all ports are in use, other sessions that begin may have them, which takes moments. */
static tfr_status listener_open(struct party *party, uint16_t *port_out)
{
    const struct timespec nap = {.tv_nsec = 10 * (long)TFR_NS_PER_MS};
    uint64_t until_ns = tfr_clock_now() + PORTS_MS * TFR_NS_PER_MS;
    struct sockaddr_storage addr;
    unsigned lo, hi, port;
    char text[TFR_ADDRESS_TEXT];
    int err;

    if (!tcp_ports_get(&lo, &hi))
        return tfr_fail(TFR_E_INVAL, "TFR_TCP_PORTS=%s: expected two ports, 5000-5100",
                        tfr_env_str("TFR_TCP_PORTS"));
    for (port = lo; (err = listen_try(party, port, &addr)) == EADDRINUSE && hi; port++) {
        if (port < hi)
            continue;
        if (tfr_clock_now() >= until_ns)
            break;
        nanosleep(&nap, NULL);
        port = lo - 1;
    }
    if (err)
        return tfr_fail(TFR_E_SYS, "tcp link: listen on %s: %s%s", tfr_address_text(&addr, text),
                        strerror(err),
                        !hi                 ? ""
                        : err == EADDRINUSE ? ": each session that begins needs a port of "
                                              "TFR_TCP_PORTS that nobody else has: name more"
                                            : ": TFR_TCP_PORTS should name others");
    *port_out = ntohs(addr.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&addr)->sin6_port
                                                 : ((struct sockaddr_in *)&addr)->sin_port);
    return TFR_OK;
}

static void guest_end(struct guest *guest)
{
    close(guest->fd);
    guest->fd = -1;
}

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family == AF_INET6 && b->ss_family == AF_INET6)
        return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
                      &((const struct sockaddr_in6 *)b)->sin6_addr, sizeof(struct in6_addr)) == 0;
    return a->ss_family == AF_INET && b->ss_family == AF_INET &&
           ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)b)->sin_addr.s_addr;
}

/* A free place, or that of the one who goes. */
static struct guest *guest_room(struct party *party)
{
    struct guest *at = &party->guests[0];

    for (int i = 0; i < GUEST_N; i++) {
        struct guest *other = &party->guests[i];
        if (other->fd < 0)
            return other;
        if (other->odd != at->odd ? other->odd : other->number < at->number)
            at = other;
    }
    guest_end(at);
    return at;
}

/* As many as there is room for: those that are here are heard in between. */
static void guests_accept(struct party *party)
{
    struct sockaddr_storage client, from;
    struct guest *guest;
    socklen_t len = sizeof(from);
    int fd;

    addr_get(party->boot, true, 0, &client);
    for (int i = 0; i < GUEST_N / 2; i++, len = sizeof(from)) {
        memset(&from, 0, sizeof(from));
        fd = accept4(party->listener, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        guest = guest_room(party);
        *guest =
            (struct guest){.fd = fd, .odd = !same_host(&from, &client), .number = party->guest_n++};
        if (getrandom(guest->nonce, NONCE, 0) != NONCE ||
            send(fd, guest->nonce, NONCE, MSG_NOSIGNAL) != NONCE)
            guest_end(guest);
    }
}

/* The guest has said all: is it ours? */
static void guest_judge(struct party *party, struct guest *guest)
{
    const struct hello *hello = &guest->hello;
    uint8_t mac[TFR_MAC_LEN];

    mac_make(party->key, "connect", hello->channel, guest->nonce, hello->nonce, mac);
    if (hello->magic != MAGIC || !tfr_mac_same(mac, hello->mac) ||
        hello->channel >= party->joint->sock_n || party->joint->fds[hello->channel] >= 0) {
        tfr_info("tcp link: turned a stranger away");
        guest_end(guest);
        return;
    }
    mac_make(party->key, "listen", hello->channel, guest->nonce, hello->nonce, mac);
    if (send(guest->fd, mac, sizeof(mac), MSG_NOSIGNAL) != sizeof(mac)) {
        guest_end(guest);
        return;
    }
    party->joint->fds[hello->channel] = guest->fd;
    party->joined++;
    guest->fd = -1;
}

static void guest_hear(struct party *party, struct guest *guest)
{
    ssize_t got = recv(guest->fd, (char *)&guest->hello + guest->have,
                       sizeof(guest->hello) - guest->have, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got <= 0) {
        guest_end(guest);
        return;
    }
    guest->have += (uint32_t)got;
    if (guest->have == sizeof(guest->hello))
        guest_judge(party, guest);
}

enum { LISTENER, BOOT, GUESTS }; /* places among the pollers */

/* Only who is here: poll takes no more than the process may have descriptors. */
static nfds_t guests_watch(const struct party *party, struct pollfd *pollers)
{
    nfds_t n = GUESTS;

    pollers[LISTENER] = (struct pollfd){.fd = party->listener, .events = POLLIN};
    pollers[BOOT] = (struct pollfd){.fd = party->boot->fd, .events = POLLRDHUP};
    for (int i = 0; i < GUEST_N; i++)
        if (party->guests[i].fd >= 0)
            pollers[n++] = (struct pollfd){.fd = party->guests[i].fd, .events = POLLIN};
    return n;
}

static void guests_hear(struct party *party, const struct pollfd *pollers)
{
    nfds_t n = GUESTS;

    for (int i = 0; i < GUEST_N; i++)
        if (party->guests[i].fd >= 0 && pollers[n++].revents)
            guest_hear(party, &party->guests[i]);
}

static tfr_status guests_join(struct party *party)
{
    struct pollfd pollers[GUESTS + GUEST_N];

    while (party->joined < party->joint->sock_n) {
        int left = left_ms(party->deadline_ns);
        if (!left)
            return tfr_fail(TFR_E_TIMEOUT,
                            "tcp link: the client has joined %u of %u connections: is a firewall "
                            "in the way? TFR_TCP_PORTS names the ports",
                            party->joined, party->joint->sock_n);
        if (poll(pollers, guests_watch(party, pollers), left) < 0)
            continue;
        if (pollers[BOOT].revents)
            return tfr_fail(TFR_E_PEER, "tcp link: %s", tfr_status_str(TFR_E_PEER));
        guests_hear(party, pollers);
        if (pollers[LISTENER].revents)
            guests_accept(party);
    }
    return TFR_OK;
}

static uint32_t sock_n_wanted(void)
{
    uint64_t n = tfr_env_u64("TFR_TCP_SOCKETS");

    return n < 1 ? 1 : n > TFR_CHANNELS ? TFR_CHANNELS : (uint32_t)n;
}

static bool encrypt_wanted(void)
{
    return tfr_env_bool("TFR_TCP_ENCRYPT", true);
}

static tfr_status worker_join(struct party *party)
{
    struct offer offer = {
        .version = VERSION, .sock_n = sock_n_wanted(), .encrypt = encrypt_wanted()};
    tfr_status status = listener_open(party, &offer.port);
    struct answer answer;

    if (status != TFR_OK)
        return status;
    status = random_fill(offer.nonce, NONCE);
    if (status == TFR_OK && !tfr_boot_secret(party->boot))
        status = random_fill(offer.secret, sizeof(offer.secret));
    if (status == TFR_OK)
        status = msg_send(party->boot, &offer, sizeof(offer));
    if (status == TFR_OK)
        status = msg_recv(party->boot, &answer, sizeof(answer));
    if (status == TFR_OK && (!answer.sock_n || answer.sock_n > offer.sock_n))
        status = tfr_fail(TFR_E_PROTO, "tcp link: %u sockets", answer.sock_n);
    if (status == TFR_OK) {
        party->joint->sock_n = answer.sock_n;
        party->joint->encrypt = offer.encrypt || answer.encrypt;
        key_make(party, &offer);
        status = guests_join(party);
    }
    for (int i = 0; i < GUEST_N; i++)
        if (party->guests[i].fd >= 0)
            guest_end(&party->guests[i]);
    close(party->listener);
    return status;
}

/* Exactly so many bytes within the time. */
static tfr_status bytes_recv(int fd, void *to, size_t len, uint64_t deadline_ns)
{
    while (len) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        ssize_t got = recv(fd, to, len, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            return TFR_E_PEER;
        if (got < 0 && !left_ms(deadline_ns))
            return TFR_E_TIMEOUT;
        if (got < 0) {
            poll(&poller, 1, left_ms(deadline_ns));
        } else {
            to = (char *)to + got;
            len -= (size_t)got;
        }
    }
    return TFR_OK;
}

static tfr_status channel_prove(const struct party *party, int fd, uint32_t channel)
{
    struct hello hello = {.magic = MAGIC, .channel = channel};
    uint8_t nonce[NONCE], mac[TFR_MAC_LEN], theirs[TFR_MAC_LEN];
    tfr_status status = bytes_recv(fd, nonce, NONCE, party->deadline_ns);

    if (status == TFR_OK)
        status = random_fill(hello.nonce, NONCE);
    if (status != TFR_OK)
        return status;
    mac_make(party->key, "connect", channel, nonce, hello.nonce, hello.mac);
    if (send(fd, &hello, sizeof(hello), MSG_NOSIGNAL) != sizeof(hello))
        return TFR_E_PEER;
    status = bytes_recv(fd, theirs, sizeof(theirs), party->deadline_ns);
    if (status != TFR_OK)
        return status;
    mac_make(party->key, "listen", channel, nonce, hello.nonce, mac);
    return tfr_mac_same(mac, theirs) ? TFR_OK : TFR_E_ACCESS;
}

/* 0, or errno */
static int connect_wait(int fd, const struct sockaddr_storage *addr, socklen_t len,
                        uint64_t deadline_ns)
{
    struct pollfd poller = {.fd = fd, .events = POLLOUT};
    socklen_t err_len = sizeof(int);
    int err = 0, n;

    if (connect(fd, (const struct sockaddr *)addr, len) == 0)
        return 0;
    if (errno != EINPROGRESS && errno != EINTR)
        return errno;
    do {
        n = poll(&poller, 1, left_ms(deadline_ns));
    } while (n < 0 && errno == EINTR);
    if (n <= 0)
        return ETIMEDOUT;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &err_len);
    return err;
}

/* TFR_E_PEER: closed early, nothing was said about it. */
static tfr_status channel_try(struct party *party, const struct sockaddr_storage *addr,
                              socklen_t len, uint32_t channel)
{
    int fd = socket(addr->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err;
    tfr_status status;
    char text[TFR_ADDRESS_TEXT];

    if (fd < 0)
        return tfr_fail(TFR_E_SYS, "tcp link: socket: %s", strerror(errno));
    err = connect_wait(fd, addr, len, party->deadline_ns);
    if (err) {
        close(fd);
        return tfr_fail(TFR_E_TIMEOUT,
                        "tcp link: connect to %s: %s: a firewall may be in the way, "
                        "TFR_TCP_PORTS at the executor names the ports",
                        tfr_address_text(addr, text), strerror(err));
    }
    status = channel_prove(party, fd, channel);
    if (status == TFR_OK) {
        party->joint->fds[channel] = fd;
        party->joined++;
        return TFR_OK;
    }
    close(fd);
    if (status == TFR_E_PEER)
        return status;
    return tfr_fail(status, "tcp link: proof at %s: %s", tfr_address_text(addr, text),
                    tfr_status_str(status));
}

/* A worker that is flooded may have closed it early. */
static tfr_status channel_join(struct party *party, uint16_t port, uint32_t channel)
{
    struct sockaddr_storage addr;
    socklen_t len = addr_get(party->boot, true, port, &addr);
    const struct timespec nap = {.tv_nsec = AGAIN_MS * 1000000};
    tfr_status status;
    char text[TFR_ADDRESS_TEXT];

    while ((status = channel_try(party, &addr, len, channel)) == TFR_E_PEER) {
        if (!left_ms(party->deadline_ns) || tfr_boot_gone(party->boot))
            return tfr_fail(status, "tcp link: %s closes every connection",
                            tfr_address_text(&addr, text));
        nanosleep(&nap, NULL);
    }
    return status;
}

static tfr_status client_join(struct party *party)
{
    struct answer answer = {
        .version = VERSION, .sock_n = sock_n_wanted(), .encrypt = encrypt_wanted()};
    struct offer offer;
    tfr_status status = msg_recv(party->boot, &offer, sizeof(offer));

    if (status != TFR_OK)
        return status;
    if (!offer.sock_n || offer.sock_n > TFR_CHANNELS)
        return tfr_fail(TFR_E_PROTO, "tcp link: %u sockets", offer.sock_n);
    if (answer.sock_n > offer.sock_n)
        answer.sock_n = offer.sock_n;
    party->joint->sock_n = answer.sock_n;
    answer.encrypt |= offer.encrypt != 0;
    party->joint->encrypt = answer.encrypt;
    key_make(party, &offer);
    status = msg_send(party->boot, &answer, sizeof(answer));
    while (status == TFR_OK && party->joined < party->joint->sock_n)
        status = channel_join(party, offer.port, party->joined);
    return status;
}

tfr_status tcp_connect(struct tfr_boot *boot, bool first, struct tcp_joint *joint_out)
{
    struct tcp_joint joint = {.first = first};
    struct party party = {
        .boot = boot,
        .deadline_ns = tfr_clock_now() + OPEN_MS * TFR_NS_PER_MS,
        .joint = &joint,
    };
    tfr_status status;

    for (int i = 0; i < GUEST_N; i++)
        party.guests[i].fd = -1;
    for (int i = 0; i < TFR_CHANNELS; i++)
        joint.fds[i] = -1;
    status = first ? client_join(&party) : worker_join(&party);
    for (int i = 0; i < TFR_CHANNELS; i++) {
        if (joint.fds[i] >= 0 && status == TFR_OK)
            tcp_options_set(joint.fds[i], tfr_boot_near(boot));
        else if (joint.fds[i] >= 0)
            close(joint.fds[i]);
    }
    if (status == TFR_OK)
        *joint_out = joint;
    return status;
}
