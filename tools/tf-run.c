/* tf-run [--executor ADDR] [-v] [--] PROGRAM [ARG...]: runs an unmodified CUDA program over TFR.
 *
 * The program replaces this process, so pid, exit status, signals, stdin and stdout are the
 * program's own.  Without an address (nor TFR_EXECUTORS) a private executor is started first:
 * through a double fork, because the program must not find a child that it did not make, in a
 * process group of its own, and without what could make it load our libcuda.so.1 in place of a real
 * one. It watches our pid and ends with it.  Exit status of our own: 2 usage (an address that is
 * none, too), 125 no private executor, 126 and 127 as in a shell. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "tools/ask.h"
#include "transport/ways.h"

enum { EXIT_USAGE = 2, EXIT_NO_EXECUTOR = 125, EXIT_NO_EXEC = 126, EXIT_NO_PROGRAM = 127 };
enum { READY_LIMIT_MS = 60000, READY_FD = 3 };

struct places {
    char bin[PATH_MAX];      /* where tf-run and tf-executor are */
    char lib[PATH_MAX + 16]; /* where our libcuda.so.1 is */
};

static const char usage[] =
    "usage: tf-run [--executor ADDR] [-v] [--] PROGRAM [ARG...]\n"
    "Runs a CUDA program on the GPU of an executor.\n"
    "  --executor ADDR  tcp:HOST:PORT or unix:PATH of a running tf-executor; default: "
    "$TFR_EXECUTORS, else a\n"
    "                   private executor is started for the life of the program\n"
    "  --transport NAME how bytes move (TFR_TRANSPORT); default: the best that both sides have\n"
    "  -v, --verbose    say more (TFR_LOG=info): which transport, and why\n"
    "  -h, --help       show this\n";

static bool find_places(struct places *places)
{
    static const char *const under[] = {"lib", "lib/tfr"};
    ssize_t len = readlink("/proc/self/exe", places->bin, sizeof(places->bin) - 1);
    if (len <= 0) {
        tfr_say("cannot read /proc/self/exe: %s", strerror(errno));
        return false;
    }
    places->bin[len] = '\0';
    *strrchr(places->bin, '/') = '\0';
    size_t up = (size_t)(strrchr(places->bin, '/') - places->bin);
    for (size_t i = 0; i < sizeof(under) / sizeof(under[0]); i++) {
        char stub[sizeof(places->lib) + 16];
        snprintf(places->lib, sizeof(places->lib), "%.*s/%s", (int)up, places->bin, under[i]);
        snprintf(stub, sizeof(stub), "%s/libcuda.so.1", places->lib);
        if (access(stub, R_OK) == 0)
            return true;
    }
    tfr_say("no libcuda.so.1 of ours beside %s: build or install TFR completely", places->bin);
    return false;
}

/* Our folder goes first, so that the program finds our libcuda.so.1 and nobody else's. */
static bool prepend_library_path(const char *lib)
{
    const char *old = getenv("LD_LIBRARY_PATH");
    char *both = NULL;
    if (asprintf(&both, "%s%s%s", lib, old && *old ? ":" : "", old ? old : "") < 0)
        return false;
    int failed = setenv("LD_LIBRARY_PATH", both, 1);
    free(both);
    return failed == 0;
}

/* Drops our own folder, by whatever name or link, from the executor's LD_LIBRARY_PATH. */
static void clean_library_path(const char *lib)
{
    const char *old = getenv("LD_LIBRARY_PATH");
    struct stat ours, entry;
    if (!old || stat(lib, &ours) != 0)
        return;
    char *list = strdup(old), *kept = strdup(old), *next = list, *end = kept;
    while (list && kept && next) {
        const char *dir = strsep(&next, ":");
        bool same = stat(*dir ? dir : ".", &entry) == 0 && entry.st_dev == ours.st_dev &&
                    entry.st_ino == ours.st_ino;
        if (!same && *dir)
            end += sprintf(end, "%s%s", end > kept ? ":" : "", dir); /* never longer than before */
    }
    if (kept)
        *end = '\0';
    if (kept && *kept)
        setenv("LD_LIBRARY_PATH", kept, 1);
    else
        unsetenv("LD_LIBRARY_PATH");
    free(list);
    free(kept);
}

/* stdin is nobody's, stdout goes where messages go, the ready pipe is descriptor 3, the rest is
 * shut. */
static bool set_descriptors(int ready)
{
    int none = open("/dev/null", O_RDWR);
    ready = fcntl(ready, F_DUPFD_CLOEXEC, READY_FD + 1); /* out of the way: it may be 0, 1 or 2 */
    if (none < 0 || ready < 0 || dup2(none, STDIN_FILENO) < 0)
        return false;
    if (fcntl(STDERR_FILENO, F_GETFD) < 0 && dup2(none, STDERR_FILENO) < 0)
        return false;
    if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0 || dup2(ready, READY_FD) < 0)
        return false;
    close_range(READY_FD + 1, ~0u, 0);
    return true;
}

