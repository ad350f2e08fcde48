/* The raw floors of a network: 64 bytes to and fro between two processes that spin on plain TCP
 * sockets, the best of several ways to send a block one way into a buffer of its size, alone or
 * with the memcpy that a GPU without a copy engine of its own costs on one side, and what
 * ucx_perftest says of UCX over TCP, where it is installed.  All over loopback, as our own tcp
 * transport between a client and a private executor.  Used by floor.c. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "bench/bench.h"

enum {
    PING = 64,
    PINGS = 2000,
    WARM_PINGS = 200,
    BLOCKS_MAX = 500,
    UCX_MS = 20000,
    LANE = 1 << 20
};
#define BLOCK_BYTES (128ull << 20) /* per round and way, at most */

static int sock = -1; /* of the parent */
static pid_t echo_pid;
static uint8_t *buffer;
static uint64_t room;

/* What the other process is to do next, over the data socket itself. */
struct task {
    uint64_t size; /* 0: answer pings */
    uint64_t times;
    uint64_t spin;   /* else it sleeps in recv */
    uint64_t copied; /* pieces of so many bytes come by way of a small buffer; 0: none do */
};

static bool bytes_move(int fd, uint8_t *at, uint64_t len, uint64_t piece, bool out, bool spin)
{
    int flags = MSG_NOSIGNAL | (spin ? MSG_DONTWAIT : 0);
    while (len) {
        uint64_t part = len < piece ? len : piece;
        ssize_t n = out ? send(fd, at, part, flags) : recv(fd, at, part, flags);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        if (n > 0) {
            at += n;
            len -= (uint64_t)n;
        }
    }
    return true;
}

/* What a lane does beside a GPU whose copy engine is a CPU: the bytes go through it. */
static bool bytes_copy(int fd, uint64_t len, uint64_t piece, bool out, bool spin)
{
    static uint8_t lane[LANE];
    for (uint64_t at = 0, part; at < len; at += part) {
        part = len - at < piece ? len - at : piece;
        uint8_t *by = lane + at % LANE;
        if (out)
            memcpy(by, buffer + at, part);
        if (!bytes_move(fd, by, part, part, out, spin))
            return false;
        if (!out)
            memcpy(buffer + at, by, part);
    }
    return true;
}

static bool buffer_open(uint64_t len)
{
    if (len <= room)
        return true;
    if (room)
        munmap(buffer, room);
    room = 0;
    buffer = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffer == MAP_FAILED)
        return false;
    madvise(buffer, len, MADV_HUGEPAGE);
    memset(buffer, 1, len);
    room = len;
    return true;
}

static void echo(int fd)
{
    struct task task;
    uint8_t ping[PING];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (bytes_move(fd, (uint8_t *)&task, sizeof task, sizeof task, false, false)) {
        if (task.size && !buffer_open(task.size))
            return;
        for (uint64_t i = 0; i < task.times; i++) {
            bool well = !task.size ? bytes_move(fd, ping, sizeof ping, sizeof ping, false, true)
                        : task.copied
                            ? bytes_copy(fd, task.size, task.copied, false, task.spin)
                            : bytes_move(fd, buffer, task.size, 1 << 20, false, task.spin);
            if (!well || !bytes_move(fd, ping, task.size ? 1 : sizeof ping, PING, true, true))
                return;
        }
    }
}

/* Two connected sockets over loopback. */
static bool pair_open(int pair[2])
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool well = bind(listener, (struct sockaddr *)&addr, len) == 0 && listen(listener, 1) == 0 &&
                getsockname(listener, (struct sockaddr *)&addr, &len) == 0 &&
                connect(pair[0], (struct sockaddr *)&addr, len) == 0;
    pair[1] = well ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
    close(listener);
    for (int i = 0; i < 2 && pair[1] >= 0; i++)
        setsockopt(pair[i], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return pair[1] >= 0;
}

/* The process that answers is started when it is first needed. */
static bool tcp_open(void)
{
    int pair[2];
    if (sock >= 0)
        return true;
    if (!pair_open(pair))
        return false;
    fflush(NULL);
    echo_pid = fork();
    if (echo_pid == 0) {
        close(pair[0]);
        echo(pair[1]);
        _exit(0);
    }
    close(pair[1]);
    sock = pair[0];
    return echo_pid > 0;
}

void floor_tcp_fini(void)
{
    if (sock < 0)
        return;
    close(sock);
    sock = -1;
    if (echo_pid > 0)
        waitpid(echo_pid, NULL, 0);
}

static bool task_start(const struct task *task)
{
    return bytes_move(sock, (uint8_t *)(uintptr_t)task, sizeof *task, sizeof *task, true, false);
}

static size_t pings(double *samples, size_t n)
{
    uint8_t ping[PING] = {0};
    size_t got = 0;
    if (!task_start(&(struct task){.times = WARM_PINGS + PINGS}))
        return 0;
    for (int i = 0; i < WARM_PINGS + PINGS; i++) {
        uint64_t start = timer_now();
        if (!bytes_move(sock, ping, PING, PING, true, true) ||
            !bytes_move(sock, ping, PING, PING, false, true))
            return 0;
        double ns = timer_ns(start, timer_now());
        if (i >= WARM_PINGS && got < n)
            samples[got++] = ns;
    }
    return got;
}

/* One way to send a block. */
struct way {
    uint64_t piece;
    bool spin;
    const char *congestion;
    enum floor_kind kind;
};

