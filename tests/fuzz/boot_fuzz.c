/* Any bytes and any descriptors on the boot socket: tfr_boot_recv must neither crash nor leak nor
 * return what its contract excludes.  Input: one byte that says how many descriptors go with which
 * piece, then the bytes, sent in two pieces. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "transport/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void piece_send(int sock, const uint8_t *data, size_t len, int fd_n)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * 16)];
    } space;
    struct iovec iov = {(void *)data, len};
    struct msghdr hdr = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd_n) {
        struct cmsghdr *cmsg;
        memset(&space, 0, sizeof(space));
        hdr.msg_control = space.bytes;
        hdr.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fd_n);
        cmsg = CMSG_FIRSTHDR(&hdr);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fd_n); /* descriptor 0, as often as asked */
    }
    if (len)
        sendmsg(sock, &hdr, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* The lowest free descriptor: goes up if one was leaked. */
static int lowest_free(void)
{
    int fd = dup(0);

    close(fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int before = lowest_free();
    struct tfr_boot_msg msg;
    struct tfr_boot boot;
    int socks[2];
    size_t half;

    if (size < 1 || socketpair(AF_UNIX, SOCK_STREAM, 0, socks) < 0)
        return 0;
    half = (size - 1) / 2;
    piece_send(socks[0], data + 1, half, data[0] & 15);
    piece_send(socks[0], data + 1 + half, size - 1 - half, data[0] >> 4);
    close(socks[0]);
    boot = (struct tfr_boot){.fd = socks[1]};
    while (tfr_boot_recv(&boot, &msg, 0) == TFR_OK) {
        if (msg.len > TFR_BOOT_MAX || msg.fd_n < 0 || msg.fd_n > TFR_BOOT_FDS ||
            (msg.len && !msg.body))
            abort();
        tfr_boot_msg_fini(&msg);
    }
    close(socks[1]);
    if (lowest_free() != before)
        abort();
    return 0;
}
