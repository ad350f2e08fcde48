/* One client's session inside a worker process: the memories shown and seen, the objects, the
 * roles.
 *
 * Threads: the pump (decodes, submits, and while idle brings news), the relief (brings news while
 * the pump sits in a driver call, beats the heart), the watch (asks the driver for faults), helpers
 * (calls that may block).  What each field is guarded by stands beside it. */
#ifndef TFR_EXECUTOR_SESSION_H
#define TFR_EXECUTOR_SESSION_H

#include <pthread.h>
#include <stdatomic.h>

#include "executor/dispatch.h"
#include "executor/park.h"
#include "transport/boot.h"
#include "transport/ring.h"
#include "transport/ways.h"

enum { TFR_STREAM_CHECKS = 4 };

/* A stream of the client. */
struct tfr_stream {
    CUstream real;
    uint32_t word;
    uint32_t ctx;
    uint32_t device; /* of ctx */
    bool joins_legacy;
    struct tfr_hop *hops; /* hop.c */
    uint64_t fence;       /* the last session fence that this stream has waited for */
    uint64_t id;
    /* park.c: submissions so far, and at how many it wants to look. */
    uint64_t submitted, limit;
    uint64_t last_seq;      /* of its last record */
    uint64_t done, covered; /* submissions known to be finished; behind which there is a mark */
    struct {
        uint64_t seq, submitted;
    } check[TFR_STREAM_CHECKS];
    uint32_t check_n;
    bool dead; /* destroyed while records were kept */
    struct tfr_parked *first, **last;
    uint64_t needs[TFR_CONTEXTS_MAX / 64]; /* contexts that records in this queue may use, */
    bool needs_others;                     /* one of them not the stream's own */
    struct tfr_stream *parked_next;
};

struct tfr_event {
    CUevent real;
    uint64_t id;
    uint16_t ctx; /* its slot */
    bool doomed;  /* destroyed while records that use it are kept: */
    struct tfr_parked *first, **last;
};

/* A kernel. */
struct tfr_function {
    uint64_t parent;
    uint32_t param_len;
};

struct tfr_object {
    _Atomic uint64_t id; /* 0: free; pairs with the acquire in object.c */
    void *real, *aux;
    uint16_t ctx; /* slot of the context that it was made in */
};
enum { TFR_OBJECT_CHUNK = 1024 };

/* Pinned memory of the client, mapped here. */
struct tfr_host_area {
    struct tfr_host_area *next;
    uint64_t client_addr, len;
    uint8_t *addr;
};

/* Memory that bulk bytes pass through: lane 0 lies in `area`, others may lie in GPU memory. */
struct tfr_lane {
    uint64_t len;
    uint8_t *host;       /* NULL: it is GPU memory, */
    CUdeviceptr gpu;     /* here */
    struct tfr_mem *mem; /* registered as part of this, from mem_at on; */
    uint64_t mem_at;
    uint64_t peer_at, peer_len; /* the client's twin of it, as far as it goes, in s->page */
};

/* A copy into the lane whose bytes must be with the client before its stream's word says so. */
struct tfr_delivery {
    struct tfr_delivery *next;
    uint32_t word;
    uint64_t seq, at, len; /* at: a place */
};

/* A chunk of device memory of the client's lease. */
struct tfr_lease_chunk {
    uint64_t at, len;
    CUmemGenericAllocationHandle handle;
};

/* A device's window of addresses, and what backs it. */
struct tfr_lease {
    uint64_t base, len, granularity; /* len 0: no window */
    struct tfr_lease_chunk *chunk;   /* by address */
    uint32_t chunk_n, chunk_room;
    bool plain; /* the driver refuses memory that can be exported */
};

struct tfr_image {
    uint8_t *bytes;
    uint64_t len, have, room;
};

struct tfr_session {
    const struct tfr_cu *cu;
    CUdevice device_n;
    struct tfr_boot boot; /* the client's connection */

    /* Memory shown to the client (one memfd). */
    struct tfr_area area;
    struct tfr_client_page *client_page;
    CUdeviceptr gate_gpu;  /* where the GPU sees client_page->gate */
    struct tfr_ring_rx rx; /* the pump's */
    struct tfr_lane lane[TFR_LANES_MAX];
    uint32_t lane_n;
    uint8_t *record; /* the pump's copy of the record in hand */

