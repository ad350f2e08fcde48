/* Two ends of a link for test programs: a boot socket pair, memory that each side shows to the
 * other, and the exchange of keys.  Used by the conformance suite and the stress programs; a failed
 * set-up ends the program, as nothing could be tested. */
#ifndef TFR_TEST_PAIR_H
#define TFR_TEST_PAIR_H

#include "transport/boot.h"
#include "transport/transport.h"

struct pair_end {
    const struct tfr_transport_ops *ops;
    struct tfr_boot boot;
    struct tfr_dev *dev;
    struct tfr_link *link;
    struct tfr_area area; /* ours, shown to the peer */
    struct tfr_mem *mem;
    struct tfr_peer_mem *peer; /* the peer's */
    struct pair_end *other;    /* in this process, and driven along by whoever waits; else NULL */
};

/* Opens one end over a connected socket; blocks until the other end does the same. */
void pair_open(struct pair_end *end, const char *transport, int sock, bool first, size_t len);
void pair_close(struct pair_end *end); /* what a test has ended itself is NULL */

/* Closes the link with its boot connection, as both sides of a session do: some lanes tell of an
 * end by that alone. */
void pair_cut(struct pair_end *end);

/* Both ends in this process; who waits at one drives the other, too. */
void pair_open_both(struct pair_end ends[2], const char *transport, size_t len);

/* From here on each end is driven by a thread of its own. */
void pair_part(struct pair_end ends[2]);

/* Progress of an end and, where the transport needs it, of the other. */
tfr_status pair_drive(struct pair_end *end);

/* put until it is taken. */
void pair_put(struct pair_end *end, const struct tfr_xfer *xfer);

/* Stops the program with a line if `ok` is false. */
void pair_need(int ok, const char *what);

#endif
