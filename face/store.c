/* Context-local storage.  Chains of nodes that are never freed nor moved to another chain, so that
 * a reader can walk them at any time; a node that is given up waits in its chain for another entry.
 * A reader that meets a node in change takes the lock instead of trying again. */
#include "face/store.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "face/face.h"

#define CHAIN_BITS 6
#define CHAIN_N    (1u << CHAIN_BITS)

struct node {
    _Atomic uint32_t turn;  /* odd: in change */
    _Atomic(CUcontext) ctx; /* NULL: free */
    _Atomic(const void *) key;
    _Atomic(void *) value;
    tfr_face_dtor dtor; /* guarded by lock */
    struct node *next;  /* set before the node is shown */
};

static _Atomic(struct node *) chains[CHAIN_N];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards all writing */

static _Atomic(struct node *) *chain_of(CUcontext ctx, const void *key)
{
    uint64_t mix =
        ((uint64_t)(uintptr_t)ctx * 31 + (uint64_t)(uintptr_t)key) * 0x9e3779b97f4a7c15ull;

    return &chains[mix >> (64 - CHAIN_BITS)];
}

/* Under the lock: the node of (ctx, key), or the first free one if ctx is NULL. */
static struct node *find(struct node *node, CUcontext ctx, const void *key)
{
    for (; node; node = node->next) {
        if (atomic_load_explicit(&node->ctx, memory_order_relaxed) != ctx)
            continue;
        if (!ctx || atomic_load_explicit(&node->key, memory_order_relaxed) == key)
            break;
    }
    return node;
}

/* Under the lock.  The releases pair with the acquires in read_node: a reader that has seen a new
 * field also sees the odd turn. */
static void write_node(struct node *node, CUcontext ctx, const void *key, void *value)
{
    uint32_t turn = atomic_load_explicit(&node->turn, memory_order_relaxed);

    atomic_store_explicit(&node->turn, turn + 1, memory_order_relaxed);
    atomic_store_explicit(&node->ctx, ctx, memory_order_release);
    atomic_store_explicit(&node->key, key, memory_order_release);
    atomic_store_explicit(&node->value, value, memory_order_release);
    atomic_store_explicit(&node->turn, turn + 2, memory_order_release);
}

enum found { FOUND, OTHER, IN_CHANGE };

static enum found read_node(struct node *node, CUcontext ctx, const void *key, void **value_out)
{
    uint32_t turn = atomic_load_explicit(&node->turn, memory_order_acquire);
    void *value;

    if (atomic_load_explicit(&node->ctx, memory_order_acquire) != ctx ||
        atomic_load_explicit(&node->key, memory_order_acquire) != key)
        return OTHER;
    value = atomic_load_explicit(&node->value, memory_order_acquire);
    if ((turn & 1) || atomic_load_explicit(&node->turn, memory_order_relaxed) != turn)
        return IN_CHANGE;
    *value_out = value;
    return FOUND;
}

static CUresult get_locked(CUcontext ctx, const void *key, void **value_out)
{
    struct node *node;

    pthread_mutex_lock(&lock);
    node = find(atomic_load_explicit(chain_of(ctx, key), memory_order_relaxed), ctx, key);
    if (node)
        *value_out = atomic_load_explicit(&node->value, memory_order_relaxed);
    pthread_mutex_unlock(&lock);
    return node ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult tfr_face_store_get(CUcontext ctx, const void *key, void **value_out)
{
    /* pairs with the release in tfr_face_store_set */
    struct node *node = atomic_load_explicit(chain_of(ctx, key), memory_order_acquire);

    for (; node; node = node->next) {
        enum found found = read_node(node, ctx, key, value_out);
        if (found == FOUND)
            return CUDA_SUCCESS;
        if (found == IN_CHANGE)
            return get_locked(ctx, key, value_out);
    }
    return CUDA_ERROR_INVALID_HANDLE;
}

CUresult tfr_face_store_set(CUcontext ctx, void *key, void *value, tfr_face_dtor dtor)
{
    _Atomic(struct node *) *chain = chain_of(ctx, key);
    struct node *first, *node;

    pthread_mutex_lock(&lock);
    first = atomic_load_explicit(chain, memory_order_relaxed);
    node = find(first, ctx, key);
    if (!node)
        node = find(first, NULL, NULL);
    if (node) {
        write_node(node, ctx, key, value);
    } else if ((node = calloc(1, sizeof *node))) {
        write_node(node, ctx, key, value);
        node->next = first;
        atomic_store_explicit(chain, node, memory_order_release);
    }
    if (node)
        node->dtor = dtor;
    pthread_mutex_unlock(&lock);
    return node ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult tfr_face_store_drop(CUcontext ctx, const void *key)
{
    struct node *node;

    pthread_mutex_lock(&lock);
    node = find(atomic_load_explicit(chain_of(ctx, key), memory_order_relaxed), ctx, key);
    if (node)
        write_node(node, NULL, NULL, NULL);
    pthread_mutex_unlock(&lock);
    return node ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* Takes one entry of the context out of the store; false: there is none left. */
static bool take(CUcontext ctx, void **key_out, void **value_out, tfr_face_dtor *dtor_out)
{
    struct node *node = NULL;

    pthread_mutex_lock(&lock);
    for (unsigned n = 0; n < CHAIN_N && !node; n++) {
        node = atomic_load_explicit(&chains[n], memory_order_relaxed);
        while (node && atomic_load_explicit(&node->ctx, memory_order_relaxed) != ctx)
            node = node->next;
    }
    if (node) {
        *key_out = (void *)atomic_load_explicit(&node->key, memory_order_relaxed);
        *value_out = atomic_load_explicit(&node->value, memory_order_relaxed);
        *dtor_out = node->dtor;
        write_node(node, NULL, NULL, NULL);
    }
    pthread_mutex_unlock(&lock);
    return node != NULL;
}

/* Destructors run outside the lock: a runtime's may ask the table again. */
void tfr_face_context_gone(CUcontext ctx)
{
    tfr_face_dtor dtor;
    void *key, *value;

    while (ctx && take(ctx, &key, &value, &dtor)) {
        if (dtor)
            dtor(ctx, key, value);
    }
}
