/* Opcodes that compute: which operation of vm_ops.h an opcode with its modifiers and types is, and
 * its operands.  Called by decode.c through the table at the end; a combination without an
 * operation is refused there by name. */
#include "executor/softgpu/decode.h"

static bool is_float(unsigned int t)
{
    return t == PT_F32 || t == PT_F64;
}

static bool is_half(unsigned int t)
{
    return t == PT_F16 || t == PT_F16X2 || t == PT_BF16 || t == PT_BF16X2;
}

/* Twice the size, same sign. */
static unsigned int wider(unsigned int t)
{
    return (t >= PT_U8 && t < PT_U64) || (t >= PT_S8 && t < PT_S64) ? t + 1 : PT_NONE;
}

/* The operands d, a, b, c of one type. */
static void simple(struct dec *d, vm_fn fn, unsigned int type)
{
    const struct ptx_opnd *o = d->p->opnd;
    uint32_t at[4] = {VM_TRASH, VM_TRASH, VM_TRASH, VM_TRASH};
    for (uint32_t i = 0; i < d->p->opnd_n && i < 4; i++)
        at[i] = i ? dec_src(d, &o[i], type) : dec_dst(d, &o[i], type);
    struct vm_ins *in =
        dec_emit_fp(d, fn, type, is_float(type) || is_half(type) ? dec_fp_flags(d) : 0);
    in->d = at[0];
    in->a = at[1];
    in->b = at[2];
    in->c = at[3];
}

static vm_fn find(const struct dec *d, unsigned int op, unsigned int type)
{
    return d->isa->fn[op][type];
}

/* Refuses rounding and float modifiers on integers. */
static bool plain_int(struct dec *d, unsigned int type)
{
    if (!is_float(type) && !is_half(type) &&
        (d->m.seen &
         (DM(RND) | DM(FTZ) | DM(APPROX) | DM(FULL) | DM(NAN) | DM(RELU) | DM(XORSIGN))))
        dec_invalid(d, "a floating-point modifier on an integer");
    return !d->bad;
}

static void add(struct dec *d, unsigned int op)
{
    if (!dec_want_types(d, 1) || !plain_int(d, d->m.type[0]))
        return;
    unsigned int t = d->m.type[0];
    bool chain = dec_has(d, DM_CC);
    if (chain) {
        simple(d, find(d, op == VO_ADD ? VO_ADDC : VO_SUBC, t), t);
        d->ins[d->ins_n - 1].aux = VM_CC_OUT;
    } else if (dec_has(d, DM_SAT) && !is_float(t) && !is_half(t)) {
        simple(d, find(d, op == VO_ADD ? VO_ADD_SAT : VO_SUB_SAT, t), t);
    } else {
        simple(d, find(d, op, t), t);
    }
}

static void add_carry(struct dec *d, unsigned int op)
{
    if (!dec_want_types(d, 1))
        return;
    simple(d, find(d, op, d->m.type[0]), d->m.type[0]);
    if (!d->bad)
        d->ins[d->ins_n - 1].aux = VM_CC_IN | (dec_has(d, DM_CC) ? VM_CC_OUT : 0);
}

