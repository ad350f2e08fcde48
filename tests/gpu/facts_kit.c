/* What the facts share that is not CUDA: notes and verdicts, samples, second processes, memfds.
 * A fact collects checks; one that fails makes the fact differ, a refused call leaves an open end.
 */
#include "facts.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef F_ADD_SEALS
#define F_ADD_SEALS   1033
#define F_SEAL_SHRINK 2
#define F_SEAL_GROW   4
#endif

/* ---- notes and verdicts ---- */

void step(struct result *r, const char *what)
{
    snprintf(r->step, sizeof(r->step), "%s", what);
}

static void add(struct result *r, const char *prefix, const char *fmt, va_list args)
{
    size_t len = strlen(r->seen);
    if (len + 8 >= sizeof(r->seen))
        return;
    len += (size_t)snprintf(r->seen + len, sizeof(r->seen) - len, "%s%s", len ? "; " : "", prefix);
    if (len < sizeof(r->seen))
        vsnprintf(r->seen + len, sizeof(r->seen) - len, fmt, args);
}

void note(struct result *r, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(r, "", fmt, args);
    va_end(args);
}

bool check(struct result *r, bool good, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(r, good ? "" : "DIFFERS: ", fmt, args);
    va_end(args);
    if (good)
        r->agree_n++;
    else
        r->differ_n++;
    return good;
}

void open_end(struct result *r, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    add(r, "open: ", fmt, args);
    va_end(args);
    r->open_n++;
}

const char *rc_name(CUresult rc)
{
    static _Thread_local char text[4][96];
    static _Thread_local unsigned int at;
    const char *name = NULL;
    if (rc == CUDA_SUCCESS)
        return "ok";
    char *to = text[at++ % 4];
    if (cu.GetErrorName && cu.GetErrorName(rc, &name) == CUDA_SUCCESS && name)
        snprintf(to, sizeof(text[0]), "%d %s", (int)rc,
                 strncmp(name, "CUDA_ERROR_", 11) == 0 ? name + 11 : name);
    else
        snprintf(to, sizeof(text[0]), "%d", (int)rc);
    return to;
}

bool ok(struct result *r, const char *call, CUresult rc)
{
    if (rc == CUDA_SUCCESS)
        return true;
    open_end(r, "%s: %s", call, rc_name(rc));
    return false;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double measure(struct result *r, const char *unit, double *v, unsigned int n, const char *fmt, ...)
{
    if (n == 0 || r->measure_n == SLOT_N)
        return 0;
    struct measure *m = &r->measure[r->measure_n++];
    va_list args;
    va_start(args, fmt);
    vsnprintf(m->name, sizeof(m->name), fmt, args);
    va_end(args);
    snprintf(m->unit, sizeof(m->unit), "%s", unit);
    qsort(v, n, sizeof(*v), by_value);
    m->p50 = v[n / 2];
    m->p99 = v[(n * 99u) / 100u];
    m->max = v[n - 1];
    m->n = n;
    return m->p50;
}

/* ---- time ---- */

void nap_us(unsigned int us)
{
    struct timespec t = {.tv_sec = us / 1000000u, .tv_nsec = (long)(us % 1000000u) * 1000};
    nanosleep(&t, NULL);
}

void relax(unsigned int *spins)
{
    if (++*spins > 2000)
        sched_yield();
}

/* ---- memory ---- */

void *shared_alloc(size_t len)
{
    void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

int memfd_open(size_t len)
{
    int fd = memfd_create("facts", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -1;
    if (ftruncate(fd, (off_t)len) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

void *memfd_map(int fd, size_t len)
{
    void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

bool range_free(uint64_t at, uint64_t len)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    if (!maps)
        return true;
    char *line = NULL;
    size_t cap = 0;
    bool free_of = true;
    while (getline(&line, &cap, maps) > 0) {
        unsigned long long from, to;
        if (sscanf(line, "%llx-%llx", &from, &to) == 2 && from < at + len && to > at)
            free_of = false;
    }
    free(line);
    fclose(maps);
    return free_of;
}

/* ---- second processes ---- */

bool peer_start(struct result *r, void (*fn)(int sock, void *arg), void *arg, struct peer *peer_out)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        open_end(r, "socketpair: %s", strerror(errno));
        return false;
    }
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        close(pair[0]);
        fn(pair[1], arg);
        _exit(0);
    }
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        open_end(r, "fork: %s", strerror(errno));
        return false;
    }
    peer_out->pid = pid;
    peer_out->sock = pair[0];
    return true;
}

bool peer_join(struct peer *p, unsigned int ms)
{
    uint64_t until = now_ns() + ms * 1000000ull;
    int status = 0;
    for (;;) {
        pid_t got = waitpid(p->pid, &status, WNOHANG);
        if (got == p->pid)
            break;
        if (got < 0)
            return false;
        if (now_ns() > until) {
            kill(p->pid, SIGKILL);
            waitpid(p->pid, &status, 0);
            close(p->sock);
            return false;
        }
        nap_us(500);
    }
    close(p->sock);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool readable(int sock, unsigned int ms)
{
    struct pollfd p = {.fd = sock, .events = POLLIN};
    return poll(&p, 1, (int)ms) == 1 && (p.revents & POLLIN);
}

bool fd_send(int sock, int fd)
{
    char byte = 'f';
    struct iovec io = {.iov_base = &byte, .iov_len = 1};
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    memset(&control, 0, sizeof(control));
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = control.buf,
                         .msg_controllen = sizeof(control.buf)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &fd, sizeof(fd));
    return sendmsg(sock, &msg, MSG_NOSIGNAL) == 1;
}

int fd_receive(int sock, unsigned int ms)
{
    char byte;
    struct iovec io = {.iov_base = &byte, .iov_len = 1};
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = control.buf,
                         .msg_controllen = sizeof(control.buf)};
    if (!readable(sock, ms) || recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != 1)
        return -1;
    struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
    int fd = -1;
    if (head && head->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(head), sizeof(fd));
    return fd;
}

bool bytes_send(int sock, const void *data, size_t len)
{
    return send(sock, data, len, MSG_NOSIGNAL) == (ssize_t)len;
}

bool bytes_receive(int sock, void *data, size_t len, unsigned int ms)
{
    return readable(sock, ms) && recv(sock, data, len, MSG_WAITALL) == (ssize_t)len;
}
