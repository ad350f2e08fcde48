/* Inside the virtual machine: decoded code, warps and blocks.  For decode*.c, ops_*.c, exec.c,
 * load.c.
 *
 * A warp is 32 lanes over one register file.  A register is a vector of 32 values: 4 bytes a lane
 * for types up to 32 bits (upper bits of 8- and 16-bit ones are zero), 8 bytes for 64-bit types; a
 * predicate is one 32-bit mask.  Immediates and special registers are vectors in the same file, so
 * that an instruction holds byte offsets and nothing else.
 *
 * Divergence: the lanes that run together are a group.  The running group is warp->active; all
 * others lie in warp->group.  An operation that changes that (branch, barrier, exit) puts the
 * groups back, its own included, and answers VM_LEAVE: the scheduler in exec.c chooses anew. */
#ifndef TFR_SOFTGPU_VM_IN_H
#define TFR_SOFTGPU_VM_IN_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "executor/softgpu/ptx.h"
#include "executor/softgpu/vm.h"
#include "executor/softgpu/vm_ops.h"

enum { VM_CALL_BYTES = 16 }; /* of the stack, for a call */
enum { VM_RESERVED = 1024 }; /* bytes of reserved shared memory */
enum { VM_LANES = 32, VM_MAX_WARPS = 32, VM_BARRIERS = 17, VM_CLUSTER_BARRIER = 16 };

/* Windows of the generic address space; no host address looks like that. */
#define VM_WIN_SHIFT  56
#define VM_WIN_SHARED 3ull
#define VM_WIN_LOCAL  5ull
#define VM_WIN_PARAM  7ull
#define VM_WIN_FN     9ull

struct vm_warp;
struct vm_ins;
typedef const struct vm_ins *(*vm_fn)(struct vm_warp *w, const struct vm_ins *in);

#define VM_LEAVE ((const struct vm_ins *)UINTPTR_MAX)

struct vm_ins {
    vm_fn fn;
    uint32_t d, a, b, c, e; /* byte offsets into the register file */
    uint32_t guard, flip;   /* runs in lanes active & (guard ^ flip) */
    uint32_t aux;           /* per operation: see decode */
    union {
        int64_t imm;
        const struct vm_ins *target;
        const struct vm_call *call;
        const struct vm_switch *table;
        const struct vm_mma *mma;
    };
    union {
        vm_fn inner; /* what a floating-point mode wraps */
        uint64_t stride;
    };
    uint32_t line;
    uint32_t pad;
};

/* What a wrapped operation does around its body (aux, low bits). */
enum {
    VM_ROUND_RN = 0,
    VM_ROUND_RZ = 1,
    VM_ROUND_RM = 2,
    VM_ROUND_RP = 3,
    VM_ROUND = 3,
    VM_FTZ = 4,
    VM_SAT = 8,
    VM_FLUSH_OUT = 16, /* the operation passes subnormals through */
    VM_AUX_SHIFT = 8   /* the operation's own bits start here */
};

enum {
    VM_TRUE = 0,
    VM_FALSE = 4,
    VM_TRASH = 64,
    VM_FIRST = 64 + 256
}; /* fixed places in the file */

/* A special register that is constant for a warp, and an immediate: written before the warp starts.
 */
struct vm_special {
    uint8_t sreg, comp;
    uint32_t at;
};

struct vm_fill {
    uint64_t bits;
    uint32_t at;
    bool wide;
};

/* A piece of a frame, for saving one lane of it. */
enum vm_slot_kind { VS_32, VS_64, VS_PRED, VS_BLOB };
struct vm_slot {
    uint32_t at, stride; /* stride: of a blob */
    enum vm_slot_kind kind;
};

/* A function as laid into a kernel's code. */
struct vm_frame {
    const struct ptx_fn *fn;
    const struct vm_ins *entry;
    uint32_t entry_at;               /* its index */
    const struct vm_slot *slot;      /* what recursion saves */
    uint32_t slot_n, slot_len;       /* slot_len: bytes per lane */
    uint32_t *blob_at, *blob_stride; /* by variable index */
    uint32_t *blob_size;
    uint32_t local_len, depot; /* bytes per lane; register holding its start */
    uint32_t id;
};

/* A matrix of a warp: how its elements lie over lanes and registers. */
enum { VM_MAT_REGS = 8 };
struct vm_mat {
    uint8_t type, rows, cols;
    uint8_t reg_n;        /* registers per lane */
    uint8_t per_reg;      /* elements in each */
    bool linear;          /* wmma: our own order, copies side by side; else as mma documents */
    bool by_column, is_b; /* in memory; of mma: a fragment of B */
    uint32_t reg[VM_MAT_REGS];
};
struct vm_mma {
    struct vm_mat a, b, c, d;
    bool satfinite;
};

enum vm_native { VN_NONE, VN_VPRINTF, VN_ASSERT, VN_MALLOC, VN_FREE };
unsigned int vm_native(const char *name); /* VN_NONE: device code has to define it */

