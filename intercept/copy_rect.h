/* What the sides of a copy are, whatever the call says of them (under unified addressing the
 * address decides), and copies of boxes.  Used by copies of every shape and by fills. */
#ifndef TFR_INTERCEPT_COPY_RECT_H
#define TFR_INTERCEPT_COPY_RECT_H

#include "intercept/memory.h"

enum tfr_place {
    TFR_PLACE_GPU,    /* the GPU reaches it: device memory, or mapped memory said to be device */
    TFR_PLACE_MAPPED, /* pinned memory of ours */
    TFR_PLACE_REGISTERED, /* the application's, declared pinned */
    TFR_PLACE_PAGEABLE,
};

struct tfr_side {
    enum tfr_place place;
    uint64_t gpu;        /* GPU and MAPPED: where the GPU sees it */
    uint32_t ctx;        /* GPU and MAPPED: slot of the context that it was made in */
    struct tfr_mem *mem; /* REGISTERED: with the transport, or NULL */
    bool host;           /* the application can see the bytes: a synchronous copy to here waits */
};

/* `device`: the call says that it is device memory.  CUDA_ERROR_INVALID_VALUE: it is not, or the
 * span leaves the allocation that it begins in. */
CUresult tfr_side_find(uint64_t at, uint64_t span, bool device, struct tfr_side *side_out);

struct tfr_box {
    struct tfr_box_side dst, src;
    uint64_t width, height, depth;
    bool dst_device, src_device; /* said to be device memory; else the address decides */
    /* tfr_copy_box's own: from the application's address to the GPU's */
    uint64_t dst_shift, src_shift;
};

/* One copy in stream order; sync: the host side is done with when it returns.  Changes *box. */
CUresult tfr_copy_box(struct tfr_box *box, struct tfr_stream *stream, bool sync);

/* Places one side: its first row begins x bytes, y rows and z slices behind base; a pitch or rows
 * of 0 are those of the box.  The box has its three lengths. */
CUresult tfr_box_place(const struct tfr_box *box, uint64_t base, const uint64_t offset[3],
                       uint64_t pitch, uint64_t rows, struct tfr_box_side *side_out);

#endif
