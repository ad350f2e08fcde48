/* The file that holds a user's key: 64 hexadecimal digits, mode 0600, ~/.config/tfr/key unless
 * another is named.  Whoever holds the key may use the executors of its owner.  Every failure is
 * one line that says what to do. */
#ifndef TFR_TRANSPORT_KEY_H
#define TFR_TRANSPORT_KEY_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum { TFR_KEY_LEN = 32, TFR_KEY_PATH_MAX = 4096 };

/* `given`, if it is not NULL or empty, else the place in the user's home. */
tfr_status tfr_key_path(const char *given, char *path_out, size_t room);

/* Makes a new key there, and the folders above, unless there is one. */
tfr_status tfr_key_make(const char *path);

tfr_status tfr_key_read(const char *path, uint8_t key_out[TFR_KEY_LEN]);

#endif
