/* The boot socket over unix sockets.  Every call works against a deadline and passes MSG_DONTWAIT
 * itself, so that neither the descriptor's flags nor a peer that stops reading can hang it.
 * A frame is head (type, length, number of descriptors), then body; descriptors ride on the head.
 */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "transport/backend.h"
#include "transport/boot.h"

struct head {
    uint32_t magic, type, len, fd_n;
};
enum { MAGIC = 0x30524654 /* "TFR0" */, BACKLOG = 256 };

union fd_space {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * TFR_BOOT_FDS)];
};

static int left_ms(uint64_t deadline_ns)
{
    uint64_t now = tfr_clock_now();

    return now >= deadline_ns ? 0 : (int)((deadline_ns - now + TFR_NS_PER_MS - 1) / TFR_NS_PER_MS);
}

static uint64_t deadline_in(int limit_ms)
{
    return tfr_clock_now() + (uint64_t)(limit_ms < 0 ? 0 : limit_ms) * TFR_NS_PER_MS;
}

/* Waits until the socket can be read or written; TFR_E_TIMEOUT past the deadline. */
static tfr_status ready_wait(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd poller = {.fd = fd, .events = events};
    int left = left_ms(deadline_ns);

    if (left == 0)
        return TFR_E_TIMEOUT;
    if (poll(&poller, 1, left) < 0 && errno != EINTR)
        return tfr_fail(TFR_E_SYS, "poll on the boot socket: %s", strerror(errno));
    return TFR_OK; /* the caller tries again and finds out */
}

int tfr_boot_addr_good(const char *addr, const char **why_out)
{
    const char *path = addr && strncmp(addr, "unix:", 5) == 0 ? addr + 5 : "@";
    bool known = *path && strcmp(path, "@") != 0;

    if (known && strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path))
        return 1;
    *why_out = known ? "longer than a socket's name may be (107 bytes)"
                     : "expected unix:PATH or unix:@NAME";
    return 0;
}

static tfr_status addr_parse(const char *addr, struct sockaddr_un *sun, socklen_t *len_out)
{
    const char *path, *why;
    size_t len;

    if (!tfr_boot_addr_good(addr, &why))
        return tfr_fail(TFR_E_INVAL, "address \"%s\": %s", addr ? addr : "", why);
    path = addr + 5;
    len = strlen(path);
    memset(sun, 0, sizeof(*sun));
    sun->sun_family = AF_UNIX;
    memcpy(sun->sun_path, path, len);
    *len_out = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    if (*path == '@')
        sun->sun_path[0] = 0;
    else
        *len_out += 1;
    return TFR_OK;
}

/* -1: none to be had, logged */
static int socket_open(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        tfr_fail(TFR_E_SYS, "socket: %s", strerror(errno));
    return fd;
}

/* Something has the address: a live listener, or a socket file that a killed one left behind. */
static tfr_status leftover_remove(const char *addr, const struct sockaddr_un *sun, socklen_t len)
{
    struct stat st;
    bool dead;
    int fd;

    if (sun->sun_path[0] && (lstat(sun->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode)))
        return tfr_fail(TFR_E_ACCESS, "%s exists and is not a socket: choose another address",
                        addr);
    fd = socket_open();
    if (fd < 0)
        return TFR_E_SYS;
    dead = connect(fd, (const struct sockaddr *)sun, len) < 0 && errno == ECONNREFUSED;
    close(fd);
    if (!dead || !sun->sun_path[0])
        return tfr_fail(TFR_E_ACCESS,
                        "%s is in use by another process: stop it or choose another address", addr);
    if (unlink(sun->sun_path) < 0 && errno != ENOENT)
        return tfr_fail(TFR_E_ACCESS, "remove the old socket %s: %s", addr, strerror(errno));
    return TFR_OK;
}

tfr_status tfr_boot_listen(const char *addr, int *fd_out)
{
    struct sockaddr_un sun;
    socklen_t len;
    tfr_status status = addr_parse(addr, &sun, &len);
    int fd, bound;

    if (status != TFR_OK)
        return status;
    fd = socket_open();
    if (fd < 0)
        return TFR_E_SYS;
    fchmod(fd, 0600); /* before bind: gives the file its mode, whatever the umask */
    bound = bind(fd, (struct sockaddr *)&sun, len);
    if (bound < 0 && errno == EADDRINUSE) {
        status = leftover_remove(addr, &sun, len);
        if (status != TFR_OK)
            goto fd_close;
        bound = bind(fd, (struct sockaddr *)&sun, len);
    }
    if (bound < 0 || listen(fd, BACKLOG) < 0) {
        status = tfr_fail(TFR_E_SYS, "listen on %s: %s", addr, strerror(errno));
        goto fd_close;
    }
    *fd_out = fd;
    return TFR_OK;

fd_close:
    close(fd);
    return status;
}

