/* tf-bench: what a call costs through TFR, beside the same call on the driver in this process tree
 * and beside what the machine could do at best, all in one run, in turn.  It asserts no latency;
 * exit status 1: a case did not run, or its data was wrong. */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "bench/bench.h"

enum { ROUNDS = 9, ROUNDS_QUICK = 3, LIMIT_MS = 300, LIMIT_MS_QUICK = 50 };

static const char usage[] =
    "usage: tf-bench [--quick] [--case NAME] [--json FILE] [--executor ADDR] [--floor] [--list]\n"
    "Measures driver calls through TFR, beside the same calls on the driver itself and beside the\n"
    "raw floors of this machine.\n"
    "  --list           names of the cases\n"
    "  --case NAME      the cases whose name begins so\n"
    "  --quick          few rounds and small sizes: shows that it works, not how fast it is\n"
    "  --rounds N       rounds per case (default 9)\n"
    "  --json FILE      results for programs (-: standard output, the table goes to stderr)\n"
    "  --executor ADDR  a running executor; default: a private one\n"
    "  --no-count       without the runs that count round trips and system calls\n"
    "  --floor          the raw floors only\n"
    "With TFR_TRANSPORT=tcp the floors are raw TCP sockets and, for --case call_ctx_limit, "
    "ucx_perftest\n"
    "over TCP where it is installed.\n";

enum {
    OPT_LIST = 256,
    OPT_CASE,
    OPT_QUICK,
    OPT_ROUNDS,
    OPT_JSON,
    OPT_EXECUTOR,
    OPT_NO_COUNT,
    OPT_FLOOR,
    OPT_PLAYER_TFR,
    OPT_PLAYER_NATIVE,
    OPT_PLAYER_COUNT
};

static const struct option options[] = {
    {"list", no_argument, NULL, OPT_LIST},
    {"case", required_argument, NULL, OPT_CASE},
    {"quick", no_argument, NULL, OPT_QUICK},
    {"rounds", required_argument, NULL, OPT_ROUNDS},
    {"json", required_argument, NULL, OPT_JSON},
    {"executor", required_argument, NULL, OPT_EXECUTOR},
    {"no-count", no_argument, NULL, OPT_NO_COUNT},
    {"floor", no_argument, NULL, OPT_FLOOR},
    {"player-tfr", required_argument, NULL, OPT_PLAYER_TFR},
    {"player-native", required_argument, NULL, OPT_PLAYER_NATIVE},
    {"player-count", required_argument, NULL, OPT_PLAYER_COUNT},
    {"help", no_argument, NULL, 'h'},
    {0}};

/* What a player was started for: option 0 is the parent. */
struct job {
    int option;
    uint32_t value;
};

struct bench_run {
    struct bench_cfg cfg;
    struct bench_list list;
    struct env_info env;
    struct play native, tfr;
    struct result results[CASES_MAX];
    size_t result_n;
    FILE *out;
};

bool bench_over_tcp(void)
{
    const char *name = tfr_env_str("TFR_TRANSPORT");
    return name && strcmp(name, "tcp") == 0;
}

static void list_fill(struct bench_list *list, bool quick)
{
    list->quick = quick;
    bench_add_launch(list);
    bench_add_stream(list);
    bench_add_memory(list);
    bench_add_wait(list);
    bench_add_copy(list);
    bench_add_kernel(list);
    for (size_t at = 0; bench_over_tcp() && at < list->n; at++)
        list->cases[at].floor = floor_over_tcp(list->cases[at].floor);
}

static bool chosen(const struct bench_cfg *cfg, const struct bench_case *c)
{
    return !cfg->only || strncmp(c->name, cfg->only, strlen(cfg->only)) == 0;
}

/* ---- one case ---- */

static bool order(struct play *p, enum order_kind kind, size_t at, const struct bench_cfg *cfg,
                  uint32_t seed, struct series *series, struct result *r)
{
    static double samples[SAMPLES_MAX];
    struct answer answer;
    struct order o = {(uint32_t)kind, (uint32_t)at, seed, cfg->limit_ms};
    if (!play_order(p, &o, &answer, samples)) {
        if (!r->failed[0])
            snprintf(r->failed, sizeof r->failed, "%s: %s", p->way == WAY_TFR ? "tfr" : "native",
                     answer.text);
        return false;
    }
    if (series)
        series_add(series, samples, answer.sample_n);
    return true;
}

static void floor_add(const struct bench_case *c, struct series *series)
{
    static double samples[SAMPLES_MAX];
    series_add(series, samples, floor_round(c->floor, c->floor_size, samples, SAMPLES_MAX));
}

