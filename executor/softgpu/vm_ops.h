/* The operations that the decoder can ask for, by name and type.  A hole in the table is an
 * instruction that we do not run: it is refused by name.  Two tables exist, one per instruction set
 * of the host; vm_isa() gives the one for this machine. */
#ifndef TFR_SOFTGPU_VM_OPS_H
#define TFR_SOFTGPU_VM_OPS_H

#include "executor/softgpu/ptx.h"

enum vm_op {
    VO_NONE,
    VO_MOV,
    VO_ADD,
    VO_SUB,
    VO_MUL, /* .lo for integers */
    VO_MUL_HI,
    VO_MUL_WIDE,
    VO_MAD,
    VO_MAD_HI,
    VO_MAD_WIDE,
    VO_MUL24,
    VO_MUL24_HI,
    VO_MAD24,
    VO_MAD24_HI,
    VO_ADD_SAT,
    VO_SUB_SAT,
    VO_MAD_HI_SAT,
    VO_ADDC, /* aux: VM_CC_* */
    VO_SUBC,
    VO_MADC,
    VO_MADC_HI,
    VO_SAD,
    VO_DIV,
    VO_REM,
    VO_ABS,
    VO_NEG,
    VO_MIN,
    VO_MAX,
    VO_MIN_NAN,
    VO_MAX_NAN,
    VO_MIN_RELU,
    VO_MAX_RELU,
    VO_MIN3,
    VO_MAX3,
    VO_AND,
    VO_OR,
    VO_XOR,
    VO_NOT,
    VO_CNOT,
    VO_SHL,
    VO_SHR,
    VO_POPC,
    VO_CLZ,
    VO_BREV,
    VO_BFE,
    VO_BFI,
    VO_BFIND,
    VO_BFIND_SHIFT,
    VO_FNS,
    VO_SHF_L_CLAMP,
    VO_SHF_R_CLAMP,
    VO_SHF_L_WRAP,
    VO_SHF_R_WRAP,
    VO_LOP3,
    VO_PRMT,
    VO_PRMT_F4E,
    VO_PRMT_B4E,
    VO_PRMT_RC8,
    VO_PRMT_ECL,
    VO_PRMT_ECR,
    VO_PRMT_RC16,
    VO_BMSK_CLAMP,
    VO_BMSK_WRAP,
    VO_SZEXT_CLAMP,
    VO_SZEXT_WRAP,
    VO_DP4A, /* type of a; b's signedness in aux */
    VO_DP2A_LO,
    VO_DP2A_HI,
    VO_VABSDIFF2,
    VO_VABSDIFF4,
    VO_VABSDIFF2_EACH, /* differences side by side, not added up */
    VO_VABSDIFF4_EACH,
    VO_SELP,
    VO_SLCT,     /* c: s32 */
    VO_SLCT_F32, /* c: f32 */
    VO_FMA,
    VO_FMA_RELU,
    VO_SQRT,
    VO_RCP,
    VO_RSQRT,
    VO_DIV_APPROX,
    VO_RCP_APPROX,
    VO_SQRT_APPROX,
    VO_RCP_FTZ64, /* rcp.approx.ftz.f64 */
    VO_RSQRT_FTZ64,
    VO_EX2,
    VO_LG2,
    VO_SIN,
    VO_COS,
    VO_TANH,
    VO_COPYSIGN,
    VO_TESTP_FINITE,
    VO_TESTP_INFINITE,
    VO_TESTP_NUMBER,
    VO_TESTP_NOTANUMBER,
    VO_TESTP_NORMAL,
    VO_TESTP_SUBNORMAL,
    VO_RINT,  /* to an integral value, by the current mode */
    VO_PACK2, /* mov.b32 {16,16} ... the parts in a, b, c, e */
    VO_PACK4,
    VO_UNPACK2, /* the parts are d, b, c, e */
    VO_UNPACK4,
    VO_VOTE_ALL,
    VO_VOTE_ANY,
    VO_VOTE_UNI,
    VO_VOTE_BALLOT,
    VO_ACTIVEMASK,
    VO_SHFL_UP,
    VO_SHFL_DOWN,
    VO_SHFL_BFLY,
    VO_SHFL_IDX,
    VO_MATCH_ANY,
    VO_MATCH_ALL,
    VO_REDUX_ADD,
    VO_REDUX_MIN,
    VO_REDUX_MAX,
    VO_REDUX_AND,
    VO_REDUX_OR,
    VO_REDUX_XOR,
    VO_PAND,
    VO_POR,
    VO_PXOR,
    VO_PNOT,
    VO_PMOV,
    VO_CVTA, /* aux: window, + VM_CVTA_TO */
    VO_ISSPACEP,
    VO_LD_PARAM,
    VO_ATOM,
    VO_CP_ASYNC,
    VO_FP_WRAP,
    VO_CVT_PACK,
    VO_CVT_NARROW, /* f16x2 to a pair of 8-bit floats, f32 to tf32 */
    VO_MMA,
    VO_MAT_LOAD,
    VO_MAT_STORE,
    VO_LDMATRIX,
    VO_STMATRIX,
    VO_MOVMATRIX,
    VO_CVT_WIDEN, /* a pair of 8-bit floats to f16x2 */
    VO_N
};