static bool block_send(uint64_t size, const struct way *way)
{
    return way->kind == FLOOR_TCP_OUT ? bytes_copy(sock, size, way->piece, true, way->spin)
                                      : bytes_move(sock, buffer, size, way->piece, true, way->spin);
}

static size_t blocks(uint64_t size, const struct way *way, double *samples, size_t n)
{
    uint64_t times = BLOCK_BYTES / size;
    times = times < 2 ? 2 : times > BLOCKS_MAX ? BLOCKS_MAX : times;
    times = times > n ? n : times;
    struct task task = {.size = size, .times = times, .spin = way->spin};
    task.copied = way->kind == FLOOR_TCP_IN ? way->piece : 0;
    if (setsockopt(sock, IPPROTO_TCP, TCP_CONGESTION, way->congestion,
                   (socklen_t)strlen(way->congestion)) < 0 ||
        !task_start(&task))
        return 0;
    for (uint64_t i = 0; i < times; i++) {
        uint8_t told;
        uint64_t start = timer_now();
        if (!block_send(size, way) || !bytes_move(sock, &told, 1, 1, false, way->spin))
            return 0;
        samples[i] = timer_ns(start, timer_now());
    }
    return times;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The samples of the way that was fastest this round. */
static size_t best_blocks(enum floor_kind kind, uint64_t size, double *samples, size_t n)
{
    static const uint64_t sent[] = {64 << 10, 1 << 20, UINT64_MAX};
    static const uint64_t copied[] = {64 << 10, 256 << 10, LANE};
    static char usual[16]; /* the system's: it may pace, which within a machine costs time */
    const uint64_t *pieces = kind == FLOOR_TCP_SEND ? sent : copied;
    socklen_t len = sizeof usual - 1;
    if (!usual[0] && getsockopt(sock, IPPROTO_TCP, TCP_CONGESTION, usual, &len) < 0)
        return 0;
    static double tried[SAMPLES_MAX];
    double best = 0;
    size_t best_n = 0;
    if (!buffer_open(size))
        return 0;
    for (size_t way = 0; way < 4 * sizeof sent / sizeof *sent; way++) {
        struct way of = {pieces[way / 4], way % 2, way / 2 % 2 ? "reno" : usual, kind};
        size_t got = blocks(size, &of, tried, SAMPLES_MAX);
        qsort(tried, got, sizeof *tried, by_value);
        if (got == 0 || got > n || (best_n && tried[got / 2] >= best))
            continue;
        best = tried[got / 2];
        best_n = got;
        memcpy(samples, tried, got * sizeof *samples);
    }
    return best_n;
}

/* ---- UCX ---- */

static uint16_t port_free(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool well = bind(fd, (struct sockaddr *)&addr, len) == 0 &&
                getsockname(fd, (struct sockaddr *)&addr, &len) == 0;
    close(fd);
    return well ? ntohs(addr.sin_port) : 0;
}

static pid_t perftest_start(const char *port, const char *server, int out)
{
    char *args[] = {"ucx_perftest",
                    "-p",
                    (char *)(uintptr_t)port,
                    "-t",
                    "am_lat",
                    "-x",
                    "tcp",
                    "-d",
                    "lo",
                    "-s",
                    "64",
                    "-n",
                    "5000",
                    "-w",
                    "500",
                    "-f",
                    "-v",
                    (char *)(uintptr_t)server,
                    NULL};
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    execvp(args[0], args);
    _exit(127);
}

static void perftest_stop(pid_t pid)
{
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
}

/* Its last line is "5000,MEDIAN,...": microseconds one way.  0: it says nothing. */
static double perftest_read(int fd)
{
    uint64_t until = tfr_clock_now() + UCX_MS * TFR_NS_PER_MS;
    char text[4096], *line;
    size_t have = 0;
    while (have < sizeof text - 1 && tfr_clock_now() < until) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 1000) == 0)
            continue;
        ssize_t n = read(fd, text + have, sizeof text - 1 - have);
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    text[have] = 0;
    line = strstr(text, "\n5000,");
    return line ? strtod(line + 6, NULL) * 1e3 : 0;
}

/* 0: not installed, or it does not answer (yet). */
static double perftest_run(const char *port)
{
    int out[2];
    double ns = 0;
    if (pipe2(out, O_CLOEXEC) != 0)
        return 0;
    pid_t client = perftest_start(port, "127.0.0.1", out[1]);
    close(out[1]);
    ns = perftest_read(out[0]);
    close(out[0]);
    perftest_stop(client);
    return ns;
}

/* One sample: its median round trip. */
static size_t ucx(double *samples, size_t n)
{
    char port[8];
    double ns = 0;
    int none = open("/dev/null", O_WRONLY | O_CLOEXEC);
    snprintf(port, sizeof port, "%u", port_free());
    pid_t server = n ? perftest_start(port, NULL, none) : -1;
    bool up = server > 0;
    for (int tries = 0; tries < 20 && ns == 0 && up; tries++) {
        usleep(100000); /* until it listens */
        up = waitpid(server, NULL, WNOHANG) == 0;
        if (up)
            ns = perftest_run(port);
    }
    if (up)
        perftest_stop(server);
    close(none);
    if (ns > 0)
        samples[0] = 2 * ns;
    return ns > 0;
}

size_t floor_tcp_round(enum floor_kind kind, uint64_t size, double *samples, size_t n)
{
    if (kind == FLOOR_UCX)
        return ucx(samples, n);
    if (!tcp_open())
        return 0;
    return kind == FLOOR_TCP_PING ? pings(samples, n) : best_blocks(kind, size, samples, n);
}
