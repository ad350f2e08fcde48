/* Which devices a program may see: the list that CUDA_VISIBLE_DEVICES holds, read as drivers read
 * it. Asked by the client about the executor's devices and by the software GPU about its own. */
#ifndef TFR_BASE_VISIBLE_H
#define TFR_BASE_VISIBLE_H

#include <stdint.h>

struct tfr_visible_device {
    uint8_t uuid[16];
};

/* Which of the n devices are seen, in their order: indices in at_out (room for n); returns how
 * many. list NULL: all of them.  The list ends before the first entry that names no device, or more
 * than one; an entry that comes twice leaves none. */
int tfr_visible_read(const char *list, const struct tfr_visible_device *device, int n, int *at_out);

#endif
