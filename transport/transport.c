/* Registry of transports, answers for ops that a transport leaves out, and the two memfd helpers
 * through which all shared memory of ours is made and accepted. */
#define TFR_LOG_PART "transport"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "base/rec.h"
#include "transport/backend.h"
#include "transport/transport.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Best first. */
static struct entry {
    const char *name;
    struct tfr_transport_ops *ops; /* NULL: a plugin, not loaded, or not to be had: */
    char why[128];
    bool asked;
} entries[] = {
    {"shm", &tfr_shm_ops, "", true},
    {"verbs", NULL, "", false},
    {"ucx", NULL, "", false},
    {"tcp", &tfr_tcp_ops, "", true},
};
enum { ENTRY_N = sizeof(entries) / sizeof(entries[0]) };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards loading */

static void registry_init(void)
{
    for (int i = 0; i < ENTRY_N; i++)
        if (entries[i].ops)
            tfr_transport_defaults(entries[i].ops);
}

/* The folder of the file that this code is in.  The loader names a program by its argv[0], which
 * for a worker is no path. */
static bool own_folder(char *folder, size_t room)
{
    Dl_info self;
    char *slash;

    if (!dladdr((void *)(uintptr_t)own_folder, &self) || !self.dli_fname)
        return false;
    if (strchr(self.dli_fname, '/')) {
        snprintf(folder, room, "%s", self.dli_fname);
    } else {
        ssize_t len = readlink("/proc/self/exe", folder, room - 1);
        if (len < 0)
            return false;
        folder[len] = 0;
    }
    slash = strrchr(folder, '/');
    if (slash)
        *slash = 0;
    return slash != NULL;
}

/* In TFR_PLUGINS, or beside us; false: there is none. */
static bool plugin_path(const char *name, char *path, size_t room)
{
    static const char *const under[] = {"tfr", "../lib/tfr"};
    const char *dir = tfr_env_str("TFR_PLUGINS");
    char folder[4000];

    if (dir) {
        snprintf(path, room, "%s/%s.so", dir, name);
        return access(path, R_OK) == 0;
    }
    if (!own_folder(folder, sizeof(folder)))
        return false;
    for (size_t i = 0; i < sizeof(under) / sizeof(under[0]); i++) {
        snprintf(path, room, "%s/%s/%s.so", folder, under[i], name);
        if (access(path, R_OK) == 0)
            return true;
    }
    return false;
}

/* UCX takes the signals of a crash as it is loaded; they are the application's. */
static void *plugin_open(const char *path)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};
    enum { N = sizeof(crashes) / sizeof(crashes[0]) };
    struct sigaction was[N];
    void *lib;

    for (int i = 0; i < N; i++)
        sigaction(crashes[i], NULL, &was[i]);
    lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    for (int i = 0; i < N; i++)
        sigaction(crashes[i], &was[i], NULL);
    return lib;
}

/* With the lock held.  A plugin stays for the life of the process. */
static void plugin_load(struct entry *entry)
{
    tfr_transport_plugin_fn *make = NULL;
    char path[4096];
    void *lib;

    entry->asked = true;
    if (!plugin_path(entry->name, path, sizeof(path))) {
        snprintf(entry->why, sizeof(entry->why), "lib/tfr/%s.so is not installed", entry->name);
        return;
    }
    lib = plugin_open(path);
    if (!lib) {
        snprintf(entry->why, sizeof(entry->why), "%s", dlerror());
        return;
    }
    *(void **)&make = dlsym(lib, TFR_TRANSPORT_PLUGIN);
    entry->ops = make ? make(TFR_TRANSPORT_ABI) : NULL;
    if (entry->ops)
        tfr_transport_defaults(entry->ops);
    else
        snprintf(entry->why, sizeof(entry->why), "lib/tfr/%s.so is of another release",
                 entry->name);
}

static struct entry *entry_find(const char *name)
{
    pthread_once(&once, registry_init);
    for (int i = 0; i < ENTRY_N; i++) {
        struct entry *entry = &entries[i];
        if (!name || strcmp(entry->name, name) != 0)
            continue;
        pthread_mutex_lock(&lock);
        if (!entry->asked)
            plugin_load(entry);
        pthread_mutex_unlock(&lock);
        return entry;
    }
    return NULL;
}

