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

#endif
