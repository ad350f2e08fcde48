/* How bytes get there: lane extents, and copies whose last step is the client's. */
#ifndef TFR_INTERCEPT_COPY_H
#define TFR_INTERCEPT_COPY_H

#include "intercept/entry.h"

/* ---- lane.c: extents of the lane, allocated by the client ---- */

struct tfr_extent {
    uint64_t at;
    uint16_t units;
    uint16_t lane;
    uint16_t session; /* of tfr_client.session_at: an older session's is nobody's */
    uint16_t turn;    /* lane.c's */
    uint8_t *twin;    /* its bytes on our side; an older session's stay mapped */
};

/* Its name in records. */
static inline uint64_t tfr_extent_place(const struct tfr_extent *extent)
{
    return tfr_place_make(extent->lane, extent->at);
}

/* Its bytes on our side. */
static inline uint8_t *tfr_extent_twin(const struct tfr_extent *extent)
{
    return extent->twin;
}

enum { TFR_LANE_UNIT = 16384, TFR_LANE_CHUNK = 1 << 20, TFR_PULL_MAX = 2 << 20 };

void tfr_lane_init(void);

/* How much of a lane of `want` bytes our twin of it may have under the memory lock limit, which
 * counts page area, ring and the device's queues as well.  Says so if it is less. */
uint64_t tfr_lane_fit(uint64_t want, uint64_t ring);

/* An extent of at least len bytes (<= TFR_LANE_CHUNK).  Waits for one if the lane is full.  A
 * thread that has an extent of its own, neither given nor owed, must not: several of them would
 * wait for each other. */
CUresult tfr_lane_take(uint64_t len, struct tfr_extent *extent_out);

/* The same for *len bytes or, where there is no room for so many, fewer: those that stay are
 * *len. */
CUresult tfr_lane_take_some(uint64_t *len, struct tfr_extent *extent_out);

/* The same without waiting; false: the lane is full. */
bool tfr_lane_try(uint64_t len, struct tfr_extent *extent_out);

/* The same for what can do without it, or stays there while a stream stands still: leaves room to
 * those who wait. */
bool tfr_lane_try_ahead(uint64_t len, struct tfr_extent *extent_out);

/* An extent for pulls, of at most TFR_PULL_MAX bytes and maybe fewer than len. */
bool tfr_lane_try_pull(uint64_t len, struct tfr_extent *extent_out);

/* After bytes were written to its twin: they leave for the executor's lane, and the record that
 * needs them names *stamp_out. */
CUresult tfr_lane_ship(const struct tfr_extent *extent, uint64_t len, uint64_t *stamp_out);

/* Returns when no transfer reads or writes our side of the extent any more (also when the session
 * is lost).  CUDA_ERROR_INVALID_VALUE: the program's memory was none (struct tfr_load, awaited). */
CUresult tfr_lane_settle(const struct tfr_extent *extent);

/* Transfers that these are the count of had no memory on our side. */
void tfr_lane_fault(const _Atomic uint32_t *shipping_of_it);

/* Transfers under way whose remote side is the extent. */
_Atomic uint32_t *tfr_lane_shipping(const struct tfr_extent *extent);

/* The extent is free once the stream has passed seq. */
void tfr_lane_give(struct tfr_extent extent, struct tfr_stream *stream, uint64_t seq);

/* Has any extent come back that nobody has taken note of? */
bool tfr_lane_freed(void);

/* How many extents have ever come free. */
uint64_t tfr_lane_moves(void);

/* The extent is free now. */
void tfr_lane_free(struct tfr_extent extent);

/* ---- home.c: out of an extent ---- */

struct tfr_home {
    struct tfr_extent extent;
    void *dst;           /* NULL: they are to be in the twin alone */
    struct tfr_mem *mem; /* registered memory that dst lies in, or NULL */
    uint64_t len;
    uint32_t flags; /* TFR_COPY_FETCH, if the record said so */
    bool awaited;   /* end's result is told to the program: see struct tfr_load */
    bool direct;    /* home.c's own */
};

/* How a PULL record of so many bytes is to say that they come home. */
uint32_t tfr_home_flags(uint64_t len);

/* The stream has passed: the bytes set out, several pieces at once.  Then end waits for them. */
CUresult tfr_home_begin(struct tfr_home *home);
CUresult tfr_home_end(const struct tfr_home *home);

/* ---- copy.c ---- */

/* A session begins. */
void tfr_copy_init(void);

enum tfr_direction { TFR_TO_DEVICE, TFR_FROM_DEVICE, TFR_ON_DEVICE, TFR_BY_ADDRESS };

/* One copy record without its bytes: `dst` or `src` is an address, or a place in a lane.  Of *body:
 * all but head and stream. */
CUresult tfr_copy_post(struct tfr_stream *stream, const struct tfr_copy_req *body,
                       uint64_t *seq_out);

/* One copy in stream order; sync: the host side is done with when it returns.  Errors as the
 * driver's. */
CUresult tfr_copy_bytes(enum tfr_direction way, uint64_t dst, uint64_t src, uint64_t len,
                        struct tfr_stream *stream, bool sync);

/* Room in the lane for an asynchronous copy, which does not wait for long: a stream that moves
 * makes some soon. */
bool tfr_copy_room(uint64_t len, struct tfr_extent *extent_out);

/* May something that a stream comes after still write registered memory there? */
bool tfr_copy_unsettled(uint64_t at, uint64_t len);

/* May a synchronous copy to the device return once its source has been read? */
bool tfr_copy_early(void);

/* Bytes of the application that arrive in an extent, packed, when the stream passes seq. */
struct tfr_owed {
    const struct tfr_context *ctx; /* of the stream */
    uint32_t flags;                /* TFR_COPY_FETCH, if the record said so */
    struct tfr_mem *mem;           /* that they lie in, or NULL */
    struct tfr_extent extent;
    struct tfr_box_side dst; /* where they belong */
    uint64_t width, height, depth;
    uint64_t seq;
    uint32_t word;
};

/* Takes the extent over. */
CUresult tfr_copy_owe(const struct tfr_owed *owed);

/* Copies into registered memory arrive in the lane; whoever learns that a stream has passed brings
 * them home before it tells the application.  One load when there are none. */
void tfr_copy_deliver(void);

/* Waits for and delivers all that is owed to these bytes. */
void tfr_copy_deliver_into(uint64_t at, uint64_t len);

/* The session ended: what was owed will not come. */
void tfr_copy_forget_all(void);

/* It is lost: the same, without what gates still use. */
void tfr_copy_forget_owed(void);

/* The context ends, or has ended: what is owed by its streams will not come.  When it returns
 * nothing of that is written any more. */
void tfr_copy_forget_context(const struct tfr_context *ctx);

/* Has one of them arrived that nobody has brought home? */
bool tfr_copy_due(void);

/* Is an unfinished copy into registered memory under way? */
bool tfr_copy_owed(void);

#endif
