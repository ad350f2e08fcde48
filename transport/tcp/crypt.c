/* The stream of a socket, sealed (TFR_TCP_ENCRYPT): it is cut into boxes of up to 32 KiB, each its
 * length in the clear, the bytes encrypted and a tag.  Keys are of the socket and the direction,
 * boxes are numbered: one that was changed, repeated or left out ends the link.  Called by send.c
 * and recv.c in place of the system calls, under the same locks. */
#define TFR_LOG_PART "transport"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "transport/sodium.h"
#include "transport/tcp/tcp.h"

enum {
    PLAIN_MAX = 32 << 10,
    LEN_LEN = sizeof(uint32_t),
    BOX_MAX = LEN_LEN + PLAIN_MAX + TFR_SODIUM_TAG,
    IN_MAX = 2 * BOX_MAX, /* so that the rest of one box leaves room for the next */
};

struct tcp_crypt {
    const struct tfr_sodium *sodium;
    uint8_t out_key[TFR_SODIUM_KEY], in_key[TFR_SODIUM_KEY];
    uint64_t out_n, in_n;        /* boxes so far */
    uint32_t out_from, out_till; /* sealed, and not sent */
    uint32_t in_from, in_till;   /* received, and not opened */
    uint32_t plain_from, plain_till;
    uint8_t out[BOX_MAX], in[IN_MAX];
};

static void key_make(const struct tfr_sodium *sodium, const struct tcp_joint *joint,
                     uint32_t channel, uint32_t way, uint8_t *key_out)
{
    struct {
        char label[12];
        uint32_t channel, way;
        uint8_t nonce[sizeof(joint->nonce)];
    } text = {"tfr tcp box", channel, way, {0}};

    memcpy(text.nonce, joint->nonce, sizeof(text.nonce));
    sodium->hash(key_out, TFR_SODIUM_KEY, (const uint8_t *)&text, sizeof(text), joint->secret,
                 sizeof(joint->secret));
}

tfr_status tcp_crypt_make(const struct tcp_joint *joint, uint32_t channel,
                          struct tcp_crypt **crypt_out)
{
    const struct tfr_sodium *sodium = tfr_sodium();
    struct tcp_crypt *crypt = sodium ? calloc(1, sizeof(*crypt)) : NULL;

    if (!sodium)
        return tfr_fail(TFR_E_UNSUP, "TFR_TCP_ENCRYPT needs libsodium here, too (Debian: "
                                     "libsodium23)");
    if (!crypt)
        return tfr_fail(TFR_E_NOMEM, "keys of a tcp link");
    crypt->sodium = sodium;
    key_make(sodium, joint, channel, joint->first, crypt->out_key);
    key_make(sodium, joint, channel, !joint->first, crypt->in_key);
    *crypt_out = crypt;
    return TFR_OK;
}

void tcp_crypt_free(struct tcp_crypt *crypt)
{
    if (crypt)
        explicit_bzero(crypt, sizeof(*crypt));
    free(crypt);
}

static void nonce_make(uint64_t n, uint8_t nonce_out[TFR_SODIUM_NONCE])
{
    memset(nonce_out, 0, TFR_SODIUM_NONCE);
    memcpy(nonce_out + TFR_SODIUM_NONCE - sizeof(n), &n, sizeof(n));
}

bool tcp_crypt_unsent(const struct tcp_crypt *crypt)
{
    return crypt->out_from != crypt->out_till;
}