/* What "fault" or "fault:NAME" wraps; NULL: the name is of another kind. */
static const char *wrapped_name(const char *name)
{
    if (!name || strncmp(name, "fault", 5) != 0)
        return NULL;
    return name[5] == ':' ? name + 6 : name[5] ? NULL : "shm";
}

const struct tfr_transport_ops *tfr_transport_find(const char *name)
{
    const char *inner = wrapped_name(name);
    const struct entry *entry = entry_find(inner ? inner : name);

    if (!entry || !entry->ops)
        return NULL;
    return inner ? tfr_fault_wrap(entry->ops) : entry->ops;
}

const char *tfr_transport_why(const char *name)
{
    const char *inner = wrapped_name(name);
    const struct entry *entry = entry_find(inner ? inner : name);

    return entry ? entry->why : "there is none of that name, but shm, verbs, ucx and tcp";
}

const char *tfr_transport_name(int at)
{
    return at >= 0 && at < ENTRY_N ? entries[at].name : NULL;
}

static tfr_status no_prepare(const struct tfr_dev_cfg *cfg, struct tfr_dev **dev_out)
{
    (void)cfg, (void)dev_out;
    return TFR_E_UNSUP;
}

static void no_release(struct tfr_dev *dev)
{
    (void)dev;
}

static tfr_status no_reg(struct tfr_dev *dev, const struct tfr_area *area, struct tfr_mem **mem_out)
{
    (void)dev, (void)area, (void)mem_out;
    return TFR_E_UNSUP;
}

static void no_unreg(struct tfr_mem *mem)
{
    (void)mem;
}

static void no_key(const struct tfr_mem *mem, struct tfr_key *key_out)
{
    (void)mem;
    *key_out = (struct tfr_key){.fd = -1};
}

static tfr_status no_offer(struct tfr_offer *offer_out, const char **why_out)
{
    (void)why_out;
    *offer_out = (struct tfr_offer){0};
    return TFR_OK;
}

static void no_tell(char *text, size_t room)
{
    if (room)
        text[0] = 0;
}

static bool no_suits(const struct tfr_offer *own, const struct tfr_offer *peer,
                     const char **why_out)
{
    (void)own, (void)peer, (void)why_out;
    return true;
}

static tfr_status no_open(struct tfr_dev *dev, struct tfr_boot *boot, bool first,
                          struct tfr_link **link_out)
{
    (void)dev, (void)boot, (void)first, (void)link_out;
    return TFR_E_UNSUP;
}

static void no_link(struct tfr_link *link)
{
    (void)link;
}

static tfr_status no_import(struct tfr_link *link, const struct tfr_key *key,
                            struct tfr_peer_mem **peer_out)
{
    (void)link, (void)peer_out;
    if (key->fd >= 0)
        close(key->fd);
    return TFR_E_UNSUP;
}

static void no_forget(struct tfr_peer_mem *peer)
{
    (void)peer;
}

static void *no_addr(const struct tfr_peer_mem *peer)
{
    (void)peer;
    return NULL;
}

static tfr_status no_xfer(struct tfr_link *link, const struct tfr_xfer *xfer)
{
    (void)link, (void)xfer;
    return TFR_E_UNSUP;
}

static tfr_status no_progress(struct tfr_link *link)
{
    (void)link;
    return TFR_OK;
}

/* Right for host memory. */
static tfr_status no_land(struct tfr_link *link, const struct tfr_landing *landing)
{
    (void)link;
    if (landing->done)
        landing->done(landing->arg, TFR_OK);
    return TFR_OK;
}

static uint32_t no_busy(const struct tfr_link *link)
{
    (void)link;
    return 0;
}

static uint32_t no_spread(const struct tfr_link *link)
{
    (void)link;
    return TFR_CHANNELS - 1;
}

static void no_count(const struct tfr_link *link, struct tfr_link_count *count_out)
{
    (void)link;
    *count_out = (struct tfr_link_count){0};
}

static tfr_status no_arm(struct tfr_link *link, int *fd_out)
{
    (void)link, (void)fd_out;
    return TFR_E_UNSUP;
}

