/* A worker's life: load a driver, initialise it, take the snapshot, prepare the session's memory,
 * tell the parent, wait for a client, serve it, exit.  The driver, its threads and its memory die
 * with the process: that is the clean-up. */
#define TFR_LOG_PART "executor"
#include "executor/worker.h"

#include <dlfcn.h>
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "executor/place.h"
#include "executor/session.h"
#include "executor/stat.h"
#include "proto/hello.h"
#include "transport/boot.h"

enum { NOGROUP = 65534 };

struct driver {
    struct tfr_cu cu;
    char gpu[128];
    CUresult refusal; /* of the first one that is there and does not start, */
    char why[256];    /* in words */
};

/* Where a driver is looked for: by name first, then where distributions and containers put it, for
 * the case that the name leads to our own stub. */
static const char *const driver_paths[] = {"libcuda.so.1",
                                           "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
                                           "/usr/lib/aarch64-linux-gnu/libcuda.so.1",
                                           "/usr/lib64/libcuda.so.1",
                                           "/usr/local/nvidia/lib64/libcuda.so.1",
                                           "/usr/lib/wsl/lib/libcuda.so.1",
                                           "/run/opengl-driver/lib/libcuda.so.1"};

static void refusal_note(struct driver *d, const char *path, CUresult result)
{
    const char *name = NULL;
    if (d->refusal != CUDA_SUCCESS)
        return;
    if (d->cu.cuGetErrorName)
        d->cu.cuGetErrorName(result, &name);
    d->refusal = result;
    snprintf(d->why, sizeof d->why, "%s does not start: %s (%d)", path,
             name ? name : "an unknown error", (int)result);
}

static bool driver_init(struct driver *d, const char *path)
{
    int device_n = 0;
    char name[96] = "GPU";
    if (tfr_cu_load(path, &d->cu) != TFR_OK)
        return false;
    CUresult result = d->cu.cuInit(0);
    if (result == CUDA_SUCCESS)
        result = d->cu.cuDeviceGetCount(&device_n);
    if (result == CUDA_SUCCESS && device_n == 0)
        result = CUDA_ERROR_NO_DEVICE;
    if (result != CUDA_SUCCESS) {
        refusal_note(d, path, result);
        return false;
    }
    d->cu.cuDeviceGetName(name, sizeof name, 0);
    snprintf(d->gpu, sizeof d->gpu, "%s%s", name, device_n > 1 ? " and others" : "");
    return true;
}

/* A quiet look: is there a library at all, and is it not our own? */
static bool driver_there(const char *path)
{
    void *lib = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
    bool there = lib && !dlsym(lib, "tfr_stub_marker");
    if (lib)
        dlclose(lib);
    return there;
}

static bool driver_real(struct driver *d)
{
    for (size_t i = 0; i < sizeof driver_paths / sizeof driver_paths[0]; i++)
        if (driver_there(driver_paths[i]) && driver_init(d, driver_paths[i]))
            return true;
    return false;
}

/* lib/soft beside the bin folder that we lie in. */
static bool driver_soft(struct driver *d)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 64);
    if (n <= 0)
        return false;
    path[n] = 0;
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(path, '/');
        if (!slash)
            return false;
        *slash = 0;
    }
    size_t len = strlen(path);
    snprintf(path + len, sizeof path - len, "/lib/soft/libcuda.so.1");
    if (access(path, R_OK) != 0)
        snprintf(path + len, sizeof path - len, "/lib/tfr/soft/libcuda.so.1");
    return driver_init(d, path);
}

/* A driver without a GPU is nothing to speak of; any other that is there should have been taken. */
static bool driver_instead(struct driver *d)
{
    if (d->refusal != CUDA_SUCCESS && d->refusal != CUDA_ERROR_NO_DEVICE)
        tfr_warn("the software GPU is used, since %s: what does nvidia-smi say?", d->why);
    return driver_soft(d);
}

static bool driver_find(struct driver *d, enum tfr_gpu_choice choice)
{
    switch (choice) {
    case TFR_GPU_CUDA:
        return driver_real(d);
    case TFR_GPU_SOFT:
        return driver_soft(d);
    case TFR_GPU_AUTO:
        return driver_real(d) || driver_instead(d);
    }
    return false;
}

