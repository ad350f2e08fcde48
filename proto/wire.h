/* What client and executor say to each other: boot messages, layout of the shared memories, and the
 * records that are no CUDA call of their own.  Included by intercept, executor, bench and tools.
 * Sizes are asserted: this is a wire. */
#ifndef TFR_PROTO_WIRE_H
#define TFR_PROTO_WIRE_H

#include <assert.h>
#include <stdint.h>

#include "base/rec.h"
#include "proto/wire_context.h"
#include "proto/wire_copy.h"
#include "proto/wire_lane.h"

/* ---- handles ---- */

/* A handle is an id that the client chose: kind, generation, index.  The bits make it no address,
 * so that code which dereferences one faults at once. */
enum tfr_kind {
    TFR_KIND_NONE,
    TFR_KIND_CTX,
    TFR_KIND_MODULE,
    TFR_KIND_FUNCTION,
    TFR_KIND_LIBRARY,
    TFR_KIND_KERNEL,
    TFR_KIND_STREAM,
    TFR_KIND_EVENT,
    TFR_KIND_POOL,
    TFR_KIND_IMAGE,
    TFR_KIND_LINK,
    TFR_KIND_LIMIT,
};
static_assert(TFR_KIND_STREAM == 6 && TFR_KIND_LINK == 10, "kinds are appended, never moved");

enum { TFR_HANDLE_MAX = 1 << 20 }; /* live objects per kind and session */

static inline uint64_t tfr_id_make(enum tfr_kind kind, uint32_t gen, uint32_t at)
{
    return (uint64_t)kind << 56 | (uint64_t)(gen & 0xffffff) << 32 | at;
}

static inline enum tfr_kind tfr_id_kind(uint64_t id)
{
    return (enum tfr_kind)(id >> 56);
}

static inline uint32_t tfr_id_at(uint64_t id)
{
    return (uint32_t)id;
}

/* ---- boot ---- */

enum {
    TFR_WIRE_MAGIC = 0x31524654, /* "TFR1" */
    TFR_WIRE_VERSION = 3,
    TFR_DEVICES_MAX = 16,
    TFR_ATTRIBUTES = 160, /* CUdevice_attribute values carried in the snapshot */
    TFR_PEER_ATTRIBUTES = 8,
};

enum tfr_boot_type {
    TFR_BOOT_HELLO = 1, /* client -> executor: struct tfr_hello */
    TFR_BOOT_SNAPSHOT,  /* executor -> client: struct tfr_snapshot */
    TFR_BOOT_REFUSED,   /* executor -> client: text, the reason */
    TFR_BOOT_ATTACH,    /* client -> executor: struct tfr_way (transport/ways.h), one for each
                           transport; a worker answers */
    TFR_BOOT_CHOSEN,    /* worker -> client: struct tfr_chosen, and then: */
    TFR_BOOT_WELCOME,   /* worker -> client: struct tfr_welcome; key descriptor, if any */
    TFR_BOOT_DECLINED,  /* client -> worker, in place of show: choose another; text, why */
    TFR_BOOT_SHOW,      /* client -> worker: struct tfr_show; key descriptor, if any */
    TFR_BOOT_READY,     /* worker -> client: struct tfr_ready: the ring is served */
    TFR_BOOT_HOST,   /* client -> worker, late: struct tfr_host_msg, descriptor of pinned memory */
    TFR_BOOT_QUEUED, /* executor -> client: struct tfr_queued; every second while it must wait */
    TFR_BOOT_STAT,   /* tool -> executor, in place of hello, with the same body */
    TFR_BOOT_STATS,  /* executor -> tool: struct tfr_stat_head and rows (proto/stat.h) */
    TFR_BOOT_PLACE,  /* tool -> executor, in place of hello, with the same body */
    TFR_BOOT_PLACED, /* executor -> tool: text: where its GPUs are and what is near them */
};

/* Which release a side is of (proto/edition.h).  Magic, version and spec hash stay where they are
 * in every release. */
struct tfr_edition {
    uint32_t magic, version;
    uint64_t spec_hash; /* equal: nothing differs */
    uint64_t core_hash; /* what all calls share: must be equal */
    uint32_t call_n, reserved;
    char release[64]; /* for people: may be anything */
};
static_assert(sizeof(struct tfr_edition) == 96, "edition");

