/* What we use of libsodium, looked up at run time: nothing of ours links it, and without it
 * everything but TCP works.  For the proof of identity, for sealed boot messages, and for whoever
 * seals bytes of its own under tfr_boot_secret. */
#ifndef TFR_TRANSPORT_SODIUM_H
#define TFR_TRANSPORT_SODIUM_H

#include <stddef.h>
#include <stdint.h>

enum { TFR_SODIUM_KEY = 32, TFR_SODIUM_TAG = 16, TFR_SODIUM_NONCE = 12, TFR_SODIUM_POINT = 32 };

struct tfr_sodium {
    /* BLAKE2b; key may be NULL. */
    int (*hash)(uint8_t *out, size_t out_len, const uint8_t *in, unsigned long long in_len,
                const uint8_t *key, size_t key_len);
    /* ChaCha20-Poly1305 (RFC 8439); out and in may be the same place.  The tag follows the bytes.
     */
    int (*encrypt)(uint8_t *out, unsigned long long *out_len, const uint8_t *in,
                   unsigned long long in_len, const uint8_t *ad, unsigned long long ad_len,
                   const uint8_t *unused, const uint8_t *nonce, const uint8_t *key);
    int (*decrypt)(uint8_t *out, unsigned long long *out_len, uint8_t *unused, const uint8_t *in,
                   unsigned long long in_len, const uint8_t *ad, unsigned long long ad_len,
                   const uint8_t *nonce, const uint8_t *key);
    /* X25519 */
    int (*point)(uint8_t *point_out, const uint8_t *secret);
    int (*shared)(uint8_t *shared_out, const uint8_t *secret, const uint8_t *peer_point);
    int (*compare)(const void *a, const void *b, size_t len); /* 0: equal; in constant time */
};

/* NULL: it cannot be loaded; the first call of a process may take a millisecond.  Thread-safe. */
const struct tfr_sodium *tfr_sodium(void);

#endif