/* Why not, and what to do. */
static const char *driver_lack(struct driver *d, enum tfr_gpu_choice choice)
{
    size_t len = strlen(d->why);
    if (choice == TFR_GPU_CUDA && len)
        snprintf(d->why + len, sizeof d->why - len,
                 ": what does nvidia-smi say?  --gpu soft runs without a GPU");
    else if (choice == TFR_GPU_CUDA)
        return "no NVIDIA driver with a GPU was found (libcuda.so.1); --gpu soft runs without one";
    else if (!len)
        return "neither a GPU nor lib/soft/libcuda.so.1 beside tf-executor";
    return d->why;
}

static void snapshot_device(const struct tfr_cu *cu, CUdevice dev, struct tfr_snapshot_device *out)
{
    CUuuid uuid;
    size_t total = 0;
    cu->cuDeviceGetName(out->name, sizeof out->name, dev);
    if (cu->cuDeviceGetUuid_v2 && cu->cuDeviceGetUuid_v2(&uuid, dev) == CUDA_SUCCESS)
        memcpy(out->uuid, &uuid, sizeof out->uuid);
    cu->cuDeviceTotalMem_v2(&total, dev);
    out->total_mem = total;
    for (int i = 1; i < TFR_ATTRIBUTES; i++) {
        int value = 0;
        if (cu->cuDeviceGetAttribute(&value, (CUdevice_attribute)i, dev) == CUDA_SUCCESS)
            out->attribute[i] = value;
    }
}

static void snapshot_peer(const struct tfr_cu *cu, CUdevice dev, CUdevice peer, int8_t *out)
{
    int value = 0;
    if (dev == peer)
        return;
    if (cu->cuDeviceCanAccessPeer(&value, dev, peer) == CUDA_SUCCESS)
        out[0] = value != 0;
    for (int i = 1; i < TFR_PEER_ATTRIBUTES; i++)
        if (cu->cuDeviceGetP2PAttribute(&value, (CUdevice_P2PAttribute)i, dev, peer) ==
            CUDA_SUCCESS)
            out[i] = value > 127 ? 127 : (int8_t)value;
}

static void snapshot_take(const struct tfr_cu *cu, struct tfr_snapshot *out)
{
    int version = 0, device_n = 0;
    cu->cuDriverGetVersion(&version);
    cu->cuDeviceGetCount(&device_n);
    memset(out, 0, sizeof *out);
    out->driver_version = (uint32_t)version;
    out->device_n = device_n > TFR_DEVICES_MAX ? TFR_DEVICES_MAX : (uint32_t)device_n;
    cu->cuCtxGetStreamPriorityRange(&out->priority_least, &out->priority_greatest);
    for (uint32_t i = 0; i < out->device_n; i++) {
        snapshot_device(cu, (CUdevice)i, &out->device[i]);
        for (uint32_t k = 0; k < out->device_n; k++)
            snapshot_peer(cu, (CUdevice)i, (CUdevice)k, out->device[i].peer[k]);
    }
}

/* The context that the lane and the mirror are registered with; clients find it warm. */
static CUresult context_warm(struct tfr_session *s, const struct tfr_cu *cu)
{
    CUcontext ctx;
    CUresult result = cu->cuDevicePrimaryCtxRetain(&ctx, 0);
    if (result == CUDA_SUCCESS)
        result = cu->cuCtxSetCurrent(ctx);
    if (result == CUDA_SUCCESS)
        s->ctx[0] = ctx;
    return result;
}

static tfr_status fail(struct tfr_boot *parent, const char *text)
{
    struct tfr_boot_msg msg = {.type = TFR_WORKER_FAILED,
                               .len = (uint32_t)strlen(text) + 1,
                               .body = (void *)(uintptr_t)text};
    tfr_boot_send(parent, &msg, 1000);
    return TFR_E_UNSUP;
}

/* All news comes by values that streams write. */
static bool marks_work(const struct tfr_cu *cu)
{
    static const CUdevice_attribute wide[] = {CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS,
                                              CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS_V1};
    int value = 0;
    for (size_t i = 0; i < sizeof wide / sizeof wide[0]; i++)
        if (cu->cuDeviceGetAttribute(&value, wide[i], 0) == CUDA_SUCCESS && value)
            return true;
    return false;
}