/* Comparisons of setp and set. */
enum vm_cmp {
    VC_EQ,
    VC_NE,
    VC_LT,
    VC_LE,
    VC_GT,
    VC_GE,
    VC_EQU,
    VC_NEU,
    VC_LTU,
    VC_LEU,
    VC_GTU,
    VC_GEU,
    VC_NUM,
    VC_NAN,
    VC_N
};

enum vm_cvt {
    VCV_PLAIN, /* int to int; int to float and float to float by the current mode; float to int
                  truncates */
    VCV_ROUND, /* float to int by the current mode */
    VCV_SAT,   /* int to int, clamped */
    VCV_RELU,
    VCV_N
};

/* aux of setp and set above VM_AUX_SHIFT: how the third operand joins. */
enum {
    VM_JOIN_AND = 1,
    VM_JOIN_OR = 2,
    VM_JOIN_XOR = 3,
    VM_JOIN = 3,
    VM_JOIN_NEG = 4,
    VM_SET_FLOAT = 8,
    VM_SET_HALF = 16,
    VM_SET_BF = 32
};
/* aux of carry chains. */
enum { VM_CC_IN = 1, VM_CC_OUT = 2 };
/* aux of votes: the source predicate is negated. */
enum { VM_VOTE_NEG = 1 };
enum { VM_CVTA_TO = 16 };
/* aux of conversions to tf32: ties away from zero. */
enum { VM_CVT_RNA = 32 };

enum vm_atom_op {
    VA_ADD,
    VA_MIN,
    VA_MAX,
    VA_INC,
    VA_DEC,
    VA_AND,
    VA_OR,
    VA_XOR,
    VA_EXCH,
    VA_CAS,
    VA_N
};

enum { VM_SP_GLOBAL, VM_SP_SHARED, VM_SP_N };

struct vm_ins;
struct vm_warp;

struct vm_isa {
    const struct vm_ins *(*fn[VO_N][PT_N])(struct vm_warp *, const struct vm_ins *);
    const struct vm_ins *(*setp[VC_N][PT_N])(struct vm_warp *, const struct vm_ins *);
    const struct vm_ins *(*set[VC_N][PT_N])(struct vm_warp *, const struct vm_ins *);
    const struct vm_ins *(*cvt[VCV_N][PT_N][PT_N])(struct vm_warp *,
                                                   const struct vm_ins *); /* [to][from] */
    /* [elements: 1, 2, 4] */
    const struct vm_ins *(*ld[VM_SP_N][PT_N][3][3])(struct vm_warp *, const struct vm_ins *);
    const struct vm_ins *(*st[VM_SP_N][PT_N][3][3])(struct vm_warp *, const struct vm_ins *);
};

const struct vm_isa *vm_isa(void);

/* clang-format off */
#define VM_FILLERS(X)                                                                              \
    X(int) X(bit) X(float) X(approx) X(cmp) X(cvt) X(half) X(mem) X(warp) X(atom) X(move)          \
    X(narrow) X(pair) X(mma)
/* clang-format on */
#define VM_FILL_DECL(name)                                                                         \
    void vm_fill_##name##_base(struct vm_isa *isa);                                                \
    void vm_fill_##name##_v3(struct vm_isa *isa);
VM_FILLERS(VM_FILL_DECL)
#undef VM_FILL_DECL

#endif