/* One call that a side knows, and a number for its layout. */
struct tfr_edition_call {
    uint32_t hash;
    uint16_t op, reserved;
};

/* Behind it edition.call_n struct tfr_edition_call, then env_len bytes of NAME=VALUE texts
 * (proto/hello.h). */
struct tfr_hello {
    struct tfr_edition edition;
    uint32_t pid, env_len;
    char program[64]; /* for people: may be anything */
};
static_assert(sizeof(struct tfr_hello) == 168, "hello");

struct tfr_queued {
    uint32_t position; /* from 1; 0: the executor itself is still starting */
    uint32_t running;  /* sessions */
};

struct tfr_snapshot_device {
    char name[256];
    uint8_t uuid[16];
    uint64_t total_mem;
    int32_t attribute[TFR_ATTRIBUTES];
    int8_t peer[TFR_DEVICES_MAX][TFR_PEER_ATTRIBUTES]; /* [0]: cuDeviceCanAccessPeer, then by
                                                          CUdevice_P2PAttribute */
};

/* Everything that init and device queries answer from; the same for every client of an executor.
 * Behind it edition.call_n struct tfr_edition_call. */
struct tfr_snapshot {
    struct tfr_edition edition;
    uint32_t driver_version, device_n;
    int32_t priority_least, priority_greatest;
    char transport[32]; /* the only one that it takes; "auto": the best that both have */
    struct tfr_snapshot_device device[TFR_DEVICES_MAX];
};

/* The way that the worker took, before its welcome. */
struct tfr_chosen {
    char transport[32];
    char why[480]; /* what was better and could not be had; empty: nothing was */
};

/* Offsets inside the session memory, and its key (a descriptor may come with it). */
struct tfr_welcome {
    uint64_t len, key[3];
    uint64_t page_at; /* struct tfr_client_page */
    uint64_t ring_at, ring_size;
    uint64_t lane_at, lane_len;
    uint64_t gpu_len, gpu_key[3]; /* lane 1, in GPU memory; 0: none */
    int32_t pid;
    uint32_t reserved;
};

struct tfr_ready {
    uint32_t lane_n; /* that the client may name: lane 1 may have proved useless */
    uint32_t reserved;
};

struct tfr_show {
    uint64_t len, key[3];       /* of the page memory: struct tfr_page_area, then our lane */
    uint64_t lane_at, lane_len; /* our twin of lane 0, as much as we use; 0: we map the worker's */
    uint64_t host_base, host_len; /* the host window that the client reserved; 0: none */
};

struct tfr_host_msg {
    uint64_t addr, len; /* client address, inside the host window or not */
    uint64_t seq;       /* of the host_map record that this belongs to */
};

/* ---- pages ---- */

enum {
    TFR_STREAM_SLOTS = 4096,
    TFR_REPLY_SLOTS = 64,
    TFR_REPLY_MAX = 65536,        /* bytes of a slot, head included */
    TFR_TEXT_MAX = 1 << 20,       /* bytes of device text on their way: a ring, power of two */
    TFR_ERROR_TEXT_MAX = 1 << 16, /* the same of what the driver says on stderr */
};

/* Written by the executor alone, in client memory. */
struct tfr_feedback {
    _Alignas(64) _Atomic uint64_t ring_head; /* credit: bytes of the ring consumed */
    /* CUresult; set once, pairs with the acquire in tfr_enter */
    _Alignas(64) _Atomic uint64_t sticky;
    _Alignas(64) _Atomic uint64_t
        heartbeat;                     /* ms of the executor's clock, moves at least every 100 ms */
    _Alignas(64) _Atomic uint64_t cut; /* odd while a set of stream words is being stored: together
                                          they are a consistent cut over streams */
    _Alignas(64) _Atomic uint64_t text_tail; /* bytes of device text ever put into the ring */
    _Atomic uint64_t error_text_tail;
    /* the last mark that each stream has passed */
    _Alignas(4096) _Atomic uint64_t stream[TFR_STREAM_SLOTS];
};

struct tfr_reply_slot {
    _Atomic uint64_t seq; /* stored last: pairs with the acquire in tfr_ask_send */
    uint32_t result;      /* CUresult */
    uint32_t len;         /* of the payload */
    uint8_t payload[TFR_REPLY_MAX - 16];
};
static_assert(sizeof(struct tfr_reply_slot) == TFR_REPLY_MAX, "reply slot");

