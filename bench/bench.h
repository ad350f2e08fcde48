/* tf-bench: what its files share.
 *
 * A case is one operation of the driver API.  A player is a process that runs cases over one
 * libcuda.so.1 (ours under tf-run, or the driver itself); the parent gives orders round by round to
 * both in turn, measures the raw floors in between, and reports.  Surprising: orders and cases are
 * found by index in a list that parent and players build alike, so they must be given the same
 * options. */
#ifndef TFR_BENCH_BENCH_H
#define TFR_BENCH_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/counter.h"
#include "proto/cu.h"

/* ---- timer.c: the cheapest clock of the machine; its own cost is known ---- */

void timer_init(void);
uint64_t timer_now(void);                    /* ticks */
double timer_ns(uint64_t from, uint64_t to); /* less what reading the clock costs; >= 0 */
double timer_cost_ns(void);
const char *timer_name(void);

/* ---- floor.c: what the machine can do without us ---- */

enum floor_kind {
    FLOOR_NONE,
    FLOOR_STORE,    /* size bytes stored one after the other through a 1 MiB buffer */
    FLOOR_PINGPONG, /* two processes answer each other through shared memory */
    FLOOR_MEMCPY,   /* memcpy of size bytes */
    FLOOR_TCP_PING, /* two processes answer each other through TCP, spinning */
    FLOOR_TCP_SEND, /* size bytes one way through TCP, the best of several ways to send */
    FLOOR_TCP_IN,   /* the same, and the receiver copies it on */
    FLOOR_TCP_OUT,  /* the same, and the sender copies it first */
    FLOOR_UCX,      /* UCX over TCP, as ucx_perftest measures it */
};

/* The floor of the same operation where bytes go over tcp. */
enum floor_kind floor_over_tcp(enum floor_kind kind);

const char *floor_name(enum floor_kind kind);

/* Starts the process that answers. */
bool floor_init(void);
void floor_fini(void);

/* One round; the number of samples, each the ns of one operation. */
size_t floor_round(enum floor_kind kind, uint64_t size, double *samples, size_t room);

/* floor_tcp.c: the last five of them. */
size_t floor_tcp_round(enum floor_kind kind, uint64_t size, double *samples, size_t room);
void floor_tcp_fini(void);

/* ---- cases ---- */

enum { SAMPLES_MAX = 4096, CASES_MAX = 96, PARAMS_MAX = 4096 };

struct bench;

struct bench_case {
    char name[40];
    const char *what;
    uint64_t size;      /* bytes that one operation moves; 0: none */
    uint64_t arg;       /* the case's own */
    double work;        /* thread instructions of one operation */
    uint32_t batch;     /* operations between two readings of the clock */
    uint32_t samples;   /* at most, per round */
    uint32_t count_ops; /* operations of the count run */
    uint32_t calls;     /* what one operation is divided by; 0: 1 */
    enum floor_kind floor;
    uint64_t floor_size;
    bool issue; /* asynchronous: must make no round trip and no system call */
    CUresult (*set_up)(struct bench *b);
    CUresult (*op)(struct bench *b);
    CUresult (*settle)(struct bench *b); /* after each batch, not timed; NULL: nothing to do */
    CUresult (*check)(struct bench *b, uint32_t seed, bool *right_out); /* NULL: no data */
    void (*tear_down)(struct bench *b);
};

struct bench_list {
    struct bench_case cases[CASES_MAX];
    size_t n;
    bool quick;
};

static inline uint32_t bench_calls(const struct bench_case *c)
{
    return c->calls ? c->calls : 1;
}

/* NULL when the list is full. */
struct bench_case *bench_add(struct bench_list *list, const struct bench_case *kind,
                             const char *name, ...) __attribute__((format(printf, 3, 4)));

bool bench_over_tcp(void); /* TFR_TRANSPORT names tcp */

void bench_add_launch(struct bench_list *list); /* case_launch.c */
void bench_add_stream(struct bench_list *list); /* case_stream.c */
void bench_add_memory(struct bench_list *list); /* case_memory.c */
void bench_add_wait(struct bench_list *list);   /* case_wait.c */
void bench_add_copy(struct bench_list *list);   /* case_copy.c */
void bench_add_kernel(struct bench_list *list); /* case_kernel.c */

