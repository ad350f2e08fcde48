/* A session's memory, its joining to a client, and how one record is run and answered. */
#define TFR_LOG_PART "executor"
#include "executor/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "executor/gpulane.h"
#include "executor/place.h"
#include "executor/pump.h"
#include "tfr_ops.h"
#include "transport/boot.h"

static const size_t huge_page = 2u << 20;
enum { JOIN_MAX_MS = 3600000 };

/* The current context of this thread, so that it is set only when it changes. */
static __thread uint16_t current;
static __thread uint64_t current_life;

CUresult tfr_session_enter(struct tfr_session *s, uint16_t ctx)
{
    /* Without a context of its own a record runs in the warm one: libraries are loaded before there
     * is any. */
    if (ctx == 0)
        ctx = 1;
    if (ctx > TFR_CONTEXTS_MAX || !s->ctx[ctx - 1])
        return CUDA_ERROR_INVALID_CONTEXT;
    if (current == ctx && current_life == s->ctx_life[ctx - 1])
        return CUDA_SUCCESS;
    CUresult result = s->cu->cuCtxSetCurrent(s->ctx[ctx - 1]);
    current = result == CUDA_SUCCESS ? ctx : 0;
    current_life = s->ctx_life[ctx - 1];
    return result;
}

uint16_t tfr_session_entered(void)
{
    return current;
}

CUdevice tfr_session_device(const struct tfr_session *s, const struct tfr_rec *rec)
{
    return rec->ctx && rec->ctx <= TFR_CONTEXTS_MAX ? s->ctx_device[rec->ctx - 1] : 0;
}

/* ---- memory ---- */

static uint64_t round_up(uint64_t len, uint64_t to)
{
    return (len + to - 1) / to * to;
}

static uint64_t ring_size(void)
{
    uint64_t want = tfr_env_u64("TFR_RING_SIZE"), size = 64 << 10;
    while (size < want && size < 1ull << 30)
        size *= 2;
    return size;
}

/* The GPU waits on words of the client page. */
static tfr_status page_register(struct tfr_session *s)
{
    CUresult result =
        s->cu->cuMemHostRegister_v2(s->client_page, sizeof *s->client_page,
                                    CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP);
    if (result == CUDA_SUCCESS)
        result = s->cu->cuMemHostGetDevicePointer_v2(&s->gate_gpu, s->client_page->gate, 0);
    return result == CUDA_SUCCESS
               ? TFR_OK
               : tfr_fail(TFR_E_UNSUP, "the driver does not map host memory (error %d)",
                          (int)result);
}

/* Pinned for the GPU's copy engine: a copy into pageable memory would hold up the pump until its
 * stream is there. */
static tfr_status lane_register(struct tfr_session *s)
{
    const struct tfr_lane *lane = &s->lane[0];
    CUresult result = s->cu->cuMemHostRegister_v2(
        lane->host, lane->len, CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP);
    return result == CUDA_SUCCESS
               ? TFR_OK
               : tfr_fail(TFR_E_UNSUP,
                          "the driver does not pin the lane of %llu bytes (error %d): a smaller "
                          "TFR_LANE_SIZE may do",
                          (unsigned long long)lane->len, (int)result);
}

static tfr_status mirror_make(struct tfr_session *s)
{
    size_t len = 2 * TFR_STREAM_SLOTS * sizeof(uint64_t);
    s->mirror =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (s->mirror == MAP_FAILED)
        return tfr_fail(TFR_E_NOMEM, "mirror of the stream words: %m");
    CUresult result = s->cu->cuMemHostRegister_v2(
        (void *)s->mirror, len, CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP);
    if (result == CUDA_SUCCESS)
        result = s->cu->cuMemHostGetDevicePointer_v2(&s->mirror_gpu, (void *)s->mirror, 0);
    if (result != CUDA_SUCCESS)
        return tfr_fail(TFR_E_UNSUP, "the driver does not map host memory (error %d)", (int)result);
    return TFR_OK;
}