void tfr_boot_unlink(const char *addr)
{
    struct sockaddr_un sun;
    socklen_t len;

    if (addr_parse(addr, &sun, &len) == TFR_OK && sun.sun_path[0])
        unlink(sun.sun_path);
}

tfr_status tfr_boot_accept(int listen_fd, struct tfr_boot *boot_out)
{
    int fd;

    do {
        fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0 && errno == EAGAIN)
        return TFR_AGAIN;
    if (fd < 0)
        return tfr_fail(TFR_E_SYS, "accept: %s", strerror(errno));
    *boot_out = (struct tfr_boot){.fd = fd};
    return TFR_OK;
}

tfr_status tfr_boot_connect(const char *addr, int limit_ms, struct tfr_boot *boot_out)
{
    const struct timespec nap = {.tv_nsec = 2000000};
    uint64_t deadline_ns = deadline_in(limit_ms);
    struct sockaddr_un sun;
    socklen_t len;
    tfr_status status = addr_parse(addr, &sun, &len);
    int fd;

    if (status != TFR_OK)
        return status;
    fd = socket_open();
    if (fd < 0)
        return TFR_E_SYS;
    while (connect(fd, (struct sockaddr *)&sun, len) < 0) {
        int cause = errno;
        if (cause == EINTR)
            continue;
        if (cause != EAGAIN || left_ms(deadline_ns) == 0) { /* EAGAIN: its queue is full */
            tfr_info("connect to %s: %s", addr, strerror(cause));
            close(fd);
            return cause == EAGAIN ? TFR_E_TIMEOUT : cause == EACCES ? TFR_E_ACCESS : TFR_E_PEER;
        }
        nanosleep(&nap, NULL);
    }
    *boot_out = (struct tfr_boot){.fd = fd};
    return TFR_OK;
}

static void kept_take(struct tfr_boot *boot, struct tfr_boot_msg *msg_out)
{
    *msg_out = *boot->kept;
    free(boot->kept);
    boot->kept = NULL;
}

void tfr_boot_close(struct tfr_boot *boot)
{
    struct tfr_boot_msg msg;

    if (boot->fd >= 0)
        close(boot->fd);
    if (boot->kept) {
        kept_take(boot, &msg);
        tfr_boot_msg_fini(&msg);
    }
    *boot = (struct tfr_boot){.fd = -1};
}

const uint8_t *tfr_boot_secret(const struct tfr_boot *boot)
{
    (void)boot;
    return NULL;
}

tfr_status tfr_boot_peer(const struct tfr_boot *boot, uid_t *uid_out, pid_t *pid_out)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);

    if (getsockopt(boot->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || len != sizeof(cred))
        return tfr_fail(TFR_E_SYS, "credentials of the peer: %s", strerror(errno));
    *uid_out = cred.uid;
    *pid_out = cred.pid;
    return TFR_OK;
}

static bool is_gone(int cause)
{
    return cause == EPIPE || cause == ECONNRESET || cause == ENOTCONN;
}

static void msg_attach(struct msghdr *hdr, union fd_space *space, const int *fds, size_t fd_n)
{
    struct cmsghdr *cmsg;

    memset(space, 0, sizeof(*space));
    hdr->msg_control = space->bytes;
    hdr->msg_controllen = CMSG_SPACE(sizeof(int) * fd_n);
    cmsg = CMSG_FIRSTHDR(hdr);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int) * fd_n);
    memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * fd_n);
}

