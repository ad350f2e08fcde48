/* How many workers of one executor may spin at once: half the cores that it may use, at least one.
 * Who finds the budget spent sleeps at once.  The page is shared by the parent's workers and by
 * nobody else; a worker that dies leaves its place, which others then clear. */
#ifndef TFR_EXECUTOR_SPIN_H
#define TFR_EXECUTOR_SPIN_H

#include <stdbool.h>

/* The parent's: a descriptor of the page, close-on-exec; -1: none, and nobody is limited. */
int tfr_spin_create(void);

/* The worker's: maps it, closes the descriptor.  -1: spin as you like. */
void tfr_spin_open(int fd);

/* May the pump spin?  True until tfr_spin_end. */
bool tfr_spin_begin(void);
void tfr_spin_end(void);

#endif
