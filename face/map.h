/* The rows of cuGetProcAddress, generated from cudaTypedefs.h: one per plain symbol, sorted by name
 * and then by version.  Apart from proc.c, because the file that takes the addresses of all
 * exported symbols must not see their prototypes. */
#ifndef TFR_FACE_MAP_H
#define TFR_FACE_MAP_H

#include <stddef.h>

struct tfr_face_row {
    const char *name; /* without _v2 */
    int version;      /* CUDA version that brought the symbol */
    int twin_version; /* the same for its per-thread-stream twin */
    int (*symbol)(void);
    int (*twin)(void); /* NULL: it has none */
};

extern const struct tfr_face_row tfr_face_rows[];
extern const size_t tfr_face_row_n;

#endif
