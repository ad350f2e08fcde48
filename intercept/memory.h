/* What an address is: ranges of known memory, the host window. */
#ifndef TFR_INTERCEPT_MEMORY_H
#define TFR_INTERCEPT_MEMORY_H

#include "intercept/copy.h"
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
    unsigned int flags;      /* CU_MEMHOSTALLOC_* or CU_MEMHOSTREGISTER_* */
    uint64_t serial;         /* buffer id */
    uint64_t device_addr;    /* MAPPED: where the GPU sees it */
    struct tfr_context *ctx; /* that it was made in */
    struct tfr_block *block; /* DEVICE: its place in the lease; NULL: the driver chose it */
    struct tfr_mem *mem;     /* REGISTERED: with the transport too, or NULL */
    int device;
    bool ours; /* REGISTERED: pinned memory that is staged, to be freed, not unregistered */
};

/* ---- range.c: thread-safe, lookups take a read lock ---- */

/* False: it overlaps a known range (or no memory): nothing was added. */
bool tfr_range_add(const struct tfr_range *range);
/* Removes the range that starts at base and has one of the kinds (bits 1 << kind). */
bool tfr_range_take(uint64_t base, unsigned int kinds, struct tfr_range *range_out);
/* The range around addr, or kind NONE. */
struct tfr_range tfr_range_find(uint64_t addr);
/* Removes some range of the context (NULL: of any) that has one of the kinds; false: there is none.
 */
bool tfr_range_take_of(const struct tfr_context *ctx, unsigned int kinds,
                       struct tfr_range *range_out);
void tfr_range_clear(void);

/* How many MAPPED ranges there are: may kernels and copies write host memory in place?  One load.
 */
uint32_t tfr_range_mapped(void);

static inline bool tfr_range_holds(const struct tfr_range *range, uint64_t addr, uint64_t len)
{
    return addr >= range->base && tfr_span_inside(addr - range->base, len, range->len);
}

static inline bool tfr_range_is_device(const struct tfr_range *range)
{
    return range->kind == TFR_RANGE_DEVICE || range->kind == TFR_RANGE_GLOBAL;
}

/* ThreadSanitizer owns nearly all addresses, and ends a process that asks for one of them. */
#if defined(__SANITIZE_THREAD__)
enum { TFR_NO_WINDOWS = 1 };
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
enum { TFR_NO_WINDOWS = 1 };
#else
enum { TFR_NO_WINDOWS = 0 };
#endif
#else
enum { TFR_NO_WINDOWS = 0 };
#endif

/* ---- pinned.c ---- */

/* The host window, for hello. */
void tfr_window_get(uint64_t *base_out, uint64_t *len_out);

/* Unregisters a range of pinned memory, and unmaps it if it is ours, on this side. */
void tfr_pinned_drop(const struct tfr_range *range);

/* The session has ended: closes its boot socket, where no thread sends a descriptor any more. */
void tfr_pinned_boot_close(void);

/* ---- reg.c ---- */

/* Registers pinned memory with the transport for as long as the session lasts; NULL: it is staged.
 * ours: we mapped it, and children do not see it. */
struct tfr_mem *tfr_reg_make(void *at, uint64_t len, bool ours);

/* Waits for transfers; NULL: nothing. */
void tfr_reg_drop(struct tfr_mem *mem, uint64_t len);

/* ---- memory.c ---- */

/* One address goes to the executor and is answered. */
CUresult tfr_memory_ask(uint16_t op, uint64_t addr);

/* The context goes and its streams have passed everything: so does its memory. */
void tfr_memory_forget_context(struct tfr_context *ctx);

/* The session ended: so does all memory of it, on this side too. */
void tfr_memory_forget_all(void);

#endif
