/* What generated dispatch expects of the executor, for compiling the golden output by itself. */
#include <cuda.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/wire.h"

struct tfr_session;
struct tfr_reply;

struct tfr_op_info {
    const char *name;
    CUresult (*run)(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply);
    uint32_t min_size;
    bool wants_reply, helper;
};
extern const struct tfr_op_info tfr_op_table[];

CUresult tfr_session_bad(struct tfr_session *s, const struct tfr_rec *rec, const char *reason);
CUresult tfr_object_get(struct tfr_session *s, enum tfr_kind kind, uint64_t id, void **real_out);
CUresult tfr_object_new(struct tfr_session *s, enum tfr_kind kind, uint64_t id, void *real);
void tfr_object_drop(struct tfr_session *s, enum tfr_kind kind, uint64_t id);
void *tfr_reply_room(struct tfr_reply *reply, uint32_t len);
