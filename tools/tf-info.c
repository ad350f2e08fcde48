/* tf-info [--executor ADDR]: what this build is, what can be set, what limits it, and what an
 * executor offers.  Exit status: 0; 1 the executor that was named does not answer; 2 usage. */
#define TFR_LOG_PART "tools"
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cuda.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "proto/hello.h"
#include "tools/ask.h"
#include "tools/limits.h"
#include "transport/transport.h"

enum { EXIT_NO_ANSWER = 1, EXIT_USAGE = 2, HELLOS = 9 };

static const char usage[] =
    "usage: tf-info [--executor ADDR]\n"
    "Shows version, settings, limits, and what an executor offers.\n"
    "  --executor ADDR  tcp:HOST:PORT, unix:PATH or unix:@NAME; default: $TFR_EXECUTORS\n"
    "exit status: 0; 1 the executor does not answer; 2 usage\n";

static void build_print(void)
{
    const char *name;
    printf("TFR %s\ntransports built in:", tfr_release);
    for (int i = 0; (name = tfr_transport_name(i)); i++)
        printf(" %s", name);
    puts("");
}

/* What there is on this machine for those that need devices. */
static void devices_print(void)
{
    static char text[8192];
    const char *name;

    for (int i = 0; (name = tfr_transport_name(i)); i++) {
        const struct tfr_transport_ops *ops = tfr_transport_find(name);
        if (!ops) {
            printf("%s: not here: %s\n", name, tfr_transport_why(name));
            continue;
        }
        ops->tell(text, sizeof(text));
        if (*text)
            printf("%s:\n%s", name, text);
    }
}

static void settings_print(void)
{
    puts("\nsettings (* set in this environment)");
    for (const struct tfr_env_row *row = tfr_env_rows(); row->name; row++) {
        const char *set = getenv(row->name);
        printf("%c %-18s %-18s %s\n", set ? '*' : ' ', row->name,
               set        ? set
               : row->def ? row->def
                          : "-",
               row->meaning);
        if (set)
            printf("  %-18s default: %s\n", "", row->def ? row->def : "none");
    }
    puts("\noff-switches: TFR_PERF=no_NAME,...");
    for (const struct tfr_perf_row *row = tfr_perf_rows(); row->name; row++)
        printf("%c %-18s %-18s %s\n", tfr_perf_on(row->name) ? ' ' : '*', row->name,
               tfr_perf_on(row->name) ? "on" : "off", row->meaning);
    puts("");
}

static void device_print(uint32_t i, struct tfr_snapshot_device *d)
{
    char size[32];
    tfr_ask_tame(d->name, sizeof d->name);
    printf("  device %u: %s, %s, compute capability %d.%d\n            GPU-", i, d->name,
           tfr_size_text(d->total_mem, size, sizeof size),
           d->attribute[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR],
           d->attribute[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR]);
    for (int k = 0; k < 16; k++)
        printf(k == 4 || k == 6 || k == 8 || k == 10 ? "-%02x" : "%02x", d->uuid[k]);
    puts("");
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The median of a few: connect, hello, snapshot. */
static bool hello_time(const char *addr, uint64_t *ns_out)
{
    uint64_t ns[HELLOS];
    for (int i = 0; i < HELLOS; i++) {
        struct tfr_boot_msg msg;
        uint64_t begin = tfr_clock_now();
        struct tfr_boot boot;
        if (tfr_boot_connect(addr, 1000, &boot) != TFR_OK)
            return false;
        bool good = tfr_ask(&boot, TFR_BOOT_HELLO, TFR_BOOT_SNAPSHOT, &msg);
        tfr_boot_close(&boot);
        if (!good)
            return false;
        tfr_boot_msg_fini(&msg);
        ns[i] = tfr_clock_now() - begin;
    }
    qsort(ns, HELLOS, sizeof ns[0], by_time);
    *ns_out = ns[HELLOS / 2];
    return true;
}

/* Lines; otherwise printable ASCII alone goes to the terminal. */
static void place_print(const char *addr)
{
    struct tfr_boot_msg msg;
    struct tfr_boot boot;
    if (tfr_boot_connect(addr, 1000, &boot) != TFR_OK)
        return;
    bool good = tfr_ask(&boot, TFR_BOOT_PLACE, TFR_BOOT_PLACED, &msg);
    tfr_boot_close(&boot);
    if (!good)
        return;
    const char *text = msg.body;
    for (uint32_t i = 0; i < msg.len && text[i]; i++) {
        if (i == 0 || text[i - 1] == '\n')
            fputs("  ", stdout);
        putchar((text[i] >= ' ' && text[i] < 127) || text[i] == '\n' ? text[i] : '?');
    }
    tfr_boot_msg_fini(&msg);
}

static int executor_print(const char *list)
{
    char addr[TFR_ASK_ADDR_MAX];
    struct tfr_boot_msg msg;
    uint64_t ns;
    struct tfr_boot boot;
    if (!tfr_ask_connect(list, addr, &boot))
        return EXIT_NO_ANSWER;
    bool good = tfr_ask(&boot, TFR_BOOT_HELLO, TFR_BOOT_SNAPSHOT, &msg);
    tfr_boot_close(&boot);
    if (!good)
        return EXIT_NO_ANSWER;
    struct tfr_snapshot *s = msg.body;
    if (msg.len < sizeof *s || s->device_n > TFR_DEVICES_MAX) {
        tfr_say("the executor's answer makes no sense");
        tfr_boot_msg_fini(&msg);
        return EXIT_NO_ANSWER;
    }
    tfr_ask_tame(s->edition.release, sizeof s->edition.release);
    printf("\nexecutor %s\n  release %s\n  driver of CUDA %u.%u\n", addr, s->edition.release,
           s->driver_version / 1000, s->driver_version % 1000 / 10);
    for (uint32_t i = 0; i < s->device_n; i++)
        device_print(i, &s->device[i]);
    tfr_boot_msg_fini(&msg);
    if (!hello_time(addr, &ns)) {
        tfr_say("the executor at %s went while it was asked", addr);
        return EXIT_NO_ANSWER;
    }
    printf("  connection, hello and device list: %.3f ms\n", (double)ns / 1e6);
    place_print(addr);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"executor", required_argument, NULL, 'e'}, {"help", no_argument, NULL, 'h'}, {0}};
    const char *list = getenv("TFR_EXECUTORS");
    int got;
    while ((got = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (got != 'e') {
            fputs(usage, got == 'h' ? stdout : stderr);
            return got == 'h' ? 0 : EXIT_USAGE;
        }
        list = optarg;
    }
    if (optind < argc) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (list && !tfr_ask_addresses_good(list))
        return EXIT_USAGE;
    build_print();
    devices_print();
    settings_print();
    tfr_limits_print();
    if (list && *list)
        return executor_print(list);
    puts("\nexecutor: none named (--executor ADDR or TFR_EXECUTORS)");
    return 0;
}
