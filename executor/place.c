/* Placement of one worker.  Surprising: a core is claimed by the name of an abstract unix socket,
 * which all executors of the machine see, whoever runs them, and which the kernel gives back when
 * the worker dies.  Pumps of clients on the same machine claim none: their client may be bound to
 * any core, and the scheduler knows where, so the two step aside for each other (pump.c). */
#define TFR_LOG_PART "executor"
#include "executor/place.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"

enum { SPARE_CORES = 2 }; /* by itself a worker leaves so many cores to others */

static struct tfr_topo *topo;
static struct tfr_topo_place place;
static cpu_set_t named; /* by the user */
static bool off, listed, elsewhere;
/* What the pump has, and what is left to the others; written before the first of them asks. */
static cpu_set_t own, rest;
static _Atomic bool apart; /* pairs with the acquires of those who look at own and rest */
static pid_t pump_tid;

static const char *gpu_address(const struct tfr_cu *cu, CUdevice device, char *text, int room)
{
    bool known =
        cu->cuDeviceGetPCIBusId && cu->cuDeviceGetPCIBusId(text, room, device) == CUDA_SUCCESS;
    return known ? text : NULL;
}

void tfr_place_init(const struct tfr_cu *cu, const char *pin)
{
    char address[32], cpus[128];
    off = strcmp(pin, "none") == 0;
    listed = !off && tfr_topo_list_parse(pin, &named);
    if (tfr_topo_open(NULL, &topo) != TFR_OK)
        topo = NULL;
    tfr_topo_find(topo, gpu_address(cu, 0, address, sizeof address), listed ? &named : NULL,
                  &place);
    listed = place.listed;
    tfr_topo_list_text(&place.cpus, cpus, sizeof cpus);
    tfr_info("placement: cores %s, %s", cpus, off ? "bound to nothing, as --pin says" : place.why);
    if (off || !tfr_topo_is_here(topo))
        return;
    if ((listed || place.node >= 0) && sched_setaffinity(0, sizeof place.cpus, &place.cpus) != 0)
        tfr_info("threads are not bound to cores %s: %m", cpus);
    if (place.node >= 0 && !tfr_topo_memory(topo, place.node))
        tfr_info("memory is not bound to node %d: %m", place.node);
}

const struct tfr_topo_place *tfr_place(void)
{
    return &place;
}

const char *tfr_place_nics(void)
{
    static char names[TFR_TOPO_NICS * sizeof place.nic[0].name];
    tfr_topo_near(&place, names, sizeof names);
    return !elsewhere && place.gpu[0] && tfr_topo_is_here(topo) && names[0] ? names : NULL;
}

bool tfr_place_elsewhere(void)
{
    const char *names = tfr_place_nics();
    if (names)
        tfr_info("%s, which the GPU is near to, did not do: any NIC may", names);
    elsewhere = true;
    return names != NULL;
}

/* ---- a core of one's own ---- */

static bool core_claim(uint16_t cpu)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int len = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "tfr-poller-%u", cpu);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
    if (bind(fd, (struct sockaddr *)&name, size) == 0)
        return true; /* open as long as we live */
    close(fd);
    return false;
}

/* How many of the cores pumps may have: as many as may spin at once (spin.c). */
static uint32_t cores_for_pumps(bool local)
{
    if (off || !tfr_topo_is_here(topo) || place.core_n < 2)
        return 0;
    if (listed)
        return place.core_n - 1;
    bool alone = !local && place.gpu[0] && place.core_n >= 2 + SPARE_CORES;
    return alone ? place.core_n / 2 : 0;
}

void tfr_place_pump(bool local)
{
    uint32_t n = cores_for_pumps(local), i = 0;
    while (i < n && !core_claim(place.core[i]))
        i++;
    if (i == n) {
        if (n)
            tfr_info("all %u cores for pollers are taken: the scheduler chooses", n);
        return;
    }
    CPU_ZERO(&own);
    CPU_SET(place.core[i], &own);
    CPU_XOR(&rest, &place.cpus, &own);
    pump_tid = gettid();
    if (sched_setaffinity(0, sizeof own, &own) != 0)
        return;
    atomic_store_explicit(&apart, true, memory_order_release);
    tfr_info("the pump has core %u", place.core[i]);
    tfr_place_strays(); /* who started before has it too */
}

void tfr_place_thread(void)
{
    if (atomic_load_explicit(&apart, memory_order_acquire))
        sched_setaffinity(0, sizeof rest, &rest);
}

/* ---- threads of others ---- */

static void stray_move(pid_t tid)
{
    cpu_set_t has, shared;
    if (tid == pump_tid || sched_getaffinity(tid, sizeof has, &has) != 0)
        return;
    CPU_AND(&shared, &has, &own);
    if (!CPU_COUNT(&shared))
        return;
    CPU_XOR(&has, &has, &own);
    sched_setaffinity(tid, sizeof has, CPU_COUNT(&has) ? &has : &rest);
}

void tfr_place_strays(void)
{
    static _Atomic uint64_t known; /* links of the folder: one per thread */
    struct stat st;
    if (!atomic_load_explicit(&apart, memory_order_acquire) || stat("/proc/self/task", &st) != 0 ||
        atomic_exchange_explicit(&known, st.st_nlink, memory_order_relaxed) == st.st_nlink)
        return;
    DIR *dir = opendir("/proc/self/task");
    struct dirent *entry;
    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            stray_move((pid_t)strtol(entry->d_name, NULL, 10));
    if (dir)
        closedir(dir);
}

/* ---- for people ---- */

void tfr_place_draw(const struct tfr_cu *cu, char *text, size_t room)
{
    int device_n = 0;
    size_t at = 0;
    cu->cuDeviceGetCount(&device_n);
    text[0] = 0;
    for (CUdevice device = 0; device < device_n && room - at > 1; device++) {
        char address[32];
        struct tfr_topo_place p;
        tfr_topo_find(topo, gpu_address(cu, device, address, sizeof address),
                      listed ? &named : NULL, &p);
        if (off)
            p.why = "--pin none: nothing is bound";
        else if (!tfr_topo_is_here(topo))
            p.why = "the description is of another machine: nothing is bound";
        at += tfr_topo_draw(&p, text + at, room - at);
    }
}
