/* TFR_SOFT_CHAOS=seed: softgpu as unkind as hardware may be, so that what merely happens to work on
 * it fails here first.  chaos.c holds the seed and places memory (part of soft_mem); channel.c is
 * the streams' part.  Everything is off, and costs one predictable branch, unless the setting is
 * given.  The rest of softgpu asks soft_chaos.on; nobody above the driver API can tell. */
#ifndef TFR_SOFTGPU_CHAOS_H
#define TFR_SOFTGPU_CHAOS_H

#include <cuda.h>
#include <stdbool.h>
#include <stdint.h>

struct soft_ctx;
struct soft_stream;
struct soft_op;

struct soft_chaos {
    bool on; /* fixed by soft_chaos_init, before the first context */
    uint64_t seed;
};
extern struct soft_chaos soft_chaos;

void soft_chaos_init(void);
/* The next number of a series; a series starts with any number. */
uint64_t soft_chaos_draw(uint64_t *series);
/* The next number of the one series that placement follows; any thread. */
uint64_t soft_chaos_next(void);

/* ---- channel.c; only while chaos is on ---- */

/* In-order channels into the device, and the lock that a blocked submission holds. */
struct soft_channels;

bool soft_chaos_ctx(struct soft_ctx *ctx);
void soft_chaos_stream(struct soft_stream *stream);
/* Around an appended submission: takes the context's submission lock and waits for room in the
 * stream's queue.  An error means that nothing is to be submitted, and the lock is free. */
CUresult soft_chaos_enter(struct soft_stream *stream, const struct soft_op *op);
void soft_chaos_leave(struct soft_stream *stream);
/* Its place in the channel; under stream->lock, before the submission is visible. */
void soft_chaos_ticket(struct soft_stream *stream, struct soft_op *op);
/* False: others are ahead in the channel; the stream is parked there and not the caller's. */
bool soft_chaos_turn(struct soft_stream *stream, const struct soft_op *op);
/* The operation does not hold those behind it in the channel back any longer. */
void soft_chaos_pass(struct soft_stream *stream, uint64_t ticket);
void soft_chaos_delay(struct soft_stream *stream);
/* [at, at+len) is about to be unmapped: a context whose unfinished work uses it is lost. */
void soft_chaos_unmap(uint64_t at, uint64_t len);

#endif
