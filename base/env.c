/* The table of settings.  The environment is copied once, at first use: getenv is not safe against
 * an application that calls setenv from another thread.  Warnings come after the copy, because a
 * log line itself asks for TFR_LOG. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"

static const struct tfr_env_row rows[] = {
    {"TFR_EXECUTORS", NULL,
     "addresses of executors (tcp:HOST:PORT, unix:PATH, unix:@NAME), separated by commas"},
    {"TFR_AUTH", "key", "how client and executor prove their identity over TCP: key, munge"},
    {"TFR_KEY_FILE", NULL, "file of the key that both sides hold (default: ~/.config/tfr/key)"},
    {"TFR_EXECUTOR_UID", NULL,
     "over unix sockets and with munge: users whose executors are trusted besides our own and "
     "root's, separated by commas"},
    {"TFR_MUNGE_SOCKET", NULL, "munged's socket (default: libmunge's)"},
    {"TFR_VISIBLE_DEVICES", NULL,
     "in place of CUDA_VISIBLE_DEVICES, where that is about GPUs of this machine; all: every "
     "device of the executor"},
    {"TFR_LOG", "warn",
     "level of log lines: none, error, warn, info, debug; part=level for one part"},
    {"TFR_PERF", NULL, "no_NAME,...: switches optimisations off"},
    {"TFR_COUNTERS", NULL, "file that counters are written to at exit (-: stderr; %p: process id)"},
    {"TFR_SPIN_US", "50", "microseconds that a wait spins before it sleeps"},
    {"TFR_CONNECT_MS", "3000", "milliseconds until an executor that does not answer is given up"},
    {"TFR_LOST_MS", "3000",
     "milliseconds without a word of the other machine until its connections are lost (from 2000; "
     "each side's own)"},
    {"TFR_WAIT_LIMIT", "60000",
     "milliseconds without a sign of life from the executor until a wait fails; 0: never"},
    {"TFR_TRANSPORT", "auto",
     "how bytes move: auto (the best that both sides have), shm, verbs, ucx, tcp; for tests fault, "
     "fault:NAME"},
    {"TFR_PLUGINS", NULL, "folder of verbs.so and ucx.so (default: lib/tfr beside our own)"},
    {"TFR_TCP_SOCKETS", "4",
     "connections of a link over tcp: one for calls, others for bulk; with 1 calls wait behind "
     "bulk"},
    {"TFR_TCP_CONGESTION", NULL,
     "congestion control of a link over tcp (default: reno within one machine, else the system's)"},
    {"TFR_TCP_ENCRYPT", "0", "1 on either side: what goes over tcp is encrypted (libsodium)"},
    {"TFR_TCP_PORTS", NULL, "executor: ports for these (5000-5100); default: any"},
    {"TFR_VERBS_DEVICE", NULL,
     "RDMA devices, separated by commas; equals share large copies (default: whatever reaches the "
     "executor, which takes those "
     "that are nearest to its GPU)"},
    {"TFR_VERBS_PORT", NULL, "port of these devices (default: any that is active)"},
    {"TFR_VERBS_GID", NULL, "index in the port's GID table (default: what suits the other side)"},
    {"TFR_VERBS_PKEY", NULL, "InfiniBand partition key (default: the port's first)"},
    {"TFR_VERBS_SL", "0", "service level"},
    {"TFR_VERBS_TC", "0", "traffic class of RoCE packets"},
    {"TFR_VERBS_MTU", "4096", "largest path MTU"},
    {"TFR_VERBS_INLINE", "220", "bytes of a put that are copied into its work request"},
    {"TFR_VERBS_DEPTH", "128", "work requests under way of one channel"},
    {"TFR_VERBS_RETRY", "6", "times that the device sends again before the peer is lost (0 to 6)"},
    {"TFR_VERBS_TIMEOUT", "14", "time between these: 4.096 us, doubled so many times"},
    {"TFR_VERBS_LOST_MS", "1200",
     "milliseconds without an acknowledgement that is owed until the peer is lost, whatever the "
     "device still tries"},
    {"TFR_VERBS_NOTIFY", "auto",
     "how a put is told: mem: a word in memory; imm: an immediate, for fabrics that deliver out of "
     "order; send: as mem, bells without immediates (iWARP); auto: imm on InfiniBand, else mem"},
    {"TFR_VERBS_LAND", "read",
     "how bytes in GPU memory become visible: read: back by the NIC; none: they are at once"},
    {"TFR_VERBS_RELAXED", "0", "1: bulk bytes may pass each other on PCIe"},
    {"TFR_VERBS_CM", "0", "1: connects with librdmacm (iWARP always does)"},
    {"TFR_VERBS_SPIN", "5", "microseconds that a side looks for an answer before it sleeps"},
    {"TFR_RING_SIZE", "1m", "executor: bytes of the ring of records (a power of two)"},
    {"TFR_LANE_SIZE", "64m", "executor: bytes of the lanes for copies"},
    {"TFR_IMAGE_LIMIT", "8g", "executor: bytes of uploaded code that a session may hold"},
    {"TFR_JOIN_MS", "15000", "executor: milliseconds that a client has for its side of a session"},
    {"TFR_GPUDIRECT", "auto",
     "executor: lanes in GPU memory that the NIC reaches: auto, dmabuf, peer, off"},
    {"TFR_QUEUE_DEPTH", "512",
     "executor: unfinished submissions of a stream before its further ones wait in a queue of "
     "ours"},
    {"TFR_REG_SIZE", "64g",
     "bytes of the program's pinned memory that are registered with the network"},
    {"TFR_IMAGE_CACHE", "256m",
     "bytes of uploaded code that the executor keeps, lest it has to be sent again"},
    {"TFR_SPILL_SIZE", "1g", "bytes of the client's heap for copies that find no lane space"},
    {"TFR_HOST_WINDOW", "0x500000000000",
     "where pinned memory is placed in client and executor alike; 0: anywhere"},
    {"TFR_UCX_TLS", "rc,dc", "lanes that UCX may use: names of transports with RDMA of their own"},
    {"TFR_UCX_CONNECT", NULL,
     "how UCX connects: cm, address (default: cm where RDMA has IP addresses)"},
    {"TFR_UCX_MODULES", "^cuda,rocm,ze",
     "modules that UCX may load in this process, for others there, too, if we are first to use it"},
    {"TFR_FAULT_SEED", "1", "seed of the fault transport"},
    {"TFR_SOFT_MEMORY", "4g", "software GPU: bytes of device memory"},
    {"TFR_SOFT_DEVICES", "1", "software GPU: number of devices"},
    {"TFR_SOFT_CC", NULL, "software GPU: compute capability"},
    {"TFR_SOFT_CHAOS", NULL,
     "software GPU: a seed; as unkind as hardware may be: delays, short queues, shared channels"},
    {"TFR_SOFT_BUDGET", NULL,
     "software GPU: instructions a thread may run before the launch fails"},
    {"TFR_SOFT_LATE_TEXT", "0",
     "software GPU: 1: what kernels print comes at synchronisations only, as from a real driver"},
    {"TFR_SOFT_WORKERS", NULL, "software GPU: threads that run kernels (default: one per core)"},
    {"TFR_SOFT_ISA", NULL, "software GPU: base: leaves out what newer processors offer"},
    {NULL, NULL, NULL},
};
enum { ROW_N = sizeof(rows) / sizeof(rows[0]) - 1 };

static const struct tfr_perf_row switches[] = {
    {"ahead", "asynchronous copies are staged before the stream gets there"},
    {"aside", "the executor leaves the core that the client waits on"},
    {"early", "a copy to the device returns when its source has been read"},
    {"gather", "records of a burst leave together where nothing is mapped"},
    {"inline", "small copies travel inside their record"},
    {"lease", "device memory is allocated here, out of chunks that the executor has backed"},
    {"mapped", "pinned memory is read and written in place"},
    {"membarrier", "the peer's fence is asked for when it matters, not paid at each bell"},
    {"reg", "pinned memory is registered with the network and moved without staging"},
    {NULL, NULL},
};

/* Copies, written once under `once`; kept for the process's life. */
static const char *values[ROW_N];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void env_load(void)
{
    for (int i = 0; i < ROW_N; i++) {
        const char *value = getenv(rows[i].name);
        values[i] = value ? strdup(value) : NULL;
        if (!values[i])
            values[i] = rows[i].def;
    }
}

