/* A lane in GPU memory: made while a session joins, proven before it is used.  Surprising: nothing
 * a driver or a kernel module says about GPUDirect is believed; bytes are moved and compared. */
#define TFR_LOG_PART "executor"
#include "executor/gpulane.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"
#include "executor/out.h"
#include "executor/place.h"
#include "executor/stat.h"

enum {
    GPU_SHARE = 16,     /* of the device's memory at most */
    PROOF = 128 << 10,  /* bytes of the pattern */
    PROOF_MS = 3000,    /* until a transfer of it has failed */
    SLOW = 8,           /* times that host memory takes: rather that, then */
    SLOW_FREE_US = 100, /* what a transfer costs besides */
    ROUNDS = 16,
};

enum way { WAY_NONE, WAY_DMABUF, WAY_PEER };
static const char *const way_names[] = {"none", "dma-buf", "peer memory"};

static CUmemGenericAllocationHandle handle; /* a process has one session */

/* ---- may there be one? ---- */

static int attribute(const struct tfr_session *s, CUdevice_attribute which)
{
    int value = 0;
    return s->cu->cuDeviceGetAttribute(&value, which, 0) == CUDA_SUCCESS ? value : 0;
}

static bool wanted(const char *word)
{
    const char *set = tfr_env_str("TFR_GPUDIRECT");
    return strcmp(set, "auto") == 0 || strcmp(set, word) == 0;
}

/* Copies of other devices use the lane as well. */
static bool reached_by_all(const struct tfr_session *s)
{
    for (CUdevice dev = 1; dev < s->device_n; dev++) {
        int can = 0;
        if (s->cu->cuDeviceCanAccessPeer(&can, dev, 0) != CUDA_SUCCESS || !can)
            return false;
    }
    return true;
}

/* NULL: nothing speaks against it. */
static const char *obstacle(const struct tfr_session *s)
{
    const struct tfr_cu *cu = s->cu;
    uint32_t caps = s->dev->ops->caps, need = TFR_CAP_GPU_MEM | TFR_CAP_GET;
    if (strcmp(tfr_env_str("TFR_GPUDIRECT"), "off") == 0)
        return "TFR_GPUDIRECT=off";
    if ((caps & need) != need)
        return "the transport does not reach GPU memory";
    if (!wanted("dmabuf") && !wanted("peer"))
        return "TFR_GPUDIRECT is none of auto, dmabuf, peer, off";
    if (tfr_place()->far && strcmp(tfr_env_str("TFR_GPUDIRECT"), "auto") == 0)
        return "GPU and NIC are far apart (TFR_GPUDIRECT=dmabuf tries all the same)";
    if (!cu->cuMemAddressReserve || !cu->cuMemCreate || !cu->cuMemMap || !cu->cuMemSetAccess)
        return "the driver has no virtual memory management";
    if (!attribute(s, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED) &&
        !attribute(s, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED))
        return "the GPU has no GPUDirect RDMA";
    return reached_by_all(s) ? NULL : "not every GPU reaches the memory of the first";
}

/* ---- memory ---- */

static CUmemAllocationProp prop_of(const struct tfr_session *s)
{
    CUmemAllocationProp prop = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    prop.allocFlags.gpuDirectRDMACapable =
        attribute(s, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED) != 0;
    return prop;
}

/* As much as pushes use of lane 0, in whole grains. */
static uint64_t length_of(const struct tfr_session *s, const CUmemAllocationProp *prop)
{
    size_t grain = 0, total = 0;
    uint64_t len = s->lane[0].len - s->lane[0].len / 4;
    if (s->cu->cuMemGetAllocationGranularity(&grain, prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM) !=
            CUDA_SUCCESS ||
        !grain || s->cu->cuDeviceTotalMem_v2(&total, 0) != CUDA_SUCCESS)
        return 0;
    len = len < total / GPU_SHARE ? len : total / GPU_SHARE;
    return len / grain * grain;
}

static void memory_free(const struct tfr_session *s, struct tfr_lane *lane)
{
    s->cu->cuMemUnmap(lane->gpu, lane->len);
    s->cu->cuMemRelease(handle);
    s->cu->cuMemAddressFree(lane->gpu, lane->len);
    *lane = (struct tfr_lane){0};
}

static CUresult access_give(const struct tfr_session *s, const struct tfr_lane *lane)
{
    CUmemAccessDesc access[TFR_DEVICES_MAX];
    for (int i = 0; i < s->device_n; i++)
        access[i] = (CUmemAccessDesc){.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = i},
                                      .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    return s->cu->cuMemSetAccess(lane->gpu, lane->len, access, (size_t)s->device_n);
}

