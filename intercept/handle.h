/* Handles: ids that the client chose (proto/wire.h), checked against a table of what is alive.
 * Lookup takes no lock; creation and death take one.  The object behind a handle is the caller's.
 */
#ifndef TFR_INTERCEPT_HANDLE_H
#define TFR_INTERCEPT_HANDLE_H

#include <cuda.h>
#include <stdatomic.h>
#include <stdint.h>

#include "proto/wire.h"

struct tfr_handle {
    _Atomic uint64_t id; /* 0: free */
    void *_Atomic object;
    uint32_t gen;
    uint32_t next_free;
};

enum { TFR_HANDLE_CHUNK = 4096 };

struct tfr_handle_table {
    struct tfr_handle *_Atomic chunk[TFR_HANDLE_MAX / TFR_HANDLE_CHUNK];
};
extern struct tfr_handle_table tfr_handles[TFR_KIND_LIMIT];

/* A new id of this kind; its object is NULL until tfr_handle_bind.  CUDA_ERROR_OUT_OF_MEMORY past
 * TFR_HANDLE_MAX. */
CUresult tfr_handle_new(enum tfr_kind kind, uint64_t *id_out);
void tfr_handle_bind(uint64_t id, void *object);
void tfr_handle_drop(enum tfr_kind kind, uint64_t id);

/* Between the two the places of handles that die are given to no others: the executor does not know
 * yet that they are free.  One thread at a time. */
void tfr_handle_keep(void);
void tfr_handle_let_go(void);

/* Every handle of the session dies; each(object) is called for each bound object of the kind. */
void tfr_handle_clear(enum tfr_kind kind, void (*each)(void *object));

/* Calls each() for every bound object of the kind; each() may drop the handle. */
void tfr_handle_each(enum tfr_kind kind, void (*each)(void *object, void *arg), void *arg);

/* Frees what was behind a dropped handle, or belonged to it, but not yet: another thread may have
 * looked it up just before.  Seconds later nobody has it in hand. */
void tfr_handle_retire(void *memory);

/* The object of a live handle, or NULL. */
static inline void *tfr_handle_object(enum tfr_kind kind, const void *handle)
{
    uint64_t id = (uint64_t)handle;
    uint32_t at = tfr_id_at(id);
    if (tfr_id_kind(id) != kind || at >= TFR_HANDLE_MAX)
        return NULL;
    /* pairs with the release in tfr_handle_new */
    struct tfr_handle *chunk =
        atomic_load_explicit(&tfr_handles[kind].chunk[at / TFR_HANDLE_CHUNK], memory_order_acquire);
    if (!chunk)
        return NULL;
    struct tfr_handle *slot = &chunk[at % TFR_HANDLE_CHUNK];
    if (atomic_load_explicit(&slot->id, memory_order_acquire) != id)
        return NULL;
    return atomic_load_explicit(&slot->object, memory_order_acquire);
}

/* For generated code: is the handle alive?  A CUkernel is accepted where a CUfunction is asked for,
 * and the special stream handles are translated for the calling thread. */
CUresult tfr_handle_id(enum tfr_kind kind, const void *handle, uint64_t *id_out);

static inline void *tfr_handle_ptr(uint64_t id)
{
    return (void *)id;
}

#endif
