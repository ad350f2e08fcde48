/* Records of contexts.  A record's head names a context by its slot: primary contexts have that of
 * their device plus one, created ones lie above TFR_DEVICES_MAX; slot 0 means none.  Included by
 * wire.h alone. */
#ifndef TFR_PROTO_WIRE_CONTEXT_H
#define TFR_PROTO_WIRE_CONTEXT_H

#include <stdint.h>

#include "base/rec.h"

enum { TFR_CONTEXTS_MAX = 256 }; /* slots, numbered from 1 */

struct tfr_context_req { /* retains a primary context, or creates one: answered */
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t legacy; /* id for its legacy stream */
    uint32_t legacy_word, device;
    uint32_t flags, at; /* CU_CTX_*; the context's slot */
};

/* Destroys a context, or, where the executor must keep it, the streams, events and modules in it.
 * Their ids die. */
struct tfr_context_free_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint32_t at, reserved;
};

/* The record's context gets access to the memory of another one, or loses it. */
struct tfr_peer_access_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint32_t peer, on; /* the other's slot */
};

enum tfr_stream_attr_do { TFR_STREAM_ATTR_GET, TFR_STREAM_ATTR_SET, TFR_STREAM_ATTR_COPY };

/* An attribute of a stream: asked for (answered with its 64 bytes), set, or all of them copied. */
struct tfr_stream_attr_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t stream, from; /* from: what COPY copies */
    uint32_t what, id;     /* enum tfr_stream_attr_do, CUstreamAttrID */
    uint8_t value[64];
};

/* cuOccupancyMaxActiveClusters, or with `most` cuOccupancyMaxPotentialClusterSize; attr_n struct
 * tfr_launch_attr follow. */
struct tfr_clusters_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t fn;
    uint32_t grid[3], block[3];
    uint32_t shared, attr_n;
    uint32_t most, reserved;
};
struct tfr_clusters_rep {
    int32_t n;
    uint32_t reserved;
};

#endif