static tfr_status prepare(struct tfr_boot *parent, enum tfr_gpu_choice choice, const char *pin,
                          struct driver *d, struct tfr_session *s)
{
    if (!driver_find(d, choice))
        return fail(parent, driver_lack(d, choice));
    /* Behind the driver's start, for which it may need nvidia-modprobe, a setuid program; before
     * anything of a client is heard. */
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (!d->cu.cuStreamWriteValue64_v2 || !d->cu.cuLibraryLoadData)
        return fail(parent, "the driver is older than CUDA 12: update it");
    if (!marks_work(&d->cu))
        return fail(parent, "this GPU's streams cannot write 64-bit values, which TFR is built on");
    tfr_place_init(&d->cu, pin);
    if (context_warm(s, &d->cu) != CUDA_SUCCESS)
        return fail(parent, "the GPU gives no context: is it in exclusive use?");
    if (tfr_session_prepare(s, &d->cu) != TFR_OK)
        return fail(parent, "no memory for a session: see the lines above");
    return TFR_OK;
}

static tfr_status ready(struct tfr_boot *parent, const struct driver *d)
{
    static struct {
        struct tfr_worker_ready ready;
        struct tfr_snapshot snapshot;
    } body;
    memcpy(body.ready.gpu, d->gpu, sizeof body.ready.gpu);
    tfr_place_draw(&d->cu, body.ready.place, sizeof body.ready.place);
    snapshot_take(&d->cu, &body.snapshot);
    struct tfr_boot_msg msg = {.type = TFR_WORKER_READY, .len = sizeof body, .body = &body};
    return tfr_boot_send(parent, &msg, 3000);
}

/* Until the parent hands a client over; it may take days. */
static tfr_status client_take(struct tfr_boot *parent, struct tfr_boot *client_out,
                              struct tfr_ways *ways_out)
{
    struct pollfd p = {.fd = parent->fd, .events = POLLIN};
    while (poll(&p, 1, -1) < 0 && errno == EINTR)
        ;
    struct tfr_boot_msg msg;
    tfr_status status = tfr_boot_recv(parent, &msg, 1000);
    if (status != TFR_OK)
        return status;
    const struct tfr_worker_client *client = msg.body;
    bool right = msg.type == TFR_WORKER_CLIENT && msg.fd_n == 1 && msg.len == sizeof *client &&
                 (!client->sealed || tfr_sodium()) &&
                 tfr_ways_take(client->attach, client->attach_len, ways_out);
    *client_out = (struct tfr_boot){.fd = right ? msg.fds[0] : -1};
    if (right && client->sealed)
        client_out->seal = malloc(sizeof client->seal);
    if (client_out->seal)
        *client_out->seal = client->seal;
    if (right) {
        right = !client->sealed || client_out->seal;
        msg.fd_n = 0;
    }
    explicit_bzero(msg.body, msg.len);
    tfr_boot_msg_fini(&msg);
    return right ? TFR_OK : TFR_E_PROTO;
}

/* Root's executor serves others as themselves: what a driver may be made to do it does as the
 * program's user, with a cache of compiled code of that user's.  Nothing of a driver is loaded yet.
 */
static bool user_become(uid_t uid)
{
    const struct rlimit all = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};
    const struct passwd *user;
    gid_t gid = NOGROUP;
    if (uid == geteuid())
        return true;
    user = getpwuid(uid);
    if (user)
        gid = user->pw_gid;
    setrlimit(RLIMIT_MEMLOCK, &all); /* as for root: lanes and ring are locked for the NIC */
    if (user ? setenv("HOME", user->pw_dir, 1) : unsetenv("HOME"))
        return false;
    return (user ? initgroups(user->pw_name, gid) : setgroups(0, NULL)) == 0 &&
           setresgid(gid, gid, gid) == 0 && setresuid(uid, uid, uid) == 0;
}

int tfr_worker_main(const struct tfr_worker_cfg *cfg)
{
    /* Big (tables of handles and words): one per process, not on the stack. */
    static struct tfr_session session;
    static struct driver driver;
    static struct tfr_ways ways;
    struct tfr_boot parent = {.fd = cfg->fd}, client;
    tfr_stat_open(cfg->stat_fd);
    if (!user_become(cfg->uid)) {
        fail(&parent, "it cannot become the program's user");
        return 1;
    }
    /* The parent's death is ours; it may have died before this line. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_NAME, "tf-worker");
    if (tfr_boot_gone(&parent))
        return 1;
    if (prepare(&parent, cfg->gpu, cfg->pin, &driver, &session) != TFR_OK ||
        ready(&parent, &driver) != TFR_OK || client_take(&parent, &client, &ways) != TFR_OK)
        return 1;
    if (tfr_session_join(&session, client, &ways) == TFR_OK && tfr_text_open(&session) == TFR_OK)
        tfr_session_serve(&session);
    /* Threads may sit in driver calls: leave without tear-down, the kernel and the driver clean up.
     */
    fflush(NULL);
    _exit(0);
}