static int row_find(const char *name, size_t len)
{
    for (int i = 0; i < ROW_N; i++) {
        if (strncmp(rows[i].name, name, len) == 0 && rows[i].name[len] == 0)
            return i;
    }
    return -1;
}

/* TFR_UCX_ belongs to the library of that name and TFR_TEST_ to our tests. */
static bool is_foreign(const char *entry)
{
    return strncmp(entry, "TFR_UCX_", 8) == 0 || strncmp(entry, "TFR_TEST_", 9) == 0;
}

static void warn_unknown(void)
{
    for (char **at = environ; at && *at; at++) {
        size_t len = strcspn(*at, "=");
        if (strncmp(*at, "TFR_", 4) != 0 || is_foreign(*at) || row_find(*at, len) >= 0)
            continue;
        tfr_log_line(TFR_LOG_WARN, "base", "unknown setting %.*s is ignored", (int)len, *at);
    }
}

static bool is_switch(const char *entry, size_t len)
{
    for (const struct tfr_perf_row *row = switches; row->name; row++)
        if (len > 3 && strncmp(entry, "no_", 3) == 0 && strlen(row->name) == len - 3 &&
            strncmp(entry + 3, row->name, len - 3) == 0)
            return true;
    return false;
}

static void warn_perf(void)
{
    const char *at = values[row_find("TFR_PERF", 8)];

    while (at && *at) {
        size_t len = strcspn(at, ",");
        if (len && !is_switch(at, len))
            tfr_log_line(TFR_LOG_WARN, "base", "TFR_PERF: there is no %.*s: tf-info lists them",
                         (int)len, at);
        at += len + (at[len] == ',');
    }
}