/* What a case works on, in a player. */
struct bench {
    struct tfr_cu cu;
    const struct bench_case *c;
    CUstream stream, other;
    CUevent event;
    CUmodule module;
    CUfunction fn;
    unsigned int grid[2], block[2];
    void *params[32];
    uint64_t values[PARAMS_MAX / 8]; /* of the parameters */
    CUdeviceptr mem[3];
    uint8_t *host;
    uint32_t n;
};

CUresult bench_stream_open(struct bench *b); /* stream */
CUresult bench_settle(struct bench *b);      /* waits for stream */
void bench_close(struct bench *b);           /* everything of the above that is there */

/* The PTX of all kernels, and loading one of them. */
CUresult bench_kernel(struct bench *b, const char *ptx, const char *name);
CUresult bench_launch(struct bench *b);

/* ---- player.c ---- */

enum player_way { WAY_NATIVE, WAY_TFR };
enum order_kind { ORDER_OPEN, ORDER_ROUND, ORDER_CHECK, ORDER_CLOSE };

struct order {
    uint32_t kind, at, seed;
    uint32_t limit_ms; /* of the timed part */
};
struct answer {
    int32_t result;
    uint32_t sample_n; /* doubles that follow */
    char text[120];    /* what went wrong, or the device's name in the first answer */
};

/* A player's whole life; the exit status. */
int player_main(const struct bench_list *list, enum player_way way, int fd);

/* The life of a player that makes `ops` operations of one case between two marks, for count.c. */
int player_count_main(const struct bench_list *list, size_t at, uint32_t ops);
enum { COUNT_MARK_BEGIN = 0x74660001, COUNT_MARK_END }; /* prctl numbers that do not exist */

/* ---- play.c: the parent's side of a player ---- */

struct play {
    enum player_way way;
    pid_t pid;
    int fd;
    char device[120]; /* or why there is no player */
};

struct bench_cfg {
    const char *executor; /* NULL: a private one */
    const char *json, *only;
    bool quick, list, floor_only, count;
    uint32_t rounds, limit_ms;
    char self[4096], run[4096]; /* paths of tf-bench and tf-run */
};

bool play_start(struct play *p, enum player_way way, const struct bench_cfg *cfg);
void play_stop(struct play *p);

/* False: the order failed; answer->text says why.  samples may be NULL. */
bool play_order(struct play *p, const struct order *order, struct answer *answer, double *samples);

/* ---- count.c ---- */

struct counts {
    bool known, syscalls_known;
    char why[120]; /* not known: why */
#define COUNTS_FIELD(name, text) double name;
    TFR_COUNTERS(COUNTS_FIELD) /* per operation */
#undef COUNTS_FIELD
    double syscalls, wakes; /* per operation, of the thread that calls; wakes: those that send */
};

void count_case(const struct bench_cfg *cfg, const struct bench_list *list, size_t at,
                struct counts *out);

/* ---- stats.c ---- */

enum { ROUNDS_MAX = 64 };

struct series {                /* one way of running one case */
    double median[ROUNDS_MAX]; /* per round */
    uint32_t round_n;
    double *all;
    size_t all_n, all_room;
};
struct summary {
    bool known;
    /* ns; p50: median of the rounds' medians, best: the least of them */
    double min, best, p50, p99, p999, max, mean;
    size_t n;
};
struct ratio {
    bool known;
    double value, low, high; /* 95 % interval by bootstrap over rounds */
};

void series_add(struct series *s, const double *samples, size_t n);
struct summary series_sum(struct series *s); /* sorts */
void series_fini(struct series *s);
struct ratio series_ratio(const struct series *a, const struct series *b);

/* ---- report.c ---- */

struct result {
    const struct bench_case *c;
    struct summary native, tfr, floor;
    struct ratio to_native, to_floor;
    struct counts counts;
    char failed[160]; /* empty: it ran and its data was right */
};

struct env_info {
    char cpu[128], kernel[160], gpu[120], executor[120], when[32];
    long cores;
    bool real;
    double load, steal; /* load average at the start; share of stolen time during the run */
};

extern const char bench_git[]; /* the revision; written by git.cmake */

void env_take(struct env_info *env);
void env_done(struct env_info *env); /* the run is over: what was stolen */

void report_head(FILE *to, const struct bench_cfg *cfg, const struct env_info *env);
void report_row(FILE *to, const struct result *r);
void report_notes(FILE *to, const struct env_info *env);
bool report_json(const struct bench_cfg *cfg, const struct env_info *env,
                 const struct result *results, size_t n);

#endif