struct vm_arg {
    uint32_t from, from_stride, to, to_stride, size;
};

struct vm_call {
    const struct vm_frame *callee; /* NULL: native, or through a register */
    uint32_t native;
    uint32_t arg_n, ret_n;
    struct vm_arg *arg;
    struct vm_arg ret; /* from: in the callee; to: in the caller */
    bool save;         /* the callee may be active already in this lane */
};

struct vm_switch {
    uint32_t n;
    const struct vm_ins *target[];
};

struct vm_code {
    struct vm_ins *ins;
    uint32_t ins_n;
    struct vm_fill *fill;
    uint32_t fill_n, file_len;
    struct vm_special *special;
    uint32_t special_n;
    uint32_t local_len; /* per thread; the static frames */
    uint32_t stack_len; /* per thread, every function once; recursion needs the launch's more */
    bool reserved;      /* uses reserved shared memory */
    struct vm_frame **frame;
    uint32_t frame_n;
    struct ptx_tree mem; /* owns all of this but ins */
    uint64_t id;         /* never used twice: names what a cached register file was filled for */
};

struct vm_kernel {
    struct vm_module *module;
    const struct ptx_fn *fn;
    struct vm_kernel_info info;
    struct vm_param *params;
    uint32_t *shared_at; /* offset + 1 by ptx_var's shared_index, 0: not used here */
    _Atomic(struct vm_code *) code;
    CUresult refused;
    struct vm_text why;
};

struct vm_module {
    struct ptx_tree tree;
    struct vm_kernel *kernel;
    size_t kernel_n;
    struct vm_global *global;
    size_t global_n;
    pthread_mutex_t lock; /* of decoding */
};

enum vm_group_state { VG_READY, VG_BARRIER, VG_SYNC };

struct vm_group {
    uint32_t mask, depth;
    const struct vm_ins *pc; /* to run next; for a waiting group the instruction it waits at */
    uint8_t state, bar;
    uint32_t turn;
};

struct vm_stack; /* calls.c */

struct vm_warp {
    uint8_t *reg;
    uint32_t active, depth;
    int32_t quantum; /* backward branches until others get a turn */
    uint32_t alive;
    const struct vm_ins *run; /* instructions from here on are not counted yet */
    uint64_t count;
    struct vm_block *blk;
    uint8_t *local;
    uint32_t index, carry; /* carry: CC.CF of every lane */
    bool rotate;
    uint8_t group_n;
    uint32_t turn;
    const struct vm_ins *force; /* run this .sync operation though members are missing */
    struct vm_stack *stack;
    uint32_t lsp[VM_LANES]; /* bytes of local memory in use */
    struct vm_group group[VM_LANES + 1];
};

struct vm_barrier {
    uint32_t arrived, expected; /* threads; expected 0: all alive */
    uint32_t mask[VM_MAX_WARPS];
    uint32_t red[3]; /* popc, and, or */
};

struct vm_block {
    struct vm_block *link; /* of the worker's free ones */
    struct vm_job *job;
    uint32_t ctaid[3];
    uint8_t *shared;
    uint32_t shared_len, warp_n, alive;
    uint32_t reserved_at; /* in shared memory */
    uint32_t stack_len;   /* of local memory per thread */
    const uint8_t *params;
    const struct vm_kernel *kernel;
    const struct vm_code *code;
    struct vm_warp *warp;
    uint32_t bar_used;
    struct vm_barrier bar[VM_BARRIERS];
    /* what the memory was laid out and filled for, see block.c */
    void *mem;
    size_t mem_len;
    uint64_t code_id;
    uint32_t dim[3], grid[3], lay_shared;
};

/* One launch. */
struct vm_job {
    const struct vm_launch *launch;
    const struct vm_code *code;
    uint64_t block_n, id;
    uint64_t workspace; /* of a cooperative launch: size and barrier word, as cooperative groups
                           expect */
    uint32_t stack_len; /* of local memory per thread */
    int32_t quantum;
    bool has_budget;
    _Atomic uint64_t next;  /* block to take */
    _Atomic int64_t budget; /* thread-instructions left */
    _Atomic bool failed;    /* everybody gives up */
    _Atomic bool printed;
    pthread_mutex_t lock; /* of fault */
    struct vm_fault *fault;
    bool fault_set;
    bool shared_out; /* the pool knows it */
    int users;       /* pool workers inside; under the pool's lock */
    struct vm_job *link;
};

enum vm_step { VM_STEP_DONE, VM_STEP_YIELD, VM_STEP_STUCK };

static inline uint32_t vm_mask(const struct vm_warp *w, const struct vm_ins *in)
{
    return w->active & (*(const uint32_t *)(w->reg + in->guard) ^ in->flip);
}

/* Counts the straight run up to and including `in`; the next one starts at `next`. */
static inline void vm_count(struct vm_warp *w, const struct vm_ins *in, const struct vm_ins *next)
{
    w->count += (uint64_t)(in - w->run + 1) * (unsigned int)__builtin_popcount(w->active);
    w->run = next;
}

