/* The life of the session: connect, attach to a worker, detach.  Called by cuInit, by
 * the first retain of a primary context and by the last release. Surprising: after a detach the old
 * pages stay mapped, because another thread may still look at them. */
#define TFR_LOG_PART "intercept"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "intercept/bulk.h"
#include "intercept/entry.h"
#include "intercept/gate.h"
#include "intercept/memory.h"
#include "intercept/module.h"
#include "intercept/stream.h"
#include "proto/hello.h"
#include "transport/ways.h"

struct tfr_feedback tfr_page_of_zeros;

struct tfr_client tfr_client = {
    .feedback = &tfr_page_of_zeros,
    .wake = -1,
    .poke = -1,
    .boot = {.fd = -1},
    .slots = ~0ull,
    .set_up_lock = PTHREAD_MUTEX_INITIALIZER,
    .sleep_lock = PTHREAD_MUTEX_INITIALIZER,
    .sleep_cond = PTHREAD_COND_INITIALIZER,
};
__thread struct tfr_thread tfr_thread __attribute__((tls_model("initial-exec")));

/* tf-executor looks for this name, so that it never takes us for a driver. */
extern const char tfr_stub_marker[];
__attribute__((visibility("default"))) const char tfr_stub_marker[] = "TFR libcuda stub";

/* ---- connecting ---- */

static CUresult refuse(struct tfr_boot_msg *msg)
{
    if (msg->type == TFR_BOOT_REFUSED)
        tfr_say("the executor refused this program: %.*s", (int)msg->len, (const char *)msg->body);
    else
        tfr_say("the executor spoke out of turn (message %u): is it of another release?",
                msg->type);
    tfr_boot_msg_fini(msg);
    return CUDA_ERROR_NO_DEVICE;
}

/* The next message that is not "wait": an executor that has no worker yet says so every second, so
 * the limit is one of silence. */
static tfr_status recv_queued(struct tfr_boot *boot, int limit_ms, struct tfr_boot_msg *msg_out)
{
    uint64_t begin = tfr_clock_now();
    enum tfr_log_level told = TFR_LOG_DEBUG; /* the most urgent that was said */
    for (;;) {
        tfr_status status = tfr_boot_recv(boot, msg_out, limit_ms);
        if (status != TFR_OK || msg_out->type != TFR_BOOT_QUEUED)
            return status;
        struct tfr_queued queued = {0};
        if (msg_out->len == sizeof queued)
            memcpy(&queued, msg_out->body, sizeof queued);
        tfr_boot_msg_fini(msg_out);
        uint64_t spent_s = (tfr_clock_now() - begin) / TFR_NS_PER_S;
        enum tfr_log_level level = spent_s < 10 ? TFR_LOG_INFO : TFR_LOG_WARN;
        if (spent_s < 2 || level >= told)
            continue;
        told = level;
        tfr_log_line(level, TFR_LOG_PART, "queued for %u s: place %u, %u sessions run%s",
                     (unsigned)spent_s, queued.position, queued.running,
                     queued.position ? "" : "; the executor is still starting");
    }
}

