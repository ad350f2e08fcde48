/* Does GPUDirect work?  Nothing that a driver or a kernel module says is believed: bytes are moved
 * and compared.  Called by gpulane.c while a session joins, before any other thread runs. */
#ifndef TFR_EXECUTOR_GPUTRIAL_H
#define TFR_EXECUTOR_GPUTRIAL_H

#include "executor/session.h"

/* Over a link of the session's device to itself, which dies with the trial: a NIC that refuses GPU
 * memory ends a connection.  NULL: it works; else what does not.  Blocks for seconds at most,
 * and tells the client meanwhile that it is queued. */
const char *tfr_gputrial_alone(struct tfr_session *s, const struct tfr_lane *lane);

/* Over the session's own link, whose NIC may be another one.  TFR_OK: *why_out is as above.  Else
 * the link is broken, or may still move bytes of the trial: once it is closed, call forget. */
tfr_status tfr_gputrial_session(struct tfr_session *s, const struct tfr_lane *lane,
                                const char **why_out);
void tfr_gputrial_forget(void);

#endif
