/* The table of live handles.  See handle.h. */
#include "intercept/handle.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/clock.h"
#include "intercept/stream.h"

struct tfr_handle_table tfr_handles[TFR_KIND_LIMIT];

/* Guards growth and the free lists. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    uint32_t used;      /* slots ever handed out */
    uint32_t free_head; /* index + 1 of a list through next_free; 0: empty */
    uint32_t kept_head; /* the same of those that are not to be handed out yet */
} state[TFR_KIND_LIMIT];
static bool keeping; /* likewise */

static struct tfr_handle *slot_at(enum tfr_kind kind, uint32_t at)
{
    struct tfr_handle *chunk =
        atomic_load_explicit(&tfr_handles[kind].chunk[at / TFR_HANDLE_CHUNK], memory_order_acquire);
    return chunk ? &chunk[at % TFR_HANDLE_CHUNK] : NULL;
}

static struct tfr_handle *slot_take(enum tfr_kind kind, uint32_t *at_out)
{
    if (state[kind].free_head) {
        uint32_t at = state[kind].free_head - 1;
        struct tfr_handle *slot = slot_at(kind, at);
        state[kind].free_head = slot->next_free;
        *at_out = at;
        return slot;
    }
    uint32_t at = state[kind].used;
    if (at >= TFR_HANDLE_MAX)
        return NULL;
    if (!slot_at(kind, at)) {
        struct tfr_handle *chunk = calloc(TFR_HANDLE_CHUNK, sizeof *chunk);
        if (!chunk)
            return NULL;
        /* pairs with the acquire in tfr_handle_object */
        atomic_store_explicit(&tfr_handles[kind].chunk[at / TFR_HANDLE_CHUNK], chunk,
                              memory_order_release);
    }
    state[kind].used = at + 1;
    *at_out = at;
    return slot_at(kind, at);
}

CUresult tfr_handle_new(enum tfr_kind kind, uint64_t *id_out)
{
    uint32_t at;
    pthread_mutex_lock(&lock);
    struct tfr_handle *slot = slot_take(kind, &at);
    if (slot) {
        slot->gen = (slot->gen + 1) & 0xffffff;
        *id_out = tfr_id_make(kind, slot->gen, at);
        atomic_store_explicit(&slot->object, NULL, memory_order_relaxed);
        /* pairs with the acquire in tfr_handle_object */
        atomic_store_explicit(&slot->id, *id_out, memory_order_release);
    }
    pthread_mutex_unlock(&lock);
    return slot ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* Its session may have ended since, and the place be another's. */
void tfr_handle_bind(uint64_t id, void *object)
{
    struct tfr_handle *slot = slot_at(tfr_id_kind(id), tfr_id_at(id));
    pthread_mutex_lock(&lock);
    if (atomic_load_explicit(&slot->id, memory_order_relaxed) == id)
        /* pairs with the acquire in tfr_handle_object */
        atomic_store_explicit(&slot->object, object, memory_order_release);
    pthread_mutex_unlock(&lock);
}

static void slot_free(enum tfr_kind kind, uint32_t at, struct tfr_handle *slot)
{
    uint32_t *head = keeping ? &state[kind].kept_head : &state[kind].free_head;
    atomic_store_explicit(&slot->id, 0, memory_order_release);
    slot->next_free = *head;
    *head = at + 1;
}

void tfr_handle_keep(void)
{
    pthread_mutex_lock(&lock);
    keeping = true;
    pthread_mutex_unlock(&lock);
}

void tfr_handle_let_go(void)
{
    pthread_mutex_lock(&lock);
    keeping = false;
    for (int kind = 0; kind < TFR_KIND_LIMIT; kind++) {
        while (state[kind].kept_head) {
            uint32_t at = state[kind].kept_head - 1;
            struct tfr_handle *slot = slot_at(kind, at);
            state[kind].kept_head = slot->next_free;
            slot->next_free = state[kind].free_head;
            state[kind].free_head = at + 1;
        }
    }
    pthread_mutex_unlock(&lock);
}

void tfr_handle_drop(enum tfr_kind kind, uint64_t id)
{
    uint32_t at = tfr_id_at(id);
    pthread_mutex_lock(&lock);
    struct tfr_handle *slot = slot_at(kind, at);
    if (slot && atomic_load_explicit(&slot->id, memory_order_relaxed) == id)
        slot_free(kind, at, slot);
    pthread_mutex_unlock(&lock);
}

void tfr_handle_clear(enum tfr_kind kind, void (*each)(void *object))
{
    for (uint32_t at = 0; at < state[kind].used; at++) {
        pthread_mutex_lock(&lock);
        struct tfr_handle *slot = slot_at(kind, at);
        void *object = NULL;
        if (atomic_load_explicit(&slot->id, memory_order_relaxed)) {
            object = atomic_load_explicit(&slot->object, memory_order_relaxed);
            slot_free(kind, at, slot);
        }
        pthread_mutex_unlock(&lock);
        if (object && each)
            each(object);
    }
}

void tfr_handle_each(enum tfr_kind kind, void (*each)(void *object, void *arg), void *arg)
{
    for (uint32_t at = 0; at < state[kind].used; at++) {
        pthread_mutex_lock(&lock);
        struct tfr_handle *slot = slot_at(kind, at);
        void *object = atomic_load_explicit(&slot->id, memory_order_relaxed)
                           ? atomic_load_explicit(&slot->object, memory_order_relaxed)
                           : NULL;
        pthread_mutex_unlock(&lock);
        if (object)
            each(object, arg);
    }
}

/* ---- memory of what died ---- */

static const uint64_t grace_ns = 10 * TFR_NS_PER_S;

struct grave {
    struct grave *next;
    uint64_t since;
    void *memory;
};
static pthread_mutex_t graves_lock = PTHREAD_MUTEX_INITIALIZER; /* guards the two below */
static struct grave *graves, **graves_end = &graves;

/* With the lock held: the oldest grave, if its time has come. */
static struct grave *grave_open(uint64_t now)
{
    struct grave *old = graves;
    if (!old || now - old->since < grace_ns)
        return NULL;
    graves = old->next;
    if (!graves)
        graves_end = &graves;
    return old;
}

/* Two are opened for each that is dug, so that their number falls. */
void tfr_handle_retire(void *memory)
{
    uint64_t now = tfr_clock_now();
    struct grave *old[2] = {NULL, NULL}, *mine = memory ? malloc(sizeof *mine) : NULL;
    pthread_mutex_lock(&graves_lock);
    for (int i = 0; i < 2; i++)
        old[i] = grave_open(now);
    if (mine) {
        *mine = (struct grave){.since = now, .memory = memory};
        *graves_end = mine;
        graves_end = &mine->next;
    }
    pthread_mutex_unlock(&graves_lock);
    for (int i = 0; i < 2 && old[i]; i++) {
        free(old[i]->memory);
        free(old[i]);
    }
}

CUresult tfr_handle_id(enum tfr_kind kind, const void *handle, uint64_t *id_out)
{
    if (kind == TFR_KIND_STREAM) {
        struct tfr_stream *stream = tfr_stream_of((CUstream)handle);
        if (!stream)
            return CUDA_ERROR_INVALID_HANDLE;
        *id_out = stream->id;
        return CUDA_SUCCESS;
    }
    if (kind == TFR_KIND_FUNCTION && tfr_id_kind((uint64_t)handle) == TFR_KIND_KERNEL)
        kind = TFR_KIND_KERNEL;
    if (!tfr_handle_object(kind, handle))
        return CUDA_ERROR_INVALID_HANDLE;
    *id_out = (uint64_t)handle;
    return CUDA_SUCCESS;
}
