/* See address.h.  Unix sockets here; over TCP a name may stand for several places, and they are
 * tried in turn, each with its share of the time that is left.  A listener on a wildcard takes both
 * families where the system has both. */
#define TFR_LOG_PART "transport"
#include "transport/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "transport/boot.h"

enum { BACKLOG = 256, TCP_BACKLOG = 1024, HOST_MAX = 256 };
enum { LOCK_TRIES = 500, LOCK_NAP_MS = 2 };

/* A probe a second; the limit lies between two of them. */
enum { LOST_MIN_MS = 2000, LOST_MAX_MS = 600000, LOST_LESS_MS = 100 };

struct place {
    char host[HOST_MAX], port[8];
};

bool tfr_address_is_tcp(const char *addr)
{
    return addr && strncmp(addr, "tcp:", 4) == 0;
}

static bool port_good(const char *port)
{
    size_t len = strlen(port);

    return len >= 1 && len <= 5 && strspn(port, "0123456789") == len && atoi(port) <= 65535;
}

/* HOST:PORT, or [IPv6]:PORT. */
static bool place_parse(const char *text, struct place *place_out)
{
    bool bracket = *text == '[';
    const char *end = bracket ? strchr(text, ']') : strrchr(text, ':');
    const char *host = text + bracket;

    if (!end || end == host || (size_t)(end - host) >= HOST_MAX)
        return false;
    if (bracket ? end[1] != ':' : memchr(host, ':', (size_t)(end - host)) != NULL)
        return false;
    if (!port_good(end + 1 + bracket))
        return false;
    memset(place_out, 0, sizeof(*place_out));
    memcpy(place_out->host, host, (size_t)(end - host));
    memcpy(place_out->port, end + 1 + bracket, strlen(end + 1 + bracket));
    return true;
}

int tfr_boot_addr_good(const char *addr, const char **why_out)
{
    const char *path = addr && strncmp(addr, "unix:", 5) == 0 ? addr + 5 : "@";
    bool known = *path && strcmp(path, "@") != 0;
    struct place place;

    if (tfr_address_is_tcp(addr)) {
        *why_out = "expected tcp:HOST:PORT, an IPv6 address as tcp:[ADDRESS]:PORT";
        return place_parse(addr + 4, &place);
    }
    if (known && strlen(path) < sizeof(((struct sockaddr_un *)0)->sun_path))
        return 1;
    *why_out = known ? "longer than a socket's name may be (107 bytes)"
                     : "expected tcp:HOST:PORT, unix:PATH or unix:@NAME";
    return 0;
}

/* ---- unix ---- */

static tfr_status unix_parse(const char *addr, struct sockaddr_un *sun, socklen_t *len_out)
{
    const char *path, *why;
    size_t len;

    if (!tfr_boot_addr_good(addr, &why))
        return tfr_fail(TFR_E_INVAL, "address \"%s\": %s", addr ? addr : "", why);
    path = addr + 5;
    len = strlen(path);
    memset(sun, 0, sizeof(*sun));
    sun->sun_family = AF_UNIX;
    memcpy(sun->sun_path, path, len);
    *len_out = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    if (*path == '@')
        sun->sun_path[0] = 0;
    else
        *len_out += 1;
    return TFR_OK;
}

/* -1: none to be had, logged */
static int socket_open(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        tfr_fail(TFR_E_SYS, "socket: %s", strerror(errno));
    return fd;
}

/* Whoever makes or removes a socket file holds this lock of its folder: of two executors that start
 * at once each would take the other's file for one that a killed one left behind.  -1: without it;
 * nobody waits long for who does not let go. */
static int folder_lock(const struct sockaddr_un *sun)
{
    char folder[sizeof(sun->sun_path)];
    char *slash;
    int fd;

    if (!sun->sun_path[0])
        return -1;
    memcpy(folder, sun->sun_path, sizeof(folder));
    slash = strrchr(folder, '/');
    if (slash)
        slash[slash == folder] = 0;
    fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; fd >= 0 && i < LOCK_TRIES && flock(fd, LOCK_EX | LOCK_NB) < 0; i++)
        poll(NULL, 0, LOCK_NAP_MS);
    return fd;
}

