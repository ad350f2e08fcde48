/* Takes the address of every exported symbol.  Includes no cuda.h on purpose: face_map.h declares
 * the symbols as plain functions. */
#include "face/map.h"

#include "face_map.h"

#define ROW(name, version, symbol, twin_version, twin) {name, version, twin_version, symbol, twin},

const struct tfr_face_row tfr_face_rows[] = {TFR_FACE_ROWS(ROW, NULL)};
const size_t tfr_face_row_n = sizeof tfr_face_rows / sizeof tfr_face_rows[0];