static void mul(struct dec *d, unsigned int mad)
{
    if (!dec_want_types(d, 1) || !plain_int(d, d->m.type[0]))
        return;
    unsigned int t = d->m.type[0];
    if (is_float(t) || is_half(t)) {
        if (d->m.seen & (DM(LO) | DM(HI) | DM(WIDE) | DM(CC)))
            dec_invalid(d, "an integer modifier on a float");
        simple(d, find(d, mad ? VO_FMA : VO_MUL, t), t);
        return;
    }
    const struct ptx_opnd *o = d->p->opnd;
    if (dec_has(d, DM_WIDE)) {
        unsigned int w = wider(t);
        uint32_t a = dec_src(d, &o[1], t), b = dec_src(d, &o[2], t);
        uint32_t c = mad ? dec_src(d, &o[3], w) : VM_TRASH, to = dec_dst(d, &o[0], w);
        struct vm_ins *in = dec_emit_op(d, mad ? VO_MAD_WIDE : VO_MUL_WIDE, t);
        in->d = to;
        in->a = a;
        in->b = b;
        in->c = c;
        return;
    }
    bool hi = dec_has(d, DM_HI);
    if (!hi && !dec_has(d, DM_LO)) {
        dec_invalid(d, "needs lo, hi or wide");
    } else if (dec_has(d, DM_CC)) {
        simple(d, mad ? find(d, hi ? VO_MADC_HI : VO_MADC, t) : NULL, t);
        if (!d->bad)
            d->ins[d->ins_n - 1].aux = VM_CC_OUT;
    } else if (dec_has(d, DM_SAT)) {
        simple(d, mad && hi ? find(d, VO_MAD_HI_SAT, t) : NULL, t);
    } else {
        simple(d, find(d, mad ? (hi ? VO_MAD_HI : VO_MAD) : hi ? VO_MUL_HI : VO_MUL, t), t);
    }
}

static void mad_carry(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 1))
        return;
    unsigned int t = d->m.type[0];
    simple(d, find(d, dec_has(d, DM_HI) ? VO_MADC_HI : VO_MADC, t), t);
    if (!d->bad)
        d->ins[d->ins_n - 1].aux = VM_CC_IN | (dec_has(d, DM_CC) ? VM_CC_OUT : 0);
}

static void mul24(struct dec *d, unsigned int mad)
{
    if (dec_want_types(d, 1))
        simple(d,
               find(d,
                    mad                 ? (dec_has(d, DM_HI) ? VO_MAD24_HI : VO_MAD24)
                    : dec_has(d, DM_HI) ? VO_MUL24_HI
                                        : VO_MUL24,
                    d->m.type[0]),
               d->m.type[0]);
}

/* One operation, one type, nothing else to it. */
static void same_type(struct dec *d, unsigned int op)
{
    if (dec_want_types(d, 1) && plain_int(d, d->m.type[0]))
        simple(d, find(d, op, d->m.type[0]), d->m.type[0]);
}

/* abs and neg of f32 work on bits: subnormals are flushed afterwards. */
static void sign_op(struct dec *d, unsigned int op)
{
    same_type(d, op);
    if (!d->bad && dec_has(d, DM_FTZ) && d->m.type[0] == PT_F32)
        d->ins[d->ins_n - 1].aux |= VM_FLUSH_OUT;
}

static void divide(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 1) || !plain_int(d, d->m.type[0]))
        return;
    unsigned int t = d->m.type[0];
    bool approx = dec_has(d, DM_APPROX) || dec_has(d, DM_FULL);
    if (is_float(t) && !approx && !dec_has(d, DM_RND))
        dec_invalid(d, "needs a rounding mode");
    simple(d, find(d, approx ? VO_DIV_APPROX : VO_DIV, t), t);
}

/* rcp and sqrt: approx or rounded; rcp.approx.ftz.f64 is a thing of its own. */
static void root(struct dec *d, unsigned int op)
{
    if (!dec_want_types(d, 1))
        return;
    unsigned int t = d->m.type[0];
    bool approx = dec_has(d, DM_APPROX);
    if (approx == dec_has(d, DM_RND))
        dec_invalid(d, "needs approx or a rounding mode");
    if (approx && t == PT_F64 && op == VO_RCP && dec_has(d, DM_FTZ)) {
        d->m.seen &= ~DM(FTZ);
        simple(d, find(d, VO_RCP_FTZ64, t), t);
        return;
    }
    unsigned int fast = op == VO_RCP ? VO_RCP_APPROX : VO_SQRT_APPROX;
    simple(d, find(d, approx ? fast : op, t), t);
}

