/* Lanes, and bytes on their way into them.  Included by wire.h. */
#ifndef TFR_PROTO_WIRE_LANE_H
#define TFR_PROTO_WIRE_LANE_H

#include <stdint.h>

enum {
    TFR_LANES_MAX = 16, /* lane 0 is host memory of the executor */
    TFR_LANE_SHIFT = 48,
    TFR_STAMPS = 8, /* channels that stamps may come from; 0, the ring's, has none */
    TFR_STAMP_SHIFT = 8,
};

/* A place in a lane: its number, and an offset. */
static inline uint64_t tfr_place_make(uint32_t lane, uint64_t at)
{
    return (uint64_t)lane << TFR_LANE_SHIFT | at;
}

static inline uint32_t tfr_place_lane(uint64_t place)
{
    return (uint32_t)(place >> TFR_LANE_SHIFT);
}

static inline uint64_t tfr_place_at(uint64_t place)
{
    return place & (((uint64_t)1 << TFR_LANE_SHIFT) - 1);
}

/* Bytes travel on other channels than the ring, and nothing is ordered across channels.  Behind
 * them the client stores, on their channel, how often it has done so: arrived[channel] of its page.
 * The record that needs the bytes names both; 0: they are there. */
static inline uint64_t tfr_stamp_make(uint32_t channel, uint64_t count)
{
    return count << TFR_STAMP_SHIFT | channel;
}

static inline uint32_t tfr_stamp_channel(uint64_t stamp)
{
    return (uint32_t)(stamp & ((1 << TFR_STAMP_SHIFT) - 1));
}

static inline uint64_t tfr_stamp_count(uint64_t stamp)
{
    return stamp >> TFR_STAMP_SHIFT;
}

#endif
