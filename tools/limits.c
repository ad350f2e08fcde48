/* Limits that matter, with why.  What cannot be read is called unknown: containers hide much. */
#define TFR_LOG_PART "tools"
#include "tools/limits.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

static void line(const char *name, const char *value, const char *why)
{
    printf("  %-24s %-22s %s\n", name, value, why);
}

const char *tfr_size_text(unsigned long long bytes, char *text, unsigned len)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    int unit = 0;
    while (value >= 1024 && unit < 4) {
        value /= 1024;
        unit++;
    }
    snprintf(text, len, value < 10 && unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
    return text;
}

static void rlimit_line(int what, const char *name, bool bytes, const char *why)
{
    struct rlimit limit;
    char text[64], size[32];
    if (getrlimit(what, &limit) != 0)
        snprintf(text, sizeof text, "unknown");
    else if (limit.rlim_cur == RLIM_INFINITY)
        snprintf(text, sizeof text, "unlimited");
    else if (bytes)
        snprintf(text, sizeof text, "%s", tfr_size_text(limit.rlim_cur, size, sizeof size));
    else
        snprintf(text, sizeof text, "%llu (hard %llu)", (unsigned long long)limit.rlim_cur,
                 (unsigned long long)limit.rlim_max);
    line(name, text, why);
}

/* The file's first line, or false. */
static bool first_line(const char *path, char *text, int len)
{
    FILE *file = fopen(path, "re");
    bool got = file && fgets(text, len, file);
    if (file)
        fclose(file);
    if (got)
        text[strcspn(text, "\n")] = 0;
    return got;
}

/* The smallest memory.max from our group upwards; 0: none is set, or none can be seen. */
static unsigned long long cgroup_memory(void)
{
    char group[512] = "", path[640], text[64];
    unsigned long long least = 0;
    FILE *file = fopen("/proc/self/cgroup", "re");
    while (file && fgets(path, sizeof path, file))
        if (strncmp(path, "0::", 3) == 0)
            snprintf(group, sizeof group, "%.*s", (int)strcspn(path + 3, "\n"), path + 3);
    if (file)
        fclose(file);
    for (;;) {
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
        if (first_line(path, text, sizeof text) && text[0] != 'm') {
            unsigned long long here = strtoull(text, NULL, 10);
            least = !least || here < least ? here : least;
        }
        char *slash = strrchr(group, '/');
        if (!slash)
            break;
        *slash = 0;
    }
    if (!least && first_line("/sys/fs/cgroup/memory/memory.limit_in_bytes", text, sizeof text))
        least = strtoull(text, NULL, 10);
    return least < 1ull << 60 ? least : 0;
}

static void cpu_line(void)
{
    char text[256] = "unknown";
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int at = snprintf(text, sizeof text, "%d:", CPU_COUNT(&set));
        for (int cpu = 0; cpu < CPU_SETSIZE && at < 200; cpu++) {
            int last = cpu;
            if (!CPU_ISSET(cpu, &set))
                continue;
            while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set))
                last++;
            at += snprintf(text + at, sizeof text - (size_t)at, last > cpu ? " %d-%d" : " %d", cpu,
                           last);
            cpu = last;
        }
    }
    line("processors", text, "one alone: waiting never spins; a session likes two on each side");
}

/* The word in brackets of a file such as "always [madvise] never". */
static void chosen_line(const char *name, const char *path, const char *why)
{
    char text[128], *open = NULL;
    if (first_line(path, text, sizeof text))
        open = strchr(text, '[');
    if (open)
        open[strcspn(open, "]")] = 0;
    line(name, open ? open + 1 : "unknown", why);
}

static void shm_line(void)
{
    struct statvfs fs;
    char text[64] = "unknown", size[32];
    if (statvfs("/dev/shm", &fs) == 0)
        snprintf(text, sizeof text, "%s",
                 tfr_size_text((unsigned long long)fs.f_blocks * fs.f_frsize, size, sizeof size));
    line("/dev/shm", text, "not used by TFR (it shares memfds); NCCL and MPI in programs do");
}

void tfr_limits_print(void)
{
    char text[64];
    unsigned long long group = cgroup_memory();
    long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    puts("limits of this process and machine");
    rlimit_line(RLIMIT_MEMLOCK, "locked memory", true, "matters to RDMA and to pinned memory");
    rlimit_line(RLIMIT_NOFILE, "open files", false, "an executor holds one a waiting program");
    rlimit_line(RLIMIT_AS, "address space", true, "windows for device and pinned memory need it");
    line("memory of the cgroup", group ? tfr_size_text(group, text, sizeof text) : "no limit seen",
         "lanes and pinned memory count, on both sides");
    cpu_line();
    chosen_line("huge pages, private", "/sys/kernel/mm/transparent_hugepage/enabled",
                "faster staging of big copies");
    chosen_line("huge pages, shared", "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
                "advise or always: faster lanes");
    shm_line();
    line("membarrier", commands > 0 && commands & MEMBARRIER_CMD_GLOBAL_EXPEDITED ? "yes" : "no",
         "without it a bell costs a fence");
}