static void approx(struct dec *d, unsigned int op)
{
    if (!dec_want_types(d, 1))
        return;
    unsigned int t = d->m.type[0];
    if (!dec_has(d, DM_APPROX) && !is_half(t))
        dec_invalid(d, "needs approx");
    if (op == VO_RSQRT && t == PT_F64 && dec_has(d, DM_FTZ)) {
        d->m.seen &= ~DM(FTZ);
        op = VO_RSQRT_FTZ64;
    }
    /* subnormal results of these come from libm in double: the host's flush does not see them */
    simple(d, find(d, op, t), t);
    if (!d->bad && dec_has(d, DM_FTZ) && t == PT_F32)
        d->ins[d->ins_n - 1].aux |= VM_FLUSH_OUT;
}

static void minmax(struct dec *d, unsigned int max)
{
    if (!dec_want_types(d, 1) || dec_has(d, DM_XORSIGN)) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    unsigned int t = d->m.type[0];
    unsigned int op = max ? VO_MAX : VO_MIN;
    if (!is_float(t) && !is_half(t) && (d->m.seen & (DM(FTZ) | DM(NAN))))
        dec_invalid(d, "a floating-point modifier on an integer");
    if (d->p->opnd_n == 4) {
        op = d->m.seen & (DM(NAN) | DM(RELU)) || !is_float(t) ? VO_NONE : max ? VO_MAX3 : VO_MIN3;
    } else if (dec_has(d, DM_NAN) && dec_has(d, DM_RELU)) {
        op = VO_NONE;
    } else if (dec_has(d, DM_NAN)) {
        op = max ? VO_MAX_NAN : VO_MIN_NAN;
    } else if (dec_has(d, DM_RELU)) {
        op = max ? VO_MAX_RELU : VO_MIN_RELU;
    }
    simple(d, find(d, op, t), t);
    if (!d->bad && dec_has(d, DM_FTZ) && t == PT_F32)
        d->ins[d->ins_n - 1].aux |= VM_FLUSH_OUT;
}

static void fma_op(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 1))
        return;
    unsigned int t = d->m.type[0];
    if (is_float(t) && !dec_has(d, DM_RND))
        dec_invalid(d, "needs a rounding mode");
    simple(d, find(d, dec_has(d, DM_RELU) ? VO_FMA_RELU : VO_FMA, t), t);
}

static void logic(struct dec *d, unsigned int op)
{
    static const uint8_t of_pred[VO_N] = {[VO_AND] = VO_PAND, [VO_OR] = VO_POR, [VO_XOR] = VO_PXOR};
    if (!dec_want_types(d, 1))
        return;
    unsigned int t = d->m.type[0];
    if (t != PT_PRED) {
        simple(d, find(d, op, t), t);
        return;
    }
    bool na, nb = false;
    uint32_t a = dec_pred_src(d, &d->p->opnd[1], &na);
    uint32_t b = op == VO_NOT ? VM_TRUE : dec_pred_src(d, &d->p->opnd[2], &nb);
    uint32_t to = dec_dst(d, &d->p->opnd[0], t);
    struct vm_ins *in = dec_emit_op(d, op == VO_NOT ? VO_PNOT : of_pred[op], t);
    in->d = to == VM_TRASH ? VM_TRASH : to;
    in->a = a;
    in->b = b;
    in->aux = (na ? 1 : 0) | (nb ? 2 : 0);
}

/* The operands after the first `wide_n` sources are 32-bit whatever the type. */
static void mixed(struct dec *d, vm_fn fn, unsigned int dst, unsigned int type, uint32_t wide_n)
{
    const struct ptx_opnd *o = d->p->opnd;
    uint32_t at[5] = {VM_TRASH, VM_TRASH, VM_TRASH, VM_TRASH, VM_TRASH};
    for (uint32_t i = 1; i < d->p->opnd_n && i < 5; i++)
        at[i] = dec_src(d, &o[i], i <= wide_n ? type : PT_U32);
    at[0] = dec_dst(d, &o[0], dst);
    struct vm_ins *in = dec_emit(d, fn);
    in->d = at[0];
    in->a = at[1];
    in->b = at[2];
    in->c = at[3];
    in->e = at[4];
}

