/* Handlers of windows and leases: reserved addresses, and the chunks of memory that back them.
 *
 * The client decides where a chunk lies and when it goes; everything it says is checked against the
 * table of chunks that stands here, so that the worst it can do is to fault its own kernels.
 * Helpers run these: the driver may wait for the GPU. */
#define TFR_LOG_PART "executor"
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "executor/session.h"
#include "executor/stat.h"
#include "tfr_dispatch_decl.h"

enum { CHUNKS_MAX = 1 << 16 };

static struct tfr_lease *lease_of(struct tfr_session *s, uint32_t device)
{
    return device < (uint32_t)s->device_n ? &s->lease[device] : NULL;
}

/* What chunks are made of.  Properties are frozen with the memory: peers, exports and NICs may want
 * it later, so it is as capable as the device says it can be. */
static CUmemAllocationProp prop_of(struct tfr_session *s, uint32_t device, bool plain)
{
    int fd = 0, rdma = 0;
    CUmemAllocationProp prop = {
        .type = CU_MEM_ALLOCATION_TYPE_PINNED,
        .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = (int)device}};
    if (plain)
        return prop;
    s->cu->cuDeviceGetAttribute(
        &fd, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, (CUdevice)device);
    s->cu->cuDeviceGetAttribute(&rdma, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED,
                                (CUdevice)device);
    prop.requestedHandleTypes =
        fd ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR : CU_MEM_HANDLE_TYPE_NONE;
    prop.allocFlags.gpuDirectRDMACapable = rdma ? 1 : 0;
    return prop;
}

/* ---- the window ---- */

static bool driver_can(const struct tfr_cu *cu)
{
    return cu->cuMemAddressReserve && cu->cuMemAddressFree && cu->cuMemCreate && cu->cuMemRelease &&
           cu->cuMemMap && cu->cuMemUnmap && cu->cuMemSetAccess &&
           cu->cuMemGetAllocationGranularity;
}

/* The first base that the driver gives; it takes an address for a hint. */
static uint64_t reserve_any(struct tfr_session *s, const struct tfr_window_req *req, uint64_t align)
{
    for (uint32_t i = 0; i < req->base_n; i++) {
        CUdeviceptr at = 0;
        if (!req->base[i] || req->base[i] % align ||
            s->cu->cuMemAddressReserve(&at, req->len, align, req->base[i], 0) != CUDA_SUCCESS)
            continue;
        if (at == req->base[i])
            return at;
        s->cu->cuMemAddressFree(at, req->len);
    }
    return 0;
}

