/* See mac.h: SipHash-2-4 with 128 bits of answer, since a machine without libsodium must be able to
 * join a link, too. */
#include "transport/mac.h"

#include <string.h>

static uint64_t turn(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static void rounds(uint64_t v[4], int n)
{
    while (n--) {
        v[0] += v[1], v[1] = turn(v[1], 13) ^ v[0], v[0] = turn(v[0], 32);
        v[2] += v[3], v[3] = turn(v[3], 16) ^ v[2];
        v[0] += v[3], v[3] = turn(v[3], 21) ^ v[0];
        v[2] += v[1], v[1] = turn(v[1], 17) ^ v[2], v[2] = turn(v[2], 32);
    }
}

static void word_take(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    rounds(v, 2);
    v[0] ^= word;
}

void tfr_mac(const uint8_t key[TFR_MAC_LEN], const void *bytes, size_t len,
             uint8_t mac_out[TFR_MAC_LEN])
{
    const uint8_t *at = bytes;
    uint64_t k[2], word, last = (uint64_t)len << 56, out[2];
    uint64_t v[4] = {0x736f6d6570736575, 0x646f72616e646f6d ^ 0xee, 0x6c7967656e657261,
                     0x7465646279746573};

    memcpy(k, key, sizeof(k));
    for (int i = 0; i < 4; i++)
        v[i] ^= k[i % 2];
    for (; len >= sizeof(word); at += sizeof(word), len -= sizeof(word)) {
        memcpy(&word, at, sizeof(word));
        word_take(v, word);
    }
    for (size_t i = 0; i < len; i++)
        last |= (uint64_t)at[i] << 8 * i;
    word_take(v, last);
    v[2] ^= 0xee;
    rounds(v, 4);
    out[0] = v[0] ^ v[1] ^ v[2] ^ v[3];
    v[1] ^= 0xdd;
    rounds(v, 4);
    out[1] = v[0] ^ v[1] ^ v[2] ^ v[3];
    memcpy(mac_out, out, sizeof(out));
}

/* In a time that tells nothing. */
bool tfr_mac_same(const uint8_t *a, const uint8_t *b)
{
    uint8_t differ = 0;

    for (int i = 0; i < TFR_MAC_LEN; i++)
        differ |= a[i] ^ b[i];
    return differ == 0;
}