static void shift(struct dec *d, unsigned int op)
{
    if (dec_want_types(d, 1))
        mixed(d, find(d, op, d->m.type[0]), d->m.type[0], d->m.type[0], 1);
}

static void count(struct dec *d, unsigned int op)
{
    if (!dec_want_types(d, 1))
        return;
    if (dec_has(d, DM_SHIFTAMT))
        op = VO_BFIND_SHIFT;
    mixed(d, find(d, op, d->m.type[0]), PT_U32, d->m.type[0], 1);
}

static void bfe(struct dec *d, unsigned int op)
{
    if (dec_want_types(d, 1))
        mixed(d, find(d, op, d->m.type[0]), d->m.type[0], d->m.type[0], op == VO_BFI ? 2 : 1);
}

static void shf(struct dec *d, unsigned int arg)
{
    static const uint8_t ops[2][2] = {{VO_SHF_R_CLAMP, VO_SHF_R_WRAP},
                                      {VO_SHF_L_CLAMP, VO_SHF_L_WRAP}};
    (void)arg;
    if (!dec_has(d, DM_LR) || dec_has(d, DM_WRAP) == dec_has(d, DM_CLAMP))
        dec_invalid(d, "needs l or r, and wrap or clamp");
    if (dec_want_types(d, 1))
        simple(d, find(d, ops[d->m.left][dec_has(d, DM_WRAP)], d->m.type[0]), d->m.type[0]);
}

static void prmt(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (dec_want_types(d, 1))
        simple(d, find(d, dec_has(d, DM_PRMT) ? d->m.prmt : VO_PRMT, d->m.type[0]), d->m.type[0]);
}

static void wrap_clamp(struct dec *d, unsigned int clamp_op)
{
    if (dec_has(d, DM_WRAP) == dec_has(d, DM_CLAMP))
        dec_invalid(d, "needs wrap or clamp");
    if (dec_want_types(d, 1))
        simple(d, find(d, clamp_op + dec_has(d, DM_WRAP), d->m.type[0]), d->m.type[0]);
}

static void lop3(struct dec *d, unsigned int arg)
{
    (void)arg;
    const struct ptx_opnd *o = d->p->opnd;
    if (!dec_want_types(d, 1) || o[4].kind != PO_INT || o[4].bits > 255) {
        dec_invalid(d, "needs a table of 8 bits");
        return;
    }
    uint32_t to = dec_dst(d, &o[0], PT_B32), a = dec_src(d, &o[1], PT_B32);
    uint32_t b = dec_src(d, &o[2], PT_B32), c = dec_src(d, &o[3], PT_B32);
    struct vm_ins *in = dec_emit_op(d, VO_LOP3, d->m.type[0]);
    in->d = to;
    in->a = a;
    in->b = b;
    in->c = c;
    in->aux = (uint32_t)o[4].bits;
}

/* dp4a.atype.btype d, a, b, c */
static void dot(struct dec *d, unsigned int op)
{
    if (!dec_want_types(d, 2))
        return;
    if (op == VO_DP2A_LO && dec_has(d, DM_HI))
        op = VO_DP2A_HI;
    if (d->m.type[1] != PT_U32 && d->m.type[1] != PT_S32)
        dec_invalid(d, "unknown type of b");
    simple(d, find(d, op, d->m.type[0]), PT_U32);
    if (!d->bad)
        d->ins[d->ins_n - 1].aux = d->m.type[1] == PT_S32;
}

/* vabsdiff4.u32.u32.u32{.add} d, a, b, c: the differences, added to c or side by side */
static void absdiff(struct dec *d, unsigned int op)
{
    bool add = dec_has(d, DM_ATOM);
    if (!dec_want_types(d, 3) || d->m.type[1] != d->m.type[2] || (add && d->m.atom != VA_ADD) ||
        ptx_type_size(d->m.type[0]) != 4) {
        dec_invalid(d, "this form is not supported");
        return;
    }
    if (!add)
        op = op == VO_VABSDIFF2 ? VO_VABSDIFF2_EACH : VO_VABSDIFF4_EACH;
    simple(d, find(d, op, d->m.type[1]), PT_U32);
}

