/* What fork does with pages that a device was told of.  Linux before 5.13 leaves them to whoever
 * writes last: a parent's next write goes to a page that the device does not know.  Used by those
 * who register memory. */
#ifndef TFR_BASE_FORK_H
#define TFR_BASE_FORK_H

#include <stdbool.h>

/* Does a child get copies, so that the parent keeps its pages? */
bool tfr_fork_copies(void);

/* The same, of a kernel that calls itself so. */
bool tfr_fork_copies_of(const char *release);

#endif