/* Set-up, check, rounds, check, tear-down; what fails stops the case, but for its tear-down. */
static void case_run(struct bench_run *run, size_t at, struct result *r)
{
    struct series native = {0}, tfr = {0}, floor = {0};
    struct play *both[] = {&run->native, &run->tfr};
    const struct bench_cfg *cfg = &run->cfg;
    bool well = true;
    for (int i = 0; i < 2; i++)
        well &= order(both[i], ORDER_OPEN, at, cfg, 0, NULL, r);
    for (int i = 0; i < 2 && well; i++)
        well = order(both[i], ORDER_CHECK, at, cfg, 3, NULL, r);
    for (uint32_t round = 0; round < cfg->rounds && well; round++) {
        well = order(&run->native, ORDER_ROUND, at, cfg, round, &native, r) &&
               order(&run->tfr, ORDER_ROUND, at, cfg, round, &tfr, r);
        floor_add(r->c, &floor);
    }
    for (int i = 0; i < 2 && well; i++)
        well = order(both[i], ORDER_CHECK, at, cfg, 5, NULL, r);
    for (int i = 0; i < 2; i++)
        order(both[i], ORDER_CLOSE, at, cfg, 0, NULL, r);
    r->to_native = series_ratio(&tfr, &native);
    r->to_floor = series_ratio(&tfr, &floor);
    r->native = series_sum(&native);
    r->tfr = series_sum(&tfr);
    r->floor = series_sum(&floor);
    series_fini(&native);
    series_fini(&tfr);
    series_fini(&floor);
    if (well && cfg->count)
        count_case(cfg, &run->list, at, &r->counts);
}

/* ---- the run ---- */

static bool players_start(struct bench_run *run)
{
    bool up = play_start(&run->native, WAY_NATIVE, &run->cfg);
    if (!up)
        tfr_say("no native device: %s", run->native.device);
    if (up && !(up = play_start(&run->tfr, WAY_TFR, &run->cfg)))
        tfr_say("no device through tfr: %s", run->tfr.device);
    snprintf(run->env.gpu, sizeof run->env.gpu, "%s", run->native.device);
    snprintf(run->env.executor, sizeof run->env.executor, "%s", run->tfr.device);
    run->env.real = up && !strstr(run->tfr.device, "software");
    return up;
}

/* A player that died is missed by one case only. */
static void players_again(struct bench_run *run)
{
    if (run->native.fd < 0)
        play_start(&run->native, WAY_NATIVE, &run->cfg);
    if (run->tfr.fd < 0)
        play_start(&run->tfr, WAY_TFR, &run->cfg);
}

static bool any_chosen(const struct bench_run *run)
{
    for (size_t at = 0; at < run->list.n; at++)
        if (chosen(&run->cfg, &run->list.cases[at]))
            return true;
    tfr_say("no case begins with %s: see --list", run->cfg.only);
    return false;
}

static int run_cases(struct bench_run *run)
{
    int status = 0;
    if (!any_chosen(run))
        return 2;
    env_take(&run->env);
    run->native.fd = run->tfr.fd = -1;
    if (!players_start(run))
        return 1;
    report_head(run->out, &run->cfg, &run->env);
    for (size_t at = 0; at < run->list.n; at++) {
        if (!chosen(&run->cfg, &run->list.cases[at]))
            continue;
        struct result *r = &run->results[run->result_n++];
        r->c = &run->list.cases[at];
        players_again(run);
        case_run(run, at, r);
        report_row(run->out, r);
        status |= r->failed[0] != 0;
    }
    env_done(&run->env);
    report_notes(run->out, &run->env);
    if (run->cfg.json && !report_json(&run->cfg, &run->env, run->results, run->result_n))
        status = 1;
    return status;
}

static int run_floors(struct bench_run *run)
{
    static double samples[SAMPLES_MAX];
    static const struct {
        enum floor_kind kind;
        uint64_t size;
    } floors[] = {{FLOOR_PINGPONG, 0},        {FLOOR_STORE, 80},        {FLOOR_STORE, 4176},
                  {FLOOR_MEMCPY, 64 << 10},   {FLOOR_MEMCPY, 1 << 20},  {FLOOR_MEMCPY, 16 << 20},
                  {FLOOR_MEMCPY, 64 << 20},   {FLOOR_TCP_PING, 0},      {FLOOR_UCX, 0},
                  {FLOOR_TCP_SEND, 64 << 20}, {FLOOR_TCP_IN, 64 << 20}, {FLOOR_TCP_OUT, 64 << 20}};
    fprintf(run->out, "%-9s %9s %12s %12s %12s\n", "floor", "bytes", "p50_ns", "p99_ns", "min_ns");
    for (size_t i = 0; i < sizeof floors / sizeof floors[0]; i++) {
        struct series s = {0};
        for (uint32_t round = 0; round < run->cfg.rounds; round++)
            series_add(&s, samples,
                       floor_round(floors[i].kind, floors[i].size, samples, SAMPLES_MAX));
        struct summary sum = series_sum(&s);
        fprintf(run->out, "%-9s %9llu %12.1f %12.1f %12.1f\n", floor_name(floors[i].kind),
                (unsigned long long)floors[i].size, sum.p50, sum.p99, sum.min);
        series_fini(&s);
    }
    return 0;
}

