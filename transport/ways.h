/* Which transport two sides take: the client says what its machine has (a way for each transport,
 * best first, or why not), the worker picks the first that both have, and if that cannot be opened
 * after all, the next.  Called by intercept/init.c and executor/session.c. */
#ifndef TFR_TRANSPORT_WAYS_H
#define TFR_TRANSPORT_WAYS_H

#include <assert.h>

#include "transport/boot.h"
#include "transport/transport.h"

enum { TFR_WAYS_MAX = 6, TFR_WAY_NAME = 32, TFR_WAYS_TEXT = 480 };

/* One transport of one side, as it travels. */
struct tfr_way {
    char name[TFR_WAY_NAME]; /* as tfr_transport_find takes it */
    uint32_t usable, reserved;
    struct tfr_offer offer; /* unusable: a text, why */
};
static_assert(sizeof(struct tfr_way) == 528, "a way");

struct tfr_ways {
    struct tfr_way way[TFR_WAYS_MAX];
    uint32_t n;
};

/* Is the peer a process of this machine? */
bool tfr_boot_local(const struct tfr_boot *boot);

/* Do both ends have the same address? */
bool tfr_boot_near(const struct tfr_boot *boot);

/* Is it a setting that tfr_ways_find can make sense of?  Loads nothing. */
bool tfr_ways_known(const char *setting);

/* Could it serve this machine, as far as that is known before anybody comes?  `auto` tries no
 * plugin.  *why_out: a string that stays. */
bool tfr_ways_able(const char *setting, const char **why_out);

/* Will the two share memory, if nothing fails?  Loads nothing and asks nobody. */
bool tfr_ways_shared(const char *setting, const struct tfr_boot *boot);

/* What this machine can use towards the peer of `boot`.  `setting` is "auto" or the name of the one
 * to take.  TFR_E_UNSUP: none; `why_out` (TFR_WAYS_TEXT bytes) says why, for each. */
tfr_status tfr_ways_find(const char *setting, const struct tfr_boot *boot,
                         struct tfr_ways *ways_out, char *why_out);

/* Takes the peer's from a message of `len` bytes; false: they make no sense. */
bool tfr_ways_take(const void *body, size_t len, struct tfr_ways *ways_out);

/* The first way of the peer, from *at on, that both can use; *at is then the place behind it. NULL:
 * none is left.  What was passed over is appended to `why` (TFR_WAYS_TEXT bytes), with reasons. */
const struct tfr_transport_ops *tfr_ways_next(const struct tfr_ways *peer, const char *setting,
                                              const struct tfr_boot *boot, uint32_t *at, char *why);

/* Appends "NAME: TEXT". */
void tfr_ways_note(char *why, const char *name, const char *text);

/* Opens the link, imports what the peer shows (key->fd is consumed), and hears whether the peer
 * could do the same: both go on, or neither.  `why_out` as above. */
tfr_status tfr_ways_open(struct tfr_dev *dev, struct tfr_boot *boot, bool first,
                         const struct tfr_key *key, struct tfr_link **link_out,
                         struct tfr_peer_mem **peer_out, char *why_out);

#endif
