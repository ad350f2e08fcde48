/* A keyed hash for proofs that open connections of a link: of tcp's sockets, and of librdmacm's
 * requests.  Keys are fresh for every link; it is no hash for anything that lasts. */
#ifndef TFR_TRANSPORT_MAC_H
#define TFR_TRANSPORT_MAC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TFR_MAC_LEN = 16 }; /* of keys and of answers */

void tfr_mac(const uint8_t key[TFR_MAC_LEN], const void *bytes, size_t len,
             uint8_t mac_out[TFR_MAC_LEN]);

/* In a time that tells nothing. */
bool tfr_mac_same(const uint8_t *a, const uint8_t *b);

#endif