static void selp(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 1))
        return;
    const struct ptx_opnd *o = d->p->opnd;
    unsigned int t = d->m.type[0], bits = dec_bits(t);
    bool neg;
    if (bits == PT_B16)
        bits = PT_B32;
    uint32_t to = dec_dst(d, &o[0], t), a = dec_src(d, &o[1], t), b = dec_src(d, &o[2], t);
    uint32_t c = dec_pred_src(d, &o[3], &neg);
    struct vm_ins *in = dec_emit_op(d, VO_SELP, bits);
    in->d = to;
    in->a = a;
    in->b = b;
    in->c = c;
    in->aux = neg ? UINT32_MAX : 0;
}

static void slct(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 2))
        return;
    const struct ptx_opnd *o = d->p->opnd;
    unsigned int t = d->m.type[0], bits = dec_bits(t), ct = d->m.type[1];
    if (bits == PT_B16)
        bits = PT_B32;
    if ((ct != PT_S32 && ct != PT_F32) || (dec_has(d, DM_FTZ) && ct != PT_F32))
        dec_invalid(d, "unexpected type of c");
    uint32_t to = dec_dst(d, &o[0], t), a = dec_src(d, &o[1], t), b = dec_src(d, &o[2], t);
    uint32_t c =
        dec_src(d, &o[3], ct); /* a flushed subnormal >= 0 only if it is -0: -x stays < 0 */
    if (dec_has(d, DM_FTZ))
        dec_invalid(d, "ftz is not supported");
    struct vm_ins *in = dec_emit_op(d, ct == PT_S32 ? VO_SLCT : VO_SLCT_F32, bits);
    in->d = to;
    in->a = a;
    in->b = b;
    in->c = c;
}

/* How a third predicate joins a comparison. */
static uint32_t join(struct dec *d, const struct ptx_opnd *c, uint32_t *c_out)
{
    bool neg = false;
    uint32_t how = dec_has(d, DM_AND)   ? VM_JOIN_AND
                   : dec_has(d, DM_OR)  ? VM_JOIN_OR
                   : dec_has(d, DM_XOR) ? VM_JOIN_XOR
                                        : 0;
    *c_out = VM_TRUE;
    if (!how != !c)
        dec_invalid(d, "a joined comparison needs one predicate more");
    else if (c)
        *c_out = dec_pred_src(d, c, &neg);
    return how | (neg ? VM_JOIN_NEG : 0);
}

/* lo and hi compare unsigned; they are not in DM_CMP because mul has them too. */
static unsigned int comparison(struct dec *d)
{
    unsigned int n = dec_has(d, DM_CMP) + dec_has(d, DM_LO) + dec_has(d, DM_HI);
    if (n != 1)
        dec_invalid(d, "needs one comparison");
    return dec_has(d, DM_LO) ? VC_LT : dec_has(d, DM_HI) ? VC_GT : d->m.cmp;
}

static void setp(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 1))
        return;
    const struct ptx_opnd *o = d->p->opnd;
    unsigned int t = d->m.type[0], cmp = comparison(d);
    uint32_t c, how = join(d, d->p->opnd_n > 3 ? &o[3] : NULL, &c);
    struct ptx_opnd p = o[0];
    p.pair = NULL;
    uint32_t a = dec_src(d, &o[1], t), b = dec_src(d, &o[2], t), to = dec_dst(d, &p, PT_PRED);
    uint32_t q = o[0].pair ? dec_dst(d, o[0].pair, PT_PRED) : VM_TRASH;
    vm_fn fn = cmp < VC_N ? d->isa->setp[cmp][t] : NULL;
    struct vm_ins *in = dec_emit_fp(d, fn, t, dec_has(d, DM_FTZ) ? VM_FTZ : 0);
    if (dec_has(d, DM_FTZ) && t != PT_F32 && !is_half(t))
        dec_invalid(d, "ftz on a type without it");
    in->d = to;
    in->a = a;
    in->b = b;
    in->c = c;
    in->e = q;
    in->aux |= how << VM_AUX_SHIFT;
}

