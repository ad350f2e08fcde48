/* Records of device memory and of pinned host memory.  Included by proto/wire.h. */
#ifndef TFR_PROTO_WIRE_MEMORY_H
#define TFR_PROTO_WIRE_MEMORY_H

#include "proto/wire.h"

struct tfr_alloc_req { /* memory where the driver likes: answered with struct tfr_alloc_rep */
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t len;
};
struct tfr_alloc_rep {
    uint64_t addr;
};

struct tfr_free_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t addr;
};

/* Pinned host memory of the client becomes mapped in the executor and known to its driver; the
 * descriptor travels over the boot socket in a TFR_BOOT_HOST message sent before this record. */
struct tfr_host_map_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t addr, len;
    uint32_t flags, reserved;
};
struct tfr_host_map_rep {
    uint64_t device_addr;
};

struct tfr_host_unmap_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t addr;
};

/* ---- windows and leases ---- */

enum { TFR_WINDOW_TRIES = 8 };

/* Asks for a window of addresses for a device's memory: the first of the bases, all reserved by the
 * client, that the driver gives. */
struct tfr_window_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint32_t device, base_n;
    uint64_t len;
    uint64_t base[TFR_WINDOW_TRIES];
};
struct tfr_window_rep {
    uint64_t base;        /* 0: none of them */
    uint64_t granularity; /* of chunks */
};

/* Backs [at, at+len) of the device's window with memory.  Answered on failure too. */
struct tfr_lease_grow_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t at, len;
    uint32_t device, reserved;
};
struct tfr_lease_grow_rep {
    uint64_t free; /* what the driver says is left */
};

/* Takes the memory of the chunk that begins there away. */
struct tfr_lease_drop_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t at;
    uint32_t device, reserved;
};

/* Free and total memory of the current context's device, as the driver sees it. */
struct tfr_mem_info_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
};
struct tfr_mem_info_rep {
    uint64_t free, total;
};

#endif
