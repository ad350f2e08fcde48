/* The boot connection: hello, blobs, late registrations, and the death notice (a closed socket).
 * Addresses are unix:PATH, unix:@NAME (abstract) and tcp:HOST:PORT; over TCP both sides prove who
 * they are before anything else is said (auth.h), and every message after that is sealed (seal.h).
 * Messages are framed: type, length, payload, over unix sockets at most one batch of descriptors.
 * A message is at most TFR_BOOT_MAX bytes; the receiver never trusts the length it is told.
 * All calls take a limit in milliseconds and answer TFR_E_TIMEOUT past it.  Not thread-safe per
 * socket. */
#ifndef TFR_TRANSPORT_BOOT_H
#define TFR_TRANSPORT_BOOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/status.h"

enum { TFR_BOOT_MAX = 1 << 20, TFR_BOOT_FDS = 8, TFR_BOOT_SECRET = 32, TFR_BOOT_ADDR_MAX = 300 };

struct tfr_seal;

/* One end of a boot connection.  A plain one is made with {.fd = fd}. */
struct tfr_boot {
    int fd;
    struct tfr_seal *seal;     /* keys and counters after a proof of identity; NULL: plain */
    bool linking;              /* see tfr_boot_linking */
    struct tfr_boot_msg *kept; /* a message that came too early; NULL: none */
};

struct tfr_boot_msg {
    uint32_t type;
    uint32_t len;
    void *body; /* recv: malloc'ed, freed by tfr_boot_msg_fini; send: borrowed */
    int fds[TFR_BOOT_FDS];
    int fd_n;
};

/* Listens; an old socket file that nobody answers on is replaced, a live one is TFR_E_ACCESS.
 * *fd_out is non-blocking, close-on-exec.  The file is 0600.  tcp:*:PORT is every address of the
 * machine, port 0 one that the system chooses. */
tfr_status tfr_boot_listen(const char *addr, int *fd_out);

/* The address of the listener, with the port that it has got. */
void tfr_boot_listen_name(const char *addr, int fd, char *name_out, size_t room);

/* Lets other users connect to the socket file: who they are is then for the listener to ask. */
void tfr_boot_admit_others(const char *addr);

/* Closes the listener, and removes its socket file unless somebody else listens there by now. */
void tfr_boot_unlisten(const char *addr, int fd);

/* The next connection of a listener; TFR_AGAIN: none now. */
tfr_status tfr_boot_accept(int listen_fd, struct tfr_boot *boot_out);

/* Connects within limit_ms and, over TCP, proves who we are and asks the same of the executor; over
 * a unix socket its user must be one that we trust.
 * TFR_E_PEER (at once, if nobody listens) and TFR_E_TIMEOUT make no line at level error; any other
 * failure does, and says what to do. */
tfr_status tfr_boot_connect(const char *addr, int limit_ms, struct tfr_boot *boot_out);

/* To the first of a comma-separated list that answers; addr_out (TFR_BOOT_ADDR_MAX bytes) says
 * which. TFR_E_PEER: none does, and nothing was said of any. */
tfr_status tfr_boot_connect_any(const char *list, int limit_ms, char *addr_out,
                                struct tfr_boot *boot_out);

/* Closes the socket and forgets the keys; safe on one that is closed. */
void tfr_boot_close(struct tfr_boot *boot);

/* TFR_BOOT_SECRET bytes that both sides share after a proof of identity, from which a transport
 * derives keys of its own with a label; NULL on a plain socket, which nobody else can read. */
const uint8_t *tfr_boot_secret(const struct tfr_boot *boot);

/* The peer's user and process, as they were when it connected; TFR_E_UNSUP over TCP. */
tfr_status tfr_boot_peer(const struct tfr_boot *boot, uid_t *uid_out, pid_t *pid_out);

/* TFR_E_PEER (closed) and TFR_E_TIMEOUT (nothing came) make no log line; anything else does. */
tfr_status tfr_boot_send(struct tfr_boot *boot, const struct tfr_boot_msg *msg, int limit_ms);
tfr_status tfr_boot_recv(struct tfr_boot *boot, struct tfr_boot_msg *msg_out, int limit_ms);
/* The next recv hands this one out again. */
void tfr_boot_keep(struct tfr_boot *boot, struct tfr_boot_msg *msg);

/* While a transport opens its link: recv hands out its messages alone.  Any other, which means that
 * the peer has given up, is kept for the first recv after that, and answered with TFR_E_PEER. */
void tfr_boot_linking(struct tfr_boot *boot, bool on);

void tfr_boot_msg_fini(struct tfr_boot_msg *msg); /* frees the body and closes fds still in it */

/* A message that comes in pieces, for a loop that must not wait.  Starts as all zeros. */
struct tfr_boot_in {
    uint32_t head[4];
    uint32_t have; /* bytes, head included */
    uint8_t *body;
};

/* Takes what is there.  TFR_OK: *msg_out is a whole message, and `in` is ready for the next one;
 * TFR_AGAIN: more must come; TFR_E_PEER: closed; TFR_E_PROTO: not ours, longer than `max`, or with
 * descriptors (none is let in).  Makes no log line. */
tfr_status tfr_boot_recv_part(struct tfr_boot *boot, struct tfr_boot_in *in, uint32_t max,
                              struct tfr_boot_msg *msg_out);
void tfr_boot_in_fini(struct tfr_boot_in *in);

/* Is the address of a form that we know?  If not, *why_out says which there are. */
int tfr_boot_addr_good(const char *addr, const char **why_out);

/* Has the peer closed?  No waiting, no data consumed. */
int tfr_boot_gone(const struct tfr_boot *boot);

#endif