/* What set writes for true: ones unless the result is a float; pairs have pairs or a mask. */
static uint32_t set_result(struct dec *d, unsigned int to, unsigned int from)
{
    bool pair = from == PT_F16X2 || from == PT_BF16X2;
    if (to == PT_U32 || to == PT_S32)
        return 0;
    if (to == PT_F32 && !pair)
        return VM_SET_FLOAT;
    if ((to == PT_F16 && !pair) || (to == PT_F16X2 && from == to))
        return VM_SET_HALF;
    if ((to == PT_BF16 && !pair) || (to == PT_BF16X2 && from == to))
        return VM_SET_BF;
    dec_invalid(d, "this result type is not supported");
    return 0;
}

/* set.cmp{.bool}.dtype.stype */
static void set(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 2))
        return;
    const struct ptx_opnd *o = d->p->opnd;
    unsigned int to_type = d->m.type[0], t = d->m.type[1], cmp = comparison(d);
    uint32_t c, how = join(d, d->p->opnd_n > 3 ? &o[3] : NULL, &c);
    how |= set_result(d, to_type, t);
    uint32_t a = dec_src(d, &o[1], t), b = dec_src(d, &o[2], t), to = dec_dst(d, &o[0], to_type);
    vm_fn fn = cmp < VC_N ? d->isa->set[cmp][t] : NULL;
    if (dec_has(d, DM_FTZ) && t != PT_F32)
        dec_invalid(d, "ftz on a type without it");
    struct vm_ins *in = dec_emit_fp(d, fn, t, dec_has(d, DM_FTZ) ? VM_FTZ : 0);
    in->d = to;
    in->a = a;
    in->b = b;
    in->c = c;
    in->aux |= how << VM_AUX_SHIFT;
}

static void testp(struct dec *d, unsigned int arg)
{
    (void)arg;
    if (!dec_want_types(d, 1) || !dec_has(d, DM_TEST)) {
        dec_invalid(d, "needs a property and a type");
        return;
    }
    uint32_t a = dec_src(d, &d->p->opnd[1], d->m.type[0]);
    uint32_t to = dec_dst(d, &d->p->opnd[0], PT_PRED);
    struct vm_ins *in = dec_emit_op(d, d->m.test, d->m.type[0]);
    in->d = to;
    in->a = a;
}

