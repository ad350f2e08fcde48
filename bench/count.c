/* What one operation costs in round trips, records, marks and system calls: a run of its own for
 * each case, with n operations and with none; the difference is the operations'.  The counters come
 * through TFR_COUNTERS into a memfd; system calls are counted by tracing the calling thread between
 * two marks.  Timing is never taken from these runs. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "bench/bench.h"

enum { LIMIT_MS = 30000, STOP_SYSCALL = SIGTRAP | 0x80 };

struct run {
    uint32_t ops;
    int memfd;
    bool traced;              /* the kernel let us */
    uint64_t syscalls, wakes; /* between the marks */
    uint64_t counter[32];
};

/* In the child: never returns. */
static void run_exec(const struct bench_cfg *cfg, const char *name, const struct run *run)
{
    char ops[16], path[32];
    const char *argv[16];
    int n = 0;
    snprintf(ops, sizeof ops, "%u", run->ops);
    snprintf(path, sizeof path, "/proc/self/fd/%d", dup(run->memfd));
    dup2(STDERR_FILENO, STDOUT_FILENO);
    setenv("TFR_COUNTERS", path, 1);
    argv[n++] = cfg->run;
    if (cfg->executor) {
        argv[n++] = "--executor";
        argv[n++] = cfg->executor;
    }
    argv[n++] = "--";
    argv[n++] = cfg->self;
    argv[n++] = "--player-count";
    argv[n++] = ops;
    argv[n++] = "--case";
    argv[n++] = name;
    if (cfg->quick)
        argv[n++] = "--quick";
    argv[n] = NULL;
    /* Every run would say which executor it got. */
    int none = open("/dev/null", O_WRONLY);
    if (none >= 0 && !tfr_log_on(TFR_LOG_INFO, "bench")) {
        dup2(none, STDERR_FILENO);
        dup2(none, STDOUT_FILENO);
    }
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0)
        raise(SIGSTOP);
    execv(argv[0], (char **)(uintptr_t)argv);
    _exit(127);
}

/* Is the stop an entry into a system call?  Marks switch the counting. */
static void syscall_stop(struct run *run, pid_t pid, bool *counting)
{
    struct __ptrace_syscall_info info = {0};
    void *size = (void *)sizeof info; /* the address argument of this request is a size */
    if (ptrace(PTRACE_GET_SYSCALL_INFO, pid, size, &info) <= 0 ||
        info.op != PTRACE_SYSCALL_INFO_ENTRY)
        return;
    if (info.entry.nr == SYS_prctl && info.entry.args[0] == COUNT_MARK_BEGIN) {
        *counting = true;
        run->syscalls = run->wakes = 0;
    } else if (info.entry.nr == SYS_prctl && info.entry.args[0] == COUNT_MARK_END) {
        *counting = false;
        run->traced = true;
    } else if (*counting) {
        run->syscalls++;
        run->wakes += info.entry.nr == SYS_sendto; /* a bell for a peer that sleeps */
    }
}

/* Follows the process to its end: its exit status, or -1.  Without ptrace it is only waited for. */
static int follow(struct run *run, pid_t pid)
{
    uint64_t until = tfr_clock_now() + LIMIT_MS * TFR_NS_PER_MS;
    bool counting = false, first = true;
    for (;;) {
        int status;
        pid_t got = waitpid(pid, &status, WNOHANG);
        if (got < 0 && errno != EINTR)
            return -1;
        if (got <= 0) {
            struct timespec t = {.tv_nsec = 20000};
            if (tfr_clock_now() > until) {
                kill(pid, SIGKILL);
                waitpid(pid, &status, 0);
                return -1;
            }
            nanosleep(&t, NULL);
            continue;
        }
        if (!WIFSTOPPED(status))
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        int signal = WSTOPSIG(status), pass = 0;
        if (first) {
            void *options = (void *)(uintptr_t)(PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
            ptrace(PTRACE_SETOPTIONS, pid, NULL, options);
            first = false;
        } else if (signal == STOP_SYSCALL) {
            syscall_stop(run, pid, &counting);
        } else if (signal != SIGTRAP && signal != SIGSTOP) {
            pass = signal;
        }
        ptrace(PTRACE_SYSCALL, pid, NULL, (void *)(uintptr_t)pass);
    }
}

static bool counters_read(struct run *run)
{
    static const char *const names[] = {
#define COUNTER_NAME(name, text) #name,
        TFR_COUNTERS(COUNTER_NAME)
#undef COUNTER_NAME
    };
    char text[4096], *next = text;
    ssize_t len = pread(run->memfd, text, sizeof text - 1, 0);
    size_t found = 0;
    if (len <= 0)
        return false;
    text[len] = 0;
    for (char *line; (line = strsep(&next, "\n")) != NULL;) {
        char *value = strchr(line, ' ');
        for (size_t i = 0; value && i < sizeof names / sizeof names[0]; i++) {
            if ((size_t)(value - line) == strlen(names[i]) &&
                memcmp(line, names[i], (size_t)(value - line)) == 0) {
                run->counter[i] = strtoull(value + 1, NULL, 10);
                found++;
            }
        }
    }
    return found == sizeof names / sizeof names[0];
}

static bool run_once(const struct bench_cfg *cfg, const char *name, uint32_t ops, struct run *run)
{
    *run = (struct run){.ops = ops, .memfd = memfd_create("tf-bench-counters", MFD_CLOEXEC)};
    if (run->memfd < 0)
        return false;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        run_exec(cfg, name, run);
    bool done = pid > 0 && follow(run, pid) == 0 && counters_read(run);
    close(run->memfd);
    return done;
}

void count_case(const struct bench_cfg *cfg, const struct bench_list *list, size_t at,
                struct counts *out)
{
    const struct bench_case *c = &list->cases[at];
    struct run none, some;
    memset(out, 0, sizeof *out);
    if (!run_once(cfg, c->name, 0, &none) || !run_once(cfg, c->name, c->count_ops, &some)) {
        snprintf(out->why, sizeof out->why, "the count run failed");
        return;
    }
    out->known = true;
    out->syscalls_known = none.traced && some.traced;
    double calls = (double)c->count_ops * bench_calls(c);
    out->syscalls = (double)some.syscalls / calls;
    out->wakes = (double)some.wakes / calls;
    size_t i = 0;
#define COUNTER_TAKE(name, text)                                                                   \
    out->name = ((double)some.counter[i] - (double)none.counter[i]) / calls;                       \
    i++;
    TFR_COUNTERS(COUNTER_TAKE)
#undef COUNTER_TAKE
}
