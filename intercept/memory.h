/* What an address is, and how bytes get there: ranges of known memory, the host window, lane
 * extents, and copies whose last step is the client's. */
#ifndef TFR_INTERCEPT_MEMORY_H
#define TFR_INTERCEPT_MEMORY_H

#include "intercept/entry.h"

enum tfr_range_kind {
    TFR_RANGE_NONE,       /* pageable host memory, for all we know */
    TFR_RANGE_DEVICE,     /* cuMemAlloc */
    TFR_RANGE_GLOBAL,     /* a variable of a module */
    TFR_RANGE_MAPPED,     /* pinned memory of the host window: shared with the executor */
    TFR_RANGE_REGISTERED, /* application memory that was declared pinned */
};

struct tfr_range {
    uint64_t base, len;
    enum tfr_range_kind kind;
    unsigned int flags;   /* CU_MEMHOSTALLOC_* or CU_MEMHOSTREGISTER_* */
    uint64_t serial;      /* buffer id */
    uint64_t device_addr; /* MAPPED: where the GPU sees it */
    int device;
};

/* ---- range.c: thread-safe, lookups take a read lock ---- */

/* False: it overlaps a known range (or no memory): nothing was added. */
bool tfr_range_add(const struct tfr_range *range);
/* Removes the range that starts at base and has one of the kinds (bits 1 << kind). */
bool tfr_range_take(uint64_t base, unsigned int kinds, struct tfr_range *range_out);
/* The range around addr, or kind NONE. */
struct tfr_range tfr_range_find(uint64_t addr);
void tfr_range_clear(void);

static inline bool tfr_range_holds(const struct tfr_range *range, uint64_t addr, uint64_t len)
{
    return addr >= range->base && tfr_span_inside(addr - range->base, len, range->len);
}

static inline bool tfr_range_is_device(const struct tfr_range *range)
{
    return range->kind == TFR_RANGE_DEVICE || range->kind == TFR_RANGE_GLOBAL;
}

/* ---- memory.c ---- */

/* The host window, for hello. */
void tfr_window_get(uint64_t *base_out, uint64_t *len_out);

void tfr_memory_forget_all(void);

/* ---- lane.c: extents of the lane, allocated by the client ---- */

struct tfr_extent {
    uint64_t at;
    uint32_t units;
};

enum { TFR_LANE_UNIT = 16384, TFR_LANE_CHUNK = 1 << 20 };

void tfr_lane_init(void);

/* An extent of at least len bytes (<= TFR_LANE_CHUNK).  Waits for one if the lane is full.  A
 * thread that has an extent of its own, neither given nor owed, must not: several of them would
 * wait for each other. */
CUresult tfr_lane_take(uint64_t len, struct tfr_extent *extent_out);

/* The same without waiting; false: the lane is full. */
bool tfr_lane_try(uint64_t len, struct tfr_extent *extent_out);

/* The extent is free once the stream has passed seq. */
void tfr_lane_give(struct tfr_extent extent, struct tfr_stream *stream, uint64_t seq);

/* The extent is free now. */
void tfr_lane_free(struct tfr_extent extent);

/* ---- copy.c ---- */

enum tfr_direction { TFR_TO_DEVICE, TFR_FROM_DEVICE, TFR_ON_DEVICE, TFR_BY_ADDRESS };

/* One copy in stream order; sync: the host side is done with when it returns.  Errors as the
 * driver's. */
CUresult tfr_copy_bytes(enum tfr_direction way, uint64_t dst, uint64_t src, uint64_t len,
                        struct tfr_stream *stream, bool sync);

/* Copies into registered memory arrive in the lane; whoever learns that a stream has passed brings
 * them home before it tells the application.  One load when there are none. */
void tfr_copy_deliver(void);

/* Waits for and delivers the first copy that the stream (NULL: any) still owes to registered
 * memory. False: there is none, or the session has failed. */
bool tfr_copy_deliver_next(const struct tfr_stream *stream);

/* The same for all of them. */
void tfr_copy_deliver_before(struct tfr_stream *stream);

/* The session ended: what was owed will not come. */
void tfr_copy_forget_all(void);

/* Is an unfinished copy into registered memory under way? */
bool tfr_copy_owed(void);

#endif
