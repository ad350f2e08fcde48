/* Two processes meet again and again at the moment of falling asleep: one writes a word and rings,
 * the other arms, looks at the word and polls.  Delays of a few nanoseconds either way sweep over
 * the window in which a missing fence (or membarrier) loses the bell.  Only for transports that map
 * memory. Where others want the cores too, a round takes milliseconds: there are as many as a
 * minute has. Usage: bells TRANSPORT [ROUNDS] */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/counter.h"
#include "base/relax.h"
#include "tests/pair.h"
#include "transport/shm/shm.h"

enum { LIMIT_S = 280, ROUNDS_S = 60, POLL_MS = 20000, DELAYS = 96 };

/* In the memory of the sleeper, but for `done`, which lies in the writer's. */
struct words {
    _Alignas(64) _Atomic uint64_t go;
    _Alignas(64) _Atomic uint64_t word;
    _Atomic uint64_t over; /* before `go` */
    _Alignas(64) _Atomic uint64_t done;
};

static uint64_t round_n = 100000;

static void delay(uint32_t n)
{
    for (volatile uint32_t i = 0; i < n; i++)
        ;
}

static void word_wait(struct pair_end *end, _Atomic uint64_t *word, uint64_t value)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_RECORD);

    while (atomic_load_explicit(word, memory_order_acquire) < value) { /* pairs with word_set */
        if (tfr_relax(&relax) == TFR_RELAX_SLEEP) {
            pair_need(end->ops->progress(end->link) == TFR_OK, "peer");
            tfr_relax_nap(&relax);
        }
    }
}

static void word_set(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

static void sleeper_run(struct pair_end *end)
{
    struct words *own = end->area.addr, *theirs = end->ops->addr(end->peer);
    struct pollfd poller = {.fd = -1, .events = POLLIN};
    struct shm_link *shm = (struct shm_link *)end->link;
    char bytes[16];

    for (uint64_t i = 1; i <= round_n; i++) {
        int n = 1;
        word_wait(end, &own->go, 2 * i - 1);
        if (atomic_load_explicit(&own->over, memory_order_relaxed))
            return;
        recv(poller.fd, bytes, sizeof(bytes), MSG_DONTWAIT);    /* the bell of before `go` */
        atomic_load_explicit(&own->word, memory_order_relaxed); /* both into our cache */
        atomic_load_explicit(&shm->own->asleep, memory_order_relaxed);
        word_set(&theirs->done, 2 * i - 1);
        word_wait(end, &own->go, 2 * i);
        delay((uint32_t)(i * 7 % DELAYS));
        pair_need(end->ops->arm(end->link, &poller.fd) == TFR_OK, "arm");
        if (atomic_load_explicit(&own->word, memory_order_acquire) < i)
            n = poll(&poller, 1, POLL_MS);
        end->ops->disarm(end->link);
        pair_need(n != 0, "bell (lost)");
        word_wait(end, &own->word, i);
        word_set(&theirs->done, 2 * i);
    }
}

static uint64_t writer_run(struct pair_end *end)
{
    struct words *own = end->area.addr, *theirs = end->ops->addr(end->peer);
    uint64_t until = tfr_clock_now() + ROUNDS_S * TFR_NS_PER_S, i;

    for (i = 1; i <= round_n; i++) {
        if (i % 16 == 0 && tfr_clock_now() > until) {
            word_set(&theirs->over, 1);
            word_set(&theirs->go, 2 * i - 1);
            break;
        }
        end->ops->ring(end->link); /* takes the flag down and brings it into our cache */
        word_set(&theirs->go, 2 * i - 1);
        word_wait(end, &own->done, 2 * i - 1);
        word_set(&theirs->go, 2 * i);
        delay((uint32_t)(i * 11 % (DELAYS * 4))); /* the peer's way to arm is longer */
        word_set(&theirs->word, i);
        end->ops->ring(end->link);
        word_wait(end, &own->done, 2 * i);
    }
    return i - 1;
}

int main(int argc, char **argv)
{
    const char *transport = argc > 1 ? argv[1] : "shm";
    struct pair_end end;
    int socks[2], status = 0;
    uint64_t rounds = 0;
    pid_t child;

    if (argc > 2)
        round_n = strtoull(argv[2], NULL, 0);
    pair_need(socketpair(AF_UNIX, SOCK_STREAM, 0, socks) == 0, "socketpair");
    child = fork();
    pair_need(child >= 0, "fork");
    alarm(LIMIT_S);
    close(socks[child != 0]);
    pair_open(&end, transport, socks[child == 0], child != 0, sizeof(struct words));
    if (child)
        rounds = writer_run(&end);
    else
        sleeper_run(&end);
    if (child) {
        pair_need(waitpid(child, &status, 0) == child, "wait");
        printf("%llu rounds, %llu bells\n", (unsigned long long)rounds,
               (unsigned long long)atomic_load(&tfr_counters.bells));
    }
    pair_close(&end);
    return status != 0;
}
