/* Records of points where a stream and its client meet: gates, and operations on values in memory.
 * Included by wire.h. */
#ifndef TFR_PROTO_WIRE_GATE_H
#define TFR_PROTO_WIRE_GATE_H

#include "base/rec.h"

/* When the stream gets here its word becomes at least seq - 1 ("all before the gate is done"), and
 * the stream waits until the client page's gate of that word is at least seq. */
struct tfr_gate_req {
    struct tfr_rec head;
    uint64_t stream;
    uint64_t reserved;
};
static_assert(sizeof(struct tfr_gate_req) == 32, "gate");

enum { TFR_VALUES_MAX = 256 };

enum {
    TFR_VALUES_MARK = 1 << 0, /* the stream's word becomes this seq when they are done */
};

/* One operation of a batch; op and flags are CUDA's. */
struct tfr_value_op {
    uint32_t op, flags;
    uint64_t addr, value;
};

/* n struct tfr_value_op follow. */
struct tfr_values_req {
    struct tfr_rec head;
    uint64_t stream;
    uint32_t n, flags;
};
static_assert(sizeof(struct tfr_values_req) == 32, "values");

#endif