/* 0: all is sent; -1 with errno as of send. */
static int sealed_send(struct tcp_crypt *crypt, int fd)
{
    while (crypt->out_from != crypt->out_till) {
        ssize_t sent = send(fd, crypt->out + crypt->out_from, crypt->out_till - crypt->out_from,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            return -1;
        crypt->out_from += (uint32_t)sent;
    }
    return 0;
}

ssize_t tcp_crypt_send(struct tcp_crypt *crypt, int fd, const struct iovec *iov, int n)
{
    uint8_t nonce[TFR_SODIUM_NONCE];
    uint8_t *plain = crypt->out + LEN_LEN;
    uint32_t len = 0;

    if (sealed_send(crypt, fd) < 0)
        return -1;
    for (int i = 0; i < n && len < PLAIN_MAX; i++) {
        size_t part = iov[i].iov_len < PLAIN_MAX - len ? iov[i].iov_len : PLAIN_MAX - len;
        memcpy(plain + len, iov[i].iov_base, part);
        len += (uint32_t)part;
    }
    if (!len)
        return 0;
    memcpy(crypt->out, &len, LEN_LEN);
    nonce_make(crypt->out_n++, nonce);
    crypt->sodium->encrypt(plain, NULL, plain, len, crypt->out, LEN_LEN, NULL, nonce,
                           crypt->out_key);
    crypt->out_from = 0;
    crypt->out_till = LEN_LEN + len + TFR_SODIUM_TAG;
    if (sealed_send(crypt, fd) < 0 && errno != EAGAIN && errno != EINTR)
        return -1;
    return (ssize_t)len;
}

/* Is the next box here as a whole?  Its length is the peer's word: too long is TFR_E_PROTO. */
static tfr_status box_whole(const struct tcp_crypt *crypt, uint32_t *len_out)
{
    uint32_t here = crypt->in_till - crypt->in_from;

    if (here < LEN_LEN)
        return TFR_AGAIN;
    memcpy(len_out, crypt->in + crypt->in_from, LEN_LEN);
    if (*len_out > PLAIN_MAX || !*len_out)
        return tfr_fail(TFR_E_PROTO, "tcp: sealed box of %u bytes", *len_out);
    return here < LEN_LEN + *len_out + TFR_SODIUM_TAG ? TFR_AGAIN : TFR_OK;
}

bool tcp_crypt_unread(const struct tcp_crypt *crypt)
{
    uint32_t len;

    return crypt->plain_from != crypt->plain_till || box_whole(crypt, &len) != TFR_AGAIN;
}

static tfr_status box_open(struct tcp_crypt *crypt)
{
    uint8_t *box = crypt->in + crypt->in_from;
    uint8_t nonce[TFR_SODIUM_NONCE];
    uint32_t len;
    tfr_status status = box_whole(crypt, &len);

    if (status != TFR_OK)
        return status;
    nonce_make(crypt->in_n++, nonce);
    if (crypt->sodium->decrypt(box + LEN_LEN, NULL, NULL, box + LEN_LEN, len + TFR_SODIUM_TAG, box,
                               LEN_LEN, nonce, crypt->in_key) != 0)
        return tfr_fail(TFR_E_PROTO, "tcp: a sealed box was changed on its way");
    crypt->plain_from = crypt->in_from + LEN_LEN;
    crypt->plain_till = crypt->plain_from + len;
    crypt->in_from = crypt->plain_till + TFR_SODIUM_TAG;
    return TFR_OK;
}

/* More bytes for the next box; as recv. */
static ssize_t box_read(struct tcp_crypt *crypt, int fd)
{
    ssize_t got;

    memmove(crypt->in, crypt->in + crypt->in_from, crypt->in_till - crypt->in_from);
    crypt->in_till -= crypt->in_from;
    crypt->in_from = 0;
    got = recv(fd, crypt->in + crypt->in_till, IN_MAX - crypt->in_till, MSG_DONTWAIT);
    if (got > 0)
        crypt->in_till += (uint32_t)got;
    return got;
}

ssize_t tcp_crypt_recv(struct tcp_crypt *crypt, int fd, const struct iovec *iov, int n)
{
    ssize_t got = 0;

    while (crypt->plain_from == crypt->plain_till) {
        tfr_status status = box_open(crypt);
        if (status == TFR_E_PROTO) {
            errno = EBADMSG;
            return -1;
        }
        if (status == TFR_OK)
            break;
        got = box_read(crypt, fd);
        if (got <= 0)
            return got;
    }
    got = 0;
    for (int i = 0; i < n; i++) {
        size_t here = crypt->plain_till - crypt->plain_from;
        size_t part = iov[i].iov_len < here ? iov[i].iov_len : here;
        memcpy(iov[i].iov_base, crypt->in + crypt->plain_from, part);
        crypt->plain_from += (uint32_t)part;
        got += (ssize_t)part;
    }
    return got;
}
