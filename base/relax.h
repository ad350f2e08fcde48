/* The only wait loop.  A caller that waits for somebody else writes
 *
 *     struct tfr_relax r = TFR_RELAX_INIT(TFR_WAIT_REPLY);
 *     while (!ready()) {
 *         if (tfr_relax(&r) == TFR_RELAX_SLEEP)
 *             ... sleep by its own means (descriptor armed), or tfr_relax_nap(&r)
 *         ... look at the sticky error and the peer ...
 *     }
 *
 * It spins (pause) for up to TFR_SPIN_US (default 50 µs; less where more spinners than cores are
 * known), letting others have the core after the first moments, then asks the caller to sleep.  A
 * wait without end past the reason's limit is logged once with its reason; it never gives up by
 * itself. Not thread-safe: one per waiting thread, on its stack.  No allocation, no lock. */
#ifndef TFR_BASE_RELAX_H
#define TFR_BASE_RELAX_H

#include <stdint.h>

enum tfr_wait_reason {
    TFR_WAIT_REPLY,  /* an answer to a waiting call */
    TFR_WAIT_STREAM, /* a stream to reach a mark: may be hours, never warned about as an error */
    TFR_WAIT_RING_SPACE, /* credits */
    TFR_WAIT_LANE_SPACE, /* a free extent */
    TFR_WAIT_LOCK,       /* a short lock */
    TFR_WAIT_BOOT,       /* a message on the boot socket */
    TFR_WAIT_RECORD,     /* the pump: next record (idle, not an error) */
    TFR_WAIT_TRANSFER,   /* a put or get to complete */
};

enum tfr_relax_step {
    TFR_RELAX_SPUN,  /* look again */
    TFR_RELAX_CHECK, /* look again, and now also at the slow things (peer alive, sticky): every
                        ~1000 spins */
    TFR_RELAX_SLEEP, /* the spin budget is spent */
};

struct tfr_relax {
    enum tfr_wait_reason reason;
    uint32_t patience; /* the budget times 1 + patience; kept by tfr_relax_again */
    uint32_t spins;
    uint32_t naps;
    uint64_t since_ns; /* set at the first clock read */
    uint64_t warn_at_ns;
};

#define TFR_RELAX_INIT(why) ((struct tfr_relax){.reason = (why)})

enum tfr_relax_step tfr_relax(struct tfr_relax *relax);

/* Sleeps 20 µs, doubling up to 1 ms: for waits that have no descriptor. */
void tfr_relax_nap(struct tfr_relax *relax);

/* Starts the spin budget anew: the wait made progress. */
void tfr_relax_again(struct tfr_relax *relax);

/* "an answer", "ring space", ...: for log lines and tf-stat. */
const char *tfr_wait_reason_str(enum tfr_wait_reason reason);

static inline void tfr_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ __volatile__("yield" ::: "memory");
#endif
}

#endif
