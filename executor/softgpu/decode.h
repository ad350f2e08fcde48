/* Between decode.c (frame layout, operands, the walk over a function) and dec_alu.c, dec_mem.c,
 * dec_ctl.c (one handler per opcode).  A refusal is sticky, like a parse error: the first one is
 * kept. */
#ifndef TFR_SOFTGPU_DECODE_H
#define TFR_SOFTGPU_DECODE_H

#include "executor/softgpu/vm_in.h"

/* Modifiers of an opcode, as bits: what is not allowed in an opcode's row is refused. */
enum dec_mod {
    DM_FTZ,
    DM_SAT,
    DM_RND,  /* rn rz rm rp */
    DM_RNDI, /* rni rzi rmi rpi */
    DM_APPROX,
    DM_FULL,
    DM_HI,
    DM_LO,
    DM_WIDE,
    DM_CC,
    DM_CMP,
    DM_AND,
    DM_OR,
    DM_XOR,
    DM_SPACE,
    DM_VEC,
    DM_MEMQ, /* orders, scopes and cache hints of ld and st; 1: other blocks may look on */
    DM_SYNC,
    DM_ALIGNED,
    DM_TO,
    DM_UNI,
    DM_WRAP,
    DM_CLAMP,
    DM_SHIFTAMT,
    DM_NAN,
    DM_XORSIGN,
    DM_RELU,
    DM_LR,   /* l r */
    DM_PRMT, /* f4e b4e rc8 ecl ecr rc16 */
    DM_MODE, /* up down bfly idx */
    DM_ALL,
    DM_ANY,
    DM_BALLOT,
    DM_POPC,
    DM_ARRIVE,
    DM_RED,
    DM_CTA,
    DM_ATOM, /* add min max inc dec exch cas */
    DM_NOFTZ,
    DM_RNA,
    DM_SATFINITE,
    DM_TEST,  /* finite infinite ... */
    DM_OTHER, /* a word of this opcode alone, left in `word` */
    DM_N
};
#define DM(x) (1ull << DM_##x)

struct dec_mods {
    uint64_t seen;
    unsigned int type[4], type_n;
    unsigned int round, cmp, space, vec, left, prmt, mode, atom, test, strong;
    struct ptx_slice word[4];
    unsigned int word_n;
};

struct dec_fix {
    uint32_t ins, label;
    struct vm_switch *table; /* NULL: the instruction's target */
    uint32_t at;
};

struct dec_const {
    uint64_t bits;
    uint32_t at;
    bool wide, used;
};

struct dec_edge {
    uint32_t from, to; /* frames */
    struct vm_call *call;
};

struct dec {
    struct vm_kernel *kernel;
    struct vm_module *module;
    const struct vm_isa *isa;
    struct vm_code *code;
    struct vm_text *why;
    CUresult bad;
    struct vm_ins *ins;
    uint32_t ins_n, ins_cap, file_len, pred_at, pred_left;
    struct vm_frame **frame; /* of every function laid in, [0] the kernel */
    uint32_t frame_n, frame_cap;
    struct vm_frame *fr; /* being decoded */
    const struct ptx_fn *fn;
    uint32_t *reg;      /* place of each register of fn, 0: none yet */
    uint32_t *local_at; /* place of each variable of fn */
    uint32_t *start;    /* first instruction of each statement */
    struct dec_fix *fix;
    uint32_t fix_n, fix_cap;
    struct dec_const *konst;
    uint32_t konst_n, konst_cap;
    struct vm_special special[64];
    struct vm_slot *slot;
    uint32_t slot_n, slot_cap;
    struct dec_edge *edge; /* calls, for recursion */
    uint32_t edge_n, edge_cap;
    struct vm_fill *fill;
    uint32_t fill_n, fill_cap;
    const struct ptx_ins *p; /* being decoded */
    struct dec_mods m;
    bool indirect;
};

struct dec_row {
    const char *name;
    void (*handle)(struct dec *d, unsigned int arg);
    unsigned int arg;
    uint64_t allowed;
    uint8_t min, max; /* operands */
};

