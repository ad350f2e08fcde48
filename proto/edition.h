/* Which release client and executor are of, and whether two can work together: releases that differ
 * in added calls can.  Each side says which calls it knows and a number for the layout of each
 * (gen_hash.py); the executor's parent judges a hello by it, the client a snapshot. */
#ifndef TFR_PROTO_EDITION_H
#define TFR_PROTO_EDITION_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/wire.h"

enum { TFR_CALLS_MAX = 1024, TFR_EDITION_WHY_MAX = 400 };

/* This build's; `calls_out` has room for TFR_CALLS_MAX rows, of which edition_out->call_n are
 * written. */
void tfr_edition_make(const char *release, struct tfr_edition *edition_out, void *calls_out);

/* Can this build work with the peer's?  `calls` are the peer's edition->call_n rows: aligned to
 * nothing, in any order.  If not, `cause_out` (TFR_EDITION_WHY_MAX bytes) says what differs. */
bool tfr_edition_suits(const struct tfr_edition *peer, const void *calls, char *cause_out);

/* The refusal, in one line that names both: for the other side and for our own log. */
void tfr_edition_refusal(const struct tfr_edition *executor, const struct tfr_edition *client,
                         const char *cause, char *why_out);

/* Does the peer know the call? */
bool tfr_edition_knows(const struct tfr_edition *peer, const void *calls, unsigned op);

#endif