static void folder_unlock(int fd)
{
    if (fd >= 0)
        close(fd);
}

static bool nobody_answers(const struct sockaddr_un *sun, socklen_t len)
{
    int fd = socket_open();
    bool dead =
        fd >= 0 && connect(fd, (const struct sockaddr *)sun, len) < 0 && errno == ECONNREFUSED;

    if (fd >= 0)
        close(fd);
    return dead;
}

/* Something has the address: a live listener, or a socket file that a killed one left behind. */
static tfr_status leftover_remove(const char *addr, const struct sockaddr_un *sun, socklen_t len)
{
    struct stat st;

    if (sun->sun_path[0] && (lstat(sun->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode)))
        return tfr_fail(TFR_E_ACCESS, "%s exists and is not a socket: choose another address",
                        addr);
    if (!sun->sun_path[0] || !nobody_answers(sun, len))
        return tfr_fail(TFR_E_ACCESS,
                        "%s is in use by another process: stop it or choose another address", addr);
    if (unlink(sun->sun_path) < 0 && errno != ENOENT)
        return tfr_fail(TFR_E_ACCESS, "remove the old socket %s: %s", addr, strerror(errno));
    return TFR_OK;
}

static const char *listen_advice(int cause)
{
    switch (cause) {
    case ENOENT:
        return ": make the folder first";
    case EACCES:
    case EROFS:
        return ": choose a folder that you may write to";
    case EADDRINUSE:
        return ": choose another port";
    case EADDRNOTAVAIL:
        return ": it is no address of this machine";
    default:
        return "";
    }
}

static tfr_status unix_bind(const char *addr, const struct sockaddr_un *sun, socklen_t len, int fd)
{
    tfr_status status;
    int bound = bind(fd, (const struct sockaddr *)sun, len);

    if (bound < 0 && errno == EADDRINUSE) {
        status = leftover_remove(addr, sun, len);
        if (status != TFR_OK)
            return status;
        bound = bind(fd, (const struct sockaddr *)sun, len);
    }
    if (bound < 0 || listen(fd, BACKLOG) < 0)
        return tfr_fail(TFR_E_SYS, "listen on %s: %s%s", addr, strerror(errno),
                        listen_advice(errno));
    return TFR_OK;
}

static tfr_status unix_listen(const char *addr, int *fd_out)
{
    struct sockaddr_un sun;
    socklen_t len;
    tfr_status status = unix_parse(addr, &sun, &len);
    int fd, lock;

    if (status != TFR_OK)
        return status;
    fd = socket_open();
    if (fd < 0)
        return TFR_E_SYS;
    fchmod(fd, 0600); /* before bind: gives the file its mode, whatever the umask */
    lock = folder_lock(&sun);
    status = unix_bind(addr, &sun, len, fd);
    folder_unlock(lock);
    if (status == TFR_OK)
        *fd_out = fd;
    else
        close(fd);
    return status;
}

static tfr_status unix_connect(const char *addr, uint64_t deadline_ns, int *fd_out)
{
    const struct timespec nap = {.tv_nsec = 2000000};
    struct sockaddr_un sun;
    socklen_t len;
    tfr_status status = unix_parse(addr, &sun, &len);
    int fd;

    if (status != TFR_OK)
        return status;
    fd = socket_open();
    if (fd < 0)
        return TFR_E_SYS;
    while (connect(fd, (struct sockaddr *)&sun, len) < 0) {
        int cause = errno;
        if (cause == EINTR)
            continue;
        if (cause != EAGAIN || tfr_clock_now() >= deadline_ns) { /* EAGAIN: its queue is full */
            tfr_info("connect to %s: %s", addr, strerror(cause));
            close(fd);
            if (cause == EACCES)
                return tfr_fail(TFR_E_ACCESS,
                                "%s is closed to user %u: start its tf-executor with --allow-uid "
                                "%u, or one of your own",
                                addr, (unsigned)geteuid(), (unsigned)geteuid());
            return cause == EAGAIN ? TFR_E_TIMEOUT : TFR_E_PEER;
        }
        nanosleep(&nap, NULL);
    }
    *fd_out = fd;
    return TFR_OK;
}