tfr_status tfr_boot_send(struct tfr_boot *boot, const struct tfr_boot_msg *msg, int limit_ms)
{
    uint64_t deadline_ns = deadline_in(limit_ms);
    struct head head = {MAGIC, msg->type, msg->len, (uint32_t)msg->fd_n};
    struct iovec iov[2] = {{&head, sizeof(head)}, {msg->body, msg->len}};
    struct msghdr hdr = {.msg_iov = iov, .msg_iovlen = 2};
    size_t left = sizeof(head) + msg->len;
    union fd_space space;

    if (msg->len > TFR_BOOT_MAX || msg->fd_n < 0 || msg->fd_n > TFR_BOOT_FDS)
        return tfr_fail(TFR_E_INVAL, "boot message of %u bytes and %d descriptors", msg->len,
                        msg->fd_n);
    if (msg->fd_n)
        msg_attach(&hdr, &space, msg->fds, (size_t)msg->fd_n);
    while (left) {
        ssize_t sent = sendmsg(boot->fd, &hdr, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            tfr_status status = ready_wait(boot->fd, POLLOUT, deadline_ns);
            if (status != TFR_OK)
                return status;
        } else if (sent < 0 && errno != EINTR) {
            return is_gone(errno) ? TFR_E_PEER
                                  : tfr_fail(TFR_E_SYS, "boot socket: %s", strerror(errno));
        } else if (sent > 0) {
            left -= (size_t)sent;
            hdr.msg_control = NULL; /* left with the first byte */
            hdr.msg_controllen = 0;
            for (int i = 0; i < 2 && sent > 0; i++) {
                size_t part = (size_t)sent < iov[i].iov_len ? (size_t)sent : iov[i].iov_len;
                iov[i].iov_base = (char *)iov[i].iov_base + part;
                iov[i].iov_len -= part;
                sent -= (ssize_t)part;
            }
        }
    }
    return TFR_OK;
}

/* Keeps what fits, closes the rest; false if there was a rest. */
static bool fds_collect(struct msghdr *hdr, struct tfr_boot_msg *msg)
{
    bool fit = !(hdr->msg_flags & MSG_CTRUNC);

    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(hdr); cmsg; cmsg = CMSG_NXTHDR(hdr, cmsg)) {
        size_t n;
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
            continue;
        n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
            if (msg->fd_n < TFR_BOOT_FDS) {
                msg->fds[msg->fd_n++] = fd;
            } else {
                close(fd);
                fit = false;
            }
        }
    }
    return fit;
}

/* Reads len bytes.  msg takes descriptors that come along; NULL: none are let in (the kernel closes
 * them).  *any tells whether a byte of the message was consumed. */
static tfr_status bytes_recv(int fd, void *to, size_t len, struct tfr_boot_msg *msg,
                             uint64_t deadline_ns, bool *any)
{
    while (len) {
        union fd_space space;
        struct iovec iov = {to, len};
        struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
        ssize_t got;

        if (msg) {
            hdr.msg_control = space.bytes;
            hdr.msg_controllen = sizeof(space.bytes);
        }
        got = recvmsg(fd, &hdr, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got > 0) {
            *any = true;
            if (msg ? !fds_collect(&hdr, msg) : hdr.msg_flags & MSG_CTRUNC)
                return tfr_fail(TFR_E_PROTO, "boot message with surplus descriptors");
            to = (char *)to + got;
            len -= (size_t)got;
        } else if (got == 0 || is_gone(errno)) {
            return TFR_E_PEER;
        } else if (errno == EAGAIN) {
            tfr_status status = ready_wait(fd, POLLIN, deadline_ns);
            if (status == TFR_E_TIMEOUT && *any)
                return tfr_fail(TFR_E_PROTO, "boot message stalled midway");
            if (status != TFR_OK)
                return status;
        } else if (errno != EINTR) {
            return tfr_fail(TFR_E_SYS, "boot socket: %s", strerror(errno));
        }
    }
    return TFR_OK;
}

static tfr_status head_check(const struct head *head, const struct tfr_boot_msg *msg)
{
    if (head->magic != MAGIC)
        return tfr_fail(TFR_E_PROTO, "the peer on the boot socket does not speak our protocol");
    if (head->len > TFR_BOOT_MAX)
        return tfr_fail(TFR_E_PROTO, "boot message of %u bytes", head->len);
    if (head->fd_n != (uint32_t)msg->fd_n)
        return tfr_fail(TFR_E_PROTO, "boot message with %d descriptors of %u", msg->fd_n,
                        head->fd_n);
    return TFR_OK;
}

