/* The syntax tree of one PTX module, as the parser (ptx.c) leaves it for the loader (load.c) and
 * the decoder (decode.c).  Names are resolved already: an operand points at its register, variable
 * or function; only labels are numbers, because they may be used before they appear. Everything
 * lives in the tree's arena and dies with ptx_free.  Text slices point into `text`. */
#ifndef TFR_SOFTGPU_PTX_H
#define TFR_SOFTGPU_PTX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "executor/softgpu/vm.h"

enum ptx_type {
    PT_NONE,
    PT_U8,
    PT_U16,
    PT_U32,
    PT_U64,
    PT_S8,
    PT_S16,
    PT_S32,
    PT_S64,
    PT_B8,
    PT_B16,
    PT_B32,
    PT_B64,
    PT_F16,
    PT_F16X2,
    PT_BF16,
    PT_BF16X2,
    PT_F32,
    PT_F64,
    PT_PRED,
    PT_TF32,
    PT_U16X2,
    PT_S16X2,
    PT_E4M3X2,
    PT_E5M2X2,
    PT_N
};

enum ptx_space {
    PS_GENERIC,
    PS_GLOBAL,
    PS_SHARED,
    PS_LOCAL,
    PS_PARAM, /* of the kernel */
    PS_CONST,
    PS_BLOB, /* .param of a function or of a call */
    PS_N
};

enum ptx_kind {
    PO_NONE,
    PO_REG,
    PO_INT,
    PO_F32,
    PO_F64,
    PO_VAR,
    PO_FN,
    PO_SREG,
    PO_VEC,
    PO_LABEL, /* name in `slice`, number in `reg` once resolved; also the name of a prototype */
    PO_SINK,  /* _ */
    PO_LIST   /* ( ... ) */
};

enum ptx_sreg {
    SR_NONE,
    SR_TID,
    SR_NTID,
    SR_CTAID,
    SR_NCTAID,
    SR_LANEID,
    SR_WARPID,
    SR_NWARPID,
    SR_SMID,
    SR_NSMID,
    SR_GRIDID,
    SR_LM_EQ,
    SR_LM_LE,
    SR_LM_LT,
    SR_LM_GE,
    SR_LM_GT,
    SR_CLOCK,
    SR_CLOCK_HI,
    SR_CLOCK64,
    SR_TIMER,
    SR_TIMER_LO,
    SR_TIMER_HI,
    SR_DYN_SMEM,
    SR_TOTAL_SMEM,
    SR_ENVREG1, /* address of the grid barrier of a cooperative launch: high half */
    SR_ENVREG2, /* low half */
    SR_ZERO /* cluster rank and the like: always 0 */,
    SR_ONE /* sizes in clusters */,
    SR_CLUSTER_ID,
    SR_NCLUSTER_ID,
    SR_RESERVED,      /* shared memory that libraries use behind the program's back */
    SR_RESERVED_HALF, /* the second half of it */
    SR_RESERVED_END,
    SR_N
};

struct ptx_slice {
    const char *s;
    uint32_t n;
};

struct ptx_fn;

struct ptx_init {
    struct ptx_init *next;
    uint64_t at, value;
    const struct ptx_var *var; /* value is added to its address */
    const struct ptx_fn *fn;
    uint32_t size;
};

struct ptx_var {
    struct ptx_var *next; /* of the module or of the function, in order */
    const char *name;
    uint8_t space, type;
    bool is_extern, weak, dynamic; /* dynamic: extern .shared x[] */
    uint32_t module;               /* of the text, where it is defined */
    uint32_t align;
    uint64_t size;
    struct ptx_init *init;
    uint64_t addr;         /* of a global, set by the loader; of a kernel parameter, its offset */
    uint32_t index;        /* among the function's or module's variables */
    uint32_t shared_index; /* of a .shared one, among all of the text */
};

struct ptx_opnd {
    uint8_t kind;
    uint8_t comp; /* of a special register: 0..2 */
    bool neg;     /* !p */
    bool mem;     /* stood in brackets */
    uint32_t reg; /* register, special register or label */
    uint32_t n;   /* elements of a vector or list */
    uint32_t line;
    int64_t off; /* [x+off], x+off */
    union {
        uint64_t bits;
        const struct ptx_var *var;
        struct ptx_fn *fn;
        struct ptx_opnd *vec;
        struct ptx_slice slice;
    };
    struct ptx_opnd *pair; /* the q of p|q */
};

struct ptx_ins {
    struct ptx_slice op; /* with all modifiers */
    struct ptx_opnd *opnd;
    uint32_t opnd_n;
    uint32_t line;
    uint32_t guard; /* register + 1, 0: none */
    bool guard_neg;
};

struct ptx_label {
    struct ptx_slice name;
    uint32_t scope, at;    /* index of the instruction it stands before */
    struct ptx_opnd *list; /* of .branchtargets */
    uint32_t list_n;
    struct ptx_proto *proto; /* of .callprototype */
};

struct ptx_proto {
    uint32_t ret_n, param_n;
    uint64_t ret_size, param_size[64];
};

struct ptx_fn {
    struct ptx_fn *next;
    const char *name;
    bool entry, has_body, is_extern, weak, addressed;
    const char *unsupported; /* a directive that we do not honour */
    uint32_t line, module;
    struct ptx_var *params, *rets, *vars; /* vars: everything else declared inside */
    uint32_t param_n, ret_n, var_n;       /* var_n counts all three lists */
    uint64_t param_len;
    uint8_t *reg_type;
    uint32_t reg_n;
    struct ptx_ins *ins;
    uint32_t ins_n;
    struct ptx_label *label;
    uint32_t label_n;
    uint32_t max_threads; /* .maxntid or .reqntid product, 0: not given */
    uint32_t req[3];      /* .reqntid */
    uint32_t index;
};

struct ptx_tree {
    char *text;
    size_t len;
    int version, target; /* 90, 75: the highest of the text's modules */
    bool exact;          /* a target for one architecture alone: sm_90a */
    struct ptx_var *vars;
    struct ptx_fn *fns;
    uint32_t var_n, fn_n, shared_n;
    struct ptx_chunk *chunks;
};

/* Several modules in one text, to be linked: this byte stands between them.  Names that are
 * .visible, .weak or .extern are the same in all of them. */
enum { PTX_NEXT_MODULE = 0x1c };

/* Copies the text.  CUDA_ERROR_INVALID_PTX with "ptx line 12: ..." in *why;
 * CUDA_ERROR_INVALID_IMAGE when modules contradict each other. */
CUresult ptx_parse(const char *text, size_t len, struct ptx_tree *tree, struct vm_text *why);
void ptx_free(struct ptx_tree *tree);
void *ptx_alloc(struct ptx_tree *tree, size_t size); /* zeroed; NULL when out of memory */

/* Bytes of a type in memory; 0 for predicates and none. */
uint32_t ptx_type_size(unsigned int type);
/* "u32" and the like; PT_NONE when it is none. */
unsigned int ptx_type_find(const char *s, size_t n);
const char *ptx_type_name(unsigned int type);

#endif
