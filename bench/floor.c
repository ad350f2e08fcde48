/* The raw floors: what two processes can say to each other through shared memory at best, what
 * memcpy does, what storing records costs when nobody reads them.  Measured by the parent between
 * the players' rounds.  The answering process sleeps in a read until a round begins, and waits as
 * our own code does (tfr_relax), but that it never goes to sleep. */
#include <poll.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/relax.h"
#include "bench/bench.h"

enum { PINGS = 2000, WARM_PINGS = 200, STORE_ROOM = 1 << 20, STORE_BATCH = 200, STORES = 40 };
#define MEMCPY_BYTES (256ull << 20) /* per round, at most */
#define MEMCPY_MAX   1000

struct table {
    _Alignas(64) _Atomic uint64_t ping; /* pairs with the acquire in echo */
    _Alignas(64) _Atomic uint64_t pong; /* pairs with the acquire in pings */
    _Alignas(64) _Atomic uint64_t tail; /* read by nobody */
};

static struct table *table;
static int sock = -1;
static pid_t echo_pid;
static uint8_t *from, *to;
static uint64_t room;

const char *floor_name(enum floor_kind kind)
{
    switch (kind) {
    case FLOOR_NONE:
        return "none";
    case FLOOR_STORE:
        return "store";
    case FLOOR_PINGPONG:
        return "pingpong";
    case FLOOR_MEMCPY:
        return "memcpy";
    case FLOOR_TCP_PING:
        return "tcp-ping";
    case FLOOR_TCP_SEND:
        return "tcp-send";
    case FLOOR_TCP_IN:
        return "tcp-copy";
    case FLOOR_TCP_OUT:
        return "copy-tcp";
    case FLOOR_UCX:
        return "ucx-tcp";
    }
    return "none";
}

/* False: the other side is gone. */
static bool wait_for(const _Atomic uint64_t *word, uint64_t want)
{
    struct tfr_relax relax = TFR_RELAX_INIT(TFR_WAIT_TRANSFER);
    while (atomic_load_explicit(word, memory_order_acquire) != want) {
        if (tfr_relax(&relax) != TFR_RELAX_SLEEP)
            continue;
        struct pollfd p = {.fd = sock, .events = POLLRDHUP};
        if (poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP)))
            return false;
        sched_yield();
    }
    return true;
}

static void echo(void)
{
    uint64_t first;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(sock, &first, sizeof first) == (ssize_t)sizeof first) {
        for (uint64_t i = first; i < first + WARM_PINGS + PINGS; i++) {
            if (!wait_for(&table->ping, i))
                return;
            atomic_store_explicit(&table->pong, i, memory_order_release);
        }
    }
}

bool floor_init(void)
{
    int pair[2];
    table = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (table == MAP_FAILED || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    echo_pid = fork();
    if (echo_pid < 0)
        return false;
    sock = pair[echo_pid == 0];
    close(pair[echo_pid != 0]);
    if (echo_pid == 0) {
        echo();
        _exit(0);
    }
    return true;
}

/* A way through the network has other limits than one through memory. */
enum floor_kind floor_over_tcp(enum floor_kind kind)
{
    return kind == FLOOR_PINGPONG ? FLOOR_TCP_PING : kind == FLOOR_MEMCPY ? FLOOR_TCP_SEND : kind;
}

void floor_fini(void)
{
    floor_tcp_fini();
    if (sock < 0)
        return;
    close(sock);
    sock = -1;
    waitpid(echo_pid, NULL, 0);
}

static size_t pings(double *samples, size_t n)
{
    static uint64_t said;
    uint64_t first = said + 1;
    said += WARM_PINGS + PINGS;
    if (send(sock, &first, sizeof first, MSG_NOSIGNAL) != (ssize_t)sizeof first)
        return 0;
    size_t got = 0;
    for (uint64_t i = first; i <= said; i++) {
        uint64_t start = timer_now();
        atomic_store_explicit(&table->ping, i, memory_order_release);
        if (!wait_for(&table->pong, i))
            return 0;
        double ns = timer_ns(start, timer_now());
        if (i >= first + WARM_PINGS && got < n)
            samples[got++] = ns;
    }
    return got;
}

/* Two buffers of at least len bytes, touched, in huge pages where the kernel gives them. */
static bool buffers(uint64_t len)
{
    uint64_t want = (len + (2u << 20)) & ~((2ull << 20) - 1);
    if (want <= room)
        return true;
    if (room) {
        munmap(from, room);
        munmap(to, room);
        room = 0;
    }
    from = mmap(NULL, want, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    to = mmap(NULL, want, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (from == MAP_FAILED || to == MAP_FAILED)
        return false;
    madvise(from, want, MADV_HUGEPAGE);
    madvise(to, want, MADV_HUGEPAGE);
    memset(from, 1, want);
    memset(to, 2, want);
    room = want;
    return true;
}

static size_t memcpys(uint64_t size, double *samples, size_t n)
{
    uint64_t times = MEMCPY_BYTES / size;
    times = times > MEMCPY_MAX ? MEMCPY_MAX : times;
    if (!buffers(size))
        return 0;
    size_t got = 0;
    for (uint64_t i = 0; i <= times && got < n; i++) {
        uint64_t start = timer_now();
        memcpy(to, from, size);
        __asm__ __volatile__("" ::"r"(to) : "memory");
        double ns = timer_ns(start, timer_now());
        if (i > 0)
            samples[got++] = ns;
    }
    return got;
}

static size_t stores(uint64_t size, double *samples, size_t n)
{
    uint64_t at = 0;
    if (!buffers(STORE_ROOM))
        return 0;
    for (size_t got = 0; got < STORES && got < n; got++) {
        uint64_t start = timer_now();
        for (int i = 0; i < STORE_BATCH; i++) {
            at = at + size > STORE_ROOM ? 0 : at;
            memcpy(to + at, from, size);
            atomic_store_explicit(&table->tail, at, memory_order_release);
            at += size;
        }
        samples[got] = timer_ns(start, timer_now()) / STORE_BATCH;
    }
    return STORES < n ? STORES : n;
}

size_t floor_round(enum floor_kind kind, uint64_t size, double *samples, size_t n)
{
    switch (kind) {
    case FLOOR_NONE:
        break;
    case FLOOR_STORE:
        return stores(size, samples, n);
    case FLOOR_PINGPONG:
        return pings(samples, n);
    case FLOOR_MEMCPY:
        return memcpys(size, samples, n);
    case FLOOR_TCP_PING:
    case FLOOR_TCP_SEND:
    case FLOOR_TCP_IN:
    case FLOOR_TCP_OUT:
    case FLOOR_UCX:
        return floor_tcp_round(kind, size, samples, n);
    }
    return 0;
}
