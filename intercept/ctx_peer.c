/* Peer access: what devices may do with each other's memory is in the snapshot; enabling asks the
 * executor, which knows what the client's memory of a device is made of. */
#define TFR_LOG_PART "intercept"
#include "intercept/entry.h"

/* What the snapshot says of a pair, or an error. */
static CUresult pair_of(CUdevice dev, CUdevice peer, const int8_t **peer_out)
{
    if (!tfr_client.snapshot)
        return CUDA_ERROR_NOT_INITIALIZED;
    int n = (int)tfr_client.snapshot->device_n;
    if (dev < 0 || dev >= n || peer < 0 || peer >= n)
        return CUDA_ERROR_INVALID_DEVICE;
    *peer_out = tfr_client.snapshot->device[dev].peer[tfr_client.real[peer]];
    return CUDA_SUCCESS;
}

CUresult cuDeviceCanAccessPeer(int *can, CUdevice dev, CUdevice peer)
{
    const int8_t *pair;
    CUresult result = pair_of(dev, peer, &pair);
    if (result != CUDA_SUCCESS)
        return result;
    if (!can)
        return CUDA_ERROR_INVALID_VALUE;
    *can = pair[0] != 0;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attribute, CUdevice dev,
                                 CUdevice peer)
{
    const int8_t *pair;
    CUresult result = pair_of(dev, peer, &pair);
    if (result != CUDA_SUCCESS)
        return result;
    if (dev == peer)
        return CUDA_ERROR_INVALID_DEVICE;
    if (!value || (int)attribute < CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK ||
        attribute > CU_DEVICE_P2P_ATTRIBUTE_ONLY_PARTIAL_NATIVE_ATOMIC_SUPPORTED)
        return CUDA_ERROR_INVALID_VALUE;
    *value = (unsigned char)pair[attribute];
    return CUDA_SUCCESS;
}

static CUresult change_ask(const struct tfr_context *peer, bool on)
{
    struct tfr_ask ask;
    struct tfr_peer_access_req *req = tfr_ask_begin(&ask, TFR_OP_peer_access, sizeof *req);
    if (!req)
        return ask.result;
    req->peer = peer->slot;
    req->on = on;
    tfr_ask_send(&ask, 0);
    return tfr_ask_end(&ask);
}

/* With the lock held. */
static CUresult change(struct tfr_context *ctx, const struct tfr_context *peer, bool on)
{
    uint64_t *word = &ctx->peers[peer->slot / 64], bit = 1ull << (peer->slot % 64);
    const int8_t *pair;
    CUresult result = pair_of(ctx->device, peer->device, &pair);
    if (result != CUDA_SUCCESS)
        return result;
    if (on && ctx->device == peer->device)
        return CUDA_ERROR_INVALID_DEVICE;
    if (on && !pair[0])
        return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
    if (on == !!(*word & bit))
        return on ? CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED : CUDA_ERROR_PEER_ACCESS_NOT_ENABLED;
    result = change_ask(peer, on);
    if (result == CUDA_SUCCESS)
        *word ^= bit;
    return result;
}

static CUresult peer_change(CUcontext handle, bool on)
{
    CUresult result = tfr_enter();
    if (result != CUDA_SUCCESS)
        return result;
    struct tfr_context *peer = handle ? tfr_handle_object(TFR_KIND_CTX, handle) : NULL;
    if (!peer)
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&tfr_context_lock);
    result = tfr_context_alive(peer) ? change(tfr_thread.ctx, peer, on)
                                     : CUDA_ERROR_CONTEXT_IS_DESTROYED;
    pthread_mutex_unlock(&tfr_context_lock);
    return result;
}

CUresult cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags)
{
    return flags ? CUDA_ERROR_INVALID_VALUE : peer_change(peer, true);
}

CUresult cuCtxDisablePeerAccess(CUcontext peer)
{
    return peer_change(peer, false);
}