    /* Per channel: how many stamps' bytes the GPU sees, in lane 1 (arrival.c). */
    _Atomic uint64_t landed[TFR_STAMPS];
    uint64_t landing_to[TFR_STAMPS]; /* the same after the landing under way */
    _Atomic uint32_t landing;        /* one is */

    /* Memory that the client shows. */
    struct tfr_dev *dev;
    struct tfr_link *link;
    struct tfr_mem *session_mem; /* `area`, registered */
    bool mapped;                 /* the client's memory is in our address space */
    bool polled;                 /* nothing arrives unless somebody progresses the link */
    struct tfr_peer_mem *page;   /* the client's page area, and its twin of lane 0 */
    /* The page area itself, or where it is not mapped our image of it (see out.h). */
    struct tfr_feedback *feedback;
    struct tfr_reply_slot *reply;
    struct tfr_page_area *image; /* NULL: the client's is mapped */
    struct tfr_mem *image_mem;
    /* Where nothing is mapped: puts on channel 0, one at a time, and progress. */
    pthread_mutex_t out_lock;
    _Atomic uint32_t progress_lock; /* try-lock */
    _Atomic uint32_t pump_sleeps;   /* the pump itself wakes when something arrives */
    /* The last answer in each slot: a slot goes from thread to thread by way of the client, which
     * is no order that this process could rely on. */
    _Atomic uint64_t answered[TFR_REPLY_SLOTS];
    uint8_t *text;                  /* a ring of TFR_TEXT_MAX bytes */
    uint8_t *error_text;            /* one of TFR_ERROR_TEXT_MAX bytes */
    _Atomic uint32_t text_expected; /* an image was loaded that may print; never goes back */

    struct tfr_object *_Atomic objects[TFR_KIND_LIMIT][TFR_HANDLE_MAX / TFR_OBJECT_CHUNK];
    pthread_mutex_t objects_lock; /* guards growth, insertion, removal and the grave */
    void **grave;                 /* structs that a handler on another thread may still read */
    _Atomic uint32_t grave_n;
    uint32_t grave_room;

    /* By slot - 1: primary contexts first, in the order of their devices. */
    CUcontext ctx[TFR_CONTEXTS_MAX];
    uint8_t ctx_device[TFR_CONTEXTS_MAX];
    uint64_t ctx_life[TFR_CONTEXTS_MAX]; /* changes when the slot gets another context */
    /* By device: the devices, as bits, whose memory some context of it may use; future ranges of
     * theirs are to be opened to it.  Guarded by ctx_lock. */
    uint32_t peers[TFR_DEVICES_MAX];
    /* The same of each context, by slot - 1; written under ctx_lock, read by park.c without. */
    _Atomic uint32_t ctx_peers[TFR_CONTEXTS_MAX];
    uint64_t limit[CU_LIMIT_MAX]; /* of the context that is kept, before its first use */
    pthread_mutex_t ctx_lock;     /* the watch looks at a context, or it is destroyed */

    /* Marks: the GPU writes mirror[word]; news carries it to the client's page. */
    _Atomic uint64_t *mirror; /* of each word; then our own marks of each */
    CUdeviceptr mirror_gpu;
    _Atomic uint64_t asked[TFR_STREAM_SLOTS];       /* last mark submitted; written by the pump */
    _Atomic uint32_t kept;                          /* records in side queues (park.c) */
    _Atomic uint64_t active[TFR_STREAM_SLOTS / 64]; /* words with a mark that is not yet shown */
    uint64_t shown[TFR_STREAM_SLOTS];               /* guarded by news_lock */
    _Atomic uint32_t news_lock;                     /* try-lock of the feedback role */
    _Atomic uint32_t news_pass; /* passes made: the relief sees whether the pump is at it */
    /* Bytes for the client's lane: copied by a stream, not yet sent.  Not used where it is mapped.
     */
    pthread_mutex_t deliveries_lock;
    struct tfr_delivery *deliveries, **deliveries_last; /* guarded by deliveries_lock */
    _Atomic uint32_t delivery_n;                        /* of them */
    bool holding, text_late; /* guarded by news_lock: a pass waits for text, or for room for it */

    /* A synchronous copy that returned early: later work of other streams comes after it. */
    uint64_t fence;
    CUevent fence_event[TFR_CONTEXTS_MAX]; /* taken away with its context under fence_lock */
    pthread_mutex_t fence_lock;
    uint32_t fence_ctx;
    bool fence_legacy;

