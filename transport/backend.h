/* What the registry knows of the transports.  For files of this folder only. */
#ifndef TFR_TRANSPORT_BACKEND_H
#define TFR_TRANSPORT_BACKEND_H

#include "transport/transport.h"

/* Complete only after tfr_transport_find has filled what they leave out. */
extern struct tfr_transport_ops tfr_shm_ops, tfr_fault_ops;

/* Types of boot messages that open() of a transport sends; callers number theirs below. */
enum { TFR_BOOT_LINK = 0x7f000000 };

#endif