struct tfr_page_area {
    struct tfr_feedback feedback;
    _Alignas(4096) struct tfr_reply_slot reply[TFR_REPLY_SLOTS];
    uint8_t text[TFR_TEXT_MAX];
    uint8_t error_text[TFR_ERROR_TEXT_MAX];
};

/* Written by the client alone, in executor memory. */
struct tfr_client_page {
    _Alignas(64) _Atomic uint64_t text_head; /* bytes of text taken */
    _Atomic uint64_t error_text_head;
    _Alignas(64) _Atomic uint64_t cpu; /* where a thread last began to wait, plus one; a hint of a
                                          client on the executor's machine */
    _Alignas(64) _Atomic uint64_t arrived[TFR_STAMPS]; /* stamps: see wire_lane.h */
    /* The last gate of each stream (index: its word) that the client has opened.  The GPU waits on
     * these: nothing that un-blocks it travels in the ring. */
    _Alignas(4096) _Atomic uint64_t gate[TFR_STREAM_SLOTS];
};
static_assert(sizeof(struct tfr_client_page) % 4096 == 0, "client page");

/* How every record that is answered begins, the generated ones too. */
struct tfr_asked_req {
    struct tfr_rec head;
    uint32_t slot, in_len; /* the reply slot; bytes of variable input */
};

/* ---- records of our own ---- */

/* Streams: id of a stream object; bit 63..56 TFR_KIND_STREAM.  Every context has its legacy stream
 * under an id that the client announces by `context` before it uses it. */

struct tfr_stream_new_req {
    struct tfr_rec head;
    uint64_t stream;
    uint32_t word; /* index of its feedback word */
    uint32_t flags;
    int32_t priority;
    uint32_t reserved;
};

struct tfr_stream_free_req {
    struct tfr_rec head;
    uint64_t stream;
    uint64_t reserved;
};

/* Asks that the stream's word become this record's seq when the stream gets here. */
struct tfr_mark_req {
    struct tfr_rec head;
    uint64_t stream;
    uint64_t reserved;
};

/* Asks where the stream is, and for a mark: CUDA_SUCCESS or CUDA_ERROR_NOT_READY. */
struct tfr_stream_query_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t stream;
};

struct tfr_event_new_req {
    struct tfr_rec head;
    uint64_t event;
    uint32_t flags, reserved;
};

struct tfr_event_free_req {
    struct tfr_rec head;
    uint64_t event;
    uint64_t reserved;
};

/* Records the event and marks the stream: an event is (stream word, seq). */
struct tfr_event_record_req {
    struct tfr_rec head;
    uint64_t stream, event;
    uint32_t flags, reserved[3];
};

struct tfr_event_elapsed_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t start, end;
    uint64_t reserved;
};
struct tfr_event_elapsed_rep {
    float ms;
    uint32_t reserved;
};

struct tfr_stream_wait_req {
    struct tfr_rec head;
    uint64_t stream, event;
    uint32_t flags, reserved[3];
};

enum tfr_copy_kind {
    TFR_COPY_INLINE,      /* bytes behind the record -> dst (device) */
    TFR_COPY_PUSH,        /* place in a lane, src -> dst (device) */
    TFR_COPY_PULL,        /* src (device) -> place in a lane, dst */
    TFR_COPY_TO_DEVICE,   /* src (mapped host) -> dst (device) */
    TFR_COPY_FROM_DEVICE, /* src (device) -> dst (mapped host) */
    TFR_COPY_DEVICE,      /* device -> device */
};
enum {
    TFR_COPY_MARK = 1 << 0,  /* the stream's word becomes this seq when the copy has been done */
    TFR_COPY_FENCE = 1 << 1, /* later records of every stream come after it (a synchronous copy that
                                returned early) */
    TFR_COPY_FETCH = 1 << 2, /* PULL: the client reads the lane itself, nothing is sent */
};

struct tfr_copy_req {
    struct tfr_rec head;
    uint64_t stream;
    uint64_t dst, src, len;
    uint32_t kind, flags;
    uint64_t stamp; /* of PUSH */
};

