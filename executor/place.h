/* Where this worker lies: memory and threads near its first GPU, the pump on a core of its own.
 * The worker's main sets it once; its threads ask for their cores when they start. */
#ifndef TFR_EXECUTOR_PLACE_H
#define TFR_EXECUTOR_PLACE_H

#include "proto/cu.h"
#include "transport/topo.h"

/* Before the worker takes memory or starts threads.  pin: "auto", "none" or a list of cores. */
void tfr_place_init(const struct tfr_cu *cu, const char *pin);

/* Valid from then on. */
const struct tfr_topo_place *tfr_place(void);

/* The NICs nearest to the GPU, separated by commas; NULL: the transport chooses. */
const char *tfr_place_nics(void);

/* Those lead nowhere: from here on the transport chooses.  False: it did already. */
bool tfr_place_elsewhere(void);

/* The calling thread polls from here on; is its client on this machine? */
void tfr_place_pump(bool local);

/* The calling thread leaves the pump's core alone. */
void tfr_place_thread(void);

/* The same for threads that a driver has started out of the pump, and that have its core
 * therefore.  Cheap while there are no new ones. */
void tfr_place_strays(void);

/* The places of all devices, for tf-info. */
void tfr_place_draw(const struct tfr_cu *cu, char *text, size_t room);

#endif
