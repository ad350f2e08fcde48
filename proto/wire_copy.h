/* Records of copies that are more than one run of bytes: rectangles, boxes, and copies from device
 * to device.  Part of wire.h. */
#ifndef TFR_PROTO_WIRE_COPY_H
#define TFR_PROTO_WIRE_COPY_H

#include <stdint.h>

#include "base/rec.h"

/* One side of a box: its first byte, bytes from row to row, rows from slice to slice. */
struct tfr_box_side {
    uint64_t at, pitch, rows;
};

/* kind and flags as of struct tfr_copy_req, but nothing travels inline. */
struct tfr_rect_req {
    struct tfr_rec head;
    uint64_t stream;
    struct tfr_box_side dst, src;
    uint64_t width, height, depth; /* width in bytes; depth 1: a rectangle */
    uint32_t kind, flags;
    uint32_t dst_ctx, src_ctx; /* of TFR_COPY_DEVICE: slots of their contexts */
    uint64_t stamp;            /* of TFR_COPY_PUSH */
    uint64_t reserved;
};
static_assert(sizeof(struct tfr_rect_req) == 128, "rect");

struct tfr_peer_req {
    struct tfr_rec head;
    uint64_t stream;
    uint64_t dst, src, len;
    uint32_t dst_ctx, src_ctx;
    uint32_t flags, reserved;
};
static_assert(sizeof(struct tfr_peer_req) == 64, "peer");

/* How many bytes lie between the first of a side and the last, that one included; false: more than
 * there are addresses.  No dimension is zero. */
static inline int tfr_box_span(const struct tfr_box_side *side, uint64_t width, uint64_t height,
                               uint64_t depth, uint64_t *span_out)
{
    uint64_t rows, len;
    if (__builtin_mul_overflow(depth - 1, side->rows, &rows) ||
        __builtin_add_overflow(rows, height - 1, &rows) ||
        __builtin_mul_overflow(rows, side->pitch, &len) || __builtin_add_overflow(len, width, &len))
        return 0;
    *span_out = len;
    return !__builtin_add_overflow(side->at, len, &len);
}

#endif
