/* Forced into every file of a library that links tfr_face (see CMakeLists.txt): what cuda.h
 * declares is exported when that library defines it, while everything else stays hidden. */
#ifndef TFR_FACE_EXPORTED_H
#define TFR_FACE_EXPORTED_H

#pragma GCC visibility push(default)
#include <cuda.h>
#include <cudaProfiler.h>
#pragma GCC visibility pop

#endif