tfr_status tfr_session_prepare(struct tfr_session *s, const struct tfr_cu *cu)
{
    int device_n = 0;
    s->cu = cu;
    s->boot.fd = -1;
    pthread_mutex_init(&s->objects_lock, NULL);
    pthread_mutex_init(&s->ctx_lock, NULL);
    pthread_mutex_init(&s->fence_lock, NULL);
    pthread_mutex_init(&s->sticky_lock, NULL);
    pthread_mutex_init(&s->out_lock, NULL);
    pthread_mutex_init(&s->deliveries_lock, NULL);
    s->deliveries_last = &s->deliveries;
    pthread_mutex_init(&s->lease_lock, NULL);
    pthread_rwlock_init(&s->host_lock, NULL);
    tfr_park_init(s);
    cu->cuDeviceGetCount(&device_n);
    s->device_n = device_n > TFR_DEVICES_MAX ? TFR_DEVICES_MAX : device_n;

    uint64_t ring = ring_size();
    uint64_t lane_at = round_up(sizeof *s->client_page + TFR_RING_AREA(ring), huge_page);
    uint64_t lane_len = round_up(tfr_env_u64("TFR_LANE_SIZE"), huge_page);
    if (!lane_len)
        lane_len = huge_page;
    tfr_status status = tfr_memfd_create("tfr-session", lane_at + lane_len, NULL, &s->area);
    if (status != TFR_OK)
        return status;
    uint8_t *base = s->area.addr;
    madvise(base, s->area.len, MADV_POPULATE_WRITE);
    s->client_page = (struct tfr_client_page *)base;
    tfr_ring_rx_init(&s->rx, base + sizeof *s->client_page, ring);
    s->lane[0] = (struct tfr_lane){.len = lane_len, .host = base + lane_at, .mem_at = lane_at};
    s->lane_n = 1;
    s->record = aligned_alloc(64, ring / 8);
    if (!s->record)
        return tfr_fail(TFR_E_NOMEM, "record buffer");
    status = lane_register(s);
    if (status == TFR_OK)
        status = page_register(s);
    return status == TFR_OK ? mirror_make(s) : status;
}

/* ---- joining ---- */

static tfr_status device_open(struct tfr_session *s, const struct tfr_transport_ops *ops)
{
    struct tfr_dev_cfg cfg = {.numa_node = tfr_place()->node, .name = tfr_place_nics()};
    tfr_status status = ops->prepare(&cfg, &s->dev);
    if (status == TFR_OK)
        status = ops->reg(s->dev, &s->area, &s->session_mem);
    s->lane[0].mem = s->session_mem;
    s->mapped = ops->caps & TFR_CAP_MAPPED;
    s->polled = !s->mapped && !(ops->caps & TFR_CAP_ONESIDED);
    return status;
}

static tfr_status welcome_send(struct tfr_session *s)
{
    uint8_t *base = s->area.addr;
    struct tfr_key key, gpu = {.len = 0};
    s->dev->ops->key(s->session_mem, &key);
    if (s->lane_n > 1)
        s->dev->ops->key(s->lane[1].mem, &gpu);
    struct tfr_welcome w = {.len = s->area.len,
                            .page_at = 0,
                            .ring_at = sizeof *s->client_page,
                            .ring_size = s->rx.size,
                            .lane_at = (uint64_t)(s->lane[0].host - base),
                            .lane_len = s->lane[0].len,
                            .gpu_len = s->lane_n > 1 ? s->lane[1].len : 0,
                            .pid = getpid()};
    memcpy(w.key, key.words, sizeof w.key);
    memcpy(w.gpu_key, gpu.words, sizeof w.gpu_key);
    struct tfr_boot_msg msg = {.type = TFR_BOOT_WELCOME,
                               .len = sizeof w,
                               .body = &w,
                               .fds = {key.fd},
                               .fd_n = key.fd >= 0};
    return tfr_boot_send(&s->boot, &msg, 3000);
}

/* For all ways; the client registers memory meanwhile. */
static uint64_t join_limit(void)
{
    uint64_t ms = tfr_env_u64("TFR_JOIN_MS");
    return tfr_clock_now() + (ms < JOIN_MAX_MS ? ms : JOIN_MAX_MS) * TFR_NS_PER_MS;
}

/* TFR_E_UNSUP: the client cannot go this way after all.  A worker is not for who is slow to say so
 * of each. */
static tfr_status show_take(struct tfr_session *s, uint64_t until_ns, struct tfr_key *key_out)
{
    struct tfr_boot_msg msg;
    uint64_t now = tfr_clock_now();
    int left_ms = now < until_ns ? (int)((until_ns - now) / TFR_NS_PER_MS) : 0;
    tfr_status status = tfr_boot_recv(&s->boot, &msg, left_ms);
    if (status != TFR_OK)
        return status;
    struct tfr_show show;
    if (msg.type == TFR_BOOT_DECLINED) {
        tfr_boot_msg_fini(&msg);
        return TFR_E_UNSUP;
    }
    if (msg.type != TFR_BOOT_SHOW || msg.len != sizeof show || msg.fd_n > 1) {
        tfr_boot_msg_fini(&msg);
        return tfr_fail(TFR_E_PROTO, "the client shows no page");
    }
    memcpy(&show, msg.body, sizeof show);
    bool sane = show.len >= sizeof(struct tfr_page_area) &&
                (s->mapped ||
                 (show.lane_at >= sizeof(struct tfr_page_area) && show.lane_len <= s->lane[0].len &&
                  tfr_span_inside(show.lane_at, show.lane_len, show.len)));
    if (sane) {
        *key_out = (struct tfr_key){.len = show.len, .fd = msg.fd_n ? msg.fds[0] : -1};
        memcpy(key_out->words, show.key, sizeof key_out->words);
        s->lane[0].peer_at = show.lane_at;
        s->lane[0].peer_len = show.lane_len;
        msg.fd_n = 0;
    }
    tfr_boot_msg_fini(&msg);
    return sane ? TFR_OK
                : tfr_fail(TFR_E_PROTO, "the client's page has %llu bytes",
                           (unsigned long long)show.len);
}

