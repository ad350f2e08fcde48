/* What the registry knows of the transports.  For files of this folder only. */
#ifndef TFR_TRANSPORT_BACKEND_H
#define TFR_TRANSPORT_BACKEND_H

#include <stdatomic.h>
#include <string.h>

#include "transport/transport.h"

/* Complete only after tfr_transport_find has filled what they leave out. */
extern struct tfr_transport_ops tfr_shm_ops, tfr_tcp_ops;

/* The ops of `inner` under the fault wrapper: for each inner table the same one again. */
const struct tfr_transport_ops *tfr_fault_wrap(const struct tfr_transport_ops *inner);

/* verbs and ucx are libraries that export this name: a function that answers the ops, or NULL if
 * they were built against another contract.  Bump the number with transport.h. */
#define TFR_TRANSPORT_PLUGIN "tfr_transport_plugin"
enum { TFR_TRANSPORT_ABI = 2 << 16 | (uint16_t)sizeof(struct tfr_transport_ops) };
typedef struct tfr_transport_ops *tfr_transport_plugin_fn(uint32_t abi);

/* Puts arrived bytes in place.  A word of eight is one store; whoever polls it pairs an acquire
 * load with this, and sees what was stored before. */
static inline void tfr_bytes_store(uint8_t *to, const void *from, size_t len)
{
    uint64_t word;

    if (len == sizeof(word) && (uintptr_t)to % sizeof(word) == 0) {
        memcpy(&word, from, sizeof(word));
        atomic_store_explicit((_Atomic uint64_t *)(void *)to, word, memory_order_release);
    } else {
        atomic_thread_fence(memory_order_release);
        memcpy(to, from, len);
    }
}

/* Types of boot messages of our own, callers number theirs below: what open() of a transport sends,
 * and whether it came to an end (ways.c). */
enum { TFR_BOOT_LINK = 0x7f000000, TFR_BOOT_OPENED };

#endif
