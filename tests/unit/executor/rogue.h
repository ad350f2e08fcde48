/* A client of our own that says what it likes to a real tf-executor on the software GPU. */
#ifndef TFR_TESTS_ROGUE_H
#define TFR_TESTS_ROGUE_H

#include <cuda.h>
#include <stdbool.h>

#include "proto/wire.h"
#include "transport/ways.h"
#include "transport/ring.h"

/* For whatever the executor does: it may be built with sanitizers, on a busy machine. */
enum { ROGUE_LIMIT_MS = 20000 };
#define ROGUE_LIMIT_NS (ROGUE_LIMIT_MS * TFR_NS_PER_MS)

extern char rogue_addr[64];
extern struct tfr_way rogue_over_shm;

/* Per test: starts and stops the executor. */
void rogue_executor_start(void);
void rogue_executor_stop(void);

struct rogue {
    struct tfr_boot boot;
    struct tfr_snapshot snapshot;
    struct tfr_welcome welcome;
    struct tfr_area page;
    struct tfr_dev *dev;
    struct tfr_link *link;
    struct tfr_peer_mem *session;
    struct tfr_ring_tx tx;
};

void rogue_send(struct tfr_boot *boot, uint32_t type, void *body, size_t len);
struct tfr_hello rogue_hello(void);
/* Connects, says hello; the type of what comes back, 0: the connection was closed. */
uint32_t rogue_greet(struct tfr_hello hello, struct tfr_boot *boot_out);
void rogue_attach(struct rogue *r);
/* The same over another transport than shm. */
void rogue_attach_over(struct rogue *r, const char *transport);
/* Gives back what attach took; a test that does without leaves it to the process. */
void rogue_leave(struct rogue *r);
struct tfr_feedback *rogue_page(struct rogue *r);
/* Posts one record with this body behind the head. */
void rogue_post(struct rogue *r, uint16_t op, const void *body, uint32_t len);
/* A context, so that streams exist; returns the legacy stream's id. */
uint64_t rogue_context(struct rogue *r);
/* Device memory. */
uint64_t rogue_memory(struct rogue *r, uint64_t len);
/* The worker hangs up on us. */
bool rogue_ends(struct rogue *r);
void rogue_daemon_serves(void);

#endif