/* Our own copy of the page area: what is to be written there is written here first. */
static tfr_status image_make(struct tfr_session *s)
{
    struct tfr_area area = {.kind = TFR_AREA_HOST, .len = sizeof(struct tfr_page_area), .fd = -1};
    area.addr = mmap(NULL, area.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area.addr == MAP_FAILED)
        return tfr_fail(TFR_E_NOMEM, "image of the client's page: %m");
    s->image = area.addr;
    return s->dev->ops->reg(s->dev, &area, &s->image_mem);
}

static void device_close(struct tfr_session *s)
{
    tfr_gpulane_drop(s);
    if (s->image_mem)
        s->dev->ops->unreg(s->image_mem);
    if (s->image)
        munmap(s->image, sizeof *s->image);
    if (s->session_mem)
        s->dev->ops->unreg(s->session_mem);
    if (s->dev)
        s->dev->ops->release(s->dev);
    s->image_mem = s->session_mem = NULL;
    s->image = NULL;
    s->dev = NULL;
}

static tfr_status text_send(struct tfr_session *s, uint32_t type, const char *text)
{
    struct tfr_boot_msg msg = {
        .type = type, .len = (uint32_t)strlen(text), .body = (void *)(uintptr_t)text};
    return tfr_boot_send(&s->boot, &msg, 3000);
}

static tfr_status chosen_send(struct tfr_session *s, const char *name, const char *why)
{
    struct tfr_chosen chosen = {0};
    memcpy(chosen.transport, name, strnlen(name, sizeof chosen.transport - 1));
    memcpy(chosen.why, why, strnlen(why, sizeof chosen.why - 1));
    struct tfr_boot_msg msg = {.type = TFR_BOOT_CHOSEN, .len = sizeof chosen, .body = &chosen};
    return tfr_boot_send(&s->boot, &msg, 3000);
}

/* TFR_E_UNSUP: it does not work; `cause` says why, and the client waits for the next choice. */
static tfr_status way_try(struct tfr_session *s, const struct tfr_transport_ops *ops,
                          const char *name, uint64_t until_ns, const char *why, char *cause)
{
    struct tfr_key key;
    tfr_status status = device_open(s, ops);
    if (status == TFR_OK && !s->mapped)
        status = image_make(s);
    if (status != TFR_OK) {
        snprintf(cause, TFR_WAYS_TEXT, "the executor could not prepare it (%s)",
                 tfr_status_str(status));
        return TFR_E_UNSUP;
    }
    tfr_gpulane_make(s);
    status = chosen_send(s, name, why);
    if (status == TFR_OK)
        status = welcome_send(s);
    if (status == TFR_OK)
        status = show_take(s, until_ns, &key);
    if (status == TFR_OK)
        return tfr_ways_open(s->dev, &s->boot, false, &key, &s->link, &s->page, cause);
    snprintf(cause, TFR_WAYS_TEXT, "the client could not prepare it");
    return status;
}

/* With a lane in GPU memory that has proved itself over the open link.  A link that breaks over
 * that is opened anew, without: the client still waits for READY. */
static tfr_status way_prove(struct tfr_session *s, const struct tfr_transport_ops *ops,
                            const char *name, const char *why, char *cause)
{
    if (tfr_gpulane_prove(s) == TFR_OK)
        return TFR_OK;
    if (tfr_boot_gone(&s->boot))
        return TFR_E_PEER;
    ops->forget(s->page);
    ops->close(s->link);
    tfr_gpulane_lost(s);
    device_close(s);
    return way_try(s, ops, name, join_limit(), why, cause);
}

static tfr_status way_find(struct tfr_session *s, const struct tfr_ways *ways)
{
    const char *setting = tfr_env_str("TFR_TRANSPORT");
    const struct tfr_transport_ops *ops;
    char why[TFR_WAYS_TEXT] = "", cause[TFR_WAYS_TEXT], text[TFR_WAYS_TEXT + 64];
    uint64_t until_ns = join_limit();
    uint32_t at = 0;
    while ((ops = tfr_ways_next(ways, setting, &s->boot, &at, why))) {
        const char *name = ways->way[at - 1].name;
        tfr_status status = way_try(s, ops, name, until_ns, why, cause);
        if (status == TFR_E_UNSUP && tfr_place_elsewhere()) {
            device_close(s);
            status = way_try(s, ops, name, until_ns, why, cause);
        }
        if (status == TFR_OK)
            status = way_prove(s, ops, name, why, cause);
        if (status == TFR_OK) {
            tfr_info("transport %s%s%s%s", name, *why ? " (" : "", why, *why ? ")" : "");
            return TFR_OK;
        }
        device_close(s);
        if (status != TFR_E_UNSUP)
            return status;
        tfr_ways_note(why, name, cause);
    }
    snprintf(text, sizeof text, "client and executor share no transport: %s", why);
    text_send(s, TFR_BOOT_REFUSED, text);
    return tfr_fail(TFR_E_UNSUP, "%s", text);
}

