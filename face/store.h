/* Values that a runtime keeps per context: (context, key) -> value, with a destructor.  Every call
 * of cudart looks one up, so get() takes no lock.  Entries are few (runtimes times contexts).
 * Thread-safe. */
#ifndef TFR_FACE_STORE_H
#define TFR_FACE_STORE_H

#include <cuda.h>

typedef void (*tfr_face_dtor)(CUcontext ctx, void *key, void *value);

/* Sets or replaces; a replaced value's destructor does not run. */
CUresult tfr_face_store_set(CUcontext ctx, void *key, void *value, tfr_face_dtor dtor);

/* CUDA_ERROR_INVALID_HANDLE: no such key. */
CUresult tfr_face_store_get(CUcontext ctx, const void *key, void **value_out);

/* Forgets the entry; its destructor does not run. */
CUresult tfr_face_store_drop(CUcontext ctx, const void *key);

#endif
