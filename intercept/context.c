/* Beginning and end of contexts.  Primary ones begin at the first retain and end at the last
 * release or a reset; created ones have a slot of their own and the driver's own context over
 * there.  Called by ctx.c. Surprising: while other contexts are in use, one ends object by object;
 * the last primary one ends the session instead, and with it all that a worker holds. */
#define TFR_LOG_PART "intercept"
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "face/face.h"
#include "intercept/memory.h"
#include "intercept/module.h"
#include "intercept/copy.h"
#include "intercept/stream.h"

pthread_mutex_t tfr_context_lock = PTHREAD_MUTEX_INITIALIZER;
struct tfr_context tfr_contexts[TFR_DEVICES_MAX];

/* Created ones that are alive, by slot; guarded by the lock. */
static struct tfr_context *created[TFR_CONTEXTS_MAX + 1];
static unsigned long long serial; /* the same */

static CUresult context_init(struct tfr_context *ctx, int device, uint16_t slot)
{
    CUresult result = tfr_handle_new(TFR_KIND_CTX, &ctx->id);
    if (result != CUDA_SUCCESS)
        return result;
    ctx->device = device;
    ctx->slot = slot;
    ctx->api_version = 3020;
    pthread_mutex_init(&ctx->streams_lock, NULL);
    return CUDA_SUCCESS;
}

void tfr_context_init_all(void)
{
    for (uint32_t i = 0; i < tfr_client.snapshot->device_n; i++) {
        struct tfr_context *ctx = &tfr_contexts[i];
        uint16_t slot = (uint16_t)(tfr_client.real[i] + 1);
        if (!ctx->id && context_init(ctx, (int)i, slot) == CUDA_SUCCESS)
            tfr_handle_bind(ctx->id, ctx);
    }
}

/* ---- beginning ---- */

static CUresult announce(struct tfr_context *ctx)
{
    struct tfr_ask ask;
    struct tfr_context_req *req = tfr_ask_begin(&ask, TFR_OP_context, sizeof *req);
    if (!req)
        return ask.result;
    req->legacy = ctx->legacy->id;
    req->legacy_word = ctx->legacy->word;
    req->device = tfr_client.real[ctx->device];
    req->flags = ctx->flags;
    req->at = ctx->slot;
    tfr_ask_send(&ask, 0);
    return tfr_ask_end(&ask);
}

CUresult tfr_context_activate(struct tfr_context *ctx)
{
    CUresult result = tfr_client_attach();
    if (result == CUDA_SUCCESS)
        result = tfr_stream_legacy_new(ctx);
    if (result != CUDA_SUCCESS)
        return result;
    result = announce(ctx);
    if (result != CUDA_SUCCESS) {
        tfr_stream_forget_context(ctx);
        return result;
    }
    ctx->serial = ++serial;
    memset(ctx->peers, 0, sizeof ctx->peers);
    /* pairs with the acquire in tfr_enter */
    atomic_store_explicit(&ctx->active, TFR_CONTEXT_ALIVE, memory_order_release);
    return CUDA_SUCCESS;
}

/* A free slot above those of primary contexts, or 0. */
static uint16_t slot_find(void)
{
    for (int at = TFR_DEVICES_MAX + 1; at <= TFR_CONTEXTS_MAX; at++)
        if (!created[at])
            return (uint16_t)at;
    return 0;
}

