/* The handle table: ids that the client chose -> handles of the driver.  Lookups take no lock (the
 * pump makes one or two per record); the index comes off the wire, so it is bounded before use. */
#define TFR_LOG_PART "executor"
#include <stdlib.h>

#include "executor/session.h"

static struct tfr_object *slot_of(struct tfr_session *s, uint64_t id)
{
    enum tfr_kind kind = tfr_id_kind(id);
    uint32_t at = tfr_id_at(id);
    if (kind >= TFR_KIND_LIMIT || at >= TFR_HANDLE_MAX)
        return NULL;
    /* pairs with the release in slot_make */
    struct tfr_object *chunk =
        atomic_load_explicit(&s->objects[kind][at / TFR_OBJECT_CHUNK], memory_order_acquire);
    return chunk ? &chunk[at % TFR_OBJECT_CHUNK] : NULL;
}

static struct tfr_object *live(struct tfr_session *s, enum tfr_kind kind, uint64_t id)
{
    enum tfr_kind is = tfr_id_kind(id);
    if (is != kind && !(kind == TFR_KIND_FUNCTION && is == TFR_KIND_KERNEL))
        return NULL;
    struct tfr_object *slot = slot_of(s, id);
    /* pairs with the release in tfr_object_new_aux */
    if (!slot || atomic_load_explicit(&slot->id, memory_order_acquire) != id)
        return NULL;
    return slot;
}

CUresult tfr_object_get(struct tfr_session *s, enum tfr_kind kind, uint64_t id, void **real_out)
{
    struct tfr_object *slot = live(s, kind, id);
    if (!slot)
        return CUDA_ERROR_INVALID_HANDLE;
    *real_out = slot->real;
    return CUDA_SUCCESS;
}

void *tfr_object_aux(struct tfr_session *s, enum tfr_kind kind, uint64_t id)
{
    struct tfr_object *slot = live(s, kind, id);
    return slot ? slot->aux : NULL;
}

uint16_t tfr_object_context(struct tfr_session *s, enum tfr_kind kind, uint64_t id)
{
    struct tfr_object *slot = live(s, kind, id);
    return slot ? slot->ctx : 0;
}

/* Grown on demand; with the lock held. */
static struct tfr_object *slot_make(struct tfr_session *s, uint64_t id)
{
    enum tfr_kind kind = tfr_id_kind(id);
    uint32_t at = tfr_id_at(id);
    struct tfr_object *slot = slot_of(s, id);
    if (slot || kind >= TFR_KIND_LIMIT || at >= TFR_HANDLE_MAX)
        return slot;
    struct tfr_object *chunk = calloc(TFR_OBJECT_CHUNK, sizeof *chunk);
    if (!chunk)
        return NULL;
    atomic_store_explicit(&s->objects[kind][at / TFR_OBJECT_CHUNK], chunk, memory_order_release);
    return &chunk[at % TFR_OBJECT_CHUNK];
}

CUresult tfr_object_new_aux(struct tfr_session *s, enum tfr_kind kind, uint64_t id, void *real,
                            void *aux)
{
    CUresult result = CUDA_ERROR_INVALID_HANDLE;
    if (tfr_id_kind(id) != kind || kind == TFR_KIND_NONE)
        return result;
    pthread_mutex_lock(&s->objects_lock);
    struct tfr_object *slot = slot_make(s, id);
    if (slot && !atomic_load_explicit(&slot->id, memory_order_relaxed)) {
        slot->real = real;
        slot->aux = aux;
        slot->ctx = tfr_session_entered();
        atomic_store_explicit(&slot->id, id, memory_order_release);
        result = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&s->objects_lock);
    return result;
}

CUresult tfr_object_new(struct tfr_session *s, enum tfr_kind kind, uint64_t id, void *real)
{
    return tfr_object_new_aux(s, kind, id, real, NULL);
}

/* With the lock held.  What cannot be noted is leaked rather than pulled away from a reader. */
static void bury(struct tfr_session *s, void *aux)
{
    if (!aux)
        return;
    uint32_t n = atomic_load_explicit(&s->grave_n, memory_order_relaxed);
    if (n == s->grave_room) {
        uint32_t room = s->grave_room ? s->grave_room * 2 : 64;
        void **grave = realloc(s->grave, room * sizeof *grave);
        if (!grave)
            return;
        s->grave = grave;
        s->grave_room = room;
    }
    s->grave[n] = aux;
    atomic_store_explicit(&s->grave_n, n + 1, memory_order_relaxed);
}