static tfr_status msg_recv(struct tfr_boot *boot, struct tfr_boot_msg *msg_out, int limit_ms)
{
    uint64_t deadline_ns = deadline_in(limit_ms);
    struct tfr_boot_msg msg = {0};
    struct head head;
    bool any = false;
    tfr_status status = bytes_recv(boot->fd, &head, sizeof(head), &msg, deadline_ns, &any);

    if (status == TFR_OK)
        status = head_check(&head, &msg);
    if (status != TFR_OK)
        goto msg_free;
    msg.type = head.type;
    msg.len = head.len;
    if (head.len) {
        msg.body = malloc(head.len);
        if (!msg.body) {
            status = tfr_fail(TFR_E_NOMEM, "boot message of %u bytes", head.len);
            goto msg_free;
        }
        status = bytes_recv(boot->fd, msg.body, head.len, NULL, deadline_ns, &any);
        if (status != TFR_OK)
            goto msg_free;
    }
    *msg_out = msg;
    return TFR_OK;

msg_free:
    tfr_boot_msg_fini(&msg);
    return status;
}

tfr_status tfr_boot_recv(struct tfr_boot *boot, struct tfr_boot_msg *msg_out, int limit_ms)
{
    struct tfr_boot_msg msg;
    tfr_status status;

    if (boot->kept && boot->linking)
        return TFR_E_PEER;
    if (boot->kept) {
        kept_take(boot, msg_out);
        return TFR_OK;
    }
    status = msg_recv(boot, &msg, limit_ms);
    if (status != TFR_OK)
        return status;
    if (!boot->linking || msg.type == TFR_BOOT_LINK) {
        *msg_out = msg;
        return TFR_OK;
    }
    boot->kept = malloc(sizeof(*boot->kept));
    if (boot->kept)
        *boot->kept = msg;
    else
        tfr_boot_msg_fini(&msg);
    return TFR_E_PEER;
}

void tfr_boot_linking(struct tfr_boot *boot, bool on)
{
    boot->linking = on;
}

/* The next piece, straight to where it belongs; a descriptor that comes along is a breach. */
static tfr_status part_recv(int fd, void *to, size_t len, uint32_t *have)
{
    struct iovec iov = {to, len};
    struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t got = recvmsg(fd, &hdr, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return TFR_AGAIN;
    if (got <= 0)
        return TFR_E_PEER;
    *have += (uint32_t)got;
    return hdr.msg_flags & MSG_CTRUNC ? TFR_E_PROTO : TFR_OK;
}

tfr_status tfr_boot_recv_part(struct tfr_boot *boot, struct tfr_boot_in *in, uint32_t max,
                              struct tfr_boot_msg *msg_out)
{
    const uint32_t head_len = sizeof(struct head);
    tfr_status status = TFR_OK;
    struct head head;

    while (status == TFR_OK && in->have < head_len)
        status = part_recv(boot->fd, (char *)in->head + in->have, head_len - in->have, &in->have);
    if (status != TFR_OK)
        return status;
    memcpy(&head, in->head, sizeof(head));
    if (head.magic != MAGIC || head.len > max || head.fd_n)
        return TFR_E_PROTO;
    if (head.len && !in->body)
        in->body = malloc(head.len);
    if (head.len && !in->body)
        return TFR_E_NOMEM;
    while (status == TFR_OK && in->have - head_len < head.len)
        status = part_recv(boot->fd, in->body + (in->have - head_len),
                           head.len - (in->have - head_len), &in->have);
    if (status != TFR_OK)
        return status;
    *msg_out = (struct tfr_boot_msg){.type = head.type, .len = head.len, .body = in->body};
    *in = (struct tfr_boot_in){0};
    return TFR_OK;
}

void tfr_boot_in_fini(struct tfr_boot_in *in)
{
    free(in->body);
    *in = (struct tfr_boot_in){0};
}

void tfr_boot_msg_fini(struct tfr_boot_msg *msg)
{
    for (int i = 0; i < msg->fd_n; i++) {
        if (msg->fds[i] >= 0)
            close(msg->fds[i]);
    }
    free(msg->body);
    msg->body = NULL;
    msg->fd_n = 0;
    msg->len = 0;
}

int tfr_boot_gone(const struct tfr_boot *boot)
{
    struct pollfd poller = {.fd = boot->fd, .events = POLLRDHUP};

    return poll(&poller, 1, 0) > 0 &&
           (poller.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0;
}
