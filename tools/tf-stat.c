/* tf-stat [--executor ADDR] [--json] [--interval S [--count N]]: the sessions of an executor while
 * they run.  Exit status: 0; 1 the executor does not answer (any more); 2 usage. */
#define TFR_LOG_PART "tools"
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/relax.h"
#include "proto/stat.h"
#include "proto/wire.h"
#include "tfr_ops.h"
#include "tools/ask.h"
#include "tools/limits.h"

enum { EXIT_NO_ANSWER = 1, EXIT_USAGE = 2 };

static const char usage[] =
    "usage: tf-stat [--executor ADDR] [--json] [--interval S [--count N]]\n"
    "Shows the sessions that an executor serves, and what each is doing.\n"
    "  --executor ADDR  tcp:HOST:PORT, unix:PATH or unix:@NAME; default: $TFR_EXECUTORS\n"
    "  --json           for programs: one object a look\n"
    "  --interval S     look again every S seconds (0.1 and more), N times or until interrupted\n"
    "exit status: 0; 1 the executor does not answer; 2 usage\n";

static const char *const names[] = {
#define NAME(name, heading, meaning) #name,
    TFR_STATS(NAME)
#undef NAME
};

struct look {
    const struct tfr_stat_head *head;
    struct tfr_stat_row *row;
};

/* The record in hand, else what is waited for. */
static const char *doing(const struct tfr_stat_row *row, char *text, size_t len)
{
    uint64_t op = row->value[TFR_STAT_op], waiting = row->value[TFR_STAT_waiting];
    if (op)
        snprintf(text, len, "in %s", tfr_op_name((uint32_t)op));
    else if (waiting)
        snprintf(text, len, "waits for %s",
                 tfr_wait_reason_str((enum tfr_wait_reason)(waiting - 1)));
    else
        snprintf(text, len, "looks for work");
    return text;
}

static int64_t beat_age(const struct look *look, const struct tfr_stat_row *row)
{
    uint64_t beat = row->value[TFR_STAT_heartbeat_ms];
    return beat ? (int64_t)(look->head->now_ms - beat) : -1;
}

static const char *count_text(uint64_t n, char *text, size_t len)
{
    if (n < 100000)
        snprintf(text, len, "%llu", (unsigned long long)n);
    else
        snprintf(text, len, "%.4g%c", (double)n / (n < 100000000 ? 1e3 : 1e6),
                 n < 100000000 ? 'k' : 'M');
    return text;
}

static void table_row(const struct look *look, const struct tfr_stat_row *row)
{
    static const enum tfr_stat_at counts[] = {TFR_STAT_records, TFR_STAT_asked, TFR_STAT_launches,
                                              TFR_STAT_marks};
    static const enum tfr_stat_at sizes[] = {TFR_STAT_bytes_inline,  TFR_STAT_bytes_push,
                                             TFR_STAT_bytes_mapped,  TFR_STAT_bytes_pull,
                                             TFR_STAT_bytes_to_host, TFR_STAT_gpu_memory};
    char text[64];
    printf("%7d %-16.16s %5u %7.1f", row->pid, row->program, row->uid, (double)row->age_ms / 1e3);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        printf(" %8s", count_text(row->value[counts[i]], text, sizeof text));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        printf(" %9s", tfr_size_text(row->value[sizes[i]], text, sizeof text));
    printf(" %6llu %6llu %5lld  %s\n", (unsigned long long)row->value[TFR_STAT_parked],
           (unsigned long long)row->value[TFR_STAT_stalls], (long long)beat_age(look, row),
           doing(row, text, sizeof text));
}

static void table_print(const char *addr, const struct look *look)
{
    const struct tfr_stat_head *h = look->head;
    printf("%s: %u of %u sessions, %u queued, %u workers warm, %llu served, up %llu s\n", addr,
           h->n, h->max, h->queued, h->warm, (unsigned long long)h->served,
           (unsigned long long)h->uptime_ms / 1000);
    if (h->n)
        printf("%7s %-16s %5s %7s %8s %8s %8s %8s %9s %9s %9s %9s %9s %9s %6s %6s %5s  %s\n", "pid",
               "program", "uid", "age s", "records", "asked", "launches", "marks", "inline", "push",
               "mapped", "pull", "to host", "gpu mem", "parked", "stalls", "beat", "doing");
    for (uint32_t i = 0; i < h->n; i++)
        table_row(look, &look->row[i]);
}

