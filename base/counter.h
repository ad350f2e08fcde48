/* Counters of one process: plain relaxed adds by their owner, readable by anybody.  They show that
 * an optimisation works, and tests assert on them.  TFR_COUNTERS=FILE writes them at exit as "name
 * value" lines (FILE "-": stderr). */
#ifndef TFR_BASE_COUNTER_H
#define TFR_BASE_COUNTER_H

#include <stdatomic.h>
#include <stdint.h>

#define TFR_COUNTERS(X)                                                                            \
    X(records, "records posted")                                                                   \
    X(flushes, "times that records were sent, where nothing is mapped")                            \
    X(round_trips, "calls that waited for an answer of the executor")                              \
    X(stream_waits, "waits for a stream word that was not there yet")                              \
    X(marks, "marks asked for")                                                                    \
    X(bytes_inline, "copy bytes that travelled inside a record")                                   \
    X(bytes_push, "copy bytes staged through a lane")                                              \
    X(bytes_direct, "copy bytes that the transport read or wrote in the program's own memory")     \
    X(bytes_mapped, "copy bytes read or written in place")                                         \
    X(bytes_pull, "copy bytes read or written by the client when the stream got there")            \
    X(bytes_spilled, "copy bytes kept in the client's heap until then")                            \
    X(bytes_image, "bytes of images uploaded")                                                     \
    X(images_dropped, "images that the executor was told to forget")                               \
    X(gates, "points where a stream waited for this process")                                      \
    X(bells, "wake-ups sent to a sleeping peer")                                                   \
    X(sleeps, "times a waiting thread went to sleep")                                              \
    X(lease_grows, "times device memory was added to a lease")                                     \
    X(quarantine_waits, "waits for freed device memory")                                           \
    X(pool_reuses, "pool allocations served out of the pool")                                      \
    X(pinned_staged, "allocations of pinned memory that is staged")                                \
    X(reg_refusals, "pinned memory that could not be registered with the network")                 \
    X(link_requests, "work requests, frames or messages that transports were given")               \
    X(link_doorbells, "times that a NIC or the kernel was told of them")                           \
    X(link_inlined, "bytes copied into them")                                                      \
    X(link_extras, "of them, the transports' own: bells, signs of life")                           \
    X(ring_stalls, "waits for ring space")                                                         \
    X(lane_stalls, "waits for a lane extent")

struct tfr_counters {
#define TFR_COUNTER_FIELD(name, text) _Atomic uint64_t name;
    TFR_COUNTERS(TFR_COUNTER_FIELD)
#undef TFR_COUNTER_FIELD
};

extern struct tfr_counters tfr_counters;

/* Single-writer or rare: a relaxed load and store, no locked instruction.  Counters that several
 * threads write at once may lose counts unless the caller holds the lock that orders them. */
#define TFR_COUNT(name, n)                                                                         \
    atomic_store_explicit(&tfr_counters.name,                                                      \
                          atomic_load_explicit(&tfr_counters.name, memory_order_relaxed) +         \
                              (uint64_t)(n),                                                       \
                          memory_order_relaxed)

/* Writes the counters where TFR_COUNTERS says, if it is set. */
void tfr_counters_dump(void);

#endif
