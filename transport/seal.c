/* See seal.h.  Whoever has a seal has loaded libsodium: workers get one from their parent and load
 * it at the first message. */
#define TFR_LOG_PART "transport"
#include "transport/seal.h"

#include <stdlib.h>
#include <string.h>

static void derive(uint8_t *out, const uint8_t root[TFR_SODIUM_KEY], const char *label)
{
    tfr_sodium()->hash(out, TFR_SODIUM_KEY, (const uint8_t *)label, strlen(label), root,
                       TFR_SODIUM_KEY);
}

void tfr_seal_init(struct tfr_seal *seal, const uint8_t root[TFR_SODIUM_KEY], bool first)
{
    memset(seal, 0, sizeof(*seal));
    derive(first ? seal->out_key : seal->in_key, root, "boot messages of the client");
    derive(first ? seal->in_key : seal->out_key, root, "boot messages of the executor");
    derive(seal->secret, root, "transports");
}

static void nonce_make(uint8_t nonce[TFR_SODIUM_NONCE], uint64_t n)
{
    memset(nonce, 0, TFR_SODIUM_NONCE);
    memcpy(nonce + TFR_SODIUM_NONCE - sizeof(n), &n, sizeof(n));
}

void tfr_seal_close(struct tfr_seal *seal, const void *ad, size_t ad_len, const void *plain,
                    size_t len, uint8_t *out)
{
    uint8_t nonce[TFR_SODIUM_NONCE];

    nonce_make(nonce, seal->out_n++);
    tfr_sodium()->encrypt(out, NULL, plain, len, ad, ad_len, NULL, nonce, seal->out_key);
}

tfr_status tfr_seal_open(struct tfr_seal *seal, const void *ad, size_t ad_len, uint8_t *bytes,
                         size_t len)
{
    const struct tfr_sodium *sodium = tfr_sodium();
    uint8_t nonce[TFR_SODIUM_NONCE];

    nonce_make(nonce, seal->in_n);
    if (!sodium || seal->broken ||
        sodium->decrypt(bytes, NULL, NULL, bytes, len + TFR_SODIUM_TAG, ad, ad_len, nonce,
                        seal->in_key) != 0) {
        seal->broken = 1;
        return TFR_E_PROTO;
    }
    seal->in_n++;
    return TFR_OK;
}

void tfr_seal_free(struct tfr_seal *seal)
{
    if (seal)
        explicit_bzero(seal, sizeof(*seal));
    free(seal);
}