static void warn_all(void)
{
    if (getenv(TFR_ENV_CHECKED))
        return;
    warn_unknown();
    warn_perf();
    tfr_log_check();
}

static atomic_flag warned = ATOMIC_FLAG_INIT;

void tfr_env_quiet(void)
{
    atomic_flag_test_and_set_explicit(&warned, memory_order_relaxed);
}

static void env_ready(void)
{
    pthread_once(&once, env_load);
    if (!atomic_flag_test_and_set_explicit(&warned, memory_order_relaxed))
        warn_all();
}

const struct tfr_env_row *tfr_env_rows(void)
{
    return rows;
}

const char *tfr_env_str(const char *name)
{
    int row = row_find(name, strlen(name));

    env_ready();
    return row < 0 ? NULL : values[row];
}

static bool number_parse(const char *text, uint64_t *out)
{
    unsigned shift = 0;
    char *end;
    unsigned long long number;

    if (*text < '0' || *text > '9')
        return false;
    errno = 0;
    number = strtoull(text, &end, 0);
    if (*end == 'k' || *end == 'K')
        shift = 10;
    else if (*end == 'm' || *end == 'M')
        shift = 20;
    else if (*end == 'g' || *end == 'G')
        shift = 30;
    end += shift != 0;
    if (errno || *end || number > UINT64_MAX >> shift)
        return false;
    *out = (uint64_t)number << shift;
    return true;
}

/* One warning per setting. */
static void warn_value(int row, const char *what, const char *used)
{
    static _Atomic uint64_t told; /* one bit per row */
    static_assert((int)ROW_N <= 64, "a bit for each row");

    if (!(atomic_fetch_or_explicit(&told, 1ull << row, memory_order_relaxed) & 1ull << row))
        tfr_log_line(TFR_LOG_WARN, "base", "%s=%s is %s, %s is used", rows[row].name, values[row],
                     what, used);
}

uint64_t tfr_env_u64(const char *name)
{
    const char *text = tfr_env_str(name);
    int row = row_find(name, strlen(name));
    uint64_t number = 0;

    if (!text || row < 0 || number_parse(text, &number))
        return number;
    warn_value(row, "not a number", rows[row].def ? rows[row].def : "0");
    if (rows[row].def)
        number_parse(rows[row].def, &number);
    return number;
}

bool tfr_env_bool(const char *name, bool otherwise)
{
    const char *text = tfr_env_str(name);
    int row = row_find(name, strlen(name));

    if (!text || row < 0)
        return false;
    if (strcmp(text, "0") == 0 || strcmp(text, "1") == 0)
        return *text == '1';
    warn_value(row, "neither 0 nor 1", otherwise ? "1" : "0");
    return otherwise;
}

const struct tfr_perf_row *tfr_perf_rows(void)
{
    return switches;
}

bool tfr_perf_on(const char *what)
{
    const char *at = tfr_env_str("TFR_PERF");
    size_t what_len = strlen(what);

    while (at && *at) {
        size_t len = strcspn(at, ",");
        if (len == what_len + 3 && memcmp(at, "no_", 3) == 0 && memcmp(at + 3, what, what_len) == 0)
            return false;
        at += len + (at[len] == ',');
    }
    return true;
}