/* In the executor's process: never returns. */
static void exec_executor(const struct places *places, const char *addr, const char *owner,
                          int ready)
{
    char path[PATH_MAX + 16], fd[8];
    snprintf(path, sizeof(path), "%s/tf-executor", places->bin);
    snprintf(fd, sizeof(fd), "%d", READY_FD);
    unsetenv("LD_PRELOAD");
    unsetenv("TFR_EXECUTORS");
    unsetenv("CUDA_VISIBLE_DEVICES"); /* the program's client reads it */
    unsetenv("TFR_COUNTERS");         /* the program's: two writers of one file */
    setenv(TFR_ENV_CHECKED, "1", 1);  /* the program warns */
    clean_library_path(places->lib);
    if (set_descriptors(ready))
        execl(path, path, "--listen", addr, "--gpu", "auto", "--private", "--ready-fd", fd,
              "--owner-pid", owner, (char *)NULL);
    tfr_say("cannot start %s: %s", path, strerror(errno));
    _exit(EXIT_NO_EXECUTOR);
}

/* The answer is the executor's process group, or -1. */
static pid_t spawn_executor(const struct places *places, const char *addr, int ready)
{
    char owner[16];
    snprintf(owner, sizeof(owner), "%d", (int)getpid());
    pid_t group = fork();
    if (group < 0) {
        tfr_say("cannot fork: %s", strerror(errno));
        return -1;
    }
    if (group == 0) {
        /* Not a session: its own scheduler group would make our yields and the program's useless to
         * each other. */
        setpgid(0, 0);
        pid_t pid = fork();
        if (pid == 0)
            exec_executor(places, addr, owner, ready);
        _exit(pid < 0 ? 1 : 0);
    }
    while (waitpid(group, NULL, 0) < 0 && errno == EINTR)
        continue;
    return group;
}

/* Reads the one line that the executor sends when it listens. */
static bool read_ready(int fd, char *line, size_t room)
{
    uint64_t until = tfr_clock_now() + READY_LIMIT_MS * TFR_NS_PER_MS;
    size_t len = 0;
    for (;;) {
        uint64_t now = tfr_clock_now();
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        int got = now < until ? poll(&poll_fd, 1, (int)((until - now) / TFR_NS_PER_MS) + 1) : 0;
        if (got < 0 && errno == EINTR)
            continue;
        ssize_t n = got > 0 ? read(fd, line + len, room - 1 - len) : 0;
        if (n <= 0) {
            tfr_say(got > 0 ? "the private executor ended before it was ready"
                            : "the private executor was not ready within %d s",
                    READY_LIMIT_MS / 1000);
            return false;
        }
        len += (size_t)n;
        line[len] = '\0';
        char *end = strchr(line, '\n');
        if (end) {
            *end = '\0';
            return true;
        }
    }
}

static bool start_private(const struct places *places)
{
    char addr[64], line[512];
    uint64_t salt = 0;
    int ready[2];
    if (getrandom(&salt, sizeof(salt), 0) != sizeof(salt) || pipe2(ready, O_CLOEXEC) != 0) {
        tfr_say("cannot prepare a private executor: %s", strerror(errno));
        return false;
    }
    snprintf(addr, sizeof(addr), "unix:@tfr-%d-%016" PRIx64, (int)getpid(), salt);
    pid_t group = spawn_executor(places, addr, ready[1]);
    close(ready[1]);
    bool up = group > 0 && read_ready(ready[0], line, sizeof(line));
    close(ready[0]);
    if (!up) {
        if (group > 0)
            kill(-group, SIGKILL);
        tfr_say("start one by hand to see more: TFR_LOG=debug %s/tf-executor --listen unix:PATH",
                places->bin);
        return false;
    }
    const char *gpu = strstr(line, "gpu=");
    tfr_say("private executor on %s", gpu ? gpu + 4 : "an unnamed device");
    return setenv("TFR_EXECUTORS", addr, 1) == 0;
}

static int parse(int argc, char **argv)
{
    static const struct option options[] = {{"executor", required_argument, NULL, 'e'},
                                            {"transport", required_argument, NULL, 't'},
                                            {"verbose", no_argument, NULL, 'v'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    int got;
    while ((got = getopt_long(argc, argv, "+vh", options, NULL)) != -1) {
        if (got == 'e' && !*optarg) {
            tfr_say("--executor names none: leave it out for a private executor");
            return EXIT_USAGE;
        } else if (got == 'e') {
            setenv("TFR_EXECUTORS", optarg, 1);
        } else if (got == 't') {
            setenv("TFR_TRANSPORT", optarg, 1);
        } else if (got == 'v') {
            setenv("TFR_LOG", "info", 0);
        } else {
            fputs(usage, got == 'h' ? stdout : stderr);
            return got == 'h' ? 0 : EXIT_USAGE;
        }
    }
    if (optind < argc)
        return -1;
    fputs(usage, stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    struct places places;
    int status = parse(argc, argv);
    if (status >= 0)
        return status;
    if (!find_places(&places))
        return EXIT_NO_EXECUTOR;
    const char *transport = getenv("TFR_TRANSPORT");
    if (transport && !tfr_ways_known(transport)) {
        tfr_say("transport %s: %s", transport, tfr_transport_why(transport));
        return EXIT_USAGE;
    }
    const char *given = getenv("TFR_EXECUTORS");
    if (given && !tfr_ask_addresses_good(given))
        return EXIT_USAGE;
    if ((!given || !*given) && !start_private(&places))
        return EXIT_NO_EXECUTOR;
    if (!prepend_library_path(places.lib)) {
        tfr_say("cannot set LD_LIBRARY_PATH: %s", strerror(errno));
        return EXIT_NO_EXECUTOR;
    }
    execvp(argv[optind], &argv[optind]);
    status = errno == ENOENT ? EXIT_NO_PROGRAM : EXIT_NO_EXEC;
    tfr_say("cannot run %s: %s", argv[optind], strerror(errno));
    return status;
}