tfr_status tfr_session_join(struct tfr_session *s, struct tfr_boot boot,
                            const struct tfr_ways *ways)
{
    s->boot = boot;
    tfr_status status = way_find(s, ways);
    if (status != TFR_OK)
        return status;
    struct tfr_page_area *area = s->mapped ? s->dev->ops->addr(s->page) : s->image;
    s->feedback = &area->feedback;
    s->reply = area->reply;
    s->text = area->text;
    s->error_text = area->error_text;
    struct tfr_ready body = {.lane_n = s->lane_n};
    struct tfr_boot_msg ready = {.type = TFR_BOOT_READY, .len = sizeof body, .body = &body};
    return tfr_boot_send(&s->boot, &ready, 3000);
}

void tfr_session_serve(struct tfr_session *s)
{
    if (tfr_news_start(s) == TFR_OK)
        tfr_pump_run(s);
    atomic_store_explicit(&s->ended, 1, memory_order_release);
}

/* ---- one record ---- */

void *tfr_reply_room(struct tfr_reply *reply, uint32_t len)
{
    const uint32_t room = sizeof(((struct tfr_reply_slot *)0)->payload);
    if (!reply->payload || len > room - reply->len)
        return NULL;
    void *at = reply->payload + reply->len;
    memset(at, 0, len);
    reply->len += (len + 7) & ~7u;
    if (reply->len > room)
        reply->len = room;
    return at;
}

CUresult tfr_session_bad(struct tfr_session *s, const struct tfr_rec *rec, const char *reason)
{
    if (!atomic_exchange_explicit(&s->ended, 1, memory_order_acq_rel))
        tfr_fail(TFR_E_PROTO, "record %llu (%s, %u bytes): %s: the session ends",
                 (unsigned long long)rec->seq, tfr_op_name(rec->op), rec->size, reason);
    return CUDA_ERROR_INVALID_VALUE;
}

bool tfr_result_is_fatal(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_CONTAINED:
        return true;
    default:
        return false;
    }
}

static void run_asked(struct tfr_session *s, const struct tfr_op_info *info,
                      const struct tfr_rec *rec)
{
    if (rec->size < sizeof(struct tfr_asked_req) ||
        ((const struct tfr_asked_req *)rec)->slot >= TFR_REPLY_SLOTS) {
        tfr_session_bad(s, rec, "no reply slot");
        return;
    }
    uint32_t slot = ((const struct tfr_asked_req *)rec)->slot;
    /* pairs with the release in tfr_news_reply */
    atomic_load_explicit(&s->answered[slot], memory_order_acquire);
    struct tfr_reply reply = {.payload = s->reply[slot].payload};
    CUresult result = (CUresult)atomic_load_explicit(&s->sticky, memory_order_acquire);
    if (result == CUDA_SUCCESS)
        result = tfr_session_enter(s, rec->op == TFR_OP_context ? 0 : rec->ctx);
    if (result == CUDA_SUCCESS)
        result = info->run(s, rec, &reply);
    if (result == TFR_RESULT_PARK) {
        tfr_park_keep(s, info, rec);
        if (rec->op != TFR_OP_stream_query)
            return; /* answered when it has been run */
        result = CUDA_ERROR_NOT_READY;
    }
    if (tfr_result_is_fatal(result))
        tfr_session_sticky(s, result, rec);
    tfr_news_reply(s, slot, rec->seq, result, reply.len);
}

void tfr_session_run(struct tfr_session *s, const struct tfr_op_info *info,
                     const struct tfr_rec *rec)
{
    if (info->wants_reply) {
        run_asked(s, info, rec);
        return;
    }
    if (atomic_load_explicit(&s->sticky, memory_order_acquire))
        return; /* after a failure nothing more is executed */
    CUresult result = tfr_session_enter(s, rec->ctx);
    if (result == CUDA_SUCCESS)
        result = info->run(s, rec, &(struct tfr_reply){0});
    if (__builtin_expect(result == CUDA_SUCCESS, 1))
        return;
    if (result == TFR_RESULT_PARK)
        tfr_park_keep(s, info, rec);
    else if (!atomic_load_explicit(&s->ended, memory_order_acquire))
        tfr_session_sticky(s, result, rec);
}
