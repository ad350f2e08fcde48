/* Copies between a lane extent and host memory that happen when the stream gets there: the source
 * may still change, or there is no room to stage bytes ahead.  The stream waits at a gate (gate.h)
 * for us. */
#ifndef TFR_INTERCEPT_PULL_H
#define TFR_INTERCEPT_PULL_H

#include "intercept/copy.h"

/* Posts copies of [src, src + len) to the device; src is read as the stream arrives.  heap: freed
 * after the last byte was read (also on failure), or NULL. */
CUresult tfr_pull_to_device(struct tfr_stream *stream, uint64_t dst, const void *src, uint64_t len,
                            void *heap);

/* Posts copies from the device; the stream goes on when the bytes are at dst.  mem: registered
 * memory that dst lies in, or NULL. */
CUresult tfr_pull_from_device(struct tfr_stream *stream, void *dst, struct tfr_mem *mem,
                              uint64_t src, uint64_t len);

/* Will a pull still write host memory? */
bool tfr_pull_brings(void);

/* A copy of the bytes in our heap, counted against TFR_SPILL_SIZE; NULL: the limit is reached. */
void *tfr_spill_take(const void *src, uint64_t len);

/* The session ended, and no gate is left. */
void tfr_pull_forget_all(void);

#endif
