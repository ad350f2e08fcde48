/* The session's numbers, for tf-stat.  tfr_stat always points to a page: without one from the
 * parent to a page of our own that nobody reads. */
#ifndef TFR_EXECUTOR_STAT_H
#define TFR_EXECUTOR_STAT_H

#include "proto/stat.h"

extern struct tfr_stat_page *tfr_stat;

/* Maps what the parent handed over; -1: nothing was. */
void tfr_stat_open(int fd);

/* For a number that one thread alone writes, or none that matters: no locked instruction. */
#define TFR_STAT_ADD(name, n)                                                                      \
    atomic_store_explicit(&tfr_stat->name,                                                         \
                          atomic_load_explicit(&tfr_stat->name, memory_order_relaxed) +            \
                              (uint64_t)(n),                                                       \
                          memory_order_relaxed)

/* For a number that several threads write. */
#define TFR_STAT_ADD_SHARED(name, n)                                                               \
    atomic_fetch_add_explicit(&tfr_stat->name, (uint64_t)(n), memory_order_relaxed)

#define TFR_STAT_SET(name, value)                                                                  \
    atomic_store_explicit(&tfr_stat->name, (uint64_t)(value), memory_order_relaxed)

#endif
