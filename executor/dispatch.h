/* Between the records and the driver: what generated dispatch and the hand-written do_* handlers
 * use. A handler gets a private copy of a whole record, so that no field can change under it. */
#ifndef TFR_EXECUTOR_DISPATCH_H
#define TFR_EXECUTOR_DISPATCH_H

#include <stdbool.h>
#include <stdint.h>

#include "proto/cu.h"
#include "proto/wire.h"

struct tfr_session;

/* Where an answer goes: straight into the client's slot, which is written and never read. */
struct tfr_reply {
    uint8_t *payload;
    uint32_t len;
};

struct tfr_op_info {
    const char *name;
    CUresult (*run)(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply);
    uint32_t min_size;
    uint8_t wants_reply; /* the record names a slot */
    uint8_t helper;      /* may block in the driver */
};
extern const struct tfr_op_info tfr_op_table[];

/* Room for `len` more bytes of the answer, zeroed; NULL: the slot is too small. */
void *tfr_reply_room(struct tfr_reply *reply, uint32_t len);

/* The record breaks the protocol: says so once and ends the session.  Returns a code for the caller
 * to pass. */
CUresult tfr_session_bad(struct tfr_session *s, const struct tfr_rec *rec, const char *reason);

/* ---- object.c: ids of the client -> handles of the driver ---- */

/* CUDA_ERROR_INVALID_HANDLE: no such object.  A kernel's id is accepted where a function's is asked
 * for. */
CUresult tfr_object_get(struct tfr_session *s, enum tfr_kind kind, uint64_t id, void **real_out);
/* The struct of ours that stands beside the driver's handle, or NULL. */
void *tfr_object_aux(struct tfr_session *s, enum tfr_kind kind, uint64_t id);
/* The slot of the context that it was made in; 0: no such object. */
uint16_t tfr_object_context(struct tfr_session *s, enum tfr_kind kind, uint64_t id);
CUresult tfr_object_new(struct tfr_session *s, enum tfr_kind kind, uint64_t id, void *real);
CUresult tfr_object_new_aux(struct tfr_session *s, enum tfr_kind kind, uint64_t id, void *real,
                            void *aux);
void tfr_object_drop(struct tfr_session *s, enum tfr_kind kind, uint64_t id);
/* The same, but the struct of ours is the caller's now; NULL: none. */
void *tfr_object_take(struct tfr_session *s, enum tfr_kind kind, uint64_t id);

/* Frees a struct of ours once no handler can be reading it. */
void tfr_object_bury(struct tfr_session *s, void *aux);
/* The pump's, between records: does it. */
void tfr_object_reap(struct tfr_session *s);

/* Drops every object of the kind whose aux `match` accepts. */
void tfr_object_sweep(struct tfr_session *s, enum tfr_kind kind,
                      bool (*match)(void *aux, void *arg), void *arg);

#endif
