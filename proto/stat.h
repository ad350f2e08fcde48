/* What a worker tells about itself while it works: one page of numbers, which the executor's parent
 * made, maps too, and hands to tf-stat on request.  One process writes it (relaxed atomics:
 * numbers, no order), anybody reads; nothing is decided by it. */
#ifndef TFR_PROTO_STAT_H
#define TFR_PROTO_STAT_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>

/* name, heading of tf-stat, meaning */
#define TFR_STATS(X)                                                                               \
    X(records, "records", "records taken from the ring")                                           \
    X(asked, "asked", "records that the client waits for an answer of")                            \
    X(launches, "launches", "kernels submitted")                                                   \
    X(marks, "marks", "marks submitted")                                                           \
    X(bytes_inline, "inline", "copy bytes that came inside records")                               \
    X(bytes_push, "push", "copy bytes that came through the lane")                                 \
    X(bytes_pull, "pull", "copy bytes fetched when their stream got there")                        \
    X(bytes_mapped, "mapped", "copy bytes read or written in place")                               \
    X(bytes_to_host, "to host", "copy bytes that left through the lane")                           \
    X(bytes_direct, "direct", "copy bytes that the NIC moved into or out of GPU memory")           \
    X(bytes_bounced, "bounced", "copy bytes that passed through lanes in host memory")             \
    X(landings, "landings", "times that arrived bytes were made visible to the GPU")               \
    X(gpu_lane, "gpu lane", "bytes of lanes in GPU memory")                                        \
    X(gpu_refused, "refused", "ways into GPU memory that failed their trial")                      \
    X(gpu_memory, "gpu mem", "bytes of device memory held")                                        \
    X(parked, "parked", "times a stream was parked")                                               \
    X(stalls, "stalls", "times the pump had to wait for something other than a record")            \
    X(sleeps, "sleeps", "times the pump went to sleep")                                            \
    X(heartbeat_ms, "heartbeat", "the executor's clock when the session last beat")                \
    X(op, "op", "the record in hand: its op; 0: none")                                             \
    X(waiting, "waiting", "what the pump waits for: enum tfr_wait_reason plus one; 0: nothing")

struct tfr_stat_page {
#define TFR_STAT_FIELD(name, heading, meaning) _Atomic uint64_t name;
    TFR_STATS(TFR_STAT_FIELD)
#undef TFR_STAT_FIELD
};
static_assert(sizeof(struct tfr_stat_page) <= 4096, "one page");

enum tfr_stat_at {
#define TFR_STAT_AT(name, heading, meaning) TFR_STAT_##name,
    TFR_STATS(TFR_STAT_AT)
#undef TFR_STAT_AT
        TFR_STAT_N
};

/* The answer to TFR_BOOT_STAT: this, then `n` rows. */
struct tfr_stat_head {
    uint32_t n, queued; /* sessions running; clients that wait for a worker */
    uint32_t warm, max; /* workers that wait for a client; the most sessions at once */
    uint64_t uptime_ms, served;
    uint64_t now_ms; /* the executor's clock: subtract heartbeats from it */
};

struct tfr_stat_row {
    int32_t pid, worker; /* of the client, as the kernel gave it; of its worker */
    uint32_t uid, reserved;
    uint64_t age_ms;
    char program[64]; /* as the client calls itself: printable ASCII */
    uint64_t value[TFR_STAT_N];
};

#endif