struct tfr_memset_req {
    struct tfr_rec head;
    uint64_t stream;
    uint64_t dst, pitch, width, height; /* width in elements; height 1: one row */
    uint32_t value, element;            /* element: 1, 2 or 4 bytes */
    uint32_t flags, reserved;
};

/* Parameters follow, packed by the kernel's layout and padded to 8; then attr_n struct
 * tfr_launch_attr. */
struct tfr_launch {
    uint64_t fn, stream;
    uint32_t grid[3], block[3];
    uint32_t shared, param_len;
    uint32_t attr_n, flags;
};
struct tfr_launch_req {
    struct tfr_rec head;
    struct tfr_launch launch;
};
static_assert(sizeof(struct tfr_launch_req) == 72, "with 128 bytes of parameters one inline put");
/* The same, answered: for launches whose errors only the driver can tell. */
struct tfr_launch_asked_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    struct tfr_launch launch;
};
enum { TFR_LAUNCH_COOPERATIVE = 1 << 0, TFR_LAUNCH_ATTRS_MAX = 16 };

struct tfr_launch_attr {
    uint32_t id, reserved;
    uint8_t value[64];
};

struct tfr_image_put_req { /* one piece of an image, out of the lane */
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t image, total, at;
    uint64_t lane_at, len, stamp;
};

/* Its id dies; what was loaded from it does not need it. */
struct tfr_image_free_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t image;
};

/* An image may be several fatbins end to end: relocatable code. */
enum { TFR_IMAGE_PARTS_MAX = 1024 };

enum { TFR_JIT_OPTIONS_MAX = 24, TFR_JIT_LOG_MAX = 16384 };

struct tfr_module_load_req { /* answered with struct tfr_module_load_rep, also on failure */
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t image;
    uint64_t id; /* of the module or library */
    uint32_t option_n, info_len, error_len, reserved;
    uint32_t option[TFR_JIT_OPTIONS_MAX];
    uint64_t value[TFR_JIT_OPTIONS_MAX];
};
struct tfr_module_load_rep {
    uint32_t info_len, error_len; /* texts follow, each with its NUL, info first */
};

/* cuLink*, one verb after the other on one state. */
enum tfr_link_verb {
    TFR_LINK_CREATE, /* takes the options */
    TFR_LINK_ADD,    /* an uploaded image; its name follows the request */
    TFR_LINK_COMPLETE,
    TFR_LINK_READ, /* a piece of the result, answered as it is */
    TFR_LINK_DESTROY
};
enum { TFR_LINK_PIECE = 32768 };

struct tfr_link_req { /* but for READ, answered with struct tfr_link_rep, also on failure */
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t id, image, at;
    uint32_t verb, type, name_len; /* name_len: with its NUL */
    uint32_t option_n, info_len, error_len;
    uint32_t option[TFR_JIT_OPTIONS_MAX];
    uint64_t value[TFR_JIT_OPTIONS_MAX];
};
struct tfr_link_rep {
    struct tfr_module_load_rep logs; /* their texts follow the whole answer */
    uint64_t len;                    /* COMPLETE: bytes of the result */
};

struct tfr_module_unload_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t id; /* module or library; what was looked up in it dies too */
};

struct tfr_function_set_req {
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t id;
    int32_t attribute, value;
};

struct tfr_function_get_req { /* the name follows, NUL-terminated; answered with struct
                                 tfr_function_info */
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t parent; /* module or library */
    uint64_t id;     /* function or kernel */
    uint32_t name_len, reserved;
};

enum { TFR_FUNCTION_ATTRIBUTES = 16, TFR_PARAMS_MAX = 4096, TFR_PARAM_BYTES_MAX = 32768 };

struct tfr_function_param {
    uint32_t at, size;
};
struct tfr_function_info {
    int32_t attribute[TFR_FUNCTION_ATTRIBUTES];
    uint32_t param_n, param_len;
    uint32_t refused, reserved; /* CUresult: the driver knows the kernel and cannot run it */
    struct tfr_function_param param[];
};

struct tfr_global_get_req { /* the name follows; answered with struct tfr_global_rep */
    struct tfr_rec head;
    uint32_t slot, in_len;
    uint64_t parent;
    uint32_t name_len, reserved;
};
struct tfr_global_rep {
    uint64_t addr, len;
};

#include "proto/wire_gate.h"
#include "proto/wire_memory.h"

#endif