/* ---- tcp ---- */

uint32_t tfr_address_lost_ms(void)
{
    uint64_t ms = tfr_env_u64("TFR_LOST_MS");

    ms = ms < LOST_MIN_MS ? LOST_MIN_MS : ms > LOST_MAX_MS ? LOST_MAX_MS : ms;
    return (uint32_t)ms;
}

/* A host is lost after TFR_LOST_MS without a word.  The limit lies between two probes: with that of
 * exactly two seconds one lost probe would end a sound connection that is idle. */
void tfr_address_tune(int fd)
{
    const int limit = (int)tfr_address_lost_ms() - LOST_LESS_MS;
    const struct {
        int level, name, value;
    } rows[] = {{IPPROTO_TCP, TCP_NODELAY, 1},  {SOL_SOCKET, SO_KEEPALIVE, 1},
                {IPPROTO_TCP, TCP_KEEPIDLE, 1}, {IPPROTO_TCP, TCP_KEEPINTVL, 1},
                {IPPROTO_TCP, TCP_KEEPCNT, 2},  {IPPROTO_TCP, TCP_USER_TIMEOUT, limit}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        setsockopt(fd, rows[i].level, rows[i].name, &rows[i].value, sizeof(rows[i].value));
}

/* A question to the system's name services, which may think about it for minutes: on a thread of
 * its own, which is left alone when the time is up.  Whoever comes last frees it. */
struct lookup {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool answered, left; /* guarded by lock */
    struct place place;
    struct addrinfo hint, *list;
    int err, sys;
};

static void lookup_free(struct lookup *lookup)
{
    pthread_mutex_destroy(&lookup->lock);
    pthread_cond_destroy(&lookup->wake);
    free(lookup);
}

static void *lookup_main(void *arg)
{
    struct lookup *lookup = arg;
    bool left;

    lookup->err = getaddrinfo(lookup->place.host, lookup->place.port, &lookup->hint, &lookup->list);
    lookup->sys = errno;
    pthread_mutex_lock(&lookup->lock);
    lookup->answered = true;
    left = lookup->left;
    pthread_cond_signal(&lookup->wake);
    pthread_mutex_unlock(&lookup->lock);
    if (!left)
        return NULL;
    if (!lookup->err)
        freeaddrinfo(lookup->list);
    lookup_free(lookup);
    return NULL;
}

static struct lookup *lookup_start(const struct place *place, const struct addrinfo *hint)
{
    struct lookup *lookup = calloc(1, sizeof(*lookup));
    pthread_condattr_t clock;
    pthread_attr_t detached;
    sigset_t all, before;
    pthread_t thread;
    int err;

    if (!lookup)
        return NULL;
    lookup->place = *place;
    lookup->hint = *hint;
    pthread_mutex_init(&lookup->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&lookup->wake, &clock);
    pthread_condattr_destroy(&clock);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    sigfillset(&all); /* signals are the application's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    err = pthread_create(&thread, &detached, lookup_main, lookup);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&detached);
    if (!err)
        return lookup;
    lookup_free(lookup);
    return NULL;
}

/* As getaddrinfo does; false: no answer by then. */
static bool lookup(const struct place *place, const struct addrinfo *hint, uint64_t deadline_ns,
                   struct addrinfo **list_out, int *err_out)
{
    struct timespec until = {.tv_sec = (time_t)(deadline_ns / TFR_NS_PER_S),
                             .tv_nsec = (long)(deadline_ns % TFR_NS_PER_S)};
    struct lookup *lookup = lookup_start(place, hint);
    bool answered;

    if (!lookup) {
        *err_out = EAI_MEMORY;
        return true;
    }
    pthread_mutex_lock(&lookup->lock);
    while (!lookup->answered &&
           pthread_cond_timedwait(&lookup->wake, &lookup->lock, &until) != ETIMEDOUT)
        continue;
    answered = lookup->answered;
    lookup->left = !answered;
    pthread_mutex_unlock(&lookup->lock);
    if (!answered)
        return false;
    *list_out = lookup->list;
    *err_out = lookup->err;
    errno = lookup->sys;
    lookup_free(lookup);
    return true;
}

static tfr_status host_unknown(const char *addr, const char *host, const char *why)
{
    return tfr_fail(TFR_E_INVAL, "address \"%s\": host %s: %s: check the name, or give a number",
                    addr, host, why);
}

/* deadline_ns 0: none. */
static tfr_status resolve_name(const char *addr, const struct place *place,
                               const struct addrinfo *hint, uint64_t deadline_ns,
                               struct addrinfo **list_out)
{
    int err;

    if (!deadline_ns)
        err = getaddrinfo(place->host, place->port, hint, list_out);
    else if (!lookup(place, hint, deadline_ns, list_out, &err))
        return host_unknown(addr, place->host, "the system's name service does not answer");
    if (!err)
        return TFR_OK;
    return host_unknown(addr, place->host, err == EAI_SYSTEM ? strerror(errno) : gai_strerror(err));
}

/* Numbers are read without asking the system's name services.  deadline_ns 0: to listen. */
static tfr_status resolve(const char *addr, uint64_t deadline_ns, struct addrinfo **list_out)
{
    struct addrinfo hint = {.ai_socktype = SOCK_STREAM,
                            .ai_flags = AI_NUMERICSERV | AI_NUMERICHOST};
    struct place place;
    const char *why;
    bool any;

    if (!tfr_boot_addr_good(addr, &why))
        return tfr_fail(TFR_E_INVAL, "address \"%s\": %s", addr, why);
    place_parse(addr + 4, &place);
    any = !deadline_ns && strcmp(place.host, "*") == 0;
    if (deadline_ns && atoi(place.port) == 0)
        return tfr_fail(TFR_E_INVAL, "address \"%s\": nothing can be reached at port 0", addr);
    if (any)
        hint.ai_flags |= AI_PASSIVE;
    if (getaddrinfo(any ? NULL : place.host, place.port, &hint, list_out) == 0)
        return TFR_OK;
    hint.ai_flags &= ~AI_NUMERICHOST;
    return resolve_name(addr, &place, &hint, deadline_ns, list_out);
}

/* -1: errno says why */
static int tcp_bind(const struct addrinfo *at)
{
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1, off = 0, cause;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (at->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, TCP_BACKLOG) == 0)
        return fd;
    cause = errno;
    close(fd);
    errno = cause;
    return -1;
}

/* Both families of a wildcard come from one IPv6 socket, so that one is tried first. */
static tfr_status tcp_listen(const char *addr, int *fd_out)
{
    static const int families[] = {AF_INET6, AF_INET};
    struct addrinfo *list, *at;
    tfr_status status = resolve(addr, 0, &list);
    int fd = -1, cause = 0;

    if (status != TFR_OK)
        return status;
    for (int i = 0; i < 2 && fd < 0; i++) {
        for (at = list; at && fd < 0; at = at->ai_next) {
            if (at->ai_family != families[i])
                continue;
            fd = tcp_bind(at);
            cause = errno;
        }
    }
    freeaddrinfo(list);
    if (fd < 0)
        return tfr_fail(cause == EADDRINUSE ? TFR_E_ACCESS : TFR_E_SYS, "listen on %s: %s%s", addr,
                        strerror(cause), listen_advice(cause));
    *fd_out = fd;
    return TFR_OK;
}

/* One place; 0, or the errno of the failure. */
static int tcp_try(const struct addrinfo *at, uint64_t deadline_ns, int *fd_out)
{
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct pollfd poller = {.fd = fd, .events = POLLOUT};
    socklen_t len = sizeof(int);
    int cause = 0;

    if (fd < 0)
        return errno;
    tfr_address_tune(fd);
    if (connect(fd, at->ai_addr, at->ai_addrlen) < 0)
        cause = errno;
    while (cause == EINPROGRESS || cause == EINTR) {
        uint64_t now = tfr_clock_now();
        uint64_t left_ms = now < deadline_ns ? (deadline_ns - now) / TFR_NS_PER_MS + 1 : 0;
        int got = left_ms ? poll(&poller, 1, (int)left_ms) : 0;
        if (got == 0)
            cause = ETIMEDOUT;
        else if (got > 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &cause, &len) < 0)
            cause = errno;
    }
    if (cause)
        close(fd);
    else
        *fd_out = fd;
    return cause;
}