    struct tfr_park park;
    uint64_t image_bytes; /* held for images, and of these in the grave; the pump's */
    uint64_t image_dead;

    int relief_fd;                  /* wakes the relief */
    _Atomic uint32_t relief_asleep; /* pairs with the look in tfr_news_ask */

    pthread_rwlock_t host_lock; /* guards host_areas */
    struct tfr_host_area *host_areas;

    pthread_mutex_t lease_lock; /* guards lease */
    struct tfr_lease lease[TFR_DEVICES_MAX];
    /* Devices that have a window, as bits: whose base and len never change again. */
    _Atomic uint32_t windows;

    pthread_mutex_t sticky_lock;
    _Atomic uint32_t sticky; /* CUresult; set once */
    _Atomic uint32_t ended;  /* the session is over: roles stop */
};

/* ---- session.c ---- */

/* The memory that a worker prepares before it knows its client: ring, page, lane, mirror;
 * registered with the driver, whose current context must be set. */
tfr_status tfr_session_prepare(struct tfr_session *s, const struct tfr_cu *cu);

/* Joins the client behind the socket by the best of its ways: welcome, show, link. */
tfr_status tfr_session_join(struct tfr_session *s, struct tfr_boot boot,
                            const struct tfr_ways *ways);

/* Serves it until it is gone.  Then the process should exit. */
void tfr_session_serve(struct tfr_session *s);

/* Makes the record's context current on this thread. */
CUresult tfr_session_enter(struct tfr_session *s, uint16_t ctx);

/* The slot of the context that this thread entered last. */
uint16_t tfr_session_entered(void);

/* Its device. */
CUdevice tfr_session_device(const struct tfr_session *s, const struct tfr_rec *rec);

/* A failure that the client was not told at the call: every later call answers it. */
void tfr_session_sticky(struct tfr_session *s, CUresult result, const struct tfr_rec *rec);

/* Is this what a dead context answers? */
bool tfr_result_is_fatal(CUresult result);

/* Runs one record and answers it, on the calling thread. */
void tfr_session_run(struct tfr_session *s, const struct tfr_op_info *info,
                     const struct tfr_rec *rec);

/* ---- feedback.c ---- */

/* One look at the mirror; what has moved goes to the client.  True: something did.  Safe from any
 * thread; false at once if another thread is at it. */
bool tfr_news_bring(struct tfr_session *s);

/* Are marks outstanding? */
bool tfr_news_expected(struct tfr_session *s);

/* Submits a mark: mirror[word] := seq in stream order. */
CUresult tfr_news_ask(struct tfr_session *s, struct tfr_stream *stream, uint64_t seq);

/* The record's copy, of the stream, fills lane bytes [place, place + len): they are sent when the
 * stream's word has come that far, by a mark to come. */
CUresult tfr_news_deliver(struct tfr_session *s, const struct tfr_stream *stream,
                          const struct tfr_rec *rec, uint64_t place, uint64_t len);

void tfr_news_reply(struct tfr_session *s, uint32_t slot, uint64_t seq, CUresult result,
                    uint32_t len);
void tfr_news_credit(struct tfr_session *s);

/* ---- text.c: what the driver prints for kernels ---- */

/* From here on this process's stdout and stderr are the client's, but for our log. */
tfr_status tfr_text_open(struct tfr_session *s);

/* Carries what was printed into the client's memory; false: there is more than it has taken so far,
 * and the news that comes after the text must wait.  One load when nothing was printed.  Feedback
 * role only. */
bool tfr_text_bring(struct tfr_session *s);

/* ---- text_sync.c ---- */

/* May kernels of the image print or fail an assertion? */
bool tfr_text_image_prints(const uint8_t *bytes, uint64_t len);

/* Some may: from here on s->text_expected, and the two below are called. */
void tfr_text_expect(struct tfr_session *s);

/* Before a mark is submitted. */
CUresult tfr_text_mark(struct tfr_session *s, const struct tfr_stream *stream, uint64_t seq);

/* True: the driver may still have text of what these words show.  Ask again with the same words
 * until it has not.  Feedback role only; does not wait. */
bool tfr_text_hold(uint32_t n, const uint32_t *word, const uint64_t *value);