static bool memory_make(const struct tfr_session *s, struct tfr_lane *lane)
{
    const struct tfr_cu *cu = s->cu;
    CUmemAllocationProp prop = prop_of(s);
    lane->len = length_of(s, &prop);
    if (!lane->len || cu->cuMemAddressReserve(&lane->gpu, lane->len, 0, 0, 0) != CUDA_SUCCESS)
        return false;
    if (cu->cuMemCreate(&handle, lane->len, &prop, 0) != CUDA_SUCCESS)
        goto free_addresses;
    if (cu->cuMemMap(lane->gpu, lane->len, 0, handle, 0) != CUDA_SUCCESS)
        goto release;
    if (access_give(s, lane) == CUDA_SUCCESS)
        return true;
    cu->cuMemUnmap(lane->gpu, lane->len);
release:
    cu->cuMemRelease(handle);
free_addresses:
    cu->cuMemAddressFree(lane->gpu, lane->len);
    return false;
}

/* ---- registration ---- */

static bool reg_dmabuf(struct tfr_session *s, struct tfr_lane *lane)
{
    struct tfr_area area = {.kind = TFR_AREA_DMABUF, .addr = (void *)lane->gpu, .len = lane->len};
    if (!wanted("dmabuf") || !attribute(s, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED) ||
        !s->cu->cuMemGetHandleForAddressRange ||
        s->cu->cuMemGetHandleForAddressRange(
            &area.fd, lane->gpu, lane->len, CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0) != CUDA_SUCCESS)
        return false;
    tfr_status status = s->dev->ops->reg(s->dev, &area, &lane->mem);
    close(area.fd);
    return status == TFR_OK;
}

static bool reg_peer(struct tfr_session *s, struct tfr_lane *lane)
{
    struct tfr_area area = {
        .kind = TFR_AREA_GPU, .addr = (void *)lane->gpu, .len = lane->len, .fd = -1};
    return wanted("peer") && attribute(s, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED) &&
           s->dev->ops->reg(s->dev, &area, &lane->mem) == TFR_OK;
}

void tfr_gpulane_make(struct tfr_session *s)
{
    struct tfr_lane *lane = &s->lane[1];
    const char *why = obstacle(s);
    enum way way = WAY_NONE;
    *lane = (struct tfr_lane){0};
    if (!why && !memory_make(s, lane))
        why = "the driver gives no memory for it";
    if (!why) {
        way = reg_dmabuf(s, lane) ? WAY_DMABUF : reg_peer(s, lane) ? WAY_PEER : WAY_NONE;
        if (way == WAY_NONE) {
            memory_free(s, lane);
            why = "the NIC registers no GPU memory: neither its dma-buf nor, where nvidia-peermem "
                  "is loaded, its addresses";
        }
    }
    if (why) {
        tfr_info("lanes in host memory: %s", why);
        return;
    }
    s->lane_n = 2;
    TFR_STAT_SET(gpu_lane, lane->len);
    tfr_info("lane of %llu MiB in GPU memory by %s", (unsigned long long)lane->len >> 20,
             way_names[way]);
}

void tfr_gpulane_drop(struct tfr_session *s)
{
    if (s->lane_n < 2)
        return;
    s->dev->ops->unreg(s->lane[1].mem);
    memory_free(s, &s->lane[1]);
    s->lane_n = 1;
    TFR_STAT_SET(gpu_lane, 0);
}

/* ---- the proof ---- */

struct proof {
    struct tfr_session *s;
    CUstream stream;
    uint8_t *sent, *seen; /* two places of lane 0 */
};

static void moved(void *arg, tfr_status status)
{
    atomic_store_explicit((_Atomic int *)arg, status == TFR_OK ? 1 : -1, memory_order_release);
}

/* Until *done is set by `moved`. */
static bool settle(struct tfr_session *s, _Atomic int *done)
{
    uint64_t until = tfr_clock_now() + PROOF_MS * TFR_NS_PER_MS;
    while (!atomic_load_explicit(done, memory_order_acquire)) {
        if (tfr_clock_now() > until || atomic_load_explicit(&s->ended, memory_order_acquire))
            return false;
        tfr_out_progress(s);
        sched_yield();
    }
    return atomic_load_explicit(done, memory_order_relaxed) > 0;
}

/* One transfer between `local`, inside mem, and the client's twin. */
static bool move(struct proof *p, bool get, void *local, struct tfr_mem *mem)
{
    /* Static: a transfer that never ends may still write it. */
    static _Atomic int done;
    struct tfr_session *s = p->s;
    struct tfr_xfer xfer = {.channel = 1,
                            .local = local,
                            .mem = mem,
                            .peer = s->page,
                            .peer_at = s->lane[0].peer_at,
                            .len = PROOF,
                            .done = moved,
                            .arg = &done};
    uint64_t until = tfr_clock_now() + PROOF_MS * TFR_NS_PER_MS;
    tfr_status status;
    atomic_store_explicit(&done, 0, memory_order_relaxed);
    while ((status = get ? s->link->ops->get(s->link, &xfer) : s->link->ops->put(s->link, &xfer)) ==
               TFR_AGAIN &&
           tfr_clock_now() < until)
        tfr_out_progress(s);
    return status == TFR_OK && settle(s, &done);
}

