/* Messages on a boot connection.  Every call works against a deadline and passes MSG_DONTWAIT
 * itself, so that neither the descriptor's flags nor a peer that stops reading can hang it.
 * A frame is head (type, length, number of descriptors), then body; descriptors ride on the head.
 * With a seal the body is encrypted, a tag follows it, and the tag covers the head too. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "transport/backend.h"
#include "transport/boot.h"
#include "transport/seal.h"

struct head {
    uint32_t magic, type, len, fd_n;
};
enum { MAGIC = 0x30524654 /* "TFR0" */ };

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
    tfr_seal_free(boot->seal);
    *boot = (struct tfr_boot){.fd = -1};
}

const uint8_t *tfr_boot_secret(const struct tfr_boot *boot)
{
    return boot->seal ? boot->seal->secret : NULL;
}

tfr_status tfr_boot_peer(const struct tfr_boot *boot, uid_t *uid_out, pid_t *pid_out)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);

    if (boot->seal)
        return TFR_E_UNSUP;
    if (getsockopt(boot->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || len != sizeof(cred))
        return tfr_fail(TFR_E_SYS, "credentials of the peer: %s", strerror(errno));
    *uid_out = cred.uid;
    *pid_out = cred.pid;
    return TFR_OK;
}

static bool is_gone(int cause)
{
    return cause == EPIPE || cause == ECONNRESET || cause == ENOTCONN || cause == ETIMEDOUT ||
           cause == EHOSTUNREACH || cause == ENETUNREACH;
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

/* Everything that hdr names, however often it takes. */
static tfr_status parts_send(int fd, struct msghdr *hdr, uint64_t deadline_ns)
{
    struct iovec *iov = hdr->msg_iov;
    size_t left = iov[0].iov_len + iov[1].iov_len;

    while (left) {
        ssize_t sent = sendmsg(fd, hdr, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            tfr_status status = ready_wait(fd, POLLOUT, deadline_ns);
            if (status != TFR_OK)
                return status;
        } else if (sent < 0 && errno != EINTR) {
            return is_gone(errno) ? TFR_E_PEER
                                  : tfr_fail(TFR_E_SYS, "boot socket: %s", strerror(errno));
        } else if (sent > 0) {
            left -= (size_t)sent;
            hdr->msg_control = NULL; /* left with the first byte */
            hdr->msg_controllen = 0;
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

tfr_status tfr_boot_send(struct tfr_boot *boot, const struct tfr_boot_msg *msg, int limit_ms)
{
    struct head head = {MAGIC, msg->type, msg->len, (uint32_t)msg->fd_n};
    struct iovec iov[2] = {{&head, sizeof(head)}, {msg->body, msg->len}};
    struct msghdr hdr = {.msg_iov = iov, .msg_iovlen = 2};
    uint8_t *sealed = NULL;
    union fd_space space;
    tfr_status status;

    if (msg->len > TFR_BOOT_MAX || msg->fd_n < 0 || msg->fd_n > TFR_BOOT_FDS)
        return tfr_fail(TFR_E_INVAL, "boot message of %u bytes and %d descriptors", msg->len,
                        msg->fd_n);
    if (boot->seal && msg->fd_n)
        return tfr_fail(TFR_E_UNSUP, "memory cannot be shared over TCP: another transport is "
                                     "needed than the one that was chosen");
    if (msg->fd_n)
        msg_attach(&hdr, &space, msg->fds, (size_t)msg->fd_n);
    if (boot->seal) {
        sealed = malloc(msg->len + TFR_SODIUM_TAG);
        if (!sealed)
            return tfr_fail(TFR_E_NOMEM, "boot message of %u bytes", msg->len);
        tfr_seal_close(boot->seal, &head, sizeof(head), msg->body, msg->len, sealed);
        iov[1] = (struct iovec){sealed, msg->len + TFR_SODIUM_TAG};
    }
    status = parts_send(boot->fd, &hdr, deadline_in(limit_ms));
    free(sealed);
    return status;
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
                return tfr_fail(TFR_E_PROTO, "boot message with surplus descriptors, or ulimit -n "
                                             "leaves no room for them");
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
    uint32_t tag = boot->seal ? TFR_SODIUM_TAG : 0;
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
    if (head.len + tag) {
        msg.body = malloc(head.len + tag);
        if (!msg.body) {
            status = tfr_fail(TFR_E_NOMEM, "boot message of %u bytes", head.len);
            goto msg_free;
        }
        status = bytes_recv(boot->fd, msg.body, head.len + tag, NULL, deadline_ns, &any);
        if (status != TFR_OK)
            goto msg_free;
    }
    if (tag && tfr_seal_open(boot->seal, &head, sizeof(head), msg.body, head.len) != TFR_OK) {
        status = tfr_fail(TFR_E_PROTO, "boot message that is not the peer's next one: somebody "
                                       "meddles with the connection");
        goto msg_free;
    }
    *msg_out = msg;
    return TFR_OK;

msg_free:
    tfr_boot_msg_fini(&msg);
    return status;
}

void tfr_boot_keep(struct tfr_boot *boot, struct tfr_boot_msg *msg)
{
    boot->kept = malloc(sizeof(*boot->kept));
    if (boot->kept)
        *boot->kept = *msg;
    else
        tfr_boot_msg_fini(msg);
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
    tfr_boot_keep(boot, &msg);
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
    const uint32_t head_len = sizeof(struct head), tag = boot->seal ? TFR_SODIUM_TAG : 0;
    tfr_status status = TFR_OK;
    struct head head;

    while (status == TFR_OK && in->have < head_len)
        status = part_recv(boot->fd, (char *)in->head + in->have, head_len - in->have, &in->have);
    if (status != TFR_OK)
        return status;
    memcpy(&head, in->head, sizeof(head));
    if (head.magic != MAGIC || head.len > max || head.fd_n)
        return TFR_E_PROTO;
    if (head.len + tag && !in->body)
        in->body = malloc(head.len + tag);
    if (head.len + tag && !in->body)
        return TFR_E_NOMEM;
    while (status == TFR_OK && in->have - head_len < head.len + tag)
        status = part_recv(boot->fd, in->body + (in->have - head_len),
                           head.len + tag - (in->have - head_len), &in->have);
    if (status == TFR_OK && tag)
        status = tfr_seal_open(boot->seal, &head, head_len, in->body, head.len);
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
