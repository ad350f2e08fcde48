/* A host of two devices for the tests of face/: what intercept and softgpu are otherwise. */
#ifndef TFR_TESTS_UNIT_FACE_HOST_H
#define TFR_TESTS_UNIT_FACE_HOST_H

#include <cuda.h>
#include <string.h>

/* Contexts 0 and 1 exist. */
CUcontext host_context(int n);
void host_make_current(CUcontext ctx); /* of the calling thread */
extern int host_destroyed;             /* calls of cuCtxDestroy_v2 */
extern const void *host_loaded;        /* image of the last module_load */

/* The table of an id given as 32 hex digits, spaces allowed; NULL: refused. */
const void *const *host_table(const char *hex);

#endif
