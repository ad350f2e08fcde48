/* Handlers of device memory and of client memory mapped here. */
#define TFR_LOG_PART "executor"
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "executor/session.h"
#include "executor/stat.h"
#include "tfr_dispatch_decl.h"
#include "transport/boot.h"

/* What the allocation at addr holds: what the driver says, since it alone knows its rounding. */
static uint64_t block_len(struct tfr_session *s, CUdeviceptr addr)
{
    CUdeviceptr base;
    size_t len;
    return s->cu->cuMemGetAddressRange_v2(&base, &len, addr) == CUDA_SUCCESS ? len : 0;
}

CUresult do_alloc(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    const struct tfr_alloc_req *req = (const struct tfr_alloc_req *)rec;
    struct tfr_alloc_rep *rep = tfr_reply_room(reply, sizeof *rep);
    CUdeviceptr addr = 0;
    CUresult result = s->cu->cuMemAlloc_v2(&addr, req->len);
    rep->addr = addr;
    if (result == CUDA_SUCCESS)
        TFR_STAT_ADD_SHARED(gpu_memory, block_len(s, addr));
    return result;
}

CUresult do_free(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    uint64_t addr = ((const struct tfr_free_req *)rec)->addr, len = block_len(s, addr);
    CUresult result = s->cu->cuMemFree_v2(addr);
    if (result == CUDA_SUCCESS)
        TFR_STAT_ADD_SHARED(gpu_memory, -len);
    return result;
}

/* ---- client memory mapped here ---- */

void *tfr_host_at(struct tfr_session *s, uint64_t client_addr, uint64_t len)
{
    void *at = NULL;
    pthread_rwlock_rdlock(&s->host_lock);
    for (const struct tfr_host_area *a = s->host_areas; a && !at; a = a->next)
        if (client_addr >= a->client_addr &&
            tfr_span_inside(client_addr - a->client_addr, len, a->len))
            at = a->addr + (client_addr - a->client_addr);
    pthread_rwlock_unlock(&s->host_lock);
    return at;
}

/* The descriptor that came for this record. */
static tfr_status host_fd_take(struct tfr_session *s, const struct tfr_host_map_req *req,
                               int *fd_out)
{
    struct tfr_boot_msg msg;
    tfr_status status = tfr_boot_recv(&s->boot, &msg, 1000);
    if (status != TFR_OK)
        return status;
    const struct tfr_host_msg *body = msg.body;
    if (msg.type != TFR_BOOT_HOST || msg.len != sizeof *body || msg.fd_n != 1 ||
        body->addr != req->addr || body->len != req->len) {
        tfr_boot_msg_fini(&msg);
        return TFR_E_PROTO;
    }
    *fd_out = msg.fds[0];
    msg.fd_n = 0;
    tfr_boot_msg_fini(&msg);
    return TFR_OK;
}

/* At the client's address where it is free, so that kernels may follow host pointers; else
 * anywhere. */
static tfr_status host_place(int fd, uint64_t addr, uint64_t len, void **at_out)
{
    tfr_status status = tfr_memfd_map(fd, 0, len, (void *)addr, at_out);
    if (status == TFR_OK)
        return status;
    tfr_info("pinned memory of the client is not at its own address here: kernels need "
             "cuMemHostGetDevicePointer");
    return tfr_memfd_map(fd, 0, len, NULL, at_out);
}

static CUresult host_register(struct tfr_session *s, struct tfr_host_area *area,
                              CUdeviceptr *device_out)
{
    CUresult result = s->cu->cuMemHostRegister_v2(
        area->addr, area->len, CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP);
    if (result == CUDA_SUCCESS)
        result = s->cu->cuMemHostGetDevicePointer_v2(device_out, area->addr, 0);
    return result;
}

CUresult do_host_map(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    const struct tfr_host_map_req *req = (const struct tfr_host_map_req *)rec;
    struct tfr_host_map_rep *rep = tfr_reply_room(reply, sizeof *rep);
    struct tfr_host_area *area = calloc(1, sizeof *area);
    CUdeviceptr device = 0;
    void *at;
    int fd;
    if (!area)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (host_fd_take(s, req, &fd) != TFR_OK) {
        free(area);
        return tfr_session_bad(s, rec, "no descriptor came with it");
    }
    tfr_status status = host_place(fd, req->addr, req->len, &at);
    close(fd);
    if (status != TFR_OK) {
        free(area);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *area = (struct tfr_host_area){.client_addr = req->addr, .len = req->len, .addr = at};
    CUresult result = host_register(s, area, &device);
    if (result != CUDA_SUCCESS) {
        munmap(at, req->len);
        free(area);
        return result;
    }
    pthread_rwlock_wrlock(&s->host_lock);
    area->next = s->host_areas;
    s->host_areas = area;
    pthread_rwlock_unlock(&s->host_lock);
    rep->device_addr = device;
    return CUDA_SUCCESS;
}

CUresult do_host_unmap(struct tfr_session *s, const struct tfr_rec *rec, struct tfr_reply *reply)
{
    (void)reply;
    uint64_t addr = ((const struct tfr_host_unmap_req *)rec)->addr;
    struct tfr_host_area *found = NULL;
    pthread_rwlock_wrlock(&s->host_lock);
    for (struct tfr_host_area **a = &s->host_areas; *a; a = &(*a)->next) {
        if ((*a)->client_addr == addr) {
            found = *a;
            *a = found->next;
            break;
        }
    }
    pthread_rwlock_unlock(&s->host_lock);
    if (!found)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = s->cu->cuMemHostUnregister(found->addr);
    munmap(found->addr, found->len);
    free(found);
    return result;
}
