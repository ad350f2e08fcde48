/* MUNGE, by libmunge (loaded when it is asked for) and the munged of this machine: credentials that
 * say which user made them, which every machine of the cluster believes and accepts once.  Calls
 * block for as long as munged takes.  *why_out is a string that stays. */
#ifndef TFR_TRANSPORT_MUNGE_H
#define TFR_TRANSPORT_MUNGE_H

#include <stddef.h>
#include <sys/types.h>

#include "base/status.h"

/* A credential that carries the payload; only this user may decode it, (uid_t)-1: anybody. */
tfr_status tfr_munge_encode(const void *payload, size_t len, uid_t only, char *text_out,
                            size_t room, const char **why_out);

/* The payload must have exactly this length. */
tfr_status tfr_munge_decode(const char *text, void *payload_out, size_t len, uid_t *uid_out,
                            const char **why_out);

#endif