extern const struct dec_row dec_alu_rows[], dec_move_rows[], dec_mem_rows[], dec_ctl_rows[],
    dec_sync_rows[], dec_mma_rows[];

/* dec_mods.c: the longest row name that the opcode starts with, and its length. */
const struct dec_row *dec_find_row(struct ptx_slice op, uint32_t *rest_out);
void dec_take_modifier(struct dec *d, const struct dec_row *row, struct ptx_slice s);

/* dec_mem.c: the address of o, for an instruction that is emitted later. */
struct dec_where {
    uint32_t a, aux; /* VM_MEM_A32 */
    int64_t imm;
    uint64_t stride; /* of a parameter's blob */
    unsigned int space;
    bool fixed; /* a kernel parameter at imm */
};
struct dec_where dec_address(struct dec *d, const struct ptx_opnd *o, unsigned int space,
                             uint32_t len);

/* dec_frame.c */
uint64_t dec_round_up(uint64_t v, uint64_t align);
void dec_lay_var(struct dec *d, struct vm_frame *fr, const struct ptx_var *v, uint64_t *local);
/* Adds the places made since `from` to what recursion into the frame saves. */
void dec_keep_slots(struct dec *d, struct vm_frame *fr, uint32_t from);
void dec_find_recursion(struct dec *d);
uint32_t dec_place(struct dec *d, uint32_t size, uint32_t align);
uint32_t dec_slot(struct dec *d, uint32_t at, enum vm_slot_kind kind, uint32_t stride);
void *dec_more(struct dec *d, void *old, uint32_t n, uint32_t *cap, size_t size);

void dec_refuse(struct dec *d, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));
void dec_invalid(struct dec *d, const char *what);

/* Places.  Each answers a safe one after a refusal. */
uint32_t dec_temp(struct dec *d, bool wide);
uint32_t dec_temp_pred(struct dec *d);
uint32_t dec_const(struct dec *d, uint64_t bits, bool wide);
uint32_t dec_src(struct dec *d, const struct ptx_opnd *o, unsigned int type);
uint32_t dec_dst(struct dec *d, const struct ptx_opnd *o, unsigned int type);
/* A register of any width up to what `type` needs; its size in bytes in *size_out. */
uint32_t dec_any(struct dec *d, const struct ptx_opnd *o, unsigned int type, bool dst,
                 uint32_t *size_out);
uint32_t dec_reg_size(const struct dec *d, const struct ptx_opnd *o); /* 0: not a register */
uint32_t dec_special(struct dec *d, unsigned int sreg, unsigned int comp);
uint32_t dec_pred_src(struct dec *d, const struct ptx_opnd *o, bool *neg_out);

/* Appends an instruction with the statement's guard and line; fn NULL refuses by name. */
struct vm_ins *dec_emit(struct dec *d, vm_fn fn);
struct vm_ins *dec_emit_op(struct dec *d, unsigned int op, unsigned int type);
/* With the statement's rounding, ftz and sat around it. */
struct vm_ins *dec_emit_fp(struct dec *d, vm_fn fn, unsigned int type, uint32_t flags);
uint32_t dec_fp_flags(const struct dec *d);
void dec_target(struct dec *d, struct vm_ins *in, const struct ptx_opnd *label);
void dec_table_target(struct dec *d, struct vm_switch *table, uint32_t at, uint32_t label);
void dec_edge(struct dec *d, struct vm_call *call, const struct vm_frame *to);
struct vm_frame *dec_frame(struct dec *d, const struct ptx_fn *fn);
bool dec_want_types(struct dec *d, unsigned int n);
static inline bool dec_has(const struct dec *d, enum dec_mod mod)
{
    return d->m.seen >> mod & 1;
}
unsigned int dec_bits(unsigned int type); /* PT_B8 .. PT_B64 of the same size */
void *dec_alloc(struct dec *d, size_t size);

#endif