CUresult do_window(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    const struct tfr_window_req *req = (const struct tfr_window_req *)rec;
    struct tfr_window_rep *rep = tfr_reply_room(reply, sizeof *rep);
    struct tfr_lease *lease = lease_of(s, req->device);
    if (!lease || req->base_n > TFR_WINDOW_TRIES || !req->len)
        return tfr_session_bad(s, rec, "no such device, or too many addresses");
    if (!driver_can(s->cu))
        return CUDA_ERROR_NOT_SUPPORTED;
    CUmemAllocationProp prop = prop_of(s, req->device, false);
    size_t granularity = 0;
    pthread_mutex_lock(&s->lease_lock);
    CUresult result = lease->len ? CUDA_ERROR_INVALID_VALUE
                                 : s->cu->cuMemGetAllocationGranularity(
                                       &granularity, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    if (result != CUDA_SUCCESS && !lease->len) {
        lease->plain = true;
        prop = prop_of(s, req->device, true);
        result = s->cu->cuMemGetAllocationGranularity(&granularity, &prop,
                                                      CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    }
    if (result == CUDA_SUCCESS && granularity && req->len % granularity == 0) {
        lease->base = reserve_any(s, req, granularity);
        lease->len = lease->base ? req->len : 0;
        lease->granularity = granularity;
        if (lease->len) /* pairs with the acquire in tfr_hop_possible */
            atomic_fetch_or_explicit(&s->windows, 1u << req->device, memory_order_release);
    }
    rep->base = lease->base;
    rep->granularity = granularity;
    pthread_mutex_unlock(&s->lease_lock);
    return result;
}

/* ---- chunks ---- */

/* Index of the first chunk that begins at or behind `at`. */
static uint32_t chunk_find(const struct tfr_lease *lease, uint64_t at)
{
    uint32_t lo = 0, hi = lease->chunk_n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (lease->chunk[mid].at < at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* May a chunk lie there?  And there is room in the table for it. */
static bool chunk_fits(struct tfr_lease *lease, uint64_t at, uint64_t len)
{
    if (!lease->len || !len || at < lease->base || at % lease->granularity ||
        len % lease->granularity || !tfr_span_inside(at - lease->base, len, lease->len))
        return false;
    uint32_t i = chunk_find(lease, at);
    if ((i < lease->chunk_n && lease->chunk[i].at - at < len) ||
        (i > 0 && at - lease->chunk[i - 1].at < lease->chunk[i - 1].len))
        return false;
    if (lease->chunk_n < lease->chunk_room)
        return true;
    uint32_t room = lease->chunk_room ? 2 * lease->chunk_room : 64;
    struct tfr_lease_chunk *grown =
        room <= CHUNKS_MAX ? realloc(lease->chunk, room * sizeof *grown) : NULL;
    if (!grown)
        return false;
    lease->chunk = grown;
    lease->chunk_room = room;
    return true;
}

static CUresult create(struct tfr_session *s, struct tfr_lease *lease, uint32_t device,
                       uint64_t len, CUmemGenericAllocationHandle *handle_out)
{
    CUmemAllocationProp prop = prop_of(s, device, lease->plain);
    CUresult result = s->cu->cuMemCreate(handle_out, len, &prop, 0);
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_OUT_OF_MEMORY || lease->plain)
        return result;
    tfr_info("the driver gives no memory that can be exported (error %d): plain memory is used",
             (int)result);
    lease->plain = true;
    prop = prop_of(s, device, true);
    return s->cu->cuMemCreate(handle_out, len, &prop, 0);
}

static CUresult open_to(struct tfr_session *s, const struct tfr_lease_chunk *chunk, uint32_t device,
                        bool on)
{
    CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = (int)device},
                              .flags = on ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                                          : CU_MEM_ACCESS_FLAGS_PROT_NONE};
    return s->cu->cuMemSetAccess(chunk->at, chunk->len, &access, 1);
}

/* To its own device, and to those that may use its memory. */
static CUresult open_to_all(struct tfr_session *s, const struct tfr_lease_chunk *chunk,
                            uint32_t owner)
{
    uint32_t users = 1u << owner;
    pthread_mutex_lock(&s->ctx_lock);
    for (int i = 0; i < s->device_n; i++)
        users |= (s->peers[i] >> owner & 1) << i;
    pthread_mutex_unlock(&s->ctx_lock);
    CUresult result = CUDA_SUCCESS;
    for (uint32_t i = 0; i < (uint32_t)s->device_n && result == CUDA_SUCCESS; i++)
        if (users >> i & 1)
            result = open_to(s, chunk, i, true);
    return result;
}

CUresult tfr_lease_share(struct tfr_session *s, uint32_t owner, uint32_t device, bool on)
{
    CUresult result = CUDA_SUCCESS;
    const struct tfr_lease *lease = &s->lease[owner];
    pthread_mutex_lock(&s->lease_lock);
    for (uint32_t i = 0; i < lease->chunk_n && result == CUDA_SUCCESS; i++)
        result = open_to(s, &lease->chunk[i], device, on);
    pthread_mutex_unlock(&s->lease_lock);
    return result;
}

/* All of it, or nothing is left behind. */
static CUresult back(struct tfr_session *s, struct tfr_lease *lease,
                     const struct tfr_lease_grow_req *req)
{
    struct tfr_lease_chunk chunk = {.at = req->at, .len = req->len};
    CUresult result = create(s, lease, req->device, req->len, &chunk.handle);
    if (result != CUDA_SUCCESS)
        return result;
    result = s->cu->cuMemMap(req->at, req->len, 0, chunk.handle, 0);
    if (result != CUDA_SUCCESS)
        goto release;
    result = open_to_all(s, &chunk, req->device);
    if (result != CUDA_SUCCESS)
        goto unmap;
    uint32_t i = chunk_find(lease, req->at);
    memmove(&lease->chunk[i + 1], &lease->chunk[i], (lease->chunk_n - i) * sizeof *lease->chunk);
    lease->chunk[i] = chunk;
    lease->chunk_n++;
    TFR_STAT_ADD_SHARED(gpu_memory, req->len);
    return CUDA_SUCCESS;

unmap:
    s->cu->cuMemUnmap(req->at, req->len);
release:
    s->cu->cuMemRelease(chunk.handle);
    return result;
}

CUresult do_lease_grow(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    const struct tfr_lease_grow_req *req = (const struct tfr_lease_grow_req *)rec;
    struct tfr_lease_grow_rep *rep = tfr_reply_room(reply, sizeof *rep);
    struct tfr_lease *lease = lease_of(s, req->device);
    size_t left = 0, total;
    pthread_mutex_lock(&s->lease_lock);
    bool fits = lease && chunk_fits(lease, req->at, req->len);
    CUresult result = fits ? back(s, lease, req) : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_unlock(&s->lease_lock);
    if (!fits)
        return tfr_session_bad(s, rec, "no chunk can lie there");
    if (result == CUDA_ERROR_OUT_OF_MEMORY)
        s->cu->cuMemGetInfo_v2(&left, &total);
    rep->free = left;
    return result;
}

CUresult do_lease_drop(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    const struct tfr_lease_drop_req *req = (const struct tfr_lease_drop_req *)rec;
    struct tfr_lease *lease = lease_of(s, req->device);
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&s->lease_lock);
    uint32_t i = lease ? chunk_find(lease, req->at) : 0;
    bool found = lease && i < lease->chunk_n && lease->chunk[i].at == req->at;
    if (found) {
        struct tfr_lease_chunk chunk = lease->chunk[i];
        result = s->cu->cuMemUnmap(chunk.at, chunk.len);
        if (result == CUDA_SUCCESS)
            result = s->cu->cuMemRelease(chunk.handle);
        memmove(&lease->chunk[i], &lease->chunk[i + 1],
                (lease->chunk_n - i - 1) * sizeof *lease->chunk);
        lease->chunk_n--;
        TFR_STAT_ADD_SHARED(gpu_memory, -chunk.len);
    }
    pthread_mutex_unlock(&s->lease_lock);
    return found ? result : tfr_session_bad(s, rec, "no chunk begins there");
}

CUresult do_mem_info(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)rec;
    struct tfr_mem_info_rep *rep = tfr_reply_room(reply, sizeof *rep);
    size_t left = 0, total = 0;
    CUresult result = s->cu->cuMemGetInfo_v2(&left, &total);
    rep->free = left;
    rep->total = total;
    return result;
}