/* clang-format off */
#define ROUNDED (DM(RND) | DM(FTZ) | DM(SAT))
const struct dec_row dec_alu_rows[] = {
    {"add", add, VO_ADD, ROUNDED | DM(CC), 3, 3},
    {"sub", add, VO_SUB, ROUNDED | DM(CC), 3, 3},
    {"addc", add_carry, VO_ADDC, DM(CC), 3, 3},
    {"subc", add_carry, VO_SUBC, DM(CC), 3, 3},
    {"mul", mul, 0, ROUNDED | DM(LO) | DM(HI) | DM(WIDE), 3, 3},
    {"mad", mul, 1, ROUNDED | DM(LO) | DM(HI) | DM(WIDE) | DM(CC), 4, 4},
    {"madc", mad_carry, 0, DM(LO) | DM(HI) | DM(CC), 4, 4},
    {"mul24", mul24, 0, DM(LO) | DM(HI), 3, 3},
    {"mad24", mul24, 1, DM(LO) | DM(HI), 4, 4},
    {"sad", same_type, VO_SAD, 0, 4, 4},
    {"div", divide, 0, DM(RND) | DM(FTZ) | DM(APPROX) | DM(FULL), 3, 3},
    {"rem", same_type, VO_REM, 0, 3, 3},
    {"abs", sign_op, VO_ABS, DM(FTZ), 2, 2},
    {"neg", sign_op, VO_NEG, DM(FTZ), 2, 2},
    {"min", minmax, 0, DM(FTZ) | DM(NAN) | DM(XORSIGN) | DM(RELU), 3, 4},
    {"max", minmax, 1, DM(FTZ) | DM(NAN) | DM(XORSIGN) | DM(RELU), 3, 4},
    {"fma", fma_op, 0, ROUNDED | DM(RELU), 4, 4},
    {"rcp", root, VO_RCP, DM(RND) | DM(FTZ) | DM(APPROX), 2, 2},
    {"sqrt", root, VO_SQRT, DM(RND) | DM(FTZ) | DM(APPROX), 2, 2},
    {"rsqrt", approx, VO_RSQRT, DM(FTZ) | DM(APPROX), 2, 2},
    {"ex2", approx, VO_EX2, DM(FTZ) | DM(APPROX), 2, 2},
    {"lg2", approx, VO_LG2, DM(FTZ) | DM(APPROX), 2, 2},
    {"sin", approx, VO_SIN, DM(FTZ) | DM(APPROX), 2, 2},
    {"cos", approx, VO_COS, DM(FTZ) | DM(APPROX), 2, 2},
    {"tanh", approx, VO_TANH, DM(APPROX), 2, 2},
    {"copysign", same_type, VO_COPYSIGN, 0, 3, 3},
    {"testp", testp, 0, DM(TEST), 2, 2},
    {"and", logic, VO_AND, 0, 3, 3},
    {"or", logic, VO_OR, 0, 3, 3},
    {"xor", logic, VO_XOR, 0, 3, 3},
    {"not", logic, VO_NOT, 0, 2, 2},
    {"cnot", same_type, VO_CNOT, 0, 2, 2},
    {"shl", shift, VO_SHL, 0, 3, 3},
    {"shr", shift, VO_SHR, 0, 3, 3},
    {"popc", count, VO_POPC, 0, 2, 2},
    {"clz", count, VO_CLZ, 0, 2, 2},
    {"bfind", count, VO_BFIND, DM(SHIFTAMT), 2, 2},
    {"brev", same_type, VO_BREV, 0, 2, 2},
    {"bfe", bfe, VO_BFE, 0, 4, 4},
    {"bfi", bfe, VO_BFI, 0, 5, 5},
    {"fns", same_type, VO_FNS, 0, 4, 4},
    {"shf", shf, 0, DM(LR) | DM(WRAP) | DM(CLAMP), 4, 4},
    {"lop3", lop3, 0, 0, 5, 5},
    {"prmt", prmt, 0, DM(PRMT), 4, 4},
    {"bmsk", wrap_clamp, VO_BMSK_CLAMP, DM(WRAP) | DM(CLAMP), 3, 3},
    {"szext", wrap_clamp, VO_SZEXT_CLAMP, DM(WRAP) | DM(CLAMP), 3, 3},
    {"dp4a", dot, VO_DP4A, 0, 4, 4},
    {"dp2a", dot, VO_DP2A_LO, DM(LO) | DM(HI), 4, 4},
    {"vabsdiff2", absdiff, VO_VABSDIFF2, DM(ATOM), 4, 4},
    {"vabsdiff4", absdiff, VO_VABSDIFF4, DM(ATOM), 4, 4},
    {"selp", selp, 0, 0, 4, 4},
    {"slct", slct, 0, DM(FTZ), 4, 4},
    {"setp", setp, 0, DM(CMP) | DM(LO) | DM(HI) | DM(AND) | DM(OR) | DM(XOR) | DM(FTZ), 3, 4},
    {"set", set, 0, DM(CMP) | DM(LO) | DM(HI) | DM(AND) | DM(OR) | DM(XOR) | DM(FTZ), 3, 4},
    {0},
};
/* clang-format on */
