/* Shapes that ring, lane and spec share.  All fields little-endian, as on every host we run on. */
#ifndef TFR_BASE_REC_H
#define TFR_BASE_REC_H

#include <assert.h>
#include <stdint.h>

/* Head of every record.  Records are multiples of 16 bytes and never wrap: a pad record (op 0)
 * fills the end of the ring, and always fits. */
struct tfr_rec {
    uint32_t size; /* bytes, head included */
    uint16_t op;   /* enum tfr_op */
    uint16_t ctx;  /* the caller's current context */
    uint64_t seq;  /* from 1; also the name of its reply and its mark */
};
static_assert(sizeof(struct tfr_rec) == 16, "record head");

#define TFR_REC_ALIGN 16u
#define TFR_OP_PAD    0u

/* A piece of a lane. */
struct tfr_span {
    uint32_t lane;
    uint32_t flags;
    uint64_t at, len;
};
static_assert(sizeof(struct tfr_span) == 24, "span");

/* Overflow-safe: does [at, at+len) lie inside [0, size)? */
static inline int tfr_span_inside(uint64_t at, uint64_t len, uint64_t size)
{
    return at <= size && len <= size - at;
}

#endif