static tfr_status tcp_connect(const char *addr, uint64_t deadline_ns, int *fd_out)
{
    struct addrinfo *list, *at;
    tfr_status status = resolve(addr, deadline_ns, &list);
    int cause = ETIMEDOUT, left = 0;

    if (status != TFR_OK)
        return status;
    for (at = list; at; at = at->ai_next)
        left++;
    for (at = list; at && cause; at = at->ai_next, left--) {
        uint64_t now = tfr_clock_now();
        uint64_t share = now < deadline_ns ? (deadline_ns - now) / (uint64_t)left : 0;
        cause = tcp_try(at, now + share, fd_out);
        if (cause)
            tfr_info("connect to %s: %s", addr, strerror(cause));
    }
    freeaddrinfo(list);
    return !cause ? TFR_OK : cause == ETIMEDOUT ? TFR_E_TIMEOUT : TFR_E_PEER;
}

/* ---- either ---- */

tfr_status tfr_boot_listen(const char *addr, int *fd_out)
{
    return tfr_address_is_tcp(addr) ? tcp_listen(addr, fd_out) : unix_listen(addr, fd_out);
}

void tfr_boot_admit_others(const char *addr)
{
    if (addr[5] != '@' && chmod(addr + 5, 0666) < 0)
        tfr_warn("%s stays closed to other users: %s", addr, strerror(errno));
}