void tfr_object_bury(struct tfr_session *s, void *aux)
{
    pthread_mutex_lock(&s->objects_lock);
    bury(s, aux);
    pthread_mutex_unlock(&s->objects_lock);
}

void tfr_object_reap(struct tfr_session *s)
{
    /* A context ends with its streams, and a hostile client may have records of those kept. */
    if (!atomic_load_explicit(&s->grave_n, memory_order_relaxed) || s->park.n || tfr_helper_busy())
        return;
    pthread_mutex_lock(&s->objects_lock);
    uint32_t n = atomic_load_explicit(&s->grave_n, memory_order_relaxed);
    while (n)
        free(s->grave[--n]);
    atomic_store_explicit(&s->grave_n, 0, memory_order_relaxed);
    pthread_mutex_unlock(&s->objects_lock);
    s->image_bytes -= s->image_dead;
    s->image_dead = 0;
}

static void *slot_clear(struct tfr_object *slot)
{
    void *aux = slot->aux;
    atomic_store_explicit(&slot->id, 0, memory_order_release);
    slot->aux = NULL;
    return aux;
}

void tfr_object_drop(struct tfr_session *s, enum tfr_kind kind, uint64_t id)
{
    pthread_mutex_lock(&s->objects_lock);
    struct tfr_object *slot = live(s, kind, id);
    if (slot)
        bury(s, slot_clear(slot));
    pthread_mutex_unlock(&s->objects_lock);
}

void *tfr_object_take(struct tfr_session *s, enum tfr_kind kind, uint64_t id)
{
    pthread_mutex_lock(&s->objects_lock);
    struct tfr_object *slot = live(s, kind, id);
    void *aux = slot ? slot_clear(slot) : NULL;
    pthread_mutex_unlock(&s->objects_lock);
    return aux;
}

void tfr_object_sweep(struct tfr_session *s, enum tfr_kind kind,
                      bool (*match)(void *aux, void *arg), void *arg)
{
    pthread_mutex_lock(&s->objects_lock);
    for (int c = 0; c < TFR_HANDLE_MAX / TFR_OBJECT_CHUNK; c++) {
        struct tfr_object *chunk = atomic_load_explicit(&s->objects[kind][c], memory_order_acquire);
        for (int i = 0; chunk && i < TFR_OBJECT_CHUNK; i++)
            if (atomic_load_explicit(&chunk[i].id, memory_order_relaxed) && chunk[i].aux &&
                match(chunk[i].aux, arg))
                bury(s, slot_clear(&chunk[i]));
    }
    pthread_mutex_unlock(&s->objects_lock);
}

/* The next live object of the kind made in the context, from *at on; with the lock held. */
static struct tfr_object *next_of(struct tfr_session *s, enum tfr_kind kind, uint16_t ctx,
                                  uint32_t *at)
{
    for (; *at < TFR_HANDLE_MAX; ++*at) {
        struct tfr_object *chunk =
            atomic_load_explicit(&s->objects[kind][*at / TFR_OBJECT_CHUNK], memory_order_acquire);
        if (!chunk) {
            *at |= TFR_OBJECT_CHUNK - 1;
            continue;
        }
        struct tfr_object *slot = &chunk[*at % TFR_OBJECT_CHUNK];
        if (atomic_load_explicit(&slot->id, memory_order_relaxed) && slot->ctx == ctx)
            return slot;
    }
    return NULL;
}

bool tfr_object_take_context(struct tfr_session *s, enum tfr_kind kind, uint16_t ctx,
                             struct tfr_object_list *list_out)
{
    struct tfr_object_list list = {0};
    struct tfr_object *slot;
    pthread_mutex_lock(&s->objects_lock);
    for (uint32_t at = 0; next_of(s, kind, ctx, &at); at++)
        list.n++;
    list.real = malloc((2 * list.n + 1) * sizeof *list.real);
    list.aux = list.real + list.n;
    size_t n = 0;
    for (uint32_t at = 0; list.real && (slot = next_of(s, kind, ctx, &at)); at++) {
        list.real[n] = slot->real;
        list.aux[n] = slot_clear(slot);
        bury(s, list.aux[n++]);
    }
    pthread_mutex_unlock(&s->objects_lock);
    *list_out = list;
    return list.real != NULL;
}