/* tf-run lies beside us. */
static bool find_self(struct bench_cfg *cfg)
{
    ssize_t n = readlink("/proc/self/exe", cfg->self, sizeof cfg->self - 16);
    if (n <= 0)
        return false;
    cfg->self[n] = 0;
    memcpy(cfg->run, cfg->self, sizeof cfg->run);
    memcpy(strrchr(cfg->run, '/') + 1, "tf-run", sizeof "tf-run");
    return true;
}

static bool rounds_take(const char *text, uint32_t *rounds_out)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (!*text || *end || n < 1 || n > ROUNDS_MAX) {
        tfr_say("--rounds %s: expected is a number from 1 to %d", text, ROUNDS_MAX);
        return false;
    }
    *rounds_out = (uint32_t)n;
    return true;
}

/* Before the minutes that the cases take. */
static bool json_writable(const char *path)
{
    FILE *file;
    if (!path || strcmp(path, "-") == 0)
        return true;
    file = fopen(path, "a");
    if (!file) {
        tfr_say("cannot write %s: %s", path, strerror(errno));
        return false;
    }
    fclose(file);
    return true;
}

/* -1: go on, else the exit status. */
static int parse(int argc, char **argv, struct bench_cfg *cfg, struct job *job)
{
    int option;
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case OPT_LIST:
            cfg->list = true;
            break;
        case OPT_CASE:
            cfg->only = optarg;
            break;
        case OPT_QUICK:
            cfg->quick = true;
            break;
        case OPT_ROUNDS:
            if (!rounds_take(optarg, &cfg->rounds))
                return 2;
            break;
        case OPT_JSON:
            cfg->json = optarg;
            break;
        case OPT_EXECUTOR:
            cfg->executor = optarg;
            break;
        case OPT_NO_COUNT:
            cfg->count = false;
            break;
        case OPT_FLOOR:
            cfg->floor_only = true;
            break;
        case OPT_PLAYER_TFR:
        case OPT_PLAYER_NATIVE:
        case OPT_PLAYER_COUNT:
            *job = (struct job){option, (uint32_t)strtoul(optarg, NULL, 10)};
            break;
        default:
            fputs(usage, option == 'h' ? stdout : stderr);
            return option == 'h' ? 0 : 2;
        }
    }
    if (optind == argc)
        return -1;
    fputs(usage, stderr);
    return 2;
}

static int play(const struct bench_run *run, const struct job *job)
{
    timer_init();
    if (job->option != OPT_PLAYER_COUNT)
        return player_main(&run->list, job->option == OPT_PLAYER_TFR ? WAY_TFR : WAY_NATIVE,
                           (int)job->value);
    for (size_t at = 0; run->cfg.only && at < run->list.n; at++)
        if (strcmp(run->list.cases[at].name, run->cfg.only) == 0)
            return player_count_main(&run->list, at, job->value);
    return 2;
}

int main(int argc, char **argv)
{
    static struct bench_run run;
    struct bench_cfg *cfg = &run.cfg;
    struct job job = {0};
    cfg->count = true;
    int status = parse(argc, argv, cfg, &job);
    if (status >= 0)
        return status;
    if (cfg->rounds == 0)
        cfg->rounds = cfg->quick ? ROUNDS_QUICK : ROUNDS;
    cfg->limit_ms = cfg->quick ? LIMIT_MS_QUICK : LIMIT_MS;
    list_fill(&run.list, cfg->quick);
    if (job.option)
        return play(&run, &job);
    run.out = cfg->json && strcmp(cfg->json, "-") == 0 ? stderr : stdout;
    for (size_t at = 0; cfg->list && at < run.list.n; at++)
        printf("%-26s %s\n", run.list.cases[at].name, run.list.cases[at].what);
    if (cfg->list)
        return 0;
    if (!json_writable(cfg->json) || !find_self(cfg))
        return 1;
    if (!floor_init()) { /* before anything that the answering process should not hold */
        tfr_say("no second process for the ping-pong: %m");
        return 1;
    }
    timer_init();
    status = cfg->floor_only ? run_floors(&run) : run_cases(&run);
    play_stop(&run.tfr);
    play_stop(&run.native);
    floor_fini();
    return status;
}
