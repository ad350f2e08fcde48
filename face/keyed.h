/* The keyed export table; see keyed.c for why it exists.  Only tables.c and tests include this. */
#ifndef TFR_FACE_KEYED_H
#define TFR_FACE_KEYED_H

#include <stddef.h>
#include <stdint.h>

/* The table of three slots; `cudart_table` is the CUDART_INTERFACE table that we hand out (it goes
 * into the value).  Callable once the first table was filled; later calls return the same table. */
const void *tfr_face_keyed_table(const void *cudart_table);

struct tfr_md2 {
    uint8_t state[16], sum[16], block[16];
    size_t filled;
};
void tfr_md2_init(struct tfr_md2 *md2);
void tfr_md2_add(struct tfr_md2 *md2, const void *data, size_t len);
void tfr_md2_end(struct tfr_md2 *md2, uint8_t digest_out[16]);

/* RFC 2104 over MD2, for keys of exactly one block (16 bytes). */
struct tfr_hmac_md2 {
    struct tfr_md2 inner, outer;
};
void tfr_hmac_md2_init(struct tfr_hmac_md2 *hmac, const uint8_t key[16]);
void tfr_hmac_md2_end(struct tfr_hmac_md2 *hmac, uint8_t digest_out[16]);

#endif