/* The calling thread's context has died of a fault: what the driver says about it, before the
 * client learns of it otherwise. */
void tfr_text_last(struct tfr_session *s);

/* ---- watch.c ---- */

/* A mark is expected from here on. */
void tfr_relief_wake(struct tfr_session *s);

/* Relief and watch threads. */
tfr_status tfr_news_start(struct tfr_session *s);

/* ---- helper.c ---- */

/* Runs the record on a thread that may block; the record is copied. */
void tfr_helper_run(struct tfr_session *s, const struct tfr_op_info *info,
                    const struct tfr_rec *rec);

/* Is any of them at work or about to be?  The pump's question: nobody else gives them any. */
bool tfr_helper_busy(void);

/* ---- do_stream.c ---- */

/* Enters a stream under the client's id. */
CUresult tfr_stream_add(struct tfr_session *s, uint64_t id, uint32_t word, uint32_t ctx,
                        CUstream real, bool joins_legacy);

/* The stream of a record, with the session fence before it.  TFR_RESULT_PARK: not yet; the handler
 * returns that before it has done anything, and is run again later.  The pump's alone: records that
 * run on helpers name no streams. */
CUresult tfr_stream_get(struct tfr_session *s, uint64_t id, struct tfr_stream **stream_out);

/* The event of a record that names a stream too: asked for before the stream. */
CUresult tfr_event_get(struct tfr_session *s, uint64_t id, CUevent *real_out);

/* ---- do_copy.c ---- */

/* What a copy's flags (TFR_COPY_FENCE, TFR_COPY_MARK) ask for once it has been submitted. */
CUresult tfr_copy_submitted(struct tfr_session *s, struct tfr_stream *stream, uint64_t seq,
                            uint32_t flags);

/* ---- hop.c: memory of another device than the stream's ---- */

/* Some device but the stream's own has leased memory. */
static inline bool tfr_hop_possible(const struct tfr_session *s, const struct tfr_stream *stream)
{
    /* pairs with the release in do_window */
    uint32_t windows = atomic_load_explicit(&s->windows, memory_order_acquire);
    return __builtin_expect((windows & ~(1u << stream->device)) != 0, 0);
}

/* Slot of a context of the device that the address is leased of; the stream's own unless another's
 * is known. */
uint16_t tfr_hop_owner(struct tfr_session *s, const struct tfr_stream *stream, uint64_t addr);

/* The same of both sides of a copy on devices; answers that of dst. */
uint16_t tfr_hop_owners(struct tfr_session *s, const struct tfr_stream *stream, uint64_t dst,
                        uint64_t src, uint16_t *from_out);

/* What is submitted to *on_out between the two comes in the order of the client's stream, and runs
 * in the context `at`. */
CUresult tfr_hop_begin(struct tfr_session *s, struct tfr_stream *stream, uint16_t at,
                       struct tfr_hop **hop_out, CUstream *on_out);
CUresult tfr_hop_end(struct tfr_session *s, struct tfr_stream *stream, struct tfr_hop *hop);

/* The stream is destroyed. */
void tfr_hops_end(struct tfr_session *s, struct tfr_stream *stream);

/* ---- do_lease.c ---- */

/* What the client has leased of the owner's memory, another device may use, or may no more; what it
 * leases later goes by `peers`, which is set first. */
CUresult tfr_lease_share(struct tfr_session *s, uint32_t owner, uint32_t device, bool on);

/* ---- do_module.c ---- */

/* Does a launch attribute mean the same here?  Those that hold the driver's handles or may hold one
 * do not, and a driver would follow them. */
bool tfr_attr_is_value(uint32_t id);

/* ---- do_memory.c ---- */

/* Our address of mapped client memory, or NULL: not a mapped area. */
void *tfr_host_at(struct tfr_session *s, uint64_t client_addr, uint64_t len);

/* ---- object.c ---- */

struct tfr_object_list {
    void **real, **aux; /* one allocation, of real */
    size_t n;
};

/* Drops every object of the kind that was made in the context, and lists the driver's handles with
 * the structs of ours, which are buried; the list is the caller's to free.  False: no memory,
 * nothing was dropped. */
bool tfr_object_take_context(struct tfr_session *s, enum tfr_kind kind, uint16_t ctx,
                             struct tfr_object_list *list_out);

#endif
