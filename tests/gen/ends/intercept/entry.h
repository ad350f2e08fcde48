/* What generated stubs expect of the client, for compiling the golden output by itself. */
#include <cuda.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/wire.h"

struct tfr_ask {
    CUresult result;
};

CUresult tfr_enter(void);
CUresult tfr_enter_noctx(void);
CUresult tfr_handle_id(enum tfr_kind kind, const void *handle, uint64_t *id_out);
CUresult tfr_handle_new(enum tfr_kind kind, uint64_t *id_out);
void tfr_handle_drop(enum tfr_kind kind, uint64_t id);
void *tfr_handle_ptr(uint64_t id);
void *tfr_ask_begin(struct tfr_ask *ask, uint16_t op, uint32_t len);
const void *tfr_ask_send(struct tfr_ask *ask, size_t min_len);
CUresult tfr_ask_end(struct tfr_ask *ask);
void *tfr_post_begin(uint16_t op, uint32_t len);
CUresult tfr_post_failed(void);
CUresult tfr_post_end(void);