static bool land(struct proof *p)
{
    static _Atomic int done;
    struct tfr_session *s = p->s;
    struct tfr_landing landing = {.mem = s->lane[1].mem, .len = PROOF, .done = moved, .arg = &done};
    uint64_t until = tfr_clock_now() + PROOF_MS * TFR_NS_PER_MS;
    tfr_status status;
    atomic_store_explicit(&done, 0, memory_order_relaxed);
    while ((status = s->link->ops->land(s->link, &landing)) == TFR_AGAIN && tfr_clock_now() < until)
        tfr_out_progress(s);
    return status == TFR_OK && settle(s, &done);
}

static void pattern(uint8_t *at, uint32_t seed)
{
    for (uint32_t i = 0; i < PROOF; i++)
        at[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
}

/* Client -> GPU: what the GPU reads must be what the NIC wrote. */
static const char *prove_in(struct proof *p)
{
    struct tfr_session *s = p->s;
    const struct tfr_lane *host = &s->lane[0], *gpu = &s->lane[1];
    pattern(p->sent, 1);
    memset(p->seen, 0, PROOF);
    if (!move(p, false, p->sent, host->mem) || !move(p, true, (void *)gpu->gpu, gpu->mem))
        return "the NIC does not write GPU memory";
    if (!land(p))
        return "what the NIC writes cannot be flushed";
    if (s->cu->cuMemcpyDtoHAsync_v2(p->seen, gpu->gpu, PROOF, p->stream) != CUDA_SUCCESS ||
        s->cu->cuStreamSynchronize(p->stream) != CUDA_SUCCESS)
        return "the GPU does not copy out of it";
    return memcmp(p->seen, p->sent, PROOF) == 0 ? NULL
                                                : "the GPU does not see what the NIC has written";
}

/* GPU -> client. */
static const char *prove_out(struct proof *p)
{
    struct tfr_session *s = p->s;
    const struct tfr_lane *host = &s->lane[0], *gpu = &s->lane[1];
    pattern(p->sent, 2);
    memset(p->seen, 0, PROOF);
    if (s->cu->cuMemcpyHtoDAsync_v2(gpu->gpu, p->sent, PROOF, p->stream) != CUDA_SUCCESS ||
        s->cu->cuStreamSynchronize(p->stream) != CUDA_SUCCESS)
        return "the GPU does not copy into it";
    if (!move(p, false, (void *)gpu->gpu, gpu->mem) || !move(p, true, p->seen, host->mem))
        return "the NIC does not read GPU memory";
    return memcmp(p->seen, p->sent, PROOF) == 0 ? NULL
                                                : "the NIC does not see what the GPU has written";
}

/* The best of several rounds, more of them while it looks bad: a busy machine is no slow NIC. */
static const char *prove_speed(struct proof *p)
{
    const struct tfr_lane *host = &p->s->lane[0], *gpu = &p->s->lane[1];
    uint64_t best[2] = {UINT64_MAX, UINT64_MAX};
    bool slow = true;
    for (int i = 0; i < 2 * ROUNDS && (slow || i < 4); i++) {
        uint64_t begin = tfr_clock_now();
        if (!move(p, true, i & 1 ? (void *)gpu->gpu : p->seen, i & 1 ? gpu->mem : host->mem))
            return "the NIC does not write GPU memory";
        uint64_t took = tfr_clock_now() - begin;
        best[i & 1] = took < best[i & 1] ? took : best[i & 1];
        slow = best[1] > SLOW * (best[0] + SLOW_FREE_US * TFR_NS_PER_US);
    }
    tfr_info("%d KiB from the client: %.1f us into host memory, %.1f us into GPU memory",
             PROOF >> 10, (double)best[0] / 1e3, (double)best[1] / 1e3);
    return slow ? "the NIC reaches GPU memory more slowly than host memory" : NULL;
}

void tfr_gpulane_prove(struct tfr_session *s)
{
    struct tfr_lane *host = &s->lane[0], *lane = &s->lane[1];
    struct proof p = {.s = s, .sent = host->host, .seen = host->host + PROOF};
    const char *why = "the client has no room";
    if (s->lane_n < 2)
        return;
    lane->peer_at = host->peer_at;
    lane->peer_len = host->peer_len;
    if (host->peer_len >= PROOF && lane->len >= PROOF &&
        s->cu->cuStreamCreate(&p.stream, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS) {
        why = prove_in(&p);
        why = why ? why : prove_out(&p);
        why = why ? why : prove_speed(&p);
        s->cu->cuStreamDestroy_v2(p.stream);
    }
    memset(host->host, 0, 2 * PROOF);
    if (!why)
        return;
    /* The memory stays registered: a transfer that was given up may still come. */
    s->lane_n = 1;
    TFR_STAT_SET(gpu_lane, 0);
    /* A transfer that ends in an error takes the link with it, and the session. */
    if (atomic_load_explicit(&s->ended, memory_order_acquire))
        tfr_warn("the link broke while the lane in GPU memory was tried (%s): if it does so again, "
                 "start tf-executor with TFR_GPUDIRECT=off",
                 why);
    else
        tfr_warn("lanes in host memory: %s", why);
}