void tfr_boot_listen_name(const char *addr, int fd, char *name_out, size_t room)
{
    struct sockaddr_storage at = {0};
    socklen_t len = sizeof(at);
    unsigned port = 0;

    if (!tfr_address_is_tcp(addr) || getsockname(fd, (struct sockaddr *)&at, &len) < 0) {
        snprintf(name_out, room, "%s", addr);
        return;
    }
    port = ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
                                          : ((struct sockaddr_in *)&at)->sin_port);
    snprintf(name_out, room, "%.*s:%u", (int)(strrchr(addr, ':') - addr), addr, port);
}

void tfr_boot_unlisten(const char *addr, int fd)
{
    struct sockaddr_un sun;
    socklen_t len;
    int lock;

    shutdown(fd, SHUT_RDWR); /* for a child, too, that has not become another program yet */
    close(fd);
    if (tfr_address_is_tcp(addr) || unix_parse(addr, &sun, &len) != TFR_OK || !sun.sun_path[0])
        return;
    lock = folder_lock(&sun);
    if (nobody_answers(&sun, len))
        unlink(sun.sun_path);
    folder_unlock(lock);
}

tfr_status tfr_boot_accept(int listen_fd, struct tfr_boot *boot_out)
{
    int fd;

    do {
        fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0 && errno == EAGAIN)
        return TFR_AGAIN;
    if (fd < 0)
        return tfr_fail(TFR_E_SYS, "accept: %s", strerror(errno));
    *boot_out = (struct tfr_boot){.fd = fd};
    return TFR_OK;
}

tfr_status tfr_address_connect(const char *addr, uint64_t deadline_ns, int *fd_out)
{
    return tfr_address_is_tcp(addr) ? tcp_connect(addr, deadline_ns, fd_out)
                                    : unix_connect(addr, deadline_ns, fd_out);
}
