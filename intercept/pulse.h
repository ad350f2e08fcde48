/* Is the executor alive?  A closed socket says that it is gone; one that is *stopped* is told by
 * its heartbeat alone.  Whoever waits or polls looks now and then.  What counts is how long the
 * heartbeat has stood still while we were looking, not how long a wait lasts (a kernel may take
 * hours), nor how long we ourselves were stopped. */
#ifndef TFR_INTERCEPT_PULSE_H
#define TFR_INTERCEPT_PULSE_H

#include "base/relax.h"

/* Warns once after a second without a beat, breaks the session after TFR_WAIT_LIMIT.  Any thread;
 * a clock read, seldom more. */
void tfr_pulse_look(enum tfr_wait_reason why);

#endif
