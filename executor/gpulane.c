/* A lane in GPU memory: made while a session joins, tried before it is used (gputrial.c).  Each way
 * to register it that fails the trial makes room for the next one, and the last for lanes in host
 * memory. */
#define TFR_LOG_PART "executor"
#include "executor/gpulane.h"

#include <string.h>
#include <unistd.h>

#include "base/env.h"
#include "base/log.h"
#include "executor/gputrial.h"
#include "executor/place.h"
#include "executor/stat.h"

enum { GPU_SHARE = 16 /* of the device's memory at most */ };

enum way { WAY_NONE, WAY_DMABUF, WAY_PEER };
static const char *const way_names[] = {"none", "dma-buf", "peer memory"};

/* A process has one session. */
static CUmemGenericAllocationHandle handle;
static bool lost;

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
    if (lost)
        return "it broke the session's link";
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

/* The first way that works; WAY_NONE: *why_out says what is wrong with the last that was tried. */
static enum way way_find(struct tfr_session *s, struct tfr_lane *lane, const char **why_out)
{
    *why_out = NULL;
    for (enum way way = WAY_DMABUF; way <= WAY_PEER; way++) {
        if (!(way == WAY_DMABUF ? reg_dmabuf(s, lane) : reg_peer(s, lane)))
            continue;
        const char *why = tfr_gputrial_alone(s, lane);
        if (!why)
            return way;
        s->dev->ops->unreg(lane->mem);
        lane->mem = NULL;
        *why_out = why;
        TFR_STAT_ADD(gpu_refused, 1);
        tfr_warn("no lane in GPU memory by %s: %s", way_names[way], why);
    }
    if (!*why_out)
        *why_out = "the NIC registers no GPU memory: neither its dma-buf nor, where nvidia-peermem "
                   "is loaded, its addresses";
    return WAY_NONE;
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
        way = way_find(s, lane, &why);
        if (way == WAY_NONE)
            memory_free(s, lane);
    }
    if (way == WAY_NONE) {
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

tfr_status tfr_gpulane_prove(struct tfr_session *s)
{
    struct tfr_lane *host = &s->lane[0], *lane = &s->lane[1];
    const char *why;
    if (s->lane_n < 2)
        return TFR_OK;
    lane->peer_at = host->peer_at;
    lane->peer_len = host->peer_len;
    tfr_status status = tfr_gputrial_session(s, lane, &why);
    if (!why)
        return TFR_OK;
    TFR_STAT_ADD(gpu_refused, 1);
    tfr_warn("lanes in host memory: %s%s", why,
             status == TFR_OK ? ""
                              : ", and the link broke over it: TFR_GPUDIRECT=off saves the trial");
    if (status != TFR_OK)
        return status;
    /* The memory stays registered: the client has its key. */
    s->lane_n = 1;
    TFR_STAT_SET(gpu_lane, 0);
    return TFR_OK;
}

void tfr_gpulane_lost(struct tfr_session *s)
{
    tfr_gputrial_forget();
    tfr_gpulane_drop(s);
    lost = true;
}
