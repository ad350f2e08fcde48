/* The driver as a table of functions, filled from any libcuda.so.1: NVIDIA's or the software GPU's.
 * The executor calls the GPU through this and nothing else, and must never ask which of the two it
 * holds. */
#ifndef TFR_PROTO_CU_H
#define TFR_PROTO_CU_H

#include "base/status.h"
#include "tfr_cu_gen.h"

/* Opens the library and looks up every call of the spec under its exact exported name; what it
 * lacks stays NULL.  Refuses our own client library.  The library is never closed: drivers do not
 * bear it. Blocks (runs the library's constructors).  Not for several threads at once. */
tfr_status tfr_cu_load(const char *path, struct tfr_cu *cu_out);

#endif
