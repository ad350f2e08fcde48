/* What tools ask an executor's parent, as a client would: hello and numbers.  Says on stderr what
 * went wrong. */
#ifndef TFR_TOOLS_ASK_H
#define TFR_TOOLS_ASK_H

#include <stdbool.h>
#include <stdint.h>

#include "transport/boot.h"

enum { TFR_ASK_ADDR_MAX = TFR_BOOT_ADDR_MAX };

/* Is every address of the comma-separated list one that can be tried? */
bool tfr_ask_addresses_good(const char *list);

/* Connects to the first of the list that answers; addr_out (TFR_ASK_ADDR_MAX bytes) is its address.
 * false: none, said. */
bool tfr_ask_connect(const char *list, char *addr_out, struct tfr_boot *boot_out);

/* Sends a hello of this type and takes the answer, which must be of type `want`. */
bool tfr_ask(struct tfr_boot *boot, uint32_t type, uint32_t want, struct tfr_boot_msg *msg_out);

/* Text of the executor's in a field of `room` bytes: ended, and fit for a terminal. */
void tfr_ask_tame(char *text, size_t room);

#endif