/* The current group (or part of it) goes on at pc, later.  Counting is the caller's. */
static inline void vm_push(struct vm_warp *w, uint32_t mask, const struct vm_ins *pc)
{
    struct vm_group *g = &w->group[w->group_n++];
    g->mask = mask;
    g->depth = w->depth;
    g->pc = pc;
    g->state = VG_READY;
    g->turn = w->turn;
}

/* block.c: memory for one block of the launch, reused from launch to launch. */
struct vm_block *vm_block_new(void);
void vm_block_free(struct vm_block *blk);
bool vm_block_prepare(struct vm_block *blk, struct vm_job *job);
void vm_block_start(struct vm_block *blk, uint64_t number);
/* Runs every warp until it ends, waits or has used its quantum. */
enum vm_step vm_block_step(struct vm_block *blk);
uint64_t vm_block_count(struct vm_block *blk); /* thread-instructions since asked last */
void vm_warp_run(struct vm_warp *w);           /* exec.c */

/* exec.c */
const struct vm_ins *vm_fault_at(struct vm_warp *w, const struct vm_ins *in, CUresult result,
                                 unsigned int lane, uint64_t addr, const char *what)
    __attribute__((cold));
const struct vm_ins *vm_op_bra(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_brx(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_exit(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_trap(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_bar(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_yield(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_nop(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_fence(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_warpsync(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_sreg(struct vm_warp *w, const struct vm_ins *in);
/* Are all live lanes of `members` here?  Else the group was put aside: answer VM_LEAVE. */
bool vm_gather(struct vm_warp *w, const struct vm_ins *in, uint32_t members);
/* Bits of vm_op_bar's aux. */
enum {
    VM_BAR_ARRIVE = 1,
    VM_BAR_POPC = 2,
    VM_BAR_AND = 3,
    VM_BAR_OR = 4,
    VM_BAR_KIND = 7,
    VM_BAR_COUNT = 8,
    VM_BAR_NEG = 16,
    VM_BAR_CLUSTER = 32
};

/* The current group, or the part of it that `mask` says, goes on at pc after others had a turn. */
const struct vm_ins *vm_give_way(struct vm_warp *w, uint32_t mask, const struct vm_ins *pc);

/* mbarrier.c; the operation stands in aux above VM_MEM_OP_SHIFT */
enum {
    VM_MB_INIT,
    VM_MB_ARRIVE,
    VM_MB_DROP,
    VM_MB_ARRIVE_TX,
    VM_MB_DROP_TX,
    VM_MB_EXPECT_TX,
    VM_MB_COMPLETE_TX,
    VM_MB_STATE,
    VM_MB_PARITY
};
const struct vm_ins *vm_op_mbarrier(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_mbarrier_wait(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_mbarrier_pending(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_bulk(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_elect(struct vm_warp *w, const struct vm_ins *in);

/* addr.c: where the lanes' addresses are in this process.  False: a fault was raised. */
bool vm_resolve(struct vm_warp *w, const struct vm_ins *in, uint32_t m, unsigned int space,
                const uint64_t *addr, uint32_t len, unsigned int want, void **ptr);
/* Addresses of a memory instruction: register a (32- or 64-bit, VM_MEM_A32) + imm. */
void vm_addresses(const struct vm_warp *w, const struct vm_ins *in, uint64_t *addr);
const struct vm_ins *vm_ld_lanes(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_st_lanes(struct vm_warp *w, const struct vm_ins *in);

/* aux of memory instructions */
enum {
    VM_MEM_SPACE = 7,
    VM_MEM_TYPE_SHIFT = 3,
    VM_MEM_TYPE = 31 << 3,
    VM_MEM_DW_SHIFT = 8, /* destination width: 0 16 bits, 1 32, 2 64 */
    VM_MEM_DW = 3 << 8,
    VM_MEM_N_SHIFT = 10, /* elements - 1 */
    VM_MEM_N = 3 << 10,
    VM_MEM_A32 = 1 << 12,
    VM_MEM_OP_SHIFT = 13 /* of atomics */
};

/* calls.c, devrt.c */
void *vm_lane_ptr(struct vm_warp *w, const struct vm_ins *in, unsigned int lane, unsigned int space,
                  uint64_t addr, uint32_t len, unsigned int want);
const struct vm_ins *vm_op_call(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_call_reg(struct vm_warp *w, const struct vm_ins *in);
const struct vm_ins *vm_op_ret(struct vm_warp *w, const struct vm_ins *in);
void vm_stack_free(struct vm_warp *w);
void vm_stack_reset(struct vm_warp *w);
bool vm_native_call(struct vm_warp *w, const struct vm_ins *in, uint32_t m);

/* decode.c: under the module's lock. */
CUresult vm_decode(struct vm_kernel *kernel, struct vm_code **code_out, struct vm_text *why);
void vm_code_free(struct vm_code *code);

#endif