static CUresult ask_snapshot(struct tfr_boot *boot, int limit_ms)
{
    static uint8_t hello[TFR_HELLO_MAX]; /* guarded by set_up_lock; too much for a small stack */
    struct tfr_boot_msg msg = {
        .type = TFR_BOOT_HELLO, .len = tfr_hello_make(tfr_release, hello), .body = hello};
    tfr_status status = tfr_boot_send(boot, &msg, limit_ms);
    if (status == TFR_OK || status == TFR_E_PEER) /* gone: it may have said why before */
        status = recv_queued(boot, limit_ms, &msg);
    if (status != TFR_OK) {
        tfr_say("the executor did not answer within %d ms: is it alive%s?", limit_ms,
                tfr_boot_near(boot) ? "" : ", and the network between up");
        return CUDA_ERROR_NO_DEVICE;
    }
    if (msg.type != TFR_BOOT_SNAPSHOT)
        return refuse(&msg);
    if (!tfr_edition_take(msg.body, msg.len)) {
        tfr_boot_msg_fini(&msg);
        return CUDA_ERROR_NO_DEVICE;
    }
    struct tfr_snapshot *snapshot = msg.body;
    msg.body = NULL;
    tfr_boot_msg_fini(&msg);
    if (snapshot->device_n == 0 || snapshot->device_n > TFR_DEVICES_MAX) {
        tfr_say("the executor offers no device");
        free(snapshot);
        return CUDA_ERROR_NO_DEVICE;
    }
    memcpy(tfr_client.transport, snapshot->transport, sizeof tfr_client.transport - 1);
    for (uint32_t i = 0; i < snapshot->device_n; i++)
        snapshot->device[i].name[sizeof snapshot->device[i].name - 1] = 0;
    /* Kept for good: other threads read the first one without a lock. */
    if (!tfr_client.snapshot)
        tfr_visible_apply(snapshot);
    if (!tfr_client.snapshot && snapshot->device_n)
        tfr_client.snapshot = snapshot;
    else
        free(snapshot);
    return tfr_client.snapshot ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

/* Our setting, or what the executor insists on. */
static const char *transport_setting(void)
{
    const char *own = tfr_env_str("TFR_TRANSPORT"), *its = tfr_client.transport;
    return strcmp(own, "auto") == 0 && *its ? its : own;
}

/* Do kernels see pinned memory, if the executor's memory can be mapped or not? */
static void sees_set(bool mapped)
{
    atomic_store_explicit(&tfr_client.sees, mapped && tfr_perf_on("mapped"), memory_order_relaxed);
}

static CUresult connect_boot(void)
{
    const char *list = tfr_env_str("TFR_EXECUTORS");
    if (!list || !*list) {
        tfr_say(
            "no executor named: start the program with tf-run, or set TFR_EXECUTORS=tcp:HOST:PORT");
        return CUDA_ERROR_NO_DEVICE;
    }
    int limit_ms = (int)tfr_env_u64("TFR_CONNECT_MS");
    char addr[TFR_BOOT_ADDR_MAX];
    struct tfr_boot boot;
    tfr_status status = tfr_boot_connect_any(list, limit_ms, addr, &boot);
    if (status == TFR_E_PEER) {
        tfr_say("no executor reachable at %s: start one there (tf-executor --listen %s), or check "
                "address, port and firewall",
                list, strchr(list, ',') ? "ADDRESS" : list);
        return CUDA_ERROR_NO_DEVICE;
    }
    if (status != TFR_OK)
        return CUDA_ERROR_NO_DEVICE; /* said by tfr_boot_connect */
    CUresult result = ask_snapshot(&boot, limit_ms);
    if (result != CUDA_SUCCESS) {
        tfr_boot_close(&boot);
        return result;
    }
    tfr_client.boot = boot;
    /* Programs ask what devices can do long before they attach. */
    sees_set(tfr_ways_shared(transport_setting(), &boot));
    return CUDA_SUCCESS;
}

CUresult tfr_client_init(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_mutex_lock(&tfr_client.set_up_lock);
    CUresult result = (CUresult)atomic_load_explicit(&tfr_client.error, memory_order_acquire);
    if (result == CUDA_SUCCESS && tfr_client.boot.fd < 0) {
        struct tfr_holes holes;
        pthread_once(&once, tfr_exit_watch);
        tfr_holes_fill(&holes);
        result = connect_boot();
        tfr_holes_leave(&holes);
        if (result == CUDA_SUCCESS)
            tfr_context_init_all();
    }
    pthread_mutex_unlock(&tfr_client.set_up_lock);
    return result;
}

/* ---- attaching ---- */

struct set_up {
    struct tfr_dev *dev;
    struct tfr_link *link;
    struct tfr_mem *shown;
    struct tfr_peer_mem *session, *gpu; /* gpu: lane 1 */
    struct tfr_area page;
    struct tfr_chosen chosen;
    struct tfr_welcome welcome;
    uint64_t lane_len; /* of lane 0, that we use */
    int session_fd;
    uint32_t lane_n;
    bool mapped;
};

static tfr_status ways_send(int limit_ms)
{
    static struct tfr_ways ways; /* under set_up_lock */
    const char *setting = transport_setting();
    char why[TFR_WAYS_TEXT];
    if (tfr_ways_find(setting, &tfr_client.boot, &ways, why) != TFR_OK) {
        tfr_say("no transport: %s (TFR_TRANSPORT=auto takes the best that both machines share)",
                why);
        return TFR_E_ACCESS;
    }
    struct tfr_boot_msg msg = {
        .type = TFR_BOOT_ATTACH, .len = (uint32_t)(ways.n * sizeof ways.way[0]), .body = ways.way};
    return tfr_boot_send(&tfr_client.boot, &msg, limit_ms);
}

static tfr_status take_chosen(struct set_up *up, int limit_ms)
{
    struct tfr_boot_msg msg;
    tfr_status status = recv_queued(&tfr_client.boot, limit_ms, &msg);
    if (status != TFR_OK)
        return status;
    if (msg.type != TFR_BOOT_CHOSEN || msg.len != sizeof up->chosen) {
        refuse(&msg);
        return TFR_E_ACCESS;
    }
    memcpy(&up->chosen, msg.body, sizeof up->chosen);
    up->chosen.transport[sizeof up->chosen.transport - 1] = 0;
    up->chosen.why[sizeof up->chosen.why - 1] = 0;
    tfr_boot_msg_fini(&msg);
    return TFR_OK;
}

static tfr_status take_welcome(struct set_up *up, int limit_ms)
{
    struct tfr_boot_msg msg;
    tfr_status status = tfr_boot_recv(&tfr_client.boot, &msg, limit_ms);
    if (status != TFR_OK)
        return status;
    if (msg.type != TFR_BOOT_WELCOME || msg.len != sizeof up->welcome || msg.fd_n > 1) {
        refuse(&msg);
        return TFR_E_PROTO;
    }
    memcpy(&up->welcome, msg.body, sizeof up->welcome);
    up->session_fd = msg.fd_n ? msg.fds[0] : -1;
    msg.fd_n = 0;
    tfr_boot_msg_fini(&msg);
    const struct tfr_welcome *w = &up->welcome;
    bool sane = tfr_span_inside(w->page_at, sizeof(struct tfr_client_page), w->len) &&
                w->ring_size >= 4096 && !(w->ring_size & (w->ring_size - 1)) &&
                w->ring_size <= w->len && w->ring_at % 64 == 0 && w->page_at % 64 == 0 &&
                tfr_span_inside(w->ring_at, TFR_RING_AREA(w->ring_size), w->len) &&
                w->lane_at % 4096 == 0 && w->lane_len >= TFR_LANE_CHUNK &&
                tfr_span_inside(w->lane_at, w->lane_len, w->len) && w->gpu_len <= w->lane_len;
    return sane ? TFR_OK : tfr_fail(TFR_E_PROTO, "the executor's welcome makes no sense");
}

static tfr_status page_show(struct set_up *up, const struct tfr_transport_ops *ops)
{
    tfr_status status =
        tfr_memfd_create("tfr-page", sizeof(struct tfr_page_area) + (up->mapped ? 0 : up->lane_len),
                         NULL, &up->page);
    if (status == TFR_OK)
        status = ops->reg(up->dev, &up->page, &up->shown);
    return status;
}

static void page_hide(struct set_up *up)
{
    munmap(up->page.addr, up->page.len);
    close(up->page.fd);
    up->page.fd = -1;
}

/* The device, and the memory that the executor writes into: the page area, and a lane of our own
 * where we cannot map the executor's. */
static tfr_status page_make(struct set_up *up)
{
    const struct tfr_transport_ops *ops = tfr_transport_find(up->chosen.transport);
    struct tfr_dev_cfg cfg = {.numa_node = -1};
    if (!ops)
        return tfr_fail(TFR_E_PROTO, "the executor chose a transport that was not offered");
    up->mapped = ops->caps & TFR_CAP_MAPPED;
    up->lane_len = up->welcome.lane_len;
    if (!up->mapped && (ops->caps & TFR_CAP_ONESIDED))
        up->lane_len = tfr_lane_fit(up->lane_len, up->welcome.ring_size);
    tfr_status status = ops->prepare(&cfg, &up->dev);
    if (status == TFR_OK)
        status = page_show(up, ops);
    if (up->dev && status == TFR_E_LIMIT && up->lane_len > TFR_LANE_CHUNK) {
        page_hide(up);
        up->lane_len = TFR_LANE_CHUNK;
        status = page_show(up, ops);
    }
    return status;
}

static tfr_status show_page(struct set_up *up, int limit_ms)
{
    struct tfr_key key;
    up->dev->ops->key(up->shown, &key);
    struct tfr_show show = {.len = up->page.len,
                            .lane_at = up->mapped ? 0 : sizeof(struct tfr_page_area),
                            .lane_len = up->mapped ? 0 : up->lane_len};
    memcpy(show.key, key.words, sizeof show.key);
    tfr_window_get(&show.host_base, &show.host_len);
    struct tfr_boot_msg msg = {.type = TFR_BOOT_SHOW,
                               .len = sizeof show,
                               .body = &show,
                               .fds = {key.fd},
                               .fd_n = key.fd >= 0};
    return tfr_boot_send(&tfr_client.boot, &msg, limit_ms);
}

static tfr_status link_open(struct set_up *up)
{
    char why[TFR_WAYS_TEXT]; /* the worker says it, too */
    struct tfr_key key = {.len = up->welcome.len, .fd = up->session_fd};
    memcpy(key.words, up->welcome.key, sizeof key.words);
    up->session_fd = -1;
    return tfr_ways_open(up->dev, &tfr_client.boot, true, &key, &up->link, &up->session, why);
}

/* Lane 1 lies in GPU memory of the executor. */
static tfr_status gpu_import(struct set_up *up)
{
    struct tfr_key key = {.len = up->welcome.gpu_len, .fd = -1};
    memcpy(key.words, up->welcome.gpu_key, sizeof key.words);
    return key.len ? up->link->ops->import(up->link, &key, &up->gpu) : TFR_OK;
}

/* The executor moves bytes to and fro before it is ready, if it has GPU memory to try: where
 * nothing is one-sided, that needs us. */
static void ready_wait(struct set_up *up, int limit_ms)
{
    struct pollfd p = {.fd = tfr_client.boot.fd, .events = POLLIN};
    uint64_t until = tfr_clock_now() + (uint64_t)limit_ms * TFR_NS_PER_MS;
    if (!up->gpu || up->dev->ops->caps & TFR_CAP_ONESIDED)
        return;
    while (poll(&p, 1, 1) == 0 && tfr_clock_now() < until)
        if (up->link->ops->progress(up->link) != TFR_OK)
            return;
}

/* TFR_E_UNSUP: the link is of no use over there, the worker has chosen again. */
static tfr_status take_ready(struct set_up *up, int limit_ms)
{
    struct tfr_boot_msg msg = {.type = TFR_BOOT_QUEUED};
    struct tfr_ready ready;
    tfr_status status = gpu_import(up);
    while (status == TFR_OK && msg.type == TFR_BOOT_QUEUED) {
        tfr_boot_msg_fini(&msg);
        ready_wait(up, limit_ms);
        status = tfr_boot_recv(&tfr_client.boot, &msg, limit_ms);
    }
    if (status != TFR_OK)
        return status;
    if (msg.type == TFR_BOOT_CHOSEN) {
        tfr_boot_keep(&tfr_client.boot, &msg);
        return TFR_E_UNSUP;
    }
    if (msg.type != TFR_BOOT_READY || msg.len != sizeof ready) {
        refuse(&msg);
        return TFR_E_PROTO;
    }
    memcpy(&ready, msg.body, sizeof ready);
    tfr_boot_msg_fini(&msg);
    up->lane_n = ready.lane_n > 1 && up->gpu ? 2 : 1;
    return TFR_OK;
}

static void page_drop(struct set_up *up)
{
    if (up->gpu)
        up->dev->ops->forget(up->gpu);
    if (up->session)
        up->dev->ops->forget(up->session);
    if (up->link)
        up->dev->ops->close(up->link);
    if (up->shown)
        up->dev->ops->unreg(up->shown);
    if (up->dev)
        up->dev->ops->release(up->dev);
    if (up->page.fd >= 0) {
        munmap(up->page.addr, up->page.len);
        close(up->page.fd);
    }
    if (up->session_fd >= 0)
        close(up->session_fd);
    *up = (struct set_up){.session_fd = -1, .page = {.fd = -1}};
}

/* The way that the worker has chosen.  TFR_E_UNSUP: it does not work, the worker will choose
 * another, or refuse us; TFR_E_ACCESS: it has, and that has been said. */
static tfr_status way_try(struct set_up *up, int limit_ms)
{
    struct tfr_boot_msg declined = {.type = TFR_BOOT_DECLINED};
    tfr_status status = take_chosen(up, limit_ms);
    if (status == TFR_OK)
        status = take_welcome(up, limit_ms);
    if (status != TFR_OK)
        return status;
    if (page_make(up) != TFR_OK) {
        status = tfr_boot_send(&tfr_client.boot, &declined, limit_ms);
        return status == TFR_OK ? TFR_E_UNSUP : status;
    }
    status = show_page(up, limit_ms);
    if (status == TFR_OK)
        status = link_open(up);
    return status == TFR_OK ? take_ready(up, limit_ms) : status;
}

/* From here on the session's memories are where the rest of the client looks for them. */
static void memories_take(const struct set_up *up)
{
    static struct tfr_client_page image; /* of the client page, where it is not mapped */
    const struct tfr_welcome *w = &up->welcome;
    struct tfr_page_area *page = up->page.addr;
    uint8_t *session = up->mapped ? up->link->ops->addr(up->session) : NULL;
    tfr_client.dev = up->dev;
    tfr_client.link = up->link;
    tfr_client.session = up->session;
    tfr_client.shown = up->shown;
    tfr_client.mapped = up->mapped;
    sees_set(up->mapped);
    tfr_client.polled = !up->mapped && !(up->dev->ops->caps & TFR_CAP_ONESIDED);
    tfr_client.gets = up->dev->ops->caps & TFR_CAP_GET;
    tfr_client.any_local = up->dev->ops->caps & TFR_CAP_ANY_LOCAL;
    tfr_client.session_at++;
    tfr_client.reply = page->reply;
    tfr_client.text = page->text;
    tfr_client.error_text = page->error_text;
    tfr_client.lanes[0] =
        (struct tfr_client_lane){.twin = session ? session + w->lane_at : (uint8_t *)(page + 1),
                                 .len = up->lane_len,
                                 .mem = up->shown,
                                 .peer = up->session,
                                 .peer_at = w->lane_at};
    tfr_client.lanes[1] = tfr_client.lanes[0]; /* the same extents, elsewhere over there */
    tfr_client.lanes[1].len = w->gpu_len;
    tfr_client.lanes[1].peer = up->gpu;
    tfr_client.lanes[1].peer_at = 0;
    tfr_client.lane_n = up->lane_n;
    tfr_client.page = session ? (struct tfr_client_page *)(session + w->page_at) : &image;
    tfr_client.page_at = w->page_at;
    tfr_client.executor = w->pid;
}

static tfr_status attach_steps(struct set_up *up)
{
    /* Of silence.  A cold worker initialises a driver first, and the executor says meanwhile that
     * we are queued. */
    uint64_t connect_ms = tfr_env_u64("TFR_CONNECT_MS");
    int limit_ms = connect_ms > 5000 && connect_ms < 600000 ? (int)connect_ms : 5000;
    tfr_status status = ways_send(limit_ms);
    if (status != TFR_OK)
        return status;
    while ((status = way_try(up, limit_ms)) == TFR_E_UNSUP)
        page_drop(up);
    if (status != TFR_OK)
        return status;
    const char *why = up->chosen.why;
    tfr_info("transport %s%s%s%s", up->chosen.transport, *why ? " (" : "", why, *why ? ")" : "");
    const struct tfr_welcome *w = &up->welcome;
    struct tfr_page_area *page = up->page.addr;
    madvise(page, up->page.len, MADV_DONTFORK);
    memories_take(up);
    status = tfr_ring_tx_init(&tfr_client.tx, up->dev, up->link, up->session, w->ring_at,
                              w->ring_size, &page->feedback.ring_head);
    if (status == TFR_OK) {
        tfr_client.feedback = &page->feedback;
        tfr_client.open = true;
    }
    return status;
}

/* With set_up_lock, and no session. */
static CUresult attach(void)
{
    struct set_up up = {.session_fd = -1, .page = {.fd = -1}};
    CUresult result = tfr_client.boot.fd < 0 ? connect_boot() : CUDA_SUCCESS;
    tfr_status status = result == CUDA_SUCCESS ? attach_steps(&up) : TFR_OK;
    if (status != TFR_OK)
        result = tfr_client_broken(status == TFR_E_ACCESS ? NULL : "the executor gave no worker");
    if (up.page.fd >= 0)
        close(up.page.fd);
    if (result != CUDA_SUCCESS)
        return result;
    tfr_bulk_open();
    tfr_lane_init();
    tfr_copy_init();
    tfr_wakers_open();
    atomic_store_explicit(&tfr_client.linked, true, memory_order_release);
    atomic_store_explicit(&tfr_client.attached, true, memory_order_release);
    /* Without the thread the executor gets an answer when some call waits. */
    if (tfr_client.polled && tfr_tick_start() == CUDA_SUCCESS)
        tfr_tick_wake(false);
    return tfr_module_restore_all();
}

CUresult tfr_client_attach(void)
{
    pthread_mutex_lock(&tfr_client.set_up_lock);
    CUresult result = (CUresult)atomic_load_explicit(&tfr_client.error, memory_order_acquire);
    if (result == CUDA_SUCCESS &&
        !atomic_load_explicit(&tfr_client.attached, memory_order_acquire)) {
        struct tfr_holes holes;
        tfr_holes_fill(&holes);
        result = attach();
        tfr_holes_leave(&holes);
    }
    pthread_mutex_unlock(&tfr_client.set_up_lock);
    return result;
}

/* Gives the session's memory back and keeps its addresses: a thread that stages bytes into the lane
 * at this moment writes them nowhere. */
static void memory_drop(const struct tfr_peer_mem *session)
{
    if (!tfr_client.mapped)
        madvise(tfr_client.lanes[0].twin, tfr_client.lanes[0].len, MADV_REMOVE);
    else if (mmap(session->ops->addr(session), session->len, PROT_READ | PROT_WRITE,
                  MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED)
        tfr_warn("memory of the session that ended: %m");
}

/* Nobody waits for the session or posts to it any more; its link is closed, so that nothing is
 * written any more, and then its memory goes. */
static void session_end(void)
{
    const struct tfr_transport_ops *ops = tfr_client.dev->ops;
    tfr_client_quiet();
    tfr_pinned_boot_close();
    tfr_client_cut();
    tfr_gate_forget_all();
    tfr_copy_forget_all();
    tfr_stream_forget_all();
    tfr_module_forget_all();
    tfr_memory_forget_all();
    tfr_client.feedback = &tfr_page_of_zeros;
    atomic_store_explicit(&tfr_client.slots, ~0ull, memory_order_release);
    tfr_ring_tx_fini(&tfr_client.tx);
    memory_drop(tfr_client.session);
    tfr_wakers_close();
    ops->unreg(tfr_client.shown);
    ops->release(tfr_client.dev);
}

void tfr_client_detach(void)
{
    uint32_t none = 0;
    pthread_mutex_lock(&tfr_client.set_up_lock);
    tfr_context_forget_all();
    /* Ends the waits of other threads; a lost executor stays lost. */
    bool ours = atomic_compare_exchange_strong_explicit(&tfr_client.error, &none,
                                                        CUDA_ERROR_CONTEXT_IS_DESTROYED,
                                                        memory_order_acq_rel, memory_order_acquire);
    if (atomic_load_explicit(&tfr_client.attached, memory_order_acquire))
        session_end();
    if (ours)
        atomic_store_explicit(&tfr_client.error, CUDA_SUCCESS, memory_order_release);
    pthread_mutex_unlock(&tfr_client.set_up_lock);
}

__attribute__((destructor)) static void at_exit(void)
{
    if (atomic_load_explicit(&tfr_client.attached, memory_order_acquire))
        tfr_client_count();
    tfr_counters_dump();
}
