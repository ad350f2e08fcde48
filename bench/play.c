/* The parent's side of a player: started as a program of its own (under tf-run for our way), given
 * orders over a socket, never waited for without a limit. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "bench/bench.h"

enum { START_MS = 30000, ORDER_MS = 60000, END_MS = 3000 };

/* In the child: never returns.  What the player or the library prints goes to stderr. */
static void player_exec(enum player_way way, const struct bench_cfg *cfg, int fd)
{
    char number[16];
    const char *argv[16];
    int n = 0;
    snprintf(number, sizeof number, "%d", dup(fd)); /* without close-on-exec */
    dup2(STDERR_FILENO, STDOUT_FILENO);
    unsetenv("TFR_COUNTERS");
    if (way == WAY_TFR) {
        argv[n++] = cfg->run;
        if (cfg->executor) {
            argv[n++] = "--executor";
            argv[n++] = cfg->executor;
        }
        argv[n++] = "--";
    }
    argv[n++] = cfg->self;
    argv[n++] = way == WAY_TFR ? "--player-tfr" : "--player-native";
    argv[n++] = number;
    if (cfg->quick)
        argv[n++] = "--quick";
    argv[n] = NULL;
    execv(argv[0], (char **)(uintptr_t)argv);
    tfr_say("cannot run %s: %s", argv[0], strerror(errno));
    _exit(127);
}

static bool read_all(int fd, void *to, size_t len, uint64_t until)
{
    char *at = to;
    while (len) {
        uint64_t now = tfr_clock_now();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int got = now < until ? poll(&p, 1, (int)((until - now) / TFR_NS_PER_MS) + 1) : 0;
        if (got < 0 && errno == EINTR)
            continue;
        ssize_t n = got > 0 ? recv(fd, at, len, 0) : 0;
        if (n <= 0)
            return false;
        at += n;
        len -= (size_t)n;
    }
    return true;
}

static bool answer_read(struct play *p, struct answer *answer, double *samples, uint32_t limit_ms)
{
    static double unwanted[SAMPLES_MAX];
    uint64_t until = tfr_clock_now() + limit_ms * TFR_NS_PER_MS;
    memset(answer, 0, sizeof *answer);
    if (!read_all(p->fd, answer, sizeof *answer, until) || answer->sample_n > SAMPLES_MAX ||
        !read_all(p->fd, samples ? samples : unwanted, answer->sample_n * sizeof *samples, until)) {
        snprintf(answer->text, sizeof answer->text, "the %s player %s",
                 p->way == WAY_TFR ? "tfr" : "native",
                 tfr_clock_now() >= until ? "does not answer" : "ended");
        answer->sample_n = 0;
        play_stop(p);
        return false;
    }
    answer->text[sizeof answer->text - 1] = 0;
    return answer->result == CUDA_SUCCESS;
}

bool play_start(struct play *p, enum player_way way, const struct bench_cfg *cfg)
{
    struct answer answer;
    int pair[2];
    *p = (struct play){.way = way, .fd = -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
        return false;
    fflush(NULL);
    p->pid = fork();
    if (p->pid == 0)
        player_exec(way, cfg, pair[1]);
    close(pair[1]);
    p->fd = pair[0];
    bool up = p->pid > 0 && answer_read(p, &answer, NULL, START_MS);
    snprintf(p->device, sizeof p->device, "%s", p->pid > 0 ? answer.text : "no process");
    return up;
}

/* A closed socket is its sign to end; then it is killed. */
void play_stop(struct play *p)
{
    if (p->fd < 0)
        return;
    close(p->fd);
    p->fd = -1;
    uint64_t until = tfr_clock_now() + END_MS * TFR_NS_PER_MS;
    while (p->pid > 0 && waitpid(p->pid, NULL, WNOHANG) == 0) {
        if (tfr_clock_now() > until) {
            kill(p->pid, SIGKILL);
            waitpid(p->pid, NULL, 0);
            break;
        }
        usleep(2000);
    }
    p->pid = 0;
}

bool play_order(struct play *p, const struct order *order, struct answer *answer, double *samples)
{
    const char *way = p->way == WAY_TFR ? "tfr" : "native";
    memset(answer, 0, sizeof *answer);
    if (p->fd < 0) {
        snprintf(answer->text, sizeof answer->text, "there is no %s player", way);
        return false;
    }
    if (send(p->fd, order, sizeof *order, MSG_NOSIGNAL) != (ssize_t)sizeof *order) {
        snprintf(answer->text, sizeof answer->text, "the %s player ended", way);
        play_stop(p);
        return false;
    }
    return answer_read(p, answer, samples, ORDER_MS);
}