void tfr_transport_defaults(struct tfr_transport_ops *ops)
{
    const struct tfr_transport_ops no = {
        .prepare = no_prepare,
        .release = no_release,
        .reg = no_reg,
        .unreg = no_unreg,
        .key = no_key,
        .offer = no_offer,
        .suits = no_suits,
        .tell = no_tell,
        .open = no_open,
        .close = no_link,
        .import = no_import,
        .forget = no_forget,
        .addr = no_addr,
        .put = no_xfer,
        .get = no_xfer,
        .land = no_land,
        .busy = no_busy,
        .spread = no_spread,
        .count = no_count,
        .progress = no_progress,
        .arm = no_arm,
        .disarm = no_link,
        .ring = no_link,
        .forked = no_link,
    };
#define FILL(op) ops->op = ops->op ? ops->op : no.op
    FILL(prepare), FILL(release), FILL(reg), FILL(unreg), FILL(key), FILL(open), FILL(close);
    FILL(offer), FILL(suits), FILL(tell), FILL(land), FILL(busy), FILL(count), FILL(spread);
    FILL(import), FILL(forget), FILL(addr), FILL(put), FILL(get), FILL(progress);
    FILL(arm), FILL(disarm), FILL(ring), FILL(forked);
#undef FILL
}

static size_t page_round(size_t len)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    return (len + page - 1) & ~(page - 1);
}

/* Maps shared, readable and writable, exactly at `at` if that is given. */
static tfr_status shared_map(int fd, uint64_t fd_at, size_t len, void *at, void **addr_out)
{
    void *addr = mmap(at, len, PROT_READ | PROT_WRITE, MAP_SHARED | (at ? MAP_FIXED_NOREPLACE : 0),
                      fd, (off_t)fd_at);

    if (addr == MAP_FAILED && at && errno == EEXIST)
        return TFR_AGAIN;
    if (addr == MAP_FAILED)
        return tfr_fail(errno == ENOMEM ? TFR_E_NOMEM : TFR_E_SYS, "map %zu shared bytes: %s", len,
                        strerror(errno));
    if (at && addr != at) { /* a kernel before 4.17 takes the flag as a hint */
        munmap(addr, len);
        return TFR_AGAIN;
    }
    *addr_out = addr;
    return TFR_OK;
}

tfr_status tfr_memfd_create(const char *name, size_t len, void *at, struct tfr_area *area_out)
{
    size_t size = page_round(len);
    tfr_status status = TFR_E_SYS;
    void *addr = NULL;
    int fd;

    if (len == 0 || size < len)
        return tfr_fail(TFR_E_INVAL, "shared memory of %zu bytes", len);
    fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return tfr_fail(TFR_E_SYS, "memfd: %s", strerror(errno));
    if (ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0) {
        tfr_fail(status, "memfd of %zu bytes: %s", size, strerror(errno));
        goto fd_close;
    }
    status = shared_map(fd, 0, size, at, &addr);
    if (status != TFR_OK)
        goto fd_close;
    *area_out = (struct tfr_area){.kind = TFR_AREA_MEMFD, .addr = addr, .len = size, .fd = fd};
    return TFR_OK;

fd_close:
    close(fd);
    return status;
}

tfr_status tfr_memfd_map(int fd, uint64_t fd_at, size_t len, void *at, void **addr_out)
{
    const int need = F_SEAL_SHRINK | F_SEAL_GROW;
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;

    if (seals < 0 || (seals & need) != need)
        return tfr_fail(TFR_E_PROTO, "shared memory of the peer is not sealed against resizing");
    if (fstat(fd, &st) < 0)
        return tfr_fail(TFR_E_SYS, "size of the peer's memory: %s", strerror(errno));
    if (len == 0 || st.st_size < 0 || !tfr_span_inside(fd_at, len, (uint64_t)st.st_size))
        return tfr_fail(TFR_E_PROTO, "the peer shows %zu bytes and its memory has %lld", len,
                        (long long)st.st_size);
    if (fd_at != page_round(fd_at))
        return tfr_fail(TFR_E_PROTO, "the peer shows memory that begins inside a page");
    return shared_map(fd, fd_at, len, at, addr_out);
}