static void string_print(const char *text)
{
    putchar('"');
    for (; *text; text++)
        printf(*text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    putchar('"');
}

static void json_print(const char *addr, const struct look *look)
{
    const struct tfr_stat_head *h = look->head;
    printf("{\"executor\": \"%s\", \"max_sessions\": %u, \"queued\": %u, \"warm\": %u, \"served\": "
           "%llu, "
           "\"uptime_ms\": %llu, \"sessions\": [",
           addr, h->max, h->queued, h->warm, (unsigned long long)h->served,
           (unsigned long long)h->uptime_ms);
    for (uint32_t i = 0; i < h->n; i++) {
        const struct tfr_stat_row *row = &look->row[i];
        char text[64];
        printf("%s\n  {\"pid\": %d, \"worker\": %d, \"uid\": %u, \"program\": ", i ? "," : "",
               row->pid, row->worker, row->uid);
        string_print(row->program);
        printf(", \"age_ms\": %llu, \"heartbeat_age_ms\": %lld, \"doing\": ",
               (unsigned long long)row->age_ms, (long long)beat_age(look, row));
        string_print(doing(row, text, sizeof text));
        for (int k = 0; k < TFR_STAT_N; k++)
            printf(", \"%s\": %llu", names[k], (unsigned long long)row->value[k]);
        putchar('}');
    }
    puts("]}");
}

static bool look_once(struct tfr_boot *boot, const char *addr, bool json)
{
    struct tfr_boot_msg msg;
    if (!tfr_ask(boot, TFR_BOOT_STAT, TFR_BOOT_STATS, &msg))
        return false;
    struct look look = {.head = msg.body};
    bool sane = msg.len >= sizeof *look.head &&
                msg.len - sizeof *look.head == (uint64_t)look.head->n * sizeof *look.row;
    if (sane)
        look.row = (struct tfr_stat_row *)((struct tfr_stat_head *)msg.body + 1);
    for (uint32_t i = 0; sane && i < look.head->n; i++)
        tfr_ask_tame(look.row[i].program, sizeof look.row[i].program);
    if (!sane)
        tfr_say("the executor's answer makes no sense");
    else if (json)
        json_print(addr, &look);
    else
        table_print(addr, &look);
    fflush(stdout);
    tfr_boot_msg_fini(&msg);
    return sane;
}

struct wish {
    const char *list;
    bool json;
    double interval_s;
    long count;
    bool again; /* an interval was given */
};

/* -1: it is none. */
static double number(const char *text)
{
    char *end;
    double value = strtod(text, &end);
    return *text && !*end ? value : -1;
}

static int parse(int argc, char **argv, struct wish *wish)
{
    static const struct option options[] = {
        {"executor", required_argument, NULL, 'e'}, {"json", no_argument, NULL, 'j'},
        {"interval", required_argument, NULL, 'i'}, {"count", required_argument, NULL, 'n'},
        {"help", no_argument, NULL, 'h'},           {0}};
    int got;
    while ((got = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (got == 'e')
            wish->list = optarg;
        else if (got == 'j')
            wish->json = true;
        else if (got == 'i')
            wish->again = true, wish->interval_s = number(optarg);
        else if (got == 'n')
            wish->count = atol(optarg);
        else
            return got == 'h' ? 0 : EXIT_USAGE;
    }
    bool good = optind == argc && wish->count >= 0 &&
                (!wish->again || (wish->interval_s >= 0.1 && wish->interval_s < 1e6));
    return good ? -1 : EXIT_USAGE;
}

int main(int argc, char **argv)
{
    struct wish wish = {.list = getenv("TFR_EXECUTORS")};
    char addr[TFR_ASK_ADDR_MAX];
    int status = parse(argc, argv, &wish);
    if (status >= 0) {
        fputs(usage, status ? stderr : stdout);
        return status;
    }
    if (!wish.list || !*wish.list) {
        tfr_say("no executor named: --executor tcp:HOST:PORT or unix:PATH, or set TFR_EXECUTORS");
        return EXIT_USAGE;
    }
    if (!tfr_ask_addresses_good(wish.list))
        return EXIT_USAGE;
    struct tfr_boot boot;
    if (!tfr_ask_connect(wish.list, addr, &boot))
        return EXIT_NO_ANSWER;
    for (long i = 0; !wish.count || i < wish.count; i++) {
        struct timespec nap = {.tv_sec = (time_t)wish.interval_s,
                               .tv_nsec = (long)(wish.interval_s * 1e9) % 1000000000};
        if (i)
            nanosleep(&nap, NULL);
        if (!look_once(&boot, addr, wish.json))
            return EXIT_NO_ANSWER;
        if (!wish.interval_s)
            break;
    }
    return 0;
}
