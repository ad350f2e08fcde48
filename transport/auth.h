/* Proof of identity over TCP, mutual, in four messages: hello, challenge, proof, accept.  Both
 * sides show that they hold the same key (or, by MUNGE, which users they are) without showing the
 * key; what they prove covers everything that was said, and the keys that seal the connection come
 * out of it and of a Diffie-Hellman exchange, so that a key that leaks later opens nothing
 * recorded. A state machine without waits of its own: the executor's parent runs it in its loop,
 * connect.c for the client.  With MUNGE a step blocks for as long as munged takes. */
#ifndef TFR_TRANSPORT_AUTH_H
#define TFR_TRANSPORT_AUTH_H

#include <stdbool.h>
#include <sys/types.h>

#include "transport/boot.h"
#include "transport/key.h"

enum tfr_auth_method { TFR_AUTH_NONE, TFR_AUTH_KEY, TFR_AUTH_MUNGE };

enum { TFR_AUTH_MAX = 2048, TFR_AUTH_WHY_MAX = 256, TFR_AUTH_UIDS = 64 };

/* How a side proves itself, and whom it believes.  Must outlive the proofs. */
struct tfr_auth_cfg {
    enum tfr_auth_method method; /* NONE: it cannot, and says so to the other side */
    uint8_t key[TFR_KEY_LEN];
    uid_t uid[TFR_AUTH_UIDS]; /* besides ourselves, by MUNGE */
    int uid_n;
};

/* By the names that users give: "key" or "munge" and a file; NULL: the environment's, then the
 * defaults.  Who makes keys gets a new one where there is none.  Failures are said. */
tfr_status tfr_auth_load(const char *method, const char *key_file, bool make_key,
                         struct tfr_auth_cfg *cfg_out);

/* "UID[,UID...]" into cfg; TFR_E_INVAL, unsaid: it is none. */
tfr_status tfr_auth_uids(struct tfr_auth_cfg *cfg, const char *list);
bool tfr_auth_admits(const struct tfr_auth_cfg *cfg, uid_t uid);

struct tfr_auth;

/* One proof; `first` is the client.  NULL: no memory, or no libsodium. */
struct tfr_auth *tfr_auth_new(const struct tfr_auth_cfg *cfg, bool first);
void tfr_auth_free(struct tfr_auth *auth); /* NULL is fine */

/* The client's first message.  Messages out borrow the body, until the next step. */
void tfr_auth_begin(struct tfr_auth *auth, struct tfr_boot_msg *out);

/* Takes the peer's message.  If out->type is not 0 it is to be sent, whatever the answer is:
 * TFR_AGAIN: another message must come; TFR_OK: proved, and the seal can be taken; TFR_E_ACCESS:
 * refused, tfr_auth_why says why; TFR_E_PROTO: this is no peer of ours. */
tfr_status tfr_auth_step(struct tfr_auth *auth, const struct tfr_boot_msg *in,
                         struct tfr_boot_msg *out);

const char *tfr_auth_why(const struct tfr_auth *auth);
struct tfr_seal *tfr_auth_seal(struct tfr_auth *auth); /* the caller's from here on */
uid_t tfr_auth_uid(const struct tfr_auth *auth);       /* whom the peer proved to be */

#endif
