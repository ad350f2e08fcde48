/* The role that takes records off the ring and plays them into the driver. */
#ifndef TFR_EXECUTOR_PUMP_H
#define TFR_EXECUTOR_PUMP_H

struct tfr_session;

/* Until the client is gone or broke the protocol. */
void tfr_pump_run(struct tfr_session *s);

#endif