/* With the lock held. */
static CUresult context_create(struct tfr_context *ctx, int device)
{
    uint16_t slot = slot_find();
    if (!slot) {
        tfr_warn("a program may have %d contexts at a time", TFR_CONTEXTS_MAX - TFR_DEVICES_MAX);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    CUresult result = context_init(ctx, device, slot);
    if (result != CUDA_SUCCESS)
        return result;
    result = tfr_context_activate(ctx);
    if (result != CUDA_SUCCESS) {
        tfr_handle_drop(TFR_KIND_CTX, ctx->id);
        return result;
    }
    created[slot] = ctx;
    ctx->retained = 1;
    tfr_handle_bind(ctx->id, ctx);
    return CUDA_SUCCESS;
}

CUresult tfr_context_new(CUdevice dev, unsigned int flags, unsigned int version,
                         struct tfr_context **ctx_out)
{
    struct tfr_context *ctx = calloc(1, sizeof *ctx);
    if (!ctx)
        return CUDA_ERROR_OUT_OF_MEMORY;
    ctx->flags = flags;
    pthread_mutex_lock(&tfr_context_lock);
    CUresult result = context_create(ctx, dev);
    pthread_mutex_unlock(&tfr_context_lock);
    if (result != CUDA_SUCCESS) {
        free(ctx);
        return result;
    }
    ctx->api_version = version;
    *ctx_out = ctx;
    return CUDA_SUCCESS;
}

/* ---- end ---- */

static bool others_alive(const struct tfr_context *ctx)
{
    for (int i = 0; i < TFR_DEVICES_MAX; i++)
        if (&tfr_contexts[i] != ctx && tfr_context_alive(&tfr_contexts[i]))
            return true;
    for (int i = 0; i <= TFR_CONTEXTS_MAX; i++)
        if (created[i] && created[i] != ctx)
            return true;
    return false;
}

/* Nobody has access to its memory any more. */
static void peers_forget(uint16_t slot)
{
    uint64_t mask = ~(1ull << (slot % 64));
    for (int i = 0; i < TFR_DEVICES_MAX; i++)
        tfr_contexts[i].peers[slot / 64] &= mask;
    for (int i = 0; i <= TFR_CONTEXTS_MAX; i++)
        if (created[i])
            created[i]->peers[slot / 64] &= mask;
}

static void created_drop(struct tfr_context *ctx)
{
    tfr_handle_drop(TFR_KIND_CTX, ctx->id);
    created[ctx->slot] = NULL;
}

static CUresult free_ask(struct tfr_context *ctx)
{
    struct tfr_ask ask;
    struct tfr_context_free_req *req = tfr_ask_begin(&ask, TFR_OP_context_free, sizeof *req);
    if (!req)
        return ask.result;
    req->at = ctx->slot;
    req->reserved = 0;
    /* No later record may be in it. */
    atomic_store_explicit(&ctx->active, TFR_CONTEXT_DEAD, memory_order_release);
    tfr_ask_send(&ask, 0);
    return tfr_ask_end(&ask);
}

/* Everything in it dies, here and over there; memory first, since that is freed by name. */
static CUresult end_alone(struct tfr_context *ctx)
{
    struct tfr_context *before = tfr_thread.ctx;
    tfr_post_hold(); /* whoever posts after this sees it */
    atomic_store_explicit(&ctx->active, TFR_CONTEXT_ENDING, memory_order_release);
    tfr_post_release();
    tfr_thread.ctx = ctx;
    if (ctx->slot == 1)
        tfr_module_explain_reset();
    tfr_copy_deliver();
    tfr_memory_forget_context(ctx);
    tfr_handle_keep(); /* what dies here the executor hears of below */
    tfr_module_forget_context(ctx);
    tfr_event_forget_context(ctx);
    tfr_stream_forget_context(ctx);
    CUresult result = free_ask(ctx);
    tfr_handle_let_go();
    tfr_copy_forget_context(ctx);
    tfr_thread.ctx = before;
    atomic_store_explicit(&ctx->active, TFR_CONTEXT_DEAD, memory_order_release);
    return result;
}

/* After a fault the executor runs nothing more: what is left can only end as a whole. */
static void end_session(struct tfr_context *ctx)
{
    if (others_alive(ctx))
        tfr_warn("the GPU session failed: with this context its other contexts end too");
    tfr_client_detach();
}

CUresult tfr_context_end(struct tfr_context *ctx)
{
    bool primary = tfr_context_is_primary(ctx);
    CUresult result = tfr_context_wait(ctx); /* natively kernels finish, and print */
    tfr_face_context_gone(tfr_handle_ptr(ctx->id));
    if (tfr_client_error() != CUDA_SUCCESS || (primary && !others_alive(ctx)))
        end_session(ctx);
    else
        result = end_alone(ctx);
    ctx->retained = 0;
    peers_forget(ctx->slot);
    if (!primary && created[ctx->slot] == ctx)
        created_drop(ctx);
    return result;
}

static void forget(struct tfr_context *ctx)
{
    atomic_store_explicit(&ctx->active, TFR_CONTEXT_DEAD, memory_order_release);
    ctx->retained = 0;
    pthread_mutex_lock(&ctx->streams_lock);
    ctx->streams = NULL;
    pthread_mutex_unlock(&ctx->streams_lock);
    ctx->legacy = NULL;
    atomic_store_explicit(&ctx->blocking_last, 0, memory_order_relaxed);
}

void tfr_context_forget_all(void)
{
    for (int i = 0; i < TFR_DEVICES_MAX; i++)
        if (tfr_contexts[i].id)
            forget(&tfr_contexts[i]);
    for (int i = 0; i <= TFR_CONTEXTS_MAX; i++) {
        if (!created[i])
            continue;
        forget(created[i]);
        created_drop(created[i]);
    }
}
