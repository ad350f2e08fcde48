/* Sealed messages: encrypted and authenticated with one key per direction, and counted, so that a
 * changed, repeated, dropped or reordered message ends the connection.  Made by a proof of identity
 * (auth.h), used by boot.c; plain data, so that a worker can go on where its parent ended. */
#ifndef TFR_TRANSPORT_SEAL_H
#define TFR_TRANSPORT_SEAL_H

#include <stdbool.h>

#include "base/status.h"
#include "transport/boot.h"
#include "transport/sodium.h"

struct tfr_seal {
    uint8_t out_key[TFR_SODIUM_KEY], in_key[TFR_SODIUM_KEY];
    uint64_t out_n, in_n; /* messages so far: the nonces */
    uint8_t secret[TFR_BOOT_SECRET];
    uint64_t broken; /* something came that was not the peer's: nothing more is let in */
};

/* From a root that both sides derived; `first` is true on exactly one. */
void tfr_seal_init(struct tfr_seal *seal, const uint8_t root[TFR_SODIUM_KEY], bool first);

/* Writes len + TFR_SODIUM_TAG bytes; `ad` travels beside them in the clear. */
void tfr_seal_close(struct tfr_seal *seal, const void *ad, size_t ad_len, const void *plain,
                    size_t len, uint8_t *out);

/* Opens in place what has len bytes and a tag behind them.  TFR_E_PROTO: not the next message of
 * the peer. */
tfr_status tfr_seal_open(struct tfr_seal *seal, const void *ad, size_t ad_len, uint8_t *bytes,
                         size_t len);

/* Wipes and frees; NULL is fine. */
void tfr_seal_free(struct tfr_seal *seal);

#endif
