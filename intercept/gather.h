/* Records that were posted and have not left: where nothing is mapped, those of a burst leave
 * together.  The helper thread sees to it that none stays for long. */
#ifndef TFR_INTERCEPT_GATHER_H
#define TFR_INTERCEPT_GATHER_H

#include <stdbool.h>
#include <stdint.h>

/* A session begins. */
void tfr_gather_init(void);

/* With the ring lock: may the record `seq`, which was just ended, stay for a moment?  False: all
 * that is gathered has to leave now. */
bool tfr_gather_keep(uint64_t seq);

/* With the ring lock: the record in hand is not to stay, much hangs on it. */
void tfr_gather_urge(void);

/* With the ring lock: all have left. */
void tfr_gather_gone(void);

/* Are there any?  One load; for whoever is about to wait. */
bool tfr_gather_any(void);

/* The executor has got as far as this record. */
void tfr_gather_seen(uint64_t seq);

#endif
