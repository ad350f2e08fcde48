/* Lane 1: GPU memory that the NIC reads and writes (GPUDirect RDMA), so that lane bytes never see
 * this node's host memory.
 *
 * Offsets below its length are the same bytes as of lane 0: the client allocates an extent once,
 * names it in lane 1 where it can, and in lane 0 where a CPU of ours has to read it (images) or
 * where it is written while the stream stands still (gated copies), which a GPU may not see.  So
 * the twin in the client's memory is one, too. */
#ifndef TFR_EXECUTOR_GPULANE_H
#define TFR_EXECUTOR_GPULANE_H

#include "executor/session.h"

/* While joining, before the welcome: makes it, registers it and tries it, if transport, driver,
 * place and TFR_GPUDIRECT allow; why not is logged.  s->lane_n says whether there is one. */
void tfr_gpulane_make(struct tfr_session *s);

/* It goes again: the transport that it was made for does not work. */
void tfr_gpulane_drop(struct tfr_session *s);

/* Once the link is open: tries it over that.  What fails is taken away again, and said; not TFR_OK:
 * the link is not to be used any more, and once it is closed lost() is to be called: from then on
 * there is no such lane.  Blocks for at most a few seconds. */
tfr_status tfr_gpulane_prove(struct tfr_session *s);
void tfr_gpulane_lost(struct tfr_session *s);

#endif
